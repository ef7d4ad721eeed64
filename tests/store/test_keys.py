"""A content key changes when anything changes, and only then."""

from __future__ import annotations

import dataclasses

import pytest

from pysim.errors import DataError
from pysim.store import cache_folder, content_key, data_identity, file_digest, source_digest
from pysim.training import TrainConfig


def test_every_field_of_the_training_settings_is_in_the_key():
    base = TrainConfig(epochs=1)
    changed = {}
    for field in dataclasses.fields(base):
        value = getattr(base, field.name)
        if isinstance(value, bool):
            changed[field.name] = not value
        else:
            changed[field.name] = value + 1 if isinstance(value, int) else value / 2 + 0.01
    keys = {content_key({"training": dataclasses.asdict(base)})}
    for name, value in changed.items():
        other = dataclasses.replace(base, **{name: value})
        keys.add(content_key({"training": dataclasses.asdict(other)}))
    assert len(keys) == 1 + len(changed)


def test_the_key_does_not_depend_on_the_order_of_fields():
    assert content_key({"a": 1, "b": [1.5, None]}) == content_key({"b": [1.5, None], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": "1"})


def test_a_key_cannot_be_made_of_what_is_not_a_number():
    with pytest.raises(ValueError, match="JSON compliant"):
        content_key({"lr": float("nan")})


def test_a_new_version_is_a_new_key(monkeypatch):
    before = content_key({"a": 1})
    monkeypatch.setattr("pysim.__version__", "999")
    assert content_key({"a": 1}) != before


def test_the_key_of_a_data_folder_follows_its_files(tmp_path):
    (tmp_path / "one").write_bytes(b"1")
    before = data_identity(f"idx:{tmp_path}")
    assert data_identity(f"idx:{tmp_path}") == before
    assert data_identity(f"cifar10:{tmp_path}") != before
    (tmp_path / "one").write_bytes(b"2")
    assert data_identity(f"idx:{tmp_path}") != before


def test_the_source_digest_covers_the_named_parts():
    assert source_digest(("training",)) != source_digest(("training", "pruning"))


def test_an_absent_file_has_no_digest(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        file_digest(tmp_path / "absent")


def test_the_cache_folder_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("PYSIM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("PYSIM_CACHE", "")
    assert cache_folder().parts[-2:] == (".cache", "pysim")

"""Runs in this process, which has imported torch already; other tests start one for each command."""

from __future__ import annotations

import json

import pytest

from pysim.cli import main


@pytest.fixture
def run_here(monkeypatch, capsys):
    """``call(*args, cache=folder)`` runs a command that succeeds silently; what its ``--json`` said."""

    def call(*args, cache):
        monkeypatch.setenv("PYSIM_CACHE", str(cache))
        with pytest.raises(SystemExit) as left:
            main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        assert (left.value.code, err) == (0, "")
        return json.loads(out)

    return call

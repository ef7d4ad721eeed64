"""These networks are far too small for two threads to pay."""

from __future__ import annotations

import sys

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


MODEL = """
import torch
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 10),
    )

def wrong():
    return 3

def broken():
    raise RuntimeError("no such luck")
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A user's model of 8 x 8 images in the current folder, and an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "tinymodel.py").write_text(MODEL)
    monkeypatch.setenv("PYSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "tinymodel", raising=False)
    yield "tinymodel:build"
    sys.modules.pop("tinymodel", None)

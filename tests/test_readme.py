"""The README's Python runs, its commands parse, its links lead somewhere. CI runs the commands themselves."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pysim.cli.commands import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.S))
def test_the_python_of_the_readme_runs(code, tmp_path):
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


COMMANDS = re.findall(r"^\$ \.venv/bin/pysim (.*)$", README, re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_has_known_options(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for written in re.findall(r"--out (\S+)", "\n".join(COMMANDS)):
        Path(written).touch()  # a later command reads what an earlier one has written
    words = shlex.split(command.partition(">")[0], comments=True)
    subcommand = cli.commands[words[0]]
    with subcommand.make_context(words[0], words[1:]) as context:
        assert context.params is not None


def test_the_readme_shows_commands():
    assert any(command.startswith("run resnet20") for command in COMMANDS)


def test_every_make_target_of_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^\$ make ([a-z-]+)", README, re.M)
    assert {"run", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.parametrize("page", sorted(p.relative_to(ROOT) for p in (ROOT / "docs").glob("*.md")), ids=str)
def test_every_page_is_named_in_the_readme(page):
    assert f"({page})" in README


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target

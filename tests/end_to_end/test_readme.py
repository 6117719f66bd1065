"""Every command and every line of Python in the README runs as written."""

import os
import shlex
import subprocess
import sys

import pytest
from tests.fakes.page_commands import ROOT, blocks, lines, run_commands

README = (ROOT / "README.md").read_text()
# A minute and a half by themselves; their short form is run with calibration/WALK.md.
QUANTIZE = blocks(README, "sh")[-1].splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the README's commands have run, in order, without those that quantize."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "build" / "readme").mkdir(parents=True)
    run_commands(README, folder, skipped=QUANTIZE)
    return folder


def test_the_commands_run(folder):
    assert (folder / "build/readme/bundle/manifest.json").is_file()
    assert sum(line.startswith("memorywam") for line in lines(README, "sh")) >= 8


@pytest.mark.proof
def test_the_commands_that_quantize_run_too(tmp_path):
    assert any(line.startswith("memorywam calibrate") for line in QUANTIZE)
    (tmp_path / "build" / "readme").mkdir(parents=True)
    run_commands(README, tmp_path)
    assert (tmp_path / "build/readme/int8/manifest.json").is_file()


def test_the_make_targets_exist():
    targets = [line for line in lines(README, "sh") if line.startswith("make ")]
    assert targets
    for line in targets:
        command = [*shlex.split(line), "--dry-run"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_python_runs(folder):
    (code,) = blocks(README, "python")
    done = subprocess.run(
        [sys.executable, "-c", code + "\nassert chunk.shape == (16, 14)\n"],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

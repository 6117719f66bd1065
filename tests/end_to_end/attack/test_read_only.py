"""Folders that may not be written and files that may not be read: told at once, in one line."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memorywam_runtime import cli
from memorywam_runtime.bundle import read_manifest

pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")

CAPABILITIES = "-dac_override,-dac_read_search"
PROGRAM = """
import contextlib, io, json, sys
from memorywam_runtime.cli import main

for name, words in json.load(sys.stdin).items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    print(json.dumps([name, status, out.getvalue(), err.getvalue()]), flush=True)
"""
"""Many verbs in one process: each loads what the others have loaded."""

SIMULATED = ("--robot", "sim:recall", "--instruction", "random", "--threads", "1")
WRITING = {
    "export": ("export", "random:tiny:0", "--out", "{shut}/bundle"),
    "export over": ("export", "random:tiny:0", "--out", "{into}", "--overwrite"),
    "prompt": ("prompt", "{kept}", "--add", "x", "--embedding", "{given}/x.npy"),
    "prompt away": ("prompt", "{kept}", "--remove", "random"),
    "build": ("build", "{kept}", "--backend", "tensorrt-rtx", "--target", "sm_89"),
    "build out": ("build", "{open}", "--backend", "tensorrt-rtx", "--target", "sm_89",
                  "--out", "{shut}"),
    "calibrate": ("calibrate", "{open}", "--recordings", "{given}", "--out", "{shut}/bundle",
                  "--recipe", "int8-weight"),
    "run": ("run", "{open}", *SIMULATED, "--record", "{shut}/recordings"),
    "run page": ("run", "{open}", *SIMULATED, "--page", "{shut}/run.html"),
    "run film": ("run", "{open}", *SIMULATED, "--film", "{shut}/film.webp"),
    "demo": ("demo", "--episodes", "1", "--out", "{shut}/demo"),
    "demo in": ("demo", "--episodes", "1", "--out", "{shut}"),
    "bench page": ("bench", "{open}", "--frames", "1", "--plot", "{shut}/bench.html"),
    "bench json": ("bench", "{open}", "--frames", "1", "--json", "{shut}/bench.json"),
    "inspect json": ("inspect", "{open}", "--json", "{shut}/told.json"),
    "replay json": ("replay", "{given}/one.mcap", "--bundle", "{open}", "--threads", "1",
                    "--json", "{shut}/told.json"),
}  # fmt: skip
"""What would write where it may not."""
READING = {
    "replay": ("replay", "{hidden}/secret.mcap", "--bundle", "{open}", "--threads", "1"),
    "calibrate": ("calibrate", "{open}", "--recordings", "{hidden}/secret.mcap",
                  "--out", "{given}/table.json", "--samples", "8"),
    "prompt": ("prompt", "{open}", "--add", "x", "--embedding", "{hidden}/secret.npy"),
    "inspect": ("inspect", "{secret}"),
    "run": ("run", "{secret}", *SIMULATED),
    "export": ("export", "{hidden}/secret.safetensors", "--preset", "tiny", "--out", "{given}/out"),
}  # fmt: skip
"""What would read what it may not."""
WORKING = {
    "inspect": ("inspect", "{kept}"),
    "prompt": ("prompt", "{kept}", "--list"),
    "doctor": ("doctor", "{kept}"),
    "bench": ("bench", "{kept}", "--frames", "1", "--threads", "1"),
    "run": ("run", "{kept}", *SIMULATED, "--dry-run"),
    "replay": ("replay", "{given}/one.mcap", "--bundle", "{kept}", "--threads", "1"),
    "verify": ("verify", "{kept}", "--checkpoint", "random:tiny:0", "--frames", "1", "--no-faults"),
}
"""What a bundle needs no writing for."""


def as_ordinary_user():
    """Return what begins the words of a program that modes bind; root they do not."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return ()
    return ("setpriv", f"--inh-caps={CAPABILITIES}", f"--bounding-set={CAPABILITIES}")


def modes_bind(folder):
    """Return whether modes are heeded, by this file system and for what we start."""
    words = [*as_ordinary_user(), sys.executable, "-c", "open('x', 'w')"]
    done = subprocess.run(words, cwd=folder, capture_output=True, check=False)
    return done.returncode != 0


def set_writable(folder, *, is_writable):
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755 if is_writable else 0o555)


def files_in(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


class NoOther(dict[str, list[Any]]):
    """What each verb told."""

    def __missing__(self, name):
        pytest.skip("modes bind nobody here")


def prepared(root, bundle):
    """Make what the verbs are given; return name to path."""
    places = {name: root / name for name in ("shut", "open", "given", "hidden", "secret")}
    places |= {"kept": root / "shut" / "kept", "into": root / "into" / "kept"}
    for name in ("kept", "into", "open", "secret"):
        shutil.copytree(bundle, places[name])
    given, hidden = places["given"], places["hidden"]
    hidden.mkdir()
    assert cli.main(["run", str(bundle), *SIMULATED, "--record", str(given)]) == 0
    (given / "sim-recall-seed-0.mcap").rename(given / "one.mcap")
    width = read_manifest(bundle).contract.text_dim
    np.save(given / "x.npy", np.zeros((2, width), np.float32))
    shutil.copyfile(given / "x.npy", hidden / "secret.npy")
    shutil.copyfile(given / "one.mcap", hidden / "secret.mcap")
    (hidden / "secret.safetensors").write_bytes(b"")
    for path in (*hidden.iterdir(), places["secret"] / "manifest.json"):
        path.chmod(0)
    for name in ("shut", "into"):
        set_writable(root / name, is_writable=False)
    (root / "into").chmod(0o755)
    if not modes_bind(root / "shut"):
        # Root, and no way to be less: what no mode forbids is left out. In there nobody writes.
        places = {name: places[name] for name in ("open", "given")}
        places["shut"] = Path("/proc")
    return places


def play(places):
    """Play all in a process that modes bind; yield what each told."""
    jobs = {}
    for kind, some in (("writing", WRITING), ("reading", READING), ("working", WORKING)):
        for name, words in some.items():
            with contextlib.suppress(KeyError):
                jobs[f"{kind} {name}"] = [word.format(**places) for word in words]
    with subprocess.Popen(
        [*as_ordinary_user(), sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(jobs))
        process.stdin.close()
        for line in process.stdout:
            name, *found = json.loads(line)
            yield name, found


@pytest.fixture(scope="module")
def told(tiny_bundle, tmp_path_factory):
    """Play all; return what each told, what was there before, and what is there now."""
    root = tmp_path_factory.mktemp("modes")
    places = prepared(root, tiny_bundle)
    before = files_in(root)
    found = NoOther(play(places))
    after = files_in(root)
    set_writable(root, is_writable=True)
    return found, before, after


@pytest.mark.parametrize("name", WRITING)
def test_a_folder_that_may_not_be_written_is_told(told, name):
    status, out, err = told[0][f"writing {name}"]
    if "NO page at /proc/" in out:
        return
    assert status == 2, (out, err)
    said = [line for line in err.splitlines() if "has not been verified" not in line]
    assert len(said) == 1, err
    if "/proc" not in said[0]:
        told_so = ("Permission denied", "may not be written", "in a directory that may be written")
        assert any(words in said[0] for words in told_so)
    assert out == ""


@pytest.mark.parametrize("name", READING)
def test_a_file_that_may_not_be_read_is_told(told, name):
    status, out, err = told[0][f"reading {name}"]
    assert (status, out) == (2, "")
    assert err.count("\n") == 1, err
    assert "Permission denied" in err


@pytest.mark.parametrize("name", WORKING)
def test_a_bundle_that_needs_no_writing_works(told, name):
    status, out, err = told[0][f"working {name}"]
    assert status == 0 or (name == "doctor" and status == 1), (out, err)
    assert "Traceback" not in err
    if name == "verify":
        assert "the report could not be written into the bundle: " in out
        assert "Permission denied" in out


def test_nothing_is_left_by_what_was_refused(told):
    _, before, after = told
    assert after == before

"""The program stopped, killed and crowded: what is left is whole, or nothing that loads."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from tests.fakes.programs import ended, until

from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.cli import main

pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")

CHECKPOINT = "random:tiny:0"
STATUSES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def begun(*words, limit_bytes=None, **variables):
    """Start the program as a terminal does: signals are heard, whatever we ourselves ignore."""

    def prepare():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.Popen(
        [sys.executable, "-m", "memorywam_runtime.cli", *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=prepare,
    )  # fmt: skip


def group_has_ended(pid):
    """Return whether all that a program started has ended with it."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return False


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
            if path.is_file()}  # fmt: skip


RUN = ("--robot", "sim:recall", "--instruction", "random", "--threads", "1")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "out"
    made.mkdir()
    return made


def test_a_recording_of_a_run_that_was_killed_is_no_recording(tiny_bundle, folder, capsys):
    words = ("run", str(tiny_bundle), *RUN, "--record", str(folder))
    process = begun(*words)
    until(process, lambda: any(folder.glob("*.part")))
    process.kill()
    ended(process)
    assert group_has_ended(process.pid)
    assert [path.name for path in folder.iterdir()] == ["sim-recall-seed-0.mcap.part"]
    assert main(list(words)) == 2
    said = capsys.readouterr().err
    assert "an earlier recording; expected none of this robot and seed" in said


def test_a_bundle_that_is_replaced_while_it_runs_is_no_matter(tiny_bundle, tmp_path, folder):
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    process = begun("run", bundle, *RUN, "--record", folder)
    until(process, lambda: any(folder.glob("*.part")))
    bundle.rename(tmp_path / "old")
    (bundle / "prompts").mkdir(parents=True)
    status, said = ended(process)
    assert status == 0, said
    assert "Traceback" not in said
    assert [path.name for path in folder.iterdir()] == ["sim-recall-seed-0.mcap"]


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.proof),
        pytest.param(signal.SIGHUP, marks=pytest.mark.proof),
    ],
)
def test_a_run_that_is_stopped_leaves_only_what_says_it_is_unfinished(tiny_bundle, folder, number):
    process = begun("run", tiny_bundle, *RUN, "--record", folder, "--film", folder / "film.webp")
    until(process, lambda: any(folder.glob("*.part")))
    process.send_signal(number)
    process.send_signal(number)
    status, said = ended(process)
    assert (status, "Traceback" in said) == (STATUSES[number], False), said
    assert group_has_ended(process.pid)
    # Nothing at all if the signal came before the recording's header was whole.
    assert {path.name for path in folder.iterdir()} <= {"sim-recall-seed-0.mcap.part"}


JOBS = {
    "export": ("export", CHECKPOINT, "--out", "{out}/bundle"),
    "verify": ("verify", "{out}/bundle", "--checkpoint", CHECKPOINT, "--frames", "4"),
    "bench": ("bench", "{out}/bundle", "--frames", "1,10", "--json", "{out}/told.json"),
    "demo": ("demo", "--episodes", "1", "--out", "{out}/demo"),
}


@pytest.mark.proof
@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.9])
@pytest.mark.parametrize("job", ["export", "verify", "bench"])
def test_a_job_that_is_stopped_anywhere_leaves_nothing(tiny_bundle, tmp_path, folder, job, share):
    """The first turn is not stopped: its length says where the others are."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    if job != "export":
        shutil.copytree(tiny_bundle, folder / "bundle")
    before = files_in(folder)
    words = [word.format(out=folder) for word in JOBS[job]]
    length_s = _length_s(job, words)
    shutil.rmtree(folder)
    folder.mkdir()
    if job != "export":
        shutil.copytree(tiny_bundle, folder / "bundle")
    number = list(STATUSES)[round(10 * share) % 3]
    process = begun(*words, TMPDIR=str(temporary))
    threading.Timer(share * length_s, process.send_signal, [number]).start()
    status, said = ended(process)
    assert group_has_ended(process.pid)
    if status == 0:  # it was faster than the first
        return
    # Before the program hears signals, and when all is done, they end it by themselves.
    assert status in (STATUSES[number], -number), said
    assert "Traceback" not in said
    if status == -number and files_in(folder) != before:
        check_bundle(folder / "bundle")
        return
    assert files_in(folder) == before
    # Torch keeps what it has compiled; nothing of ours is there.
    assert [path.name for path in temporary.iterdir() if "torchinductor" not in path.name] == []


_LENGTHS_S: dict[str, float] = {}


def _length_s(job, words):
    """Return how long a job takes here."""
    if job not in _LENGTHS_S:
        started_s = time.monotonic()
        status, said = ended(begun(*words), 600)
        assert status == 0, said
        _LENGTHS_S[job] = time.monotonic() - started_s
    return _LENGTHS_S[job]


@pytest.mark.proof
def test_an_export_that_was_killed_does_not_stand_in_the_next_ones_way(folder):
    out = folder / "bundle"
    process = begun("export", CHECKPOINT, "--out", out)
    until(process, lambda: any(folder.glob(".bundle.*.draft/*.onnx")))
    process.kill()
    ended(process)
    (draft,) = folder.iterdir()
    assert main(["inspect", str(out)]) == 2
    status, said = ended(begun("export", CHECKPOINT, "--out", out), 600)
    assert status == 0, said
    assert f"removed {draft}, the draft of a job that was killed" in said
    check_bundle(out)
    assert list(folder.iterdir()) == [out]


@pytest.mark.proof
def test_two_exports_to_one_place_leave_one_bundle(folder):
    out = folder / "bundle"
    both = [begun("export", CHECKPOINT, "--out", out) for _ in range(2)]
    found = [ended(process, 600) for process in both]
    statuses = sorted(status for status, _ in found)
    assert statuses[0] == 0, found
    assert statuses[1] in (0, 2), found
    assert not any("Traceback" in said for _, said in found), found
    check_bundle(out)
    assert list(folder.iterdir()) == [out]


@pytest.mark.proof
def test_many_jobs_on_one_bundle_do_not_see_each_other(tiny_bundle, tmp_path, folder):
    before = files_in(tiny_bundle)
    jobs = [
        begun("bench", tiny_bundle, "--frames", "1", "--json", folder / f"bench-{index}.json")
        for index in range(2)
    ] + [begun("run", tiny_bundle, *RUN, "--record", tmp_path / f"{index}") for index in range(2)]
    for process in jobs:
        status, said = ended(process, 600)
        assert status == 0, said
    assert files_in(tiny_bundle) == before
    for name in ("0", "1"):
        (recording,) = (tmp_path / name).glob("*.mcap")
        words = ["replay", str(recording), "--bundle", str(tiny_bundle), "--threads", "1"]
        assert main([*words, "--assert-equal"]) == 0


@pytest.mark.proof
@pytest.mark.parametrize("limit_bytes", [1_000, 20_000, 60_000])
def test_a_disk_that_fills_during_an_export_leaves_nothing(folder, limit_bytes):
    process = begun("export", CHECKPOINT, "--out", folder / "bundle", limit_bytes=limit_bytes)
    status, said = ended(process, 600)
    assert status == 2, said
    assert "Traceback" not in said
    assert said.count("\n") == 1, said
    assert list(folder.iterdir()) == []


@pytest.mark.proof
def test_a_demo_that_is_stopped_stops_what_it_has_started(folder):
    out = folder / "demo"
    process = begun(*[word.format(out=folder) for word in JOBS["demo"]])
    until(process, lambda: any(out.glob(".bundle.*.draft/*")))
    process.send_signal(signal.SIGTERM)
    status, said = ended(process)
    assert (status, "Traceback" in said) == (143, False), said
    assert group_has_ended(process.pid)
    assert [path.name for path in out.iterdir()] == ["results"]

"""The wall clock set while programs run, and in other centuries: nothing hangs on it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.calibration.conftest import Writer
from tests.end_to_end.attack.test_rough_kills import RUN, begun
from tests.fakes.programs import ended, shards_of, until
from tests.fakes.wall_clock import WAYS, WallClock

import memorywam_robot
from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.cli import main
from memorywam_runtime.recording import Sent, open_recording

pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")

DAY_S = 86_400
HOUR_MS = 3_600_000
CHANGES = {
    "a day back": (lambda clock: clock.step(0), lambda clock: clock.step(-DAY_S)),
    "a year forward": (lambda clock: clock.step(0), lambda clock: clock.step(365 * DAY_S)),
    "before 1980": (lambda clock: clock.show(1975), lambda clock: clock.show(1975)),
    "past 2038": (lambda clock: clock.show(2037), lambda clock: clock.show(2039)),
    "past 2106": (lambda clock: clock.show(2105), lambda clock: clock.show(2110)),
    "from 1970 to today": (
        lambda clock: clock.step(-int(time.time())),
        lambda clock: clock.step(0),
    ),
}
"""What the clock shows at first, and from the middle on. The last: no battery, then a network."""
every_change = pytest.mark.parametrize("change", CHANGES)


@pytest.fixture
def clock(tmp_path, request):
    """The clock of the programs that are started with its variables."""
    folder = tmp_path / "clock"
    folder.mkdir()
    return WallClock(folder, getattr(request, "param", WAYS[0]))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "out"
    made.mkdir()
    return made


def played(clock, change, words, is_middle=lambda: True, timeout_s=600.0):
    """Run the program, and set the clock once it is in the middle; return its status and words."""
    first, then = CHANGES[change]
    first(clock)
    process = begun(*words, **clock.variables)
    until(process, is_middle)
    then(clock)
    return ended(process, timeout_s)


def absurd_in(document, name=""):
    """Return the durations in a document that are negative, or of hours."""
    if isinstance(document, dict):
        return [one for key, part in document.items() for one in absurd_in(part, key)]
    if isinstance(document, list):
        return [one for part in document for one in absurd_in(part, name)]
    unit = name.rpartition("_")[2]
    to_ms = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "seconds": 1e3}
    if unit not in to_ms or "_per_" in name or isinstance(document, str | bool) or document is None:
        return []
    return [] if 0 <= document * to_ms[unit] < HOUR_MS else [(name, document)]


def check_told(path):
    """Check the durations that a program told, and return what it told."""
    document = json.loads(path.read_bytes())
    assert absurd_in(document) == []
    return document["data"]


def check_page(path):
    """Check that no duration on a page is negative."""
    assert re.findall(r"[>\s][-\u2212]\d[\d.,]*\s?(?:ns|us|ms|s|min|h)\b", path.read_text()) == []


def check_replay(bundle, recordings):
    """Check that a recording is whole, its times are of one run, and it replays to its bits."""
    (recording,) = Path(recordings).glob("*.mcap")
    times = [event.received_ns for event in open_recording(recording).events()]
    assert max(times) - min(times) < HOUR_MS * 1_000_000
    words = ["replay", str(recording), "--bundle", str(bundle), "--threads", "1"]
    assert main([*words, "--assert-equal"]) == 0


@pytest.mark.parametrize("clock", WAYS, indirect=True)
def test_the_clock_of_these_tests_is_set_and_the_other_is_not(clock):
    code = (
        "import datetime, sys, time; before = time.monotonic();\n"
        "for _ in sys.stdin: print(time.localtime().tm_year, datetime.datetime.now().year,"
        " datetime.date.today().year, time.gmtime(time.time_ns() // 10**9).tm_year,"
        " 0 <= time.monotonic() - before < 60, flush=True)"
    )
    clock.show(1975)
    with subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | clock.variables, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        for year in (1975, 2110):
            clock.show(year)
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline().split() == [*[str(year)] * 4, "True"]
        process.stdin.close()


@pytest.mark.parametrize(
    "change",
    ["a day back", *(pytest.param(one, marks=pytest.mark.proof) for one in list(CHANGES)[1:])],
)
def test_a_run_records_what_replays_whatever_the_clock_shows(tiny_bundle, clock, folder, change):
    words = ("run", tiny_bundle, *RUN, "--record", folder / "recordings",
             "--json", folder / "told.json", "--page", folder / "run.html")  # fmt: skip
    parts = (folder / "recordings").glob
    # The episode takes half a second: from its first byte on, and not from some size.
    status, said = played(clock, change, words, lambda: any(parts("*.mcap*")))
    assert status == 0, said
    check_told(folder / "told.json")
    check_page(folder / "run.html")
    check_replay(tiny_bundle, folder / "recordings")


@pytest.fixture(scope="module")
def demo_bundle(tmp_path_factory):
    """A policy that moves the arms, so that an episode takes its time. Read only."""
    out = tmp_path_factory.mktemp("demo") / "bundle"
    checkpoint = Path(memorywam_robot.__file__).parent / "checkpoint"
    assert main(["export", str(checkpoint), "--out", str(out)]) == 0
    return out


@pytest.mark.proof
@every_change
def test_cameras_and_arms_that_move_meanwhile_do_not_hear_of_it(demo_bundle, clock, folder, change):
    words = ("run", demo_bundle, "--robot", "sim:recall", "--threads", "1", "--async",
             "--record", folder / "recordings", "--json", folder / "told.json",
             "--page", folder / "run.html")  # fmt: skip
    parts = (folder / "recordings").glob
    status, said = played(
        clock, change, words, lambda: any(one.stat().st_size > 10_000 for one in parts("*.part"))
    )
    assert status in (0, 1), said  # a busy machine may fail the task
    for camera in check_told(folder / "told.json")["timing"]["cameras"].values():
        assert (camera["clock_doubts"], camera["clock_restarts"]) == (0, 0)
    check_page(folder / "run.html")
    check_replay(demo_bundle, folder / "recordings")


@pytest.mark.proof
def test_arms_in_simulated_time_move_the_same_whatever_the_clock_shows(demo_bundle, clock, folder):
    words = ("run", demo_bundle, "--robot", "sim:recall", "--threads", "1", "--async",
             "--simulated-time", "--record")  # fmt: skip
    assert main([*map(str, words), str(folder / "true")]) in (0, 1)
    parts = (folder / "false").glob
    status, said = played(
        clock, "a day back", (*words, folder / "false"),
        lambda: any(one.stat().st_size > 40_000 for one in parts("*.part")),
    )  # fmt: skip
    assert status in (0, 1), said
    sent = []
    for name in ("true", "false"):
        (recording,) = (folder / name).glob("*.mcap")
        events = open_recording(recording).events()
        sent.append([one.action.tobytes() for one in events if isinstance(one, Sent)])
    assert sent[0] == sent[1]
    assert len(sent[0]) > 100


@pytest.mark.proof
@every_change
def test_a_server_and_its_client_do_not_hear_of_it(tiny_bundle, clock, folder, change):
    pytest.importorskip("websockets", reason="needs the extra memorywam[serve]")
    import numpy as np
    from tests.fakes.policy_server import pictures
    from websockets.sync.client import connect

    from memorywam_export.checkpoints.presets import contract_from_preset
    from memorywam_robot.adapters.wire import data_from_wire, wire_from_data

    first, then = CHANGES[change]
    first(clock)
    process = begun(
        "serve", tiny_bundle, "--port", "0", "--threads", "1", "--idle-timeout", "5",
        "--json", folder / "told.json", **clock.variables,
    )  # fmt: skip
    said = ""
    assert process.stderr is not None
    while not (found := re.search(r"ws://127.0.0.1:(\d+)", said)):
        line = process.stderr.readline()
        assert line, said
        said += line
    shown = {"images": pictures(contract_from_preset("tiny"), 0), "state": np.zeros(14)}
    with connect(f"ws://127.0.0.1:{found[1]}", compression=None, proxy=None) as link:
        link.recv(decode=False)
        for turn in range(4):
            if turn == 2:
                then(clock)
                time.sleep(1.0)  # long enough for a wait that is broken to end
            link.send(wire_from_data(shown | {"prompt": "random"}))
            answer = data_from_wire(link.recv(decode=False))
            assert "actions" in answer, answer
            assert absurd_in(answer) == []
    process.send_signal(signal.SIGINT)
    status, more = ended(process, 60)
    assert status == 0, said + more
    assert check_told(folder / "told.json")["requests"] == 4


@pytest.mark.proof
@every_change
def test_what_is_exported_is_the_same_bytes(tiny_bundle, clock, folder, change):
    words = ("export", "random:tiny:0", "--out", folder / "bundle")
    is_middle = lambda: any(folder.glob(".bundle.*.draft/*.onnx"))  # noqa: E731
    status, said = played(clock, change, words, is_middle)
    assert status == 0, said
    assert check_bundle(folder / "bundle").files == check_bundle(tiny_bundle).files
    status, said = played(
        clock, change, ("verify", folder / "bundle", "--checkpoint", "random:tiny:0",
                        "--frames", "4", "--json", folder / "told.json"),
    )  # fmt: skip
    assert status == 0, said
    check_told(folder / "told.json")
    parity = check_bundle(folder / "bundle").parity
    assert parity is not None
    check_page(folder / "bundle" / parity.page)


@pytest.mark.proof
@every_change
def test_a_benchmark_measures_by_the_other_clock(tiny_bundle, clock, folder, change):
    words = ("bench", tiny_bundle, "--frames", "1,10", "--threads", "1", "--against", "eager",
             "--json", folder / "told.json", "--plot", folder / "bench.html")  # fmt: skip
    started_s = time.monotonic()
    status, said = played(clock, change, words, lambda: time.monotonic() - started_s > 1)
    assert status == 0, said
    check_told(folder / "told.json")
    check_page(folder / "bench.html")


@pytest.mark.proof
@every_change
def test_a_calibration_goes_on_from_what_it_has_whenever_that_was(
    tiny_bundle, clock, folder, change
):
    """By hashes, not by dates: nothing is forgotten that came before, or after, or both."""
    recordings, out = folder / "recordings", folder / "table.json"
    writer = Writer(tiny_bundle)
    for number in range(24):
        writer.write(recordings, f"episode-{number:02d}", 9 + number % 4, seed=number)
    words = ("calibrate", tiny_bundle, "--recordings", recordings, "--samples", "16")
    assert main([str(word) for word in (*words, "--out", folder / "whole.json")]) == 0
    first, then = CHANGES[change]
    first(clock)
    process = begun(*words, "--out", out, **clock.variables)
    until(process, lambda: len(shards_of(out)) > 1)
    os.killpg(process.pid, signal.SIGKILL)
    ended(process)
    num_kept = len(shards_of(out))
    assert num_kept
    # What lies there is of another day than what is to come, by the file system too.
    for shard in shards_of(out):
        os.utime(shard, (0, 0) if change == "a year forward" else (2**32 + 5, 2**32 + 5))
    then(clock)
    process = begun(*words, "--out", out, "--resume", "--json", folder / "told.json",
                    **clock.variables)  # fmt: skip
    status, said = ended(process, 600)
    assert status == 0, said
    assert said.count("episode-") >= num_kept, said
    assert out.read_bytes() == (folder / "whole.json").read_bytes()
    check_told(folder / "told.json")


@pytest.mark.proof
@every_change
def test_the_other_verbs_take_any_date(tiny_bundle, clock, folder, change):
    for words in (
        ("inspect", tiny_bundle),
        ("doctor", tiny_bundle),
        ("prompt", tiny_bundle, "--list"),
    ):
        status, said = played(clock, change, (*words, "--json", folder / f"{words[0]}.json"))
        assert status in (0, 1 if words[0] == "doctor" else 0), said
        assert "Traceback" not in said
        check_told(folder / f"{words[0]}.json")

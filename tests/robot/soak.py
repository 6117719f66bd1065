"""Hours of episodes in real time: whether memory, handles or lateness grow.

Usage: python -m tests.robot.soak BUNDLE [--minutes N] [--out FILE.json] [--page FILE.html]

One process from the first episode to the last, as `memorywam run --async` would be: simulated arms
in a process of their own, images through librealsense, every episode recorded and shown. What is
measured is measured beside it, by a thread that wakes every ten seconds.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tests.robot.soak_verdict import judged, page, table

from memorywam_robot.cameras.camera_arguments import cameras_from_arguments
from memorywam_robot.live.grid_rules import GridRules
from memorywam_robot.live.live_recorder import LiveRecorder
from memorywam_robot.live.live_result import LiveResult
from memorywam_robot.live.live_run import LiveRun
from memorywam_robot.live.live_simulated import LiveSimulated
from memorywam_robot.live.load import load_from_measured
from memorywam_robot.live.load_measuring import measured_costs
from memorywam_robot.live.tellers import LiveViewer
from memorywam_robot.recorder import Recorder
from memorywam_robot.runs import policy_from_bundle
from memorywam_robot.sim.scene import CAMERA_SIZES
from memorywam_robot.sim.tasks import INSTRUCTIONS
from memorywam_robot.viewer.view import View
from memorywam_robot.viewer.view_options import ViewOptions
from memorywam_runtime.files import atomic_write
from memorywam_runtime.opening import Opening
from memorywam_runtime.report import json_from_data
from memorywam_runtime.versions import versions

KEPT = 3
"""Recordings; older ones are deleted as it goes."""
_BIN_MS = 0.02
"""Of the tick clock's histogram."""
_CHILDREN = {"supervisor": "memorywam_robot.arms.supervisor", "viewer": "view_process"}
"""By a word of the command that started them."""


class Counting:
    """A teller that keeps figures and not episodes: what it kept would look like a leak."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.done: dict[str, float] = {
            "episodes": 0, "successes": 0, "aborted": 0, "frames_dropped": 0, "frames_doubtful": 0,
            "chunks": 0, "chunks_late": 0, "chunks_replaced": 0, "steps_skipped": 0, "holds": 0,
        }  # fmt: skip

    def end(self, result: LiveResult) -> None:
        counts, done = result.counts, self.done
        if result.aborted:
            self.complaints.append(f"episode {result.seed}: {result.aborted}")
        done["episodes"] += 1
        done["successes"] += result.success is True
        done["aborted"] += bool(result.aborted)
        done["frames_dropped"] += counts.camera_dropped
        done["frames_doubtful"] += counts.doubtful
        done["chunks"] += counts.chunks
        done["chunks_late"] += counts.chunks_dropped
        done["chunks_replaced"] += counts.chunks_replaced
        done["steps_skipped"] += counts.skipped
        done["holds"] += counts.holds

    def __getattr__(self, name: str) -> Any:
        """Hear everything else, and do nothing."""
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_: None


class Watch:
    """Samples of this process and its children, from a thread of its own."""

    def __init__(self, run: LiveRun, counting: Counting, temp: Path, every_s: float) -> None:
        self.samples: list[dict[str, float]] = []
        self._run, self._counting, self._temp, self._every_s = run, counting, temp, every_s
        self._children = {
            name: child
            for child in children_of(os.getpid())
            for name, word in _CHILDREN.items()
            if word in Path(f"/proc/{child}/cmdline").read_text()
        }
        self._bins = run._clock._bins.copy()
        self._start_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10.0)

    def _work(self) -> None:
        due_s = self._start_s
        while not self._stop.is_set():
            self.samples.append(self._sample())
            due_s += self._every_s
            self._stop.wait(max(0.0, due_s - time.monotonic()))

    def _sample(self) -> dict[str, float]:
        bins = self._run._clock._bins.copy()
        late, self._bins = bins - self._bins, bins
        p99_ms = float("nan")
        if late.sum():
            share = int(np.searchsorted(np.cumsum(late), 0.99 * late.sum()))
            p99_ms = (share + 1) * _BIN_MS
        ours = os.getpid()
        found: dict[str, float] = {
            "minutes": (time.monotonic() - self._start_s) / 60,
            "policy_mib": resident_mib(ours),
            "fds": entries(Path(f"/proc/{ours}/fd")),
            "threads": entries(Path(f"/proc/{ours}/task")),
            "shared_maps": shared_maps(ours),
            "temp_entries": entries(self._temp),
            "late_p99_ms": p99_ms,
        } | self._counting.done
        for name, child in self._children.items():
            found[f"{name}_mib"] = resident_mib(child)
            found[f"{name}_fds"] = entries(Path(f"/proc/{child}/fd"))
        return found


def entries(folder: Path) -> int:
    """Return how many files are in a folder."""
    return sum(1 for _ in folder.iterdir())


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that are still there."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for one in lists for child in one.read_text().split()]


def resident_mib(pid: int) -> float:
    """Return how much of a process is in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def shared_maps(pid: int) -> int:
    """Return how many stretches of shared memory a process has mapped, named or not."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sum("/dev/shm/" in line or "/memfd:" in line for line in lines)


def seeds_until(end_s: float, folder: Path) -> Iterator[int]:
    """Yield seeds while there is time; delete the oldest recordings before each."""
    seed = 0
    while not seed or time.monotonic() < end_s:
        kept = sorted(folder.glob("*.mcap"), key=lambda path: path.stat().st_mtime_ns)
        for path in kept[:-KEPT]:
            path.unlink()
        yield seed
        seed += 1


def soak(
    bundle: Path,
    *,
    minutes: float,
    task: str,
    every_s: float,
    latency_ms: tuple[float, float] | None,
    scratch: Path,
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Return the samples, and what is left when everything is closed."""
    temp, recordings = scratch / "tmp", scratch / "recordings"
    temp.mkdir()
    # For us and for the children: what leaks there is ours, whoever else uses this machine.
    tempfile.tempdir = os.environ["TMPDIR"] = str(temp)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as the program does
    shm_before = set(Path("/dev/shm").iterdir())
    policy = policy_from_bundle(bundle, Opening(num_threads=1, allow_unverified=True))
    remember_ms, act_ms = latency_ms or measured_costs(policy, INSTRUCTIONS[task])
    load = load_from_measured(policy.contract, remember_ms=remember_ms, act_ms=act_ms)
    counting = Counting()
    words = [f"{name}=realsense-sim" for name in CAMERA_SIZES]
    frames = policy.session.manifest.memory.max_frames
    with (
        Recorder(recordings, policy, robot=f"sim:{task}", num_threads=1, loop="async") as recorder,
        View(ViewOptions(port=0), policy.contract, max_frames=frames) as view,
    ):
        robot = LiveSimulated(task, cameras_from_arguments(words), camera_hz=10.0)
        try:
            tellers: list[Any] = [LiveRecorder(recorder), LiveViewer(view), counting]
            run = LiveRun(
                policy, robot, load=load, grid_rules=GridRules(camera_hz=10.0), tellers=tellers
            )
            try:
                with Watch(run, counting, temp, every_s) as watch:
                    seeds: Any = seeds_until(time.monotonic() + 60 * minutes, recordings)
                    run.episodes(seeds)
            finally:
                run.close()
            timing = run.timekeeping.report()
            arms = robot.arm.status()
        finally:
            robot.close()
    left = {
        "children": children_of(os.getpid()),
        "temp": sorted(path.name for path in temp.iterdir()),
        "shm": sorted(map(str, set(Path("/dev/shm").iterdir()) - shm_before)),
        "recordings_not_whole": [str(one.path) for one in recorder.written if one.complaint],
    }
    return watch.samples, {
        "load": load.sentence(),
        "aborted": counting.complaints,
        "tick": timing,
        "supervisor": {"late_p99_ms": arms.late_p99_ms, "late_max_ms": arms.late_max_ms},
        "left": left,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.robot.soak", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds from sample to sample")
    parser.add_argument("--task", default="recall", choices=tuple(INSTRUCTIONS))
    parser.add_argument(
        "--latency", type=float, nargs=2, metavar=("R", "A"), help="ms; measured by default"
    )
    parser.add_argument("--out", type=Path, default=Path("soak.json"))
    parser.add_argument("--page", type=Path, help="default: beside --out")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        samples, about = soak(
            args.bundle,
            minutes=args.minutes,
            task=args.task,
            every_s=args.every,
            latency_ms=args.latency,
            scratch=Path(scratch),
        )
    verdicts = judged(samples, about["left"])
    document = {
        "minutes": args.minutes,
        "versions": versions(),
        "verdicts": [verdict.report() for verdict in verdicts],
        "samples": samples,
    } | about
    atomic_write(args.out, json_from_data(document).encode())
    page_path = args.page or args.out.with_suffix(".html")
    atomic_write(page_path, page(samples, verdicts, about).encode())
    sys.stdout.write(f"{table(verdicts)}\n{about['load']}\n{args.out}, {page_path}\n")
    return 1 if any(verdict.answer == "FAILS" for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())

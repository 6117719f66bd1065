"""How long every stage takes, against how full memory is, on one backend or on several in turn."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from memorywam_runtime.bench.bench_arm import Arm, ArmOptions, SessionArm, Spans
from memorywam_runtime.bench.bench_findings import findings
from memorywam_runtime.bench.bench_machine import machine, usable_cores
from memorywam_runtime.bench.bench_operators import PROFILED_BACKEND, operator_times
from memorywam_runtime.bench.bench_peaks import best_of, measuring_peaks
from memorywam_runtime.bench.bench_ratios import all_spans
from memorywam_runtime.bench.bench_sensors import sensed, sensors_between
from memorywam_runtime.bench.bench_sizes import (
    checked_fills,
    default_frames,
    full_history_bytes,
    memory_bytes,
    memory_rows,
    most_frames,
    sampled_frames,
    update_bytes,
)
from memorywam_runtime.bench.bench_worker import RemoteArm
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.engines import BUILT_BACKENDS
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.opening import Opening
from memorywam_runtime.timing import percentiles_of
from memorywam_runtime.versions import versions

__all__ = [
    "FULL_HISTORY",
    "bench_bundle",
    "default_frames",
    "full_history_bytes",
    "memory_bytes",
    "memory_rows",
    "most_frames",
]

FULL_HISTORY = "full history"
"""Name of the arm that keeps every visual token of every frame."""
_HISTORY_ROUNDS = 5
"""Of full history at most: at a thousand frames one tick may take as long as twenty others."""

Rounds = dict[str, list[Spans]]
"""Arm to what was measured in each round at one fill."""
Sizes = dict[int, dict[str, dict[str, Any]]]
"""Fill to arm to what it says of its memory."""
Tell = Callable[[str], None]


def bench_bundle(
    root: Path,
    opening: Opening | None = None,
    *,
    frames: Sequence[int] = (),
    num_steps: int | None = None,
    repeat: int = 20,
    against: Sequence[str] = (),
    full_history: bool = False,
    roofline: bool = False,
    operators: bool = False,
    seed: int = 0,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Return times and sizes of a bundle on this machine.

    A tick remembers one frame and makes one chunk. At each fill every arm makes `repeat` ticks.
    Alone, the backend runs in this process. With others, every arm has a process of its own and
    they take turns, in random order, a tick before each that counts. The first arm then takes part
    twice: how far its ratio to itself is from 1 is what difference means nothing.

    Args:
        root: The bundle.
        opening: What runs the graphs; 0 threads means one a core where arms are compared.
        frames: Fills to measure at, in latent frames; 1, 10, 100, ... by default.
        num_steps: Denoising steps; the contract's by default.
        repeat: Rounds at each fill.
        against: Backends to compare with.
        full_history: Add an arm on the same backend that keeps every visual token of every frame.
        roofline: Measure what the machine can do, and tell how close each stage comes.
        operators: Tell what each kind of operator takes, from runs of their own.
        seed: Of the order of turns.
        tell: Called with what is being done.

    Raises:
        InputError: a fill that does not fit, an arm named twice, or what a backend cannot do.
        MissingPartError: a backend that is not there.
    """
    tell, manifest = tell or _silent, read_manifest(root)
    fills = checked_fills(manifest, frames)
    if repeat < 1:
        raise InputError(f"found {repeat} repetitions; expected at least 1")
    compares, opening = bool(against) or full_history or roofline, opening or Opening()
    opening = _checked(opening, compares=compares, history=full_history, operators=operators)
    arms = _arms(root, opening, against, num_steps, full_history=full_history)
    before, sensors = machine(), sensed()
    with measuring_peaks(opening.num_threads, tell, wanted=roofline) as peaks:
        opened, sizes, measured = _measured(arms, fills, repeat, seed, tell)
    told = sensors_between(sensors, sensed())
    by_operator = operator_times(next(iter(arms.values())), fills, tell) if operators else {}
    best = best_of(peaks) if peaks else None
    return {
        **_setting(manifest, opening, num_steps, repeat, seed),
        "machine": before,
        "load_average_after": machine()["load_average"],
        "sensors": told,
        "peaks": best,
        **_told(manifest, arms, opened, sizes, measured),
        **findings(manifest, sizes, measured, num_steps, best, by_operator),
    }


def _setting(
    manifest: Manifest, opening: Opening, num_steps: int | None, repeat: int, seed: int
) -> dict[str, Any]:
    """Return what was measured, on what."""
    return {
        "contract_hash": manifest.contract_hash,
        "backend": opening.backend,
        "threads": opening.num_threads,
        "precision": manifest.precision,
        "rewrites": manifest.rewrites,
        "num_steps": num_steps or manifest.contract.conventions.num_steps,
        "repeat": repeat,
        "seed": seed,
        "versions": versions(),
    }


def _checked(opening: Opening, *, compares: bool, history: bool, operators: bool) -> Opening:
    """Return the opening with its threads chosen, if it can do what is asked for.

    Raises:
        InputError: it cannot.
    """
    if opening.num_threads < 0:
        raise InputError(
            f"found {opening.num_threads} threads; expected 0 (the backend chooses) or more"
        )
    if history and opening.backend in BUILT_BACKENDS:
        raise InputError(
            f"found full history on {opening.backend}, whose engines take one size of memory; "
            "expected a backend that runs the graphs as they are"
        )
    if operators and opening.backend != PROFILED_BACKEND:
        raise InputError(
            f"found operators on {opening.backend}; expected {PROFILED_BACKEND}, which times them"
        )
    if compares and not opening.num_threads:
        return msgspec.structs.replace(opening, num_threads=usable_cores())
    return opening


def _told(
    manifest: Manifest,
    arms: dict[str, ArmOptions],
    opened: dict[str, dict[str, Any]],
    sizes: Sizes,
    measured: dict[int, Rounds],
) -> dict[str, Any]:
    """Return what was measured, by arm; the first arm's stands by itself too."""
    first = next(iter(arms))
    return {
        **opened[first],
        "stages_ms": _over_all_fills(measured, first),
        "by_frames": _by_frames(manifest, sizes, measured, first),
        "arms": {
            name: {
                "backend": options.opening.backend,
                "full_history": options.full_history,
                **opened[name],
                "by_frames": _by_frames(manifest, sizes, measured, name),
            }
            for name, options in arms.items()
        },
        "update_bytes": update_bytes(manifest),
        "memory_allocated_bytes": memory_bytes(manifest, manifest.memory.max_frames),
        "memory_bytes_by_frame": [[n, memory_bytes(manifest, n)] for n in sampled_frames(manifest)],
    }


def _arms(
    root: Path,
    opening: Opening,
    against: Sequence[str],
    num_steps: int | None,
    *,
    full_history: bool,
) -> dict[str, ArmOptions]:
    """Return what to run by name; with something to compare, the first arm comes twice.

    Raises:
        InputError: a backend named twice.
    """
    names = [opening.backend, *against]
    if len(set(names)) < len(names):
        raise InputError(
            f"found the arms {', '.join(names)}; expected each backend once: the first one is "
            "measured twice by itself"
        )
    if num_steps is not None and num_steps < 1:
        raise InputError(f"found {num_steps} denoising steps; expected at least 1")
    arms = {
        name: ArmOptions(root=str(root), opening=opening, num_steps=num_steps)
        for name, opening in (
            (opening.backend, opening),
            *((name, Opening(backend=name, num_threads=opening.num_threads)) for name in against),
        )
    }
    first = arms[opening.backend]
    if against:
        arms[f"{opening.backend} again"] = first
    if full_history:
        arms[FULL_HISTORY] = msgspec.structs.replace(first, full_history=True)
    return arms


def _measured(
    arms: dict[str, ArmOptions], fills: Sequence[int], repeat: int, seed: int, tell: Tell
) -> tuple[dict[str, dict[str, Any]], Sizes, dict[int, Rounds]]:
    """Return how each arm opened, what it says of its memory by fill, and what was measured."""
    with ExitStack() as stack:
        running: dict[str, Arm] = {}
        opened: dict[str, dict[str, Any]] = {}
        for name, options in arms.items():
            tell(f"open {name}")
            alone = len(arms) == 1
            # Started one after the other: each has the machine to itself while it loads.
            arm = SessionArm(options) if alone else stack.enter_context(RemoteArm(options))
            running[name], opened[name] = arm, arm.open()
        sizes, measured = _in_turns(running, fills, repeat, seed, tell)
    return opened, sizes, measured


def _in_turns(
    arms: dict[str, Arm], fills: Sequence[int], repeat: int, seed: int, tell: Tell
) -> tuple[Sizes, dict[int, Rounds]]:
    """Return by fill what each arm says of its memory, and what was measured."""
    sizes: Sizes = {}
    measured: dict[int, Rounds] = {}
    order = np.random.default_rng(seed)
    discard = 1 if len(arms) > 1 else 0
    for fill in fills:
        sizes[fill], measured[fill] = {}, {}
        for name, arm in arms.items():
            tell(f"fill {name} to {fill} frames")
            try:
                sizes[fill][name] = arm.fill(fill)
            except InputError as error:
                if name != FULL_HISTORY:
                    raise
                sizes[fill][name] = {"left_out": str(error)}
            else:
                measured[fill][name] = []
        names = list(measured[fill])
        for turn in range(repeat):
            for index in order.permutation(len(names)):
                name = names[index]
                if name == FULL_HISTORY and turn >= _HISTORY_ROUNDS:
                    continue
                tell(f"{fill} frames, round {turn + 1} of {repeat}: {name}")
                measured[fill][name].append(arms[name].tick(discard=discard))
    return sizes, measured


def _by_frames(
    manifest: Manifest,
    sizes: Sizes,
    measured: dict[int, Rounds],
    arm: str,
) -> list[dict[str, Any]]:
    """Return sizes and percentiles of one arm at each fill where it was measured."""
    return [
        {
            "frames": fill,
            "stages_ms": _percentiles(rounds[arm]) if arm in rounds else {},
            "ticks_ms": [spans["tick"][0] for spans in rounds.get(arm, ())],
            **sizes[fill][arm],
            "full_history_bytes": full_history_bytes(manifest, fill),
        }
        for fill, rounds in measured.items()
    ]


def _over_all_fills(measured: dict[int, Rounds], arm: str) -> dict[str, dict[str, float]]:
    """Return the percentiles of every stage over all fills."""
    return _percentiles([spans for rounds in measured.values() for spans in rounds[arm]])


def _percentiles(rounds: Sequence[Spans]) -> dict[str, dict[str, float]]:
    """Return the percentiles of every stage."""
    return {stage: percentiles_of(times) for stage, times in all_spans(rounds).items()}


def _silent(doing: str) -> None:
    """Tell nobody."""

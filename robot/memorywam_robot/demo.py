"""The whole job on the checkpoint that ships: every verb in turn, then one report about it."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorywam_robot.evidence import (
    complaints_from_report,
    latency_by_frame,
    memory_by_frame,
)
from memorywam_robot.film import FORMATS
from memorywam_robot.page import page_from_report
from memorywam_robot.sim.tasks import INSTRUCTIONS, TASKS
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.errors import CheckpointError, InputError
from memorywam_runtime.files import atomic_write
from memorywam_runtime.report import json_from_data
from memorywam_runtime.verb_calls import Document, VerbCalls

__all__ = ["SHIPPED_CHECKPOINT", "DemoResult", "demo"]

SHIPPED_CHECKPOINT = Path(__file__).parent / "checkpoint"
_FILM = "episode.webp"
_PAGE = "index.html"
_REPORT = "report.json"
_PARITY = ("verdict", "frames", "seed", "covered", "checks")
"""What the report takes over from verify; every tensor's error stays in `results/verify.json`."""
_FILLS = "1,8,32,64,128,192,256"
"""Frames in memory at which the stages are timed."""
_THREADS = "1"
"""Inside one operator; the model is too small for a second to help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What the demo found."""

    report: Mapping[str, Any]
    page: Path
    rows: Sequence[Sequence[object]]
    """What, found, verdict."""
    complaints: Sequence[str]
    """What does not hold; empty if all does."""


def demo(
    out: Path,
    *,
    num_episodes: int = 10,
    checkpoint: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> DemoResult:
    """Export, verify, run every task by ONNX Runtime and by torch, measure, and write a report.

    Args:
        out: Directory for the bundle, `report.json`, the page, the film and each verb's result.
        num_episodes: Of each task.
        checkpoint: A folder; the one that ships by default.
        tell: Called with a line when something begins.

    Raises:
        InputError: fewer than one episode.
        CheckpointError: no checkpoint there.
        MemorywamError: a verb could not run; what it said.
    """
    source = _checked(num_episodes, checkpoint or SHIPPED_CHECKPOINT)
    out.mkdir(parents=True, exist_ok=True)
    for name in (_REPORT, _PAGE, _FILM):  # an old report must not pass for this one's
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "results", ignore_errors=True)
    verbs = VerbCalls(out / "results", tell)
    bundle = str(out / "bundle")
    verbs.call("export", str(source), "--out", bundle, "--overwrite")
    parity = verbs.call("verify", bundle, "--checkpoint", str(source))
    ort = _run_tasks(verbs, bundle, num_episodes, "ort")
    torch = _run_tasks(verbs, bundle, num_episodes, "eager")
    bench = verbs.call("bench", bundle, "--frames", _FILLS, "--threads", _THREADS)
    film_caption = _film(verbs, bundle, out / _FILM, ort)
    report = _report(Path(bundle), parity, bench, ort, torch)
    return _written(out, report, film_caption)


def _checked(num_episodes: int, checkpoint: Path) -> Path:
    """Return the checkpoint's folder; refuse what cannot be run before anything is."""
    if num_episodes < 1:
        raise InputError(f"found {num_episodes} episodes; expected at least 1")
    if not (checkpoint / "model.safetensors").is_file():
        raise CheckpointError(
            f"no checkpoint in {checkpoint}: expected model.safetensors and what belongs to it; "
            "install memorywam again, or name a folder with --checkpoint"
        )
    return checkpoint


def _run_tasks(
    verbs: VerbCalls, bundle: str, num_episodes: int, backend: str
) -> dict[str, Document]:
    """Return what `run` found on every task."""
    return {
        task: verbs.call(
            "run", bundle, "--robot", f"sim:{task}", "--episodes", str(num_episodes),
            "--backend", backend, "--threads", _THREADS, name=f"run-{task}-{backend}",
        )
        for task in TASKS
    }  # fmt: skip


def _film(verbs: VerbCalls, bundle: str, path: Path, runs: Mapping[str, Document]) -> str:
    """Film one episode, of the task that asks most of memory among those with a success."""
    chosen = next(
        (
            (task, episode["seed"])
            for task in reversed(TASKS)
            for episode in runs[task]["data"]["episodes"]
            if episode["success"]
        ),
        (TASKS[-1], 0),
    )
    task, seed = chosen
    verbs.call(
        "run", bundle, "--robot", f"sim:{task}", "--seed", str(seed), "--threads", _THREADS,
        "--film", str(path), name="film",
    )  # fmt: skip
    return f"Task “{task}”, episode {seed}, at twice its speed: {INSTRUCTIONS[task]}."


def _report(
    bundle: Path,
    parity: Document,
    bench: Document,
    ort: Mapping[str, Document],
    torch: Mapping[str, Document],
) -> dict[str, Any]:
    """Return what goes into `report.json`."""
    manifest = read_manifest(bundle)
    hybrid, everything = memory_by_frame(bench["data"])
    report: dict[str, Any] = {
        "tasks": {
            task: {
                "episodes": len(found["data"]["episodes"]),
                "success": found["data"]["success"],
                "success_torch": torch[task]["data"]["success"],
            }
            for task, found in ort.items()
        },
        "parity": {"ok": parity["ok"]} | {name: parity["data"][name] for name in _PARITY},
        "stages_ms": {
            stage: {"p50": times["p50"], "p99": times["p99"]}
            for stage, times in bench["data"]["stages_ms"].items()
        },
        "latency_ms_by_frame": latency_by_frame(bench["data"]),
        "rows_per_frame": {
            "in_full": manifest.contract.num_visual,
            "as_gist": manifest.contract.memory.num_gists,
        },
        "memory_bytes_by_frame": hybrid,
        "memory_bytes_by_frame_keeping_everything": everything,
        "contract_hash": manifest.contract_hash,
        "checkpoint_sha256": manifest.source.sha256,
        "versions": parity["versions"],
    }
    return report | {"complaints": complaints_from_report(report)}


def _written(out: Path, report: Mapping[str, Any], film_caption: str) -> DemoResult:
    """Write the page and then the report; return what to tell."""
    film = out / _FILM
    page = page_from_report(
        report,
        film=film.read_bytes(),
        film_type=f"image/{FORMATS[film.suffix].lower()}",
        film_caption=film_caption,
    )
    atomic_write(out / _PAGE, page.encode())
    atomic_write(out / _REPORT, json_from_data(report).encode())
    rows: list[tuple[object, ...]] = [
        (f"success, {name}", f"{task['success']:.0%} (torch {task['success_torch']:.0%})", "")
        for name, task in report["tasks"].items()
    ]
    worst = max(
        check["max_abs"]
        for check in report["parity"]["checks"]
        if check["what"].startswith("actions")
    )
    verdict = "holds" if report["parity"]["ok"] else "does not hold"
    rows.append(("parity", f"actions within {worst:.1e}, normalized", verdict))
    rows += [
        (f"stage {stage}", f"{times['p50']:.2f} ms p50, {times['p99']:.2f} ms p99", "")
        for stage, times in report["stages_ms"].items()
    ]
    return DemoResult(report=report, page=out / _PAGE, rows=rows, complaints=report["complaints"])

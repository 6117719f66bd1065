"""A quantized bundle's engines against its own graphs on ONNX Runtime: a device adds no error."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from memorywam_export.ladder.events import EventTrace, event_checks, play_events
from memorywam_export.ladder.ladder import on_cpu, open_device
from memorywam_export.parity.parity import drive, random_script
from memorywam_export.parity.parity_graphs import Script, graph_inputs, graph_outputs
from memorywam_export.parity.parity_report import Check, coverage
from memorywam_export.parity.tolerances import TOLERANCES
from memorywam_export.parity.trace_report import Difference, Tensors, Trace, difference
from memorywam_export.quantize.shaken import shaken_bundle
from memorywam_export.verify.verify_frames import frames_to_play
from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.engines import BUILT_BACKENDS
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.session import Session

__all__ = ["FARTHEST_SHARE", "verify_quantized"]

FARTHEST_SHARE = 2.0
"""Times the largest error of the shaken graphs that a single value may be off: the largest of some
thousand is a matter of luck. The root mean square, which is not, must stay below theirs.

Two devices compute the same Q/DQ, and differ in the last digits of what they round: a value between
two steps may fall either way. Through layers that adds up, until at the worst the roundings of one
have nothing to do with those of the other: each is off by a step over the root of 12, both together
by 0.41 of a step. Shaken values, a quarter of which fall to the neighbour, are off by half a step.
A device that computes what the graphs say cannot be further off than they are, beside what the
types that stayed wide are off by; scales, axes, types or rows that are wrong are."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What one session made of everything."""

    graphs: dict[str, Tensors]
    trace: Trace
    events: EventTrace


def verify_quantized(
    root: Path,
    backend: str,
    engines: Path | None = None,
    *,
    num_frames: int | None = None,
    seed: int = 0,
    tell: Tell = lambda doing: None,
) -> tuple[list[Check], dict[str, Any]]:
    """Compare a backend with the same quantized graphs on ONNX Runtime, their Q/DQ as written.

    Call by call, on the same inputs; then free-running over an episode of random frames, each with
    a memory of its own; then events, after which all must be as it was, bit for bit.

    Args:
        root: A quantized bundle.
        backend: That is verified.
        engines: Its engines, verified or not; beside the bundle by default.
        num_frames: Latent frames of the episode; as many as memory holds, 40 at most, by default.
        seed: Of the episode.
        tell: Called with what is being done.

    Returns:
        Every check, and the figures for machines.

    Raises:
        InputError: a bundle that ONNX Runtime cannot compute on the CPU.
        MissingPartError: a backend that this machine has not.
    """
    manifest = check_bundle(root)
    assert manifest.quantization is not None
    num_frames = frames_to_play(manifest, num_frames, seed)
    if manifest.precision == "bf16":
        raise InputError(
            f"{root}: found bf16 beside what is quantized, which ONNX Runtime cannot compute on "
            "the CPU; expected fp32 or fp16: export so, and quantize that"
        )
    device = open_device(root, backend, engines)
    runs = _runs(root, manifest, device, random_script(manifest.contract, num_frames, seed), tell)
    checks, figures = _compared(device.backend.name, *runs, manifest)
    return checks, {
        "contract_hash": manifest.contract_hash,
        "recipe": manifest.quantization.recipe,
        "precision": manifest.precision,
        "frames": num_frames,
        "seed": seed,
        "covered": coverage(manifest, num_frames),
        "tolerances": {
            manifest.precision: asdict(TOLERANCES[manifest.precision]),
            "shaken": {"max_abs": FARTHEST_SHARE, "rms": 1.0, "reason": _REASON},
        },
        **({"engines": _engines_of(device)} if backend in BUILT_BACKENDS else {}),
        **figures,
        "checks": [asdict(check) for check in checks],
        "verdict": "ok" if all(check.ok for check in checks) else "failed",
    }


_REASON = "values between two steps may round either way, and shaken ones do so more often"


def _runs(
    root: Path, manifest: Manifest, device: Session, script: Script, tell: Tell
) -> tuple[_Run, _Run, _Run]:
    """Return what the device makes, what ONNX Runtime makes, and what that makes when shaken."""
    plan = device.manifest.memory
    lowest = on_cpu(root, plan, as_written=True)
    truth, inputs = _played("onnx", lowest, script, manifest, None, tell)
    del lowest
    with TemporaryDirectory() as folder:
        shaken_bundle(root, Path(folder) / "shaken", manifest)
        session = on_cpu(Path(folder) / "shaken", plan, as_written=True)
        shaken, _ = _played("shaken", session, script, manifest, inputs, tell)
        del session
    found, _ = _played(device.backend.name, device, script, manifest, inputs, tell)
    return found, truth, shaken


def _engines_of(device: Session) -> str:
    """Return the directory of a session's engines."""
    return str(Path(device.manifest.graphs["cache_update"].file).parent)


def _played(
    name: str,
    session: Session,
    script: Script,
    manifest: Manifest,
    inputs: Mapping[str, Tensors] | None,
    tell: Tell,
) -> tuple[_Run, dict[str, Tensors]]:
    """Run the episode, every graph once, and the events; return the inputs of the graphs, too."""
    trace = drive(session, script, tell, name)
    given = dict(inputs or graph_inputs(session, script, manifest))
    graphs = {}
    for graph, tensors in given.items():
        tell(f"{name}: {graph}")
        graphs[graph] = graph_outputs(session, graph, tensors)
    tell(f"{name}: events")
    events = play_events(session, script, trace, name, manifest.precision)
    return _Run(graphs=graphs, trace=trace, events=events), given


def _compared(
    name: str, found: _Run, truth: _Run, shaken: _Run, manifest: Manifest
) -> tuple[list[Check], dict[str, Any]]:
    """Judge what a device made beside what ONNX Runtime made, and that beside the shaken graphs."""
    limit = TOLERANCES[manifest.precision].max_abs
    checks: list[Check] = []
    figures: dict[str, dict[str, Any]] = {}
    parts = [_parts(run) for run in (found, truth, shaken)]
    for what in parts[1]:
        own, other = (_apart(run[what], parts[1][what]) for run in (parts[0], parts[2]))
        checks += _judged(name, what, own, other, limit)
        figures[what] = {
            tensor: {**one.figures, "shaken": other[tensor].figures} for tensor, one in own.items()
        }
    # What other rungs make of events is judged above: their tolerance knows no quantization.
    alone = [replace(run.events, made={}) for run in (truth, found)]
    return checks + event_checks(alone, {}), {"compared": figures}


def _parts(run: _Run) -> dict[str, Tensors]:
    """Return all that is compared, by what it is."""
    return {
        **{f"graph {graph}": tensors for graph, tensors in run.graphs.items()},
        "latents, free-running": {"latents": run.trace.latents},
        "memory as it was written, free-running": run.trace.written,
        "actions, free-running": {"actions": run.trace.actions},
        "actions after events": run.events.made,
    }


def _apart(found: Tensors, wanted: Tensors) -> dict[str, Difference]:
    """Return how far each tensor is off."""
    return {name: difference(found[name], wanted[name]) for name in wanted}


def _judged(
    rung: str,
    what: str,
    found: Mapping[str, Difference],
    shaken: Mapping[str, Difference],
    limit: float,
) -> list[Check]:
    """Judge a group by the tensor closest to its limit: single values, and all on the whole."""
    checks = []
    for kind, share in (("max_abs", FARTHEST_SHARE), ("rel_rms", 1.0)):
        limits = {name: limit + share * getattr(shaken[name], kind) for name in found}
        errors = {name: getattr(one, kind) for name, one in found.items()}
        worst = max(found, key=lambda name: errors[name] / limits[name])
        told = f"{worst} {found[worst].worst}" if kind == "max_abs" else f"{worst}, relative RMS"
        checks.append(
            Check(
                rung=rung,
                what=what if kind == "max_abs" else f"{what}, on the whole",
                max_abs=errors[worst],
                tolerance=limits[worst],
                worst=f"{told}; shaken: {getattr(shaken[worst], kind):.2g}",
                ok=errors[worst] <= limits[worst],
            )
        )
    return checks

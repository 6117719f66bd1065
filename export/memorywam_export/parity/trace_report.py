"""How far what one rung made of an episode is from what the reference made of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_export.graphs.rewrites import halves_order
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.manifest import Manifest

__all__ = [
    "Array",
    "ByFrame",
    "Difference",
    "RungResult",
    "Tensors",
    "Trace",
    "by_frame",
    "compared",
    "difference",
    "differences",
    "in_reference_order",
    "kept_tokens",
]

Array = NDArray[Any]
Tensors = dict[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What one rung made of the script."""

    latents: Array
    """[frames, C, h, w]."""
    actions: Array
    """[frames, horizon, action_dim], normalized, after all denoising steps."""
    memory: Tensors
    """`memory.00.k` ... to [heads, tokens, D] of what is kept after the last frame."""
    kept: list[str]
    """What each of these tokens is; the order is the same on every rung."""
    written: Tensors
    """The same for every frame when it was written: [frames, heads, L + M, D]."""
    history: Tensors = field(default_factory=dict[str, Array])
    """Keys and values of executed actions [heads, tokens, D]; the reference gives none."""
    other_actions: Array | None = None
    """The last frame's actions from other noise."""
    same_actions: Array | None = None
    """The last frame's actions made a second time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far a tensor is from the one it must equal."""

    max_abs: float
    rel_rms: float
    """Root mean square of the error over that of the tensor."""
    worst: str
    """Where the largest error is."""
    cosine: float = 1.0
    """Of the angle between the two, as vectors."""

    @property
    def sqnr_db(self) -> float:
        """Power of the tensor over that of the error, dB."""
        return -20 * math.log10(self.rel_rms) if self.rel_rms > 0 else math.inf

    @property
    def figures(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {**asdict(self), "sqnr_db": self.sqnr_db}


@dataclass(frozen=True, slots=True, kw_only=True)
class ByFrame:
    """Largest error of each frame, absolute."""

    latents: Array
    """[frames]."""
    memory: Tensors
    """`memory.00.k` ... to [frames, L + M]: by token."""
    actions: Array
    """[frames]."""

    def at(self, frame: int) -> float:
        """Return the largest error of one frame."""
        tensors = (self.latents, self.actions, *self.memory.values())
        return float(max(tensor[frame].max() for tensor in tensors))


@dataclass(frozen=True, slots=True, kw_only=True)
class RungResult:
    """One rung: free-running against the reference, each graph against the rung below."""

    name: str
    precision: str
    latents: Difference
    actions: Difference
    per_joint: list[float]
    by_frame: ByFrame
    memory: dict[str, Difference]
    graphs: dict[str, dict[str, Difference]]
    """Empty on the lowest rung."""
    noise_effect: float | None
    """Largest change of an action when the noise is another; None where that was not tried."""
    repeat_effect: float | None
    """Largest change of an action when the same call is made twice."""


def kept_tokens(contract: InferenceContract, num_frames: int) -> tuple[list[int], list[str]]:
    """Return which tokens of the whole sequence memory must hold, and what each is."""
    size, num_visual = contract.num_frame_tokens, contract.num_visual
    kept = []
    for frame in range(num_frames):
        is_recent = num_frames - frame <= contract.num_ring_slots
        if is_recent or frame < contract.memory.num_anchors:
            kept += [(frame * size + i, f"frame {frame} visual {i}") for i in range(num_visual)]
    for frame in range(num_frames):
        start = frame * size + num_visual
        gists = range(contract.memory.num_gists)
        kept += [(start + i, f"frame {frame} gist {i}") for i in gists]
    return [row for row, _ in kept], [label for _, label in kept]


def in_reference_order(name: str, array: Array, manifest: Manifest) -> Array:
    """Return memory with the elements of each head where the reference has them.

    Under rope-halves, keys lie in another order; queries too, so that no score changes.

    Args:
        name: `memory.00.k` and so on.
        array: [..., D].
        manifest: Of the session that the memory is from.
    """
    if not name.endswith(".k") or "rope-halves" not in manifest.rewrites:
        return array
    return array[..., halves_order(array.shape[-1]).argsort().numpy()]


def difference(
    found: Array, wanted: Array, label: Callable[[tuple[int, ...]], str] = str
) -> Difference:
    """Return how far one tensor is from another; infinitely, if a value is not finite.

    Args:
        found: Any float type.
        wanted: Of the same shape.
        label: Says in words what stands at an index.
    """
    if found.shape != wanted.shape:
        worst = f"shape {list(found.shape)}, not {list(wanted.shape)}"
        return Difference(max_abs=np.inf, rel_rms=np.inf, worst=worst)
    if not found.size:
        return Difference(max_abs=0.0, rel_rms=0.0, worst="empty")
    error = np.abs(np.asarray(found, np.float64) - np.asarray(wanted, np.float64))
    error = np.where(np.isfinite(error), error, np.inf)
    index = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
    found, wanted = (np.asarray(one, np.float64).ravel() for one in (found, wanted))
    tiny = np.finfo(np.float64).tiny
    size, scale = (float(np.linalg.norm(one)) for one in (found, wanted))
    is_same = not error.any()
    return Difference(
        max_abs=float(error.max()),
        rel_rms=float(np.linalg.norm(error) / max(scale, tiny)),
        worst=label(index),
        cosine=1.0 if is_same else float(found @ wanted / max(size * scale, tiny)),
    )


def by_frame(trace: Trace, truth: Trace) -> ByFrame:
    """Return the largest errors of each frame of a trace, which may be shorter than the truth."""
    count = len(trace.latents)

    def error(found: Array, wanted: Array, axes: tuple[int, ...]) -> Array:
        apart = np.abs(found - wanted[:count]).max(axis=axes)
        return np.where(np.isfinite(apart), apart, np.inf)

    return ByFrame(
        latents=error(trace.latents, truth.latents, (1, 2, 3)),
        memory={
            name: error(array, truth.written[name], (1, 3)) for name, array in trace.written.items()
        },
        actions=error(trace.actions, truth.actions, (1, 2)),
    )


def differences(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> dict[str, Difference]:
    """Return the difference of each tensor, the worst first."""
    each = {name: difference(found[name], wanted[name]) for name in found}
    return dict(sorted(each.items(), key=lambda item: -item[1].max_abs))


def compared(
    name: str,
    precision: str,
    *,
    trace: Trace,
    truth: Trace,
    history: Mapping[str, Array],
    graphs: dict[str, dict[str, Difference]],
) -> RungResult:
    """Return the comparison of one rung's trace.

    Args:
        name: Of the rung.
        precision: Of the rung.
        trace: What it made.
        truth: What the reference made.
        history: Keys and values of executed actions by the lowest rung.
        graphs: How each graph compares with the rung below.
    """
    error = np.abs(trace.actions - truth.actions)

    def effect(actions: Array | None) -> float | None:
        return None if actions is None else float(np.abs(actions - trace.actions[-1]).max())

    def token(index: tuple[int, ...]) -> str:
        return f"{truth.kept[index[1]]}, head {index[0]}"

    memory = {name: difference(trace.memory[name], truth.memory[name], token)
              for name in truth.memory}  # fmt: skip
    memory |= {f"history of {n}": difference(trace.history[n], history[n]) for n in history}
    if trace.kept != truth.kept:
        lost = sorted(set(trace.kept) ^ set(truth.kept))
        memory["kept"] = Difference(max_abs=np.inf, rel_rms=np.inf, worst=str(lost[:4]))
    return RungResult(
        name=name,
        precision=precision,
        latents=difference(trace.latents, truth.latents, lambda i: f"frame {i[0]}, cell {i[1:]}"),
        actions=difference(
            trace.actions, truth.actions, lambda i: f"frame {i[0]}, step {i[1]}, joint {i[2]}"
        ),
        per_joint=[float(value) for value in error.max(axis=(0, 1))],
        by_frame=by_frame(trace, truth),
        memory=memory,
        graphs=graphs,
        noise_effect=effect(trace.other_actions),
        repeat_effect=effect(trace.same_actions),
    )

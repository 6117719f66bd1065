"""How far what one rung made of an episode is from what the reference made of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_export.rewrites import halves_order
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.manifest import Manifest

__all__ = [
    "Array",
    "Difference",
    "RungResult",
    "Tensors",
    "Trace",
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
    history: Tensors = field(default_factory=dict[str, Array])
    """Keys and values of executed actions [heads, tokens, D]; the reference gives none."""
    other_actions: Array | None = None
    """The last frame's actions from other noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far a tensor is from the one it must equal."""

    max_abs: float
    rel_rms: float
    """Root mean square of the error over that of the tensor."""
    worst: str
    """Where the largest error is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RungResult:
    """One rung: free-running against the reference, each graph against the rung below."""

    name: str
    precision: str
    latents: Difference
    actions: Difference
    per_joint: list[float]
    drift: list[float]
    """Largest error of each frame's actions."""
    memory: dict[str, Difference]
    graphs: dict[str, dict[str, Difference]]
    """Empty on the lowest rung."""
    noise_effect: float
    """Largest change of an action when the noise is another."""


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
    scale = np.sqrt(np.mean(np.square(np.asarray(wanted, np.float64))))
    rms = np.sqrt(np.mean(np.square(error)))
    return Difference(
        max_abs=float(error.max()),
        rel_rms=float(rms / max(scale, np.finfo(np.float64).tiny)),
        worst=label(index),
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
    other = trace.actions[-1] if trace.other_actions is None else trace.other_actions

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
        drift=[float(value) for value in error.max(axis=(1, 2))],
        memory=memory,
        graphs=graphs,
        noise_effect=float(np.abs(other - trace.actions[-1]).max()),
    )

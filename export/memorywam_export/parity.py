"""The ladder of parity: the same episode through every rung, each with a memory of its own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from memorywam_export.prompts import context_from_embedding
from memorywam_export.reference.model import MemoryWam
from memorywam_export.reference.oracle import Episode, episode_velocities
from memorywam_export.trace_report import (
    Array,
    Difference,
    RungResult,
    Tensors,
    Trace,
    compared,
    differences,
    in_reference_order,
    kept_tokens,
)
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.padding import with_text_bias
from memorywam_runtime.schedule import euler_steps
from memorywam_runtime.session import Session
from memorywam_runtime.tensors import storage_dtype

__all__ = ["Rung", "Script", "climb", "drive", "random_script", "reference_trace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What every rung is fed: one episode of random pictures, states, noise and actions."""

    pixels: list[NDArray[np.float32]]
    """One [1, 3, T, H, W] a frame."""
    states: NDArray[np.float32]
    noise: NDArray[np.float32]
    executed: NDArray[np.float32]
    """[frames, horizon, action_dim], as `noise`; used where actions are kept."""
    other_noise: NDArray[np.float32]
    context: NDArray[np.float32]
    """[1, text_len, text_dim]; rows past the prompt are zero."""
    num_tokens: int
    """Rows of it that are the prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One way to run the graphs."""

    name: str
    precision: str
    """Which tolerance counts: fp64, fp32 or fp16."""
    open: Callable[[], Session]


def climb(
    rungs: Sequence[Rung],
    truth: Trace,
    script: Script,
    manifest: Manifest,
    tell: Callable[[str], None],
) -> Iterator[RungResult]:
    """Yield the result of each rung; the lowest gives the inputs that the others are forced with.

    Args:
        rungs: From the closest to the reference to the farthest; only one is open at a time.
        truth: The reference's trace.
        script: What they are fed.
        manifest: The bundle's: which graphs, and in which types.
        tell: Called with what is being done.
    """
    inputs: dict[str, Tensors] = {}
    below: dict[str, Tensors] = {}
    history: Tensors = {}
    for rung in rungs:
        tell(f"{rung.name}: open")
        session = rung.open()
        trace = drive(session, script, tell, rung.name)
        inputs = inputs or _graph_inputs(session, script, manifest)
        graphs: dict[str, dict[str, Difference]] = {}
        for graph, tensors in inputs.items():
            tell(f"{rung.name}: {graph}")
            outputs = _graph_outputs(session, graph, tensors)
            if graph in below:
                graphs[graph] = differences(outputs, below[graph])
            below[graph] = outputs
        del session
        history = history or trace.history
        yield compared(
            rung.name, rung.precision, trace=trace, truth=truth, history=history, graphs=graphs
        )


def random_script(
    contract: InferenceContract, num_frames: int, seed: int, embedding: Array | None = None
) -> Script:
    """Return an episode of a contract's sizes, the same for the same seed.

    Args:
        contract: Sizes and conventions.
        num_frames: Latent frames.
        seed: Of everything random.
        embedding: The instruction's [tokens, text_dim]; random by default.
    """
    rng = np.random.default_rng(seed)
    views, actions, conventions = contract.observations, contract.actions, contract.conventions
    single = conventions.vae_history == "single_frame"
    counts = [1, *(1 if single else contract.images_per_frame for _ in range(1, num_frames))]
    shape = (actions.horizon, actions.action_dim)

    def normal(*size: int) -> NDArray[np.float32]:
        return rng.standard_normal(size).astype(np.float32)

    # Shorter than the context, so that there are zero rows to be collapsed.
    rows = normal(min(8, (conventions.text_len + 1) // 2), contract.text_dim)
    rows = rows if embedding is None else np.asarray(embedding, np.float32)
    return Script(
        pixels=[
            rng.uniform(-1, 1, (1, 3, count, views.height, views.width)).astype(np.float32)
            for count in counts
        ],
        states=normal(num_frames, actions.state_dim),
        noise=normal(num_frames, *shape),
        executed=normal(num_frames, *shape),
        other_noise=normal(*shape),
        context=context_from_embedding(rows, contract),
        num_tokens=len(rows),
    )


@torch.no_grad()
def reference_trace(model: MemoryWam, script: Script) -> Trace:
    """Return the trace of the whole episode as one masked sequence: the memory's truth."""
    contract, num_frames = model.contract, len(script.pixels)

    def tensor(values: Array) -> torch.Tensor:
        return torch.from_numpy(values).to(model.gist_tokens.dtype)

    latents = _encoded(model, [tensor(pixels) for pixels in script.pixels])
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    hooks = [
        block.register_forward_pre_hook(partial(_keep_keys_values, kept))
        for block in model.video.blocks
    ]
    x = tensor(script.noise)[None]
    conventions = contract.conventions
    steps = euler_steps(conventions.num_steps, conventions.action_shift)
    for timestep, delta in zip(*(part.tolist() for part in steps), strict=True):
        episode = Episode(
            latents=latents,
            states=tensor(script.states)[None],
            context=tensor(script.context),
            noisy_actions=x,
            timesteps=torch.full((1, num_frames), timestep, dtype=torch.float64),
            executed=tensor(script.executed)[None] if conventions.action_history else None,
        )
        x = x + episode_velocities(model, episode) * delta
        for hook in hooks:
            hook.remove()  # video never sees actions: the first step has told all
    rows, labels = kept_tokens(contract, num_frames)
    return Trace(
        latents=latents[0].movedim(1, 0).numpy(),
        actions=x[0].numpy(),
        memory={
            f"memory.{layer:02d}.{part}": tensor[0, :, rows].numpy()
            for layer, pair in enumerate(kept)
            for part, tensor in zip("kv", pair, strict=True)
        },
        kept=labels,
    )


def drive(session: Session, script: Script, tell: Callable[[str], None], name: str) -> Trace:
    """Run the script through a session, frame by frame, its memory carried along."""
    text = _graph_outputs(session, "prompt_kv", {"context": _context(session, script)})
    session.reset(with_text_bias(session.manifest, text, script.num_tokens))
    conventions = session.contract.conventions
    pixel_type = storage_dtype(session.manifest.graphs["vae_first"].inputs[0].dtype)
    latents, actions = [], []
    for frame, pixels in enumerate(script.pixels):
        tell(f"{name}: frame {frame}")
        past = script.executed[frame - 1] if frame and conventions.action_history else None
        state = script.states[frame] if conventions.proprio_in_video_context else None
        session.remember(pixels.astype(pixel_type, copy=False), past, state)
        latent = session.calls.tensor("cache_update", "latent")
        latents.append(session.backend.read(latent)[0, :, 0])
        session.set_state(script.states[frame])
        actions.append(session.denoise(script.noise[frame]))
    memory, history, kept = _memory_of(session, len(script.pixels))
    return Trace(
        latents=np.stack(latents),
        actions=np.stack(actions),
        memory=memory,
        kept=kept,
        history=history,
        other_actions=session.denoise(script.other_noise),
    )


def _context(session: Session, script: Script) -> Array:
    """Return the context with as many rows as the session's graphs take."""
    (spec,) = session.manifest.graphs["prompt_kv"].inputs
    return script.context[:, : spec.fixed_shape[1]]


def _graph_inputs(session: Session, script: Script, manifest: Manifest) -> dict[str, Tensors]:
    """Return inputs of every graph of the bundle: those of a session at the episode's end.

    They are rounded to the bundle's types, so that every rung gets the same numbers.
    """
    rows, horizon = session.buffers.num_rows, session.contract.actions.horizon
    conventions = session.contract.conventions
    timesteps, deltas = euler_steps(conventions.num_steps, conventions.action_shift)
    bias = np.empty(rows + horizon)
    session.memory.action_bias(rows, bias)
    step = len(timesteps) // 2
    timestep = timesteps[step : step + 1]
    chosen: dict[str, Tensors] = {
        "prompt_kv": {"context": _context(session, script)},
        "action_modulation": {"timestep": timestep},
        "action_step": {
            "x": script.noise[-1:],
            "timestep": timestep,
            "delta": deltas[step : step + 1],
        },
        "action_denoise": {
            "noise": script.noise[-1:],
            "timesteps": timesteps,
            "deltas": deltas,
            "key_bias": bias.reshape(1, 1, 1, -1),
            **{n: session.calls.tensor("action_step", n) for n in ("rope_cos", "rope_sin")},
        },
    }
    if "action_modulation" in manifest.graphs:
        each = [
            _graph_outputs(session, "action_modulation", {"timestep": timesteps[s : s + 1]})
            for s in range(len(timesteps))
        ]
        chosen["action_step"] |= each[step]
        chosen["action_denoise"]["modulations"] = np.concatenate([e["modulation"] for e in each])
    inputs: dict[str, Tensors] = {}
    for graph, entry in manifest.graphs.items():
        inputs[graph] = {}
        for spec in entry.inputs:
            value = chosen.get(graph, {}).get(spec.name)
            if value is None and spec.name.startswith("memory."):
                value = session.calls.memory[spec.name]
            elif value is None:
                kept = "action_step" if graph == "action_denoise" else graph
                value = session.calls.tensor(kept, spec.name)
            inputs[graph][spec.name] = value.astype(storage_dtype(spec.dtype))
    return inputs


def _graph_outputs(session: Session, graph: str, inputs: Mapping[str, Array]) -> Tensors:
    """Return the outputs of one call of a graph, in arrays of its own."""
    entry = session.manifest.graphs[graph]
    given = {s.name: inputs[s.name].astype(storage_dtype(s.dtype)) for s in entry.inputs}
    shapes = [
        (size, n)
        for s in entry.inputs
        for size, n in zip(s.shape, given[s.name].shape, strict=True)
    ]
    sizes = {size: n for size, n in shapes if isinstance(size, str)}
    outputs = {spec.name: spec.bound(**sizes).zeros() for spec in entry.outputs}
    session.backend.load((session.root or Path()) / entry.file, entry).bind(given, outputs)()
    return outputs


def _memory_of(session: Session, num_frames: int) -> tuple[Tensors, Tensors, list[str]]:
    """Return what is kept: tokens of frames, of executed actions, and what the former are."""
    memory, rows = session.memory, session.memory.rows
    state = memory.snapshot()
    first = num_frames - state.num_frames  # of those that memory still counts
    kept: list[tuple[str, int]] = []
    actions: list[int] = []
    for frame, slot in sorted((f, s) for s, f in enumerate(state.slot_frames) if f >= 0):
        start = rows.slot(slot)
        kept += [(f"frame {first + frame} visual {i}", start + i) for i in range(rows.num_visual)]
        if state.slot_has_actions[slot]:
            actions += range(rows.history(slot), rows.history(slot) + rows.num_history)
    for frame in range(memory.num_table_places(state.num_frames)):
        start = rows.gist(memory.gist_place(frame))
        kept += [(f"frame {frame} gist {i}", start + i) for i in range(rows.num_gists)]
    arrays = {
        name: in_reference_order(name, session.backend.read(array)[0], session.manifest)
        for name, array in session.calls.memory.items()
    }
    tokens = [row for _, row in kept]
    return (
        {name: array[:, tokens] for name, array in arrays.items()},
        {name: array[:, actions] for name, array in arrays.items()} if actions else {},
        [label for label, _ in kept],
    )


def _encoded(model: MemoryWam, pixels: list[torch.Tensor]) -> torch.Tensor:
    """Return latents [1, C, T, h, w] of an episode, as its convention encodes history."""
    match model.contract.conventions.vae_history:
        case "single_frame":
            frames = [model.vae.encode(images) for images in pixels]
        case "windowed":
            frames = [model.vae.encode(pixels[0])]
            for before, images in pairwise(pixels):
                group = torch.cat((before[:, :, -1:], images), dim=2)
                frames.append(model.vae.encode(group)[:, :, 1:])
        case _:
            return model.vae.encode(torch.cat(pixels, dim=2))
    return torch.cat(frames, dim=2)


def _keep_keys_values(
    kept: list[tuple[torch.Tensor, torch.Tensor]], block: nn.Module, inputs: tuple[Any, ...]
) -> None:
    """Note the keys and values that a block is about to make."""
    x, e, tables = inputs[:3]
    kept.append(block.keys_values(x, e, tables))  # type: ignore[operator]

"""One episode on one rung: through the reference under one mask, or a session frame by frame."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from memorywam_export.parity.parity_graphs import (
    Script,
    context_rows,
    graph_outputs,
    kept_type,
)
from memorywam_export.parity.trace_report import (
    Array,
    Tensors,
    Trace,
    in_reference_order,
    kept_tokens,
)
from memorywam_export.reference.model import MemoryWam
from memorywam_export.reference.oracle import Episode, episode_velocities
from memorywam_export.text.prompts import context_from_embedding
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.padding import with_text_bias
from memorywam_runtime.schedule import euler_steps
from memorywam_runtime.session import Session
from memorywam_runtime.tensors import decoded, encoded, storage_dtype

__all__ = [
    "drive",
    "memory_of",
    "play",
    "random_script",
    "reference_trace",
    "text_of",
]


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
        other_context=context_from_embedding(normal(*rows.shape), contract),
    )


@torch.no_grad()
def reference_trace(model: MemoryWam, script: Script) -> Trace:
    """Return the trace of the whole episode as one masked sequence: the memory's truth."""
    contract, num_frames = model.contract, len(script.pixels)

    def tensor(values: Array) -> torch.Tensor:
        return torch.from_numpy(values).to(model.gist_tokens.dtype)

    def wide(found: torch.Tensor) -> Array:
        return found.double().numpy()

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
    all_tokens = {
        f"memory.{layer:02d}.{part}": wide(tensor[0])
        for layer, pair in enumerate(kept)
        for part, tensor in zip("kv", pair, strict=True)
    }
    return Trace(
        latents=wide(latents[0].movedim(1, 0)),
        actions=wide(x[0]),
        memory={name: array[:, rows] for name, array in all_tokens.items()},
        kept=labels,
        written={
            name: np.stack(np.split(array, num_frames, axis=1))
            for name, array in all_tokens.items()
        },
    )


def drive(session: Session, script: Script, tell: Callable[[str], None], name: str) -> Trace:
    """Run the script through a session, frame by frame, its memory carried along."""
    session.reset(text_of(session, script.context, script.num_tokens))
    latents, actions, written = [], [], []
    for frame in range(len(script.pixels)):
        tell(f"{name}: frame {frame}")
        actions.append(play(session, script, frame))
        latent = session.backend.read(session.calls.tensor("cache_update", "latent"))
        latents.append(decoded(latent, kept_type(session))[0, :, 0])
        written.append(_newest(session))
    memory, history, kept = memory_of(session, len(script.pixels))
    return Trace(
        latents=np.stack(latents),
        actions=np.stack(actions),
        memory=memory,
        kept=kept,
        written={name: np.stack([one[name] for one in written]) for name in written[0]},
        history=history,
        other_actions=session.denoise(script.other_noise),
        same_actions=session.denoise(script.noise[len(script.pixels) - 1]),
    )


def text_of(session: Session, context: Array, num_tokens: int) -> Tensors:
    """Return what an instruction brings a session, made by its own graph.

    Args:
        session: Open.
        context: [1, text_len, text_dim]; rows past the prompt are zero.
        num_tokens: Rows of it that are the prompt.
    """
    found = graph_outputs(session, "prompt_kv", {"context": context_rows(session, context)})
    specs = session.manifest.graphs["prompt_kv"].outputs
    text = {spec.name: encoded(found[spec.name], spec.dtype) for spec in specs}
    return dict(with_text_bias(session.manifest, text, num_tokens))


def play(session: Session, script: Script, frame: int) -> Array:
    """Remember one frame of the script and return the chunk made after it."""
    conventions = session.contract.conventions
    past = script.executed[frame - 1] if frame and conventions.action_history else None
    state = script.states[frame] if conventions.proprio_in_video_context else None
    pixel_type = storage_dtype(session.manifest.graphs["vae_first"].inputs[0].dtype)
    session.remember(script.pixels[frame].astype(pixel_type, copy=False), past, state)
    session.set_state(script.states[frame])
    return session.denoise(script.noise[frame])


def _newest(session: Session) -> Tensors:
    """Return keys and values [heads, L + M, D] of the newest frame, where they are read from."""
    memory, rows = session.memory, session.memory.rows
    frame = memory.num_frames - 1
    slot = rows.slot(memory.slot_of(frame))
    tokens = list(range(slot, slot + rows.num_visual))
    if rows.num_gists:
        place = rows.gist(memory.gist_place(frame))
        tokens += range(place, place + rows.num_gists)
    return {name: array[:, tokens] for name, array in _memory_arrays(session).items()}


def _memory_arrays(session: Session) -> Tensors:
    """Return all of memory [heads, rows, D], as float and as the reference orders it."""
    dtype = kept_type(session)
    return {
        name: in_reference_order(
            name, decoded(session.backend.read(array), dtype)[0], session.manifest
        )
        for name, array in session.calls.memory.items()
    }


def memory_of(session: Session, num_frames: int) -> tuple[Tensors, Tensors, list[str]]:
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
    arrays = _memory_arrays(session)
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

"""The split: one module per graph, with name, shape, type and meaning of every tensor.

Every graph is a pure function of its inputs. Positions, noise, rows and key bias are inputs, so
one set of graphs serves frame 0 and frame 5,000, every instruction and every number of steps.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from memorywam_export.reference.action import ActionExpert
from memorywam_export.reference.attention import CrossAttention, attend
from memorywam_export.reference.blocks import Block
from memorywam_export.reference.model import MemoryWam
from memorywam_runtime.manifest import CacheWrite

__all__ = [
    "ActionDenoise",
    "ActionStep",
    "CacheUpdate",
    "PromptKv",
    "StateKv",
    "VaeFirst",
    "VaeStep",
]

Tensors = list[torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Writer:
    """How new keys and values join the memory of one layer.

    In place: TensorScatter writes rows row .. row + n of the memory, which the runtime binds as
    input and output of one buffer; attention then reads the memory alone. Copy: attention reads
    memory and new rows side by side, and the runtime copies the new rows afterwards.
    """

    row: torch.Tensor | None
    """First row to write [1] int64; None to copy."""

    def join(self, memory: torch.Tensor, new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (what to attend to, what to give out), of memory and new [1, H, ., D]."""
        if self.row is None:
            return torch.cat((memory, new), dim=2), new
        written = _scatter(memory, new, self.row)
        return written, written


def _scatter(memory: torch.Tensor, new: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """Return memory [1, H, S, D] with new [1, H, n, D] from row on: one TensorScatter."""
    if torch.compiler.is_exporting():
        # Two chained writes would copy the whole memory, and TensorRT refuses them.
        return torch.onnx.ops.symbolic(
            "TensorScatter",
            [memory, new.contiguous(), row],
            attrs={"axis": 2, "mode": "linear"},
            dtype=memory.dtype,
            shape=memory.shape,
            version=24,
        )
    first = int(row)
    memory[:, :, first : first + new.shape[2]] = new
    return memory


class VaeFirst(nn.Module):
    """vae_first: the first image of an episode to latent frame 0 and fresh feature caches."""

    def __init__(self, model: MemoryWam) -> None:
        super().__init__()
        self.vae = model.vae

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return latent [1, C, 1, h, w], then the caches."""
        latent, caches = self.vae.first(image.to(self.vae.conv1.weight.dtype))
        return (latent, *caches)


class VaeStep(nn.Module):
    """vae_step: the next group of images to the next latent frame, over the feature caches."""

    def __init__(self, model: MemoryWam) -> None:
        super().__init__()
        self.vae = model.vae

    def forward(self, images: torch.Tensor, caches: Tensors) -> tuple[torch.Tensor, ...]:
        """Return latent [1, C, 1, h, w], then the caches."""
        latent, new = self.vae.step(images.to(self.vae.conv1.weight.dtype), tuple(caches))
        return (latent, *new)


class PromptKv(nn.Module):
    """prompt_kv: text embeddings to cross-attention keys and values of both experts."""

    def __init__(self, model: MemoryWam) -> None:
        super().__init__()
        self.model = model

    def forward(self, context: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return k and v per layer: video, then action."""
        dtype = self.model.gist_tokens.dtype
        return _flat(*self.model.text_keys_values(context.to(dtype)))


class StateKv(nn.Module):
    """state_kv: the normalized joint state to one more cross-attention key and value a layer."""

    def __init__(self, model: MemoryWam) -> None:
        super().__init__()
        self.model = model
        self.of_video = model.contract.conventions.proprio_in_video_context

    def forward(self, state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return k and v [1, H, 1, D] per layer: video if it sees the state, then action."""
        context = self.model.state_context(state)[:, None]
        video, action = self.model.text_keys_values(context)
        return _flat(video if self.of_video else [], action)


class CacheUpdate(nn.Module):
    """cache_update: one latent frame and its gist tokens to keys and values in memory."""

    def __init__(self, model: MemoryWam, cache_write: CacheWrite) -> None:
        super().__init__()
        self.video = model.video
        self.gist_tokens = model.gist_tokens
        self.cache_write: CacheWrite = cache_write
        contract = model.contract
        self.queries = (contract.num_visual, contract.memory.num_gists)

    def forward(
        self,
        latent: torch.Tensor,
        rope_cos: torch.Tensor,
        rope_sin: torch.Tensor,
        visual_bias: torch.Tensor,
        gist_bias: torch.Tensor,
        *rest: Any,  # noqa: ANN401 - a row, then lists of tensors
    ) -> tuple[torch.Tensor, ...]:
        """Return k and v per layer: the whole memory (in place) or the new rows (copy).

        `rest` is the row to write at (only in place), then the lists memory, text and state.
        """
        writer, (memory, text, state) = _writer(self.cache_write, rest)
        x = self.video.tokens(latent, self.gist_tokens)
        e = self.video.modulation(x.device)
        tables = (rope_cos, rope_sin)
        visual, gist = (
            bias.expand(-1, -1, count, -1)
            for bias, count in zip((visual_bias, gist_bias), self.queries, strict=True)
        )
        bias = torch.cat((visual, gist), dim=2)  # [1, 1, L + M, rows]
        written: Tensors = []
        *earlier, last = self.video.blocks
        for block, memory_kv, cross in _layers(earlier, memory, text, state):
            over = partial(_over_memory, writer=writer, memory=memory_kv, bias=bias, out=written)
            x = block(x, e, tables, over, cross)
        # Nothing reads the last layer's tokens: only its keys and values are needed.
        assert isinstance(last, Block)
        for kept, new in zip(memory[-2:], last.keys_values(x, e, tables), strict=True):
            written.append(writer.join(kept, new)[1])
        return tuple(written)


class ActionStep(nn.Module):
    """action_step: one Euler step of a chunk over the memory.

    The same graph stores executed actions: with timestep 0 and the row of a slot's history, the
    keys and values it writes are those of clean actions.
    """

    def __init__(self, model: MemoryWam, cache_write: CacheWrite) -> None:
        super().__init__()
        self.action = model.action
        self.cache_write: CacheWrite = cache_write
        self.gives_rows = cache_write == "in_place" or model.contract.conventions.action_history

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        delta: torch.Tensor,
        rope_cos: torch.Tensor,
        rope_sin: torch.Tensor,
        key_bias: torch.Tensor,
        *rest: Any,  # noqa: ANN401 - a row, then lists of tensors
    ) -> tuple[torch.Tensor, ...]:
        """Return x + velocity * delta [1, horizon, action_dim], then k and v per layer.

        `rest` is the row to write at (only in place), then the lists memory, text and state.
        """
        writer, kept = _writer(self.cache_write, rest)
        tables = (rope_cos, rope_sin)
        velocity, written = _velocity(self.action, x, timestep, tables, key_bias, writer, kept)
        moved = x + velocity.to(x.dtype) * delta
        return (moved, *written) if self.gives_rows else (moved,)


class ActionDenoise(nn.Module):
    """action_denoise: all steps of a chunk in one graph, for runtimes where calls are dear.

    It never writes to memory: a chain of writes could not stay in place.
    """

    def __init__(self, model: MemoryWam, num_steps: int) -> None:
        super().__init__()
        self.action = model.action
        self.num_steps = num_steps

    def forward(
        self,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
        deltas: torch.Tensor,
        rope_cos: torch.Tensor,
        rope_sin: torch.Tensor,
        key_bias: torch.Tensor,
        memory: Tensors,
        text: Tensors,
        state: Tensors,
    ) -> torch.Tensor:
        """Return the chunk [1, horizon, action_dim] after all steps."""
        writer = _Writer(None)
        x, tables = noise, (rope_cos, rope_sin)
        for step in range(self.num_steps):
            timestep = timesteps[step : step + 1]
            velocity, _ = _velocity(
                self.action, x, timestep, tables, key_bias, writer, (memory, text, state)
            )
            x = x + velocity.to(x.dtype) * deltas[step]
        return x


def _writer(
    cache_write: CacheWrite, rest: Sequence[Any]
) -> tuple[_Writer, tuple[Tensors, Tensors, Tensors]]:
    """Return the writer, and the lists memory, text and state."""
    memory, text, state = rest[-3:]
    return _Writer(rest[0] if cache_write == "in_place" else None), (memory, text, state)


def _velocity(
    action: ActionExpert,
    actions: torch.Tensor,
    timestep: torch.Tensor,
    tables: tuple[torch.Tensor, torch.Tensor],
    key_bias: torch.Tensor,
    writer: _Writer,
    kept: tuple[Tensors, Tensors, Tensors],
) -> tuple[torch.Tensor, Tensors]:
    """Return the velocity of noisy actions, and k and v per layer as the writer gives them out."""
    x = action.tokens(actions)
    e = action.modulation(timestep[None])
    bias = key_bias.expand(-1, -1, actions.shape[1], -1)
    written: Tensors = []
    for block, memory_kv, cross in _layers(action.blocks, *kept):
        over = partial(_over_memory, writer=writer, memory=memory_kv, bias=bias, out=written)
        x = block(x, e, tables, over, cross)
    return action.velocity(x), written


def _over_memory(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    writer: _Writer,
    memory: tuple[torch.Tensor, torch.Tensor],
    bias: torch.Tensor,
    out: Tensors,
) -> torch.Tensor:
    """Write k and v, attend over memory, and append what is given out."""
    (all_k, out_k), (all_v, out_v) = writer.join(memory[0], k), writer.join(memory[1], v)
    out += [out_k, out_v]
    return attend(q, all_k, all_v, bias)


def _layers(
    blocks: Iterable[nn.Module], memory: Tensors, text: Tensors, state: Tensors
) -> Iterator[tuple[Block, tuple[torch.Tensor, torch.Tensor], partial[torch.Tensor]]]:
    """Yield each block with its memory (k, v) and its cross-attention to text and state."""
    for layer, block in enumerate(blocks):
        k, v = 2 * layer, 2 * layer + 1
        text_k, text_v = text[k], text[v]
        if state:
            text_k = torch.cat((text_k, state[k]), dim=2)
            text_v = torch.cat((text_v, state[v]), dim=2)
        cross = partial(_cross, text_k=text_k, text_v=text_v)
        yield block, (memory[k], memory[v]), cross  # type: ignore[misc]


def _cross(
    attention: CrossAttention, x: torch.Tensor, text_k: torch.Tensor, text_v: torch.Tensor
) -> torch.Tensor:
    """Attend to the prompt (and state): every key is seen."""
    return attention(x, text_k, text_v)  # type: ignore[no-any-return]


def _flat(
    video: list[tuple[torch.Tensor, torch.Tensor]], action: list[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[torch.Tensor, ...]:
    """Return k and v per layer, video then action, without the last video layer's: it is unused."""
    return tuple(tensor for pair in (*video[:-1], *action) for tensor in pair)

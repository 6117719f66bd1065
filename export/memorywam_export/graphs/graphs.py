"""The split: one module per graph; `graph_specs` says what each tensor is.

Every graph is a pure function of its inputs. Positions, noise, rows and key bias are inputs, so
one set of graphs serves frame 0 and frame 5,000, every instruction and every number of steps.

The model is the reference's, or `rewrites.RewrittenModel`: the graphs take the form that the
model's rewrites ask for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from memorywam_export.graphs.cross_attention import cross_over, text_mask
from memorywam_export.graphs.rewrites import last_keys_values, rewrites_of
from memorywam_export.reference.action import ActionExpert
from memorywam_export.reference.attention import attend
from memorywam_export.reference.model import MemoryWam
from memorywam_export.reference.video import residual_dtype
from memorywam_runtime.manifest import CacheWrite

__all__ = [
    "ActionDenoise",
    "ActionModulation",
    "ActionStep",
    "CacheUpdate",
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
    if memory.is_meta:  # counted, not computed
        return memory
    if memory.device.type != "cpu":  # to know the row, the host would wait for the device
        rows = row + torch.arange(new.shape[2], device=row.device)
        return memory.index_copy_(2, rows, new)
    first = int(row)
    memory[:, :, first : first + new.shape[2]] = new
    return memory


class CacheUpdate(nn.Module):
    """cache_update: one latent frame and its gist tokens to keys and values in memory."""

    def __init__(self, model: MemoryWam, cache_write: CacheWrite) -> None:
        super().__init__()
        self.video = model.video
        self.gist_tokens = model.gist_tokens
        self.cache_write: CacheWrite = cache_write
        self.is_folded = "fold-modulation" in rewrites_of(model)
        self.is_collapsed = "collapse-padding" in rewrites_of(model)
        contract = model.contract
        self.queries = (contract.num_visual, contract.memory.num_gists)

    def forward(
        self,
        latent: torch.Tensor,
        rope_cos: torch.Tensor,
        rope_sin: torch.Tensor,
        visual_bias: torch.Tensor,
        gist_bias: torch.Tensor,
        *rest: Any,  # noqa: ANN401 - a bias and a row, then lists of tensors
    ) -> tuple[torch.Tensor, ...]:
        """Return k and v [1, H, ., D] per layer: all of memory (in place) or the new rows (copy).

        `rest` is the prompt's bias (only where its zero rows are collapsed), the row to write at
        (only in place), then the lists memory, text and state.
        """
        writer, text_bias, kept = _unpacked(self, rest)
        x = self.video.tokens(latent, self.gist_tokens)
        e = None if self.is_folded else self.video.modulation(x.device)
        tables = (rope_cos, rope_sin)
        visual, gist = (
            bias.expand(-1, -1, count, -1)
            for bias, count in zip((visual_bias, gist_bias), self.queries, strict=True)
        )
        bias = torch.cat((visual, gist), dim=2)  # [1, 1, L + M, rows]
        written: Tensors = []
        *earlier, last = self.video.blocks
        for block, memory_kv, cross in _layers(earlier, *kept, text_bias, x.shape[1]):
            over = partial(_over_memory, writer=writer, memory=memory_kv, bias=bias, out=written)
            x = block(x, e, tables, over, cross)
        # Nothing reads the last layer's tokens: only its keys and values are needed.
        for old, new in zip(kept[0][-2:], last_keys_values(last, x, e, tables), strict=True):
            written.append(writer.join(old, new)[1])
        return tuple(written)


class ActionModulation(nn.Module):
    """action_modulation: a timestep to what it adds to every action block's modulation.

    Run once for each step of a number of steps, so that no step carries the maps of time.
    """

    def __init__(self, model: MemoryWam) -> None:
        super().__init__()
        self.action = model.action

    def forward(self, timestep: torch.Tensor) -> torch.Tensor:
        """Return e [1, 6, hidden] of a timestep [1], in the timestep's type: nothing is lost."""
        return self.action.modulation(timestep).to(timestep.dtype)


class ActionStep(nn.Module):
    """action_step: one Euler step of a chunk over the memory.

    The same graph stores executed actions: with timestep 0 and the row of a slot's history, the
    keys and values it writes are those of clean actions.
    """

    def __init__(self, model: MemoryWam, cache_write: CacheWrite) -> None:
        super().__init__()
        self.action = model.action
        self.cache_write: CacheWrite = cache_write
        self.is_collapsed = "collapse-padding" in rewrites_of(model)
        self.takes_modulation = "modulation-table" in rewrites_of(model)
        self.gives_rows = cache_write == "in_place" or model.contract.conventions.action_history

    def forward(
        self,
        x: torch.Tensor,
        time: torch.Tensor,
        delta: torch.Tensor,
        rope_cos: torch.Tensor,
        rope_sin: torch.Tensor,
        key_bias: torch.Tensor,
        *rest: Any,  # noqa: ANN401 - a bias and a row, then lists of tensors
    ) -> tuple[torch.Tensor, ...]:
        """Return x + velocity * delta [1, horizon, action_dim], then k and v per layer.

        `time` is the timestep [1], or its modulation [1, 6, hidden] from `action_modulation`;
        `rest` is the prompt's bias (only where its zero rows are collapsed), the row to write at
        (only in place), then the lists memory, text and state.
        """
        writer, text_bias, kept = _unpacked(self, rest)
        e = _modulation(self.action, time, is_known=self.takes_modulation)
        tables = (rope_cos, rope_sin)
        velocity, written = _velocity(self.action, x, e, tables, key_bias, writer, text_bias, kept)
        moved = x + velocity.to(x.dtype) * delta
        return (moved, *written) if self.gives_rows else (moved,)


class ActionDenoise(nn.Module):
    """action_denoise: all steps of a chunk in one graph, for runtimes where calls are dear.

    It never writes to memory: a chain of writes could not stay in place.
    """

    cache_write: CacheWrite = "copy"

    def __init__(self, model: MemoryWam, num_steps: int) -> None:
        super().__init__()
        self.action = model.action
        self.is_collapsed = "collapse-padding" in rewrites_of(model)
        self.takes_modulation = "modulation-table" in rewrites_of(model)
        self.num_steps = num_steps

    def forward(
        self,
        noise: torch.Tensor,
        times: torch.Tensor,
        deltas: torch.Tensor,
        rope_cos: torch.Tensor,
        rope_sin: torch.Tensor,
        key_bias: torch.Tensor,
        *rest: Any,  # noqa: ANN401 - a bias, then lists of tensors
    ) -> torch.Tensor:
        """Return the chunk [1, horizon, action_dim] after all steps.

        `times` are timesteps [S], or their modulations [S, 6, hidden].
        """
        writer, text_bias, kept = _unpacked(self, rest)
        x, tables = noise, (rope_cos, rope_sin)
        for step in range(self.num_steps):
            time = times[step : step + 1]
            e = _modulation(self.action, time, is_known=self.takes_modulation)
            velocity, _ = _velocity(self.action, x, e, tables, key_bias, writer, text_bias, kept)
            x = x + velocity.to(x.dtype) * deltas[step]
        return x


def _unpacked(
    graph: CacheUpdate | ActionStep | ActionDenoise, rest: Sequence[Any]
) -> tuple[_Writer, torch.Tensor | None, tuple[Tensors, Tensors, Tensors]]:
    """Return the writer, the prompt's bias if there is one, and the lists memory, text, state."""
    *single, memory, text, state = rest
    text_bias = single.pop(0) if graph.is_collapsed else None
    row = single.pop(0) if graph.cache_write == "in_place" else None
    return _Writer(row), text_bias, (memory, text, state)


def _modulation(action: ActionExpert, time: torch.Tensor, *, is_known: bool) -> torch.Tensor:
    """Return e [1, 1, 6, hidden] of a timestep [1], or of its modulation [1, 6, hidden]."""
    if not is_known:
        return action.modulation(time[None])
    return time[None].to(residual_dtype(action.contract, action.head.weight.dtype))


def _velocity(
    action: ActionExpert,
    actions: torch.Tensor,
    e: torch.Tensor,
    tables: tuple[torch.Tensor, torch.Tensor],
    key_bias: torch.Tensor,
    writer: _Writer,
    text_bias: torch.Tensor | None,
    kept: tuple[Tensors, Tensors, Tensors],
) -> tuple[torch.Tensor, Tensors]:
    """Return the velocity of noisy actions, and k and v per layer as the writer gives them out."""
    x = action.tokens(actions)
    bias = key_bias.expand(-1, -1, actions.shape[1], -1)
    written: Tensors = []
    for block, memory_kv, cross in _layers(action.blocks, *kept, text_bias, x.shape[1]):
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
    blocks: Iterable[nn.Module],
    memory: Tensors,
    text: Tensors,
    state: Tensors,
    text_bias: torch.Tensor | None,
    num_queries: int,
) -> Iterator[tuple[nn.Module, tuple[torch.Tensor, torch.Tensor], partial[torch.Tensor]]]:
    """Yield each block with its memory (k, v) and its cross-attention to text and state."""
    mask = text_mask(text_bias, num_queries, has_state=bool(state))
    for layer, block in enumerate(blocks):
        k, v = 2 * layer, 2 * layer + 1
        text_k, text_v = text[k], text[v]
        if state:
            text_k = torch.cat((text_k, state[k]), dim=2)
            text_v = torch.cat((text_v, state[v]), dim=2)
        cross = partial(cross_over, text_k=text_k, text_v=text_v, mask=mask)
        yield block, (memory[k], memory[v]), cross

"""Names, shapes, types and meanings of every graph's inputs and outputs."""

from memorywam_export.graphs.graph_spec import GraphSpec
from memorywam_export.graphs.graph_specs_vae import latent_spec, vae_specs
from memorywam_export.graphs.rewrites import NO_REWRITES, Rewrites
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.manifest import CacheWrite
from memorywam_runtime.tensors import DType, TensorSpec

__all__ = ["KEYS", "ROWS", "graph_specs"]

ROWS = "rows"
"""Rows of memory: the one size that is open when a graph is exported, set by the gist bucket."""
KEYS = "keys"
"""Rows of memory and the caller's own behind them, where a graph does not write in place."""


def graph_specs(
    contract: InferenceContract,
    dtype: DType,
    cache_write: CacheWrite,
    cache_shapes: list[tuple[int, ...]],
    rewrites: Rewrites = NO_REWRITES,
) -> dict[str, GraphSpec]:
    """Return the specs of all graphs.

    Args:
        contract: Sizes and conventions.
        dtype: Type of weights, keys, values, latents and feature caches.
        cache_write: How the graphs write memory.
        cache_shapes: Shapes of the encoder's feature caches.
        rewrites: Which exact rewrites the graphs have.
    """
    makers = _Makers(contract, dtype, cache_write, rewrites)
    is_early = "early-frames" in rewrites
    specs = [
        makers.prompt_kv(),
        makers.state_kv(),
        *vae_specs(contract, dtype, cache_shapes, is_early=is_early),
        makers.cache_update(),
        makers.action_step(),
        makers.action_denoise(),
    ]
    if "modulation-table" in rewrites:
        specs.insert(-2, makers.action_modulation())
    return {spec.name: spec for spec in specs}


class _Makers:
    """One method a graph; sizes are looked up once."""

    def __init__(
        self,
        contract: InferenceContract,
        dtype: DType,
        cache_write: CacheWrite,
        rewrites: Rewrites,
    ) -> None:
        self.contract = contract
        self.dtype: DType = dtype
        self.cache_write: CacheWrite = cache_write
        self.rewrites = rewrites
        self.text_rows = rewrites.text_rows or contract.conventions.text_len
        self.actions = (1, contract.actions.horizon, contract.actions.action_dim)
        self.table = contract.head_dim // 2

    def real(self, name: str, shape: tuple[int | str, ...], meaning: str) -> TensorSpec:
        """Return a tensor in float32, whatever the precision (float64 in a float64 check)."""
        dtype: DType = "float64" if self.dtype == "float64" else "float32"
        return TensorSpec(name=name, shape=shape, dtype=dtype, meaning=meaning)

    def kv(
        self, prefix: str, tokens: int | str, meaning: str, num_layers: int | None = None
    ) -> tuple[TensorSpec, ...]:
        """Return k and v of every layer: [1, heads, tokens, head_dim]."""
        shape = (1, self.contract.num_heads, tokens, self.contract.head_dim)
        return tuple(
            TensorSpec(
                name=f"{prefix}.{layer:02d}.{part}",
                shape=shape,
                dtype=self.dtype,
                meaning=f"{meaning}, layer {layer}, {'keys' if part == 'k' else 'values'}",
            )
            for layer in range(self.contract.num_layers if num_layers is None else num_layers)
            for part in "kv"
        )

    def rope(self, tokens: int) -> tuple[TensorSpec, TensorSpec]:
        """Return the rotary tables."""
        shape = (tokens, self.table)
        return (
            self.real("rope_cos", shape, "cosines of each token's angles"),
            self.real("rope_sin", shape, "sines of each token's angles"),
        )

    def bias(self, name: str, who: str) -> TensorSpec:
        """Return a key bias."""
        keys = ROWS if self.cache_write == "in_place" else KEYS
        meaning = f"added to the scores of {who}: 0 where seen, -1e9 where hidden"
        return self.real(name, (1, 1, 1, keys), meaning)

    def rows(self, name: str, meaning: str) -> tuple[TensorSpec, ...]:
        """Return the row to write at, where the graph writes."""
        if self.cache_write == "copy":
            return ()
        return (TensorSpec(name=name, shape=(1,), dtype="int64", meaning=meaning),)

    def text(self, name: str) -> tuple[TensorSpec, ...]:
        """Return the prompt's keys and values of one expert.

        The last video layer attends to nothing: only its keys and values are ever used.
        """
        num_layers = self.contract.num_layers - (name == "video_text")
        return self.kv(name, self.text_rows, "prompt", num_layers)

    def text_bias(self) -> tuple[TensorSpec, ...]:
        """Return the prompt's bias, where its zero rows are one."""
        if "collapse-padding" not in self.rewrites:
            return ()
        meaning = (
            "added to the scores of the prompt's rows: 0 for its tokens, log P for the one row "
            "that stands for P zero rows, -1e9 beyond"
        )
        return (self.real("text_bias", (1, 1, 1, self.text_rows), meaning),)

    def time(self, steps: int | None = None) -> TensorSpec:
        """Return when a step is (or several steps are): a timestep, or its modulation."""
        count, s = (1, "") if steps is None else (steps, "s")
        if "modulation-table" in self.rewrites:
            return self.modulation(f"modulation{s}", count)
        falling = "" if steps is None else ", falling"
        return self.real(f"timestep{s}", (count,), f"0 (clean) to 1000 (noise){falling}")

    def modulation(self, name: str, count: int) -> TensorSpec:
        """Return modulations of the action expert."""
        shape = (count, 6, self.contract.action.hidden)
        return self.real(name, shape, "a timestep's shift, scale, gate, twice, of action blocks")

    def state(self, name: str) -> tuple[TensorSpec, ...]:
        """Return the joint state's keys and values of one expert."""
        return self.kv(name, 1, "joint state", self.contract.num_layers - (name == "video_state"))

    def memory(self) -> tuple[TensorSpec, ...]:
        """Return the memory."""
        return self.kv("memory", ROWS, "memory after RoPE: slots, chunk, gist table")

    def written(self, tokens: int) -> tuple[TensorSpec, ...]:
        """Return what a graph gives out for the memory."""
        if self.cache_write == "in_place":
            return self.kv("memory_out", ROWS, "memory with the new rows written")
        return self.kv("new", tokens, "new rows after RoPE")

    def prompt_kv(self) -> GraphSpec:
        """Once an instruction."""
        context = self.real(
            "context",
            (1, self.text_rows, self.contract.text_dim),
            "text embedding; rows past the prompt are zero and stay visible",
        )
        return GraphSpec(
            name="prompt_kv",
            single=(context,),
            outputs=(*self.text("video_text"), *self.text("action_text")),
        )

    def state_kv(self) -> GraphSpec:
        """Once a chunk."""
        state = self.real("state", (1, self.contract.actions.state_dim), "normalized joint state")
        outputs = self.state("action_state")
        if self.contract.conventions.proprio_in_video_context:
            outputs = (*self.state("video_state"), *outputs)
        return GraphSpec(name="state_kv", single=(state,), outputs=outputs)

    def cache_update(self) -> GraphSpec:
        """Once a frame."""
        tokens = self.contract.num_frame_tokens
        of_state = self.contract.conventions.proprio_in_video_context
        return GraphSpec(
            name="cache_update",
            single=(
                latent_spec(self.contract, self.dtype),
                *self.rope(tokens),
                self.bias("visual_bias", "the frame's visual tokens"),
                self.bias("gist_bias", "the frame's gist tokens"),
                *self.text_bias(),
                *self.rows("slot_row", "first row of the frame's slot"),
            ),
            lists=(
                self.memory(),
                self.text("video_text"),
                self.state("video_state") if of_state else (),
            ),
            outputs=self.written(tokens),
        )

    def _action_lists(self) -> tuple[tuple[TensorSpec, ...], ...]:
        return (
            self.memory(),
            self.text("action_text"),
            self.state("action_state"),
        )

    def action_modulation(self) -> GraphSpec:
        """Once for each step of a number of steps, before any episode."""
        return GraphSpec(
            name="action_modulation",
            single=(self.real("timestep", (1,), "0 (clean) to 1000 (noise)"),),
            outputs=(self.modulation("modulation", 1),),
        )

    def action_step(self) -> GraphSpec:
        """Once a denoising step."""
        horizon = self.contract.actions.horizon
        writes = self.cache_write == "in_place" or self.contract.conventions.action_history
        return GraphSpec(
            name="action_step",
            single=(
                self.real("x", self.actions, "normalized noisy actions"),
                self.time(),
                self.real("delta", (1,), "Euler step of sigma, negative"),
                *self.rope(horizon),
                self.bias("key_bias", "the chunk"),
                *self.text_bias(),
                *self.rows("action_row", "first row that the chunk's keys and values take"),
            ),
            lists=self._action_lists(),
            outputs=(
                self.real("x_next", self.actions, "normalized actions after the step"),
                *(self.written(horizon) if writes else ()),
            ),
        )

    def action_denoise(self) -> GraphSpec:
        """Once a chunk, instead of action_step."""
        steps = self.contract.conventions.num_steps
        bias = self.real("key_bias", (1, 1, 1, KEYS), "added to the scores of the chunk")
        return GraphSpec(
            name="action_denoise",
            single=(
                self.real("noise", self.actions, "standard normal"),
                self.time(steps),
                self.real("deltas", (steps,), "Euler steps of sigma, negative"),
                *self.rope(self.contract.actions.horizon),
                bias,
                *self.text_bias(),
            ),
            lists=self._action_lists(),
            outputs=(self.real("actions", self.actions, "normalized actions"),),
        )

"""Names, shapes, types and meanings of every graph's inputs and outputs."""

from dataclasses import dataclass, field

from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.manifest import CacheWrite
from memorywam_runtime.tensors import DType, TensorSpec

__all__ = ["GraphSpec", "graph_specs"]

ROWS = "rows"
"""Rows of memory: the one size that is open when a graph is exported, set by the gist bucket."""
KEYS = "keys"
"""Rows of memory and the caller's own behind them, where a graph does not write in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSpec:
    """One graph: single tensors, then lists of tensors, in the order of the module's arguments."""

    name: str
    single: tuple[TensorSpec, ...]
    lists: tuple[tuple[TensorSpec, ...], ...] = ()
    outputs: tuple[TensorSpec, ...] = field(default=())

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """All inputs, flat."""
        return (*self.single, *(spec for specs in self.lists for spec in specs))


def graph_specs(
    contract: InferenceContract,
    dtype: DType,
    cache_write: CacheWrite,
    cache_shapes: list[tuple[int, ...]],
) -> dict[str, GraphSpec]:
    """Return the specs of all graphs.

    Args:
        contract: Sizes and conventions.
        dtype: Type of weights, keys, values, latents and feature caches.
        cache_write: How the graphs write memory.
        cache_shapes: Shapes of the encoder's feature caches.
    """
    makers = _Makers(contract, dtype, cache_write, cache_shapes)
    specs = [
        makers.prompt_kv(),
        makers.state_kv(),
        makers.vae_first(),
        makers.cache_update(),
        makers.action_step(),
        makers.action_denoise(),
    ]
    if contract.conventions.vae_history != "single_frame":
        specs.insert(3, makers.vae_step())
    return {spec.name: spec for spec in specs}


class _Makers:
    """One method a graph; sizes are looked up once."""

    def __init__(
        self,
        contract: InferenceContract,
        dtype: DType,
        cache_write: CacheWrite,
        cache_shapes: list[tuple[int, ...]],
    ) -> None:
        self.contract = contract
        self.dtype: DType = dtype
        self.cache_write: CacheWrite = cache_write
        self.cache_shapes = cache_shapes
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

    def caches(self, prefix: str) -> tuple[TensorSpec, ...]:
        """Return the encoder's feature caches."""
        return tuple(
            TensorSpec(
                name=f"{prefix}.{index:02d}",
                shape=shape,
                dtype=self.dtype,
                meaning="last input frames of one causal convolution",
            )
            for index, shape in enumerate(self.cache_shapes)
        )

    def latent(self) -> TensorSpec:
        """Return the latent frame."""
        shape = (1, self.contract.vae.latent_channels, 1, *self.contract.latent_shape)
        return TensorSpec(
            name="latent", shape=shape, dtype=self.dtype, meaning="latent frame, unit variance"
        )

    def images(self, name: str, count: int) -> TensorSpec:
        """Return mosaics."""
        views = self.contract.observations
        shape = (1, 3, count, views.height, views.width)
        return self.real(name, shape, "mosaics in time order, RGB, -1 to 1")

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
        return self.kv(name, self.contract.conventions.text_len, "prompt", num_layers)

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
            (1, self.contract.conventions.text_len, self.contract.text_dim),
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

    def vae_first(self) -> GraphSpec:
        """Once an episode."""
        return GraphSpec(
            name="vae_first",
            single=(self.images("image", 1),),
            outputs=(self.latent(), *self.caches("cache_out")),
        )

    def vae_step(self) -> GraphSpec:
        """Once a frame."""
        return GraphSpec(
            name="vae_step",
            single=(self.images("images", self.contract.images_per_frame),),
            lists=(self.caches("cache"),),
            outputs=(self.latent(), *self.caches("cache_out")),
        )

    def cache_update(self) -> GraphSpec:
        """Once a frame."""
        tokens = self.contract.num_frame_tokens
        of_state = self.contract.conventions.proprio_in_video_context
        return GraphSpec(
            name="cache_update",
            single=(
                self.latent(),
                *self.rope(tokens),
                self.bias("visual_bias", "the frame's visual tokens"),
                self.bias("gist_bias", "the frame's gist tokens"),
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

    def action_step(self) -> GraphSpec:
        """Once a denoising step."""
        horizon = self.contract.actions.horizon
        writes = self.cache_write == "in_place" or self.contract.conventions.action_history
        return GraphSpec(
            name="action_step",
            single=(
                self.real("x", self.actions, "normalized noisy actions"),
                self.real("timestep", (1,), "0 (clean) to 1000 (noise)"),
                self.real("delta", (1,), "Euler step of sigma, negative"),
                *self.rope(horizon),
                self.bias("key_bias", "the chunk"),
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
                self.real("timesteps", (steps,), "0 (clean) to 1000 (noise), falling"),
                self.real("deltas", (steps,), "Euler steps of sigma, negative"),
                *self.rope(self.contract.actions.horizon),
                bias,
            ),
            lists=self._action_lists(),
            outputs=(self.real("actions", self.actions, "normalized actions"),),
        )

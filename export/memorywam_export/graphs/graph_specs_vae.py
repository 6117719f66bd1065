"""Names, shapes, types and meanings of the video encoder's graphs, whole or in three parts."""

from memorywam_export.graphs.graph_spec import GraphSpec
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.tensors import DType, TensorSpec

__all__ = ["latent_spec", "vae_specs"]

Shape = tuple[int, ...]


def vae_specs(
    contract: InferenceContract,
    dtype: DType,
    cache_shapes: list[Shape],
    *,
    is_early: bool,
) -> list[GraphSpec]:
    """Return the specs of the encoder's graphs.

    Args:
        contract: Sizes and conventions.
        dtype: Type of latents, features and feature caches.
        cache_shapes: Shapes of the feature caches.
        is_early: Images are encoded as they arrive: three graphs in place of vae_step.
    """
    caches, first = _caches(cache_shapes, dtype), _images(contract, dtype, "image", 1)
    latent = latent_spec(contract, dtype)
    found = [
        GraphSpec(name="vae_first", single=(first,), outputs=(latent, *_named("cache_out", caches)))
    ]
    if contract.conventions.vae_history == "single_frame":
        return found
    if is_early:
        return found + _early(contract, dtype, caches)
    group = _images(contract, dtype, "images", contract.images_per_frame)
    return [
        *found,
        GraphSpec(
            name="vae_step",
            single=(group,),
            lists=(_named("cache", caches),),
            outputs=(latent, *_named("cache_out", caches)),
        ),
    ]


def latent_spec(contract: InferenceContract, dtype: DType) -> TensorSpec:
    """Return the spec of a latent frame."""
    shape = (1, contract.vae.latent_channels, 1, *contract.latent_shape)
    return TensorSpec(
        name="latent", shape=shape, dtype=dtype, meaning="latent frame, unit variance"
    )


def _early(
    contract: InferenceContract, dtype: DType, caches: tuple[TensorSpec, ...]
) -> list[GraphSpec]:
    """Return the specs of the three graphs for an image, two images and a group of four.

    A cache of one frame is that of a convolution that halves time: there a graph ends and the
    next begins. What crosses has that cache's shape, beside the input of the same stage, which
    is that of the stage's first convolution.
    """
    pair, group = (index for index, spec in enumerate(caches) if spec.fixed_shape[2] == 1)
    in_stage = 2 * contract.vae.num_res_blocks

    def crossing(unit: str, cut: int, suffix: str = "") -> tuple[TensorSpec, ...]:
        _, channels, _, rows, columns = caches[cut - in_stage].fixed_shape
        return (
            TensorSpec(
                name=f"{unit}_features{suffix}", shape=caches[cut].fixed_shape, dtype=dtype,
                meaning=f"features of one {unit}, before time is halved",
            ),
            TensorSpec(
                name=f"{unit}_shortcut{suffix}", shape=(1, channels, 1, rows, columns),
                dtype=dtype, meaning=f"what the stage got that made these features of one {unit}",
            ),
        )  # fmt: skip

    def both(unit: str, cut: int) -> tuple[TensorSpec, ...]:
        return (*crossing(unit, cut, ".0"), *crossing(unit, cut, ".1"))

    image = _images(contract, dtype, "image", 1)
    return [
        GraphSpec(
            name=name,
            single=single,
            lists=(_named("cache", kept),),
            outputs=(*outputs, *_named("cache_out", kept)),
        )
        for name, single, kept, outputs in (
            ("vae_image", (image,), caches[:pair], crossing("image", pair)),
            ("vae_pair", both("image", pair), caches[pair:group], crossing("pair", group)),
            ("vae_group", both("pair", group), caches[group:], (latent_spec(contract, dtype),)),
        )
    ]


def _images(contract: InferenceContract, dtype: DType, name: str, count: int) -> TensorSpec:
    """Return mosaics: in float32, whatever the precision (float64 in a float64 check)."""
    views = contract.observations
    return TensorSpec(
        name=name,
        shape=(1, 3, count, views.height, views.width),
        dtype="float64" if dtype == "float64" else "float32",
        meaning="mosaics in time order, RGB, -1 to 1",
    )


def _caches(shapes: list[Shape], dtype: DType) -> tuple[TensorSpec, ...]:
    """Return all feature caches, named by their numbers."""
    return tuple(
        TensorSpec(
            name=f"{index:02d}",
            shape=shape,
            dtype=dtype,
            meaning="last input frames of one causal convolution",
        )
        for index, shape in enumerate(shapes)
    )


def _named(prefix: str, caches: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Return feature caches as inputs or outputs of a graph."""
    return tuple(
        TensorSpec(
            name=f"{prefix}.{spec.name}", shape=spec.shape, dtype=spec.dtype, meaning=spec.meaning
        )
        for spec in caches
    )

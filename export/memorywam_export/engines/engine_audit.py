"""What an engine really does with types and with memory, read from its strongly typed network."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memorywam_runtime.engines import AuditEntry
from memorywam_runtime.tensors import TensorSpec

__all__ = ["Audit", "Layer", "Tensor", "audited", "memory_layers_in", "wider_than"]

_BITS = {"FLOAT": 32, "HALF": 16, "BF16": 16, "FP8": 8, "INT8": 8, "UINT8": 8, "INT4": 4, "FP4": 4}
_OTHER_BITS = {"INT32": 32, "INT64": 64, "BOOL": 8, "E8M0": 8}
_SPEC_TYPES = {
    "float32": "FLOAT",
    "float16": "HALF",
    "bfloat16": "BF16",
    "int64": "INT64",
    "int8": "INT8",
    "float8e4m3fn": "FP8",
}
_RECIPE_BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "fp8": 8, "int8": 8, "fp4": 4, "int4": 4}
_PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION", "DECONVOLUTION", "EINSUM", "ATTENTION_INPUT")
# What may stand between a constant and the product that takes it as its weight.
_AROUND_WEIGHTS = ("SHUFFLE", "CAST", "IDENTITY", "SQUEEZE", "UNSQUEEZE", "QUANTIZE", "DEQUANTIZE")
_WRITE = "KV_CACHE_UPDATE"
# Names for a copy in the inspector's JSON, in lower case.
_COPIES = ("reformat", "copy", "cast", "concat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor of a network."""

    name: str
    shape: tuple[int, ...]
    """-1 where a size is open."""
    dtype: str
    """As the backend names it: `FLOAT`, `HALF`, `BF16`, ..."""

    @property
    def num_bytes(self) -> int:
        """Size, bytes."""
        return _num_bytes(math.prod(self.shape), self.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of a network."""

    name: str
    kind: str
    """As the backend names it: `MATRIX_MULTIPLY`, `KV_CACHE_UPDATE`, ..."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    kernel_elements: int = 0
    """Weights that the layer holds itself."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found, and what of it must not be."""

    entry: AuditEntry
    faults: tuple[str, ...]
    """Found and expected, each a sentence; empty when the engine may be used."""


def audited(
    layers: Sequence[Layer],
    *,
    edges: Sequence[Tensor],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    recipe: str,
) -> Audit:
    """Walk a network: types of its products, and everything that touches memory.

    Norms, softmax and rotary tables in float32 are as trained; products wider than the recipe,
    or a memory that is copied where it should be written in place, are faults.

    Args:
        layers: Of the network, in any order.
        edges: The network's inputs and outputs.
        inputs: What the manifest says of the inputs, open sizes bound or still names.
        outputs: Likewise.
        recipe: Type of the products, as `bf16`.
    """
    live = _live(layers, {spec.name for spec in outputs})
    makers = {tensor.name: layer for layer in live for tensor in layer.outputs}
    memory = [spec for spec in inputs if spec.name.startswith("memory.")]
    written = [spec for spec in outputs if spec.name.startswith("memory_out.")]
    copies = _touched(live, {spec.name for spec in memory})
    writes = [layer for layer in live if layer.kind == _WRITE]
    entry = AuditEntry(
        source="network",
        gemm_weight_bytes=_weight_bytes(live, makers),
        num_memory_writes=len(writes),
        bytes_per_write=sum(layer.inputs[1].num_bytes for layer in writes),
        memory_copies=tuple(f"{layer.name} ({layer.kind})" for layer in copies),
    )
    faults = [*_edge_faults(edges, (*inputs, *outputs)), *_wide_faults(live, makers, recipe)]
    if written:
        faults += _write_faults(writes, memory, written)
        if copies:
            faults.append(
                f"{len(copies)} layers copy memory, first {entry.memory_copies[0]}; expected it "
                "only to be written in place and attended to"
            )
    return Audit(entry, tuple(faults))


def wider_than(dtype: str, recipe: str) -> bool:
    """Return whether products of this type are wider than a recipe says."""
    return _BITS.get(dtype, 0) > _RECIPE_BITS[recipe]


def memory_layers_in(information: str, memory: Iterable[str]) -> tuple[str, ...]:
    """Return the copies of memory tensors that an engine's own inspector lists.

    Args:
        information: Its JSON: `Layers`, each with `Name`, `LayerType`, `Inputs` and `Outputs`;
            or names alone, when the engine was built without details.
        memory: Names of the memory's inputs and outputs.
    """
    names, found = set(memory), []
    for layer in json.loads(information).get("Layers", []):
        if not isinstance(layer, dict):
            continue
        tensors = {t.get("Name") for key in ("Inputs", "Outputs") for t in layer.get(key, [])}
        kind = str(layer.get("LayerType", ""))
        if tensors & names and any(word in kind.lower() for word in _COPIES):
            found.append(f"{layer.get('Name')} ({kind})")
    return tuple(found)


def _live(layers: Sequence[Layer], outputs: set[str]) -> list[Layer]:
    """Return the layers that an output depends on; the compiler drops all others."""
    makers = {tensor.name: layer for layer in layers for tensor in layer.outputs}
    waiting = [name for name in outputs if name in makers]
    seen: set[str] = set(waiting)
    found: set[str] = set()
    while waiting:
        layer = makers[waiting.pop()]
        found.add(layer.name)
        # A layer's other outputs live with it.
        for tensor in (*layer.inputs, *layer.outputs):
            if tensor.name in makers and tensor.name not in seen:
                seen.add(tensor.name)
                waiting.append(tensor.name)
    return [layer for layer in layers if layer.name in found]


def _weight_bytes(layers: Sequence[Layer], makers: dict[str, Layer]) -> dict[str, int]:
    """Return the bytes of the weights of products, by the type in which they are stored."""
    counts: Counter[str] = Counter()
    for layer in layers:
        if layer.kind not in _PRODUCTS:
            continue
        if layer.kernel_elements:
            dtype = layer.inputs[0].dtype
            counts[dtype] += _num_bytes(layer.kernel_elements, dtype)
        for tensor in layer.inputs:
            stored = _stored(tensor, makers)
            if stored is not None:
                counts[stored.dtype] += stored.num_bytes
    return dict(sorted(counts.items()))


def _stored(tensor: Tensor, makers: dict[str, Layer]) -> Tensor | None:
    """Return a product's operand as it is stored if it is a weight, or None.

    A quantized weight counts as what goes into its dequantization; a weight that is cast counts
    as what it is cast to, since that is what the product reads.
    """
    found, step = tensor, makers.get(tensor.name)
    while step is not None and step.kind in _AROUND_WEIGHTS:
        if step.kind == "DEQUANTIZE":
            found = step.inputs[0]
        step = makers.get(step.inputs[0].name)
    return found if step is not None and step.kind == "CONSTANT" else None


def _wide_faults(layers: Sequence[Layer], makers: dict[str, Layer], recipe: str) -> list[str]:
    """Return products whose weights are wider than the recipe.

    Products of two computed tensors may be wider: the few scores of cross-attention are in
    float32 by design, and a memory that was widened for its own would be found as a copy.
    """
    wide = []
    for layer in layers:
        if layer.kind not in _PRODUCTS:
            continue
        types = [stored.dtype for t in layer.inputs if (stored := _stored(t, makers)) is not None]
        types += [layer.inputs[0].dtype] if layer.kernel_elements else []
        found = [dtype for dtype in types if wider_than(dtype, recipe)]
        wide += [f"{layer.name} ({layer.kind}) in {dtype}" for dtype in found[:1]]
    if not wide:
        return []
    return [f"{len(wide)} products are wider than {recipe}, first {wide[0]}; expected none"]


def _touched(layers: Sequence[Layer], memory: set[str]) -> list[Layer]:
    """Return the layers that take a memory tensor, other than to write into it or attend to it."""
    # What a write gives out is the same memory.
    names = memory | {
        layer.outputs[0].name
        for layer in layers
        if layer.kind == _WRITE and layer.inputs[0].name in memory
    }
    found = []
    for layer in layers:
        takes = [i for i, tensor in enumerate(layer.inputs) if tensor.name in names]
        writes = layer.kind == _WRITE and takes == [0]
        attends = layer.kind == "ATTENTION_INPUT" and set(takes) <= {1, 2}
        if takes and not writes and not attends:
            found.append(layer)
    return found


def _write_faults(
    writes: Sequence[Layer], memory: Sequence[TensorSpec], written: Sequence[TensorSpec]
) -> list[str]:
    """Return what is wrong with the writes: one a tensor, from its input to its output."""
    expected = {
        (into.name, out.name) for into, out in zip(memory, written, strict=True)
    }  # the specs list both by layer, keys before values
    found = {(layer.inputs[0].name, layer.outputs[0].name) for layer in writes}
    faults = []
    if len(writes) != len(memory) or found != expected:
        wrong = sorted(found ^ expected)[:2]
        faults.append(
            f"{len(writes)} writes into memory; expected one for each of {len(memory)} tensors, "
            f"not so {wrong}"
        )
    new = sum(layer.inputs[1].num_bytes for layer in writes)
    tokens = {layer.inputs[1].shape[2] for layer in writes}
    whole = sum(layer.inputs[0].num_bytes for layer in writes)
    if len(tokens) > 1 or new >= whole > 0:
        faults.append(
            f"one call writes {new} bytes ({sorted(tokens)} tokens) of {whole} bytes of memory; "
            "expected the same new tokens in every layer, and fewer than memory holds"
        )
    return faults


def _edge_faults(edges: Sequence[Tensor], specs: Sequence[TensorSpec]) -> list[str]:
    """Return inputs and outputs that are not what the manifest says."""
    found = {tensor.name: (tensor.dtype, tensor.shape) for tensor in edges}
    faults = []
    for spec in specs:
        shape = tuple(-1 if isinstance(size, str) else size for size in spec.shape)
        expected = (_SPEC_TYPES[spec.dtype], shape)
        if found.get(spec.name) != expected:
            faults.append(f"'{spec.name}' is {found.get(spec.name)}; expected {expected}")
    return faults


def _num_bytes(elements: int, dtype: str) -> int:
    return elements * {**_BITS, **_OTHER_BITS}[dtype] // 8

"""One graph module to one ONNX file whose weights stay in the bundle's safetensors file."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants
from torch import nn
from torch.export import Dim

from memorywam_export.checkpoints.weights import Span
from memorywam_export.graphs.graph_spec import TORCH_DTYPES, GraphSpec
from memorywam_export.graphs.graph_specs import KEYS, ROWS
from memorywam_export.graphs.passes import widen_softmax
from memorywam_runtime.errors import CheckpointError
from memorywam_runtime.tensors import TensorSpec

__all__ = ["exported", "write_onnx"]

_IR_DTYPES = {
    torch.float64: ir.DataType.DOUBLE,
    torch.float32: ir.DataType.FLOAT,
    torch.float16: ir.DataType.FLOAT16,
    torch.bfloat16: ir.DataType.BFLOAT16,
}
_EXAMPLE_ROWS = 96
# Module paths inside a graph to names in the weights file, longest first.
_RENAMES = (
    ("model.", ""),
    ("video.", "mixtures.video."),
    ("action.", "mixtures.action."),
    ("vae.", "vae."),
    ("gist_tokens", "gist_tokens"),
)


def write_onnx(
    module: nn.Module,
    spec: GraphSpec,
    path: Path,
    *,
    opset: int,
    weights: dict[str, Span],
    weights_file: str,
) -> None:
    """Export a graph; the same weights, spec and opset give the same bytes.

    Args:
        module: One of `memorywam_export.graphs.graphs`, with weights that may be mapped from disk.
        spec: Names and shapes.
        path: File to write.
        opset: ONNX opset.
        weights: Where each weight lies in the weights file.
        weights_file: Its name, beside the ONNX file.

    Raises:
        CheckpointError: the graph needs a weight that the file has not.
    """
    program = exported(module, spec, opset)
    model = program.model
    model.graph.name = spec.name
    for value in list(model.graph.initializers.values()):
        _point_outside(value, weights, weights_file, path.parent)
    tensors = (*spec.inputs, *spec.outputs)
    _tidy(model, is_narrow=any(s.dtype in ("float16", "bfloat16") for s in tensors))
    _strip(model)
    _rename_edges(model, spec)
    ir.save(model, path)


def exported(module: nn.Module, spec: GraphSpec, opset: int) -> torch.onnx.ONNXProgram:
    """Trace the module on zeros of the spec's shapes."""
    sizes = {ROWS: _EXAMPLE_ROWS, KEYS: _EXAMPLE_ROWS + _num_own(spec)}
    single = tuple(_zeros(s, sizes) for s in spec.single)
    lists = tuple([_zeros(s, sizes) for s in specs] for specs in spec.lists)
    rows = Dim("rows", min=2, max=1 << 20)
    dims: dict[str, Any] = {ROWS: rows, KEYS: rows + _num_own(spec) if _num_own(spec) else rows}
    shapes: tuple[Any, ...] = tuple(_dynamic(s, dims) for s in spec.single)
    shapes += tuple([_dynamic(s, dims) for s in specs] for specs in spec.lists)
    with _without_torchvision_notice(), warnings.catch_warnings():
        # Deprecations inside torch's own exporter, not in what is exported.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        program = torch.onnx.export(
            module.eval().requires_grad_(requires_grad=False),
            (*single, *lists),
            dynamo=True,
            opset_version=opset,
            input_names=[s.name for s in spec.inputs],
            output_names=[s.name for s in spec.outputs],
            dynamic_shapes=_by_argument(module, shapes),
            optimize=False,
            verbose=False,
        )
    assert program is not None
    return program


@contextmanager
def _without_torchvision_notice() -> Iterator[None]:
    """Keep the exporter from telling that torchvision, which no graph here uses, is absent."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")

    def is_other(record: logging.LogRecord) -> bool:
        return "torchvision" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _by_argument(module: nn.Module, shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return dynamic shapes as the exporter wants them: *rest is one argument."""
    code = module.forward.__code__
    fixed = code.co_argcount - 1
    if not code.co_flags & 0x04:
        return shapes
    return (*shapes[:fixed], tuple(shapes[fixed:]))


def _num_own(spec: GraphSpec) -> int:
    """Return the caller's own rows that stand behind the memory."""
    if not any(KEYS in s.shape for s in spec.single):
        return 0
    tables = next(s for s in spec.single if s.name == "rope_cos")
    return int(tables.shape[0])


def _zeros(spec: TensorSpec, sizes: dict[str, int]) -> torch.Tensor:
    """Return an example input."""
    return torch.zeros(spec.bound(**sizes).fixed_shape, dtype=TORCH_DTYPES[spec.dtype])


def _dynamic(spec: TensorSpec, dims: dict[str, Any]) -> dict[int, Any]:
    """Return the open axes of an input."""
    return {axis: dims[size] for axis, size in enumerate(spec.shape) if isinstance(size, str)}


def _point_outside(value: ir.Value, weights: dict[str, Span], file: str, folder: Path) -> None:
    """Replace a weight's values by a pointer into the weights file; constants stay inside."""
    name = value.name or ""
    for prefix, target in _RENAMES:
        if name.startswith(prefix):
            name = target + name.removeprefix(prefix)
            break
    else:
        return
    if name not in weights:
        raise CheckpointError(f"the graph needs weight '{name}', which the weights file has not")
    span = weights[name]
    value.const_value = ir.ExternalTensor(
        location=file,
        offset=span.offset,
        length=span.num_bytes,
        dtype=_IR_DTYPES[span.dtype],
        shape=ir.Shape(span.shape),
        name=value.name or name,
        base_dir=str(folder),
    )


def _tidy(model: ir.Model, *, is_narrow: bool) -> None:
    """Fold small constants and drop what nothing uses; keep softmax in float32.

    onnxscript's own `optimize` also tries a hundred rewrite rules, none of which finds anything
    here, for two thirds of the export's time.
    """
    _fold(model)
    if is_narrow:
        widen_softmax(model)
    ir.passes.Sequential(
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.NameFixPass(),
    )(model)


def _fold(model: ir.Model) -> None:
    """Compute what depends on small constants alone.

    Folding a transposed weight would copy it into the graph: weights stay where they are.
    """
    common.InlinePass()(model)
    fold_constants(
        model,
        input_size_limit=1024,
        output_size_limit=4096,
        should_fold=lambda node: False if node.op_type == "Transpose" else None,
    )


def _strip(model: ir.Model) -> None:
    """Remove what differs from one machine or run to another: stack traces and paths."""
    model.metadata_props.clear()
    model.producer_name, model.producer_version = "memorywam", None
    model.doc_string = None
    model.graph.metadata_props.clear()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _rename_edges(model: ir.Model, spec: GraphSpec) -> None:
    """Check that the graph kept every input and output, under the spec's names."""
    for found, wanted in ((model.graph.inputs, spec.inputs), (model.graph.outputs, spec.outputs)):
        names, expected = [value.name for value in found], [s.name for s in wanted]
        if names != expected:
            raise CheckpointError(
                f"graph '{spec.name}': the exporter gave {names[:4]}...; expected {expected[:4]}..."
            )

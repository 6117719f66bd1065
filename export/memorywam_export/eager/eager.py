"""The graphs run by torch, behind the runtime's backend protocol: the rung below ONNX."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from memorywam_export.checkpoints.weights import Weight
from memorywam_export.eager.torch_arrays import tensor_from_array
from memorywam_export.graphs.folding import rewritten_weights
from memorywam_export.graphs.graph_spec import GraphSpec
from memorywam_export.graphs.graph_specs import graph_specs
from memorywam_export.graphs.graphs import (
    ActionDenoise,
    ActionModulation,
    ActionStep,
    CacheUpdate,
)
from memorywam_export.graphs.graphs_text import PromptKv, StateKv
from memorywam_export.graphs.graphs_vae import VaeFirst, VaeGroup, VaeImage, VaePair, VaeStep
from memorywam_export.graphs.rewrites import (
    NO_REWRITES,
    Rewrites,
    RewrittenModel,
    rewrites_of,
    rewrites_of_manifest,
)
from memorywam_export.reference.model import MemoryWam
from memorywam_runtime.backends import Run
from memorywam_runtime.backends.host import HostArrays
from memorywam_runtime.bundle import WEIGHTS_FILE, read_manifest
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import BundleError, InputError
from memorywam_runtime.manifest import (
    SCHEMA_VERSION,
    CacheWrite,
    GraphEntry,
    Manifest,
    MemoryPlan,
    SourceEntry,
)
from memorywam_runtime.memory import Visible
from memorywam_runtime.normalization import Normalization
from memorywam_runtime.session import Session
from memorywam_runtime.tensors import DType, check_names

__all__ = [
    "BundleBackend",
    "EagerBackend",
    "EagerEngine",
    "backend_of_bundle",
    "eager_session",
    "graph_modules",
    "memory_plan",
    "model_from_tensors",
    "rewritten_model",
    "specs_of",
]

_DTYPES: dict[torch.dtype, DType] = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


def specs_of(model: MemoryWam, cache_write: CacheWrite) -> dict[str, GraphSpec]:
    """Return the specs of all graphs of a model in its type."""
    views = model.contract.observations
    shapes = model.vae.cache_shapes(views.height, views.width)
    dtype = _DTYPES[model.gist_tokens.dtype]
    return graph_specs(model.contract, dtype, cache_write, shapes, rewrites_of(model))


def graph_modules(model: MemoryWam, cache_write: CacheWrite) -> dict[str, nn.Module]:
    """Return the module of every graph, sharing the model's weights."""
    modules: dict[str, nn.Module] = {
        "prompt_kv": PromptKv(model),
        "state_kv": StateKv(model),
        "vae_first": VaeFirst(model),
        "vae_step": VaeStep(model),
        "vae_image": VaeImage(model),
        "vae_pair": VaePair(model),
        "vae_group": VaeGroup(model),
        "cache_update": CacheUpdate(model, cache_write),
        "action_modulation": ActionModulation(model),
        "action_step": ActionStep(model, cache_write),
        "action_denoise": ActionDenoise(model, model.contract.conventions.num_steps),
    }
    return {name: modules[name] for name in specs_of(model, cache_write)}


def memory_plan(
    contract: InferenceContract, max_frames: int, on_full: str, bytes_per_element: int
) -> MemoryPlan:
    """Return the gist buckets up to a capacity: 32, 64, 128, ... frames, then the capacity."""
    buckets = [32 << k for k in range(16) if 32 << k < max_frames]
    width = 2 * contract.num_layers * contract.attention_width
    return MemoryPlan(
        max_frames=max_frames,
        gist_buckets=(*buckets, max_frames),
        on_full=on_full,  # type: ignore[arg-type]
        bytes_per_token=width * bytes_per_element,
    )


class EagerEngine:
    """One graph module."""

    def __init__(self, module: nn.Module, spec: GraphSpec) -> None:
        self.module = module
        self.spec = spec

    def bind(
        self, inputs: Mapping[str, NDArray[np.generic]], outputs: Mapping[str, NDArray[np.generic]]
    ) -> Run:
        """Prepare a call; torch shares the arrays' memory."""
        spec = self.spec
        check_names(inputs, {s.name: s for s in spec.inputs}, "inputs to bind")
        check_names(outputs, {s.name: s for s in spec.outputs}, "outputs to bind")
        tensors = {name: _shared(array) for name, array in inputs.items()}
        single = [tensors[s.name] for s in spec.single]
        lists = [[tensors[s.name] for s in specs] for specs in spec.lists]
        targets = [_shared(outputs[s.name]) for s in spec.outputs]

        def run() -> None:
            with torch.no_grad():
                found = self.module(*single, *lists)
            found = found if isinstance(found, tuple) else (found,)
            for target, tensor in zip(targets, found, strict=True):
                if target.data_ptr() != tensor.data_ptr():
                    target.copy_(tensor)

        return run


class EagerBackend(HostArrays):
    """Torch on the CPU, in the type of the model's weights."""

    name = "eager"

    def __init__(self, model: MemoryWam, cache_write: CacheWrite) -> None:
        self._modules = graph_modules(model, cache_write)
        self._specs = specs_of(model, cache_write)

    def load(self, path: Path, entry: GraphEntry) -> EagerEngine:
        """Return the module that the file's name stands for."""
        return self.engine(path.stem)

    def engine(self, graph: str) -> EagerEngine:
        """Return one graph's module as an engine."""
        return EagerEngine(self._modules[graph], self._specs[graph])

    def move_to(self, device: torch.device) -> None:
        """Move every module's weights; engines bound before are left behind."""
        for module in self._modules.values():
            module.to(device)


class BundleBackend(HostArrays):
    """Torch on a bundle's own weights, in the bundle's precision; its ONNX files are not read."""

    name = "eager"

    def __init__(self, num_threads: int = 0) -> None:
        """Make a backend.

        Args:
            num_threads: Threads of torch, in the whole process; 0 leaves them as they are.
        """
        if num_threads < 0:
            raise InputError(f"found num_threads {num_threads}; expected 0 or more")
        if num_threads:
            torch.set_num_threads(num_threads)
        self._of_root: dict[Path, EagerBackend] = {}

    def load(self, path: Path, entry: GraphEntry) -> EagerEngine:
        """Return the module of the graph in this file; the model is read on the first call."""
        root = path.parent.resolve()
        if root not in self._of_root:
            self._of_root[root] = backend_of_bundle(root)
        return self._of_root[root].load(path, entry)


def model_from_tensors(
    contract: InferenceContract,
    tensors: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    rewrites: Rewrites = NO_REWRITES,
) -> MemoryWam:
    """Return the model on weights of its own form, in another type where they are not of it.

    Args:
        contract: Sizes and conventions.
        tensors: Weights by name, rewritten already where there are rewrites.
        dtype: Of the model.
        rewrites: The model's form; the reference itself by default.
    """
    with torch.device("meta"):
        model = RewrittenModel(contract, rewrites) if rewrites.names else MemoryWam(contract)
    state = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(requires_grad=False)


def rewritten_model(
    contract: InferenceContract,
    weights: Iterable[Weight],
    dtype: torch.dtype,
    rewrites: Rewrites,
) -> MemoryWam:
    """Return the rewritten model on a reference's weights, made in `dtype` from the start."""
    made = rewritten_weights(weights, contract, rewrites, dtype)
    return model_from_tensors(contract, {w.name: w.load() for w in made}, dtype, rewrites)


def eager_session(
    model: MemoryWam,
    normalization: Normalization,
    *,
    cache_write: CacheWrite = "in_place",
    max_frames: int = 64,
    on_full: str = "refuse",
    plan: MemoryPlan | None = None,
    visible: Visible | None = None,
) -> Session:
    """Return a session that runs a model's graphs in torch: no files, no ONNX.

    Args:
        model: The reference, or a rewritten one.
        normalization: Statistics.
        cache_write: How the graphs write memory.
        max_frames: What memory holds.
        on_full: What happens to the frame after those.
        plan: In place of both, a bundle's.
        visible: Parts of memory to hide, for ablations.
    """
    backend = EagerBackend(model, cache_write)
    specs = specs_of(model, cache_write)
    entries = {
        name: GraphEntry(file=f"{name}.onnx", inputs=spec.inputs, outputs=spec.outputs)
        for name, spec in specs.items()
    }
    contract = model.contract
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        contract=contract,
        contract_hash=contract.hash,
        precision="fp32",
        opset=0,
        cache_write=cache_write,
        graphs=entries,
        memory=plan or memory_plan(contract, max_frames, on_full, model.gist_tokens.element_size()),
        normalization=normalization,
        prompts=(),
        files={},
        source=SourceEntry(checkpoint="in memory", sha256=""),
        versions={},
        rewrites=rewrites_of(model).names,
    )
    engines = {name: backend.engine(name) for name in specs}
    return Session(manifest, backend, engines, visible=visible)


def backend_of_bundle(root: Path) -> EagerBackend:
    """Return a backend on a bundle's weights.

    Raises:
        BundleError: its window of memory is in 8 bits, or its weights are not its contract's.
    """
    manifest = read_manifest(root)
    if manifest.has_narrow_window:
        raise BundleError(
            f"{root}: found a window of memory in 8 bits; expected a bundle whose memory is wide, "
            "which is all that torch computes: use the backend 'ort', or the bundle as exported"
        )
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    try:
        tensors = load_file(root / WEIGHTS_FILE)
        rewrites = rewrites_of_manifest(manifest)
        model = model_from_tensors(manifest.contract, tensors, kinds[manifest.precision], rewrites)
    except Exception as error:  # safetensors and torch raise many kinds
        raise BundleError(
            f"{root / WEIGHTS_FILE} does not hold the weights of contract "
            f"'{manifest.contract.name}': {error}; export the checkpoint again"
        ) from error
    return EagerBackend(model, manifest.cache_write)


def _shared(array: NDArray[np.generic] | torch.Tensor) -> torch.Tensor:
    """Return the tensor itself, or one in an array's memory."""
    return array if isinstance(array, torch.Tensor) else tensor_from_array(array)

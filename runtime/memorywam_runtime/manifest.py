"""The manifest: what a bundle promises about its graphs, tensors, memory, units and files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import BundleError, ContractError, InputError
from memorywam_runtime.files import sha256_of
from memorywam_runtime.memory import Rows
from memorywam_runtime.normalization import Normalization
from memorywam_runtime.schemas import schema_of
from memorywam_runtime.tensors import DType, TensorSpec

__all__ = [
    "DTYPES",
    "OWN_FIELDS",
    "SCHEMA_VERSION",
    "CacheWrite",
    "FileEntry",
    "GraphCost",
    "GraphEntry",
    "Manifest",
    "MemoryPlan",
    "MemoryQuantization",
    "Precision",
    "PromptEntry",
    "Quantization",
    "QuantizationRecipe",
    "ReportEntry",
    "Rewrite",
    "SourceEntry",
    "entries_from_folder",
    "entry_from_file",
    "manifest_from_json",
    "manifest_schema",
    "manifest_to_json",
]

SCHEMA_VERSION = 1
OWN_FIELDS = "manifest.json"
"""Under what name the manifest's own fields are among the files that a report vouches for."""
CacheWrite = Literal["in_place", "copy"]
Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[Precision, DType] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""What a precision's tensors are made of."""
OnFull = Literal["refuse", "stop", "drop-oldest-gist"]
QuantizationRecipe = Literal[
    "int8", "fp8", "int8-weight", "int4-weight", "mixed", "kv-int8", "kv-fp8"
]
"""`int8` and `fp8` round the operands of a product both, `*-weight` its weight alone; `kv-*` no
product, but the window of memory; `mixed` gives each product a recipe of its own."""
Rewrite = Literal[
    "fold-modulation", "modulation-table", "collapse-padding", "rope-halves", "early-frames"
]
"""Exact rewrites of the graphs. A runtime must know three: under `modulation-table` the steps take
their timestep as the output of the graph `action_modulation`; under `collapse-padding` all zero
rows of a prompt are one, whose score gets the logarithm of their number; under `early-frames` the
graphs `vae_image`, `vae_pair` and `vae_group` stand in place of `vae_step`."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts: immutable, keyword-only, and strict about unknown fields."""


class GraphCost(_Part, frozen=True):
    """What one call computes and reads: fixed, plus a part for every row of memory."""

    weight_bytes: int
    """Of the weights that the graph reads."""
    flops: int
    """Floating-point operations of its matrix products and convolutions, two a product, beside
    those for memory."""
    flops_per_row: int
    """More of them for each row of memory."""
    memory_bytes_per_row: int
    """Keys and values read for each row of memory, all layers that attend to it."""


class GraphEntry(_Part, frozen=True):
    """One graph: its file and every tensor in and out, in the graph's order."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    cost: GraphCost | None = None
    quantized: QuantizationRecipe | None = None
    """What its explicit Q/DQ are of, which decides how a backend loads it; None: it has none."""


class MemoryPlan(_Part, frozen=True):
    """How much an episode may remember, and what happens when that is full."""

    max_frames: int
    gist_buckets: tuple[int, ...]
    """Gist table sizes in frames, ascending; the last is max_frames. A bucket's rows are all that
    an update or a step reads, so cost follows what is filled."""
    on_full: OnFull
    bytes_per_token: int
    """Keys and values of one token in all layers."""

    def __post_init__(self) -> None:
        """Refuse what no session could hold, so that no bundle is written with it."""
        buckets, policies = self.gist_buckets, get_args(OnFull)
        if self.max_frames < 1:
            raise InputError(f"found max_frames {self.max_frames}; expected at least 1")
        if self.on_full not in policies:
            raise InputError(
                f"unknown on_full '{self.on_full}'; expected one of {', '.join(policies)}"
            )
        ascending = buckets == tuple(sorted(set(buckets)))
        if not ascending or buckets[:1] < (1,) or buckets[-1] != self.max_frames:
            raise InputError(
                f"found gist_buckets {list(buckets)}; expected ascending sizes of at least 1 that "
                f"end with max_frames, {self.max_frames}"
            )


class PromptEntry(_Part, frozen=True):
    """One instruction whose text keys and values are in the bundle."""

    text: str
    file: str
    num_tokens: int
    """Rows of the context that are the prompt; the rest is zero padding, which stays visible."""
    encoder: str
    """What made the embedding: a name and hash of tokenizer and encoder."""


class FileEntry(_Part, frozen=True):
    """Size and hash of one file."""

    num_bytes: int
    sha256: str


class SourceEntry(_Part, frozen=True):
    """The checkpoint that the bundle was made from."""

    checkpoint: str
    sha256: str


class ReportEntry(_Part, frozen=True):
    """What was found when the bundle was checked: a verdict, and the files that it is about."""

    file: str
    """JSON."""
    page: str
    """HTML, of the same."""
    passed: bool
    """Did every check hold?"""
    sha256s: dict[str, str]
    """Graphs, weights and the manifest's own fields as they were then: of others the report says
    nothing."""


class MemoryQuantization(_Part, frozen=True):
    """How the window of memory is kept: symmetric, real = scale * quantized.

    Channels differ in size no more than these scales hold: what they differed by is in the weights.
    """

    dtype: Literal["int8", "float8e4m3fn"]
    key_scales: tuple[float, ...]
    """One for each layer."""
    value_scales: tuple[float, ...]


class Quantization(_Part, frozen=True):
    """How the graphs were quantized; `precision` is the type of what stayed wide."""

    recipe: QuantizationRecipe
    table: str | None
    """The scale table's file; None where no activation is quantized."""
    sites: tuple[str, ...]
    """Weights that are quantized, `graph/name`."""
    wide: dict[str, str]
    """Weights of products that are not, `graph/name`, and why."""
    memory: MemoryQuantization | None = None
    """Of the window of memory, which is then a tensor of its own; None: it is wide."""


class Manifest(_Part, frozen=True):
    """The bundle's contract, stored as `manifest.json`."""

    schema_version: int
    contract: InferenceContract
    contract_hash: str
    precision: Precision
    opset: int
    cache_write: CacheWrite
    graphs: dict[str, GraphEntry]
    memory: MemoryPlan
    normalization: Normalization
    prompts: tuple[PromptEntry, ...]
    files: dict[str, FileEntry]
    source: SourceEntry
    versions: dict[str, str]
    rewrites: tuple[Rewrite, ...] = ()
    """Exact rewrites that the graphs and weights are made with."""
    parity: ReportEntry | None = None
    """Whether the bundle is what its checkpoint is; None before `memorywam verify`."""
    quantization: Quantization | None = None

    @property
    def rows(self) -> Rows:
        """Where things are in the memory tensors of this bundle's graphs."""
        return Rows(self.contract, narrow_window=self.has_narrow_window)

    @property
    def has_narrow_window(self) -> bool:
        """Is the window of memory a tensor of its own, in 8 bits?"""
        return self.quantization is not None and self.quantization.memory is not None

    @property
    def judged_files(self) -> dict[str, str]:
        """What a report vouches for: graphs, weights, tables, and the manifest's own fields.

        All of the fields but instructions, reports and the list of files: those may be added.
        """
        # Decoded once more, for 5 and 5.0 are one number and two texts.
        own = msgspec.structs.replace(self, prompts=(), files={}, parity=None)
        plain = msgspec.json.decode(msgspec.json.encode(own), type=Manifest)
        text = msgspec.json.encode(plain, order="sorted")
        return self.graph_files | {OWN_FIELDS: hashlib.sha256(text).hexdigest()}

    @property
    def graph_files(self) -> dict[str, str]:
        """Graphs, weights and tables with their hashes: all files but instructions and reports."""
        prompts = {entry.file for entry in self.prompts}
        reports = {self.parity.file, self.parity.page} if self.parity else set[str]()
        names = set(self.files) - prompts - reports
        return {name: self.files[name].sha256 for name in sorted(names)}

    def prompt(self, text: str) -> PromptEntry | None:
        """Return the entry of an instruction, or None."""
        return next((entry for entry in self.prompts if entry.text == text), None)


def entry_from_file(path: Path, sha256: str | None = None) -> FileEntry:
    """Return size and hash of a file; with the hash given, its bytes are not read again.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    return FileEntry(num_bytes=path.stat().st_size, sha256=sha256 or sha256_of(path))


def entries_from_folder(root: Path, known: Mapping[str, str]) -> dict[str, FileEntry]:
    """Return size and hash of every file below a folder, by its path there.

    Args:
        root: The folder.
        known: Hashes of files that are not read again.

    Raises:
        OSError: one of them cannot be read.
    """
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    return {name: entry_from_file(root / name, known.get(name)) for name in names}


def manifest_to_json(manifest: Manifest) -> bytes:
    """Return the manifest as indented JSON with sorted keys."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def manifest_from_json(text: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BundleError: not JSON, another schema version, an unknown or missing field, a wrong type,
            or a contract hash that is not the contract's.
    """
    version = _schema_version(text)
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"manifest: found schema version {version}; this release reads {SCHEMA_VERSION}: "
            "export the checkpoint again, or use the release that made the bundle"
        )
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, ContractError, RecursionError) as error:
        raise BundleError(f"manifest: {error}; export the checkpoint again") from error
    if manifest.contract.hash != manifest.contract_hash:
        raise BundleError(
            f"manifest: the contract hashes to {manifest.contract.hash[:12]}..., but it says "
            f"{manifest.contract_hash[:12]}...: the contract was edited; export again"
        )
    return manifest


def manifest_schema() -> dict[str, Any]:
    """Return the published JSON Schema of `manifest.json`."""
    return schema_of(Manifest)


def _schema_version(text: bytes) -> object:
    """Return the schema version before anything else is trusted."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"manifest: not JSON ({error}); the file is damaged") from error
    return found.get("schema_version") if isinstance(found, dict) else None

"""Open a bundle: schema, paths and hashes checked, then graphs loaded; or say why not."""

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.backends import Backend, Engine, backend_from_name
from memorywam_runtime.engines import BUILT_BACKENDS, manifest_on_device
from memorywam_runtime.errors import BundleError, CapacityError, InputError
from memorywam_runtime.files import inside, read_file, sha256_of, shown
from memorywam_runtime.manifest import OWN_FIELDS, Manifest, PromptEntry, manifest_from_json
from memorywam_runtime.memory import Visible
from memorywam_runtime.padding import with_text_bias
from memorywam_runtime.session import Session
from memorywam_runtime.tensors import storage_dtype
from memorywam_runtime.warm_up import warm_up

__all__ = [
    "MANIFEST_FILE",
    "WEIGHTS_FILE",
    "check_bundle",
    "check_parity",
    "open_bundle",
    "read_manifest",
    "read_prompt",
]

_LOG = logging.getLogger(__name__)

MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "weights.safetensors"
_MOST_JSON_BYTES = 1 << 26
_HOST_INPUTS = {
    "prompt_kv": {"context"},
    "vae_first": {"image"},
    "vae_step": {"images"},
    "cache_update": {"rope_cos", "rope_sin", "visual_bias", "gist_bias"},
    "state_kv": {"state"},
    "action_step": {"x", "timestep", "delta", "rope_cos", "rope_sin", "key_bias"},
}
"""What a session writes into each graph; all else that a graph takes, another gives."""
_EARLY_INPUTS: dict[str, set[str]] = {"vae_image": {"image"}, "vae_pair": set(), "vae_group": set()}
"""The same of the graphs that stand in place of vae_step under `early-frames`."""
_ROW_INPUTS = {"cache_update": "slot_row", "action_step": "action_row"}
_SESSION_GRAPHS = (
    "vae_first",
    "vae_step",
    *_EARLY_INPUTS,
    "cache_update",
    "state_kv",
    "action_modulation",
    "action_step",
)


def open_bundle(
    path: str | Path,
    *,
    backend: str | Backend = "ort",
    engines: str | Path | None = None,
    visible: Visible | None = None,
    contract_hash: str | None = None,
    allow_unverified: bool = False,
    **options: object,
) -> Session:
    """Return a session on a bundle that has passed every check.

    On a device it is warmed up: every call has run, so that the first tick is like all others.

    Args:
        path: The bundle's directory.
        backend: Name of a backend, or one already made.
        engines: Where the engines of a backend that needs them are; beside the bundle by default.
        visible: Parts of memory to hide, for ablations.
        contract_hash: Refuse a bundle of any other contract.
        allow_unverified: Open a bundle that failed its verification, and engines without one.
        options: Passed to the backend.

    Raises:
        BundleError: damaged, incomplete, of another version or contract, found not to be its
            checkpoint, or engines that are not for this device or that no parity report vouches
            for; the text says which.
        MissingPartError: the backend's library is not installed.
    """
    root = Path(path)
    manifest = check_bundle(root)
    if contract_hash is not None and contract_hash != manifest.contract_hash:
        raise BundleError(
            f"{root} is for contract {manifest.contract_hash[:12]}... "
            f"('{manifest.contract.name}'); expected {contract_hash[:12]}...: use the bundle that "
            "was exported from your checkpoint"
        )
    check_parity(root, manifest, allow_unverified=allow_unverified)
    if allow_unverified and backend in BUILT_BACKENDS:
        options["allow_unverified"] = True
    chosen = backend_from_name(backend, **options) if isinstance(backend, str) else backend
    manifest = manifest_on_device(root, manifest, chosen, engines)
    loaded = {
        name: chosen.load(root / manifest.graphs[name].file, manifest.graphs[name])
        for name in _SESSION_GRAPHS
        if name in manifest.graphs
    }
    session = _session(root, manifest, chosen, loaded, visible)
    if chosen.is_async:
        warm_up(session)
    return session


def _session(
    root: Path,
    manifest: Manifest,
    backend: Backend,
    engines: dict[str, Engine],
    visible: Visible | None,
) -> Session:
    """Return a session on loaded graphs, or say what about them is not as the manifest has it."""
    try:
        return Session(manifest, backend, engines, root=root, visible=visible)
    except CapacityError as error:
        raise BundleError(f"{root}: {error}") from error
    # A size that no machine has, or that no array may have, is told in as many ways.
    except (
        InputError, LookupError, StopIteration, ValueError, OverflowError, MemoryError, TypeError,
    ) as error:  # fmt: skip
        raise BundleError(
            f"{root}: the graphs that the manifest describes are not those of its contract "
            f"({str(error) or type(error).__name__}); export the checkpoint again"
        ) from error


def check_parity(root: Path, manifest: Manifest, *, allow_unverified: bool = False) -> None:
    """Refuse a bundle that was verified and found not to be its checkpoint.

    One that nobody has verified may be opened: the log says so.

    Raises:
        BundleError: naming the report and what to do.
    """
    report = manifest.parity
    verb = "verify" if manifest.quantization is None else "calibrate"
    if report is None:
        if not allow_unverified:
            _warn_once(f"{root} has not been verified: run `memorywam {verb}`")
        return
    judged = manifest.judged_files
    is_stale = report.sha256s != judged
    if report.passed and not is_stale:
        return
    found = "says that checks failed"
    if is_stale:
        found = _staleness(report.sha256s, judged)
    complaint = (
        f"{root}: its parity report {report.file} {found}; expected one whose every check holds: "
        f"run `memorywam {verb}` and read its page, or export again; --allow-unverified opens it "
        "as it is"
    )
    if not allow_unverified:
        raise BundleError(complaint)
    _warn_once(f"opened unverified: {complaint}")


def _staleness(then: dict[str, str], now: dict[str, str]) -> str:
    """Say what a report is about, where that is not what is there."""
    if then == {name: sha256 for name, sha256 in now.items() if name != OWN_FIELDS}:
        return "is of an earlier release, whose reports did not vouch for the manifest itself"
    if {name for name in {*then, *now} if then.get(name) != now.get(name)} == {OWN_FIELDS}:
        return "is about other fields of the manifest, which was changed since"
    return "is about other graphs or weights"


@lru_cache(maxsize=64)
def _warn_once(text: str) -> None:
    """Log what a process that opens one bundle several times need not say several times."""
    _LOG.warning("%s", text)


def check_bundle(root: Path) -> Manifest:
    """Read the manifest and compare every file with it.

    Raises:
        BundleError: the first file that is missing, of another size or hash, or outside.
    """
    manifest = read_manifest(root)
    _check_graphs(root, manifest)
    named = {entry.file for entry in manifest.graphs.values()}
    named |= {entry.file for entry in manifest.prompts}
    if manifest.parity is not None:
        named |= {manifest.parity.file, manifest.parity.page}
    if manifest.quantization is not None and manifest.quantization.table is not None:
        named.add(manifest.quantization.table)
    unlisted = sorted(named - set(manifest.files))
    if unlisted:
        raise BundleError(
            f"{root}: the manifest names {shown(unlisted[0])} without its hash; export again"
        )
    for name, entry in manifest.files.items():
        path = inside(root, name)
        if not path.is_file():
            raise BundleError(
                f"{root}: {shown(name)} is missing; export again, or copy the whole folder"
            )
        size = path.stat().st_size
        if size != entry.num_bytes:
            raise BundleError(
                f"{root}: {shown(name)} has {size} bytes; expected {entry.num_bytes}: the copy is "
                "incomplete or the file was changed"
            )
        found = sha256_of(path)
        if found != entry.sha256:
            raise BundleError(
                f"{root}: {shown(name)} hashes to {found[:12]}...; expected {entry.sha256[:12]}...:"
                " the file was damaged or changed; copy or export again"
            )
    return manifest


def _check_graphs(root: Path, manifest: Manifest) -> None:
    """Refuse graphs that are not all there, or that do not fit together."""
    contract, graphs = manifest.contract, manifest.graphs
    host_inputs = _host_inputs(manifest)
    needed = set(host_inputs)
    if absent := sorted(needed - set(graphs)):
        raise BundleError(f"{root}: the manifest has no graph '{absent[0]}'; export again")
    # Before names are made of it: a number in a file costs nothing, the names of all its layers do.
    most = max(len(graphs[name].inputs) for name in needed)
    if contract.num_layers > most:
        raise BundleError(
            f"{root}: the contract has {contract.num_layers} layers; expected at most {most}, as "
            "many as a graph has inputs: the manifest was edited; export the checkpoint again"
        )
    memory, window = (
        [f"{kind}.{layer:02d}.{part}" for layer in range(contract.num_layers) for part in "kv"]
        for kind in ("memory", "window")
    )
    given = {
        spec.name.replace("cache_out.", "cache.", 1)
        for name in ("prompt_kv", "state_kv", "vae_first", "action_modulation")
        if name in needed
        for spec in graphs[name].outputs
    } | {
        f"{spec.name}.{number}"
        for name in ("vae_image", "vae_pair")
        if name in needed
        for spec in graphs[name].outputs
        for number in (0, 1)
    }
    for name in sorted(needed):
        found = {spec.name for spec in graphs[name].inputs}
        expected = set(host_inputs[name])
        if name in _ROW_INPUTS:
            expected |= set(memory)
            if manifest.has_narrow_window:  # the last video layer attends to nothing
                expected |= set(window[:-2] if name == "cache_update" else window)
            if manifest.cache_write == "in_place":
                expected.add(_ROW_INPUTS[name])
        if wrong := sorted(expected ^ (found - given)):
            raise BundleError(
                f"{root}: graph '{name}' does not fit the others or the contract: missing or left "
                f"over are the inputs {wrong[:4]}; export the checkpoint again"
            )


def _host_inputs(manifest: Manifest) -> dict[str, set[str]]:
    """Return what a session writes into each graph of this bundle."""
    found = {name: set(inputs) for name, inputs in _HOST_INPUTS.items()}
    if "modulation-table" in manifest.rewrites:
        found["action_modulation"] = {"timestep"}
        found["action_step"].remove("timestep")
    if manifest.contract.conventions.vae_history == "single_frame":
        del found["vae_step"]
    elif "early-frames" in manifest.rewrites:
        del found["vae_step"]
        found |= _EARLY_INPUTS
    if "collapse-padding" in manifest.rewrites:
        found["cache_update"].add("text_bias")
        found["action_step"].add("text_bias")
    return found


def read_manifest(root: Path) -> Manifest:
    """Read a bundle's manifest; the files it names are not looked at.

    Raises:
        BundleError: no bundle, or a manifest that does not fit its schema.
    """
    path = root / MANIFEST_FILE
    if not path.is_file():
        raise BundleError(
            f"no bundle at {root}: it has no {MANIFEST_FILE}; make one with "
            "`memorywam export CHECKPOINT --out BUNDLE`"
        )
    manifest = manifest_from_json(read_file(path, _MOST_JSON_BYTES, BundleError))
    for name in (*manifest.files, *(entry.file for entry in manifest.graphs.values())):
        inside(root, name)
    return manifest


def read_prompt(root: Path, manifest: Manifest, text: str) -> dict[str, NDArray[Any]]:
    """Return an instruction's keys and values by name, and the bias of its zero rows.

    The bias, `text_bias`, is there where the graphs take it.

    Raises:
        InputError: the bundle does not hold this instruction; those it holds are listed.
        BundleError: its file is damaged.
    """
    entry = manifest.prompt(text)
    if entry is None:
        known = "; ".join(repr(prompt.text) for prompt in manifest.prompts) or "none"
        raise InputError(
            f"the bundle does not hold the instruction {text!r}; it holds {known}; add it with "
            '`memorywam prompt BUNDLE --add "..."`'
        )
    return with_text_bias(manifest, _prompt_arrays(root, manifest, entry), entry.num_tokens)


def _prompt_arrays(root: Path, manifest: Manifest, entry: PromptEntry) -> dict[str, NDArray[Any]]:
    """Return the tensors that one prompt file holds, one behind the other."""
    specs = manifest.graphs["prompt_kv"].outputs
    expected = sum(spec.num_bytes for spec in specs)
    content = read_file(inside(root, entry.file), expected, BundleError)
    if len(content) != expected:
        raise BundleError(f"{entry.file} has {len(content)} bytes; expected {expected}")
    arrays, offset = {}, 0
    for spec in specs:
        dtype = storage_dtype(spec.dtype)
        count = spec.num_bytes // dtype.itemsize
        flat = np.frombuffer(content, dtype, count, offset)
        arrays[spec.name] = flat.reshape(spec.fixed_shape)
        offset += spec.num_bytes
    return arrays

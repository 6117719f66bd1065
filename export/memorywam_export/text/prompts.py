"""Instructions of a bundle: an embedding to text keys and values, added, listed, removed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from memorywam_runtime.backends import Backend, backend_from_name
from memorywam_runtime.bundle import MANIFEST_FILE, check_bundle
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import atomic_write
from memorywam_runtime.manifest import Manifest, PromptEntry, entry_from_file, manifest_to_json
from memorywam_runtime.padding import check_num_tokens

__all__ = [
    "add_prompt",
    "context_from_embedding",
    "embedding_from_file",
    "remove_prompt",
    "write_prompt",
]


def context_from_embedding(
    embedding: NDArray[np.floating], contract: InferenceContract, text_rows: int | None = None
) -> NDArray[np.float32]:
    """Return the context [1, text_rows, text_dim]: the embedding, then zero rows.

    The zero rows stay visible, as they were in training (FastWAM masks nothing).

    Args:
        embedding: [tokens, text_dim].
        contract: Sizes.
        text_rows: Rows that the graphs take, with one that stands for all zero rows; the
            contract's text length by default.

    Raises:
        InputError: a wrong width, too many tokens, or a value that is not finite.
    """
    rows, length = np.asarray(embedding), contract.conventions.text_len
    if rows.ndim != 2 or rows.shape[1] != contract.text_dim or not 1 <= len(rows) <= length:
        raise InputError(
            f"text embedding: found {list(rows.shape)}; expected 1 to {length} rows of "
            f"{contract.text_dim}"
        )
    if not np.isfinite(rows).all():
        raise InputError("text embedding: found a value that is not finite; encode the text again")
    count = length if text_rows is None else text_rows
    check_num_tokens(len(rows), count, length)
    context = np.zeros((1, count, contract.text_dim), np.float32)
    context[0, : len(rows)] = rows
    return context


def embedding_from_file(path: Path) -> NDArray[np.float32]:
    """Read an embedding [tokens, text_dim]: .npy, or .safetensors with one tensor.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False), np.float32)
        (rows,) = load_file(path).values()
    except Exception as error:  # numpy and safetensors raise many kinds for damaged files
        raise InputError(
            f"cannot read an embedding from {path}: {error}; expected a .npy array "
            "[tokens, text_dim], or a .safetensors file with one tensor"
        ) from error
    return np.asarray(rows, np.float32)


def write_prompt(
    root: Path, text: str, arrays: Sequence[NDArray[Any]], num_tokens: int, encoder: str
) -> PromptEntry:
    """Write one instruction's keys and values, one behind the other; return its entry.

    The file is named after what it holds, so that one that a manifest names is never overwritten.
    """
    content = b"".join(array.tobytes() for array in arrays)
    key = hashlib.sha256(b"\0".join((encoder.encode(), text.encode(), content))).hexdigest()
    file = f"prompts/{key[:16]}.bin"
    (root / "prompts").mkdir(exist_ok=True)
    atomic_write(root / file, content)
    return PromptEntry(text=text, file=file, num_tokens=num_tokens, encoder=encoder)


def add_prompt(
    root: Path,
    text: str,
    embedding: NDArray[np.floating],
    encoder: str,
    backend: str | Backend = "ort",
) -> Manifest:
    """Add an instruction to a bundle by running its prompt_kv graph; return the new manifest.

    Args:
        root: The bundle.
        text: The instruction.
        embedding: Of its tokens, [tokens, text_dim].
        encoder: What made that, for who looks into the bundle later.
        backend: What runs the graph.

    Raises:
        InputError: the text is empty, or the embedding does not fit.
        BundleError: the bundle does not pass its checks.
    """
    if not text.strip():
        raise InputError("found an empty instruction; expected some text")
    manifest = check_bundle(root)
    (taken,) = manifest.graphs["prompt_kv"].inputs
    context = context_from_embedding(embedding, manifest.contract, taken.fixed_shape[1])
    chosen = backend_from_name(backend) if isinstance(backend, str) else backend
    entry = manifest.graphs["prompt_kv"]
    inputs = {spec.name: context.astype(np.float32) for spec in entry.inputs}
    outputs = {spec.name: spec.zeros() for spec in entry.outputs}
    chosen.load(root / entry.file, entry).bind(inputs, outputs)()
    prompt = write_prompt(
        root, text, [outputs[s.name] for s in entry.outputs], len(embedding), encoder
    )
    others = tuple(p for p in manifest.prompts if p.text != text)
    return _rewrite(root, manifest, (*others, prompt))


def remove_prompt(root: Path, text: str) -> Manifest:
    """Remove an instruction from a bundle; return the new manifest.

    Raises:
        InputError: the bundle does not hold it.
    """
    manifest = check_bundle(root)
    if manifest.prompt(text) is None:
        known = "; ".join(repr(p.text) for p in manifest.prompts) or "none"
        raise InputError(f"the bundle does not hold {text!r}; it holds {known}")
    return _rewrite(root, manifest, tuple(p for p in manifest.prompts if p.text != text))


def _rewrite(root: Path, manifest: Manifest, prompts: tuple[PromptEntry, ...]) -> Manifest:
    """Write the manifest with other prompts, then delete the files that none of them needs."""
    old = {prompt.file for prompt in manifest.prompts}
    new = {prompt.file for prompt in prompts}
    files = {name: entry for name, entry in manifest.files.items() if name not in old}
    for name in sorted(new):
        files[name] = entry_from_file(root / name)
    changed = msgspec.structs.replace(manifest, prompts=prompts, files=files)
    atomic_write(root / MANIFEST_FILE, manifest_to_json(changed))
    for name in old - new:
        (root / name).unlink(missing_ok=True)
    return changed

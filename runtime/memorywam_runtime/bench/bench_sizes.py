"""How many frames a bundle may remember, and how much memory they take."""

from collections.abc import Iterable, Sequence

from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest

__all__ = [
    "bucket_of",
    "checked_fills",
    "default_frames",
    "full_history_bytes",
    "full_history_rows",
    "memory_bytes",
    "memory_rows",
    "most_frames",
    "sampled_frames",
    "update_bytes",
]


def most_frames(manifest: Manifest) -> int | None:
    """Return how many frames an episode may remember before any is lost; None without end."""
    if manifest.contract.conventions.vae_history == "single_frame":
        return 1
    return manifest.memory.max_frames if manifest.contract.memory.num_gists else None


def default_frames(manifest: Manifest) -> tuple[int, ...]:
    """Return the episode lengths that are told of: 1, 10, 100, ... and the longest."""
    most = most_frames(manifest)
    limit = 1000 if most is None else most
    return tuple(sorted({*(n for n in (1, 10, 100, 1000) if n <= limit), limit}))


def checked_fills(manifest: Manifest, frames: Sequence[int]) -> tuple[int, ...]:
    """Return the fills to measure at in rising order, the default ones where none are asked for.

    Raises:
        InputError: less than one frame, or more than memory can hold.
    """
    fills = tuple(sorted(set(frames))) or default_frames(manifest)
    most = most_frames(manifest)
    if fills[0] < 1:
        raise InputError(f"found {fills[0]} frames; expected at least 1")
    if most is not None and fills[-1] > most:
        raise InputError(
            f"found {fills[-1]} frames; the bundle's memory holds {most}: measure at fewer, or "
            f"export with --max-frames {fills[-1]}"
        )
    return fills


def bucket_of(manifest: Manifest, frames: int) -> int:
    """Return the first gist bucket that holds that many frames, or the last."""
    buckets = manifest.memory.gist_buckets
    if not manifest.contract.memory.num_gists:
        return 0
    return next((i for i, size in enumerate(buckets) if size >= frames), len(buckets) - 1)


def memory_rows(manifest: Manifest, frames: int) -> int:
    """Return the rows of each memory tensor after that many frames: those of the gist bucket."""
    capacity = manifest.memory.gist_buckets[bucket_of(manifest, frames)]
    return manifest.rows.total(capacity)


def memory_bytes(manifest: Manifest, frames: int) -> int:
    """Return the size of all memory tensors after that many frames, and of a narrow window."""
    contract = manifest.contract
    narrow = manifest.rows.num_window * 2 * contract.num_layers * contract.attention_width
    return memory_rows(manifest, frames) * manifest.memory.bytes_per_token + narrow


def update_bytes(manifest: Manifest) -> int:
    """Return what one update writes into memory, however full it is.

    The frame's rows go to its slot and its gist once more to the table; where the window is
    narrow, its visual rows go there too.
    """
    rows, contract = manifest.rows, manifest.contract
    narrow = rows.num_visual * 2 * contract.num_layers * contract.attention_width
    wide = (rows.num_frame + rows.num_gists) * manifest.memory.bytes_per_token
    return wide + (narrow if rows.num_window else 0)


def full_history_rows(manifest: Manifest, frames: int) -> int:
    """Return the rows of each memory tensor if every visual token of every frame were kept.

    Behind them the newest frame's gist tokens, which the graphs write with it, and the chunk.
    """
    rows = manifest.rows
    return frames * rows.num_visual + rows.num_gists + rows.num_actions


def full_history_bytes(manifest: Manifest, frames: int) -> int:
    """Return what keys and values of every visual token of that many frames would take."""
    return frames * manifest.contract.num_visual * manifest.memory.bytes_per_token


def sampled_frames(manifest: Manifest) -> list[int]:
    """Return frames at which the memory's size is told: each bucket's last and first frame."""
    most = most_frames(manifest)
    limit = 1000 if most is None else most
    edges = (n for size in manifest.memory.gist_buckets for n in (size, size + 1))
    return sorted({n for n in (*_decades(limit), *edges, limit) if 1 <= n <= limit})


def _decades(limit: int) -> Iterable[int]:
    """Yield 1, 2, 5, 10, 20, 50, ... up to a limit."""
    scale = 1
    while scale <= limit:
        yield from (scale, 2 * scale, 5 * scale)
        scale *= 10

"""Files and directories on disk: written whole or not at all, and known by their hash."""

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from memorywam_runtime.drafts import beside, is_draft, new_draft
from memorywam_runtime.errors import BundleError, InputError, MemorywamError

__all__ = [
    "DirectoryKind",
    "atomic_directory",
    "atomic_write",
    "inside",
    "read_file",
    "refuse_occupied",
    "refuse_unwritable",
    "sha256_of",
    "shown",
]

_READ_BYTES = 1 << 20
_MARK = "manifest.json"
"""What makes a directory one of ours: it names every other file."""
_MOST_MARK_BYTES = 1 << 26
_OLD = ".old"
_WRITE = os.W_OK | os.X_OK
_LONGEST_NAME = 200
_NO_FILE = "is a directory, pipe or device; expected a file: name another"


def atomic_write(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole: after a failure, the old file or none is there.

    Args:
        path: The file to create or replace; a link keeps pointing at the file it names.
        content: All of its bytes.

    Raises:
        InputError: The parent directory does not exist, or `path` is a directory.
        OSError: The disk refused.
    """
    target = _checked_target(path)
    if target.is_dir():
        raise InputError(f"{target} is a directory; expected a file to write. Name a file in it.")
    with new_draft(target, is_directory=False) as (draft, descriptor):
        try:
            with open(descriptor, "wb", closefd=False) as stream:
                stream.write(content)
                stream.flush()
                os.fsync(descriptor)
            draft.replace(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    _sync(target.parent)


@dataclass(frozen=True, slots=True)
class DirectoryKind:
    """What a directory may be that gives way to another of its kind."""

    name: str
    """With its article."""
    stranger_in: Callable[[Path], str]
    """Return what in a directory that is not empty is none of its files; nothing if all are."""


@contextlib.contextmanager
def atomic_directory(
    path: str | os.PathLike[str], *, overwrite: bool = False, kind: DirectoryKind | None = None
) -> Iterator[Path]:
    """Build a directory aside and move it into place when the block ends without an error.

    Args:
        path: The directory to create. An empty one that exists already is filled. One that an
            outer call of this has yielded is filled where it is; that call removes what fails.
        overwrite: Replace one of the same kind that is there; it stays until the new one is
            complete. Nothing else is replaced.
        kind: Of the directory; a bundle, if it is not said.

    Yields:
        A new, empty directory beside `path`, to be filled by the caller.

    Raises:
        InputError: `path` is a file, its parent does not exist, or it holds something that may
            not be replaced; nothing has been written then.
        OSError: The disk refused.
    """
    target = _checked_target(path)
    refuse_occupied(target, overwrite=overwrite, kind=kind)
    if is_draft(target.name) and target.is_dir():
        # Put in its place, another directory would lack the lock of the one that is filled here.
        yield target
        return
    with new_draft(target, is_directory=True) as (draft, _):
        try:
            yield draft
            _sync_tree(draft)
            refuse_occupied(target, overwrite=overwrite, kind=kind)
            _move_into_place(draft, target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    _sync(target.parent)


def read_file(
    path: str | os.PathLike[str], most: int, error: type[MemorywamError] = InputError
) -> bytes:
    """Return a file's bytes; nothing that has no end, or never begins, is waited for.

    Args:
        path: A regular file, or a link to one.
        most: Bytes; of more, none are read.
        error: Raised where it is refused.

    Raises:
        MemorywamError: a directory, pipe or device, or a file that is too large.
        OSError: it is not there, or the disk refused.
    """
    if Path(path).is_dir():
        raise error(f"{path} {_NO_FILE}")
    with open(path, "rb", opener=_without_waiting) as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise error(f"{path} {_NO_FILE}")
        # No more than it says at first: to read up to `most` is to allocate as much.
        content = stream.read(found.st_size + 1) if found.st_size <= most else b""
        if len(content) > found.st_size:  # it grows, or its file system tells no sizes
            content += stream.read(most + 1 - len(content))
        if max(found.st_size, len(content)) > most:
            raise error(
                f"{path}: found {found.st_size:,} bytes; expected at most {most:,} bytes: the "
                "file is damaged or of another kind"
            )
    return content


def _without_waiting(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a pipe waits for somebody to write into it.
    return os.open(path, flags | os.O_NONBLOCK)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hash a file's bytes, without holding more than 1 MiB of them.

    Args:
        path: The file to read.

    Returns:
        64 lower-case hexadecimal digits.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _checked_target(path: str | os.PathLike[str]) -> Path:
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise InputError(
            f"cannot write {target}: {target.parent} is not a directory. Create it, or write to "
            "a directory that exists."
        )
    return target


def refuse_occupied(target: Path, *, overwrite: bool, kind: DirectoryKind | None = None) -> None:
    """Refuse a directory to be written that holds something: before hours of work, and after.

    Raises:
        InputError: it does and may not be replaced, or is not of the kind that is; or it is a file,
            or in no directory.
    """
    kind = kind or _BUNDLE
    _checked_target(target)
    for folder in (target.absolute().parent, target):
        if folder.is_dir() and not os.access(folder, _WRITE):
            raise InputError(
                f"cannot write {target}: {folder} may not be written; expected permission. "
                "Choose another directory, or change its mode."
            )
    if target.is_dir():
        is_filled = any(target.iterdir())
        if is_filled and not overwrite:
            raise InputError(
                f"{target} exists and is not empty; expected a new or an empty directory. "
                "Choose another name, remove it, or replace it with --overwrite."
            )
        if is_filled and (stranger := kind.stranger_in(target)):
            raise InputError(
                f"{target} holds {stranger}; expected {kind.name}, the only kind of directory that "
                "is overwritten. Choose another name, or remove it yourself."
            )
    elif target.exists():
        raise InputError(f"{target} is a file; expected a directory to create. Choose another.")


def refuse_unwritable(option: str, path: Path) -> None:
    """Refuse a file that could not be written: before an hour of work rather than after it.

    Args:
        option: That named it.
        path: The file.

    Raises:
        InputError: a directory, or a file in one that does not exist or may not be written.
    """
    folder = path.resolve().parent
    if path.is_dir() or not folder.is_dir():
        raise InputError(f"found {option} {path}; expected a file in a directory that exists")
    if not os.access(folder, _WRITE):
        raise InputError(
            f"found {option} {path}; expected a file in a directory that may be written: choose "
            f"another than {folder}, or change its mode"
        )


def _stranger_in(directory: Path) -> str:
    """Return what in a directory is none of a bundle's files; nothing if it is a bundle.

    Damaged files count as the bundle's own, a damaged manifest does not: nobody can tell then.
    """
    known = {_MARK}
    try:
        found = json.loads(read_file(directory / _MARK, _MOST_MARK_BYTES))
        if not isinstance(found["contract_hash"], str):
            return f"a {_MARK} of something else"
        known |= set(found["files"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return f"files without a {_MARK} that is a bundle's"
    for folder, _, names in os.walk(directory):
        for name in names:
            inner = Path(folder, name).relative_to(directory).as_posix()
            if inner not in known and not is_draft(name):
                return f"'{shown(inner)}', which its {_MARK} does not name"
    return ""


_BUNDLE = DirectoryKind("a bundle", _stranger_in)


def _move_into_place(draft: Path, target: Path) -> None:
    if not target.exists() or not any(target.iterdir()):
        draft.replace(target)
        return
    # Not a draft yet: another writer would remove it, and it is all there is until the next line.
    old = beside(target, _OLD)
    try:
        target.rename(old)
        draft.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    abandoned = beside(target)
    with contextlib.suppress(OSError):
        old.rename(abandoned)  # if this is killed now, the next writer removes the rest
        shutil.rmtree(abandoned)


def _sync_tree(directory: Path) -> None:
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                _sync(path)
        _sync(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Some file systems (network shares) cannot sync a directory; the rename stands anyway.
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shown(name: str) -> str:
    """Return a name that somebody else chose, on one line and without power over a terminal."""
    short = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode()
        for one in short
    )


def inside(root: Path, name: str) -> Path:
    """Return a file's path; refuse one that leaves the bundle, by name or by link."""
    pure = PurePosixPath(name)
    path = root / name
    escapes = pure.is_absolute() or ".." in pure.parts or "\\" in name or not pure.parts
    try:
        path.is_file()  # a name that the file system cannot hold fails here, or in resolve
        escapes = escapes or not path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else shown(str(error))
        raise BundleError(
            f"{root}: the manifest names '{shown(name)}', which is no file name ({why}); refused"
        ) from error
    if escapes:
        raise BundleError(
            f"{root}: the manifest names '{shown(name)}', which leaves the bundle; refused"
        )
    return path

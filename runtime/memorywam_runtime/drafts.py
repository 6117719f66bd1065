"""Drafts: what a file or directory is before it has its name, locked while its writer lives."""

import contextlib
import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from memorywam_runtime.streams import one_line

__all__ = ["beside", "is_draft", "new_draft"]

_DRAFT = ".draft"
_HEX_DIGITS = 12
_LOG = logging.getLogger(__name__)


def beside(target: Path, ending: str = _DRAFT) -> Path:
    """Return a new hidden name beside `target`.

    The same directory, hence the same file system: only there is a rename atomic. Made by name
    rather than by tempfile, whose 0600 and 0700 would survive the rename.
    """
    return target.with_name(f".{target.name}.{secrets.token_hex(_HEX_DIGITS // 2)}{ending}")


def is_draft(name: str) -> bool:
    """Say whether a name is one that a draft has, whatever of."""
    return _pattern(".+").fullmatch(name) is not None


@contextlib.contextmanager
def new_draft(target: Path, *, is_directory: bool) -> Iterator[tuple[Path, int]]:
    """Make an empty draft of `target`, which no other writer removes before the block ends.

    First, drafts of the same name whose writers were killed are removed: they may be as large as
    the disk. A writer holds a lock on its draft, which ends with its process, however that ends;
    where a file system has no locks, nothing is removed.

    Args:
        target: What the draft will be called; its directory exists.
        is_directory: Make a directory rather than a file.

    Yields:
        The draft, and a descriptor of it: for writing, if it is a file.

    Raises:
        OSError: The disk refused.
    """
    _remove_abandoned(target)
    draft, descriptor = _made(target, is_directory=is_directory)
    try:
        yield draft, descriptor
    finally:
        os.close(descriptor)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"\.{name}\.[0-9a-f]{{{_HEX_DIGITS}}}{re.escape(_DRAFT)}", re.DOTALL)


def _made(target: Path, *, is_directory: bool) -> tuple[Path, int]:
    """Return a draft and its descriptor, locked; another if one is swept before it is locked."""
    while True:
        draft = beside(target)
        if is_directory:
            draft.mkdir()
            try:
                descriptor = os.open(draft, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue
        else:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # another writer took it for abandoned and is removing it: make another
        except OSError:  # no locks here: then nobody sweeps here either
            return draft, descriptor
        else:
            if draft.exists():
                return draft, descriptor
        os.close(descriptor)


def _remove_abandoned(target: Path) -> None:
    """Remove the drafts of exactly this name that nobody holds; say which."""
    pattern = _pattern(re.escape(target.name))
    try:
        found = [path for path in target.parent.iterdir() if pattern.fullmatch(path.name)]
    except OSError:  # a directory that may be written and not be listed
        return
    for draft in found:
        # Not removed is not worth failing for: the disk tells by itself if it is too small.
        with contextlib.suppress(OSError):
            if _is_removed(draft):
                _LOG.warning(
                    "removed %s, the draft of a job that was killed before it was done",
                    one_line(str(draft)),
                )


def _is_removed(draft: Path) -> bool:
    # O_NOFOLLOW: a link is none of ours. O_NONBLOCK: nor is a pipe, nor waited for.
    descriptor = os.open(draft, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        # If it has got its name meanwhile, nothing is found under this one.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            shutil.rmtree(draft)
        elif stat.S_ISREG(mode):
            draft.unlink()
        else:
            return False
    finally:
        os.close(descriptor)
    return True

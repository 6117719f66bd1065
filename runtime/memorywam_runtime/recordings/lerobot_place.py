"""The directory of a LeRobot dataset to be written: whole, and in place of a dataset alone."""

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from memorywam_runtime.errors import InputError
from memorywam_runtime.files import atomic_directory, shown
from memorywam_runtime.recordings.lerobot_info import INFO_FILE

__all__ = ["check_place", "dataset_directory"]

_PARTS = {"meta", "data", "videos"}


def check_place(out: Path, *, overwrite: bool) -> None:
    """Refuse a directory that a dataset may not be written to.

    Raises:
        InputError: a file, no directory to make it in, or one that holds something that may not
            be replaced.
    """
    if not out.absolute().parent.is_dir():
        raise InputError(
            f"cannot write {out}: {out.absolute().parent} is not a directory. Create it, or write "
            "to a directory that exists."
        )
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; expected a directory to create. Choose another.")
    if not _is_filled(out):
        return
    if not overwrite:
        raise InputError(
            f"{out} exists and is not empty; expected a new or an empty directory. Choose another "
            "name, remove it, or replace a dataset with --overwrite."
        )
    strangers = sorted({one.name for one in out.iterdir()} - _PARTS)
    if strangers or not (out / INFO_FILE).is_file():
        found = f"'{shown(strangers[0])}'" if strangers else f"no {INFO_FILE}"
        raise InputError(
            f"{out} holds {found}; expected a LeRobot dataset and nothing else, to overwrite it. "
            "Choose another name, or remove it yourself."
        )


@contextlib.contextmanager
def dataset_directory(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Build a dataset aside and move it into place when the block ends without an error.

    Args:
        out: The directory to create. An empty one that exists already is filled.
        overwrite: Replace a dataset that is there; it stays until the new one is complete.

    Yields:
        A new, empty directory beside `out`.

    Raises:
        InputError: as for `check_place`; nothing has been written then.
        OSError: the disk refused.
    """
    check_place(out, overwrite=overwrite)
    target = out.resolve()
    if not _is_filled(target):
        with atomic_directory(target) as draft:
            yield draft
        return
    mark = secrets.token_hex(6)
    new, old = (target.with_name(f".{target.name}.{mark}.{what}") for what in ("new", "old"))
    with atomic_directory(new) as draft:
        yield draft
    try:
        check_place(target, overwrite=True)
        target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            old.rename(target)
            raise
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _is_filled(directory: Path) -> bool:
    return directory.is_dir() and any(directory.iterdir())

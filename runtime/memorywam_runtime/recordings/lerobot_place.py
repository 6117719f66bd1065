"""The directory of a LeRobot dataset: what in it may give way to another dataset."""

import re
from pathlib import Path

from memorywam_runtime.files import DirectoryKind, shown
from memorywam_runtime.recordings.lerobot_info import INFO_FILE

__all__ = ["DATASET"]

_OURS = re.compile(r"meta/.*\.(json|parquet)|data/.*\.parquet|videos/.*\.mp4", re.DOTALL)


def _stranger_in(directory: Path) -> str:
    """Return what in a directory is no file of a dataset's; nothing if it is a dataset."""
    if not (directory / INFO_FILE).is_file():
        return f"no {INFO_FILE}"
    for path in sorted(one for one in directory.rglob("*") if one.is_symlink() or not one.is_dir()):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink() or not _OURS.fullmatch(name):
            return f"'{shown(name)}'"
    return ""


DATASET = DirectoryKind("a LeRobot dataset and nothing else", _stranger_in)

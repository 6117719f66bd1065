"""What a check found, written into the bundle with its hashes: the load gate reads it there."""

from pathlib import Path
from typing import Any

import msgspec

from memorywam_runtime.bundle import MANIFEST_FILE, check_bundle
from memorywam_runtime.files import atomic_write
from memorywam_runtime.manifest import Manifest, ReportEntry, entry_from_file, manifest_to_json
from memorywam_runtime.report import json_from_data

__all__ = ["record_bundle_parity"]

_FILE, _PAGE = "reports/parity.json", "reports/parity.html"


def record_bundle_parity(root: Path, data: dict[str, Any], page: str, *, passed: bool) -> Manifest:
    """Write a parity report into a bundle; return the new manifest.

    The manifest is written last: until then the bundle has the report that it had, and if that
    one's file is new already, the bundle does not open, rather than open with a report of others.

    Args:
        root: The bundle.
        data: The report.
        page: The same as HTML.
        passed: Whether every check held.

    Raises:
        BundleError: the bundle does not pass its checks.
        OSError: it cannot be written to.
    """
    manifest = check_bundle(root)
    (root / "reports").mkdir(exist_ok=True)
    contents = {_FILE: json_from_data(data), _PAGE: page}
    for name, text in contents.items():
        atomic_write(root / name, text.encode())
    files = dict(manifest.files)
    for name in contents:
        files[name] = entry_from_file(root / name)
    entry = ReportEntry(file=_FILE, page=_PAGE, passed=passed, sha256s=manifest.judged_files)
    changed = msgspec.structs.replace(manifest, files=files, parity=entry)
    atomic_write(root / MANIFEST_FILE, manifest_to_json(changed))
    return changed

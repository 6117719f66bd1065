"""What a build tells of a bundle whose own checks failed."""

from pathlib import Path

import msgspec
import pytest

from memorywam_export.build_report import built_outcome
from memorywam_export.engines.engine_build import BuildResult
from memorywam_export.engines.engine_preflight import Preflight
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.manifest import ReportEntry


@pytest.mark.parametrize(("passed", "is_told"), [(None, False), (True, False), (False, True)])
def test_engines_of_a_bundle_that_failed_are_of_no_use_yet(tiny_bundle, passed, is_told):
    parity = None
    if passed is not None:
        parity = ReportEntry(file="parity.json", page="parity.html", passed=passed, sha256s={})
    result = BuildResult(
        directory=Path("bundle.engines"),
        target="sm_89",
        backend_version="1.7.1.116",
        manifest=msgspec.structs.replace(read_manifest(tiny_bundle), parity=parity),
        preflight=Preflight(
            host_bytes=1,
            host_free_bytes=1,
            disk_bytes=1,
            disk_free_bytes=2,
            workspace_bytes=None,
        ),
        graphs=(),
    )
    note = built_outcome([result], dry_run=True).note
    assert ("checks failed (parity.html)" in note) is is_told

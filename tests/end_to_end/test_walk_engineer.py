"""calibration/WALK.md, as an engineer follows it: recordings to a quantized bundle to ship."""

import hashlib
import json

import pytest
from tests.calibration.conftest import Writer
from tests.fakes.page_commands import ROOT, lines, lines_not_printed, run_commands

from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.engines import read_engines

PAGE = (ROOT / "calibration" / "WALK.md").read_text()
LINES = lines(PAGE, "sh")
MADE = LINES[:2]
"""What makes the stand-in: here a fixture does."""
JUDGED = [line for line in LINES if "--drift" in line]
REFUSED = (
    "memorywam calibrate bundle --recordings recordings --out int8 --dry-run",
    JUDGED[0],
    "memorywam run int8",
)
TABLES = [line for line in LINES if ".json" in line]
"""Scales alone, here and on a cluster: the bundle's are the same, and Ray is tested elsewhere."""
BUILT = [line for line in LINES if line.startswith("memorywam build") and "--dry-run" not in line]


def write_files(folder, bundle):
    """Put into a folder what the page's first lines make, by the same names and cheaper."""
    (folder / "bundle").symlink_to(bundle)
    writer = Writer(bundle)
    fingers = [unit == "fraction" for unit in writer.contract.actions.units]

    def restless(step, state):
        state[fingers] = step // writer.contract.steps_per_frame % 2
        return state

    for seed in range(16):
        name = f"sim-recall-seed-{seed}"
        writer.write(folder / "recordings", name, 12 + seed % 3, seed=seed, state_of=restless)


@pytest.fixture(scope="module")
def walked(tiny_bundle, tmp_path_factory):
    """The folder in which the page's commands have run, but for dear ones; what each printed."""
    pytest.importorskip("mcap", reason="needs the extra memorywam[record]")
    pytest.importorskip("tensorrt_rtx", reason="needs the extra memorywam[tensorrt-rtx]")
    folder = tmp_path_factory.mktemp("engineer")
    write_files(folder, tiny_bundle)
    skipped = [*MADE, *TABLES, *BUILT]
    assert len(skipped) == 5
    return folder, run_commands(PAGE, folder, refused=REFUSED, skipped=skipped)


def test_the_walk_ends_with_a_bundle_that_passed(walked):
    folder, printed = walked
    assert len(printed) == len(LINES) - 5
    assert len(JUDGED) == 2
    manifest = check_bundle(folder / "int8")
    assert manifest.parity is not None
    assert manifest.parity.passed
    report = json.loads((folder / "int8" / manifest.parity.file).read_text())
    assert report["forced"]
    assert [check["what"] for check in report["checks"] if "overruled" in check["worst"]]


def test_the_lines_that_the_page_shows_are_printed(walked):
    missing = lines_not_printed(PAGE, walked[1])
    assert [line.split()[0] for line in missing] == ["engines"], missing


def test_the_scales_have_one_hash_everywhere(walked):
    folder, printed = walked
    told = told_hash(folder / "int8" / "scale_table.json")
    assert told in printed["memorywam inspect int8"]
    assert told in (folder / "int8" / "reports" / "parity.html").read_text()


def told_hash(table):
    """What is printed of a table."""
    return f"sha256 {hashlib.sha256(table.read_bytes()).hexdigest()[:12]}"


@pytest.mark.proof
def test_the_whole_walk(tmp_path):
    pytest.importorskip("ray", reason="needs the extra memorywam[cluster]")
    pytest.importorskip("tensorrt_rtx", reason="needs the extra memorywam[tensorrt-rtx]")
    printed = run_commands(PAGE, tmp_path, refused=REFUSED)
    assert list(printed) == LINES
    assert lines_not_printed(PAGE, printed) == []
    tables = [tmp_path / name for name in ("scales.json", "cluster.json", "int8/scale_table.json")]
    assert len({table.read_bytes() for table in tables}) == 1
    assert all(told_hash(tables[0]) in printed[line] for line in TABLES)
    found = sorted((tmp_path / "int8.engines").iterdir())
    assert [read_engines(one).target for one in found] == ["sm_120", "sm_86", "sm_89"]

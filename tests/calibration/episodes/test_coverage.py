"""What decision points lack is named, and refused unless somebody says that it may be missing."""

from collections import Counter

import pytest

from memorywam_calibration.calibrate import Options, calibrated, planned
from memorywam_calibration.episodes.coverage import coverage_rows, expected_cells, token_classes
from memorywam_calibration.episodes.needs import Needs, needs_of
from memorywam_calibration.episodes.samples import fill_cells
from memorywam_runtime.errors import InputError


@pytest.fixture(scope="module")
def fills(writer):
    return fill_cells(writer.contract, 256)


@pytest.fixture(scope="module")
def cells(writer, fills):
    return expected_cells(writer.manifest, fills, 4, ["random", "other"])


def missing(rows):
    return [row.cell for row in rows if not row.is_ok]


def test_the_table_has_every_axis(cells):
    assert cells[:2] == ["samples", "episodes"]
    assert {"fill/first eviction", "fill/> 100", "step/00", "step/03", "token/gist"} <= set(cells)
    assert {"phase/begin", "camera/head", "prompt/other", "split/held_out"} <= set(cells)
    assert "step/04" not in cells
    assert len(set(cells)) == len(cells)


def test_nothing_covers_nothing(cells):
    rows = coverage_rows(cells, {}, needs_of("int8"))
    assert missing(rows) == [one for one in cells if one not in ("phase/gripper", "fill/91-100")]
    assert next(row for row in rows if row.cell == "phase/gripper").remark == "by the recipe int8"


def test_counts_have_their_least(cells):
    counts = Counter(dict.fromkeys(cells, 1)) | Counter(samples=7, episodes=11)
    assert missing(coverage_rows(cells, counts, needs_of("int8"))) == ["samples", "episodes"]
    counts |= Counter(samples=8, episodes=12)
    assert not missing(coverage_rows(cells, counts, needs_of("int8")))


def test_long_episodes_are_needed_only_where_there_are_any(cells, fills):
    short = [
        row.cell
        for row in coverage_rows(cells, {}, needs_of("int8"), fills=fills, longest_frames=30)
        if row.is_ok
    ]
    assert short == ["fill/31-60", "fill/61-90", "fill/91-100", "fill/> 100", "phase/gripper"]
    rows = coverage_rows(cells, {}, needs_of("int8"), fills=fills, longest_frames=4)
    # However short the recordings are, a robot goes on.
    assert {"fill/filling", "fill/first eviction", "fill/8-15"} <= set(missing(rows))


def test_what_the_user_allows_is_told(cells):
    rows = coverage_rows(cells, {}, needs_of("int8"), allowed=["prompt/*", "episodes"])
    allowed = {row.cell: row for row in rows if row.remark == "by --allow-missing"}
    assert set(allowed) == {"episodes", "prompt/random", "prompt/other"}
    assert allowed["episodes"].verdict == "missing, allowed"


@pytest.mark.parametrize("pattern", ["*", "samples", "sam*"])
def test_the_number_of_samples_is_never_waived(cells, pattern):
    with pytest.raises(InputError, match="expected cells besides 'samples'"):
        coverage_rows(cells, {}, needs_of("int8"), allowed=[pattern])


def test_a_cell_that_is_none_is_refused(cells):
    with pytest.raises(InputError, match="found 'phase/lunch' among the cells"):
        coverage_rows(cells, {}, needs_of("int8"), allowed=["phase/lunch"])


def test_classes_of_tokens_come_with_memory(writer):
    classes = [token_classes(writer.manifest, fill) for fill in (1, 2, 3, 4)]
    alone = {"current", "action", "text", "gist"}
    assert classes == [alone, alone | {"anchor"}, alone | {"anchor"}, alone | {"anchor", "recent"}]


def test_the_first_four_frames_alone_are_caught(tiny_bundle, recordings):
    found = calibrated(tiny_bundle, recordings, Options(num_samples=32, max_fill=4))
    assert found.table is None
    cells = ["fill/first eviction", "fill/8-15", "phase/end"]
    assert missing(found.coverage) == cells
    ignored = Options(num_samples=32, max_fill=4, allowed=("phase/*", "fill/8-15"))
    assert missing(calibrated(tiny_bundle, recordings, ignored).coverage) == cells[:1]


def test_episodes_of_four_frames_are_caught(tiny_bundle, writer, tmp_path):
    for number in range(24):
        writer.write(tmp_path, f"episode-{number}", 4, seed=number)
    found = calibrated(tiny_bundle, tmp_path, Options(num_samples=32))
    assert found.table is None
    assert missing(found.coverage) == ["fill/first eviction", "fill/8-15"]


def test_too_few_episodes_are_caught(tiny_bundle, writer, tmp_path):
    for number in range(6):
        writer.write(tmp_path, f"episode-{number}", 9, seed=number)
    found = calibrated(tiny_bundle, tmp_path, Options())
    assert found.table is None
    assert "episodes" in missing(found.coverage)


def test_a_plan_replays_nothing_and_covers_what_it_says(tiny_bundle, recordings):
    plan = planned(tiny_bundle, recordings, Options(), lambda _: None)
    assert len(plan.samples) == 64
    assert not missing(plan.rows(plan.counts, ()))
    assert plan.longest_frames == 13
    lacking = {row.cell for row in plan.rows(plan.counts, ()) if row.count < row.least}
    fills = {f"fill/{name}" for name in ("16-30", "31-60", "61-90", "91-100", "> 100")}
    assert lacking == fills | {"phase/gripper"}


def test_needs_are_of_a_recipe():
    assert isinstance(needs_of("int8"), Needs)
    with pytest.raises(InputError, match="found recipe 'int4-weight' to calibrate"):
        needs_of("int4-weight")

"""What a product does to the actions alone: measured, by the gradient, and in the real bundle."""

import json
import re

import numpy as np
import pytest
import torch

from memorywam_calibration.calibrate import Options
from memorywam_calibration.delivery import delivered
from memorywam_calibration.episodes.episodes import episodes_in
from memorywam_calibration.episodes.held_out import instruct
from memorywam_calibration.judgement.judgement import JudgeOptions
from memorywam_calibration.mixing import gradient
from memorywam_calibration.mixing.gradient import gradient_scores
from memorywam_calibration.mixing.mixing import MixOptions, check_budget, mixed
from memorywam_calibration.mixing.product_costs import byte_costs, time_costs
from memorywam_calibration.mixing.sensitivity import (
    decision_points,
    measured_sensitivity,
    rounding_error,
)
from memorywam_calibration.replay.emulation import Emulation
from memorywam_calibration.replay.listener import graph_module
from memorywam_calibration.replay.replay import policy_from_bundle
from memorywam_export.episodes.drift import remember
from memorywam_export.quantize.quantize import bundle_graphs, quantize_bundle
from memorywam_export.recipes.recipes import RECIPES
from memorywam_runtime.bundle import check_bundle, open_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.scale_table import scale_table_from_json

pytest.importorskip("scipy", reason="needs the extra memorywam[mixed]")

OPTIONS = Options(num_samples=16)
CANDIDATES = ("int8", "int4-weight")


@pytest.fixture(scope="module")
def session(tiny_bundle):
    return policy_from_bundle(tiny_bundle, num_threads=1).session


@pytest.fixture(scope="module")
def points(session, calibration):
    developing = [one for one in calibration.plan.episodes if one.split == "development"]
    return decision_points(session, developing, 4)


@pytest.fixture(scope="module")
def names(tiny_bundle, calibration):
    graphs = bundle_graphs(tiny_bundle, check_bundle(tiny_bundle))
    wide = {key.partition("/")[2] for key in calibration.table.wide}
    return sorted({site.name for site in graphs.sites} - wide)


def test_a_point_replayed_is_the_point(session, points):
    assert rounding_error(session, points) == 0


def test_emulation_leaves_no_trace(session, calibration, points, names):
    emulation = Emulation(session, calibration.table)
    with emulation.of({name: "int8" for name in names if name in emulation.names}):
        assert rounding_error(session, points) > 0
    assert rounding_error(session, points) == 0


def test_what_is_not_there_is_refused(session, calibration):
    with pytest.raises(InputError, match="found 'nothing' to be rounded"):  # noqa: SIM117
        with Emulation(session, calibration.table).of({"nothing": "int8"}):
            pass


def test_emulation_is_what_the_bundle_computes(
    tiny_bundle, calibration, session, points, names, tmp_path
):
    quantize_bundle(tiny_bundle, tmp_path / "int8", RECIPES["int8"], calibration.table)
    narrow = open_bundle(tmp_path / "int8", num_threads=1)
    emulation = Emulation(session, calibration.table)
    chosen = {name: "int8" for name in names if name in emulation.names}
    for point in points:
        narrow.restore(point.start)
        remember(narrow, point.frame, point.before)
        found = narrow.denoise(point.frame.noise[0])
        session.restore(point.start)
        with emulation.of(chosen):
            remember(session, point.frame, point.before)
            emulated = session.denoise(point.frame.noise[0])
        error = np.abs(found - point.chunks[0]).max()
        # Values that lie between two integers may be rounded either way.
        assert np.abs(found - emulated).max() < 0.2 * error


def test_the_gradient_tells_what_is_measured(session, calibration, points, names):
    measured = measured_sensitivity(
        session, calibration.table, names, points, candidates=CANDIDATES
    )
    scores = gradient_scores(session, calibration.table, names, points, candidates=CANDIDATES)
    pairs = [
        (one.error, scores[one.name, one.recipe])
        for one in measured
        if one.error > 0 and scores.get((one.name, one.recipe), 0) > 0
    ]
    assert len(pairs) > 20
    errors, scored = np.log(np.array(pairs)).T
    assert np.corrcoef(errors, scored)[0, 1] > 0.9
    assert abs(np.median(errors - scored)) < np.log(1.5)


def test_four_bits_hurt_more_than_eight(session, calibration, points, names):
    told: list[str] = []
    measured = measured_sensitivity(
        session, calibration.table, names[:6], points[:2], candidates=CANDIDATES, tell=told.append
    )
    assert told == [f"rounds {name}, {n} of 6 products" for n, name in enumerate(names[:6], 1)]
    by_recipe = {
        recipe: sum(one.error for one in measured if one.recipe == recipe) for recipe in CANDIDATES
    }
    assert by_recipe["int4-weight"] > by_recipe["int8"] > 0


def test_bytes_are_those_of_the_files(tiny_bundle, calibration, tmp_path):
    manifest = check_bundle(tiny_bundle)
    sites = bundle_graphs(tiny_bundle, manifest).sites
    costs = byte_costs(sites, ("int8-weight",), 4)
    quantized = quantize_bundle(tiny_bundle, tmp_path / "out", RECIPES["int8-weight"])
    assert quantized.quantization is not None
    names = {key.partition("/")[2] for key in quantized.quantization.sites}
    saved = sum(costs[name, "wide"] - costs[name, "int8-weight"] for name in names)
    sizes = [
        (path / "weights.safetensors").stat().st_size for path in (tiny_bundle, tmp_path / "out")
    ]
    header_bytes = 64 * len(names) * 2
    assert abs(sizes[0] - sizes[1] - saved) < header_bytes


def test_products_are_timed_once_a_shape(tiny_bundle):
    manifest = check_bundle(tiny_bundle)
    sites = bundle_graphs(tiny_bundle, manifest).sites
    told: list[str] = []
    some = [site for site in sites if site.graph == "cache_update"][:6]
    costs = time_costs(some, ("int8",), manifest.contract, tell=told.append)
    assert len(told) == len({site.shape for site in some}) < len(some)
    assert told[0].endswith(f", 1 of {len(told)} shapes")
    assert all(cost > 0 for cost in costs.values())
    once = [site for site in sites if site.graph == "prompt_kv"]  # no part of a tick
    assert set(time_costs(once, ("int8",), manifest.contract).values()) == {0.0}


def test_recipes_are_found_on_development_alone(tiny_bundle, calibration, monkeypatch):
    played = []

    def kept(session, episodes, *args, **how):
        played.extend(episodes)
        return decision_points(session, episodes, *args, **how)

    monkeypatch.setattr("memorywam_calibration.mixing.mixing.decision_points", kept)
    options = MixOptions(budget=1.0, num_points=1, num_measured=0)
    mixed(tiny_bundle, calibration.table, calibration.plan.episodes, options)
    assert {one.split for one in played} == {"development"}
    others = [one for one in calibration.plan.episodes if one.split != "development"]
    with pytest.raises(InputError, match="none for development"):
        mixed(tiny_bundle, calibration.table, others, options)


def test_a_smaller_budget_costs_more_error(tiny_bundle, calibration, recordings):
    manifest = check_bundle(tiny_bundle)
    episodes = episodes_in(recordings, manifest.contract, manifest.contract_hash, seed=0)
    options = MixOptions(budget=0.4, num_points=2, num_measured=3)
    mix = mixed(tiny_bundle, calibration.table, episodes, options)
    assert mix.assignment.cost <= 0.4 * mix.wide_cost
    assert mix.table.chosen == mix.assignment.chosen
    assert [one.error for one in mix.front] == sorted(
        (one.error for one in mix.front), reverse=True
    )
    errors = [one.error for one in mix.sensitivities]
    assert errors == sorted(errors, reverse=True)


def test_a_budget_that_nothing_fits_in_is_refused(tiny_bundle, calibration, recordings):
    manifest = check_bundle(tiny_bundle)
    episodes = episodes_in(recordings, manifest.contract, manifest.contract_hash, seed=0)
    with pytest.raises(InputError, match=r"found a budget of 0\.100; expected at least 0"):
        mixed(
            tiny_bundle,
            calibration.table,
            episodes,
            MixOptions(budget=0.1, num_points=1, num_measured=0),
        )


def test_a_budget_of_bytes_is_refused_before_any_replay(tiny_bundle, recordings, tmp_path):
    told: list[str] = []
    options, judging = Options(recipe="mixed", num_samples=16), JudgeOptions(drift_frames=200)
    with pytest.raises(
        InputError, match=r"found a budget of 0\.100; .*least 0\.\d+ .*in bytes: .*name"
    ):
        delivered(
            tiny_bundle,
            recordings,
            tmp_path / "out",
            options,
            judging,
            mixing=MixOptions(budget=0.1),
            tell=told.append,
        )
    assert told == []
    assert not (tmp_path / "out").exists()


def test_what_is_refused_early_is_what_would_be_later(tiny_bundle, calibration):
    least = []
    for check in (
        lambda options: check_budget(tiny_bundle, options),
        lambda options: mixed(tiny_bundle, calibration.table, calibration.plan.episodes, options),
    ):
        with pytest.raises(InputError, match="expected at least") as refused:
            check(MixOptions(budget=0.01, num_points=1, num_measured=0))
        (found,) = re.findall(r"least (0\.\d+) of", str(refused.value))
        least.append(float(found))
    assert least[0] == least[1]
    check_budget(tiny_bundle, MixOptions(budget=least[0] + 0.001))
    with pytest.raises(InputError, match="expected at least"):
        check_budget(tiny_bundle, MixOptions(budget=least[0] - 0.001))
    check_budget(tiny_bundle, MixOptions())
    check_budget(tiny_bundle, MixOptions(budget=0.01, cost="time"))  # not known yet


def test_a_chunk_is_differentiated_through_all_of_the_newest_frame(session, points):
    calls = gradient._recorded(session, points[0])
    *_, memory, _, _ = calls.steps[0]
    rows, newest = session.memory.rows, session.memory.num_frames - 1
    assert rows.num_gists > 0
    slot = rows.slot(session.memory.slot_of(newest))
    gist = rows.gist(session.memory.gist_place(newest))
    spans = (slice(slot, slot + rows.num_frame), slice(gist, gist + rows.num_gists))
    blank = [one.clone() for one in memory]
    for one in blank:
        for span in spans:
            one[:, :, span] = np.nan
    with torch.no_grad():
        made = graph_module(session, "cache_update")(*calls.frame)
    leaves = [one.clone().requires_grad_() for one in made]
    found = gradient._with_frame(session, blank, leaves)
    for one, expected in zip(found, memory, strict=True):
        assert torch.allclose(one, expected, atol=1e-6)
    # A gist has its place in the table; what reads it there leads back to the frame.
    torch.stack([one[:, :, spans[1]].sum() for one in found]).sum().backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert int((leaf.grad != 0).any(dim=(0, 1, 3)).sum()) == rows.num_gists


def test_a_mixed_bundle_holds_what_was_chosen(tiny_bundle, recordings, tmp_path):
    options = Options(recipe="mixed", num_samples=16)
    judging = JudgeOptions(drift_frames=200, allow_slower=True)
    mixing = MixOptions(budget=0.27, num_points=2, num_measured=2)
    out = tmp_path / "out"
    found = delivered(tiny_bundle, recordings, out, options, judging, mixing=mixing)
    assert found.passed, [check.row for check in found.checks if not check.ok]
    manifest = check_bundle(out)
    table = scale_table_from_json((out / "scale_table.json").read_bytes())
    assert manifest.quantization is not None
    quantized = {key.partition("/")[2] for key in manifest.quantization.sites}
    assert quantized == set(table.chosen)
    assert {"int8", "int4-weight"} == set(table.chosen.values())
    assert "Cost against error" in (out / "reports" / "parity.html").read_text()
    report = json.loads((out / "reports" / "parity.json").read_text())
    assert report["mix"]["chosen"] == table.chosen
    session = open_bundle(out, num_threads=1)
    instruct(session, "random")

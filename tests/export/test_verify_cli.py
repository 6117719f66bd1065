"""What the verb verify is asked for besides the ladder: it is run, judged, shown, or refused."""

import json

import pytest
from tests.fakes.bundles import TINY, copy_of, edit_manifest

from memorywam_export.episodes import drift_page
from memorywam_export.episodes.closed_loop import TaskLoop
from memorywam_export.episodes.paired import pairs_from_outcomes, share_of
from memorywam_export.verify import verify_report
from memorywam_runtime import cli
from memorywam_runtime.bundle import read_manifest


def parity_of(bundle):
    report = read_manifest(bundle).parity
    assert report is not None
    return report


@pytest.fixture
def verify(tiny_bundle, tmp_path, capsys):
    """Runs the verb on a copy; returns its status, what it wrote, and the copy."""
    bundle = copy_of(tiny_bundle, tmp_path)

    def call(*words):
        file = tmp_path / "found.json"
        status = cli.main(["verify", str(bundle), "--checkpoint", TINY, "--frames", "2",
                           "--no-faults", *map(str, words), "--json", str(file)])  # fmt: skip
        text = "".join(capsys.readouterr())
        return status, json.loads(file.read_text())["data"] if status < 2 else text, bundle

    return call


def looped(good, of):
    """A task that the backend solves so often, the reference always."""
    outcomes = [(True, place < good) for place in range(of)]
    return TaskLoop(
        task="recall",
        backend="ort",
        seeds=tuple(range(of)),
        reference=share_of(of, of),
        found=share_of(good, of),
        pairs=pairs_from_outcomes(outcomes),
        repairs=(),
        regressions=tuple(range(good, of)),
        same_ending=good,
        largest_action_difference=0.0,
    )


@pytest.mark.parametrize(("good", "status"), [(50, 0), (20, 1)])
def test_the_closed_loop_is_judged_and_shown(verify, monkeypatch, good, status):
    asked = []

    def closed_loop(root, call, options, tell):
        asked.append(options)
        return [looped(good, 50)]

    monkeypatch.setattr(verify_report, "closed_loop", closed_loop)
    found, data, bundle = verify("--closed-loop", "recall", "--episodes", 50)
    assert found == status
    assert (asked[0].tasks, asked[0].num_episodes, asked[0].backend) == (("recall",), 50, "ort")
    (check,) = [one for one in data["checks"] if one["what"] == "closed loop: recall"]
    assert check["ok"] is (status == 0)
    assert data["closed_loop"][0]["found"]["successes"] == good
    report = parity_of(bundle)
    assert report.passed is (status == 0)
    assert "recall" in (bundle / report.page).read_text()


def test_drift_is_measured_when_asked_for(verify, monkeypatch):
    asked = []

    def bundle_drift(root, checkpoint, options, *, device, tell):
        asked.append(options.num_frames)
        return [], {"rungs": []}

    monkeypatch.setattr(verify_report, "bundle_drift", bundle_drift)
    monkeypatch.setattr(drift_page, "drift_figures", lambda data: ["<i>drift</i>"])
    status, data, bundle = verify("--drift", 300)
    assert (status, asked, data["drift"]) == (0, [300], {"rungs": []})
    assert "<i>drift</i>" in (bundle / parity_of(bundle).page).read_text()


def test_what_was_not_looked_at_and_another_checkpoint_are_named(
    tiny_bundle, tmp_path, capsys, caplog
):
    bundle = copy_of(tiny_bundle, tmp_path)
    words = ("verify", str(bundle), "--frames", "2", "--checkpoint")
    assert cli.main([*words, "random:tiny:1"]) == 1
    told = capsys.readouterr().out
    assert "the first that fails: 209 weights" in told
    assert f"the bundle was made from {TINY}, and compared with random:tiny:1\n" in told
    assert "not looked at: planted faults: none was planted\n" in told
    assert "until every check holds, the bundle does not open" in told
    assert "Mind: the bundle was made from" in (bundle / parity_of(bundle).page).read_text()
    assert cli.main([*words, TINY]) == 0
    told = capsys.readouterr().out
    assert "and compared with" not in told
    assert "does not open" not in told
    # That it had failed before is no news while it is verified.
    assert "opened unverified" not in caplog.text


def test_too_few_frames_to_see_drift_are_refused(verify):
    status, text, bundle = verify("--drift", 20)
    assert status == 2
    assert "200" in text
    assert read_manifest(bundle).parity is None


def test_a_quantized_bundle_is_refused(tiny_bundle, tmp_path, capsys):
    bundle = copy_of(tiny_bundle, tmp_path)
    quantization: dict[str, object] = {
        "recipe": "int8-weight",
        "table": None,
        "sites": [],
        "wide": {},
    }
    edit_manifest(bundle, lambda found: found.update(quantization=quantization))
    assert cli.main(["verify", str(bundle), "--checkpoint", TINY]) == 2
    assert "quantized by recipe 'int8-weight'" in capsys.readouterr().err


def test_bisection_needs_graphs_that_can_be_looked_into(verify):
    status, text, _ = verify("--bisect", "--backend", "ort-cuda")
    assert status == 2
    assert "give out nothing but their outputs" in text

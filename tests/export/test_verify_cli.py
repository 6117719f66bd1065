"""What the verb verify is asked for besides the ladder: it is run, judged, shown, or refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from tests.fakes.bundles import TINY, copy_of, edit_manifest

import memorywam_robot
from memorywam_export.bundles.bundle_report import record_bundle_parity
from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.episodes import drift_page
from memorywam_export.episodes.closed_loop import TaskLoop
from memorywam_export.episodes.paired import pairs_from_outcomes, share_of
from memorywam_export.verify import verify_report
from memorywam_export.verify.bundle_parity import other_origin
from memorywam_runtime import cli
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.files import sha256_of
from memorywam_runtime.manifest import SourceEntry

DEMO = Path(memorywam_robot.__file__).parent / "checkpoint"


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


def test_what_was_not_looked_at_is_named(tiny_bundle, tmp_path, capsys, caplog):
    bundle = copy_of(tiny_bundle, tmp_path)
    words = ["verify", str(bundle), "--frames", "2", "--checkpoint", "random:tiny"]
    record_bundle_parity(bundle, {}, "", passed=False)
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "not looked at: planted faults: none was planted\n" in told
    assert "does not open" not in told
    # That it had failed before is no news while it is verified.
    assert "opened unverified" not in caplog.text
    assert parity_of(bundle).passed


OTHERS = {
    "random:tiny:1": "found random:tiny:1 (contract ",
    "random:tiny-fastwam": "found random:tiny-fastwam:0 (contract ",
    str(DEMO): f"found checkpoint (weights {sha256_of(DEMO / 'model.safetensors')[:12]}, contract ",
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("words", [(), ("--backend", "tensorrt-rtx")])
def test_a_checkpoint_that_a_bundle_is_not_of_does_not_shut_it(
    tiny_bundle, tmp_path, capsys, other, words
):
    bundle = copy_of(tiny_bundle, tmp_path)
    record_bundle_parity(bundle, {}, "", passed=True)
    before = files_in(bundle)
    assert cli.main(["verify", str(bundle), "--checkpoint", other, *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"memorywam verify: {OTHERS[other]}")
    assert "; expected what the bundle was made from, random:tiny:0 (contract " in told
    assert ("or compare all the same with --no-record" in told) is not bool(words)
    assert told.count("\n") == 1
    assert files_in(bundle) == before


def test_compared_all_the_same_it_leaves_no_report(tiny_bundle, tmp_path, capsys):
    bundle = copy_of(tiny_bundle, tmp_path)
    record_bundle_parity(bundle, {}, "", passed=True)
    before = files_in(bundle)
    words = ("verify", str(bundle), "--frames", "1", "--no-record", "--no-faults")
    assert cli.main([*words, "--checkpoint", "random:tiny:1"]) == 1
    told = capsys.readouterr().out
    assert "the first that fails: 209 weights" in told
    assert "found random:tiny:1 (contract " in told
    assert files_in(bundle) == before


def test_a_checkpoint_that_ends_too_early_changes_nothing(tiny_bundle, tmp_path, capsys):
    bundle = copy_of(tiny_bundle, tmp_path)
    checkpoint = shutil.copytree(DEMO, tmp_path / "checkpoint")
    weights = checkpoint / "model.safetensors"
    made = {"checkpoint": "checkpoint", "sha256": sha256_of(weights)}
    edit_manifest(bundle, lambda found: found.update(source=made))
    record_bundle_parity(bundle, {}, "", passed=True)
    before = files_in(bundle)
    whole = weights.read_bytes()
    for content in (whole[:-1000], whole[:1000], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(content)
        assert cli.main(["verify", str(bundle), "--checkpoint", str(checkpoint)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert files_in(bundle) == before


def test_weights_that_cannot_be_read_when_they_are_needed_change_nothing(verify, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(verify_report, "bundle_checks", fail)
    status, text, bundle = verify()
    assert status == 2
    assert "Input/output error" in text
    assert read_manifest(bundle).parity is None


@pytest.mark.parametrize(
    ("made", "compared", "is_other"),
    [
        (("a.pt", "aa"), ("b.pt", "aa"), False),
        (("a.pt", "aa"), ("a.pt", "bb"), True),
        (("a.pt", "aa"), ("random:tiny:0", ""), True),
        (("random:tiny:0", ""), ("a.pt", "aa"), True),
        (("random:tiny", ""), ("random:tiny:0", ""), False),
        (("random:tiny:10", ""), ("random:tiny:1", ""), True),
        # Nobody knows: the ladder tells.
        (("a.pt", ""), ("b.pt", "bb"), False),
        (("a.pt", ""), ("random:tiny:0", ""), False),
    ],
)
def test_what_a_bundle_was_made_from_is_known_by_its_hash(tiny_bundle, made, compared, is_other):
    manifest = msgspec.structs.replace(
        read_manifest(tiny_bundle), source=SourceEntry(checkpoint=made[0], sha256=made[1])
    )
    checkpoint = checkpoint_from_argument(TINY)
    found = replace(checkpoint, name=compared[0], sha256=compared[1])
    assert bool(other_origin(manifest, found)) is is_other
    other_contract = checkpoint_from_argument("random:tiny-fastwam").contract
    assert other_origin(manifest, replace(found, contract=other_contract))


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

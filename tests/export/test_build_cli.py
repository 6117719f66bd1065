"""The verb build, as a user calls it."""

import json
import subprocess
import sys

import pytest
from tests.fakes.bundles import copy_of, edit_manifest
from tests.fakes.engines import compiled_bundle

from memorywam_export.engines import engine_preflight
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.cli import VERBS, main
from memorywam_runtime.engines import read_engines

RTX = ("--backend", "tensorrt-rtx")


@pytest.fixture
def call(capsys):
    """Run the program; return its exit status, the parsed JSON (or None) and what it said."""

    def called(*words):
        status = main([str(word) for word in words])
        told = capsys.readouterr()
        document = json.loads(told.out) if "--json" in words and told.out else None
        return status, document, told.out + told.err

    return called


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return compiled_bundle(tmp_path_factory, "tiny-fastwam", "bf16")


def test_build_tells_what_it_built_and_what_was_there(call, bundle, tmp_path):
    words = ("build", bundle, *RTX, "--target", "sm_86", "--target", "sm_89", "--out", tmp_path)
    status, document, _ = call(*words, "--json", "-")
    assert status == 0
    targets = {target["target"]: target for target in document["data"]["targets"]}
    assert list(targets) == ["sm_86", "sm_89"]
    for name, target in targets.items():
        engines = read_engines(tmp_path / f"tensorrt-rtx-{name}")
        assert engines.target == name
        for graph, told in target["graphs"].items():
            assert told["sha256"] == engines.engines[graph].sha256
            assert told["hit"] is False
            assert told["seconds"] > 0
            assert told["audit"]["gemm_share"] == {"BF16": 1.0}
    update = targets["sm_89"]["graphs"]["cache_update"]
    assert update["audit"]["num_memory_writes"] == 6
    assert update["rows"] == [[22, 22, 22]]
    assert targets["sm_89"]["preflight"]["disk_bytes"] > update["bytes"]

    status, _, text = call(*words[:-4], "--out", tmp_path)
    assert status == 0
    assert f"{len(read_manifest(bundle).graphs)} there, 0 built" in text
    assert "6 in place" in text
    assert "BF16 100%" in text


def test_the_json_is_all_there_is_on_standard_output(bundle, tmp_path):
    """The compiler prints past Python; in a process of its own nothing hides that."""
    words = ("build", bundle, *RTX, "--target", "sm_89", "--out", tmp_path, "--json", "-")
    done = subprocess.run(
        [sys.executable, "-m", "memorywam_runtime.cli", *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["ok"] is True


def test_a_dry_run_builds_nothing(call, bundle, tmp_path):
    words = ("build", bundle, *RTX, "--target", "sm_89", "--out", tmp_path, "--dry-run")
    status, document, _ = call(*words, "--workspace", 1.5, "--json", "-")
    assert status == 0
    (target,) = document["data"]["targets"]
    assert target["preflight"]["workspace_bytes"] == 3 << 29
    assert {graph["hit"] for graph in target["graphs"].values()} == {False}
    assert list(tmp_path.iterdir()) == []
    missing = len(read_manifest(bundle).graphs)
    assert f"0 there, {missing} to build; memory about 600 MB of" in call(*words)[2]


def test_a_build_that_does_not_fit_ends_with_2_unless_forced(call, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_preflight, "available_bytes", lambda: 1)
    words = ("build", bundle, *RTX, "--target", "sm_89", "--out", tmp_path, "--dry-run")
    status, _, text = call(*words)
    assert status == 2
    assert "the build takes about 600 MB of memory, and 0 MB are free" in text
    assert call(*words, "--force")[0] == 0


def test_a_fault_ends_with_1(call, tiny_bundle_in_place, tmp_path):
    wrong = copy_of(tiny_bundle_in_place, tmp_path)
    edit_manifest(wrong, lambda found: found.update(precision="bf16"))
    status, document, _ = call("build", wrong, *RTX, "--target", "sm_89", "--json", "-")
    assert status == 1
    assert document["ok"] is False
    (target,) = document["data"]["targets"]
    assert any("wider" in fault for fault in target["graphs"]["state_kv"]["faults"])
    text = call("build", wrong, *RTX, "--target", "sm_89")[2]
    assert "not complete" in text
    assert "No engines.json was written" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*RTX, "--target", "sm_87"), "--backend tensorrt --target sm_87"),
        ((*RTX, "--target", "sm_89", "--target", "sm_90"), "H100"),
        ((*RTX, "--target", "sm_75"), "found bf16 for sm_75"),
        ((*RTX, "--target", "sm_1"), "unknown target 'sm_1'"),
        ((*RTX, "--target", "sm_89", "--workspace", "0"), "more than 0 GiB"),
        ((*RTX, "--target", "sm_89", "--workspace", "nan"), "found nan in --workspace"),
        (("--backend", "ort"), "invalid choice: 'ort'"),
        (("--target", "sm_89"), "--backend"),
    ],
    ids=str,
)
def test_build_refuses_what_it_cannot_do(call, bundle, tmp_path, words, said):
    status, _, text = call("build", bundle, *words, "--out", tmp_path)
    assert status == 2
    assert said in text
    assert list(tmp_path.iterdir()) == []


def test_no_bundle_is_refused(call, tmp_path):
    status, _, text = call("build", tmp_path / "none", *RTX, "--target", "sm_89")
    assert status == 2
    assert "no bundle at" in text


def test_help_needs_no_extra_and_shows_how(call):
    assert VERBS["build"][1] == "export,tensorrt-rtx"
    status, _, text = call("build", "--help")
    assert status == 0
    assert "memorywam build BUNDLE --backend tensorrt-rtx --target sm_89 --dry-run" in text

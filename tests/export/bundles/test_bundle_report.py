"""A report goes into the bundle with hashes; one that failed, or is of others, keeps it shut."""

import json
import logging

import pytest
from tests.fakes.bundles import TINY, copy_of, edit_manifest

from memorywam_export.bundles.bundle_report import record_bundle_parity
from memorywam_runtime import bundle as bundle_module
from memorywam_runtime import cli
from memorywam_runtime.bundle import check_bundle, open_bundle, read_manifest
from memorywam_runtime.errors import BundleError


def parity_of(manifest):
    assert manifest.parity is not None
    return manifest.parity


DATA = {"verdict": "ok", "worst": float("inf")}


def test_a_bundle_that_passed_opens_and_its_report_is_among_its_files(tiny_bundle, tmp_path):
    bundle = copy_of(tiny_bundle, tmp_path)
    before = read_manifest(bundle)
    manifest = record_bundle_parity(bundle, DATA, "<html></html>", passed=True)
    assert manifest == check_bundle(bundle)
    assert json.loads((bundle / parity_of(manifest).file).read_text())["worst"] == "inf"
    assert (bundle / parity_of(manifest).page).read_text() == "<html></html>"
    assert parity_of(manifest).sha256s == before.judged_files
    assert "weights.safetensors" in parity_of(manifest).sha256s
    assert parity_of(open_bundle(bundle).manifest).passed
    # Again: the report is not part of what it judges.
    again = record_bundle_parity(bundle, DATA, "", passed=True)
    assert parity_of(again).sha256s == before.judged_files


def test_a_bundle_that_failed_stays_shut_unless_asked(tiny_bundle, tmp_path, caplog):
    bundle = copy_of(tiny_bundle, tmp_path)
    record_bundle_parity(bundle, DATA, "", passed=False)
    with pytest.raises(BundleError, match=r"reports/parity.json says that checks failed"):
        open_bundle(bundle)
    open_bundle(bundle, allow_unverified=True)
    assert "opened unverified" in caplog.text
    assert cli.main(["bench", str(bundle), "--frames", "1", "--repeat", "1"]) == 2
    assert cli.main(["bench", str(bundle), "--frames", "1", "--repeat", "1",
                     "--allow-unverified"]) == 0  # fmt: skip


@pytest.mark.parametrize(
    ("passed", "said"), [(None, "none: run `memorywam verify`"), (True, "every check held"),
                         (False, "CHECKS FAILED")],
)  # fmt: skip
def test_inspect_says_what_was_found(tiny_bundle, tmp_path, capsys, passed, said):
    bundle = copy_of(tiny_bundle, tmp_path)
    if passed is not None:
        record_bundle_parity(bundle, DATA, "", passed=passed)
    assert cli.main(["inspect", str(bundle)]) == 0
    assert said in capsys.readouterr().out


def test_a_report_about_other_graphs_vouches_for_nothing(tiny_bundle, tmp_path):
    bundle = copy_of(tiny_bundle, tmp_path)
    record_bundle_parity(bundle, DATA, "", passed=True)

    def exchange(manifest):
        manifest["parity"]["sha256s"]["weights.safetensors"] = "0" * 64

    edit_manifest(bundle, exchange)
    with pytest.raises(BundleError, match="is about other graphs or weights"):
        open_bundle(bundle)


def test_a_report_that_was_edited_is_noticed(tiny_bundle, tmp_path):
    bundle = copy_of(tiny_bundle, tmp_path)
    manifest = record_bundle_parity(bundle, DATA, "", passed=True)
    path = bundle / parity_of(manifest).file
    path.write_text(path.read_text().replace("ok", "no"))
    with pytest.raises(BundleError, match=r"parity.json hashes to"):
        open_bundle(bundle)


def test_a_report_without_its_hash_is_refused(tiny_bundle, tmp_path):
    bundle = copy_of(tiny_bundle, tmp_path)
    manifest = record_bundle_parity(bundle, DATA, "", passed=True)
    edit_manifest(bundle, lambda found: found["files"].pop(parity_of(manifest).page))
    with pytest.raises(BundleError, match="without its hash"):
        check_bundle(bundle)


def test_a_bundle_that_nobody_verified_opens_and_says_so(tiny_bundle, caplog):
    bundle_module._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        open_bundle(tiny_bundle)
    assert "has not been verified: run `memorywam verify`" in caplog.text


def test_verify_writes_its_report_into_the_bundle(tiny_bundle, tmp_path, capsys):
    bundle = copy_of(tiny_bundle, tmp_path)
    words = ["verify", str(bundle), "--checkpoint", TINY, "--frames", "2", "--no-faults"]
    assert cli.main([*words, "--no-record"]) == 0
    assert read_manifest(bundle).parity is None
    assert cli.main(words) == 0
    assert "reports/parity.html" in capsys.readouterr().out
    report = parity_of(read_manifest(bundle))
    assert report.passed
    data = json.loads((bundle / report.file).read_text())
    assert data["frames"] == 2
    assert (bundle / report.page).read_text().lower().startswith("<!doctype html>")


def test_verify_of_a_bundle_with_other_weights_keeps_it_shut(tiny_bundle, tmp_path, capsys):
    bundle = copy_of(tiny_bundle, tmp_path)
    edit_manifest(bundle, lambda found: found["source"].update(checkpoint="random:tiny:1"))
    words = ["verify", str(bundle), "--checkpoint", "random:tiny:1", "--frames", "2"]
    assert cli.main(words) == 1
    assert "209 differ" in capsys.readouterr().out
    assert not parity_of(read_manifest(bundle)).passed
    with pytest.raises(BundleError, match="--allow-unverified"):
        open_bundle(bundle)


def test_an_instruction_may_come_later(tiny_bundle, tmp_path):
    """It brings a file of its own, which the report is not about."""
    import numpy as np

    from memorywam_export.text.prompts import add_prompt

    bundle = copy_of(tiny_bundle, tmp_path)
    record_bundle_parity(bundle, DATA, "", passed=True)
    width = read_manifest(bundle).contract.text_dim
    add_prompt(bundle, "pick it up", np.ones((3, width), np.float32), "test")
    assert open_bundle(bundle).manifest.prompt("pick it up") is not None

"""The page of a parity report shows its verdict, its curves and every check."""

import pytest
from tests.fakes.bundles import TINY

from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.verify.verify_page import page_from_verify
from memorywam_export.verify.verify_report import VerifyOptions, verify_bundle


@pytest.fixture(scope="module")
def data(tiny_bundle):
    options = VerifyOptions(num_frames=7)
    return verify_bundle(tiny_bundle, checkpoint_from_argument(TINY), options)[1]


def test_a_page_of_a_good_bundle(data):
    page = page_from_verify(data, extra=["<section>more</section>"])
    assert "every check holds" in page
    assert "What does not hold" not in page
    assert "<section>more</section>" in page
    for rung in ("graph fp64", "graph fp32"):
        assert page.count(f"<title>{rung}") > 7, rung  # a dot a frame, in three charts
    assert all(check["what"] in page for check in data["checks"] if "'" not in check["what"])
    assert "stale slot" in page
    assert "SQNR" in page


def test_a_page_names_what_was_compared_and_what_was_not(data):
    page = page_from_verify(data)
    assert f"checkpoint {TINY} " in page
    assert "Not looked at" not in page_from_verify({**data, "gaps": []})
    assert [gap.partition(": ")[0] for gap in data["gaps"]] == [
        "ring wrap (frame 8), gist bucket of 32 full (frame 32)"
    ]
    assert "<li>ring wrap (frame 8), gist" in page


def test_a_page_of_a_bad_one_says_what_does_not_hold_first(data):
    checks = [dict(check) for check in data["checks"]]
    checks[3] |= {"ok": False, "worst": "<b>here</b>"}
    page = page_from_verify({**data, "checks": checks})
    assert f"1 of {len(checks)} checks failed" in page
    assert page.index("What does not hold") < page.index("Actions, error by frame")
    assert "&lt;b&gt;here" in page


def test_a_page_of_another_contract_has_no_curves(data):
    kept = {"frames", "seed", "precision", "rewrites", "contract_hash", "bundle", "checkpoint"}
    short = {key: data[key] for key in (*kept, "checkpoint_sha256")}
    page = page_from_verify({**short, "checks": data["checks"][:1]})
    assert "<polyline" not in page
    assert "Every check" in page

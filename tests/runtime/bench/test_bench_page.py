"""The page of a bench is well-formed, needs nothing but itself, and tells what was measured."""

import json
from html.parser import HTMLParser

import pytest

from memorywam_runtime.bench.bench_page import page_from_bench
from memorywam_runtime.cli import main


class Reader(HTMLParser):
    """Refuses a tag that is not closed in its turn; keeps the text."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def measured(tiny_bundle, tmp_path_factory):
    """The document and the page of one measurement with everything in it."""
    folder = tmp_path_factory.mktemp("bench")
    words = ["--frames", "1,10,100", "--repeat", "2", "--threads", "1", "--against", "eager"]
    files = ["--json", str(folder / "bench.json"), "--plot", str(folder / "bench.html")]
    assert main(["bench", str(tiny_bundle), *words, *files]) == 0
    page = (folder / "bench.html").read_text(encoding="utf-8")
    return json.loads((folder / "bench.json").read_text())["data"], page


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return " ".join(reader.text)


def test_the_page_tells_what_was_measured(measured):
    data, page = measured
    text = read(page)
    assert "http" not in page
    assert "<script" not in page
    for arm in ("ort", "eager", "ort again", "full history"):
        assert arm in text
    for ratio in data["ratios"]:
        assert f"{ratio['low']:.3f} to {ratio['high']:.3f}" in text
    for title in ("Roofline", "From ten frames on", "Cold start", "Measured on"):
        assert title in text
    assert data["machine"]["cpu"] in text
    assert f"numpy {data['versions']['numpy']}" in text


def test_the_document_has_every_finding(measured):
    data, _ = measured
    assert list(data["arms"]) == ["ort", "eager", "ort again", "full history"]
    for name, arm in data["arms"].items():
        assert [fill["frames"] for fill in arm["by_frames"]] == [1, 10, 100]
        assert all(len(fill["ticks_ms"]) == 2 for fill in arm["by_frames"]), name
        assert arm["start_s"] > 0
        assert arm["open_s"] > 0
    assert data["peaks"]["flops_per_s"] > 0
    stages = {one["stage"] for one in data["roofline"] if one["arm"] == "ort"}
    assert {"cache_update", "action_step", "state_kv", "vae_first"} <= stages
    assert all(one["bound_ms"] > 0 for one in data["roofline"])
    shares = [one["share"] for one in data["outside"]]
    assert len(shares) == 9  # three arms with a session, three fills
    assert all(0 < share < 1 for share in shares)
    growth = {one["arm"]: one for one in data["growth"]}
    gists, whole = growth["ort"], growth["full history"]
    assert gists["rows"] == 96 * 2  # the bucket of 128 frames after that of 32, two gists a frame
    assert whole["rows"] == 90 * 6  # six visual tokens a frame
    assert whole["bytes"] / gists["bytes"] == pytest.approx(whole["rows"] / gists["rows"])
    assert gists["apart"] < gists["ratio"]


def test_a_page_of_one_arm_leaves_out_what_was_not_measured(measured):
    data, _ = measured
    alone = data | {"arms": {"ort": data["arms"]["ort"]}, "ratios": [], "roofline": []}
    text = read(page_from_bench(alone | {"growth": [], "peaks": None}))
    assert "Ratios" not in text
    assert "Roofline" not in text
    assert "eager" not in text

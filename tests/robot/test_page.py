"""The page is well-formed, complete and alone; its plots are drawn to scale."""

import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from memorywam_robot.page import page_from_report
from memorywam_robot.plots import Bar, Line, bar_chart, line_chart, ticks

VOID = {"meta", "img", "link", "br", "hr", "input"}
SVG = "{http://www.w3.org/2000/svg}"
REPORT = {
    "tasks": {
        "recall": {"episodes": 10, "success": 0.9, "success_torch": 1.0},
        "a < b": {"episodes": 10, "success": 0.3, "success_torch": 0.3},
    },
    "parity": {
        "ok": True,
        "checks": [
            {"rung": "onnx", "what": "actions, free-running", "max_abs": 3.5e-7,
             "tolerance": 1e-4, "worst": "", "ok": True},
            {"rung": "onnx", "what": "drift", "max_abs": "inf", "tolerance": None,
             "worst": "", "ok": False},
        ],
    },
    "stages_ms": {"chunk": {"p50": 4.25, "p99": 9.5}},
    "latency_ms_by_frame": {"vae_step": [[8, 2.0], [256, 3.0]], "chunk": [[1, 6.0], [256, 5.0]]},
    "rows_per_frame": {"in_full": 6, "as_gist": 4},
    "memory_bytes_by_frame": [[1, 1 << 20], [256, 3 << 20]],
    "memory_bytes_by_frame_keeping_everything": [[1, 1 << 20], [256, 8 << 20]],
    "complaints": [],
    "versions": {"python": "3.11.7", "onnxruntime": "1.31.1"},
}  # fmt: skip


class Reader(HTMLParser):
    """Refuses a tag that is not closed in its turn; keeps text and attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href", "xlink:href"}]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page(**changes):
    return page_from_report(
        REPORT | changes, film=b"RIFF", film_type="image/webp", film_caption="lamp & gist"
    )


def test_it_is_well_formed_and_says_what_was_found():
    reader = Reader()
    reader.feed(page())
    reader.close()
    assert reader.open == []
    text = " ".join(reader.text)
    for value in ("9/10", "10/10", "3/10", "a < b", "4.25", "9.50", "3.5e-07", "inf", "FAILED",
                  "1 of 2", "every check holds", "onnxruntime 1.31.1", "20 episodes"):  # fmt: skip
        assert value in text, value


def test_it_needs_nothing_but_itself():
    html = page()
    reader = Reader()
    reader.feed(html)
    assert reader.links == ["data:image/webp;base64," + base64.b64encode(b"RIFF").decode()]
    assert "http" not in html
    assert "url(" not in html
    assert "<script" not in html


def test_what_fails_is_said_first():
    html = page(complaints=["recall: 20% & 90%"])
    assert "a check failed" in html
    assert "recall: 20% &amp; 90%" in html
    assert "every check holds" not in html


def drawing(svg):
    return ElementTree.fromstring(svg)


def test_bars_are_to_scale():
    chart = drawing(
        bar_chart(
            "t",
            ("ONNX Runtime", "torch"),
            [("x & y", [Bar(value=1.0, text="10/10"), Bar(value=0.5, text="5/10")])],
            y_label="share",
            top=1.0,
        )
    )
    bars = [bar for bar in chart.iter("rect") if bar.find("title") is not None]
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights[0] == pytest.approx(2 * heights[1], rel=1e-3)
    floors = {round(float(bar.attrib["y"]) + float(bar.attrib["height"]), 1) for bar in bars}
    assert len(floors) == 1
    labels = [text.text for text in chart.iter("text")]
    for label in ("10/10", "5/10", "x & y", "ONNX Runtime", "torch", "share", "0", "1"):
        assert label in labels


def test_lines_are_to_scale():
    line = Line(name="kept", points=[(0, 0), (50, 5), (100, 10)])
    chart = drawing(line_chart("t", [line], x_label="frames", y_label="MiB"))
    (polyline,) = chart.iter("polyline")
    points = [tuple(map(float, pair.split(","))) for pair in polyline.attrib["points"].split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert (x0 + x2) / 2 == pytest.approx(x1, abs=0.1)
    assert (y0 + y2) / 2 == pytest.approx(y1, abs=0.1)
    assert y2 < y0  # up is more
    _, _, width, height = map(float, chart.attrib["viewBox"].split())
    for x, y in points:
        assert 0 <= x <= width
        assert 0 <= y <= height


@pytest.mark.parametrize(
    ("top", "expected"),
    [(1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (8.36, [0, 2, 4, 6, 8, 10]), (0.0, [0, 1]), (3e-3, None)],
)
def test_marks_are_round_and_reach_the_top(top, expected):
    marks = ticks(top)
    if expected is not None:
        assert marks == pytest.approx(expected)
    assert marks[-1] >= top
    assert len(marks) <= 7
    assert all(re.fullmatch(r"[0-9.e-]{1,6}", f"{mark:g}") for mark in marks)


def test_charts_of_nothing_do_not_break():
    drawing(line_chart("t", [], x_label="x", y_label="y"))
    drawing(line_chart("t", [Line(name="n", points=[(1, 0.0)])], x_label="x", y_label="y"))
    drawing(bar_chart("t", (), [], y_label="y", top=1.0))

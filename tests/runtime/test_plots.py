"""Bars and lines are drawn to scale."""

import re
from xml.etree import ElementTree

import pytest

from memorywam_runtime.plots import Bar, Line, bar_chart, line_chart, ticks


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


def test_logarithms_are_to_scale_and_have_a_dot_for_each_point():
    line = Line(name="a < b", points=[(0, 5), (1, 2), (10, 20), (100, 200)])
    chart = drawing(line_chart("t", [line], x_label="frames", y_label="ms", log=True))
    (polyline,) = chart.iter("polyline")
    points = [tuple(map(float, pair.split(","))) for pair in polyline.attrib["points"].split()]
    (x0, y0), (x1, y1), (x2, y2) = points  # 0 has no logarithm
    assert (x0 + x2) / 2 == pytest.approx(x1, abs=0.1)
    assert (y0 + y2) / 2 == pytest.approx(y1, abs=0.1)
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in chart.iter("circle")]
    assert dots == points
    labels = [text.text for text in chart.iter("text")]
    assert {"1", "10", "100", "200"} <= set(labels)


def test_a_short_logarithmic_axis_has_marks_between_powers_of_ten():
    line = Line(name="n", points=[(12, 3.0), (48, 4.5)])
    chart = drawing(line_chart("t", [line], x_label="x", y_label="y", log=True))
    labels = {text.text for text in chart.iter("text")}
    assert {"10", "20"} <= labels  # 50 lies beyond the last point
    assert {"2", "5"} <= labels

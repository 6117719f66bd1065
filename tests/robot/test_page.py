"""The page is well-formed, complete and alone."""

import base64
from html.parser import HTMLParser

from memorywam_robot.page import page_from_report

VOID = {"meta", "img", "link", "br", "hr", "input"}
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

"""One HTML page that needs nothing but itself: its frame, its cards, its tables."""

from collections.abc import Sequence
from html import escape

__all__ = ["COLOURS", "document", "remark", "section", "table"]

COLOURS = 8
"""Of bars and lines: classes `fill0`, `line0` and so on."""
_STYLE = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #ffffff; --ink: #1c2128;
  --soft: #5b6472; --rule: #dfe3e8; --good: #1a7f37; --bad: #c62828;
  --c0: #2f6fdf; --c1: #e08a1e; --c2: #2a9d6f; --c3: #a259c4; --c4: #d0496b; --c5: #5f7a8c;
  --c6: #8a7a1f; --c7: #00838f; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --card: #1d2127; --ink: #e7eaee;
  --soft: #9aa4b1; --rule: #333a43; --good: #4cc36b; --bad: #ff7b72;
  --c0: #6ea8fe; --c1: #f0a64a; --c2: #4fc796; --c3: #c58be0; --c4: #f0809b; --c5: #9db4c3;
  --c6: #d6c65a; --c7: #4dd0e1; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 48px; }
h1 { font-size: 1.7rem; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 1.05rem; margin: 0 0 2px; }
p { margin: 0 0 12px; } .soft, figcaption { color: var(--soft); font-size: 0.9rem; }
.verdict { display: inline-block; padding: 3px 12px; border-radius: 999px; font-weight: 600;
  font-size: 0.9rem; color: var(--card); background: var(--good); margin: 10px 0 6px; }
.verdict.bad { background: var(--bad); color: var(--card); }
.cards { display: grid; gap: 18px; margin-top: 18px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 12px;
  padding: 18px 20px; overflow-x: auto; }
section.wide { grid-column: 1 / -1; }
figure { margin: 0; } img { width: 100%; max-width: 628px; height: auto; border-radius: 8px;
  display: block; margin: 0 auto 8px; } figcaption { text-align: center; }
svg { width: 100%; height: auto; display: block; margin-top: 8px; }
svg text { font-size: 13px; fill: var(--soft); }
svg text.value { fill: var(--ink); font-weight: 600; }
.grid { stroke: var(--rule); stroke-width: 1; fill: none; }
polyline { fill: none; stroke-width: 2.5; stroke-linejoin: round; stroke-linecap: round; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; margin-top: 8px;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 500; } td.number, th.number { text-align: right; }
summary { cursor: pointer; color: var(--soft); font-size: 0.9rem; margin-top: 10px; }
tr:last-child td { border-bottom: 0; } .good { color: var(--good); } .bad { color: var(--bad); }
"""
_BY_NUMBER = "".join(
    f".fill{i} {{ fill: var(--c{i}); }} .line{i} {{ stroke: var(--c{i}); }}\n"
    for i in range(COLOURS)
)


def document(title: str, body: str) -> str:
    """Return the page as HTML.

    Args:
        title: Of the window.
        body: HTML, with cards in a `<div class="cards">`.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}{_BY_NUMBER}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""


def section(title: str, body: str, *, wide: bool = False) -> str:
    """Return one card."""
    kind = ' class="wide"' if wide else ""
    return f"<section{kind}><h2>{escape(title)}</h2>\n{body}</section>"


def remark(text: str) -> str:
    """Return a paragraph that explains, in soft ink; escaped."""
    return f'<p class="soft">{escape(text)}</p>'


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; columns of figures, but for the first, stand to the right."""
    kinds = [
        ' class="number"' if column and all(_is_figure(row[column]) for row in rows) else ""
        for column in range(len(headers))
    ]

    def line(tag: str, cells: Sequence[object]) -> str:
        inner = "".join(
            f"<{tag}{kind}>{escape(str(cell))}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{inner}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return f"<table><thead>{line('th', headers)}</thead><tbody>{body}</tbody></table>"


def _is_figure(cell: object) -> bool:
    """Is a cell a number, with whatever unit or range behind it, or empty?"""
    text = str(cell).lstrip("+-")
    return not text or text[0].isdigit() or text in ("inf", "nan")

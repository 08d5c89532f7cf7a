"""Summaries as HTML, for notebooks."""

from __future__ import annotations

from html import escape

from l2view.display.summary import Summary
from l2view.display.svg import map_svg

CELL = 'style="text-align:left;padding:1px 10px 1px 0;vertical-align:top"'
ONE_LINE = 'style="text-align:left;padding:1px 10px 1px 0;white-space:nowrap"'


def summary_html(summary: Summary) -> str:
    """Return a summary as HTML, with a map of its footprints."""
    facts = "".join(
        f"<tr><th {CELL}>{escape(name)}</th><td {CELL}>{_lines(value)}</td></tr>"
        for name, value in summary.facts.items()
    )
    head = "".join(f"<th {CELL}>{escape(name)}</th>" for name in summary.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td {ONE_LINE}>{escape(text)}</td>" for text in row) + "</tr>"
        for row in summary.rows
    )
    footprints = ""
    if len(summary.footprints):
        map_of_all = map_svg(summary.footprints, "Map of the footprints")
        footprints = f"<div>{map_of_all}<div><small>{escape(summary.map_note)}</small></div></div>"
    return (
        f'<div class="l2view"><div><strong>l2view {escape(summary.title)}</strong></div>'
        '<div style="display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start">'
        f"<table>{facts}</table>{footprints}</div>"
        '<div style="overflow-x:auto">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></div>"
    )


def _lines(value: str) -> str:
    return "<br>".join(escape(line) for line in value.split("\n"))

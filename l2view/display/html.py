"""Collections and views as HTML, for notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from l2view.display.summary import Summary
from l2view.display.svg import map_svg
from l2view.display.text import collection_summary, view_summary

if TYPE_CHECKING:
    from l2view.collection import Collection
    from l2view.view import View

CELL = 'style="text-align:left;padding:1px 10px 1px 0;vertical-align:top"'
ONE_LINE = 'style="text-align:left;padding:1px 10px 1px 0;white-space:nowrap"'


def view_html(view: View) -> str:
    """Return a view as HTML."""
    return _html(view_summary(view))


def collection_html(collection: Collection) -> str:
    """Return a collection as HTML."""
    return _html(collection_summary(collection))


def _html(summary: Summary) -> str:
    facts = "".join(
        f"<tr><th {CELL}>{escape(name)}</th><td {CELL}>{_lines(value)}</td></tr>"
        for name, value in summary.facts.items()
    )
    head = "".join(f"<th {CELL}>{escape(name)}</th>" for name in summary.names)
    rows = "".join(
        "<tr>" + "".join(f"<td {ONE_LINE}>{escape(text)}</td>" for text in row) + "</tr>"
        for row in summary.rows
    )
    footprints = ""
    if len(summary.footprints):
        drawn = f"<div><small>{escape(summary.drawn)}</small></div>" if summary.drawn else ""
        footprints = f"<div>{map_svg(summary.footprints, 'Map of the footprints')}{drawn}</div>"
    return (
        f'<div class="l2view"><div><strong>l2view {escape(summary.title)}</strong></div>'
        '<div style="display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start">'
        f"<table>{facts}</table>{footprints}</div>"
        '<div style="overflow-x:auto">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></div>"
    )


def _lines(value: str) -> str:
    return "<br>".join(escape(line) for line in value.split("\n"))

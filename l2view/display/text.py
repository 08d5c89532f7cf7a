"""Summaries as text."""

from __future__ import annotations

from l2view.display.summary import Summary


def summary_text(summary: Summary) -> str:
    """Return a summary as text, one fact a line."""
    width = max(len(name) for name in summary.facts)
    lines = [f"<l2view {summary.title}>"]
    for name, value in summary.facts.items():
        head, *continuation = value.split("\n")
        lines.append(f"  {name:<{width}}  {head}")
        lines.extend(f"  {'':<{width}}  {line}" for line in continuation)
    return "\n".join(lines)

"""How far something is: a bar where people look, or a call of the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

type ReportProgress = Callable[[int, int], None]
"""Called with how much is done, and how much there is."""


def progress_bar(console: Console, text: str) -> Progress:
    """Return a bar with how much is done, a text, and the time that it takes."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(text),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def is_watched(console: Console) -> bool:
    """Whether people see what is drawn on a console: it is a terminal or a notebook."""
    return console.is_terminal or console.is_jupyter


@contextmanager
def show_progress(progress: bool | ReportProgress, unit: str) -> Iterator[ReportProgress]:
    """Give a function that reports progress: to a bar where people see it, or to `progress`."""
    if callable(progress):
        yield progress
        return
    console = Console(stderr=True)
    if not progress or not is_watched(console):
        yield lambda done, total: None
        return
    with progress_bar(console, unit) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

"""How far an export is: a bar where people look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from l2view.ingest.progress import bar_on

type Tell = Callable[[int, int], None]
"""Called with how much is done, and how much there is."""


@contextmanager
def told(progress: bool | Tell, what: str) -> Iterator[Tell]:
    """Give what is told of the progress.

    Parameters
    ----------
    progress
        Whether to draw a bar; or what is told instead.
    what
        What is counted.
    """
    if callable(progress):
        yield progress
        return
    console = Console(stderr=True)
    if not progress or not (console.is_terminal or console.is_jupyter):
        yield lambda done, total: None
        return
    with bar_on(console, what) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

"""How far an ingest is: a bar with its rate, the bytes referred to, and the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

from rich.console import Console
from rich.filesize import decimal

from l2view.ingest.report import IngestReport
from l2view.progress import is_watched, progress_bar

type Show = Callable[[IngestReport], None]
"""Shows a report as granules come in."""


@contextmanager
def show_ingest(progress: bool | Show, count: Callable[[], int | None]) -> Iterator[Show]:
    """Give what shows a report: the caller's function, a bar, or nothing where nobody looks.

    `count` returns how many granules there are, None where that can't be told. It is called in a
    thread, as the ingest goes on.
    """
    console = Console(stderr=True)
    if callable(progress):
        yield progress
    elif not progress or not is_watched(console):
        yield lambda report: None
    else:
        with progress_bar(console, "{task.description}") as bar:
            task = bar.add_task("looking for granules", total=None)
            Thread(target=lambda: bar.update(task, total=count()), daemon=True).start()

            def show(report: IngestReport) -> None:
                done = report.parsed + report.skipped.count + report.failures
                text = (
                    f"{report.added.count + report.replaced.count:,} written, "
                    f"{decimal(report.bytes)}, {bar.tasks[0].speed or 0:,.0f}/s"
                )
                if report.failures:
                    text += f", {report.failures:,} failed"
                if report.indexing:
                    text += f"; {report.indexing}"
                bar.update(task, completed=done, description=text)

            yield show

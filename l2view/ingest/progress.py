"""How far an ingest is: a bar with its rate, the bytes referred to, and the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

from rich.console import Console
from rich.filesize import decimal

from l2view.ingest.report import IngestReport
from l2view.progress import is_watched, progress_bar


@contextmanager
def progress_bar_of(
    count: Callable[[], int | None], console: Console
) -> Iterator[Callable[[IngestReport], None]]:
    """Give what shows a report as a bar; nothing is drawn where there is no terminal.

    Parameters
    ----------
    count
        Returns how many granules there are, None where that can't be told. It is called in a
        thread, as the ingest goes on.
    console
        Where to draw.
    """
    if not is_watched(console):
        yield lambda report: None
        return
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

"""``l2view ingest``: files into a collection, without copying them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from l2view.cli import options
from l2view.errors import L2ViewError

if TYPE_CHECKING:
    from l2view.ingest.report import IngestReport


def ingest(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, prefixes or globs, paths or URLs; or STAC or CMR records."
        ),
    ],
    store: Annotated[
        str, typer.Option("--store", "-s", help="The repository; it is made where there is none.")
    ],
    on_conflict: Annotated[
        str, typer.Option(help="A granule that is there already: skip, replace or error.")
    ] = "skip",
    collection: Annotated[str | None, typer.Option(help="The field collection.")] = None,
    default: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="A field of granules that don't say, such as datetime."
        ),
    ] = None,
    parallel: Annotated[
        str, typer.Option(help="Processes that parse, or: threads, dask, lithops.")
    ] = "1",
    batch: Annotated[int, typer.Option(min=1, help="The granules in a commit.")] = 1000,
    layout: Annotated[
        str | None,
        typer.Option(help="packed (by product version, the default) or groups (one a granule)."),
    ] = None,
    load_below: Annotated[
        int,
        typer.Option(min=0, help="The most bytes of an array to copy that can't be referred to."),
    ] = 2**20,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Parse, say what would be written, write nothing.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first that fails.")] = False,
    branch: Annotated[str, typer.Option(help="The branch to commit to.")] = "main",
) -> None:
    """Add granules to a collection, without copying their data.

    Run again, it goes on where it ended. The exit code is 1 where a granule was left out.
    """
    from l2view.ingest.pipeline import ingest as run

    with shown(files) as show:
        report = run(
            files,
            store,
            on_conflict=on_conflict,  # type: ignore[arg-type]
            collection=collection,
            defaults=options.params(default, "--default"),
            parallel=int(parallel) if parallel.isdigit() else parallel,
            batch=batch,
            strict=strict,
            branch=branch,
            layout=layout,  # type: ignore[arg-type]
            load_below=load_below,
            dry_run=dry_run,
            progress=show,
        )
    typer.echo(str(report))
    if report.failures:
        raise typer.Exit(1)


@contextmanager
def shown(files: list[str]) -> Iterator[Callable[[IngestReport], None] | None]:
    """Give what shows a report as a bar with rate, bytes and time left; None off a terminal."""
    errors = Console(stderr=True)
    if not errors.is_terminal:
        yield None
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("looking for granules", total=None)
        counting = Thread(
            target=lambda: bar.update(task, total=_count(files)), name="count", daemon=True
        )
        counting.start()

        def show(report: IngestReport) -> None:
            done = report.parsed + report.skipped.count + report.failures
            speed = bar.tasks[0].speed or 0.0
            written = report.added.count + report.replaced.count
            text = f"{written:,} written, {decimal(report.bytes)}, {speed:,.0f}/s"
            if report.failures:
                text += f", {report.failures:,} failed"
            bar.update(task, completed=done, description=text)

        yield show


def _count(files: list[str]) -> int | None:
    """Return how many granules there are, None where that can't be told."""
    from l2view.ingest.entries import entries_of

    try:
        return sum(1 for _ in entries_of(files))
    except L2ViewError:  # which the ingest itself says
        return None

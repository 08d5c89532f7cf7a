"""``l2view ingest``: files into a collection, without copying them."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from l2view.cli import options


def ingest(
    files: Annotated[
        list[str], typer.Argument(help="Files, folders, prefixes or globs; paths or URLs.")
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
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first that fails.")] = False,
    branch: Annotated[str, typer.Option(help="The branch to commit to.")] = "main",
) -> None:
    """Add granules to a collection, without copying their data.

    Run again, it goes on where it ended. The exit code is 1 where a granule was left out.
    """
    from l2view.ingest.pipeline import ingest as run
    from l2view.ingest.report import IngestReport

    errors = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("ingesting", total=None)

        def show(report: IngestReport) -> None:
            done = report.added.count + report.replaced.count
            size = f"{report.bytes / 1e9:.1f} GB referred to"
            bar.update(task, description=f"{done:,} written, {report.failures:,} failed, {size}")

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
            progress=show,
        )
    typer.echo(str(report))
    if report.failures:
        raise typer.Exit(1)

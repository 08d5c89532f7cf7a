"""``l2view ingest``: files into a collection, without copying them."""

from __future__ import annotations

from typing import Annotated

import typer

from l2view.api import ingest
from l2view.cli.options import parse_assignments


def ingest_files(
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
    storage: Annotated[
        str | None,
        typer.Option(help="packed (by product version, the default) or groups (one a granule)."),
    ] = None,
    inline_threshold: Annotated[
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
    report = ingest(
        files,
        store,
        on_conflict=on_conflict,  # type: ignore[arg-type]
        collection=collection,
        defaults=parse_assignments(default, "--default"),
        parallel=int(parallel) if parallel.isdigit() else parallel,
        batch=batch,
        strict=strict,
        branch=branch,
        storage=storage,  # type: ignore[arg-type]
        inline_threshold=inline_threshold,
        dry_run=dry_run,
        progress=True,
    )
    typer.echo(str(report))
    if report.failures:
        raise typer.Exit(1)

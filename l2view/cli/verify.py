"""``l2view verify``: the files that changed since they were referred to, or are gone."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.progress import Progress

from l2view.cli.options import SearchOptions, StoreOptions, with_options
from l2view.virtual.verify import verify_granules


@with_options
def verify_files(source: StoreOptions, search: SearchOptions) -> None:
    """Find granules whose files changed since ingest, or are missing.

    The exit code is 1 if there are any.
    """
    view = source.open().open(search.query(), fields=["id"])
    console = Console(stderr=True)
    stale = 0
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("looking at files", total=len(view.names))
        for name, reason in verify_granules(view.view_store.tree):
            progress.advance(task)
            if reason is not None:
                stale += 1
                typer.echo(f"{name}: {reason}")
    typer.echo(f"{stale:,} of {len(view.names):,} granules have files that changed or are missing")
    if stale:
        raise typer.Exit(1)

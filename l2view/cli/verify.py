"""``l2view verify``: the files that changed since they were referred to, or are gone."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.progress import Progress

from l2view.cli import options
from l2view.collection import Collection
from l2view.virtual.verify import verify as verified


def verify(
    store: options.Store,
    where: options.Where = None,
    param: options.Params = None,
    branch: options.Branch = None,
    authorize: options.Authorized = None,
) -> None:
    """Find granules whose files changed since they were ingested, or are gone.

    The exit code is 1 where there are any.
    """
    collection = Collection(store, branch=branch, authorize=authorize or None)
    view = collection.open(where, params=options.params(param) or None, fields=["id"])
    errors = Console(stderr=True)
    found = 0
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("looking at files", total=len(view.names))
        for name, reason in verified(view.view_store):
            progress.advance(task)
            if reason is not None:
                found += 1
                typer.echo(f"{name}: {reason}")
    typer.echo(f"{found:,} of {len(view.names):,} granules have files that changed or are gone")
    if found:
        raise typer.Exit(1)

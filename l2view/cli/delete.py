"""``l2view delete``: granules out of every search."""

from __future__ import annotations

from typing import Annotated

import typer

from l2view.cli import options
from l2view.collection import Collection


def delete(
    store: options.Store,
    where: Annotated[str, typer.Option(help="One SQL condition: the granules to delete.")],
    param: options.Params = None,
    branch: options.Branch = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete granules from a collection in one commit. The past still has them."""
    collection = Collection(store, branch=branch)
    params = options.params(param) or None
    count = collection.search(where, params=params, fields=[]).num_rows
    if count and not yes:
        typer.confirm(f"Delete {count:,} of {len(collection):,} granules?", abort=True, err=True)
    typer.echo(f"{collection.delete(where, params=params):,} granules deleted")

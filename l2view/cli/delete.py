"""``l2view delete``: granules out of every search."""

from __future__ import annotations

from typing import Annotated

import typer

from l2view.cli.options import SearchOptions, StoreOptions, with_options


@with_options
def delete_granules(
    source: StoreOptions,
    search: SearchOptions,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete matching granules from a collection in one commit. Earlier snapshots keep them."""
    query = search.query()
    if not query.has_conditions:
        raise typer.BadParameter(
            "name the granules to delete, all by --where true", param_hint="--where, --bbox, …"
        )
    collection = source.open(authorize=False)
    count = collection.search(query, fields=[]).num_rows
    if count and not yes:
        typer.confirm(f"Delete {count:,} of {len(collection):,} granules?", abort=True, err=True)
    typer.echo(f"{collection.delete(query):,} granules deleted")

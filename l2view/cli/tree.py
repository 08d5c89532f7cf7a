"""``l2view tree``: the groups and arrays of the granules that match."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console

from l2view.cli.options import SearchOptions, StoreOptions, with_options

MAX_NODES = 10_000
"""The most groups and arrays that are shown."""

MAX_GRANULES = 10
"""The most granules that are shown, without --limit."""


@with_options
def show_tree(
    source: StoreOptions,
    search: SearchOptions,
    variables: Annotated[
        list[str] | None, typer.Option(help="A glob for the arrays to show. Repeatable.")
    ] = None,
) -> None:
    """Show the groups and arrays of matching granules, of the first 10 without --limit."""
    # A tree is made of metadata: no chunk is read.
    collection = source.open(authorize=False)
    limit = MAX_GRANULES if search.limit is None else search.limit
    query = replace(search.query(), limit=limit + 1)
    view = collection.open(query, variables=variables or None)
    typer.echo(view.head(limit).tree(max_nodes=MAX_NODES))
    if len(view.names) > limit:
        Console(stderr=True).print(f"the first {limit} granules; --limit shows more")

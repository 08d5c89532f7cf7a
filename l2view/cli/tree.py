"""``l2view tree``: the groups and arrays of the granules that match."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from l2view.cli import options
from l2view.collection import Collection


def tree(
    store: options.Store,
    where: options.Where = None,
    param: options.Params = None,
    bbox: options.BBox = None,
    datetime: options.Datetime = None,
    ids: options.Ids = None,
    variables: Annotated[
        list[str] | None, typer.Option(help="A glob for the arrays to show. Repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="The most granules.")] = 10,
    branch: options.Branch = None,
    tag: options.Tag = None,
    snapshot: options.Snapshot = None,
    group: options.Group = "meta",
) -> None:
    """Show the groups and arrays of the granules that match."""
    # A tree is made of metadata: no chunk is read, so none has to be authorised.
    collection = Collection(
        store, branch=branch, tag=tag, snapshot=snapshot, group=group, authorize=False
    )
    view = collection.open(
        where,
        params=options.params(param) or None,
        bbox=options.bbox(bbox),
        datetime=datetime,
        ids=ids or None,
        variables=variables or None,
        limit=limit,
    )
    typer.echo(view.tree())
    if len(view.table) == limit:
        Console(stderr=True).print(f"the first {limit} granules; --limit shows more")

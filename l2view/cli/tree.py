"""``l2view tree``: the groups and arrays of the granules that match."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from l2view.cli import options
from l2view.collection import Collection

NODES = 10_000
"""The most groups and arrays that are shown."""


def tree(
    store: options.Store,
    where: options.Where = None,
    param: options.Params = None,
    bbox: options.BBox = None,
    intersects: options.Intersects = None,
    datetime: options.Datetime = None,
    ids: options.Ids = None,
    variables: Annotated[
        list[str] | None, typer.Option(help="A glob for the arrays to show. Repeatable.")
    ] = None,
    order_by: options.OrderBy = None,
    limit: Annotated[int, typer.Option(min=0, help="The most granules.")] = 10,
    branch: options.Branch = None,
    tag: options.Tag = None,
    snapshot: options.Snapshot = None,
    group: options.Group = "meta",
    location: options.Location = None,
    geometry_field: options.GeometryField = None,
    time_field: options.TimeField = None,
) -> None:
    """Show the groups and arrays of the granules that match."""
    collection = Collection(
        store,
        branch=branch,
        tag=tag,
        snapshot=snapshot,
        group=group,
        location=location,
        geometry_field=geometry_field,
        time_field=time_field,
        authorize=False,  # a tree is made of metadata: no chunk is read
    )
    view = collection.open(
        where,
        params=options.params(param) or None,
        bbox=options.bbox(bbox),
        intersects=intersects,
        datetime=datetime,
        ids=ids or None,
        variables=variables or None,
        order_by=order_by,
        limit=limit + 1,
    )
    typer.echo(view.head(limit).tree(max_nodes=NODES))
    if len(view.table) > limit:
        Console(stderr=True).print(f"the first {limit} granules; --limit shows more")

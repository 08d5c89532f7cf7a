"""``l2view search``: the rows of the granules that match."""

from __future__ import annotations

from typing import Annotated

import typer

from l2view.cli import options
from l2view.cli.output import AsFormat, Format, Output, write
from l2view.collection import Collection


def search(
    store: options.Store,
    where: options.Where = None,
    param: options.Params = None,
    bbox: options.BBox = None,
    intersects: options.Intersects = None,
    datetime: options.Datetime = None,
    ids: options.Ids = None,
    fields: Annotated[
        str | None, typer.Option(help="The fields to write, with commas between. All by default.")
    ] = None,
    order_by: options.OrderBy = None,
    limit: Annotated[int | None, typer.Option(min=0, help="The most granules.")] = None,
    form: AsFormat = Format.table,
    output: Output = None,
    branch: options.Branch = None,
    tag: options.Tag = None,
    snapshot: options.Snapshot = None,
    group: options.Group = "meta",
) -> None:
    """Find granules and write their rows. Conditions are combined with AND."""
    collection = Collection(store, branch=branch, tag=tag, snapshot=snapshot, group=group)
    found = collection.search(
        where,
        params=options.params(param) or None,
        bbox=options.bbox(bbox),
        intersects=intersects,
        datetime=datetime,
        ids=ids or None,
        fields=None if fields is None else [name.strip() for name in fields.split(",")],
        order_by=order_by,
        limit=limit,
    )
    write(found, form, output)

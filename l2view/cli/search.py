"""``l2view search``: the rows of the granules that match."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from l2view.cli import options
from l2view.cli.output import AsFormat, Format, Output, format_of, write
from l2view.collection import Collection


def search(
    store: options.Store,
    where: options.Where = None,
    param: options.Params = None,
    bbox: options.BBox = None,
    intersects: options.Intersects = None,
    datetime: options.Datetime = None,
    ids: options.Ids = None,
    fields: options.Fields = None,
    order_by: options.OrderBy = None,
    limit: Annotated[int | None, typer.Option(min=0, help="The most granules.")] = None,
    form: AsFormat = None,
    output: Output = None,
    branch: options.Branch = None,
    tag: options.Tag = None,
    snapshot: options.Snapshot = None,
    group: options.Group = "meta",
    geometry_field: options.GeometryField = None,
    time_field: options.TimeField = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Write what the search cost, and no rows.")
    ] = False,
) -> None:
    """Find granules and write their rows. Conditions are combined with AND."""
    collection = Collection(
        store,
        branch=branch,
        tag=tag,
        snapshot=snapshot,
        group=group,
        geometry_field=geometry_field,
        time_field=time_field,
    )
    form = format_of(form, output)
    asked: dict[str, Any] = {
        "params": options.params(param) or None,
        "bbox": options.bbox(bbox),
        "intersects": intersects,
        "datetime": datetime,
        "ids": ids or None,
        "fields": _shown(collection, options.fields(fields), form),
        "order_by": order_by,
        "limit": limit,
    }
    if explain:
        typer.echo(str(collection.explain(where, **asked)))
    else:
        write(collection.search(where, **asked), form, output)


def _shown(collection: Collection, asked: list[str] | None, form: Format) -> list[str] | None:
    """Return the fields to write: an outline is for maps, and too long for a table."""
    outlines = collection.geometry_fields
    if form is Format.geojson and asked is not None:
        return asked if set(asked) & set(outlines) else [*asked, *outlines[:1]]
    if form is Format.table and asked is None:
        return [name for name in collection.schema.names if name not in outlines]
    return asked

"""``l2view sql``: any query that reads."""

from __future__ import annotations

from typing import Annotated

import typer

from l2view.cli import options
from l2view.cli.output import AsFormat, Output, format_of, write
from l2view.collection import Collection


def sql(
    store: options.Store,
    query: Annotated[str, typer.Argument(help="A query over the table meta.")],
    param: options.Params = None,
    form: AsFormat = None,
    output: Output = None,
    branch: options.Branch = None,
    tag: options.Tag = None,
    snapshot: options.Snapshot = None,
    group: options.Group = "meta",
    geometry_field: options.GeometryField = None,
) -> None:
    """Run an SQL query over the table meta and write its rows."""
    collection = Collection(
        store,
        branch=branch,
        tag=tag,
        snapshot=snapshot,
        group=group,
        geometry_field=geometry_field,
    )
    session = collection.session()
    with session.explained():
        found = session.run(query, options.params(param)).to_arrow_table()
    write(found, format_of(form, output), output)

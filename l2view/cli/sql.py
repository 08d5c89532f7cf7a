"""``l2view sql``: any query that reads."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from l2view.api import session_of
from l2view.cells.scan import MAX_CELLS
from l2view.cli import options
from l2view.cli.output import AsFormat, Output, format_of, write


def sql(
    store: options.Store,
    query: Annotated[
        str,
        typer.Argument(
            help="A query over the table meta, and over zarr_groups(), zarr_arrays(), "
            "zarr_chunks(), zarr_cells('path') and cells('variable', where => …)."
        ),
    ],
    param: options.Params = None,
    form: AsFormat = None,
    output: Output = None,
    branch: options.Branch = None,
    tag: options.Tag = None,
    snapshot: options.Snapshot = None,
    group: options.Group = "meta",
    location: options.Location = None,
    geometry_field: options.GeometryField = None,
    time_field: options.TimeField = None,
    authorize: options.Authorized = None,
    allow_store: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX",
            help="A path or URL at and below which the query may read other stores. Repeatable.",
        ),
    ] = None,
    max_cells: Annotated[
        int, typer.Option(min=0, help="A query that goes through more cells is an error.")
    ] = MAX_CELLS,
) -> None:
    """Run an SQL query over the table meta and the arrays of a store, and write its rows."""
    session = session_of(
        store,
        branch=branch,
        tag=tag,
        snapshot=snapshot,
        group=group,
        location=location,
        geometry_field=geometry_field,
        time_field=time_field,
        authorize=authorize or None,
        allow_stores=allow_store or False,
        max_cells=max_cells,
    )
    with session.explained(), Console(stderr=True).status("reading"):
        found = session.run(query, options.params(param)).to_arrow_table()
    write(found, format_of(form, output), output)

"""``l2view sql``: any query that reads."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from l2view.api import open_session
from l2view.cells.scan import MAX_CELLS
from l2view.cli.options import Params, StoreOptions, parse_assignments, with_options
from l2view.cli.output import AsFormat, Output, choose_format, write_table


@with_options
def run_sql(
    source: StoreOptions,
    query: Annotated[
        str,
        typer.Argument(
            help="A query over the table meta, and over zarr_groups(), zarr_arrays(), "
            "zarr_chunks(), zarr_cells('path') and cells('variable', where => …)."
        ),
    ],
    param: Params = None,
    form: AsFormat = None,
    output: Output = None,
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
    session = open_session(
        source.store, source.source(), allow_stores=allow_store or False, max_cells=max_cells
    )
    with Console(stderr=True).status("reading"):
        table = session.read(query, parse_assignments(param))
    write_table(table, choose_format(form, output), output)

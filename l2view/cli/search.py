"""``l2view search``: the rows of the granules that match."""

from __future__ import annotations

from typing import Annotated

import typer

from l2view.cli.options import SearchOptions, StoreOptions, split_names, with_options
from l2view.cli.output import AsFormat, Output, OutputFormat, choose_format, write_table
from l2view.collection import Collection


@with_options
def search_granules(
    source: StoreOptions,
    search: SearchOptions,
    fields: Annotated[
        list[str] | None,
        typer.Option(help="The fields to write, with commas between, or repeated; else all."),
    ] = None,
    form: AsFormat = None,
    output: Output = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Write what the search cost, and no rows.")
    ] = False,
) -> None:
    """Find granules and write their rows. Conditions are combined with AND."""
    collection = source.open(authorize=False)
    form = choose_format(form, output)
    names = _fields_to_write(collection, split_names(fields), form)
    if explain:
        typer.echo(str(collection.explain(search.query(), fields=names)))
    else:
        write_table(collection.search(search.query(), fields=names), form, output)


def _fields_to_write(
    collection: Collection, names: list[str] | None, form: OutputFormat
) -> list[str] | None:
    """Return the fields to write: a footprint is for maps, and too long for a table."""
    geometries = collection.geometry_fields
    if form is OutputFormat.geojson and names is not None:
        return names if set(names) & set(geometries) else [*names, *geometries[:1]]
    if form is OutputFormat.table and names is None:
        return [name for name in collection.schema.names if name not in geometries]
    return names

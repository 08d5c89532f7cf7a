"""Tables on standard output: for eyes, or for the next program of a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import shapely
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from l2view.errors import FieldError, L2ViewError, QueryError
from l2view.meta.footprints import read_geometries
from l2view.text import join_names
from l2view.virtual.attributes import is_geometry, json_columns

TABLE_ROWS = 100  # the most rows that are shown to a person
BATCH = 10_000  # the rows that are turned into text at a time


class OutputFormat(StrEnum):
    """How rows are written."""

    table = "table"
    json = "json"
    csv = "csv"
    geojson = "geojson"
    parquet = "parquet"


AsFormat = Annotated[
    OutputFormat | None,
    typer.Option(
        "--format", "-f", help="How to write the rows; by default as --output ends, else a table."
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write here instead of standard output.")
]


def choose_format(form: OutputFormat | None, output: Path | None) -> OutputFormat:
    """Return the requested format, or that of the file's name."""
    if form is not None:
        return form
    suffix = "" if output is None else output.suffix.removeprefix(".").casefold()
    return OutputFormat(suffix) if suffix in set(OutputFormat) else OutputFormat.table


def write_table(table: pa.Table, form: OutputFormat, output: Path | None = None) -> None:
    """Write the rows of a table, to standard output by default."""
    names = table.schema.names
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise QueryError(f"there are several columns {join_names(repeated)}; name them with AS")
    if form is OutputFormat.parquet:
        if output is None and sys.stdout.isatty():
            raise L2ViewError("Parquet is not for a terminal: pass --output, or a pipe")
        pyarrow.parquet.write_table(_geoparquet(table), output or sys.stdout.buffer)
    elif form is OutputFormat.csv:
        pyarrow.csv.write_csv(_with_texts(table), output or sys.stdout.buffer)
    elif form is OutputFormat.table and output is None and sys.stdout.isatty():
        _show(table)
    else:
        lines = {"table": _align_columns, "json": _json, "geojson": _geojson}[form](table)
        if output is None:
            sys.stdout.writelines(lines)
        else:
            with output.open("w", encoding="utf-8") as file:
                file.writelines(lines)


def _show(table: pa.Table) -> None:
    """Show the first rows on the terminal."""
    drawn = Table(header_style="bold", box=None, pad_edge=False)
    for field in table.schema:
        drawn.add_column(
            Text(field.name),
            justify="right" if _is_number(field) else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in _rows(table.slice(0, TABLE_ROWS)):
        drawn.add_row(*(Text(_text(value) or "") for value in row.values()))
    Console().print(drawn)
    if len(table) > TABLE_ROWS:
        Console(stderr=True).print(f"{TABLE_ROWS} of {len(table):,} rows; --format csv has all")


def _align_columns(table: pa.Table) -> Iterator[str]:
    """Yield a table's lines with every column as wide as its widest value."""
    texts = [pc.fill_null(_column_text(table, field), "") for field in table.schema]
    names = table.schema.names
    widths = [
        max(len(name), pc.max(pc.utf8_length(column)).as_py() or 0)
        for name, column in zip(names, texts, strict=True)
    ]
    pads = [pc.utf8_lpad if _is_number(field) else pc.utf8_rpad for field in table.schema]

    def lines(columns: Iterable[Any]) -> Iterator[str]:
        padded = [pad(c, w) for pad, c, w in zip(pads, columns, widths, strict=True)]
        for line in pc.binary_join_element_wise(*padded, "  ").to_pylist():
            yield line.rstrip() + "\n"

    yield from lines(pa.array([name]) for name in names)
    for start in range(0, len(table), BATCH):
        yield from lines(column.slice(start, BATCH) for column in texts)


def _is_number(field: pa.Field) -> bool:
    return bool(pa.types.is_integer(field.type) or pa.types.is_floating(field.type))


def _column_text(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    """Return a column as text: lists and structs as JSON."""
    column = table.column(field.name)
    if pa.types.is_integer(field.type):
        return column.cast(pa.string())
    values = json_columns(table.select([field.name]))[field.name]
    return pa.chunked_array([list(map(_text, values))], pa.string())


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for start in range(0, len(table), BATCH):
        columns = json_columns(table.slice(start, BATCH))
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def _with_texts(table: pa.Table) -> pa.Table:
    """Return a table with everything that CSV has no form for as text."""
    return pa.table(
        {
            field.name: table.column(field.name)
            if _is_number(field) or pa.types.is_boolean(field.type)
            else _column_text(table, field)
            for field in table.schema
        }
    )


def _json(table: pa.Table) -> Iterator[str]:
    yield "["
    for index, row in enumerate(_rows(table)):
        yield (",\n" if index else "\n") + json.dumps(row)
    yield "\n]\n"


def _geojson(table: pa.Table) -> Iterator[str]:
    """Yield the lines of a FeatureCollection (RFC 7946)."""
    field = next((field for field in table.schema if is_geometry(field)), None)
    if field is None:
        raise FieldError(
            f"GeoJSON needs footprints, and no field of the rows is a geometry; fields: "
            f"{join_names(table.schema.names)}"
        )
    yield '{"type": "FeatureCollection", "features": ['
    comma = "\n"
    for start in range(0, len(table), BATCH):
        batch = table.slice(start, BATCH)
        shapes = shapely.to_geojson(read_geometries(batch.column(field.name)))
        others = batch.drop_columns([field.name])
        # A table without columns has no rows.
        rows = list(_rows(others)) if others.num_columns else [{} for _ in shapes]
        for row, shape in zip(rows, shapes, strict=True):
            named = "" if row.get("id") is None else f' "id": {json.dumps(row["id"])},'
            yield (
                f'{comma}{{"type": "Feature",{named} "geometry": {shape or "null"}, '
                f'"properties": {json.dumps(row)}}}'
            )
            comma = ",\n"
    yield "\n]}\n"


def _geoparquet(table: pa.Table) -> pa.Table:
    """Return a table as GeoParquet 1.1 has it: geometries as WKB, and what they are."""
    columns: dict[str, Any] = {}
    for index, field in enumerate(table.schema):
        if not is_geometry(field):
            continue
        columns[field.name] = {"encoding": "WKB", "geometry_types": []}
        if not pa.types.is_binary(field.type):
            wkb = pa.array(shapely.to_wkb(read_geometries(table.column(index))), pa.binary())
            metadata = field.metadata | {b"ARROW:extension:name": b"geoarrow.wkb"}
            encoded = pa.field(field.name, pa.binary(), metadata=metadata)
            table = table.set_column(index, encoded, wkb)
    if not columns:
        return table
    described = {"version": "1.1.0", "primary_column": next(iter(columns)), "columns": columns}
    return table.replace_schema_metadata({"geo": json.dumps(described)})

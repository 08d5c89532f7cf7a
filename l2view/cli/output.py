"""Tables on standard output: for eyes, or for the next program of a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import shapely
import typer
from rich.console import Console
from rich.table import Table

from l2view.errors import FieldError, L2ViewError, unknown
from l2view.view.attributes import is_geometry, json_columns

TABLE_ROWS = 100
"""The most rows that are shown to a person."""

BATCH = 10_000
"""The rows that are turned into text at a time."""


class Format(StrEnum):
    """How rows are written."""

    table = "table"
    json = "json"
    csv = "csv"
    geojson = "geojson"
    parquet = "parquet"


AsFormat = Annotated[Format, typer.Option("--format", "-f", help="How to write the rows.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write here instead of standard output.")
]


def write(table: pa.Table, form: Format, output: Path | None = None) -> None:
    """Write the rows of `table`."""
    if form is Format.table:
        _write_table(table, output)
    elif form is Format.parquet:
        if output is None and sys.stdout.isatty():
            raise L2ViewError("Parquet is not for a terminal: pass --output, or a pipe")
        pyarrow.parquet.write_table(table, output or sys.stdout.buffer)
    elif form is Format.csv:
        pyarrow.csv.write_csv(_texts(table), output or sys.stdout.buffer)
    else:
        parts = _json(table) if form is Format.json else _geojson(table)
        if output is not None:
            with output.open("w") as file:
                file.writelines(parts)
        else:
            sys.stdout.writelines(parts)
    sys.stdout.flush()


def _write_table(table: pa.Table, output: Path | None) -> None:
    shown = table.slice(0, TABLE_ROWS) if sys.stdout.isatty() and output is None else table
    drawn = Table(header_style="bold", box=None, pad_edge=False)
    for field in table.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        drawn.add_column(field.name, justify="right" if number else "left", overflow="ellipsis")
    for row in _rows(shown):
        drawn.add_row(*("" if value is None else str(value) for value in row.values()))
    if output is not None:
        with output.open("w") as file:
            _wide(file).print(drawn)
    elif sys.stdout.isatty():
        Console(highlight=False).print(drawn)
    else:
        _wide(sys.stdout).print(drawn)
    if len(shown) < len(table):
        Console(stderr=True).print(f"{len(shown)} of {len(table):,} rows; --format csv has all")


def _wide(file: Any) -> Console:
    """Return a console that cuts nothing off, for what isn't a terminal."""
    return Console(file=file, width=10_000, highlight=False, no_color=True)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for start in range(0, len(table), BATCH):
        columns = json_columns(table.slice(start, BATCH))
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def _texts(table: pa.Table) -> pa.Table:
    """Return `table` with everything that CSV has no form for as text."""
    columns = json_columns(table)
    plain = {
        field.name: table.column(field.name)
        if pa.types.is_integer(field.type) or pa.types.is_boolean(field.type)
        else pa.array([None if v is None else str(v) for v in columns[field.name]], pa.string())
        for field in table.schema
        if not pa.types.is_floating(field.type)
    }
    return pa.table({name: plain.get(name, table.column(name)) for name in table.schema.names})


def _json(table: pa.Table) -> Iterator[str]:
    yield "["
    for index, row in enumerate(_rows(table)):
        yield (",\n" if index else "\n") + json.dumps(row)
    yield "\n]\n"


def _geojson(table: pa.Table) -> Iterator[str]:
    field = next((field for field in table.schema if is_geometry(field)), None)
    if field is None:
        raise FieldError(unknown("geometry field", "bbox", table.schema.names))
    yield '{"type": "FeatureCollection", "features": ['
    for index, row in enumerate(_rows(table)):
        text = row.pop(field.name)
        shape = None if text is None else json.loads(shapely.to_geojson(shapely.from_wkt(text)))
        feature: dict[str, Any] = {"type": "Feature", "geometry": shape, "properties": row}
        if row.get("id") is not None:
            feature["id"] = row["id"]
        yield (",\n" if index else "\n") + json.dumps(feature)
    yield "\n]}\n"

"""What there is to say of a table of granules, whoever says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from l2view.errors import FieldError
from l2view.meta.footprints import read_geometries
from l2view.search.time import ENDS, STARTS, time_field
from l2view.virtual.attributes import is_geometry, json_values

DRAWN = 400
"""The most footprints in a small map."""

ROWS_SHOWN = 5
"""The rows in a summary's table."""

FIELDS_SHOWN = 8
"""The columns in a summary's table."""


@dataclass(frozen=True)
class Summary:
    """The parts of a summary.

    Attributes
    ----------
    title
        What it is of.
    facts
        Lines of name and value.
    names
        The columns of `rows`, "…" where there are more.
    rows
        The first rows, as text.
    footprints
        Geometries to draw, of shape (n,).
    drawn
        What the map shows of them, empty where it is all.
    """

    title: str
    facts: dict[str, str]
    names: list[str]
    rows: list[list[str]]
    footprints: NDArray[Any]
    drawn: str = ""


def footprints(table: pa.Table, most: int | None = None) -> NDArray[Any]:
    """Return the geometries of a table's first geometry field, of shape (n,).

    NULLs, what isn't a geometry, and empty ones are left out. With `most`, as many of them
    spread evenly over the rows.
    """
    return outlines(table, most)[0]


def outlines(table: pa.Table, most: int | None = None) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the same geometries, and the rows that they are of."""
    field = next((field for field in table.schema if is_geometry(field)), None)
    if field is None:
        return np.empty(0, dtype=object), np.empty(0, dtype=np.int64)
    rows = spread(len(table), most)
    shapes = read_geometries(table.column(field.name).take(pa.array(rows)))
    there = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    return shapes[there], rows[there]


def spread(count: int, most: int | None = None) -> NDArray[np.int64]:
    """Return the numbers of `count` rows, or of `most` of them at even distances."""
    if most is None or count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).astype(np.int64)


def time_span(table: pa.Table) -> str | None:
    """Return the first and last time of a table's time field as text."""
    try:
        name = time_field(table.schema)
    except FieldError:
        return None
    first, last = STARTS.get(name, name), ENDS.get(name, name)
    low = _extreme(table, first if first in table.schema.names else name, "min")
    high = _extreme(table, last if last in table.schema.names else name, "max")
    if low is None or high is None:
        return None
    return low if low == high else f"{low} to {high}"


def _extreme(table: pa.Table, name: str, which: str) -> str | None:
    value = pc.min_max(table.column(name))[which]
    text = json_values(pa.array([value.as_py()], value.type))[0]
    return None if text is None else str(text)


def first_rows(table: pa.Table) -> tuple[list[str], list[list[str]]]:
    """Return the names and texts of the first rows and columns."""
    head = table.slice(0, ROWS_SHOWN)
    plain = [field for field in head.schema if not is_geometry(field)]
    shown = plain[:FIELDS_SHOWN]
    columns = [json_values(head.column(field.name).combine_chunks()) for field in shown]
    texts = [[_text(column[row]) for column in columns] for row in range(head.num_rows)]
    more = ["…"] if len(shown) < len(plain) else []
    return [field.name for field in shown] + more, [row + more for row in texts]


def _text(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if len(text) <= 48 else f"{text[:47]}…"

"""Summaries of collections and views: facts, first rows and footprints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from l2view.display.svg import map_svg
from l2view.errors import FieldError
from l2view.meta.footprints import read_geometries
from l2view.search.table import MetaTable
from l2view.search.time import ENDS, STARTS, time_field
from l2view.text import join_names
from l2view.virtual.attributes import is_geometry, json_values
from l2view.virtual.join_shape import JoinedView
from l2view.virtual.store import ViewStore

MAX_FOOTPRINTS = 400  # the most footprints in a small map
MAX_ROWS, MAX_COLUMNS = 5, 8  # the size of a summary's table
MAX_NAMES = 3  # the most ids of a query, and the most names of granules
MAX_ARRAYS = 12  # the most arrays of a joined view
MAX_SCANNED_ROWS = 2_000_000  # a collection with more rows is summarized without its time span

CELL = 'style="text-align:left;padding:1px 10px 1px 0;vertical-align:top"'


@dataclass(frozen=True)
class Summary:
    """What a collection or view holds; its text has one fact a line."""

    title: str
    facts: dict[str, str]
    columns: list[str]  # of `rows`, "…" where there are more
    rows: list[list[str]]  # the first rows, as text
    footprints: NDArray[Any]  # in EPSG:4326, of shape (n,)
    map_note: str = ""  # how many of the footprints these are, empty for all

    def __str__(self) -> str:
        width = max(len(name) for name in self.facts)
        lines = [f"<l2view {self.title}>"]
        for name, value in self.facts.items():
            head, *continuation = value.split("\n")
            lines.append(f"  {name:<{width}}  {head}")
            lines.extend(f"  {'':<{width}}  {line}" for line in continuation)
        return "\n".join(lines)

    def to_html(self) -> str:
        """Return it as HTML, with a map of the footprints."""
        facts = "".join(
            f"<tr>{_html_cells('th', [name])}{_html_cells('td', [value])}</tr>"
            for name, value in self.facts.items()
        )
        head, rows = _html_cells("th", self.columns), map(partial(_html_cells, "td"), self.rows)
        footprints = ""
        if len(self.footprints):
            drawing = map_svg(self.footprints, "Map of the footprints")
            footprints = f"<div>{drawing}<div><small>{escape(self.map_note)}</small></div></div>"
        return (
            f'<div class="l2view"><div><strong>l2view {escape(self.title)}</strong></div>'
            '<div style="display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start">'
            f'<table style="white-space:pre-line">{facts}</table>{footprints}</div>'
            '<div style="overflow-x:auto;white-space:nowrap">'
            f"<table><thead><tr>{head}</tr></thead><tbody><tr>{'</tr><tr>'.join(rows)}</tr></tbody>"
            "</table></div></div>"
        )


def _html_cells(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag} {CELL}>{escape(text)}</{tag}>" for text in texts)


def summarize_view(store: ViewStore) -> Summary:
    """Return the summary of a view."""
    description, granules = store.shape.description, store.tree.granules
    count, query = description["count"], description["query"]
    conditions = {name: repr(value) for name, value in query.items()}
    if len(query.get("ids", ())) > MAX_NAMES:
        conditions["ids"] = f"({len(query['ids']):,} ids)"
    names = [granules.name(row) for row in range(min(count, MAX_NAMES))]
    variables = description.get("variables")
    facts = {
        "collection": description["collection"],
        "snapshot": description["snapshot"],
        "query": ", ".join(f"{name}={text}" for name, text in conditions.items()) or "all",
        "time": time_span(granules.table),
        "missing": missing_values(granules.table.schema, lambda n: granules.table[n].null_count),
        "fields": join_names(granules.table.schema.names),
        "variables": None if variables is None else join_names(variables),
        **(_join_facts(store.shape) if isinstance(store.shape, JoinedView) else {}),
        "granules": join_names(names) + (", …" if count > MAX_NAMES else ""),
    }
    title = f"View of {count:,} granule{'' if count == 1 else 's'}"
    return _summary(title, facts, granules.table, count)


def _summary(title: str, facts: Mapping[str, str | None], table: pa.Table, count: int) -> Summary:
    """Return a summary of `count` granules, of which `table` has some or all."""
    footprints, _ = read_footprints(table)
    drawn = min(len(table), MAX_FOOTPRINTS)
    map_note = f"{drawn:,} of {count:,} footprints" if drawn < count else ""
    known = {name: value for name, value in facts.items() if value}
    return Summary(title, known, *first_rows(table), footprints, map_note)


def _join_facts(view: JoinedView) -> dict[str, str]:
    """Return the facts of a join: its options, and its groups or arrays."""
    description, names = view.description, ("dim", "encoding", "ragged")
    options = [f"{name}={description[name]!r}" for name in names if name in description]
    facts = {"layout": ", ".join([description["layout"], *options])}
    if "stacks" in description:
        groups = [
            f"{name} ({stack['granules']:,} granules)"
            for name, stack in description["stacks"].items()
        ]
        return facts | {"groups": join_names(groups)}
    if "" not in view.joined_groups:  # of no granules
        return facts
    lines = []
    for path, array in view.joined_groups[""].arrays.items():
        sizes = zip(array.dimensions, array.shape, strict=True)
        lines.append(f"{path} ({', '.join(f'{name}: {size}' for name, size in sizes)})")
    more = ["…"] if len(lines) > MAX_ARRAYS else []
    return facts | {"arrays": "\n".join(lines[:MAX_ARRAYS] + more)}


def summarize_collection(
    label: str, snapshot: str | None, meta: MetaTable, time_fields: tuple[str, ...]
) -> Summary:
    """Return the summary of a collection, for which little of it is read."""
    span = None
    if time_fields and meta.rows <= MAX_SCANNED_ROWS:
        span = time_span(meta.take(np.arange(meta.rows), list(time_fields)))
    fields = "\n".join(f"{field.name}: {field.type}" for field in meta.schema)
    missing = missing_values(meta.schema, meta.null_count)
    facts = {
        "store": label,
        "snapshot": snapshot,
        "time": span,
        "missing": missing,
        "fields": fields,
    }
    sample = meta.take(np.array(_sample_rows(meta), dtype=np.int64), meta.schema.names)
    return _summary(f"Collection of {meta.rows:,} granules", facts, sample, meta.rows)


def _sample_rows(meta: MetaTable) -> list[int]:
    """Return row numbers of the first, middle and last chunks of rows, the first rows first."""
    if meta.rows <= MAX_FOOTPRINTS:
        return list(range(meta.rows))
    ranges = list(meta.runs())
    sampled = sorted({0, len(ranges) // 2, len(ranges) - 1})
    share = MAX_FOOTPRINTS // len(sampled)
    return [row for index in sampled for row in ranges[index][:share]]


def read_footprints(
    table: pa.Table, most: int = MAX_FOOTPRINTS
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the footprints of a table's first geometry field, and their rows, of shape (n,).

    Of more rows than `most` these are as many at even distances. Those without a footprint, or
    with an empty one, are left out.
    """
    field = next((field for field in table.schema if is_geometry(field)), None)
    if field is None:
        return np.empty(0, dtype=object), np.empty(0, dtype=np.int64)
    rows = spread_rows(len(table), most)
    shapes = read_geometries(table.column(field.name).take(pa.array(rows)))
    drawable = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    return shapes[drawable], rows[drawable]


def spread_rows(count: int, most: int) -> NDArray[np.int64]:
    """Return the numbers of `count` rows, or of `most` of them at even distances."""
    return np.linspace(0, max(count - 1, 0), min(count, most)).astype(np.int64)


def missing_values(schema: pa.Schema, null_count: Callable[[str], int | None]) -> str | None:
    """Return how many granules lack a time or a place, None where none does or it isn't known."""
    names = [field.name for field in schema if is_geometry(field)][:1]
    with suppress(FieldError):
        names.insert(0, time_field(schema))
    counts = ((name, null_count(name)) for name in names)
    return ", ".join(f"{count:,} without {name}" for name, count in counts if count) or None


def time_span(table: pa.Table) -> str | None:
    """Return the first and last time of a table's time field as text."""
    try:
        name = time_field(table.schema)
    except FieldError:
        return None
    start, end = STARTS.get(name, name), ENDS.get(name, name)
    texts = []
    for field, extreme in ((start, "min"), (end, "max")):
        column = table.column(field if field in table.schema.names else name)
        value = pc.min_max(column)[extreme]
        texts.append(json_values(pa.array([value.as_py()], value.type))[0])
    if None in texts:
        return None
    low, high = map(str, texts)
    return low if low == high else f"{low} to {high}"


def first_rows(table: pa.Table) -> tuple[list[str], list[list[str]]]:
    """Return the names of the first columns, and their first rows as text."""
    head = table.slice(0, MAX_ROWS)
    plain = [field.name for field in head.schema if not is_geometry(field)]
    names = plain[:MAX_COLUMNS]
    columns = [json_values(head.column(name).combine_chunks()) for name in names]
    rows = [[_cell_text(column[row]) for column in columns] for row in range(head.num_rows)]
    more = ["…"] if len(names) < len(plain) else []
    return names + more, [row + more for row in rows]


def _cell_text(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if len(text) <= 48 else f"{text[:47]}…"

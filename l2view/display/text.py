"""Collections and views as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l2view.display.summary import DRAWN, Summary, first_rows, footprints, time_span
from l2view.text import join_names
from l2view.virtual.join_shape import Joined

if TYPE_CHECKING:
    from l2view.collection import Collection
    from l2view.view import View

SHOWN_IDS = 3
"""The most ids of a query that are told one by one."""

SHOWN_ARRAYS = 12
"""The most arrays that are told one by one."""

JOINED = ("dim", "encoding", "ragged")
"""What a view says of how its granules are joined."""

SCANNED_ROWS = 2_000_000
"""Above so many rows a collection's time span is not looked for."""


def view_summary(view: View) -> Summary:
    """Return what there is to say of a view."""
    said = view.description
    table = view.table
    facts = {"collection": said["collection"]}
    if said["snapshot"]:
        facts["snapshot"] = said["snapshot"]
    query = {name: repr(value) for name, value in said["query"].items()}
    if "ids" in query and len(said["query"]["ids"]) > SHOWN_IDS:
        query["ids"] = f"({len(said['query']['ids']):,} ids)"
    facts["query"] = ", ".join(f"{name}={value}" for name, value in query.items()) or "all"
    if span := time_span(table):
        facts["time"] = span
    facts["fields"] = join_names(table.schema.names)
    if "variables" in said:
        facts["variables"] = join_names(said["variables"])
    if "layout" in said:
        facts["layout"] = ", ".join(
            [said["layout"], *(f"{name}={said[name]!r}" for name in JOINED if name in said)]
        )
        facts |= _joined(view)
    facts["granules"] = join_names(view.names[:3])
    if said["count"] > 3:
        facts["granules"] += ", …"
    names, rows = first_rows(table)
    drawn = f"{DRAWN} of {said['count']:,} footprints" if said["count"] > DRAWN else ""
    title = f"View of {said['count']:,} granule{'' if said['count'] == 1 else 's'}"
    return Summary(title, facts, names, rows, footprints(table, DRAWN), drawn)


def _joined(view: View) -> dict[str, str]:
    """Return what is joined: the groups, or the arrays with their dimensions and shapes."""
    said = view.description
    if "stacks" in said:
        groups = [f"{name} ({one['granules']:,} granules)" for name, one in said["stacks"].items()]
        return {"groups": join_names(groups)}
    shape = view.view_store.shape
    assert isinstance(shape, Joined)
    arrays = []
    if "" not in shape.stacks:  # of nothing
        return {}
    for path, array in shape.stacks[""].arrays.items():
        sizes = zip(array.dimensions, array.shape, strict=True)
        arrays.append(f"{path} ({', '.join(f'{name}: {size}' for name, size in sizes)})")
    return {
        "arrays": "\n".join([*arrays[:SHOWN_ARRAYS], *(["…"] if arrays[SHOWN_ARRAYS:] else [])])
    }


def collection_summary(collection: Collection) -> Summary:
    """Return what there is to say of a collection, reading little of it."""
    meta = collection.meta
    facts = {"store": collection.label}
    if collection.snapshot:
        facts["snapshot"] = collection.snapshot
    times = [name for name in collection.time_fields if name in meta.schema.names]
    if times and meta.rows <= SCANNED_ROWS:
        span = time_span(meta.to_table(times))
        facts |= {"time": span} if span else {}
    facts["fields"] = "\n".join(f"{field.name}: {field.type}" for field in meta.schema)
    sample = meta.take(range(meta.rows) if meta.rows <= DRAWN else _spread(collection))
    names, rows = first_rows(sample)
    drawn = f"{len(sample):,} of {meta.rows:,} footprints" if len(sample) < meta.rows else ""
    title = f"Collection of {len(collection):,} granules"
    return Summary(title, facts, names, rows, footprints(sample), drawn)


def _spread(collection: Collection) -> list[int]:
    """Return row numbers from the first, middle and last range of rows, the first rows first."""
    ranges = list(collection.meta.ranges())
    chosen = sorted({0, len(ranges) // 2, len(ranges) - 1})
    share = DRAWN // len(chosen)
    return [row for index in chosen for row in ranges[index][:share]]


def view_text(view: View) -> str:
    """Return a view as text."""
    return _text(view_summary(view))


def collection_text(collection: Collection) -> str:
    """Return a collection as text."""
    return _text(collection_summary(collection))


def _text(summary: Summary) -> str:
    width = max(len(name) for name in summary.facts)
    lines = [f"<l2view {summary.title}>"]
    for name, value in summary.facts.items():
        first, *rest = value.split("\n")
        lines.append(f"  {name:<{width}}  {first}")
        lines.extend(f"  {'':<{width}}  {line}" for line in rest)
    return "\n".join(lines)

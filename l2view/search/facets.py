"""How many rows have each value of a field, counted chunk by chunk.

``SELECT product, COUNT(*) FROM meta GROUP BY product`` is what a page of facets asks, over and
over. A chunk has few values where a collection has few, and its counts are kept instead of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from datafusion import DataFrame, Expr, SessionContext
from datafusion import functions as sql

from l2view.limits import limits
from l2view.meta.chunks import COUNT
from l2view.meta.reader import growing_groups
from l2view.meta.schema import Field
from l2view.meta.zones import chunks_of
from l2view.search.logical_plan import kind, sorted_by, value
from l2view.search.names import column
from l2view.search.table import MetaTable

ROWS = "count(Int64(1))"
"""What DataFusion calls the number of rows of a group."""

FEW = 8
"""Fields with more than one value in so many rows of a chunk are not counted by chunk."""

ALL = 2**62
"""More values than there are."""


def count_by_chunk(nodes: Sequence[Any], table: str, meta: MetaTable) -> DataFrame | None:
    """Return a query that counts rows by the values of one field, with the chunks counted.

    None where its plan's nodes ask for something else, or nearly each row has a value of its own.
    """
    kinds = [kind(node) for node in nodes]
    if "Aggregate" not in kinds:
        return None
    at = kinds.index("Aggregate")
    name = _field(nodes[at], kinds[at + 1 :], nodes[-1], table)
    field = None if name is None else meta.fields.get(name)
    if field is None or field.geometry is not None or {*kinds[:at]} - STEPS.keys():
        return None
    if not all(_is_plain(node.alias()) for node in nodes[:at] if kind(node) == "SubqueryAlias"):
        return None
    counts = _counts(meta, field)
    if counts is None:
        return None
    relation = nodes[at].group_by_exprs()[0].to_variant().relation()
    context = SessionContext()
    frame = context.from_arrow(counts).alias(relation)
    totals = [sql.sum(column(COUNT)).alias(ROWS)] if nodes[at].aggregate_exprs() else []
    frame = frame.aggregate([column(field.name)], totals)
    for node, step in zip(reversed(nodes[:at]), reversed(kinds[:at]), strict=True):
        frame = STEPS[step](frame, node)
    return frame


def _field(aggregate: Any, below: list[str], scan: Any, table: str) -> str | None:
    """Return the field that groups all rows of a table, None of any other query."""
    if [step for step in below if step != "SubqueryAlias"] != ["TableScan"]:
        return None
    if scan.fqn()[-1] != table or scan.filters() or scan.fetch() is not None:
        return None
    groups = aggregate.group_by_exprs()
    if len(groups) != 1 or groups[0].variant_name() != "Column":
        return None
    if any(aggregated.schema_name() != ROWS for aggregated in aggregate.aggregate_exprs()):
        return None
    grouping = groups[0].to_variant()
    plain = _is_plain(grouping.relation()) and grouping.name() != ROWS
    return str(grouping.name()) if plain else None


def _is_plain(name: Any) -> bool:
    """Tell if a table's name needs no quotes: `DataFrame.alias` can't quote."""
    return re.fullmatch("[a-z_][a-z0-9_]*", str(name)) is not None


def _counts(meta: MetaTable, field: Field) -> pa.Table | None:
    """Count the values of a field in each chunk; None where they are too many."""
    chunks = meta.chunks()
    batches: list[pa.RecordBatch] = []
    # One chunk alone shows for most fields if counting is worth it.
    for numbers in growing_groups(chunks_of(field, range(meta.rows)), limits().chunks_at_once, 1):
        counts = chunks.counts([(field, number) for number in numbers])
        if any(
            len(chunk_counts) * FEW > max(field.chunk_length, FEW * FEW) for chunk_counts in counts
        ):
            return None
        batches.extend(counts)
    schema = pa.schema([field.arrow(), pa.field(COUNT, pa.int64())])
    return pa.Table.from_batches(batches, schema)


def _project(frame: DataFrame, node: Any) -> DataFrame:
    return frame.select(*map(Expr, node.projections()))


def _filter(frame: DataFrame, node: Any) -> DataFrame:
    return frame.filter(Expr(node.predicate()))


def _sort(frame: DataFrame, node: Any) -> DataFrame:
    most = node.get_fetch_val()
    return sorted_by(frame, node) if most is None else sorted_by(frame, node).limit(most)


def _limit(frame: DataFrame, node: Any) -> DataFrame:
    skip, most = (
        None if literal is None else value(Expr(literal)) for literal in (node.skip(), node.fetch())
    )
    return frame.limit(ALL if most is None else most, skip or 0)


def _alias(frame: DataFrame, node: Any) -> DataFrame:
    return frame.alias(node.alias())


STEPS = {
    "Projection": _project,
    "Filter": _filter,
    "Sort": _sort,
    "Limit": _limit,
    "SubqueryAlias": _alias,
}
"""What a query may do with counts, by the node of its plan."""

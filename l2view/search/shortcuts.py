"""SQL queries of two kinds that are answered sooner than by a scan of all that they name.

``SELECT product, COUNT(*) FROM meta GROUP BY product`` is what a page of facets asks, over and
over. A chunk has few values where a collection has few, and its counts are kept instead of it.
The rows of a sorted query with a limit are found first, and the fields that it shows of them then.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datafusion import DataFrame, Expr, SessionContext
from datafusion import functions as sql

from l2view.index.candidates import Candidates
from l2view.limits import limits
from l2view.meta.chunks import COUNT
from l2view.meta.reader import growing_groups
from l2view.meta.schema import ROW, Field
from l2view.meta.zones import chunks_of
from l2view.scan.dataset import TableDataset
from l2view.search.context import TABLE, column, kind, plain_context, renames_columns, value
from l2view.search.table import MetaTable

ROWS = "count(Int64(1))"  # what DataFusion calls the number of rows of a group

FEW = 8
"""A field with more than one value in so many rows of a chunk is not counted by chunk; a sorted
query that shows more than one in so many rows is left as it is."""

ALL = 2**62  # more values than there are

STEPS = {"Projection", "Filter", "Sort", "Limit", "SubqueryAlias"}
"""The nodes of plans that `_apply` knows."""


def stops_early(nodes: Sequence[Any]) -> bool:
    """Tell if the first rows that match are enough, so that a scan may stop early."""
    kinds = {kind(node) for node in nodes}
    return "Limit" in kinds and kinds <= {*STEPS, "TableScan"} - {"Sort"}


def count_by_chunk(nodes: Sequence[Any], meta: MetaTable) -> DataFrame | None:
    """Return a query that counts rows by the values of one field, with the chunks counted.

    None where its plan's nodes ask for something else, or nearly each row has a value of its own.
    """
    kinds = [kind(node) for node in nodes]
    if "Aggregate" not in kinds:
        return None
    at = kinds.index("Aggregate")
    aggregate, above = nodes[at], nodes[:at]
    name = _grouping_field(aggregate, kinds[at + 1 :], nodes[-1])
    field = None if name is None else meta.fields.get(name)
    if field is None or field.geometry is not None or not {*kinds[:at]} <= STEPS:
        return None
    if not all(_is_plain(node.alias()) for node in above if kind(node) == "SubqueryAlias"):
        return None
    counts = _counts(meta, field)
    if counts is None:
        return None
    relation = aggregate.group_by_exprs()[0].to_variant().relation()
    totals = [sql.sum(column(COUNT)).alias(ROWS)] if aggregate.aggregate_exprs() else []
    frame = SessionContext().from_arrow(counts).alias(relation)
    frame = frame.aggregate([column(field.name)], totals)
    for node in reversed(above):
        frame = _apply(frame, node)
    return frame


def _grouping_field(aggregate: Any, below: list[str], scan: Any) -> str | None:
    """Return the field that groups all rows of ``meta``, None of any other query."""
    if [step for step in below if step != "SubqueryAlias"] != ["TableScan"]:
        return None
    if scan.fqn()[-1] != TABLE or scan.filters() or scan.fetch() is not None:
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
        if any(len(batch) * FEW > max(field.chunk_length, FEW * FEW) for batch in counts):
            return None
        batches.extend(counts)
    schema = pa.schema([field.arrow(), pa.field(COUNT, pa.int64())])
    return pa.Table.from_batches(batches, schema)


def _apply(frame: DataFrame, node: Any) -> DataFrame:
    """Apply a node of a plan, one of `STEPS`, to a frame."""
    match kind(node):
        case "Projection":
            return frame.select(*map(Expr, node.projections()))
        case "Filter":
            return frame.filter(Expr(node.predicate()))
        case "SubqueryAlias":
            return frame.alias(node.alias())
        case "Limit":
            ends = (node.skip(), node.fetch())
            skip, most = (None if end is None else value(Expr(end)) for end in ends)
            return frame.limit(ALL if most is None else most, skip or 0)
        case _:
            keys = [
                Expr(key.expr()).sort(ascending=key.ascending(), nulls_first=key.nulls_first())
                for key in node.sort_exprs()
            ]
            most = node.get_fetch_val()
            return frame.sort(*keys) if most is None else frame.sort(*keys).limit(most)


def first_rows(nodes: Sequence[Any], meta: MetaTable) -> Candidates | None:
    """Return the rows that a sorted query with a limit shows.

    None where its plan's nodes say that it isn't one, or they are found as soon by itself.
    """
    kinds = [kind(node) for node in nodes]
    if kinds.count("Sort") != 1 or kinds[-1] != "TableScan" or nodes[-1].fqn()[-1] != TABLE:
        return None
    at = kinds.index("Sort")
    sort, below, scan = nodes[at], nodes[at + 1 : -1], nodes[-1]
    filters = [node for node in below if kind(node) == "Filter"]
    projections = [node for node in below if kind(node) == "Projection"]
    # A field may be shown under another's name.
    if len(filters) + len(projections) < len(below) or any(map(renames_columns, projections)):
        return None
    keys = [key.expr() for key in sort.sort_exprs()]
    if not {*kinds[:at]} <= {"Projection", "Limit"} or any(
        key.variant_name() != "Column" for key in keys
    ):
        return None
    limit, ordered = sort.get_fetch_val(), {key.to_variant().name() for key in keys}
    fields = {name for _, name in scan.projection()}
    if limit is None or limit * FEW > meta.rows:
        return None
    if not ordered <= fields or fields <= {ROW, *ordered}:
        return None
    context = plain_context()
    context.register_dataset(TABLE, TableDataset(meta))
    frame = context.table(TABLE)
    for predicate in (*(node.predicate() for node in filters), *scan.filters()):
        frame = frame.filter(Expr(predicate))
    rows = [batch.column(0).to_numpy() for batch in _apply(frame, sort).select(ROW).collect()]
    return Candidates(np.sort(np.concatenate([np.empty(0, dtype=np.int64), *rows])), meta.rows)

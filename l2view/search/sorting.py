"""Which rows a sorted query with a limit shows, found without the fields that it shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datafusion import Expr

from l2view.index.candidates import Candidates
from l2view.meta.schema import ROW
from l2view.scan.dataset import TableDataset
from l2view.search.engine import plain_context
from l2view.search.logical_plan import kind
from l2view.search.names import column
from l2view.search.table import MetaTable

FEW = 8
"""A query that shows more than one in so many rows is left as it is."""


@dataclass(frozen=True)
class SortedQuery:
    """A query that is no more than a condition, an order and a limit.

    Attributes
    ----------
    conditions
        What its rows fulfil.
    order
        The fields by which they are sorted, each with whether it ascends and NULL comes first.
    limit
        How many of the first rows it shows at most.
    fields
        All fields that it reads.
    """

    conditions: tuple[Any, ...]
    order: tuple[tuple[str, bool, bool], ...]
    limit: int
    fields: frozenset[str]


def first_rows(nodes: Sequence[Any], table: str, meta: MetaTable) -> Candidates | None:
    """Return the rows that a sorted query with a limit shows.

    None where its plan's nodes say that it isn't one, or they are found as soon by itself.
    """
    query = _sorted_query(nodes, table)
    if query is None or query.limit * FEW > meta.rows:
        return None
    ordered = {name for name, _, _ in query.order}
    if not query.fields - ordered - {ROW}:
        return None
    context = plain_context()
    context.register_dataset(table, TableDataset(meta))
    frame = context.table(table)
    for condition in query.conditions:
        frame = frame.filter(Expr(condition))
    keys = [
        column(name).sort(ascending=ascending, nulls_first=nulls_first)
        for name, ascending, nulls_first in query.order
    ]
    batches = frame.sort(*keys).limit(query.limit).select(ROW).collect()
    rows = [batch.column(0).to_numpy() for batch in batches]
    return Candidates(np.sort(np.concatenate([np.empty(0, dtype=np.int64), *rows])), meta.rows)


def _sorted_query(nodes: Sequence[Any], table: str) -> SortedQuery | None:
    """Read a plan's nodes as a sorted query, None of any other."""
    kinds = [kind(node) for node in nodes]
    if (
        not nodes
        or kinds.count("Sort") != 1
        or kinds[-1] != "TableScan"
        or nodes[-1].fqn()[-1] != table
    ):
        return None
    sort_at = kinds.index("Sort")
    if {*kinds[:sort_at]} - {"Projection", "Limit"} or {*kinds[sort_at + 1 : -1]} - {
        "Projection",
        "Filter",
    }:
        return None
    limit = nodes[sort_at].get_fetch_val()
    order = []
    for key in nodes[sort_at].sort_exprs():
        if key.expr().variant_name() != "Column":
            return None
        order.append((key.expr().to_variant().name(), key.ascending(), key.nulls_first()))
    # A field may be shown under another's name.
    for node, step in zip(nodes[sort_at + 1 :], kinds[sort_at + 1 :], strict=True):
        if step == "Projection" and any(
            term.variant_name() != "Column" for term in node.projections()
        ):
            return None
    fields = frozenset(name for _, name in nodes[-1].projection())
    if limit is None or not {name for name, _, _ in order} <= fields:
        return None
    filters = [node.predicate() for node in nodes[sort_at + 1 : -1] if kind(node) == "Filter"]
    return SortedQuery((*filters, *nodes[-1].filters()), tuple(order), limit, fields)

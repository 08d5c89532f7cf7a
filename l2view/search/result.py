"""The rows that answer a query, and what it cost to find them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from l2view.errors import L2ViewWarning, UnreadableGeometryError, warn
from l2view.index.candidates import EVERY, Candidates
from l2view.meta.chunks import Tally
from l2view.search.engine import Session
from l2view.search.place import geometry_field
from l2view.search.planning import id_values, plan_query
from l2view.search.pruning import find_candidates, with_values
from l2view.search.query import Query
from l2view.search.table import MetaTable

MAX_KEPT_BYTES = 2**28
"""The most bytes of fields that are kept from finding rows; of more they are read again."""


@dataclass(frozen=True)
class SearchResult:
    """The rows that answer a query."""

    rows: NDArray[np.int64]
    """Row numbers in the query's order, of shape (n,)."""

    table: MetaTable
    """The table, with the values that finding the rows has read already."""

    def take(self, names: Sequence[str]) -> pa.Table:
        """Read columns of the rows."""
        return self.table.take(self.rows, list(names))


def find_rows(table: MetaTable, query: Query, names: Sequence[str] = ()) -> SearchResult:
    """Find the rows that answer a query.

    Of the fields called `names`, which the caller takes, those that the search reads are kept.

    A `QueryError` or `FieldError` is raised where the query can't be asked of this table.
    """
    try:
        return _find_rows(table, query, names)
    except UnreadableGeometryError as error:
        warn(f"{error}. Such rows are not found by place", L2ViewWarning)
        result = _find_rows(replace(table, checked=True), query, ())
        return SearchResult(result.rows, table)


def _find_rows(table: MetaTable, query: Query, names: Sequence[str]) -> SearchResult:
    table.refresh()
    # Of the first rows in the table's order, no more are looked at than it takes.
    early = query.limit is not None and query.order_by is None and query.ids is None
    columns = [] if query.limit is not None and not query.order_by else _fields_read(query, table)
    columns = sorted({*names} & {*columns})
    session = Session(table.with_candidates(EVERY), partitions=1 if early else None)
    frame = plan_query(session, query, columns)
    with session.translate_errors():
        plan = frame.optimized_logical_plan()
        candidates = find_candidates(session.context, plan, table)
    if query.ids is not None:
        ids = id_values(table.schema, query.ids)
        candidates = candidates.intersect(with_values(table, "id", ids))
    certain = candidates.certain[: query.limit]
    uncertain = candidates.uncertain()
    if early and len(certain) == query.limit:
        uncertain = uncertain.before(int(certain[-1]) if len(certain) else 0)
    batches: list[pa.RecordBatch] = []
    if not _is_ruled_out(table, uncertain):
        session.decide(table.with_candidates(uncertain), early=early)
        with session.translate_errors():
            limited = frame if query.limit is None else frame.limit(query.limit)
            batches = limited.collect()
    rows = np.concatenate([certain, *(batch.column(0).to_numpy() for batch in batches)])
    if not query.order_by:
        rows = np.sort(rows)
    # Rows that an index is certain of weren't read.
    if columns and batches and not len(certain):
        candidates = _with_columns(candidates, batches, table.rows)
    return SearchResult(rows[: query.limit], table.with_candidates(candidates))


def _is_ruled_out(table: MetaTable, candidates: Candidates) -> bool:
    """Tell if no candidate remains, and count its runs as left out."""
    inside = candidates.within(range(table.rows))
    if inside is None or len(inside):
        return False
    runs = len(list(table.runs()))
    table.tally.rule_out(runs, {" and ".join(candidates.pruned_by) or "limit=0": runs})
    return True


def _fields_read(query: Query, table: MetaTable) -> set[str]:
    """Return the fields that the conditions read."""
    words = set(re.findall(r"\w+", query.where or ""))
    if query.bbox is not None or query.intersects is not None:
        words.add(geometry_field(table.schema, query.geometry_field))
    return words & table.fields.keys()


def _with_columns(
    candidates: Candidates, batches: Sequence[pa.RecordBatch], tail: int
) -> Candidates:
    """Make candidates of batches, which keep the columns that were read."""
    if sum(batch.nbytes for batch in batches) > MAX_KEPT_BYTES:
        return candidates
    rows = np.concatenate([batch.column(0).to_numpy() for batch in batches])
    order = pa.array(np.argsort(rows))
    columns = {
        name: pa.concat_arrays([batch.column(name) for batch in batches]).take(order)
        for name in batches[0].schema.names[1:]
    }
    return Candidates(np.sort(rows), tail, columns, candidates.bbox_tests, candidates.pruned_by)


@dataclass(frozen=True)
class SearchCost:
    """What a search of a collection of `rows` granules cost. Its text is for people."""

    rows: int
    found: int
    tally: Tally
    seconds: float

    def __str__(self) -> str:
        tally = self.tally
        lines = [
            f"{self.found:,} of {self.rows:,} granules in {self.seconds * 1e3:,.1f} ms",
            f"runs of rows: {tally.runs:,}",
            *(f"  {count:,} left out by {cause}" for cause, count in tally.ruled_out.items()),
            f"chunks: {tally.decoded:,} read and decoded, {tally.cached:,} kept from before",
            f"store: {tally.requests:,} requests, {tally.nbytes:,} bytes",
            "time by stage, of threads side by side:",
            *(f"  {name}: {seconds * 1e3:,.1f} ms" for name, seconds in tally.seconds.items()),
        ]
        return "\n".join(lines)

    __repr__ = __str__

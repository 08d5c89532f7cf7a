"""SQL queries over ``meta``, the caller's tables, and the tables that functions make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
from datafusion import DataFrame

from l2view.errors import QueryError
from l2view.search.engine import Session
from l2view.search.facets import count_by_chunk
from l2view.search.logical_plan import plan_nodes, stops_early
from l2view.search.names import TABLE
from l2view.search.pruning import find_candidates
from l2view.search.sorting import first_rows
from l2view.search.table import MetaTable
from l2view.sql.functions import TableFunctions


@dataclass(frozen=True)
class SqlSession:
    """The tables and functions that SQL queries know.

    Parameters
    ----------
    table
        The table ``meta``; where it has no fields, there is none.
    tables
        The caller's own tables by name: whatever speaks Arrow (``pyarrow``, pandas, Polars,
        datasets).
    functions
        The table functions.
    """

    table: MetaTable
    tables: Mapping[str, Any] | None
    functions: TableFunctions

    def __post_init__(self) -> None:
        if self.tables is not None and not isinstance(self.tables, Mapping):
            raise QueryError(
                f"tables= maps names to tables, and is no {type(self.tables).__name__}"
            )
        if self.tables and TABLE in self.tables:
            raise QueryError(f'"{TABLE}" is the table of granules; name yours otherwise')

    def run(self, query: str, params: Mapping[str, Any] | None = None) -> DataFrame:
        """Plan a query that only reads, of the rows that indexes leave.

        The parameters and errors are those of `l2view.search.engine.Session.plan`.
        """
        return self._run(self._session(), query, params)

    def read(self, query: str, params: Mapping[str, Any] | None = None) -> pa.Table:
        """Run a query and read its rows.

        The parameters and errors are those of `run`.
        """
        session = self._session()
        with session.translate_errors():
            return self._run(session, query, params).to_arrow_table()

    def _session(self) -> Session:
        return Session(self.table, self._arrow_tables, self.functions)

    @cached_property
    def _arrow_tables(self) -> dict[str, pa.Table | pads.Dataset]:
        """The caller's tables; one that is a stream is read once."""
        return {
            name: table if isinstance(table, pa.Table | pads.Dataset) else pa.table(table)
            for name, table in (self.tables or {}).items()
        }

    def _run(self, session: Session, query: str, params: Mapping[str, Any] | None) -> DataFrame:
        table = self.table
        table.refresh()
        frame = session.plan(self.functions.begin(query, params or {}), params)
        with session.translate_errors():
            nodes = plan_nodes(frame)
            early = stops_early(nodes)
            if table.fields:
                counts = count_by_chunk(nodes, TABLE, table)
                if counts is not None:
                    return counts
                candidates = table.with_candidates(
                    find_candidates(session.context, frame, TABLE, table)
                )
                rows = first_rows(nodes, TABLE, candidates)
                candidates = candidates if rows is None else candidates.with_candidates(rows)
                session.query_table.decide(candidates, early=early)
            # The tables that functions made say now what is too much to go through.
            for function_table in self.functions.tables:
                function_table.early = early
            if self.functions.tables:
                frame.execution_plan()
        return frame

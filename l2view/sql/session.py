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
from l2view.scan.dataset import ArrowTable, TableDataset
from l2view.search.context import TABLE
from l2view.search.engine import Session
from l2view.search.logical_plan import plan_nodes
from l2view.search.pruning import find_candidates
from l2view.search.shortcuts import count_by_chunk, first_rows, stops_early
from l2view.search.table import MetaTable
from l2view.sql.functions import TableFunctions


@dataclass(frozen=True)
class SqlSession:
    """The tables and functions that SQL queries know.

    Beside ``meta``, where `table` has fields, these are the caller's own `tables`, whatever speaks
    Arrow (``pyarrow``, pandas, Polars, datasets), and the table functions.
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
        return self._plan(Session(self.table), query, params)

    def read(self, query: str, params: Mapping[str, Any] | None = None) -> pa.Table:
        """Run a query and read its rows. The parameters and errors are those of `run`."""
        session = Session(self.table)
        with session.translate_errors():
            return self._plan(session, query, params).to_arrow_table()

    @cached_property
    def _arrow_tables(self) -> dict[str, pa.Table | pads.Dataset]:
        """The caller's tables; one that is a stream is read once."""
        return {
            name: table if isinstance(table, pa.Table | pads.Dataset) else pa.table(table)
            for name, table in (self.tables or {}).items()
        }

    def _plan(self, session: Session, query: str, params: Mapping[str, Any] | None) -> DataFrame:
        table = self.table
        table.refresh()
        for name, arrow in self._arrow_tables.items():
            is_dataset = isinstance(arrow, pads.Dataset)
            session.register(name, TableDataset(ArrowTable(arrow)) if is_dataset else arrow)
        registered = len(session.datasets)
        frame = session.plan(self.functions.prepare(session, query, params or {}), params)
        with session.translate_errors():
            plan = frame.optimized_logical_plan()
            nodes = plan_nodes(plan)
            if table.fields:
                counts = count_by_chunk(nodes, table)
                if counts is not None:
                    return counts
                table = table.with_candidates(find_candidates(session.context, plan, table))
                rows = first_rows(nodes, table)
                table = table if rows is None else table.with_candidates(rows)
            session.decide(table, early=stops_early(nodes))
            # The tables that functions made say now what is too much to go through.
            if len(session.datasets) > registered:
                frame.execution_plan()
        return frame

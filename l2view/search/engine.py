"""DataFusion with the table ``meta`` and the ``ST_*`` functions, for one query.

Nothing here can write, or read anything but the tables that were registered: no DDL, DML,
COPY or SET is planned, and no name is ever taken for a file or URL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from datafusion import DataFrame, Expr, SQLOptions, Table, udtf

from l2view.errors import L2ViewError
from l2view.scan.dataset import TableDataset
from l2view.search.context import TABLE, geo_context
from l2view.search.errors import explain
from l2view.search.parameters import parameters
from l2view.search.table import MetaTable


class Session:
    """A DataFusion session for one query, without the table ``meta`` where `table` has no fields.

    One of its `partitions`, which run side by side, stops reading as soon as it has enough rows.
    """

    def __init__(self, table: MetaTable, partitions: int | None = None) -> None:
        self.table = table
        self.context = geo_context(partitions)
        self.datasets: list[TableDataset] = []
        """What the query scans, ``meta`` first."""
        self._failure: Exception | None = None
        self._tables: list[str] = []
        self._columns: dict[str, None] = {}
        if table.fields:
            self.register(TABLE, TableDataset(table))

    def register(self, name: str, table: pa.Table | TableDataset) -> None:
        """Make a table known."""
        if isinstance(table, TableDataset):
            self.context.register_dataset(name, table)
            self.datasets.append(table)
        else:
            self.context.from_arrow(table, name)
        self._tables.append(name)
        self._columns |= dict.fromkeys(table.schema.names)

    def register_function(
        self, name: str, function: Callable[[Sequence[Expr]], TableDataset]
    ) -> None:
        """Make a table function known, which is called with its arguments as a query is planned."""

        def call(*arguments: Any) -> Table:
            try:
                dataset = function([Expr(argument) for argument in arguments])
            except Exception as error:
                self._failure = error
                raise
            self.datasets.append(dataset)
            self._columns = dict.fromkeys([*dataset.schema.names, *self._columns])
            return Table(dataset)

        self.context.register_udtf(udtf(call, name))
        self._tables.append(f"{name}()")

    def plan(self, query: str, params: Mapping[str, Any] | None = None) -> DataFrame:
        """Plan an SQL query that only reads, with ``$name`` for each of `params`.

        These are numbers, strings, bytes, booleans, dates and times, shapely geometries,
        ``pyarrow`` scalars, and lists of them. A `QueryError` is raised where the query isn't
        valid, isn't one statement, or would write.
        """
        reads = SQLOptions().with_allow_ddl(False).with_allow_dml(False)
        values = parameters(params)
        with self.translate_errors():
            return self.context.sql(query, reads.with_allow_statements(False), param_values=values)

    def decide(self, table: MetaTable, *, early: bool) -> None:
        """Say which rows of ``meta`` the planned query looks at, and if its reader may stop early.

        Said once, before anything is read.
        """
        for dataset in self.datasets:
            is_meta = dataset.table is self.table
            dataset.decide(table if is_meta else dataset.table, early=early)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turn DataFusion's errors into l2view's, with the name that was meant."""
        try:
            yield
        except L2ViewError:
            raise
        except Exception as error:  # DataFusion raises bare Exceptions
            failures = [*(dataset.failure for dataset in self.datasets), self._failure]
            if failure := next(filter(None, failures), None):
                raise failure from None
            if re.search("FFI error: External error|GEOSException", str(error)):  # of ST_*
                self.table.require_geometries()
            raise explain(str(error), list(self._columns), self._tables) from error

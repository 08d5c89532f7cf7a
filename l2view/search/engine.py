"""DataFusion with the table ``meta`` and the ``ST_*`` functions, for one query.

Nothing here can write, or read anything but the tables that were registered: no DDL, DML,
COPY or SET is planned, and no name is ever taken for a file or URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import geodatafusion
import pyarrow as pa
import pyarrow.dataset as pads
from datafusion import DataFrame, SessionConfig, SessionContext, SQLOptions

from l2view.errors import L2ViewError, UnreadableGeometryError
from l2view.meta.footprints import unreadable_rows
from l2view.scan.dataset import TableDataset
from l2view.scan.filter import Condition
from l2view.scan.fragments import BATCH_ROWS
from l2view.scan.nulls import NullSafe
from l2view.search.errors import explain
from l2view.search.functions import FUNCTIONS
from l2view.search.names import TABLE
from l2view.search.parameters import parameters
from l2view.search.table import MetaPartition, MetaTable


class TableFunctionSet(Protocol):
    """Table functions, which make the tables of a query while it is planned."""

    @property
    def functions(self) -> Mapping[str, Any]:
        """The functions by name."""
        ...

    @property
    def tables(self) -> Sequence[TableDataset]:
        """The tables of the query."""
        ...

    @property
    def failure(self) -> Exception | None:
        """What stopped the planning, or the last scan."""
        ...

    def register(self, context: SessionContext) -> None:
        """Make the functions known to a context."""
        ...


class QueryTable:
    """The table ``meta`` of one query. Which rows it looks at is decided once, after planning.

    Parameters
    ----------
    table
        All of its rows.
    """

    def __init__(self, table: MetaTable) -> None:
        self.schema = table.schema
        self._table = table
        self._early: bool | None = None

    def __str__(self) -> str:
        return str(self._table)

    def decide(self, table: MetaTable, *, early: bool) -> None:
        """Look at the rows of `table` alone; the reader may stop `early`."""
        if self._early is not None:
            raise RuntimeError("which rows a query looks at is decided once")
        self._table, self._early = table, early

    def partitions(
        self, condition: Condition | None, *, early: bool = False, several: bool = False
    ) -> Sequence[MetaPartition]:
        """Return the partitions of the table."""
        return self._table.partitions(condition, early=early or bool(self._early), several=several)

    def count(self) -> int | None:
        """Return the number of rows, None where that takes reading."""
        return self._table.count()


@dataclass(frozen=True)
class Session:
    """A DataFusion session for one query.

    Parameters
    ----------
    table
        The table ``meta``; where it has no fields, there is none.
    tables
        Other tables by name: Arrow's tables and datasets.
    functions
        Table functions, None for none.
    partitions
        How many partitions run side by side; one stops reading as soon as it has enough rows.
    """

    table: MetaTable
    tables: Mapping[str, pa.Table | pads.Dataset] = field(default_factory=dict)
    functions: TableFunctionSet | None = None
    partitions: int | None = None

    @cached_property
    def query_table(self) -> QueryTable:
        """The table ``meta`` as the query reads it."""
        return QueryTable(self.table)

    @cached_property
    def _dataset(self) -> TableDataset:
        return TableDataset(self.query_table)

    @cached_property
    def context(self) -> SessionContext:
        """DataFusion's own session."""
        context = plain_context(self.partitions)
        geodatafusion.register_all(context)
        for function in FUNCTIONS:
            context.register_udf(function)
        if self.table.fields:
            context.register_dataset(TABLE, self._dataset)
        if self.functions is not None:
            self.functions.register(context)
        for name, table in self.tables.items():
            if isinstance(table, pads.Dataset):
                context.register_dataset(name, NullSafe(table))
            else:
                context.from_arrow(table, name)
        return context

    def plan(self, query: str, params: Mapping[str, Any] | None = None) -> DataFrame:
        """Plan an SQL query that only reads.

        Parameters
        ----------
        query
            One statement in DataFusion's dialect, with ``$name`` for each of `params`.
        params
            Values: numbers, strings, bytes, booleans, dates and times, shapely geometries,
            ``pyarrow`` scalars, and lists of them.

        Raises
        ------
        QueryError
            Where the query isn't valid, isn't one statement, or would write.
        """
        reads = SQLOptions().with_allow_ddl(False).with_allow_dml(False)
        values = parameters(params)
        with self.translate_errors():
            return self.context.sql(query, reads.with_allow_statements(False), param_values=values)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turn DataFusion's errors into l2view's, with the name that was meant."""
        try:
            yield
        except L2ViewError:
            raise
        except Exception as error:  # DataFusion raises bare Exceptions
            functions = self.functions
            failure = self._dataset.failure or (functions.failure if functions else None)
            if failure is not None:
                raise failure from None
            if re.search("FFI error: External error|GEOSException", str(error)):  # of ST_*
                _require_geometries(self.table)
            schemas = [] if functions is None else [table.schema for table in functions.tables]
            schemas += [self.table.schema] if self.table.fields else []
            columns = list(dict.fromkeys(name for schema in schemas for name in schema.names))
            table_functions = (
                [] if functions is None else [f"{name}()" for name in functions.functions]
            )
            tables = [*([TABLE] if self.table.fields else []), *self.tables, *table_functions]
            raise explain(str(error), columns, tables) from error


def plain_context(partitions: int | None = None) -> SessionContext:
    """Return a session of DataFusion without functions of ours."""
    # Rows come through Python: in many small batches that would take longer than the query.
    config = SessionConfig().with_batch_size(BATCH_ROWS)
    return SessionContext(
        config if partitions is None else config.with_target_partitions(partitions)
    )


def _require_geometries(table: MetaTable) -> None:
    """Raise where footprints aren't what their field says.

    Raises
    ------
    UnreadableGeometryError
        Naming the field and the first of the rows.
    """
    for stored in table.fields.values():
        if stored.geometry is None:
            continue
        for run in table.runs():
            column = table.read(run, [stored.name]).column(0)
            bad = unreadable_rows(column)
            if len(bad):
                value = column[int(bad[0])].as_py()
                text = value.hex() if isinstance(value, bytes) else value
                raise UnreadableGeometryError(
                    f'the field "{stored.name}" of idx {run.start + bad[0]} is not '
                    f"{stored.geometry}: {text[:60]}"
                )

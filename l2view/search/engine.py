"""DataFusion with the table ``meta`` and the ``ST_*`` functions.

Nothing here can write, or read anything but the tables that were registered: no DDL, DML,
COPY or SET is planned, and no name is ever taken for a file or URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import geodatafusion
import pyarrow as pa
import pyarrow.dataset as pads
from datafusion import DataFrame, SessionConfig, SessionContext, SQLOptions

from l2view.errors import L2ViewError, QueryError, UnreadableGeometryError
from l2view.index.candidates import EVERY
from l2view.meta.footprints import unreadable
from l2view.scan.dataset import TableDataset
from l2view.scan.fragments import BATCH_ROWS
from l2view.scan.nulls import NullSafe
from l2view.search.errors import explain
from l2view.search.facets import counted
from l2view.search.functions import FUNCTIONS
from l2view.search.logical_plan import line, stops_early
from l2view.search.names import TABLE
from l2view.search.parameters import parameters
from l2view.search.pruning import candidates
from l2view.search.sorting import first_rows
from l2view.search.table import MetaDataset
from l2view.sql.functions import TableFunctions


@dataclass(frozen=True)
class Session:
    """DataFusion over one collection's ``/meta``.

    Parameters
    ----------
    meta
        The fields; where there are none, there is no table of them.
    tables
        The caller's own tables by name: whatever speaks Arrow (``pyarrow``, pandas, Polars,
        datasets).
    functions
        The table functions, None where there are none.
    """

    meta: MetaDataset
    tables: Mapping[str, Any] = field(default_factory=dict)
    functions: TableFunctions | None = None

    @classmethod
    def of(cls, meta: MetaDataset, tables: Any, functions: TableFunctions) -> Session:
        """Return a session with the caller's tables.

        Raises
        ------
        QueryError
            Where they are no mapping.
        """
        if tables is not None and not isinstance(tables, Mapping):
            raise QueryError(f"tables= maps names to tables, and is no {type(tables).__name__}")
        return cls(meta, dict(tables or {}), functions)

    @cached_property
    def context(self) -> SessionContext:
        """DataFusion's own session."""
        # Rows come through Python: in many small batches that would take longer than the query.
        context = SessionContext(SessionConfig().with_batch_size(BATCH_ROWS))
        geodatafusion.register_all(context)
        for function in FUNCTIONS:
            context.register_udf(function)
        if self.meta.fields:
            context.register_dataset(TABLE, self.meta)
        if self.functions is not None:
            self.functions.register(context)
        for name, table in self.tables.items():
            if name == TABLE:
                raise QueryError(f'"{TABLE}" is the table of granules; name yours otherwise')
            if isinstance(table, pads.Dataset):
                context.register_dataset(name, NullSafe(table))
            else:
                context.from_arrow(table if _speaks_arrow(table) else pa.table(table), name)
        return context

    def run(self, query: str, params: Mapping[str, Any] | None = None) -> DataFrame:
        """Plan an SQL query that only reads, of the rows that indexes leave.

        The parameters and errors are those of `plan`.
        """
        if not self.meta.fields:
            frame = self.plan(query, params)
            with self.explained():
                self._begin(frame, stops_early(line(frame)))
            return frame
        self.meta.refresh()
        # A query keeps the table that it was planned with: each has one of its own.
        meta = self.meta.among(EVERY)
        with self._instead(meta):
            frame = self.plan(query, params)
            with self.explained():
                nodes = line(frame)
                counts = counted(nodes, TABLE, meta)
                if counts is not None:
                    return counts
                meta.restrict(candidates(self.context, frame, TABLE, meta))
                first = first_rows(self.context, nodes, TABLE, meta)
                meta.early = stops_early(nodes)
                self._begin(frame, meta.early)
        if first is not None:
            meta.restrict(first)
        return frame

    def _begin(self, frame: DataFrame, early: bool) -> None:
        """Let the tables that functions made say now what is too much to go through."""
        for made in self._made:
            made.early = early
        if self._made:
            frame.execution_plan()

    @contextmanager
    def _instead(self, meta: MetaDataset) -> Iterator[None]:
        """Let the table ``meta`` be another for a while; the caller's may be read but once."""
        self.context.deregister_table(TABLE)
        self.context.register_dataset(TABLE, meta)
        try:
            yield
        finally:
            self.context.deregister_table(TABLE)
            self.context.register_dataset(TABLE, self.meta)

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
        if self.functions is not None:
            query = self.functions.begin(query, params or {})
        with self.explained():
            return self.context.sql(query, reads.with_allow_statements(False), param_values=values)

    @property
    def _made(self) -> Sequence[TableDataset]:
        """The tables that the functions of the last query made."""
        return [] if self.functions is None else self.functions.tables

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn DataFusion's errors into l2view's, with the name that was meant."""
        self.meta.failure = None
        try:
            yield
        except L2ViewError:
            raise
        except Exception as error:  # DataFusion raises bare Exceptions
            functions = self.functions
            for failure in (self.meta.failure, None if functions is None else functions.failure):
                if failure is not None:
                    raise failure from None
            if re.search("FFI error: External error|GEOSException", str(error)):  # of ST_*
                _require_geometries(self.meta)
            schemas = [made.schema for made in self._made]
            schemas += [self.meta.schema] if self.meta.fields else []
            columns = list(dict.fromkeys(name for schema in schemas for name in schema.names))
            known = [] if functions is None else [f"{name}()" for name in functions.functions]
            tables = [*([TABLE] if self.meta.fields else []), *self.tables, *known]
            raise explain(str(error), columns, tables) from error


def _require_geometries(meta: MetaDataset) -> None:
    """Raise where footprints aren't what their field says.

    Raises
    ------
    UnreadableGeometryError
        Naming the field and the first of the rows.
    """
    for stored in meta.fields.values():
        if stored.geometry is None:
            continue
        for rows in meta.ranges():
            column = meta.read(rows, [stored.name]).column(0)
            bad = unreadable(column)
            if len(bad):
                value = column[int(bad[0])].as_py()
                text = value.hex() if isinstance(value, bytes) else value
                raise UnreadableGeometryError(
                    f'the field "{stored.name}" of idx {rows.start + bad[0]} is not '
                    f"{stored.geometry}: {text[:60]}"
                )


def _speaks_arrow(table: Any) -> bool:
    return hasattr(table, "__arrow_c_stream__") or hasattr(table, "__arrow_c_array__")

"""SQL queries over ``meta``, the caller's tables, and the tables that functions make.

These are ``zarr_groups()``, ``zarr_cells('path')``, ``cells('red')``, ….
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import zarr
from datafusion import DataFrame, Expr
from zarr.core.sync import sync

from l2view.arrays.threads import thread_pool
from l2view.cells.granules import cells
from l2view.cells.one_array import zarr_cells
from l2view.cells.scan import MAX_CELLS, require_free_loop
from l2view.cells.store import StoreTable, nodes
from l2view.errors import L2ViewError, QueryError, StoreError, UnsupportedArrayError
from l2view.scan.dataset import ArrowTable, TableDataset
from l2view.search.context import TABLE, plan_nodes
from l2view.search.engine import Session
from l2view.search.pruning import find_candidates
from l2view.search.query import Query
from l2view.search.shortcuts import count_by_chunk, first_rows, stops_early
from l2view.search.table import MetaTable
from l2view.sql.access import AllowStores, is_allowed, looks_like_store
from l2view.sql.arguments import positional
from l2view.stores.hierarchy import Hierarchy, join, resolve
from l2view.stores.open import Source, open_source, require_authorization
from l2view.stores.urls import is_url
from l2view.text import first_line, join_names, strip_credentials, unknown_name
from l2view.virtual.search import CollectionSearch


class ArgumentName(str):
    """The name of the argument that follows."""


MARK = secrets.token_hex(8)
"""What a text begins with that stands for an argument's name, and that no query can know."""

CELLS = ("decode", "max_cells")
QUERY = ("where", "bbox", "intersects", "datetime", "ids", "fields", "order_by", "limit")

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "zarr_groups": (),
    "zarr_arrays": (),
    "zarr_chunks": (),
    "zarr_cells": CELLS,
    "zarr": CELLS,
    "cells": (*QUERY, *CELLS),
}
"""The arguments by name of each function."""


@dataclass
class SqlSession:
    """The tables and functions that SQL queries know.

    Beside ``meta``, where `table` has fields, these are the caller's own `tables`, whatever speaks
    Arrow (``pyarrow``, pandas, Polars, datasets), and the table functions of a store.

    A `QueryError` is raised where `tables` are none, or `allow_stores` is no flag, and no paths or
    URLs.
    """

    table: MetaTable
    tables: Mapping[str, Any] | None
    source: Source
    search: CollectionSearch | None = None  # the collection that ``cells()`` searches
    allow_stores: AllowStores = False  # which other stores the functions may read
    max_cells: int = MAX_CELLS  # the most cells that are scanned; a call may ask for fewer

    def __post_init__(self) -> None:
        if self.tables is not None and not isinstance(self.tables, Mapping):
            raise QueryError(
                f"tables= maps names to tables, and is no {type(self.tables).__name__}"
            )
        if self.tables and TABLE in self.tables:
            raise QueryError(f'"{TABLE}" is the table of granules; name yours otherwise')
        allowed = self.allow_stores
        if isinstance(allowed, bool):
            return
        is_list = isinstance(allowed, Iterable) and not isinstance(allowed, str)
        prefixes: tuple[Any, ...] = tuple(allowed) if is_list else (allowed,)
        if not all(isinstance(prefix, str) and prefix for prefix in prefixes):
            raise QueryError(
                f"allow_stores= is True, False, or paths and URLs of stores, not {allowed!r}"
            )
        self.allow_stores = prefixes

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
        names = [name for name in ARGUMENTS if name != "cells" or self.search is not None]
        for name in names:
            session.register_function(name, partial(self._make_table, name, params or {}))
        frame = session.plan(positional(query, names, MARK), params)
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

    def _make_table(
        self, name: str, params: Mapping[str, Any], arguments: Sequence[Expr]
    ) -> TableDataset:
        """Call a function with constants and placeholders, as DataFusion plans it."""
        require_free_loop()
        positionals: list[Any] = []
        named: dict[str, Any] = {}
        pending = iter([_constant(name, params, argument) for argument in arguments])
        for value in pending:
            if isinstance(value, ArgumentName):
                allowed = ARGUMENTS[name]
                if value not in allowed:
                    raise QueryError(f"{name}(): {unknown_name('argument', value, allowed)}")
                if value in named:
                    raise QueryError(f"{name}() has the argument {value} twice")
                named[str(value)] = next(pending, None)
            elif named:
                raise QueryError(f"{name}() has an argument without a name after one with a name")
            elif name != "cells" and not isinstance(value, str):
                raise QueryError(f"{name}() takes paths, which are texts, not {value!r}")
            else:
                positionals.append(value)
        functions: Mapping[str, Callable[..., TableDataset]] = {
            "zarr_groups": partial(self._store_table, "group"),
            "zarr_arrays": partial(self._store_table, "array"),
            "zarr_chunks": partial(self._store_table, "chunk"),
            "zarr_cells": self._array_cells,
            "zarr": self._arrays_or_cells,
            "cells": partial(self._search_cells, params),
        }
        call = partial(functions[name], name, *positionals, **named)
        # Where DataFusion plans, none of its own queries can run.
        return thread_pool("sql", 4).submit(call).result()

    def _store_table(self, kind: str, name: str, *store: str) -> TableDataset:
        return TableDataset(StoreTable(self._source(name, store), kind))

    def _array_cells(
        self, name: str, *paths: str, decode: Any = False, max_cells: Any = None
    ) -> TableDataset:
        if not 1 <= len(paths) <= 2:
            raise QueryError(
                f"{name}() takes the path of an array, and before it that of another store"
            )
        *store, path = paths
        source = self._source(name, store)
        require_authorization(source)
        array, most = _array(source, path), self._cell_limit(max_cells)
        return zarr_cells(array, decode=_flag("decode", decode), max_cells=most)

    def _arrays_or_cells(self, name: str, *paths: str, **options: Any) -> TableDataset:
        """Return cells where an array is named, else arrays."""
        lists_arrays = not paths
        if len(paths) == 1 and _node_type(self.source, paths[0]) is None:
            # Whether there is a store at a place is nobody's business who may not read it.
            lists_arrays = is_allowed(paths[0], self.allow_stores) and looks_like_store(paths[0])
        if not lists_arrays:
            return self._array_cells(name, *paths, **options)
        if options:
            raise QueryError(f"zarr() takes {join_names(options)} with the path of an array only")
        return TableDataset(StoreTable(self._source(name, paths), "array"))

    def _search_cells(
        self, params: Mapping[str, Any], name: str, *variable: Any, **query: Any
    ) -> TableDataset:
        if len(variable) != 1 or not isinstance(variable[0], str):
            raise QueryError("cells() takes the name of a variable, a text, and a search by name")
        decode = _flag("decode", query.pop("decode", True))
        most = self._cell_limit(query.pop("max_cells", None))
        if isinstance(query.get("where"), str):
            names = set(re.findall(r"\$(\w+)", query["where"]))
            query["params"] = {name: params[name] for name in names & params.keys()}
        assert self.search is not None
        fields = query.pop("fields", None)
        if fields is None:  # footprints are long for one cell
            columns = self.search.table.fields.values()
            fields = [field.name for field in columns if field.geometry is None]
        selected = self.search.select_fields(fields)
        tree = self.search.tree(Query(**query), selected, later=True)
        return cells(tree, variable[0], decode=decode, max_cells=most)

    def _cell_limit(self, value: Any) -> int:
        if value is None:
            return self.max_cells
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value != int(value) or value < 0:
            raise QueryError(f"max_cells is a number of cells, not {value!r}")
        return min(int(value), self.max_cells)

    def _source(self, name: str, store: Sequence[str]) -> Source:
        """Open the store that a function reads."""
        if not store:
            return self.source
        if len(store) > 1:
            raise QueryError(f"{name}() takes one path or URL of a store")
        (location,) = store
        if not is_allowed(location, self.allow_stores):
            redacted = strip_credentials(location)
            raise StoreError(
                f"{name}() asks for the store {redacted}, which this query may not read: "
                f"allow_stores=[{redacted!r}] allows it (--allow-store on the command line), and "
                "True any"
            )
        return open_source(location)


def _constant(function: str, params: Mapping[str, Any], argument: Expr) -> Any:
    """Return the value of an argument, which is a constant or a placeholder."""
    variant = argument.variant_name()
    if variant == "Placeholder":
        placeholder = str(argument).removeprefix("Expr($").removesuffix(")")
        if placeholder not in params:
            raise QueryError(f"the placeholder ${placeholder} has no value; pass it in params=")
        value = params[placeholder]
    elif variant == "Literal":
        value = argument.python_value()
    else:
        raise QueryError(f"the arguments of {function}() are constants, not {argument}")
    value = value.as_py() if isinstance(value, pa.Scalar) else value
    if variant == "Literal" and isinstance(value, str) and value.startswith(MARK):
        return ArgumentName(value.removeprefix(MARK))
    return value.item() if isinstance(value, np.generic) else value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise QueryError(f"{name} is true or false, not {value!r}")
    return value


def _node_type(source: Source, path: str) -> str | None:
    """Type of the node at a path, ``group`` or ``array``, None where there is none."""
    key = resolve(path)
    if key is None:
        return None
    try:
        document = sync(Hierarchy(source.store, source.path).document(key))
    except UnsupportedArrayError as error:
        raise QueryError(f"the array {path} can't be opened: {error}") from error
    return None if document is None else str(document["node_type"])


def _array(source: Source, path: str) -> zarr.Array[Any]:
    """Open the array at a path.

    A `QueryError` is raised where there is none, or zarr can't open it.
    """
    key = resolve(path)
    if key is None or _node_type(source, path) != "array":
        paths = [node.path for node in nodes(source) if node.document and node.is_array]
        redacted = strip_credentials(path)
        another = ". Another store is named before its array, and read where allow_stores= says so"
        hint = another if is_url(path) or path.startswith("/") else ""
        raise QueryError(unknown_name("array", redacted, paths) + hint)
    try:
        return zarr.open_array(source.store, path=join(source.path, key), mode="r")
    except L2ViewError:
        raise
    except Exception as error:  # of codecs and data types that zarr doesn't know
        raise QueryError(f"the array {path} can't be opened: {first_line(error)}") from error

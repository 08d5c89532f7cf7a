"""The table functions of SQL: ``zarr_groups()``, ``zarr_cells('path')``, ``cells('red')``, ….

DataFusion plans them with arguments by position only, so those by name (``decode => true``) are
written as pairs of a name and a value before it sees them. Values never become a part of a query.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import zarr
from datafusion import Expr, SessionContext, Table, udtf
from zarr.core.sync import sync

from l2view.errors import (
    L2ViewError,
    QueryError,
    StoreError,
    said,
    unknown,
    without_credentials,
)
from l2view.hierarchy import Hierarchy, join, resolve
from l2view.stores import URL, Source, open_source, require_authorization
from l2view.tables.array import cells
from l2view.tables.cells import MAX_CELLS
from l2view.tables.chunks import StoredChunks
from l2view.tables.dataset import TableDataset
from l2view.tables.nodes import Nodes, nodes

type AllowStores = bool | str | Iterable[str]
"""Which stores beside its own a query may name: all, or those at and below some paths or URLs."""

NAMED = " =>"
"""What follows the name of an argument in the text that stands for it."""

TOKEN = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/|\w+|=>|[()\[\]]|\s+|.",
    re.DOTALL,
)
"""What SQL is made of, as far as it takes to find calls and their arguments: texts, quoted names,
comments, words, arrows, brackets."""

SPACE = re.compile(r"\s+|--.*|/\*.*", re.DOTALL)

READERS = ThreadPoolExecutor(4, thread_name_prefix="l2view-sql")
"""Threads in which tables are made: where DataFusion plans, none of its own queries can run."""


@dataclass(eq=False)
class TableFunctions:
    """The table functions of one session.

    Parameters
    ----------
    source
        The store that they read.
    search
        Returns the cells of a variable of the granules that a search finds, None where there is
        nothing to search.
    allow_stores
        Which other stores they may read.
    max_cells
        The most cells that are gone through, unless a call says otherwise.
    """

    source: Source
    search: Callable[..., TableDataset] | None = None
    allow_stores: AllowStores = False
    max_cells: int = MAX_CELLS
    params: Mapping[str, Any] = field(default_factory=dict)
    """The values of the placeholders of the query that is planned."""
    made: list[TableDataset] = field(default_factory=list)
    """The tables of that query."""
    _failure: Exception | None = None

    @property
    def failure(self) -> Exception | None:
        """What stopped the planning, or the last scan."""
        return next((t.failure for t in self.made if t.failure is not None), self._failure)

    @property
    def functions(self) -> Mapping[str, Callable[..., TableDataset]]:
        """The functions by name."""
        found: dict[str, Callable[..., TableDataset]] = {
            "zarr_groups": self._groups,
            "zarr_arrays": self._arrays,
            "zarr_chunks": self._chunks,
            "zarr_cells": self._cells,
            "zarr": self._zarr,
        }
        return found if self.search is None else found | {"cells": self._found}

    def register(self, context: SessionContext) -> None:
        """Make the functions known to a session."""
        for name in self.functions:
            context.register_udtf(udtf(self._called(name), name))

    def begin(self, query: str, params: Mapping[str, Any]) -> str:
        """Return a query as DataFusion takes it, which is planned next."""
        self.params, self.made, self._failure = params, [], None
        return positional(query, self.functions)

    def _called(self, name: str) -> Callable[..., Table]:
        """Return a function as DataFusion calls it."""

        def call(*arguments: Any) -> Table:
            try:
                values = [self._value(name, Expr(one)) for one in arguments]
                made = READERS.submit(self._make, name, values).result()
            except Exception as error:
                self._failure = error
                raise
            self.made.append(made)
            return Table(made)

        return call

    def _value(self, name: str, argument: Expr) -> Any:
        """Return the value of an argument, which is a constant or a placeholder."""
        if argument.variant_name() == "Placeholder":
            placeholder = str(argument).removeprefix("Expr($").removesuffix(")")
            if placeholder not in self.params:
                raise QueryError(f"the placeholder ${placeholder} has no value; pass it in params=")
            found = self.params[placeholder]
        elif argument.variant_name() == "Literal":
            found = argument.python_value()
        else:
            raise QueryError(f"the arguments of {name}() are constants, not {argument}")
        return found.as_py() if isinstance(found, pa.Scalar) else found

    def _make(self, name: str, values: Sequence[Any]) -> TableDataset:
        function = self.functions[name]
        given, named = [], {}
        pending = iter(values)
        for value in pending:
            if isinstance(value, str) and value.endswith(NAMED):
                named[value.removesuffix(NAMED)] = next(pending, None)
            elif named:
                raise QueryError(f"{name}() has an argument without a name after one with a name")
            else:
                given.append(value)
        known = ARGUMENTS[name]
        for argument in named:
            if argument not in known:
                raise QueryError(f"{name}(): {unknown('argument', argument, known)}")
        if name != "cells":
            for value in given:
                if not isinstance(value, str):
                    raise QueryError(f"{name}() takes paths, which are texts, not {value!r}")
        return function(*given, **named)

    def _groups(self, *store: str) -> TableDataset:
        return TableDataset(Nodes(self._source("zarr_groups", store), "group"))

    def _arrays(self, *store: str) -> TableDataset:
        return TableDataset(Nodes(self._source("zarr_arrays", store), "array"))

    def _chunks(self, *store: str) -> TableDataset:
        return TableDataset(StoredChunks(self._source("zarr_chunks", store)))

    def _cells(
        self, *place: str, decode: bool = False, max_cells: int | None = None
    ) -> TableDataset:
        if not 1 <= len(place) <= 2:
            raise QueryError(
                "zarr_cells() takes the path of an array, and before it that of another store"
            )
        *store, path = place
        source = self._source("zarr_cells", store)
        require_authorization(source)
        return cells(
            _array(source, path), decode=_flag("decode", decode), max_cells=self._most(max_cells)
        )

    def _zarr(self, *place: str, **options: Any) -> TableDataset:
        """Return cells where an array is named, else arrays."""
        if not place:
            return self._arrays()
        if len(place) == 1 and _kind(self.source, place[0]) != "array":
            if _kind(self.source, place[0]) == "group" or not _is_place(place[0]):
                return self._cells(*place, **options)  # which says what there is
            return self._arrays(*place)
        return self._cells(*place, **options)

    def _found(self, *variable: Any, **asked: Any) -> TableDataset:
        if len(variable) != 1 or not isinstance(variable[0], str):
            raise QueryError("cells() takes the name of a variable, a text, and a search by name")
        asked["decode"] = _flag("decode", asked.pop("decode", True))
        asked["max_cells"] = self._most(asked.pop("max_cells", None))
        if isinstance(asked.get("where"), str):
            names = set(re.findall(r"\$(\w+)", asked["where"]))
            asked["params"] = {n: value for n, value in self.params.items() if n in names}
        assert self.search is not None
        return self.search(variable[0], **asked)

    def _most(self, said: Any) -> int:
        if said is None:
            return self.max_cells
        if isinstance(said, bool) or not isinstance(said, int | float) or said < 0:
            raise QueryError(f"max_cells is a number of cells, not {said!r}")
        return int(said)

    def _source(self, name: str, store: Sequence[str]) -> Source:
        """Return the store that a function reads."""
        if not store:
            return self.source
        if len(store) > 1:
            raise QueryError(f"{name}() takes one path or URL of a store")
        (place,) = store
        if not is_allowed(place, self.allow_stores):
            raise StoreError(
                f"{name}() asks for the store {without_credentials(place)}, which this query may "
                f"not read: allow_stores=[{without_credentials(place)!r}] allows it, and True any"
            )
        return open_source(place)


ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "zarr_groups": (),
    "zarr_arrays": (),
    "zarr_chunks": (),
    "zarr_cells": ("decode", "max_cells"),
    "zarr": ("decode", "max_cells"),
    "cells": (
        "where",
        "bbox",
        "intersects",
        "datetime",
        "ids",
        "fields",
        "order_by",
        "limit",
        "decode",
        "max_cells",
    ),
}
"""The arguments by name of each function."""


def positional(query: str, names: Iterable[str]) -> str:
    """Return a query in which the named arguments of some functions stand as pairs.

    Examples
    --------
    >>> positional("SELECT * FROM cells('a => b', decode => true)", ["cells"])
    "SELECT * FROM cells('a => b', 'decode =>' , true)"
    """
    known = set(names)
    tokens = [match.group() for match in TOKEN.finditer(query)]
    meant = [number for number, token in enumerate(tokens) if not SPACE.fullmatch(token)]
    depth = 0
    calls: list[int] = []
    for at, number in enumerate(meant):
        text = tokens[number]
        after = tokens[meant[at + 1]] if at + 1 < len(meant) else ""
        if text in ("(", "["):
            depth += 1
        elif text in (")", "]"):
            depth -= 1
            while calls and calls[-1] > depth:
                calls.pop()
        elif text.lower() in known and after == "(":
            tokens[number] = text.lower()
            calls.append(depth + 1)
        elif after == "=>" and text.isidentifier() and calls and calls[-1] == depth:
            tokens[number] = f"'{text.lower()}{NAMED}'"
            tokens[meant[at + 1]] = ","
    return "".join(tokens)


def is_allowed(place: str, allowed: AllowStores) -> bool:
    """Return whether a query may read the store at a path or URL."""
    if isinstance(allowed, bool):
        return allowed
    prefixes = [allowed] if isinstance(allowed, str) else list(allowed)
    return any(_is_below(place, prefix) for prefix in prefixes)


def _is_below(place: str, prefix: str) -> bool:
    """Return whether a path or URL is another one, or lies below it."""
    mine, other = _local(place), _local(prefix)
    if (mine is None) != (other is None):
        return False
    if mine is not None and other is not None:
        return mine == other or other in mine.parents
    parts = unquote(urlsplit(place).path).split("/")
    if ".." in parts or "." in parts:
        return False
    return place.rstrip("/") == prefix.rstrip("/") or place.startswith(f"{prefix.rstrip('/')}/")


def _local(place: str) -> Path | None:
    """Return the folder that a path or URL is of, without links; None of another URL."""
    if place.startswith("file://"):
        place = unquote(urlsplit(place).path)
    return None if URL.match(place) else Path(place).expanduser().resolve()


def _is_place(text: str) -> bool:
    """Return whether a text is a URL, or the path of something that there is."""
    local = _local(text)
    return local is None or local.exists()


def _flag(name: str, said: Any) -> bool:
    if not isinstance(said, bool):
        raise QueryError(f"{name} is true or false, not {said!r}")
    return said


def _kind(source: Source, path: str) -> str | None:
    """Return whether there is a group or an array at a path, None where there is nothing."""
    place = resolve(path)
    if place is None:
        return None
    document = sync(Hierarchy(source.store, source.path).document(place))
    return None if document is None else str(document["node_type"])


def _array(source: Source, path: str) -> zarr.Array[Any]:
    """Return the array at a path.

    Raises
    ------
    QueryError
        Where there is none, or zarr can't open it.
    """
    place = resolve(path)
    if place is None or _kind(source, path) != "array":
        paths = [
            node.path
            for node in nodes(source)
            if node.document is not None and node.document["node_type"] == "array"
        ]
        raise QueryError(unknown("array", path, paths))
    try:
        return zarr.open_array(source.store, path=join(source.path, place), mode="r")
    except L2ViewError:
        raise
    except Exception as error:  # of codecs and data types that zarr doesn't know
        raise QueryError(f"the array {path} can't be opened: {said(error)}") from error

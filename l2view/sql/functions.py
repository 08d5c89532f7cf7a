"""The table functions of SQL: ``zarr_groups()``, ``zarr_cells('path')``, ``cells('red')``, ….

DataFusion plans them with arguments by position only, so those by name (``decode => true``) are
written as pairs of a name and a value before it sees them. Values never become a part of a query.
"""

from __future__ import annotations

import math
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import zarr
from datafusion import Expr, SessionContext, Table, udtf
from zarr.core.sync import sync

from l2view.cells.chunks import StoredChunks
from l2view.cells.nodes import Nodes, nodes
from l2view.cells.one_array import zarr_cells
from l2view.cells.scan import MAX_CELLS, require_free_loop
from l2view.errors import L2ViewError, QueryError, StoreError, UnsupportedArrayError
from l2view.scan.dataset import TableDataset
from l2view.stores.hierarchy import Hierarchy, join, resolve
from l2view.stores.open import Source, open_source, require_authorization
from l2view.stores.urls import is_url
from l2view.text import first_line, join_names, strip_credentials, unknown_name

type AllowStores = bool | str | Iterable[str]
"""Which stores beside its own a query may name: all, or those at and below some paths or URLs."""

TOKEN = re.compile(
    r"[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(\w*)\$.*?\$\1\$|--[^\n]*"
    r"|/\*|\*/|\w+|=>|:=|\s+|.",
    re.DOTALL,
)
"""What SQL is made of, as far as it takes to find calls and their arguments: texts, quoted names,
comments (which nest), words, arrows, brackets."""

SPACE = re.compile(r"\s+|--.*", re.DOTALL)

UNSAFE = re.compile(r"[\\\s\x00-\x1f\x7f]")
"""What others may read otherwise in a URL than it is checked here."""


@lru_cache(maxsize=1)
def _readers(process: int) -> ThreadPoolExecutor:
    """Return the threads of a process in which tables are made.

    Where DataFusion plans, none of its own queries can run.
    """
    return ThreadPoolExecutor(4, thread_name_prefix="l2view-sql")


class Name(str):
    """The name of the argument that follows."""


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
        The most cells that are gone through; a call may ask for fewer.

    Raises
    ------
    QueryError
        Where `allow_stores` is no flag, and no paths or URLs.
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
    _mark: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        said = self.allow_stores
        if not isinstance(said, bool):
            several = isinstance(said, Iterable) and not isinstance(said, str)
            prefixes: tuple[Any, ...] = tuple(said) if several else (said,)
            if not all(isinstance(one, str) and one for one in prefixes):
                raise QueryError(
                    "allow_stores= is True, False, or paths and URLs of stores, not "
                    f"{self.allow_stores!r}"
                )
            self.allow_stores = prefixes

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
        return positional(query, self.functions, self._mark)

    def _called(self, name: str) -> Callable[..., Table]:
        """Return a function as DataFusion calls it."""

        def call(*arguments: Any) -> Table:
            try:
                require_free_loop()
                values = [self._value(name, Expr(one)) for one in arguments]
                made = _readers(os.getpid()).submit(self._make, name, values).result()
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
            found = found.as_py() if isinstance(found, pa.Scalar) else found
            if isinstance(found, str) and found.startswith(self._mark):
                return Name(found.removeprefix(self._mark))
        else:
            raise QueryError(f"the arguments of {name}() are constants, not {argument}")
        if isinstance(found, np.generic):
            return found.item()
        return found.as_py() if isinstance(found, pa.Scalar) else found

    def _make(self, name: str, values: Sequence[Any]) -> TableDataset:
        given: list[Any] = []
        named: dict[str, Any] = {}
        pending = iter(values)
        for value in pending:
            if isinstance(value, Name):
                if value not in ARGUMENTS[name]:
                    raise QueryError(
                        f"{name}(): {unknown_name('argument', value, ARGUMENTS[name])}"
                    )
                if value in named:
                    raise QueryError(f"{name}() has the argument {value} twice")
                named[str(value)] = next(pending, None)
            elif named:
                raise QueryError(f"{name}() has an argument without a name after one with a name")
            else:
                given.append(value)
        if name != "cells":
            for value in given:
                if not isinstance(value, str):
                    raise QueryError(f"{name}() takes paths, which are texts, not {value!r}")
        return self.functions[name](*given, **named)

    def _groups(self, *store: str) -> TableDataset:
        return TableDataset(Nodes(self._source("zarr_groups", store), "group"))

    def _arrays(self, *store: str) -> TableDataset:
        return TableDataset(Nodes(self._source("zarr_arrays", store), "array"))

    def _chunks(self, *store: str) -> TableDataset:
        return TableDataset(StoredChunks(self._source("zarr_chunks", store)))

    def _cells(
        self, *place: str, decode: Any = False, max_cells: Any = None, name: str = "zarr_cells"
    ) -> TableDataset:
        if not 1 <= len(place) <= 2:
            raise QueryError(
                f"{name}() takes the path of an array, and before it that of another store"
            )
        *store, path = place
        source = self._source(name, store)
        require_authorization(source)
        return zarr_cells(
            _array(source, path), decode=_flag("decode", decode), max_cells=self._most(max_cells)
        )

    def _zarr(self, *place: str, **options: Any) -> TableDataset:
        """Return cells where an array is named, else arrays."""
        arrays = not place
        if len(place) == 1 and _kind(self.source, place[0]) is None:
            # Whether there is a store at a place is nobody's business who may not read it.
            arrays = is_allowed(place[0], self.allow_stores) and _is_place(place[0])
        if not arrays:
            return self._cells(*place, **options, name="zarr")
        if options:
            raise QueryError(f"zarr() takes {join_names(options)} with the path of an array only")
        return TableDataset(Nodes(self._source("zarr", place), "array"))

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
        whole = isinstance(said, int | float) and math.isfinite(said) and said == int(said)
        if isinstance(said, bool) or not whole or said < 0:
            raise QueryError(f"max_cells is a number of cells, not {said!r}")
        return min(int(said), self.max_cells)

    def _source(self, name: str, store: Sequence[str]) -> Source:
        """Return the store that a function reads."""
        if not store:
            return self.source
        if len(store) > 1:
            raise QueryError(f"{name}() takes one path or URL of a store")
        (place,) = store
        if not is_allowed(place, self.allow_stores):
            shown = strip_credentials(place)
            raise StoreError(
                f"{name}() asks for the store {shown}, which this query may not read: "
                f"allow_stores=[{shown!r}] allows it (--allow-store on the command line), and "
                "True any"
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


def positional(query: str, names: Iterable[str], mark: str) -> str:
    """Return a query in which the named arguments of some functions stand as pairs.

    Parameters
    ----------
    query
        The query.
    names
        The functions.
    mark
        What the text begins with that stands for an argument's name.

    Examples
    --------
    >>> positional("SELECT * FROM cells('a => b', decode => true)", ["cells"], "#")
    "SELECT * FROM cells('a => b', '#decode' , true)"
    """
    known = set(names)
    tokens = [match.group() for match in TOKEN.finditer(query)]
    meant = _meant(tokens)
    depth = 0
    calls: list[int] = []
    for at, number in enumerate(meant):
        text = tokens[number]
        word = text.strip('"').lower()
        after = tokens[meant[at + 1]] if at + 1 < len(meant) else ""
        if text in ("(", "[", "{"):
            depth += 1
        elif text in (")", "]", "}"):
            depth -= 1
            while calls and calls[-1] > depth:
                calls.pop()
        elif word in known and after == "(":
            tokens[number] = word
            calls.append(depth + 1)
        elif after in ("=>", ":=") and word.isidentifier() and calls and calls[-1] == depth:
            tokens[number] = f"'{mark}{word}'"
            tokens[meant[at + 1]] = ","
    return "".join(tokens)


def _meant(tokens: Sequence[str]) -> list[int]:
    """Return the numbers of tokens that are neither space nor comment."""
    found, within = [], 0
    for number, token in enumerate(tokens):
        if token == "/*":  # noqa: S105 (no secret)
            within += 1
        elif token == "*/" and within:  # noqa: S105
            within -= 1
        elif not within and not SPACE.fullmatch(token):
            found.append(number)
    return found


def is_allowed(place: str, allowed: AllowStores) -> bool:
    """Return whether a query may read the store at a path or URL."""
    if isinstance(allowed, bool):
        return allowed
    prefixes = [allowed] if isinstance(allowed, str) else list(allowed)
    return any(_is_below(place, prefix) for prefix in prefixes)


def _is_below(place: str, prefix: str) -> bool:
    """Return whether a path or URL is another one, or lies below it."""
    mine, other = _local(place), _local(prefix)
    if mine is not None and other is not None:
        return mine == other or other in mine.parents
    if mine is not None or other is not None or not is_url(place):
        return False
    # What is checked must be what is opened, so nothing is left to be resolved or decoded.
    decoded = unquote(unquote(place))
    if UNSAFE.search(decoded) or {"..", "."} & set(urlsplit(decoded).path.split("/")):
        return False
    return place.rstrip("/") == prefix.rstrip("/") or place.startswith(f"{prefix.rstrip('/')}/")


def _local(place: str) -> Path | None:
    """Return the folder that a path or URL is of, without links; None of anything else."""
    if place.startswith("file://"):
        place = unquote(urlsplit(place).path)
    if is_url(place) or "\0" in place:
        return None
    try:
        return Path(place).expanduser().resolve()
    except (RuntimeError, OSError):  # of a user that there isn't, of links in a circle
        return None


def _is_place(text: str) -> bool:
    """Return whether a text is a URL, or the path of something that there is."""
    local = _local(text)
    return bool(is_url(text)) or (local is not None and local.exists())


def _flag(name: str, said: Any) -> bool:
    if not isinstance(said, bool):
        raise QueryError(f"{name} is true or false, not {said!r}")
    return said


def _kind(source: Source, path: str) -> str | None:
    """Return whether there is a group or an array at a path, None where there is nothing."""
    place = resolve(path)
    if place is None:
        return None
    try:
        document = sync(Hierarchy(source.store, source.path).document(place))
    except UnsupportedArrayError as error:
        raise QueryError(f"the array {path} can't be opened: {error}") from error
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
        shown = strip_credentials(path)
        another = ". Another store is named before its array, and read where allow_stores= says so"
        hint = another if is_url(path) or path.startswith("/") else ""
        raise QueryError(unknown_name("array", shown, paths) + hint)
    try:
        return zarr.open_array(source.store, path=join(source.path, place), mode="r")
    except L2ViewError:
        raise
    except Exception as error:  # of codecs and data types that zarr doesn't know
        raise QueryError(f"the array {path} can't be opened: {first_line(error)}") from error

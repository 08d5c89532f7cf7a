"""The granules that a search found, held as Arrow columns.

Nothing here is a Python object per granule: a name is found by bisection, and a row
becomes a dictionary when its attributes are asked for, a block of rows at a time.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from l2view.arrays.threads import thread_pool
from l2view.granules import Location
from l2view.meta.schema import ROW
from l2view.search.table import MetaTable
from l2view.stores.hierarchy import JSON, METADATA_KEYS
from l2view.text import join_names
from l2view.virtual.attributes import json_columns
from l2view.virtual.pickling import Compressed

MAX_NAMES = 6  # how many granules a message names
BLOCK = 256  # how many rows are turned into attributes at once


def submit[*A, R](call: Callable[[*A], R], *arguments: *A) -> Future[R]:
    """Run in a thread what takes zarr's loop from within it; zarr needs its own for that."""
    return thread_pool("readers", 8).submit(call, *arguments)


class Names(Sequence[str]):
    """The names of groups, as a sequence of strings over an Arrow array."""

    def __init__(self, array: pa.LargeStringArray) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Names: ...
    def __getitem__(self, index: int | slice) -> str | Names:
        selected = self.array[index]
        return Names(selected) if isinstance(index, slice) else str(selected)

    def __iter__(self) -> Iterator[str]:
        """Yield the names, turning a block of them into Python's strings at a time."""
        for start in range(0, len(self.array), BLOCK):
            yield from self.array[start : start + BLOCK].to_pylist()

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        return bool(pc.index(self.array, pa.scalar(name, self.array.type)).as_py() >= 0)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return bool(self.array.equals(other.array))
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self):,} names: {join_names(self[:3])}{', …' if len(self) > 3 else ''}>"


class Granules:
    """What a view knows of its granules.

    One row a granule, the `table` has the row number and the selected fields, `names` the name of
    its group, `locations` the fields that a layout locates it by. Of a snapshot, which stays what
    it is, the table and names of `rows` are read again from `meta` when they are needed, and a
    pickle needn't hold them.
    """

    def __init__(
        self,
        table: pa.Table | None,
        names: pa.Array | None,
        locations: pa.Table,
        meta: MetaTable | None = None,
        selected: Sequence[str] = (),
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self.locations = locations
        self.meta: Any = meta
        self.selected = selected
        known = {"table": table, "names": names, "rows": rows}
        self.__dict__.update({name: value for name, value in known.items() if value is not None})
        self._block = lru_cache(maxsize=32)(
            lambda block: json_columns(self.table.slice(block * BLOCK, BLOCK))
        )
        self.row = lru_cache(maxsize=4096)(self._find)

    def __getstate__(self) -> JSON:
        names = ["locations", *(["table", "names"] if self.meta is None else ["rows"])]
        state: JSON = {"table": None, "names": None, "meta": self.meta, "selected": self.selected}
        return state | {name: Compressed(getattr(self, name)) for name in names}

    def __setstate__(self, state: JSON) -> None:
        self.__init__(**state)  # type: ignore[misc]

    async def load(self) -> None:
        """Read again what a pickle left out; in a thread, as it takes an event loop."""
        if not {"table", "names"} <= self.__dict__.keys():
            future = submit(lambda: (self.table, self.names))
            await asyncio.wrap_future(future)

    @cached_property
    def table(self) -> pa.Table:
        """The row number and the selected fields, one row a granule."""
        return self.meta.take(self.rows, self.fields)

    @property
    def schema(self) -> pa.Schema:
        """The row number and the selected fields, as Arrow has them."""
        if self.meta is None:
            return self.table.schema
        names = [ROW, *self.selected]
        return pa.schema([self.meta.schema.field(name) for name in names])

    @property
    def fields(self) -> list[str]:
        """The names of the row number and the selected fields."""
        return list(self.schema.names)

    @property
    def all_fields(self) -> pa.Schema:
        """All fields of the granules, selected or not."""
        return self.table.schema if self.meta is None else self.meta.schema

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Read only these fields, selected or not."""
        selected = "table" in self.__dict__ and set(names) <= set(self.table.schema.names)
        if self.meta is None or selected:
            return self.table.select(list(names))
        return self.meta.take(self.rows, list(names))

    def available(self, names: Sequence[str]) -> pa.Table:
        """Read those of some fields that there are, selected or not."""
        return self.columns([name for name in names if name in self.all_fields.names])

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The row numbers, of shape (n,)."""
        return np.asarray(self.table.column(ROW).to_numpy())

    @cached_property
    def names(self) -> Any:
        """The name of each granule's group, an Arrow array of shape (n,)."""
        ids = self.meta.take(self.rows, ["id"]).column(0) if "id" in self.meta.fields else None
        return group_names(pa.chunked_array([pa.array(self.rows)]), ids, {ROW, *self.selected})

    @cached_property
    def _order(self) -> NDArray[np.uint64]:
        """The granules by their names' bytes."""
        return np.asarray(pc.sort_indices(self.names).to_numpy())

    def __len__(self) -> int:
        return int(self.locations.num_rows)

    def head(self, count: int) -> Granules:
        """Return the first `count` of the granules."""
        # Not to be read again: names that are made of fewer rows may be others.
        tables = (self.table.slice(0, count), self.names.slice(0, count))
        return Granules(*tables, self.locations.slice(0, count))

    def _find(self, name: str) -> int | None:
        """Return the row of the granule called `name`, None where there is none."""
        position = bisect_left(
            self._order, name.encode(), key=lambda row: self.name(int(row)).encode()
        )
        row = int(self._order[position]) if position < len(self._order) else -1
        return row if row >= 0 and self.name(row) == name else None

    def name(self, row: int) -> str:
        """Return the name of one granule."""
        return str(self.names[row])

    def sample_names(self, rows: Iterable[int]) -> str:
        """Return the names of the first few of some granules, for a message."""
        chosen = list(islice(rows, MAX_NAMES + 1))
        names = ", ".join(self.name(int(row)) for row in chosen[:MAX_NAMES])
        return names + (", …" if len(chosen) > MAX_NAMES else "")

    def describe(self, rows: Sequence[int] | NDArray[np.int64], problem: str) -> str:
        """Return a message: how many granules have a problem, and the names of the first."""
        return f"{len(rows):,} of {len(self):,} granules {problem}: {self.sample_names(rows)}"

    def attributes(self, row: int) -> JSON:
        """Return the fields of one granule as JSON attributes."""
        block, position = divmod(row, BLOCK)
        columns = self._block(block)
        return {name: values[position] for name, values in columns.items()}

    def location(self, row: int) -> Location:
        """Return where one granule's arrays lie."""
        return tuple(column[row].as_py() for column in self.locations.columns)


def group_names(
    rows: pa.ChunkedArray, ids: pa.ChunkedArray | None, reserved: set[str]
) -> pa.LargeStringArray:
    """Return a name for each granule's group, but for the `reserved` ones of root arrays.

    They are the ids, with ``_`` for what can't stand in a path; or the row numbers, where
    there are no ids, they are bytes, two are alike, or one is reserved.
    """
    texts = None if ids is None or pa.types.is_binary(ids.type) else ids.cast(pa.large_string())
    if texts is not None and texts.null_count == 0:
        names = pc.replace_substring_regex(texts, r"[/\\\x00-\x1f\x7f]", "_")
        # Zarr keeps these for itself.
        names = pc.replace_substring_regex(names, r"^(\.{1,2}|__.*|zarr\.json|\.z\w+)$", r"id\1")
        if _are_usable(names, reserved):
            return names.combine_chunks()
    prefix, empty = "", pa.scalar("", pa.large_string())
    while True:
        start = pa.scalar(prefix, pa.large_string())
        names = pc.binary_join_element_wise(start, rows.cast(pa.large_string()), empty)
        if _are_usable(names, reserved):
            return names.combine_chunks()
        prefix += "_"


def _are_usable(names: pa.ChunkedArray, reserved: set[str]) -> bool:
    """Return whether names are unique, and none is reserved."""
    excluded = pa.array([*reserved, *METADATA_KEYS, ""], pa.large_string())
    unique = len(names) == pc.count_distinct(names).as_py()
    return bool(unique and not pc.any(pc.is_in(names, excluded)).as_py())

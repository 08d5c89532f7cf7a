"""The cells of one variable of the granules that a search found, as a table.

Each granule's array is read with its own shape, chunks, scale and fill value; nothing is joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from zarr.core.sync import sync

from l2view.arrays.arrow import arrow_type
from l2view.arrays.cf import MISSING
from l2view.arrays.dtypes import common_dtype, in_native_order
from l2view.arrays.stored import StoredArray
from l2view.arrays.values import ValueDecoder
from l2view.cells.columns import VALUE, Columns, Opened, dimension_column, together
from l2view.cells.one_array import axes_of
from l2view.cells.scan import MAX_CELLS, Cells
from l2view.errors import L2ViewWarning, MissingGranuleWarning, QueryError, warn
from l2view.geolocation.coordinates import LATITUDE, LONGITUDE, nearest_coordinates
from l2view.granules.inventory import ArrayInventory, Inventory
from l2view.scan.dataset import TableDataset
from l2view.stores.hierarchy import JSON, join, resolve
from l2view.text import join_names, unknown_name
from l2view.virtual.join_shape import field_names
from l2view.virtual.tree import Tree

GRANULE = "granule"
"""The column of the granules' names."""


def cells(
    tree: Tree, variable: str, *, decode: bool = True, max_cells: int = MAX_CELLS
) -> TableDataset:
    """Return the cells of a variable of a tree's granules (see `View.cells`)."""
    inventories = [inventory for inventory, _ in sync(tree.inventories())]
    shown = [[path for path in one.arrays if tree.shows(path)] for one in inventories]
    parts = []
    for inventory, paths in zip(inventories, shown, strict=True):
        path = _path(variable, paths)
        if path is not None:
            parts.append(ProfileArray.of(inventory, inventory.arrays[path], decode))
    if not parts and any(shown):
        known = dict.fromkeys(path for paths in shown for path in paths)
        raise QueryError(unknown_name("variable", variable, known))
    found = np.concatenate([np.zeros(0, dtype=np.int64), *(one.rows for one in inventories)])
    lost = np.setdiff1d(np.arange(len(tree.granules)), found)
    if len(lost):
        warn(
            f"{len(lost):,} of {len(tree.granules):,} granules have no arrays in "
            f"{tree.description['collection']}, and so no cells: "
            f"{tree.granules.some(lost.tolist())}",
            MissingGranuleWarning,
        )
    return TableDataset(Cells(variable, _sets(tree, variable, parts), max_cells))


def _sets(tree: Tree, variable: str, parts: Sequence[ProfileArray]) -> tuple[GranuleArrays, ...]:
    """Return the arrays of several profiles in sets that have the same dimensions."""
    values, parts = _alike(variable, parts)
    types, dropped, parts = _with_coordinates_alike(variable, parts)
    hidden = frozenset({*types, *dropped, *(name for part in parts for name in part.hidden)})
    sets: dict[tuple[Any, ...], list[ProfileArray]] = {}
    for part in parts:
        axes = tuple((name, along) for name, (along, _, _) in sorted(part.coordinates.items()))
        sets.setdefault((part.array.dimensions, axes), []).append(part)
    dimensions = {name for part in parts for name in part.array.dimensions if name is not None}
    ranks = (part.array.rank for part in parts)
    numbered = map(dimension_column, range(max(ranks, default=0)))
    fields = tree.granules.schema
    called = field_names(fields.names, {VALUE, GRANULE, *numbered, *types, *dimensions})
    labels = pa.schema(
        [
            pa.field(GRANULE, pa.string(), nullable=False),
            *(fields.field(name).with_name(shown) for name, shown in called.items()),
        ]
    )
    columns = together(
        [
            Columns(
                labels=labels,
                dimensions=some[0].array.dimensions,
                coordinates={n: axes for n, (axes, _, _) in some[0].coordinates.items()},
                types=types,
                value=values,
                hidden=hidden,
            )
            for some in sets.values()
        ]
        or [Columns(labels, (), {}, {}, values)]
    )
    grouped = list(sets.values()) or [[]]
    return tuple(
        GranuleArrays(tree, one, tuple(some)) for one, some in zip(columns, grouped, strict=True)
    )


def _path(variable: str, paths: Sequence[str]) -> str | None:
    """Return which of a granule's arrays a variable is: by its path, or by its name alone.

    Raises
    ------
    QueryError
        Where several have that name.
    """
    if not isinstance(variable, str):
        raise QueryError(f"a variable is named by a text, not by {variable!r}")
    if resolve(variable) in paths:
        return resolve(variable)
    named = [path for path in paths if path.rpartition("/")[2] == variable]
    if len(named) > 1:
        raise QueryError(
            f'several arrays are called "{variable}": name one by its path, of {join_names(named)}'
        )
    return named[0] if named else None


@dataclass(frozen=True, eq=False)
class ProfileArray:
    """One array of the granules of a profile.

    Attributes
    ----------
    rows
        The granules, of shape (n,).
    array
        Their arrays.
    values
        What becomes of the stored values of each variant.
    coordinates
        The coordinates by name: along which axes they lie, their arrays, and what becomes of
        their values.
    hidden
        Names of coordinates that some of the granules can't have.
    """

    rows: NDArray[np.int64]
    array: ArrayInventory
    values: tuple[ValueDecoder, ...]
    coordinates: Mapping[str, tuple[tuple[int, ...], ArrayInventory, tuple[ValueDecoder, ...]]]
    hidden: frozenset[str] = frozenset()

    @classmethod
    def of(cls, inventory: Inventory, array: ArrayInventory, decode: bool) -> ProfileArray:
        """Return an array of an inventory.

        Raises
        ------
        QueryError
            Where its values can't be decoded.
        """
        try:
            values = tuple(
                ValueDecoder.of_document(variant, decode=decode) for variant in array.variants
            )
        except ValueError as error:
            raise QueryError(
                f"{array.path} can't be decoded: {error}; decode => false gives what is stored"
            ) from error
        coordinates: dict[
            str, tuple[tuple[int, ...], ArrayInventory, tuple[ValueDecoder, ...]]
        ] = {}
        taken = {VALUE, GRANULE, *map(dimension_column, range(array.rank))}
        hidden = set()
        for name, other in _coordinates(inventory, array):
            axes = _axes(other, array)
            if axes is None:
                hidden.add(name)
            elif axes and name not in {*taken, *coordinates}:
                own = other.dimensions == (name,)
                made = tuple(_coordinate(one, axis=own) for one in other.variants)
                coordinates[name] = (axes, other, made)
        return cls(inventory.rows, array, values, coordinates, frozenset(hidden))

    @property
    def used(self) -> NDArray[np.int64]:
        """The variants that there are granules of."""
        return np.unique(self.array.variant_index)


def _coordinate(variant: JSON, *, axis: bool) -> ValueDecoder:
    """Return the values of a coordinate, decoded where they can be.

    Parameters
    ----------
    variant
        Its document.
    axis
        Whether it is that of the dimension that is called so, which has no missing values (CF
        1.12, section 2.5.1).
    """
    attributes = dict(variant["attributes"])
    if axis:
        attributes = {name: said for name, said in attributes.items() if name not in MISSING}
    try:
        return ValueDecoder.of_document({**variant, "attributes": attributes}).wide
    except ValueError:  # such as of a calendar that timestamps don't have
        return ValueDecoder.of_document(variant, decode=False).wide


def _axes(other: ArrayInventory, array: ArrayInventory) -> tuple[int, ...] | None:
    """Return along which axes of granules' arrays another of their arrays lies, none if it doesn't.

    None where it does for some of the granules only.
    """
    axes = axes_of(other.dimensions, array.dimensions)
    if not axes:
        return ()
    same = (other.ends - other.begins == (array.ends - array.begins)[:, list(axes)]).all(axis=1)
    if same.any() and not same.all():
        warn(
            f"{other.path} is as long as {array.path} in {same.sum():,} of {len(same):,} granules "
            "that are else alike, and is no column",
            L2ViewWarning,
        )
        return None
    return axes if same.all() else ()


def _coordinates(
    inventory: Inventory, array: ArrayInventory
) -> Iterator[tuple[str, ArrayInventory]]:
    """Yield what may be coordinates of an array, by their names.

    They are called as its dimensions, or named by its attribute ``coordinates``; where those
    don't say, they are the latitudes and longitudes nearest to it.
    """
    group = array.path.rpartition("/")[0]
    said = str(array.attributes.get("coordinates", "")).split()
    for name in dict.fromkeys([*(one for one in array.dimensions if one is not None), *said]):
        above = group
        while True:
            place = resolve(join(above, name))
            if place is not None and place in inventory.arrays:
                yield name.rpartition("/")[2], inventory.arrays[place]
                break
            if not above:
                break
            above = above.rpartition("/")[0]
    for words in (LATITUDE, LONGITUDE):
        for other in nearest_coordinates(inventory, array.path, words):
            if other.rank > 1:
                yield _name(other.path), other


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _alike(
    variable: str, parts: Sequence[ProfileArray]
) -> tuple[pa.DataType, Sequence[ProfileArray]]:
    """Return arrays with values of one type, and that type.

    Raises
    ------
    QueryError
        Where they have none in common.
    """
    used = [part.values[variant] for part in parts for variant in part.used.tolist()]
    if not used:
        return pa.float64(), parts
    try:
        dtype = _common([values.dtype for values in used])
    except ValueError as error:
        raise QueryError(
            f"{variable} differs between granules: {error}; narrow the search to granules that "
            "are alike"
        ) from error
    if dtype is None:
        return used[0].type, parts
    cast = [replace(part, values=tuple(_cast(part.values, part.used, dtype))) for part in parts]
    return arrow_type(dtype), cast


def _common(dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any] | None:
    """Return the dtype that has all values of others, None where they are columns of one type.

    Raises
    ------
    ValueError
        Where there is none.
    """
    native = set(map(in_native_order, dtypes))
    if len(native) == 1 or all(dtype.kind in "UTO" for dtype in native):
        return None
    return common_dtype(sorted(native, key=str))


def _cast(
    values: Sequence[ValueDecoder], used: NDArray[np.int64], dtype: np.dtype[Any] | None
) -> Iterator[ValueDecoder]:
    """Yield the values of variants in a dtype that those have that are used."""
    for variant, one in enumerate(values):
        yield one if dtype is None or variant not in used else one.cast(dtype)


def _with_coordinates_alike(
    variable: str, parts: Sequence[ProfileArray]
) -> tuple[dict[str, pa.DataType], list[str], Sequence[ProfileArray]]:
    """Return the types of coordinates, those that have none in common, and arrays without these."""
    dtypes: dict[str, list[np.dtype[Any]]] = {}
    types: dict[str, pa.DataType] = {}
    for part in parts:
        for name, (_, other, values) in part.coordinates.items():
            used = [values[variant] for variant in np.unique(other.variant_index).tolist()]
            dtypes.setdefault(name, []).extend(one.dtype for one in used)
            types.setdefault(name, used[0].type)
    common, dropped = {}, []
    for name, some in dtypes.items():
        try:
            common[name] = _common(some)
        except ValueError:
            dropped.append(name)
            continue
        if (dtype := common[name]) is not None:
            types[name] = arrow_type(dtype)
    if dropped:
        warn(
            f"the data types of {join_names(dropped)} beside {variable} differ between granules, "
            "and they are no columns",
            L2ViewWarning,
        )
    made = []
    for part in parts:
        coordinates = {
            name: (axes, other, tuple(_cast(values, np.unique(other.variant_index), common[name])))
            for name, (axes, other, values) in part.coordinates.items()
            if name in common
        }
        made.append(replace(part, coordinates=coordinates))
    return {name: types[name] for name in common}, dropped, made


@dataclass(frozen=True, eq=False)
class GranuleArrays:
    """One variable of many granules as `l2view.arrays.stored.Arrays`.

    Attributes
    ----------
    tree
        The granules.
    columns
        The columns: the granule's name and fields, and those of cells.
    parts
        Their arrays, profile by profile.
    """

    tree: Tree
    columns: Columns
    parts: tuple[ProfileArray, ...]

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """The arrays in the order of the granules."""
        return np.argsort(self._rows, kind="stable")

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        return np.concatenate([np.zeros(0, dtype=np.int64), *(part.rows for part in self.parts)])

    @cached_property
    def _members(self) -> NDArray[np.int64]:
        """The profile of each array, and its number in it, of shape (n, 2)."""
        found = [
            np.stack([np.full(len(part.rows), number), np.arange(len(part.rows))], axis=1)
            for number, part in enumerate(self.parts)
        ]
        return np.concatenate([np.zeros((0, 2), dtype=np.int64), *found])[self._order]

    @cached_property
    def shapes(self) -> NDArray[np.int64]:
        """The shapes of what is shown, of shape (n, rank)."""
        rank = self.parts[0].array.rank if self.parts else 0
        found = [part.array.ends - part.array.begins for part in self.parts]
        return np.concatenate([np.zeros((0, rank), dtype=np.int64), *found])[self._order]

    def labels(self, names: Sequence[str]) -> pa.Table:
        """Return some of the granules' names and fields, one row an array."""
        rows = pa.array(self._rows[self._order])
        shown = [name for name in self.columns.labels.names if name != GRANULE]
        stored = dict(zip(shown, self.tree.granules.fields, strict=True))
        fields = [stored[name] for name in names if name != GRANULE]
        table = self.tree.granules.columns(fields)
        found = dict(zip(fields, table.columns, strict=True)) if fields else {}
        columns = [
            self.tree.granules.names.cast(pa.string()) if name == GRANULE else found[stored[name]]
            for name in names
        ]
        schema = pa.schema([self.columns.labels.field(name) for name in names])
        if not names:
            return pa.table({"_": pa.nulls(len(rows))}).select([])
        return pa.table([column.take(rows) for column in columns], schema=schema)

    def opened(self, member: int) -> Opened:
        """Return one granule's array."""
        number, own = self._members[member].tolist()
        part = self.parts[number]
        row = int(part.rows[own])
        coordinates = {
            name: partial(self.tree.reader.stored, row, other, own, values)
            for name, (_, other, values) in part.coordinates.items()
        }
        values = self.tree.reader.stored(row, part.array, own, part.values)
        return Opened(values, Coordinates(coordinates))

    def __getstate__(self) -> JSON:
        return {"tree": self.tree, "columns": self.columns, "parts": self.parts}


class Coordinates(Mapping[str, StoredArray]):
    """Coordinates that are opened when they are asked for.

    Parameters
    ----------
    openers
        What opens each.
    """

    def __init__(self, openers: Mapping[str, Callable[[], StoredArray]]) -> None:
        self._openers = openers
        self._opened: dict[str, StoredArray] = {}

    def __getitem__(self, name: str) -> StoredArray:
        if name not in self._opened:
            self._opened[name] = self._openers[name]()
        return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._openers)

    def __len__(self) -> int:
        return len(self._openers)

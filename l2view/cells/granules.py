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
from l2view.arrays.dtypes import TEXT_KINDS, common_dtype, in_native_order
from l2view.arrays.stored import StoredArray
from l2view.arrays.values import ValueDecoder
from l2view.cells.columns import (
    VALUE,
    ArrayWithCoordinates,
    CellColumns,
    coordinate_candidates,
    dimension_column,
    merge_columns,
    shared_axes,
)
from l2view.cells.scan import MAX_CELLS, CellTable
from l2view.errors import L2ViewWarning, MissingGranuleWarning, QueryError, warn
from l2view.geolocation.coordinates import LATITUDE, LONGITUDE, coordinates_of, sort_by_distance
from l2view.granules.table import ArrayTable, GranuleTable
from l2view.scan.dataset import TableDataset
from l2view.stores.hierarchy import JSON, resolve
from l2view.text import join_names, unknown_name
from l2view.virtual.join_shape import field_names
from l2view.virtual.tree import Tree

GRANULE = "granule"
"""The column of the granules' names."""


def cells(
    tree: Tree, variable: str, *, decode: bool = True, max_cells: int = MAX_CELLS
) -> TableDataset:
    """Return the cells of a variable of a tree's granules (see `View.cells`)."""
    tables = [table for table, _ in sync(tree.tables())]
    visible = [[path for path in table.arrays if tree.shows(path)] for table in tables]
    profiles = []
    for table, paths in zip(tables, visible, strict=True):
        path = _resolve_variable(variable, paths)
        if path is not None:
            profiles.append(ProfileVariable.of(table, table.arrays[path], decode))
    if not profiles and any(visible):
        array_paths = dict.fromkeys(path for paths in visible for path in paths)
        raise QueryError(unknown_name("variable", variable, array_paths))
    rows = np.concatenate([np.zeros(0, dtype=np.int64), *(table.rows for table in tables)])
    missing = np.setdiff1d(np.arange(len(tree.granules)), rows)
    if len(missing):
        warn(
            f"{len(missing):,} of {len(tree.granules):,} granules have no arrays in "
            f"{tree.description['collection']}, and so no cells: "
            f"{tree.granules.sample_names(missing.tolist())}",
            MissingGranuleWarning,
        )
    return TableDataset(CellTable(variable, _sets(tree, variable, profiles), max_cells))


def _resolve_variable(variable: str, paths: Sequence[str]) -> str | None:
    """Return the path of a variable, which is given by its path or its name alone.

    Raises
    ------
    QueryError
        Where several have that name.
    """
    if not isinstance(variable, str):
        raise QueryError(f"a variable is named by a text, not by {variable!r}")
    if resolve(variable) in paths:
        return resolve(variable)
    named = [path for path in paths if _name(path) == variable]
    if len(named) > 1:
        raise QueryError(
            f'several arrays are called "{variable}": name one by its path, of {join_names(named)}'
        )
    return named[0] if named else None


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _sets(
    tree: Tree, variable: str, profiles: Sequence[ProfileVariable]
) -> tuple[GranuleArrays, ...]:
    """Return the arrays of several profiles in sets that have the same dimensions."""
    value, profiles = _with_common_values(variable, profiles)
    types, dropped, profiles = _with_common_coordinates(variable, profiles)
    hidden = frozenset(
        {*types, *dropped, *(name for profile in profiles for name in profile.hidden)}
    )
    sets: dict[tuple[Any, ...], list[ProfileVariable]] = {}
    for profile in profiles:
        axes = tuple(
            (name, coordinate.axes) for name, coordinate in sorted(profile.coordinates.items())
        )
        sets.setdefault((profile.values.array.dimensions, axes), []).append(profile)
    arrays = [profile.values.array for profile in profiles]
    dimensions = {name for array in arrays for name in array.dimensions if name is not None}
    numbered = map(dimension_column, range(max((array.rank for array in arrays), default=0)))
    fields = tree.granules.schema
    label_names = field_names(fields.names, {VALUE, GRANULE, *numbered, *types, *dimensions})
    labels = pa.schema(
        [
            pa.field(GRANULE, pa.string(), nullable=False),
            *(fields.field(name).with_name(label) for name, label in label_names.items()),
        ]
    )
    if not sets:
        return (GranuleArrays(tree, CellColumns(labels, (), {}, {}, value), ()),)
    columns = [
        CellColumns(
            labels=labels,
            dimensions=representative.values.array.dimensions,
            coordinates={
                name: coordinate.axes for name, coordinate in representative.coordinates.items()
            },
            types=types,
            value=value,
            hidden=hidden,
        )
        for representative, *_ in sets.values()
    ]
    return tuple(
        GranuleArrays(tree, set_columns, tuple(members))
        for set_columns, members in zip(merge_columns(columns), sets.values(), strict=True)
    )


@dataclass(frozen=True, eq=False)
class DecodedArrays:
    """One array of the granules of a profile, and what becomes of its values.

    Attributes
    ----------
    array
        Their arrays.
    decoders
        The decoder of profile variant.
    axes
        Of a coordinate: along which axes of the values it lies.
    """

    array: ArrayTable
    decoders: tuple[ValueDecoder, ...]
    axes: tuple[int, ...] = ()

    @cached_property
    def variants(self) -> list[int]:
        """The variants that there are granules of."""
        return [int(variant) for variant in np.unique(self.array.variant_index)]

    @property
    def dtypes(self) -> list[np.dtype[Any]]:
        """Their dtypes."""
        return [self.decoders[variant].dtype for variant in self.variants]

    @property
    def type(self) -> pa.DataType:
        """The Arrow type of the first of them."""
        return self.decoders[self.variants[0]].type

    def cast(self, dtype: np.dtype[Any] | None) -> DecodedArrays:
        """Return the same values in a dtype that has all of them; as they are for None."""
        if dtype is None:
            return self
        decoders = list(self.decoders)
        for variant in self.variants:
            decoders[variant] = decoders[variant].cast(dtype)
        return replace(self, decoders=tuple(decoders))


@dataclass(frozen=True, eq=False)
class ProfileVariable:
    """A variable of the granules of a profile.

    Attributes
    ----------
    rows
        The granules, of shape (n,).
    values
        Their arrays.
    coordinates
        The coordinates by name.
    hidden
        Names of coordinates that some of the granules can't have.
    """

    rows: NDArray[np.int64]
    values: DecodedArrays
    coordinates: Mapping[str, DecodedArrays]
    hidden: frozenset[str] = frozenset()

    @classmethod
    def of(cls, table: GranuleTable, array: ArrayTable, decode: bool) -> ProfileVariable:
        """Return an array of a table with its coordinates.

        Raises
        ------
        QueryError
            Where its values can't be decoded.
        """
        try:
            decoders = [ValueDecoder.of_document(v, decode=decode) for v in array.variants]
        except ValueError as error:
            raise QueryError(
                f"{array.path} can't be decoded: {error}; decode => false gives what is stored"
            ) from error
        coordinates: dict[str, DecodedArrays] = {}
        reserved = {VALUE, GRANULE, *map(dimension_column, range(array.rank))}
        hidden = set()
        for name, coordinate in _coordinates(table, array):
            axes = _coordinate_axes(coordinate, array)
            if axes is None:
                hidden.add(name)
            elif axes and name not in {*reserved, *coordinates}:
                is_axis = coordinate.dimensions == (name,)
                decode_as = tuple(
                    _coordinate_decoder(v, is_axis=is_axis) for v in coordinate.variants
                )
                coordinates[name] = DecodedArrays(coordinate, decode_as, axes)
        values = DecodedArrays(array, tuple(decoders))
        return cls(table.rows, values, coordinates, frozenset(hidden))


def _coordinate_decoder(variant: JSON, *, is_axis: bool) -> ValueDecoder:
    """Return the decoder of a coordinate, which is decoded where it can be.

    Parameters
    ----------
    variant
        Its document.
    is_axis
        Whether it is that of the dimension that is called so, which has no missing values (CF
        1.12, section 2.5.1).
    """
    attributes = dict(variant["attributes"])
    if is_axis:
        attributes = {name: value for name, value in attributes.items() if name not in MISSING}
    try:
        return ValueDecoder.of_document({**variant, "attributes": attributes}).wide
    except ValueError:  # such as of a calendar that timestamps don't have
        return ValueDecoder.of_document(variant, decode=False).wide


def _coordinate_axes(coordinate: ArrayTable, array: ArrayTable) -> tuple[int, ...] | None:
    """Return the axes of an array along which a coordinate lies, none where it does not.

    None where it lies there in some of the granules only.
    """
    axes = shared_axes(coordinate.dimensions, array.dimensions)
    if not axes:
        return ()
    same = (coordinate.ends - coordinate.begins == (array.ends - array.begins)[:, list(axes)]).all(
        axis=1
    )
    if same.any() and not same.all():
        warn(
            f"{coordinate.path} is as long as {array.path} in {same.sum():,} of {len(same):,} "
            "granules that are else alike, and is no column",
            L2ViewWarning,
        )
        return None
    return axes if same.all() else ()


def _coordinates(table: GranuleTable, array: ArrayTable) -> Iterator[tuple[str, ArrayTable]]:
    """Yield the candidate coordinates of an array, by name.

    Where neither dimensions nor the attribute ``coordinates`` name them, they are the latitudes and
    longitudes nearest to it.
    """
    group = array.path.rpartition("/")[0]
    for name, paths in coordinate_candidates(group, array.dimensions, array.attributes):
        for path in paths:
            if path in table.arrays:
                yield name, table.arrays[path]
                break
    for words in (LATITUDE, LONGITUDE):
        for coordinate in sort_by_distance(coordinates_of(table, words), array.path):
            if coordinate.rank > 1:
                yield _name(coordinate.path), coordinate


def _column_dtype(dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any] | None:
    """Return the dtype that holds all values, None where they are columns of one type.

    Raises
    ------
    ValueError
        Where there is none.
    """
    native = set(map(in_native_order, dtypes))
    if len(native) == 1 or all(dtype.kind in TEXT_KINDS - {"S"} for dtype in native):
        return None
    return common_dtype(sorted(native, key=str))


def _with_common_values(
    variable: str, profiles: Sequence[ProfileVariable]
) -> tuple[pa.DataType, Sequence[ProfileVariable]]:
    """Return the common type of the values, and the arrays cast to it.

    Raises
    ------
    QueryError
        Where they have none.
    """
    dtypes = [dtype for profile in profiles for dtype in profile.values.dtypes]
    if not dtypes:
        return pa.float64(), profiles
    try:
        dtype = _column_dtype(dtypes)
    except ValueError as error:
        raise QueryError(
            f"{variable} differs between granules: {error}; narrow the search to granules that "
            "are alike"
        ) from error
    cast = [replace(profile, values=profile.values.cast(dtype)) for profile in profiles]
    arrays = next(profile.values for profile in profiles if profile.values.variants)
    return arrays.type if dtype is None else arrow_type(dtype), cast


def _with_common_coordinates(
    variable: str, profiles: Sequence[ProfileVariable]
) -> tuple[dict[str, pa.DataType], list[str], Sequence[ProfileVariable]]:
    """Return the common types of coordinates, those without any, and arrays without these."""
    arrays: dict[str, list[DecodedArrays]] = {}
    for profile in profiles:
        for name, coordinate in profile.coordinates.items():
            arrays.setdefault(name, []).append(coordinate)
    dtypes: dict[str, np.dtype[Any] | None] = {}
    dropped = []
    for name, coordinates in arrays.items():
        try:
            dtypes[name] = _column_dtype(
                [dtype for coordinate in coordinates for dtype in coordinate.dtypes]
            )
        except ValueError:
            dropped.append(name)
    if dropped:
        warn(
            f"the data types of {join_names(dropped)} beside {variable} differ between granules, "
            "and they are no columns",
            L2ViewWarning,
        )
    types = {
        name: arrays[name][0].type if dtype is None else arrow_type(dtype)
        for name, dtype in dtypes.items()
    }
    cast = []
    for profile in profiles:
        cast_coordinates = {
            n: c.cast(dtypes[n]) for n, c in profile.coordinates.items() if n in dtypes
        }
        cast.append(replace(profile, coordinates=cast_coordinates))
    return types, dropped, cast


@dataclass(frozen=True, eq=False)
class GranuleArrays:
    """One variable of many granules as an `ArraySet`.

    Attributes
    ----------
    tree
        The granules.
    columns
        The columns: the granule's name and fields, and those of cells.
    profiles
        Their arrays, profile by profile.
    """

    tree: Tree
    columns: CellColumns
    profiles: tuple[ProfileVariable, ...]

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """The arrays in the order of the granules."""
        return np.argsort(self._rows, kind="stable")

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        return np.concatenate(
            [np.zeros(0, dtype=np.int64), *(profile.rows for profile in self.profiles)]
        )

    @cached_property
    def _members(self) -> NDArray[np.int64]:
        """The profile of each array, and its number in it, of shape (n, 2)."""
        members = [
            np.stack([np.full(len(profile.rows), number), np.arange(len(profile.rows))], axis=1)
            for number, profile in enumerate(self.profiles)
        ]
        return np.concatenate([np.zeros((0, 2), dtype=np.int64), *members])[self._order]

    @cached_property
    def shapes(self) -> NDArray[np.int64]:
        """The shapes of what is shown, of shape (n, rank)."""
        arrays = [profile.values.array for profile in self.profiles]
        lengths = [array.ends - array.begins for array in arrays]
        rank = arrays[0].rank if arrays else 0
        return np.concatenate([np.zeros((0, rank), dtype=np.int64), *lengths])[self._order]

    def labels(self, names: Sequence[str]) -> pa.Table:
        """Return some of the granules' names and fields, one row an array."""
        granules, rows = self.tree.granules, pa.array(self._rows[self._order])
        if not names:
            return pa.table({"_": pa.nulls(len(rows))}).select([])
        names_of_fields = [name for name in self.columns.labels.names if name != GRANULE]
        stored = dict(zip(names_of_fields, granules.fields, strict=True))
        fields = [stored[name] for name in names if name != GRANULE]
        table = granules.columns(fields)
        columns = dict(zip(fields, table.columns, strict=True)) if fields else {}
        columns_of_rows = [
            (granules.names.cast(pa.string()) if n == GRANULE else columns[stored[n]]).take(rows)
            for n in names
        ]
        return pa.table(
            columns_of_rows, schema=pa.schema([self.columns.labels.field(n) for n in names])
        )

    def open(self, index: int) -> ArrayWithCoordinates:
        """Return one granule's array."""
        number, member = self._members[index].tolist()
        profile = self.profiles[number]
        row = int(profile.rows[member])

        def open_arrays(arrays: DecodedArrays) -> StoredArray:
            return self.tree.reader.stored_array(row, arrays.array, member, arrays.decoders)

        coordinates = {
            name: partial(open_arrays, coordinate)
            for name, coordinate in profile.coordinates.items()
        }
        return ArrayWithCoordinates(open_arrays(profile.values), LazyCoordinates(coordinates))

    def __getstate__(self) -> JSON:
        return {"tree": self.tree, "columns": self.columns, "profiles": self.profiles}


class LazyCoordinates(Mapping[str, StoredArray]):
    """Coordinates that are opened when they are asked for.

    Parameters
    ----------
    openers
        Open each array, by name.
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

"""The cells of one variable of the granules that a search found, as a table.

Each granule's array is read with its own shape, chunks, scale and fill value; nothing is joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from zarr.core.sync import sync

from l2view.arrays.arrow import arrow_type
from l2view.arrays.cf import Packing
from l2view.arrays.dtypes import TEXT_KINDS, common_dtype, in_native_order, zarr_dtype
from l2view.arrays.stored import StoredArray
from l2view.arrays.values import ValueDecoder
from l2view.cells.columns import (
    VALUE,
    CellColumns,
    coordinate_candidates,
    coordinate_decoder,
    dimension_column,
    shared_axes,
)
from l2view.cells.scan import MAX_CELLS, CellTable
from l2view.errors import L2ViewWarning, QueryError, warn
from l2view.geolocation.bands import levels_at
from l2view.geolocation.coordinates import basename, named_path
from l2view.geolocation.finder import Finder
from l2view.granules.table import ArrayTable, GranuleTable
from l2view.scan.dataset import TableDataset
from l2view.stores.hierarchy import JSON, resolve
from l2view.text import join_names, unknown_name
from l2view.virtual.join_plan import warn_of_missing
from l2view.virtual.join_shape import field_names
from l2view.virtual.tree import Tree

GRANULE = "granule"  # the column of the granules' names


def cells(
    tree: Tree, variable: str, *, decode: bool = True, max_cells: int = MAX_CELLS
) -> TableDataset:
    """Return the cells of a variable of a tree's granules (see `View.cells`)."""
    tables = sync(tree.tables())
    profiles, array_paths, finder = [], [], Finder.of(tree.reader)
    for table in tables:
        visible = [path for path in table.arrays if tree.shows(path)]
        array_paths += visible
        path = _resolve_variable(variable, visible)
        if path is not None:
            variable_array = table.arrays[path]
            coordinates = list(_coordinates(finder, table, variable_array))
            profiles.append(ProfileVariable.of(table, variable_array, coordinates, decode))
    if array_paths and not profiles:
        raise QueryError(unknown_name("variable", variable, dict.fromkeys(array_paths)))
    warn_of_missing(tree, tables)
    return TableDataset(CellTable(variable, _sets(tree, variable, profiles), max_cells))


def _resolve_variable(variable: str, paths: Sequence[str]) -> str | None:
    """Return the path of a variable, which is given by its path or by its name alone."""
    if not isinstance(variable, str):
        raise QueryError(f"a variable is named by a text, not by {variable!r}")
    if resolve(variable) in paths:
        return resolve(variable)
    return named_path(variable, paths, "arrays")


def _sets(
    tree: Tree, variable: str, profiles: Sequence[ProfileVariable]
) -> tuple[GranuleArrays, ...]:
    """Return the arrays of several profiles in sets that have the same dimensions."""
    dtypes, types = _common_types(variable, profiles)
    hidden = {name for profile in profiles for name in (*profile.arrays, *profile.hidden)}
    sets: dict[tuple[Any, ...], list[ProfileVariable]] = {}
    for profile in profiles:
        cast = {n: arrays.cast(dtypes[n]) for n, arrays in profile.arrays.items() if n in dtypes}
        axes = tuple((name, cast[name].axes) for name in sorted(cast.keys() - {VALUE}))
        key = (cast[VALUE].array.dimensions, axes)
        sets.setdefault(key, []).append(replace(profile, arrays=cast))
    sets = sets or {((), ()): []}
    names = {name for dimensions, _ in sets for name in dimensions if name is not None}
    numbered = map(dimension_column, range(max(len(dimensions) for dimensions, _ in sets)))
    fields = tree.granules.schema
    label_names = field_names(fields.names, {GRANULE, *types, *names, *numbered})
    labels = pa.schema(
        [
            pa.field(GRANULE, pa.string(), nullable=False),
            *(fields.field(name).with_name(label) for name, label in label_names.items()),
        ]
    )
    dimensions_and_axes = [(dimensions, dict(axes)) for dimensions, axes in sets]
    columns = CellColumns.of_sets(labels, dimensions_and_axes, types, hidden)
    return tuple(
        GranuleArrays(tree, set_columns, tuple(members))
        for set_columns, members in zip(columns, sets.values(), strict=True)
    )


@dataclass(frozen=True, eq=False)
class DecodedArrays:
    """One array of the granules of a profile, and the decoder of each variant.

    `axes` are those of the values along which a coordinate lies.
    """

    array: ArrayTable
    decoders: tuple[ValueDecoder, ...]
    axes: tuple[int, ...] = ()

    def cast(self, dtype: np.dtype[Any] | None) -> DecodedArrays:
        """Return the same values in a dtype that has all of them; as they are for None."""
        if dtype is None:
            return self
        return replace(self, decoders=tuple(decoder.cast(dtype) for decoder in self.decoders))


@dataclass(frozen=True, eq=False)
class ProfileVariable:
    """The values (`VALUE`) of n granules of a profile, and their coordinates by name.

    `hidden` are the names of coordinates that some of the granules can't have.
    """

    rows: NDArray[np.int64]
    arrays: Mapping[str, DecodedArrays]
    hidden: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        table: GranuleTable,
        array: ArrayTable,
        coordinates: Sequence[tuple[str, ArrayTable, tuple[int, ...]]],
        decode: bool,
    ) -> ProfileVariable:
        """Return an array of a table with its coordinates and the axes along which they lie."""
        try:
            decoders = tuple(ValueDecoder.of_document(v, decode=decode) for v in array.variants)
        except ValueError as error:
            raise QueryError(
                f"{array.path} can't be decoded: {error}; decode => false gives what is stored"
            ) from error
        arrays = {VALUE: DecodedArrays(array, decoders)}
        reserved = {VALUE, GRANULE, *map(dimension_column, range(array.rank))}
        hidden = set()
        for name, coordinate, shared in coordinates:
            axes = _axes_in_all_granules(coordinate, array, shared) if shared else ()
            if axes is None:
                hidden.add(name)
            elif axes and name not in {*reserved, *arrays}:
                decoders = tuple(
                    coordinate_decoder(
                        zarr_dtype(variant["data_type"]),
                        Packing.of_document(variant),
                        is_axis=coordinate.dimensions == (name,),
                    )
                    for variant in coordinate.variants
                )
                arrays[name] = DecodedArrays(coordinate, decoders, axes)
        return cls(table.rows, arrays, frozenset(hidden))


def _axes_in_all_granules(
    coordinate: ArrayTable, array: ArrayTable, axes: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Return the axes of an array along which a coordinate lies, none where it is longer.

    None where it lies there in some of the granules only.
    """
    same = (coordinate.lengths == array.lengths[:, list(axes)]).all(axis=1)
    if same.any() and not same.all():
        warn(
            f"{coordinate.path} is as long as {array.path} in {same.sum():,} of {len(same):,} "
            "granules that are else alike, and is no column",
            L2ViewWarning,
        )
        return None
    return axes if same.all() else ()


def _coordinates(
    finder: Finder, table: GranuleTable, array: ArrayTable
) -> Iterator[tuple[str, ArrayTable, tuple[int, ...]]]:
    """Yield the candidate coordinates of an array, by name, and the axes along which they lie.

    Its dimensions or the attribute ``coordinates`` name them, or they are the latitudes and
    longitudes that say where it lies.
    """
    group = array.path.rpartition("/")[0]
    for name, paths in coordinate_candidates(group, array.dimensions, array.attributes):
        for path in paths:
            if path in table.arrays:
                coordinate = table.arrays[path]
                yield name, coordinate, shared_axes(coordinate.dimensions, array.dimensions)
                break
    if array.rank:
        levels = levels_at(table, {"": array.path})
        for side, coordinate in enumerate(finder.coordinates(levels) or ()):
            is_axis = coordinate.rank < len(levels.axes)
            own = levels.axes[side : side + 1] if is_axis else levels.axes
            shared = shared_axes(coordinate.dimensions, array.dimensions)
            is_alike = coordinate.rank == len(own) and own == tuple(sorted(own))
            axes = shared or (own if is_alike else ())
            yield basename(coordinate.path), coordinate, axes


def _common_types(
    variable: str, profiles: Sequence[ProfileVariable]
) -> tuple[dict[str, np.dtype[Any] | None], dict[str, pa.DataType]]:
    """Return the common dtypes and types of coordinates, and of the values at last.

    Coordinates without any are left out, with a warning; values without one are a `QueryError`. A
    dtype is None where nothing is cast.
    """
    decoders: dict[str, list[ValueDecoder]] = {}
    for profile in profiles:
        for name, arrays in profile.arrays.items():
            used = np.unique(arrays.array.variant_index)  # of these there are granules
            decoders.setdefault(name, []).extend(arrays.decoders[variant] for variant in used)
    dtypes: dict[str, np.dtype[Any] | None] = {}
    types: dict[str, pa.DataType] = {}
    dropped = []
    for name, members in decoders.items():
        native = {in_native_order(decoder.dtype) for decoder in members}
        is_one = len(native) == 1 or all(dtype.kind in TEXT_KINDS - {"S"} for dtype in native)
        try:
            dtype = None if is_one else common_dtype(sorted(native, key=str))
        except ValueError as error:
            if name == VALUE:
                raise QueryError(
                    f"{variable} differs between granules: {error}; narrow the search to granules "
                    "that are alike"
                ) from error
            dropped.append(name)
            continue
        dtypes[name] = dtype
        types[name] = members[0].type if dtype is None else arrow_type(dtype)
    if dropped:
        warn(
            f"the data types of {join_names(dropped)} beside {variable} differ between granules, "
            "and they are no columns",
            L2ViewWarning,
        )
    value = types.pop(VALUE, pa.float64())
    return dtypes, types | {VALUE: value}


@dataclass(frozen=True, eq=False)
class GranuleArrays:
    """One variable of many granules as an `ArraySet`, profile by profile."""

    tree: Tree
    columns: CellColumns
    profiles: tuple[ProfileVariable, ...]

    @cached_property
    def _members(self) -> NDArray[np.int64]:
        """The granule of each array, its profile, its number in it, and its shape; by granule."""
        members = []
        for number, profile in enumerate(self.profiles):
            array, rows = profile.arrays[VALUE].array, profile.rows
            numbers = [rows, np.full_like(rows, number), np.arange(len(rows))]
            members.append(np.hstack([np.stack(numbers, axis=1), array.ends - array.begins]))
        table = np.concatenate(members or [np.zeros((0, 3), dtype=np.int64)])
        return table[np.argsort(table[:, 0], kind="stable")]

    @property
    def shapes(self) -> NDArray[np.int64]:
        """The shapes of what is shown, of shape (n, rank)."""
        return self._members[:, 3:]

    def labels(self, names: Sequence[str]) -> pa.Table:
        """Return some of the granules' names and fields, one row an array."""
        granules, rows = self.tree.granules, pa.array(self._members[:, 0])
        if not names:
            return pa.table({"_": pa.nulls(len(rows))}).select([])
        fields = dict(zip(self.columns.labels[1:], granules.fields, strict=True))
        table = granules.columns([fields[name] for name in names if name != GRANULE])
        columns = {name: table.column(fields[name]) for name in names if name != GRANULE}
        columns[GRANULE] = granules.names.cast(pa.string())
        schema = pa.schema([self.columns.schema.field(name) for name in names])
        return pa.table([columns[name].take(rows) for name in names], schema=schema)

    def open(self, index: int, name: str) -> StoredArray:
        """Return the values or a coordinate of one granule."""
        row, number, member, *_ = self._members[index].tolist()
        arrays = self.profiles[number].arrays[name]
        return self.tree.reader.stored_array(row, arrays.array, member, arrays.decoders)

    def __getstate__(self) -> JSON:
        return {"tree": self.tree, "columns": self.columns, "profiles": self.profiles}

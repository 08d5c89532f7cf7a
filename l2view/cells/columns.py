"""The columns of tables whose rows are cells of arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from zarr.core.dtype.wrapper import ZDType

from l2view.arrays.cf import Packing
from l2view.arrays.stored import StoredArray
from l2view.arrays.values import ValueDecoder
from l2view.stores.hierarchy import resolve

VALUE = "value"  # the column of the cells' values

type Dimensions = tuple[str | None, ...]
"""The names of an array's dimensions, None where one has none."""

type Axes = Mapping[str, tuple[int, ...]]
"""Along which axes of an array each of its coordinates lies."""


@dataclass(frozen=True)
class CellColumns:
    """The columns that the cells of some arrays have in a table of a `schema`.

    `labels` are those of a whole array, such as the fields of its granule; `positions` tell the
    axis that each column of positions counts along, `coordinates` the axes of each coordinate.
    """

    schema: pa.Schema
    labels: tuple[str, ...]
    positions: Mapping[str, int]
    coordinates: Axes

    @classmethod
    def of_sets(
        cls,
        labels: pa.Schema,
        sets: Sequence[tuple[Dimensions, Axes]],
        types: dict[str, pa.DataType],
        hidden: Collection[str] = (),
    ) -> list[CellColumns]:
        """Columns of several sets of arrays in one table: labels, positions, coordinates, value.

        `types` are those of all coordinates, and of `VALUE` at last; `hidden` are names that stand
        for no positions.
        """
        reserved = {*labels.names, *types, *hidden}
        positions = [_positions(dimensions, reserved) for dimensions, _ in sets]
        columns = {name: pa.int64() for axes in positions for name in axes} | types
        schema = pa.schema([*labels, *(pa.field(name, columns[name]) for name in columns)])
        return [
            cls(schema, tuple(labels.names), axes, coordinates)
            for axes, (_, coordinates) in zip(positions, sets, strict=True)
        ]

    @cached_property
    def absent(self) -> dict[str, pa.DataType]:
        """The columns that other arrays of the table have, and NULL for these."""
        present = {*self.labels, *self.positions, *self.coordinates, VALUE}
        return {field.name: field.type for field in self.schema if field.name not in present}

    def along(self, axis: int) -> frozenset[str]:
        """Return the columns that depend on the position along one axis alone."""
        coordinates = {name for name, axes in self.coordinates.items() if axes == (axis,)}
        return frozenset(
            coordinates | {name for name, along in self.positions.items() if along == axis}
        )

    @cached_property
    def by_cell(self) -> frozenset[str]:
        """The columns that are read cell by cell: the values, and coordinates over several axes."""
        return frozenset(
            {VALUE, *(name for name, axes in self.coordinates.items() if len(axes) != 1)}
        )


def _positions(dimensions: Dimensions, reserved: Collection[str]) -> dict[str, int]:
    """Columns of positions: ``dim_0`` and so on, and dimensions without coordinates."""
    numbered = {dimension_column(axis): axis for axis in range(len(dimensions))}
    return numbered | {
        name: axis
        for axis, name in enumerate(dimensions)
        if name is not None and name not in {*numbered, *reserved} and dimensions.count(name) == 1
    }


def dimension_column(axis: int) -> str:
    """Return the name of the column of positions along an axis."""
    return f"dim_{axis}"


def shared_axes(coordinate: Dimensions, dimensions: Dimensions) -> tuple[int, ...]:
    """Return the axes of an array along which a coordinate lies, none where it does not.

    The array has each dimension of the coordinate once, and in the same order.
    """
    if not all(name is not None and dimensions.count(name) == 1 for name in coordinate):
        return ()
    axes = tuple(dimensions.index(name) for name in coordinate)
    return axes if axes == tuple(sorted(set(axes))) else ()


def coordinate_candidates(
    group: str, dimensions: Dimensions, attributes: Mapping[str, Any]
) -> Iterator[tuple[str, list[str]]]:
    """Yield the names of what may be coordinates of an array, and where each may lie.

    They are called as its dimensions, or named by its attribute ``coordinates`` (CF 1.12, section
    5), and lie in its group or above, the nearest first.
    """
    parents = group.split("/") if group else []
    named = str(attributes.get("coordinates", "")).split()
    for name in dict.fromkeys([*(name for name in dimensions if name is not None), *named]):
        paths = (resolve("/".join([*parents[:end], name])) for end in range(len(parents), -1, -1))
        yield name.rpartition("/")[2], [path for path in paths if path is not None]


def coordinate_decoder(
    data_type: ZDType[Any, Any], packing: Packing, *, is_axis: bool
) -> ValueDecoder:
    """Return the decoder of a coordinate, which is decoded where it can be.

    That of the dimension that is called so (`is_axis`) has no missing values (CF 1.12, 2.5.1).
    """
    try:
        decoder = ValueDecoder.of_packing(data_type, packing.unmasked if is_axis else packing)
    except ValueError:  # such as of a calendar that timestamps don't have
        decoder = ValueDecoder.raw(data_type)
    return decoder.wide


class ArraySet(Protocol):
    """n arrays of one rank, with the same coordinates."""

    @property
    def columns(self) -> CellColumns:
        """The columns of the table of their cells."""

    @property
    def shapes(self) -> NDArray[np.int64]:
        """Their shapes, of shape (n, rank)."""

    def labels(self, names: Sequence[str]) -> pa.Table:
        """Return some labels, one row an array."""

    def open(self, index: int, name: str) -> StoredArray:
        """Return the values (`VALUE`) or a coordinate of one of the arrays."""

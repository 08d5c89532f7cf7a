"""The columns of tables whose rows are cells of arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from l2view.arrays.stored import StoredArray
from l2view.stores.hierarchy import resolve

VALUE = "value"
"""The column of the cells' values."""


@dataclass(frozen=True)
class CellColumns:
    """The columns of a table of cells.

    Attributes
    ----------
    labels
        Those of a whole array, such as the fields of its granule.
    dimensions
        The names of the dimensions, None where one has none.
    coordinates
        Along which axes each coordinate lies.
    types
        The types of the coordinates.
    value
        The type of the values.
    hidden
        Names that stand for no positions: those of other arrays' coordinates.
    absent
        Columns that other arrays of the table have, and NULL for these.
    order
        The names of all columns; first labels and last the value where it is empty.
    """

    labels: pa.Schema
    dimensions: tuple[str | None, ...]
    coordinates: Mapping[str, tuple[int, ...]]
    types: Mapping[str, pa.DataType]
    value: pa.DataType
    hidden: frozenset[str] = frozenset()
    absent: Mapping[str, pa.DataType] = field(default_factory=dict)
    order: tuple[str, ...] = ()

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The axis that each column of positions counts along.

        They are ``dim_0``, ``dim_1`` and so on, and the names of dimensions without coordinates.
        """
        numbered = {dimension_column(axis): axis for axis in range(len(self.dimensions))}
        reserved = {*numbered, *self.coordinates, *self.labels.names, *self.hidden, VALUE}
        return numbered | {
            name: axis
            for axis, name in enumerate(self.dimensions)
            if name is not None and name not in reserved and self.dimensions.count(name) == 1
        }

    @cached_property
    def groups(self) -> tuple[dict[str, pa.DataType], ...]:
        """The types of labels, positions, coordinates and the value, by name."""
        return (
            dict(zip(self.labels.names, self.labels.types, strict=True)),
            dict.fromkeys(self.positions, pa.int64()),
            {name: self.types[name] for name in self.coordinates},
            {VALUE: self.value},
        )

    @cached_property
    def schema(self) -> pa.Schema:
        """All columns: labels, positions, coordinates, value."""
        labels, positions, coordinates, value = self.groups
        types = labels | positions | coordinates | dict(self.absent) | value
        label_fields = {label.name: label for label in self.labels}
        return pa.schema(
            [label_fields.get(name, pa.field(name, types[name])) for name in self.order or types]
        )

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


def merge_columns(columns: Sequence[CellColumns]) -> list[CellColumns]:
    """Return the columns of several sets of arrays as those of one table.

    Parameters
    ----------
    columns
        Of each set; with the same labels, and one type for each coordinate.
    """
    types: dict[str, pa.DataType] = {}
    for groups in zip(*(each_set.groups for each_set in columns), strict=True):
        for group in groups:
            types |= group
    return [
        replace(
            each_set,
            absent={n: types[n] for n in types if n not in each_set.schema.names},
            order=tuple(types),
        )
        for each_set in columns
    ]


def dimension_column(axis: int) -> str:
    """Return the name of the column of positions along an axis."""
    return f"dim_{axis}"


def shared_axes(
    coordinate: Sequence[str | None], dimensions: Sequence[str | None]
) -> tuple[int, ...]:
    """Return the axes of an array along which a coordinate lies, none where it does not.

    Parameters
    ----------
    coordinate
        The dimensions of the coordinate.
    dimensions
        Those of the array, which must have each of them once, in the same order.
    """
    if not all(name is not None and dimensions.count(name) == 1 for name in coordinate):
        return ()
    axes = tuple(dimensions.index(name) for name in coordinate)
    return axes if axes == tuple(sorted(set(axes))) else ()


def coordinate_candidates(
    group: str, dimensions: Sequence[str | None], attributes: Mapping[str, Any]
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


@dataclass(frozen=True, eq=False)
class ArrayWithCoordinates:
    """An array, and its coordinates by name."""

    values: StoredArray
    coordinates: Mapping[str, StoredArray]


class ArraySet(Protocol):
    """n arrays of one rank, with the same coordinates."""

    @property
    def columns(self) -> CellColumns:
        """The columns of the table of their cells."""
        ...

    @property
    def shapes(self) -> NDArray[np.int64]:
        """Their shapes, of shape (n, rank)."""
        ...

    def labels(self, names: Sequence[str]) -> pa.Table:
        """Return some labels, one row an array."""
        ...

    def open(self, index: int) -> ArrayWithCoordinates:
        """Return one of the arrays."""
        ...

"""The columns of tables whose rows are cells of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from l2view.arrays.stored import StoredArray

VALUE = "value"
"""The column of the cells' values."""


@dataclass(frozen=True)
class Columns:
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
        found = {dimension_column(axis): axis for axis in range(len(self.dimensions))}
        taken = {*found, *self.coordinates, *self.labels.names, *self.hidden, VALUE}
        named = {
            name: axis
            for axis, name in enumerate(self.dimensions)
            if name is not None and name not in taken and self.dimensions.count(name) == 1
        }
        return found | named

    @cached_property
    def schema(self) -> pa.Schema:
        """All columns: labels, positions, coordinates, value."""
        fields = [
            *self.labels,
            *(pa.field(name, pa.int64()) for name in self.positions),
            *(pa.field(name, self.types[name]) for name in self.coordinates),
            *(pa.field(name, kind) for name, kind in self.absent.items()),
            pa.field(VALUE, self.value),
        ]
        known = {one.name: one for one in fields}
        return pa.schema([known[name] for name in self.order or known])

    def along(self, axis: int) -> frozenset[str]:
        """Return the columns that are told by the position along one axis."""
        own = {name for name, axes in self.coordinates.items() if axes == (axis,)}
        return frozenset(own | {name for name, other in self.positions.items() if other == axis})

    @cached_property
    def read(self) -> frozenset[str]:
        """The columns that are read cell by cell: the values, and coordinates over several axes."""
        return frozenset(
            {VALUE, *(name for name, axes in self.coordinates.items() if len(axes) != 1)}
        )


def together(columns: Sequence[Columns]) -> list[Columns]:
    """Return the columns of several sets of arrays as those of one table.

    Parameters
    ----------
    columns
        Of each set; with the same labels, and one type for each coordinate.
    """
    fields: dict[str, pa.DataType] = {}
    for kind in ("labels", "positions", "coordinates", VALUE):
        for one in columns:
            names = {
                "labels": one.labels.names,
                "positions": one.positions,
                "coordinates": one.coordinates,
                VALUE: [VALUE],
            }[kind]
            fields |= {name: one.schema.field(name).type for name in names}
    order = tuple(fields)
    return [
        replace(
            one,
            absent={name: fields[name] for name in order if name not in one.schema.names},
            order=order,
        )
        for one in columns
    ]


def dimension_column(axis: int) -> str:
    """Return the name of the column of positions along an axis."""
    return f"dim_{axis}"


@dataclass(frozen=True, eq=False)
class Opened:
    """An array with its coordinates.

    Attributes
    ----------
    values
        The array.
    coordinates
        Its coordinates.
    """

    values: StoredArray
    coordinates: Mapping[str, StoredArray]


class Arrays(Protocol):
    """n arrays of one rank, with the same coordinates."""

    @property
    def columns(self) -> Columns:
        """The columns of the table of their cells."""
        ...

    @property
    def shapes(self) -> NDArray[np.int64]:
        """Their shapes, of shape (n, rank)."""
        ...

    def labels(self, names: Sequence[str]) -> pa.Table:
        """Return some labels, one row an array."""
        ...

    def opened(self, member: int) -> Opened:
        """Return one of the arrays."""
        ...

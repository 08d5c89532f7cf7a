"""The cells of one Zarr array as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import obstore.exceptions
import pyarrow as pa
import zarr
import zarr.errors
from numpy.typing import NDArray

from l2view.arrays.cf import Packing
from l2view.arrays.stored import StoredArray
from l2view.arrays.values import ValueDecoder
from l2view.cells.columns import VALUE, Columns, Opened, dimension_column
from l2view.cells.scan import MAX_CELLS, Cells
from l2view.errors import L2ViewWarning, QueryError, warn
from l2view.scan.dataset import TableDataset
from l2view.stores.hierarchy import resolve

ABSENT = (
    FileNotFoundError,
    PermissionError,
    obstore.exceptions.PermissionDeniedError,
    obstore.exceptions.UnauthenticatedError,
)
"""What stores say of what isn't there: some refuse it, so as not to tell."""


def zarr_cells(
    array: zarr.Array[Any], *, decode: bool = False, max_cells: int = MAX_CELLS
) -> TableDataset:
    """Return the cells of an array as a table that engines query.

    Its columns are

    - ``dim_0``, ``dim_1``, …: the cell's position along each axis, from 0;
    - the names of its dimensions and coordinates: values of the coordinate arrays that lie beside
      it or above, and those that its attribute ``coordinates`` names (CF 1.12, section 5), decoded;
      positions where a named dimension has no coordinate;
    - ``value``.

    A filter on positions and on coordinates along one axis leaves chunks unread; values are read
    only where they are asked for. Chunks that aren't there hold the fill value.

    Parameters
    ----------
    array
        The array, of any data type, codecs and chunk grid that zarr reads.
    decode
        Whether values are decoded by the CF conventions (scale, offset, times), with NULL for what
        is missing; otherwise they are what is stored.
    max_cells
        A query that goes through more cells is an error.

    Returns
    -------
    pyarrow.dataset.Dataset
        For DataFusion (``register_dataset``), DuckDB (``FROM name``), Polars
        (``scan_pyarrow_dataset``) and `pyarrow` itself. Nothing is read yet.

    Raises
    ------
    QueryError
        Where it is no array, or its values can't be decoded.

    Examples
    --------
    >>> import zarr
    >>> array = zarr.create_array({}, shape=(2, 2), dtype="i4")
    >>> array[:] = [[1, 2], [3, 4]]
    >>> zarr_cells(array).to_table().to_pydict()
    {'dim_0': [0, 0, 1, 1], 'dim_1': [0, 1, 0, 1], 'value': [1, 2, 3, 4]}
    """
    if not isinstance(array, zarr.Array):
        raise QueryError(f"zarr_cells() takes a zarr.Array, not a {type(array).__name__}")
    one = OneArray(array, decode)
    return TableDataset(Cells(one.name, (one,), max_cells))


@dataclass(frozen=True, eq=False)
class OneArray:
    """An array as `Arrays`.

    Attributes
    ----------
    array
        The array.
    decode
        Whether its values are decoded.
    """

    array: zarr.Array[Any]
    decode: bool = False

    @property
    def name(self) -> str:
        """Its path."""
        return self.array.path or "the array"

    @cached_property
    def shapes(self) -> NDArray[np.int64]:
        """Its shape, as one row."""
        return np.array([self.array.shape], dtype=np.int64).reshape(1, self.array.ndim)

    @cached_property
    def columns(self) -> Columns:
        """The columns of its table."""
        opened = self.opened(0)
        return Columns(
            labels=pa.schema([]),
            dimensions=dimensions_of(self.array),
            coordinates={name: axes for name, (axes, _) in self._coordinates.items()},
            types={name: one.values.type for name, one in opened.coordinates.items()},
            value=opened.values.values.type,
            # A dimension whose coordinate is no column has no positions by its name.
            hidden=frozenset(name for name, _ in self._beside),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"array": self.array, "decode": self.decode}  # and nothing that was read

    def labels(self, names: Sequence[str]) -> pa.Table:
        """Return a row without columns: an array alone has no labels."""
        return pa.table({"_": pa.nulls(1)}).select([])

    def opened(self, member: int) -> Opened:
        """Return the array."""
        return self._opened

    @cached_property
    def _opened(self) -> Opened:
        coordinates = {
            name: StoredArray.whole(one.path, one, coordinate_values(one, name))
            for name, (_, one) in self._coordinates.items()
        }
        return Opened(StoredArray.whole(self.name, self.array, self._values), coordinates)

    @property
    def _values(self) -> ValueDecoder:
        if not self.decode:
            return ValueDecoder.stored(self.array.metadata.dtype)
        try:
            return decoded_values(self.array)
        except ValueError as error:
            raise QueryError(
                f"{self.name} can't be decoded: {error}; leave decode out, and its values are the "
                "stored numbers"
            ) from error

    @cached_property
    def _beside(self) -> list[tuple[str, zarr.Array[Any] | None]]:
        return list(_beside(self.array, dimensions_of(self.array)))

    @cached_property
    def _coordinates(self) -> Mapping[str, tuple[tuple[int, ...], zarr.Array[Any]]]:
        """The coordinates, and the axes along which each lies."""
        dimensions = dimensions_of(self.array)
        taken = {VALUE, *map(dimension_column, range(self.array.ndim))}
        found = {}
        for name, array in self._beside:
            if array is None:
                warn(f"{name} beside {self.name} can't be opened, and is no column", L2ViewWarning)
                continue
            axes = axes_of(dimensions_of(array), dimensions)
            same = array.shape == tuple(self.array.shape[axis] for axis in axes)
            if axes and same and name not in taken and name not in found:
                found[name] = (axes, array)
        return found


def decoded_values(array: zarr.Array[Any], *, missing: bool = True) -> ValueDecoder:
    """Return an array's values as the CF conventions mean them.

    Parameters
    ----------
    array
        The array.
    missing
        Whether some of them may stand for what is missing.

    Raises
    ------
    ValueError
        Where they can't be decoded.
    """
    packing = Packing.of_array(array, missing=missing)
    return ValueDecoder.decoded(array.metadata.dtype, packing)


def coordinate_values(array: zarr.Array[Any], name: str) -> ValueDecoder:
    """Return the values of a coordinate, which are decoded where they can be.

    That of the dimension that is called so has no missing values (CF 1.12, section 2.5.1).
    """
    try:
        return decoded_values(array, missing=dimensions_of(array) != (name,)).wide
    except ValueError:  # such as of a calendar that timestamps don't have
        return ValueDecoder.stored(array.metadata.dtype).wide


def dimensions_of(array: zarr.Array[Any]) -> tuple[str | None, ...]:
    """Return the names of an array's dimensions, None where one has none."""
    names = getattr(array.metadata, "dimension_names", None)
    if names is None:  # as xarray names them in Zarr v2
        names = array.attrs.get("_ARRAY_DIMENSIONS")
    if not isinstance(names, Sequence) or len(names) != array.ndim:
        return (None,) * array.ndim
    return tuple(None if name is None else str(name) for name in names)


def axes_of(own: Sequence[str | None], dimensions: Sequence[str | None]) -> tuple[int, ...]:
    """Return along which axes of an array another one lies, none where it does not.

    Parameters
    ----------
    own
        The dimensions of the other.
    dimensions
        Those of the array, which must have each of them once, in the same order.
    """
    known = list(dimensions)
    if not all(name is not None and known.count(name) == 1 for name in own):
        return ()
    axes = tuple(known.index(name) for name in own)
    return axes if axes == tuple(sorted(set(axes))) else ()


def _beside(
    array: zarr.Array[Any], dimensions: Sequence[str | None]
) -> Iterator[tuple[str, zarr.Array[Any] | None]]:
    """Yield what may be coordinates of an array, by their names; None for what can't be opened."""
    store, group = array.store_path.store, array.path.rpartition("/")[0]
    said = str(array.attrs.get("coordinates", "")).split()
    for name in dict.fromkeys([*(one for one in dimensions if one is not None), *said]):
        above = group
        while True:
            place = resolve(f"{above}/{name}")
            try:
                found = None if place is None else zarr.open(store, path=place, mode="r")
            except ABSENT:
                found = None
            except (zarr.errors.BaseZarrError, ValueError, TypeError, KeyError):
                yield name.rpartition("/")[2], None  # of codecs and data types that zarr lacks
                break
            if isinstance(found, zarr.Array):
                yield name.rpartition("/")[2], found
                break
            if not above:
                break
            above = above.rpartition("/")[0]

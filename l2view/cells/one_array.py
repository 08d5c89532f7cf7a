"""The cells of one Zarr array as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
import zarr.errors
from numpy.typing import NDArray
from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from l2view.arrays.cf import Packing
from l2view.arrays.stored import StoredArray
from l2view.arrays.values import ValueDecoder
from l2view.cells.columns import (
    VALUE,
    CellColumns,
    Dimensions,
    coordinate_candidates,
    coordinate_decoder,
    dimension_column,
    shared_axes,
)
from l2view.cells.scan import MAX_CELLS, CellTable
from l2view.errors import L2ViewWarning, QueryError, warn
from l2view.scan.dataset import TableDataset
from l2view.stores.zarr_v2 import DIMENSIONS

ABSENT = (FileNotFoundError, PermissionError, PermissionDeniedError, UnauthenticatedError)
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
    arrays = SingleArray(array, decode)
    return TableDataset(CellTable(arrays.name, (arrays,), max_cells))


@dataclass(frozen=True, eq=False)
class SingleArray:
    """An array as an `ArraySet`; `decode` says whether its values are decoded."""

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
    def columns(self) -> CellColumns:
        """The columns of its table."""
        coordinates = {name: axes for name, (axes, _) in self._coordinates.items()}
        types = {name: self.open(0, name).values.type for name in [*coordinates, VALUE]}
        # A dimension whose coordinate is no column has no positions by its name.
        hidden = {name for name, _ in self._candidates}
        sets = [(dimensions_of(self.array), coordinates)]
        return CellColumns.of_sets(pa.schema([]), sets, types, hidden)[0]

    def __getstate__(self) -> dict[str, Any]:
        return {"array": self.array, "decode": self.decode}  # and nothing that was read

    def labels(self, names: Sequence[str]) -> pa.Table:
        """Return a row without columns: an array alone has no labels."""
        return pa.table({"_": pa.nulls(1)}).select([])

    def open(self, index: int, name: str) -> StoredArray:
        """Return the values or a coordinate."""
        return self._values if name == VALUE else self._coordinates[name][1]

    @cached_property
    def _values(self) -> StoredArray:
        data_type = self.array.metadata.dtype
        decoder = ValueDecoder.raw(data_type)
        if self.decode:
            try:
                decoder = ValueDecoder.of_packing(data_type, Packing.of_array(self.array))
            except ValueError as error:
                raise QueryError(
                    f"{self.name} can't be decoded: {error}; leave decode out, and its values are "
                    "the stored numbers"
                ) from error
        return StoredArray.of(self.name, self.array, decoder)

    @cached_property
    def _candidates(self) -> list[tuple[str, zarr.Array[Any] | None]]:
        """What may be coordinates, by their names; None for what can't be opened."""
        store, group = self.array.store_path.store, self.array.path.rpartition("/")[0]
        candidates: list[tuple[str, zarr.Array[Any] | None]] = []
        for name, paths in coordinate_candidates(
            group, dimensions_of(self.array), self.array.attrs
        ):
            for path in paths:
                try:
                    node = zarr.open(store, path=path, mode="r")
                except ABSENT:
                    continue
                except (zarr.errors.BaseZarrError, ValueError, TypeError, KeyError):
                    candidates.append((name, None))  # of codecs and data types that zarr lacks
                    break
                if isinstance(node, zarr.Array):
                    candidates.append((name, node))
                    break
        return candidates

    @cached_property
    def _coordinates(self) -> Mapping[str, tuple[tuple[int, ...], StoredArray]]:
        """The coordinates, and the axes along which each lies."""
        dimensions = dimensions_of(self.array)
        reserved = {VALUE, *map(dimension_column, range(self.array.ndim))}
        coordinates: dict[str, tuple[tuple[int, ...], StoredArray]] = {}
        for name, array in self._candidates:
            if array is None:
                warn(f"{name} beside {self.name} can't be opened, and is no column", L2ViewWarning)
                continue
            own = dimensions_of(array)
            axes = shared_axes(own, dimensions)
            same = array.shape == tuple(self.array.shape[axis] for axis in axes)
            if axes and same and name not in {*reserved, *coordinates}:
                packing, data_type = Packing.of_array(array), array.metadata.dtype
                decoder = coordinate_decoder(data_type, packing, is_axis=own == (name,))
                coordinates[name] = axes, StoredArray.of(array.path, array, decoder)
        return coordinates


def dimensions_of(array: zarr.Array[Any]) -> Dimensions:
    """Return the names of an array's dimensions, None where one has none."""
    names = getattr(array.metadata, "dimension_names", None)
    if names is None:  # as xarray names them in Zarr v2
        names = array.attrs.get(DIMENSIONS)
    if not isinstance(names, Sequence) or len(names) != array.ndim:
        return (None,) * array.ndim
    return tuple(None if name is None else str(name) for name in names)

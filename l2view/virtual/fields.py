"""The fields of a search result as 1-D Zarr arrays over the dimension ``granule``.

They are encoded by the CF conventions, so that any reader of Zarr sees times as times and
NULL as missing. No array is named like the dimension, so xarray makes no index of it, and
the children of a DataTree inherit nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numcodecs.vlen import VLenUTF8
from numpy.typing import NDArray

from l2view.arrays.cf import TIME_WORDS
from l2view.arrays.encoding import NULL_TIME, ArrayEncoding
from l2view.granules.table import regular_grid
from l2view.limits import limits
from l2view.stores.hierarchy import JSON
from l2view.virtual.attributes import DECODING, is_geometry, json_values
from l2view.virtual.join_array import array_document, chunk_index

type ColumnEncoder = Callable[[pa.Array], NDArray[Any]]
"""Returns the values of an Arrow array as the data type of a Zarr array has them."""

DIMENSION = "granule"  # the dimension of the root's arrays, where no field has that name

CF_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

DESCRIPTIVE = frozenset({"units", "standard_name", "flag_values", "flag_masks", "flag_meanings"})
"""Of the attributes that may decode, those that don't change a plain number."""


@dataclass(frozen=True)
class FieldArray:
    """One field as a Zarr array, with its Zarr v3 document.

    `read` returns the values from one index to another, as the array's data type has them.
    """

    document: JSON
    read: Callable[[int, int], NDArray[Any]]

    @property
    def length(self) -> int:
        """The number of values."""
        return int(self.document["shape"][0])

    @property
    def chunk_length(self) -> int:
        """The number of values in a chunk."""
        return int(self.document["chunk_grid"]["configuration"]["chunk_shape"][0])

    @property
    def chunk_count(self) -> int:
        """The number of chunks."""
        return -(-self.length // self.chunk_length)

    @property
    def values(self) -> NDArray[Any]:
        """All values, read in several pieces: Arrow's strings end at 2 GiB in one."""
        starts = range(0, max(self.length, 1), self.chunk_length)
        return np.concatenate([self.read(n, n + self.chunk_length) for n in starts])

    def chunk_at(self, key: str) -> bytes | None:
        """Return the encoded chunk at `key`, None where that is no chunk's."""
        index = chunk_index(key, [self.chunk_count])
        return None if index is None else self.chunk(*index)

    def chunk(self, index: int) -> bytes:
        """Return one encoded chunk."""
        length = self.chunk_length
        values = self.read(index * length, min((index + 1) * length, self.length))
        padded = np.full(length, "" if values.dtype == object else 0, dtype=values.dtype)
        padded[: len(values)] = values
        if padded.dtype == object:
            return bytes(VLenUTF8().encode(padded))
        return padded.tobytes()


def field_arrays(
    table: pa.Table, attributes: Mapping[str, JSON], dimension: str | None = None
) -> dict[str, FieldArray]:
    """Return the Zarr arrays for the columns of a table, by name.

    The `attributes` are those of the arrays of ``/meta`` that the columns came from; the
    dimension's name is by default one that no column has.
    """
    dimension = dimension or free_name(DIMENSION, table.schema.names)
    arrays = {}
    for field in table.schema:
        column = table.column(field.name)
        encoding, encode = _encode_column(column, is_geometry(field))
        described = _descriptive(attributes.get(field.name, {})) | encoding.attributes
        document = _document(len(column), encoding, described, dimension)
        arrays[field.name] = FieldArray(document, partial(_read_column, column, encode))
    return arrays


def _read_column(
    column: pa.ChunkedArray, encode: ColumnEncoder, start: int, stop: int
) -> NDArray[Any]:
    rows = column.slice(start, stop - start)
    return encode(rows.combine_chunks() if rows.num_chunks else pa.array([], column.type))


def free_name(name: str, reserved: Iterable[str]) -> str:
    """Return `name`, with ``_`` behind it while it is reserved.

    An array named like its dimension would be an index to xarray.
    """
    reserved = set(reserved)
    while name in reserved:
        name += "_"
    return name


def _encode_column(column: pa.ChunkedArray, geometry: bool) -> tuple[ArrayEncoding, ColumnEncoder]:
    """Return how a column is encoded by the CF conventions."""
    kind = column.type
    if pa.types.is_temporal(kind):
        is_timestamp = pa.types.is_timestamp(kind)
        encode = _fill_nulls(NULL_TIME, pa.int64())
        if not _fits_nanoseconds(column):
            # xarray decodes CF times by way of nanoseconds, and would fail for all of them.
            name = "datetime64" if is_timestamp else "timedelta64"
            configuration = {"unit": kind.unit, "scale_factor": 1}
            data_type = {"name": f"numpy.{name}", "configuration": configuration}
            view = f"{name}[{kind.unit}]"
            return _encoding(data_type, NULL_TIME), lambda array: encode(array).view(view)
        attributes: JSON = {"_FillValue": NULL_TIME, "units": CF_UNITS[kind.unit]}
        if is_timestamp:
            attributes["units"] += " since 1970-01-01"
            attributes["calendar"] = "proleptic_gregorian"
        else:
            attributes["dtype"] = f"timedelta64[{kind.unit}]"
        return _encoding("int64", 0, attributes), encode
    if pa.types.is_floating(kind):
        dtype = str(np.dtype(kind.to_pandas_dtype()))
        return _encoding(dtype, "NaN"), _fill_nulls(float("nan"), kind)
    if pa.types.is_boolean(kind):
        if not column.null_count:
            return _encoding("bool", False), _fill_nulls(False, kind)
        return _encoding("int8", 0, {"_FillValue": -1}), _fill_nulls(-1, pa.int8())
    if pa.types.is_integer(kind):
        fill = _unused_number(column) if column.null_count else 0
        missing = {"_FillValue": fill} if column.null_count else {}
        return _encoding(str(kind), 0, missing), _fill_nulls(fill, kind)
    null = _unused_text(column) if column.null_count else ""
    # xarray knows no _FillValue of a string.
    attributes = {"missing_value": null} if column.null_count else {}
    return _encoding("string", "", attributes), lambda array: np.array(
        [null if text is None else text for text in json_values(array, geometry)], dtype=object
    )


def _encoding(
    data_type: str | JSON, fill_value: Any, attributes: JSON | None = None
) -> ArrayEncoding:
    codec: JSON = {"name": "bytes", "configuration": {"endian": "little"}}
    if data_type in ("bool", "int8", "uint8"):
        codec = {"name": "bytes"}
    elif data_type == "string":
        codec = {"name": "vlen-utf8"}
    return ArrayEncoding(data_type, (codec,), fill_value, attributes or {}, decoded=True)


def _document(length: int, encoding: ArrayEncoding, attributes: JSON, dimension: str) -> JSON:
    chunk_grid = regular_grid([max(1, min(length, limits().view_chunk_rows))])
    return array_document(encoding, [length], chunk_grid, [dimension], attributes)


def owner_array(sizes: NDArray[np.int64], dimension: str, instances: str) -> FieldArray:
    """Return the array with the granule of each element along a dimension.

    It is an index variable of CF's (1.12, 9.3.4), computed chunk by chunk from the `sizes` of the
    granules, of shape (n,). `instances` is the name of the dimension with an element a granule.
    """
    ends = np.cumsum(sizes)
    attributes = {
        "long_name": f"position along {instances} of the granule of each element",
        "instance_dimension": instances,
    }
    total = int(ends[-1]) if len(ends) else 0

    def read(start: int, stop: int) -> NDArray[Any]:
        return np.searchsorted(ends, np.arange(start, min(stop, total)), side="right")

    return FieldArray(_document(total, _encoding("int64", 0), attributes, dimension), read)


def _fits_nanoseconds(column: pa.ChunkedArray) -> bool:
    """Return whether int64 holds every time of a column in nanoseconds."""
    extremes = pc.min_max(column.cast(pa.int64())).as_py().values()
    limit = 2**63 // int(np.timedelta64(1, column.type.unit) / np.timedelta64(1, "ns"))
    return all(value is None or -limit < value < limit for value in extremes)


def _descriptive(attributes: JSON) -> JSON:
    """Return the attributes of a field that describe its values as they are in the table."""
    result = {
        name: value
        for name, value in attributes.items()
        if name not in DECODING or name in DESCRIPTIVE
    }
    units = str(result.get("units", ""))
    if " since " in units or units.rstrip("s") in {unit.rstrip("s") for unit in TIME_WORDS}:
        del result["units"]  # xarray would make times of plain numbers
    return result


def _fill_nulls(null: Any, kind: pa.DataType) -> ColumnEncoder:
    fill = pa.scalar(null, kind)
    return lambda array: pc.fill_null(array.cast(kind), fill).to_numpy(zero_copy_only=False)


def _unused_number(column: pa.ChunkedArray) -> int:
    """Return a number of the column's type that isn't one of its values."""
    info = np.iinfo(column.type.to_pandas_dtype())
    for candidate in (int(info.max), int(info.min)):
        if pc.index(column, pa.scalar(candidate, column.type)).as_py() < 0:
            return candidate
    values = pc.unique(column.drop_null()).to_numpy()
    return int(np.setdiff1d(np.arange(len(values) + 1) + int(info.min), values)[0])


def _unused_text(column: pa.ChunkedArray) -> str:
    """Return a text that isn't one of the column's values, the empty one if it may be."""
    candidate = ""
    while pa.types.is_string(column.type) and pc.index(column, candidate).as_py() >= 0:
        candidate += "NULL"
    return candidate

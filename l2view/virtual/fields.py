"""The fields of a search result as 1-D Zarr arrays over the dimension ``granule``.

They are encoded by the CF conventions, so that any reader of Zarr sees times as times and
NULL as missing. No array is named like the dimension, so xarray makes no index of it, and
the children of a DataTree inherit nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numcodecs.vlen import VLenUTF8
from numpy.typing import NDArray

from l2view.arrays.cf import TIME_WORDS
from l2view.arrays.encoding import NULL_TIME
from l2view.stores.hierarchy import JSON
from l2view.virtual.attributes import DECODING, is_geometry, json_values

DIMENSION = "granule"
"""The dimension of the root's arrays, where no field has that name."""

CHUNK_ROWS = 65_536
"""The most granules in a chunk of a root array."""

CF_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

IN_A_NANOSECOND = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""Arrow's units of time in nanoseconds."""

DESCRIPTIVE = frozenset({"units", "standard_name", "flag_values", "flag_masks", "flag_meanings"})
"""Of the attributes that may decode, those that don't change a plain number."""


@dataclass(frozen=True)
class FieldArray:
    """One field as a Zarr array.

    Attributes
    ----------
    document
        The Zarr v3 document.
    read
        Returns the values from one index to another, as the array's data type has them.
    """

    document: JSON
    read: Callable[[int, int], NDArray[Any]]

    @property
    def length(self) -> int:
        """The number of values."""
        return int(self.document["shape"][0])

    @property
    def values(self) -> NDArray[Any]:
        """All values; not read in one piece, for Arrow's strings end at 2 GiB in one."""
        starts = range(0, max(self.length, 1), self.chunk_length)
        return np.concatenate([self.read(n, n + self.chunk_length) for n in starts])

    @property
    def chunk_length(self) -> int:
        """The number of granules in a chunk."""
        return int(self.document["chunk_grid"]["configuration"]["chunk_shape"][0])

    @property
    def chunk_count(self) -> int:
        """The number of chunks."""
        return -(-self.length // self.chunk_length)

    @property
    def keys(self) -> list[str]:
        """The keys of its chunks."""
        return [f"c/{index}" for index in range(self.chunk_count)]

    def chunk_at(self, key: str) -> bytes | None:
        """Return the encoded chunk at `key`, None where that is no chunk's."""
        match = re.fullmatch(r"c/(\d+)", key)
        return None if match is None else self.chunk(int(match.group(1)))

    def chunk(self, index: int) -> bytes | None:
        """Return one encoded chunk, None beyond the end."""
        length = self.chunk_length
        if not 0 <= index < self.chunk_count:
            return None
        values = self.read(index * length, min((index + 1) * length, self.length))
        padded = np.full(length, "" if values.dtype == object else 0, dtype=values.dtype)
        padded[: len(values)] = values
        if padded.dtype == object:
            return bytes(VLenUTF8().encode(padded))
        return padded.tobytes()


def field_arrays(
    table: pa.Table, attributes: Mapping[str, JSON], dimension: str | None = None
) -> dict[str, FieldArray]:
    """Return the Zarr arrays for the columns of `table`, by name.

    Parameters
    ----------
    table
        The rows.
    attributes
        The attributes of the arrays of ``/meta`` that the columns came from, by name.
    dimension
        The name of the arrays' dimension, by default one that none of them has.
    """
    if dimension is None:
        dimension = free_name(DIMENSION, table.schema.names)
    return {
        field.name: _field_array(
            field, table.column(field.name), attributes.get(field.name, {}), dimension
        )
        for field in table.schema
    }


def free_name(name: str, taken: Iterable[str]) -> str:
    """Return `name`, with ``_`` behind it while it is taken.

    An array named like its dimension would be an index to xarray.
    """
    taken = set(taken)
    while name in taken:
        name += "_"
    return name


def _field_array(
    field: pa.Field, column: pa.ChunkedArray, attributes: JSON, dimension: str
) -> FieldArray:
    """Return the Zarr array for one column.

    Parameters
    ----------
    field
        The column's place in the schema.
    column
        Its values.
    attributes
        The attributes of the array of ``/meta`` that the column came from.
    dimension
        The name of the array's dimension.
    """
    kind = field.type
    added: JSON = {}
    dtype: str | JSON = "int64"
    fill: Any = 0
    encode: Callable[[pa.Array], NDArray[Any]] = _numbers
    if pa.types.is_temporal(kind) and not _in_nanoseconds(column):
        # xarray decodes CF times by way of nanoseconds, and would fail for all of them.
        name = "datetime64" if pa.types.is_timestamp(kind) else "timedelta64"
        configuration = {"unit": kind.unit, "scale_factor": 1}
        dtype, fill = {"name": f"numpy.{name}", "configuration": configuration}, NULL_TIME
        encode = _native(f"{name}[{kind.unit}]")
    elif pa.types.is_temporal(kind):
        unit = CF_UNITS[kind.unit]
        added["_FillValue"] = NULL_TIME
        if pa.types.is_timestamp(kind):
            added |= {"units": f"{unit} since 1970-01-01", "calendar": "proleptic_gregorian"}
        else:
            added |= {"units": unit, "dtype": f"timedelta64[{kind.unit}]"}
        encode = _filled(NULL_TIME, pa.int64())
    elif pa.types.is_floating(kind):
        dtype, fill = str(kind.to_pandas_dtype()().dtype), "NaN"
        encode = _filled(float("nan"), kind)
    elif pa.types.is_boolean(kind):
        dtype, fill = "bool", False
        if column.null_count:
            dtype, fill, added["_FillValue"] = "int8", 0, -1
            encode = _filled(-1, pa.int8())
    elif pa.types.is_integer(kind):
        dtype = str(kind)
        if column.null_count:
            added["_FillValue"] = _unused_number(column)
            encode = _filled(added["_FillValue"], kind)
    else:
        dtype, fill = "string", ""
        null = _unused_text(column) if column.null_count else ""
        if column.null_count:  # xarray knows no _FillValue of a string
            added["missing_value"] = null
        encode = _texts(is_geometry(field), null)
    document = _document(len(column), dtype, fill, _kept(attributes) | added, dimension)

    def read(start: int, stop: int) -> NDArray[Any]:
        part = column.slice(start, stop - start)
        return encode(part.combine_chunks() if part.num_chunks else pa.array([], kind))

    return FieldArray(document, read)


def owner_array(sizes: NDArray[np.int64], dimension: str, instances: str) -> FieldArray:
    """Return the array that says whose each element along a dimension is.

    It is an index variable of CF's (1.12, 9.3.4), and told piece by piece.

    Parameters
    ----------
    sizes
        How many elements each granule has, of shape (n,).
    dimension
        The name of the dimension that granules lie along.
    instances
        The name of the dimension with an element a granule.
    """
    ends = np.cumsum(sizes)
    attributes = {
        "long_name": f"position along {instances} of the granule of each element",
        "instance_dimension": instances,
    }
    total = int(ends[-1]) if len(ends) else 0
    document = _document(total, "int64", 0, attributes, dimension)

    def read(start: int, stop: int) -> NDArray[Any]:
        return np.searchsorted(ends, np.arange(start, min(stop, total)), side="right")

    return FieldArray(document, read)


def _document(length: int, dtype: str | JSON, fill: Any, attributes: JSON, dimension: str) -> JSON:
    serializer: JSON = {"name": "bytes", "configuration": {"endian": "little"}}
    if dtype in ("bool", "int8", "uint8"):
        serializer = {"name": "bytes"}
    elif dtype == "string":
        serializer = {"name": "vlen-utf8"}
    chunk = max(1, min(length, CHUNK_ROWS))
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [length],
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [serializer],
        "attributes": attributes,
        "dimension_names": [dimension],
    }


def _in_nanoseconds(column: pa.ChunkedArray) -> bool:
    """Return whether every time of a column is one in nanoseconds too."""
    extremes = pc.min_max(column.cast(pa.int64())).as_py().values()
    most = 2**63 // IN_A_NANOSECOND[column.type.unit]
    return all(value is None or -most < value < most for value in extremes)


def _native(dtype: str) -> Callable[[pa.Array], NDArray[Any]]:
    encode = _filled(NULL_TIME, pa.int64())
    return lambda part: encode(part).view(dtype)


def _kept(attributes: JSON) -> JSON:
    """Return the attributes of a field that describe its values as they are in the table."""
    kept = {
        name: value
        for name, value in attributes.items()
        if name not in DECODING or name in DESCRIPTIVE
    }
    units = str(kept.get("units", ""))
    if " since " in units or units.rstrip("s") in {unit.rstrip("s") for unit in TIME_WORDS}:
        del kept["units"]  # xarray would make times of plain numbers
    return kept


def _numbers(part: pa.Array) -> NDArray[Any]:
    return np.asarray(part.to_numpy(zero_copy_only=False))


def _filled(null: Any, kind: pa.DataType) -> Callable[[pa.Array], NDArray[Any]]:
    def encode(part: pa.Array) -> NDArray[Any]:
        plain = part.cast(kind)
        return np.asarray(pc.fill_null(plain, pa.scalar(null, kind)).to_numpy())

    return encode


def _texts(geometry: bool, null: str) -> Callable[[pa.Array], NDArray[Any]]:
    def encode(part: pa.Array) -> NDArray[Any]:
        texts = json_values(part, geometry)
        return np.array([null if text is None else text for text in texts], dtype=object)

    return encode


def _unused_number(column: pa.ChunkedArray) -> int:
    """Return a number of the column's type that isn't one of its values."""
    info = np.iinfo(column.type.to_pandas_dtype())
    for candidate in (int(info.max), int(info.min)):
        if pc.index(column, pa.scalar(candidate, column.type)).as_py() < 0:
            return candidate
    values = pc.unique(column.drop_null()).to_numpy()
    free = np.setdiff1d(np.arange(len(values) + 1) + int(info.min), values)
    return int(free[0])


def _unused_text(column: pa.ChunkedArray) -> str:
    """Return a text that isn't one of the column's values, the empty one if it may be."""
    candidate = ""
    while pa.types.is_string(column.type) and pc.index(column, candidate).as_py() >= 0:
        candidate += "NULL"
    return candidate

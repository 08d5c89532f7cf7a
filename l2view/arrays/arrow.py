"""NumPy's values as Arrow's: every data type that zarr reads has a column.

NaN and NaT are NULL. A complex number is a struct of its real and imaginary part, a structured
value a struct of its fields. Times that Arrow has no unit for, and lengths of time in months or
years, are the integers that are stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

TIME_UNITS = {"W": "s", "D": "s", "h": "s", "m": "s", "s": "s", "ms": "ms", "us": "us", "ns": "ns"}
"""NumPy's units and the Arrow units that hold them exactly."""

TIMESTAMP_UNITS = {**dict.fromkeys(("Y", "M", *TIME_UNITS), "us"), "ns": "ns"}
"""The same of instants. None is coarser than a microsecond: DataFusion cuts what a column is
compared with to the column's unit, and Python's datetimes have microseconds."""


def arrow_type(dtype: np.dtype[Any]) -> pa.DataType:
    """Return the Arrow type for the values of a NumPy dtype; objects are texts."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        kind = arrow_type(base)
        for length in reversed(shape):
            kind = pa.list_(kind, length)
        return kind
    if dtype.names is not None:
        return pa.struct([(name, arrow_type(dtype[name])) for name in dtype.names])
    match dtype.kind:
        case "f":
            # Query engines compare singles, and a half is one exactly.
            return pa.float64() if dtype.itemsize == 8 else pa.float32()
        case "c":
            number = pa.float32() if dtype.itemsize == 8 else pa.float64()
            return pa.struct([("real", number), ("imag", number)])
        case "M" if _unit(dtype) in TIMESTAMP_UNITS:
            return pa.timestamp(TIMESTAMP_UNITS[_unit(dtype)])
        case "m" if _unit(dtype) in TIME_UNITS:
            return pa.duration(TIME_UNITS[_unit(dtype)])
        case "M" | "m":
            return pa.int64()
        case "V":
            return pa.binary(dtype.itemsize)
        case "S":
            return pa.binary()
        case "O" | "U" | "T":
            return pa.string()
    return pa.from_numpy_dtype(dtype.newbyteorder("="))


def _unit(dtype: np.dtype[Any]) -> str:
    return np.datetime_data(dtype)[0]


def to_arrow(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Return values, of any shape, as an Arrow array of the type that `arrow_type` gave.

    An `OverflowError` says that a time is beyond what the type holds.
    """
    if values.dtype.names is not None:
        columns = [to_arrow(values[field.name], field.type) for field in kind]
        return pa.StructArray.from_arrays(columns, fields=list(kind))
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(to_arrow(values, kind.value_type), type=kind)
    flat = np.ascontiguousarray(values).reshape(-1)
    match flat.dtype.kind:
        case "c":
            numbers = [to_arrow(half, kind.field(0).type) for half in (flat.real, flat.imag)]
            return pa.StructArray.from_arrays(numbers, fields=list(kind))
        case "M" | "m" if pa.types.is_int64(kind):
            return pa.array(flat.astype(flat.dtype.newbyteorder("=")).view(np.int64))
        case "M" | "m":
            return pa.array(in_unit(flat, kind.unit))
        case "V":
            buffers = [None, pa.py_buffer(flat.tobytes())]
            return pa.FixedSizeBinaryArray.from_buffers(kind, len(flat), buffers)
        case "S":
            return pa.array(flat.astype(object), pa.binary())
        case "U" | "T" | "O":
            return text_array(flat, kind)
        case "f":
            wide = np.float32 if flat.dtype.itemsize == 2 else flat.dtype.newbyteorder("=")
            flat = flat.astype(wide, copy=False)
            # The least of numbers is NaN where one of them is, which costs less than asking each.
            least = flat.min(initial=np.inf)
            if not least > 0:
                flat = without_negative_zero(flat)
                if np.isnan(least):
                    return pa.array(flat, mask=np.isnan(flat))
    return pa.array(flat.astype(flat.dtype.newbyteorder("="), copy=False))


def without_negative_zero(values: NDArray[Any]) -> NDArray[Any]:
    """Return floats with 0.0 for -0.0, which engines otherwise tell apart."""
    bits = values.view(f"i{values.dtype.itemsize}")
    return values + 0 if bits.min(initial=0) == np.iinfo(bits.dtype).min else values


def in_unit(values: NDArray[Any], unit: Any) -> NDArray[Any]:
    """Return times in another unit; an `OverflowError` where 64 bits of it don't hold one."""
    converted = values.astype(f"{values.dtype.kind}8[{unit}]")
    back = converted.astype(values.dtype)
    if not np.array_equal(back[~np.isnat(values)], values[~np.isnat(values)]):
        raise OverflowError(f"a time is beyond what {unit} can tell")
    return converted


def text_array(values: NDArray[Any] | pa.Array, kind: pa.DataType) -> pa.Array:
    """Return strings and bytes, of shape (n,), as an Arrow array."""
    if isinstance(values, pa.Array):
        return values.cast(kind)
    if values.dtype.kind == "S":
        return pa.array(values.astype(object), pa.binary()).cast(kind)
    if values.dtype.kind in "UT":
        return pa.array(values.astype(np.dtypes.StringDType()), kind)
    return pa.array(values.astype(object), kind)

"""Zarr's values as Arrow's: every data type that zarr reads has a column.

A complex number is a struct of its real and imaginary part, a structured value a struct of its
fields. Times that Arrow has no unit for, and lengths of time in months or years, are the integers
that are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from zarr.core.dtype.npy.bytes import VariableLengthBytes
from zarr.core.dtype.wrapper import ZDType

from l2view.decoding import PACKING, TIMES, decode, is_time, require_calendar
from l2view.meta.decode import in_unit, texts
from l2view.meta.schema import TIME_UNITS, TIMESTAMP_UNITS

COMPUTED = frozenset({"add_offset", "scale_factor", "dtype", "_Encoding"})
"""Attributes by which a value is more than the stored number."""


TEXTUAL = frozenset({"_FillValue", "missing_value", "_Encoding"})
"""Attributes of texts."""


def arrow_type(dtype: np.dtype[Any], *, binary: bool = False) -> pa.DataType:
    """Return the Arrow type for the values of a NumPy dtype.

    Parameters
    ----------
    dtype
        The dtype.
    binary
        Whether objects are bytes; they are texts otherwise.
    """
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
            part = pa.float32() if dtype.itemsize == 8 else pa.float64()
            return pa.struct([("real", part), ("imag", part)])
        case "M" if _unit(dtype) in TIMESTAMP_UNITS:
            return pa.timestamp(TIMESTAMP_UNITS[_unit(dtype)])
        case "m" if _unit(dtype) in TIME_UNITS:
            return pa.duration(TIME_UNITS[_unit(dtype)])
        case "M" | "m":
            return pa.int64()
        case "V":
            return pa.binary(dtype.itemsize)
        case "O":
            return pa.binary() if binary else pa.string()
        case "S" | "U" | "T":
            return pa.string()
    return pa.from_numpy_dtype(dtype.newbyteorder("="))


def _unit(dtype: np.dtype[Any]) -> str:
    return np.datetime_data(dtype)[0]


def to_arrow(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Return values, of any shape, as an Arrow array of the type that `arrow_type` gave.

    Raises
    ------
    OverflowError
        Where a time is beyond what the type can tell.
    """
    if values.dtype.names is not None:
        parts = [to_arrow(values[field.name], field.type) for field in kind]
        return pa.StructArray.from_arrays(parts, fields=list(kind))
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(to_arrow(values, kind.value_type), type=kind)
    flat = np.ascontiguousarray(values).reshape(-1)
    match flat.dtype.kind:
        case "c":
            parts = [np.ascontiguousarray(part) for part in (flat.real, flat.imag)]
            parts = [pa.array(part.astype(part.dtype.newbyteorder("="))) for part in parts]
            return pa.StructArray.from_arrays(parts, fields=list(kind))
        case "M" | "m" if pa.types.is_int64(kind):
            return pa.array(flat.astype(flat.dtype.newbyteorder("=")).view(np.int64))
        case "M" | "m":
            return pa.array(in_unit(flat, kind.unit))
        case "V":
            buffers = [None, pa.py_buffer(flat.tobytes())]
            return pa.FixedSizeBinaryArray.from_buffers(kind, len(flat), buffers)
        case "S" | "U" | "T" | "O":
            return texts(flat, kind)
    dtype = np.dtype(np.float32) if flat.dtype.itemsize == 2 and flat.dtype.kind == "f" else None
    return pa.array(flat.astype(dtype or flat.dtype.newbyteorder("="), copy=False))


@dataclass(frozen=True)
class Values:
    """How the stored values of an array become a column.

    Attributes
    ----------
    dtype
        NumPy's dtype of the values.
    type
        The column's type.
    attributes
        The attributes by which stored values are decoded, None where they stay as they are.
    """

    dtype: np.dtype[Any]
    type: pa.DataType
    attributes: Mapping[str, Any] | None = None

    @classmethod
    def stored(cls, said: ZDType[Any, Any]) -> Values:
        """Return the values of a data type as they are stored."""
        dtype = said.to_native_dtype()
        return cls(dtype, arrow_type(dtype, binary=isinstance(said, VariableLengthBytes)))

    @classmethod
    def decoded(cls, said: ZDType[Any, Any], attributes: Mapping[str, Any]) -> Values:
        """Return the values of a data type as the CF conventions mean them.

        What is missing is NULL. Integers stay integers where they are not scaled.

        Parameters
        ----------
        said
            The data type.
        attributes
            The array's (see `l2view.decoding.attributes_of`).

        Raises
        ------
        ValueError
            Where they can't be decoded.
        """
        stored = cls.stored(said)
        kept = {name: value for name, value in attributes.items() if name in PACKING | TIMES}
        if not is_time(kept):
            kept = {name: value for name, value in kept.items() if name not in TIMES}
        if stored.dtype.kind not in "iufbSUTO" or pa.types.is_binary(stored.type):
            return stored
        if stored.dtype.kind in "SUTO":
            kept = {name: value for name, value in kept.items() if name in TEXTUAL}
        if _is_count(stored.dtype, kept):
            dtype = _signed_as_said(stored.dtype, kept)
        else:
            if is_time(kept) and " since " in str(kept["units"]):
                require_calendar(kept)
            dtype = decode(np.zeros(1, stored.dtype), kept).dtype
        return cls(dtype, arrow_type(dtype), kept)

    def cast(self, dtype: np.dtype[Any]) -> Values:
        """Return the same values in a dtype that has all of them."""
        return self if dtype == self.dtype else replace(self, dtype=dtype, type=arrow_type(dtype))

    @property
    def wide(self) -> Values:
        """The same values, doubles instead of singles.

        Singles are compared with the doubles of a query by an engine, and not by a table.
        """
        return self.cast(np.dtype(np.float64)) if pa.types.is_float32(self.type) else self

    def to_arrow(self, values: NDArray[Any]) -> pa.Array:
        """Return stored values, of any shape, as an Arrow array in C order.

        Raises
        ------
        ValueError, OverflowError
            Where one of them can't be told by the column's type.
        """
        kind = self.type
        if self.attributes is None:
            binary = pa.types.is_binary(kind)
            return to_arrow(values, arrow_type(values.dtype, binary=binary)).cast(kind)
        if values.dtype.kind in "SUTO":
            return self._texts(values.reshape(-1), self.attributes)
        if _is_count(values.dtype, self.attributes):
            missing = np.isin(values, _fills(values.dtype, self.attributes))
            found = values.view(_signed_as_said(values.dtype, self.attributes))
        else:
            found = decode(values, self.attributes)
            if found.dtype == object and is_time(self.attributes):
                raise ValueError("its times are none that nanoseconds since 1970 can tell")
            missing = np.isnan(found) if found.dtype.kind == "f" else np.zeros(0, dtype=bool)
        made = to_arrow(found, arrow_type(found.dtype))
        if missing.any():
            made = _without(made, missing.reshape(-1))
        return made.cast(kind)

    def _texts(self, values: NDArray[Any], attributes: Mapping[str, Any]) -> pa.Array:
        """Return texts, with NULL for those that stand for what is missing."""
        encoding = {name: said for name, said in attributes.items() if name == "_Encoding"}
        made = to_arrow(decode(values, encoding), pa.string())
        fills = [attributes[name] for name in ("_FillValue", "missing_value") if name in attributes]
        fills = [one.decode() if isinstance(one, bytes) else str(one) for one in fills]
        held = pc.is_in(made, pa.array(fills, pa.string()))
        return pc.if_else(held, pa.scalar(None, pa.string()), made)


def _without(values: pa.Array, missing: NDArray[np.bool_]) -> pa.Array:
    """Return numbers with NULL for some; their buffer stays the same."""
    valid = pa.array(~missing).buffers()[1]
    return pa.Array.from_buffers(values.type, len(values), [valid, values.buffers()[1]])


def _is_count(dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> bool:
    """Return whether stored numbers are integers that mean themselves."""
    return dtype.kind in "iu" and not (attributes.keys() & COMPUTED) and not is_time(attributes)


def _signed_as_said(dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> np.dtype[Any]:
    """Return the dtype that integers are to be read as.

    netCDF's older formats have one kind of integers of each size, and say by the attribute
    ``_Unsigned`` which it is (netCDF Users Guide, "Best practices").
    """
    said = str(attributes.get("_Unsigned", "")).casefold()
    kind = {"true": "u", "false": "i"}.get(said, dtype.kind)
    return np.dtype(f"{dtype.byteorder if dtype.itemsize > 1 else '|'}{kind}{dtype.itemsize}")


def _fills(dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> NDArray[Any]:
    """Return the stored integers that stand for what is missing."""
    found = []
    for name in ("_FillValue", "missing_value"):
        for value in np.ravel(np.asarray(attributes.get(name, []))):
            if np.asarray(value).dtype.kind not in "iuf" or not np.isfinite(value):
                continue
            number = int(value)
            bits = np.iinfo(dtype)
            if "_Unsigned" in attributes:  # told as the one or as the other
                number = (number - int(bits.min)) % 2**bits.bits + int(bits.min)
            if number == value or "_Unsigned" in attributes:
                found.append(number)
    inside = [number for number in found if np.iinfo(dtype).min <= number <= np.iinfo(dtype).max]
    return np.array(inside, dtype=dtype)

"""Zarr's values as Arrow's: every data type that zarr reads has a column.

NaN and NaT are NULL, as in the table ``meta``. A complex number is a struct of its real and
imaginary part, a structured value a struct of its fields. Times that Arrow has no unit for, and
lengths of time in months or years, are the integers that are stored.
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

from l2view.arrays.cf import PACKING, TIMES, decode, in_native_order, is_time, require_calendar
from l2view.meta.decode import in_unit, one_zero, texts
from l2view.meta.schema import TIME_UNITS, TIMESTAMP_UNITS

COMPUTED = frozenset({"add_offset", "scale_factor", "dtype", "_Encoding"})
"""Attributes by which a value is more than the stored number."""

TEXTUAL = frozenset({"_FillValue", "missing_value", "_Encoding"})
"""Attributes of texts."""

MISSING = ("_FillValue", "missing_value")
"""Attributes with the stored values that stand for what is missing."""


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
        case "S":
            return pa.binary()
        case "O" | "U" | "T":
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
            parts = [to_arrow(part, kind.field(0).type) for part in (flat.real, flat.imag)]
            return pa.StructArray.from_arrays(parts, fields=list(kind))
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
            return texts(flat, kind)
        case "f":
            wide = np.float32 if flat.dtype.itemsize == 2 else flat.dtype.newbyteorder("=")
            flat = flat.astype(wide, copy=False)
            # The least of numbers is NaN where one of them is, which costs less than asking each.
            least = flat.min(initial=np.inf)
            if not least > 0:
                flat = one_zero(flat)
                if np.isnan(least):
                    return pa.array(flat, mask=np.isnan(flat))
    return pa.array(flat.astype(flat.dtype.newbyteorder("="), copy=False))


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
        if isinstance(said, VariableLengthBytes):
            return cls(dtype, pa.binary())
        return cls(dtype, arrow_type(dtype))

    @classmethod
    def decoded(cls, said: ZDType[Any, Any], attributes: Mapping[str, Any]) -> Values:
        """Return the values of a data type as the CF conventions mean them.

        What is missing is NULL. Integers stay integers where they are not scaled.

        Parameters
        ----------
        said
            The data type.
        attributes
            The array's (see `l2view.arrays.cf.attributes_of`).

        Raises
        ------
        ValueError
            Where they can't be decoded.
        """
        stored = cls.stored(said)
        kept = {name: value for name, value in attributes.items() if name in PACKING | TIMES}
        if not is_time(kept):
            kept = {name: value for name, value in kept.items() if name not in TIMES}
        if (stored.dtype.kind in "SUTO" and stored.type != pa.binary()) or stored.dtype.kind == "S":
            kept = {name: value for name, value in kept.items() if name in TEXTUAL}
            return cls(stored.dtype, pa.string(), kept)
        if stored.dtype.kind not in "iufb":
            return stored
        if _is_plain(stored.dtype, kept):
            dtype = _signed_as_said(stored.dtype, kept)
        elif " since " in str(kept.get("units", "")):
            require_calendar(kept)
            dtype = np.dtype("M8[ns]")
        else:
            try:
                dtype = decode(np.zeros(1, stored.dtype), kept).dtype
            except (TypeError, ArithmeticError) as error:
                raise ValueError(f"its attributes {kept} say nothing of numbers") from error
        if dtype.kind == "O":
            raise ValueError(f"its attributes {kept} say nothing of numbers")
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
        if self.attributes is None:
            return to_arrow(self._own(values), self.type)
        if pa.types.is_string(self.type):
            return self._texts(values.reshape(-1), self.attributes)
        if not _is_plain(values.dtype, self.attributes):
            found = decode(values, self.attributes)
            if found.dtype.kind == "O":
                raise ValueError("its times are none that nanoseconds since 1970 can tell")
            return to_arrow(self._own(found), self.type)
        missing = np.isin(values, _fills(values.dtype, self.attributes))
        signed = values.view(_signed_as_said(values.dtype, self.attributes))
        made = to_arrow(self._own(signed), self.type)
        if not missing.any():
            return made
        return pc.if_else(pa.array(missing.reshape(-1)), pa.scalar(None, made.type), made)

    def to_numpy(self, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return stored numbers as decoded values, and which of them there are.

        Parameters
        ----------
        values
            What is stored, of any shape.

        Returns
        -------
        values
            Of the same shape and of `dtype`.
        valid
            Of the same shape, False where a value is missing; None where none is.
        """
        attributes = self.attributes or {}
        if _is_plain(values.dtype, attributes):
            fills = _fills(values.dtype, attributes)
            valid = None if not len(fills) else values != fills[0]
            for fill in fills[1:]:
                valid &= values != fill
            found = self._own(values.view(_signed_as_said(values.dtype, attributes)))
        else:
            computed = attributes.keys() & (COMPUTED | set(MISSING)) or is_time(attributes)
            found = self._own(decode(values, attributes) if computed else values)
            valid = found == found
        return found, None if valid is None or valid.all() else valid

    def _own(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values in the dtype of this column."""
        alike = in_native_order(values.dtype) == in_native_order(self.dtype)
        return values if alike or values.dtype.kind in "SUTOV" else values.astype(self.dtype)

    def _texts(self, values: NDArray[Any], attributes: Mapping[str, Any]) -> pa.Array:
        """Return texts, with NULL for those that stand for what is missing."""
        if values.dtype.kind == "S":
            encoding = str(attributes.get("_Encoding", "utf-8"))
            values = np.strings.decode(values, encoding).astype(np.dtypes.StringDType())
        made = to_arrow(values, pa.string())
        fills = [one for name in MISSING for one in np.ravel(attributes.get(name, []))]
        said = [one.decode() if isinstance(one, bytes) else str(one) for one in fills]
        held = pc.is_in(made, pa.array(said, pa.string()))
        return pc.if_else(held, pa.scalar(None, pa.string()), made)


def _is_plain(dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> bool:
    """Return whether stored numbers are integers or booleans that mean themselves."""
    return dtype.kind in "iub" and not (attributes.keys() & COMPUTED) and not is_time(attributes)


def _signed_as_said(dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> np.dtype[Any]:
    """Return the dtype that integers are to be read as.

    netCDF's older formats have one kind of integers of each size, and say by the attribute
    ``_Unsigned`` which it is (netCDF Users Guide, "Best practices").
    """
    said = str(attributes.get("_Unsigned", "")).casefold()
    kind = {"true": "u", "false": "i"}.get(said, dtype.kind) if dtype.kind != "b" else "b"
    return np.dtype(f"{dtype.byteorder if dtype.itemsize > 1 else '|'}{kind}{dtype.itemsize}")


def _fills(dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> NDArray[Any]:
    """Return the stored integers that stand for what is missing."""
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    found = []
    for value in (one for name in MISSING for one in np.ravel(attributes.get(name, []))):
        if np.asarray(value).dtype.kind not in "iufb" or not np.isfinite(value):
            continue
        number = int(value)
        if "_Unsigned" in attributes:  # told as the one or as the other
            number = (number - int(least)) % (int(most) - int(least) + 1) + int(least)
        elif number != value:  # one that integers can't have stands for nothing among them
            continue
        if least <= number <= most:
            found.append(number)
    return np.array(found, dtype=dtype)

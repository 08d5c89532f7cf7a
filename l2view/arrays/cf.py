"""What the stored numbers of an array mean, by the CF conventions.

Values are decoded by xarray's own rules (`xarray.conventions`), so that what l2view shows equals
what xarray decodes from the original file. Neither takes notice of a valid range.
"""

from __future__ import annotations

import base64
import contextlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from l2view.arrays.dtypes import TEXT_KINDS, in_native_order, native_dtype
from l2view.arrays.quiet import QUIET
from l2view.stores.hierarchy import JSON

TIME_WORDS = frozenset(
    {"nanoseconds", "microseconds", "milliseconds", "seconds", "minutes", "hours", "days", "weeks"}
)
"""The units by which xarray takes numbers for lengths of time."""

MISSING = ("_FillValue", "missing_value")
"""The attributes with the stored values that stand for what is missing."""

SCALING = ("scale_factor", "add_offset")
"""The attributes by which stored numbers are scaled, and what is added to them then."""

PACKING = frozenset({*MISSING, *SCALING, "_Unsigned", "_Encoding", "dtype"})
"""The attributes by which a stored number becomes a value."""

RANGES = frozenset({"valid_max", "valid_min", "valid_range"})
"""The attributes that are told in stored numbers (CF 1.12, section 2.5.1)."""

TIMES = frozenset({"units", "calendar"})  # the attributes by which a number becomes a time

READ_BY = tuple(sorted(PACKING | TIMES))  # all that decoding looks at

CALENDARS = frozenset({"standard", "gregorian", "proleptic_gregorian"})
"""The calendars whose times NumPy has."""

BOUNDS = frozenset({"bounds", "climatology"})
"""The attributes that name an array which is read as this one is (CF 1.12, 7.1 and 7.4)."""

KIND = frozenset({"standard_name", "crs_wkt", "spatial_ref", "proj:code", "projected_type"})
"""The attributes that say what values are of, and in which CRS: where they differ one is told."""

MEANING = frozenset({"units", "flag_masks", "flag_meanings", "flag_values", "positive"})
"""The attributes that say what a value means: where they differ, values can't be joined."""

RELEVANT = PACKING | TIMES | MEANING | BOUNDS | KIND
"""All of them, by which the arrays of granules are told apart."""

REWRITTEN = frozenset({*MISSING, *SCALING, "_Unsigned"})
"""The attributes that writers of Zarr keep in several ways, and xarray reads in one."""


def is_time(attributes: Mapping[str, Any]) -> bool:
    """Return whether the attributes declare times or durations."""
    units = str(attributes.get("units", ""))
    if " since " in units:
        return True
    is_length = str(attributes.get("dtype", "")).startswith("timedelta64")
    return is_length and units.rstrip("s") in {unit.rstrip("s") for unit in TIME_WORDS}


def meaning_of(document: JSON) -> JSON:
    """Return those attributes of a document that say what its values mean."""
    attributes = document["attributes"]
    names = MEANING - (TIMES if is_time(attributes) else frozenset())
    return {name: value for name, value in attributes.items() if name in names}


def require_calendar(attributes: Mapping[str, Any]) -> None:
    """Raise a `ValueError` where times are in a calendar that NumPy doesn't have."""
    calendar = str(attributes.get("calendar", "standard")).lower()
    if calendar not in CALENDARS:
        raise ValueError(f"its times are in the calendar {calendar}")


@dataclass(frozen=True)
class Packing:
    """How the stored values of an array, which are of a `dtype`, are read.

    The `attributes` are those by which they are decoded, as xarray's coders take them: numbers as
    numbers, ``_FillValue`` as a value of `dtype`, ``_Unsigned`` where it changes the integers,
    ``units`` and ``calendar`` of times only. For texts, all that is missing is a ``missing_value``.
    """

    dtype: np.dtype[Any]
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> Packing:
        """Read the packing from an array's attributes, whoever wrote them.

        ``_FillValue`` is a number, a text with one, or base64 as xarray writes it
        (`xarray.backends.zarr.FillValueCoder`).
        """
        if dtype.kind in TEXT_KINDS:
            values = [value for name in MISSING for value in _values_of(attributes.get(name))]
            texts = [
                value.decode(errors="replace") if isinstance(value, bytes) else value
                for value in values
                if isinstance(value, str | bytes)
            ]
            packing: JSON = {}
            if texts:
                packing["missing_value"] = _single(texts)
            if dtype.kind == "S" and "_Encoding" in attributes:
                packing["_Encoding"] = str(attributes["_Encoding"])
            return cls(dtype, packing)
        if dtype.kind not in "biufc":
            return cls(dtype, {})
        packing = {n: _scale(attributes[n]) for n in SCALING if attributes.get(n) is not None}
        unsigned = attributes.get("_Unsigned")
        if (dtype.kind, unsigned) in (("i", "true"), ("u", "false")):
            packing["_Unsigned"] = unsigned
        if is_time(attributes):
            packing |= {name: attributes[name] for name in TIMES if name in attributes}
        if str(attributes.get("dtype", "")).startswith(("bool", "timedelta64")):
            packing["dtype"] = attributes["dtype"]
        missing = _values_of(attributes.get("missing_value"))
        if dtype.kind != "c" and len(fills := _values_of(attributes.get("_FillValue"))) > 1:
            missing = missing + fills  # all of which xarray masks
        missing = list(filter(_is_number, missing))
        if missing:
            packing["missing_value"] = _single(missing)
        fill = _fill_value(attributes.get("_FillValue"), dtype, "_Unsigned" in packing)
        if fill is not None:
            packing["_FillValue"] = fill
        return cls(dtype, packing)

    @classmethod
    def of_document(cls, document: JSON) -> Packing:
        """Read the packing of the array with a Zarr v3 document."""
        values = tuple(map(document["attributes"].get, READ_BY))
        dtype = native_dtype(document["data_type"])
        try:
            return _packing_of(dtype, *values)
        except TypeError:  # one of them is a list
            return _packing_of.__wrapped__(dtype, *values)

    @classmethod
    def of_array(cls, array: zarr.Array[Any]) -> Packing:
        """Read the packing of an array.

        In Zarr v2, and there alone, its own fill value is what CF calls so, as xarray has it.
        """
        attributes = dict(array.attrs)
        if array.metadata.zarr_format == 2 and array.metadata.fill_value is not None:
            attributes["_FillValue"] = array.metadata.fill_value
        return cls.of(attributes, array.metadata.dtype.to_native_dtype())

    @property
    def unmasked(self) -> Packing:
        """The same of an array in which no value is missing."""
        attributes = {n: value for n, value in self.attributes.items() if n not in MISSING}
        return Packing(self.dtype, attributes)

    @property
    def is_time(self) -> bool:
        """Whether values are times, or lengths of time."""
        return "units" in self.attributes

    @property
    def is_identity(self) -> bool:
        """Whether stored values are the values, and NaN alone is missing."""
        fill = self.attributes.get("_FillValue", math.nan)
        return self.attributes.keys() <= {"_FillValue"} and isinstance(fill, float) and fill != fill

    @property
    def is_mask(self) -> bool:
        """Whether integers or booleans stay what they are, but for those that are missing."""
        masks = self.attributes.keys() <= {*MISSING, "_Unsigned"}
        return self.dtype.kind in "iub" and masks

    @cached_property
    def read_as(self) -> np.dtype[Any]:
        """The dtype that stored values are to be taken as, of the same length.

        netCDF's older formats have one kind of integers of each size, and say by the attribute
        ``_Unsigned`` which it is (netCDF Users Guide, "Best practices").
        """
        kind = {"true": "u", "false": "i"}.get(self.attributes.get("_Unsigned", ""))
        if kind is None:
            return self.dtype
        return np.dtype(f"{kind}{self.dtype.itemsize}").newbyteorder(self.dtype.byteorder)

    @cached_property
    def missing(self) -> NDArray[Any]:
        """The values that stand for what is missing beside NaN, as `read_as`; of shape (n,)."""
        kind = self.dtype.kind
        values = [v for name in MISSING for v in _values_of(self.attributes.get(name)) if v == v]
        if kind in TEXT_KINDS:
            return np.array(values, np.dtypes.StringDType())
        if kind not in "iub":
            return np.array(values, np.complex128 if kind == "c" else np.float64)
        target = in_native_order(self.read_as)
        if values and "_FillValue" in self.attributes:  # which is told as the stored integer
            values[0] = np.array(values[0]).astype(target).item()
        low, high = (0, 1) if kind == "b" else (np.iinfo(target).min, np.iinfo(target).max)
        # A number that integers can't have stands for nothing among them.
        return np.array([int(v) for v in values if low <= v <= high and v == int(v)], target)

    @property
    def missing_stored(self) -> tuple[Any, ...]:
        """The same as Python's values of `dtype`."""
        if self.read_as == self.dtype:
            return tuple(self.missing.tolist())
        return tuple(self.missing.view(f"{self.dtype.kind}{self.dtype.itemsize}").tolist())

    @property
    def is_scaled(self) -> bool:
        """Whether numbers are scaled, or shifted."""
        return not self.attributes.keys().isdisjoint(SCALING)

    @property
    def missing_scalar(self) -> Any:
        """A stored value that stands for what is missing, None where there is none."""
        if self.dtype.kind in "mM":
            return np.array("NaT", self.dtype)[()]
        if self.dtype.kind in "biu":
            return self.dtype.type(self.missing_stored[0]) if self.missing_stored else None
        if self.dtype.kind not in "fc":
            return None
        with np.errstate(over="ignore"):
            stored = self.missing.astype(self.dtype)
        exact = stored[stored == self.missing]
        return exact[0] if len(exact) else self.dtype.type(np.nan)

    @cached_property
    def decoded_dtype(self) -> np.dtype[Any]:
        """The dtype of the values that `decode` gives.

        A `ValueError` says that the attributes say nothing of numbers, or that NumPy lacks the
        calendar of times.
        """
        if " since " in str(self.attributes.get("units", "")):
            require_calendar(self.attributes)
            return np.dtype("M8[ns]")
        for name in SCALING:
            if not _is_number(self.attributes.get(name, 1)):
                raise ValueError(f"its scale_factor or add_offset is {self.attributes[name]!r}")
        try:
            return self.decode(np.zeros(1, self.dtype)).dtype
        except (TypeError, ArithmeticError) as error:
            raise ValueError(f"its attributes {self.attributes} say nothing of numbers") from error

    def decode(self, stored: NDArray[Any], time_unit: Literal["us", "ns"] = "ns") -> NDArray[Any]:
        """Return stored values as xarray decodes them, in the machine's byte order.

        NaN and NaT stand for what is missing. Times that the unit doesn't hold are objects.
        """
        if not self.attributes:
            return stored.astype(in_native_order(stored.dtype), copy=False)
        # A search of a collection needs nothing of xarray, which is slow to load.
        from xarray import Variable
        from xarray.coders import CFDatetimeCoder
        from xarray.conventions import decode_cf_variable

        variable = Variable([str(axis) for axis in range(stored.ndim)], stored, self.attributes)
        coder = True if time_unit == "ns" else CFDatetimeCoder(time_unit=time_unit)
        with QUIET:  # of what xarray also says of each granule
            decoded = decode_cf_variable("", variable, concat_characters=False, decode_times=coder)
            return np.asarray(decoded.values)

    def decode_floats(self, stored: NDArray[Any]) -> NDArray[np.float64]:
        """Return stored numbers as values, NaN for what is missing."""
        return self.decode(stored).astype(np.float64, copy=False)

    def valid(self, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Return the mask of stored values that aren't missing, None where all are valid."""
        values = stored if self.read_as == self.dtype else stored.view(self.read_as)
        mask = None if values.dtype.kind in "iub" else values == values
        for fill in self.missing:
            mask = values != fill if mask is None else mask & (values != fill)
        return None if mask is None or mask.all() else mask

    def to_zarr(self) -> JSON:
        """Return the attributes as xarray has them in a Zarr v3 document."""
        attributes = dict(self.attributes)
        if "_FillValue" in attributes:
            fill, kind = attributes["_FillValue"], self.dtype.kind
            if kind == "f":
                attributes["_FillValue"] = _base64(fill)
            elif kind == "c":
                attributes["_FillValue"] = [_base64(fill.real), _base64(fill.imag)]
        return attributes


@lru_cache(maxsize=1024, typed=True)
def _packing_of(dtype: np.dtype[Any], *values: Any) -> Packing:
    """Read a packing from the values of `READ_BY`, which the granules of a product share."""
    pairs = zip(READ_BY, values, strict=True)
    return Packing.of({name: value for name, value in pairs if value is not None}, dtype)


def xarray_attributes(document: JSON) -> JSON:
    """Return all attributes of an array as xarray's coders take them.

    Characters are compared with bytes, which JSON hasn't.
    """
    packing = Packing.of_document(document)
    attributes = dict(packing.attributes)
    texts = _values_of(attributes.get("missing_value"))
    if packing.dtype.kind == "S" and "_Encoding" not in attributes and texts:
        attributes["missing_value"] = _single([text.encode() for text in texts])
    return _rewrite(document["attributes"], attributes)


def zarr_attributes(attributes: JSON, data_type: str | JSON) -> JSON:
    """Return all attributes of an array as every reader of a Zarr v3 document takes them."""
    if attributes.keys().isdisjoint(REWRITTEN):
        return attributes
    packing = Packing.of_document({"attributes": attributes, "data_type": data_type})
    return _rewrite(attributes, packing.to_zarr())


def _rewrite(attributes: JSON, packing: Mapping[str, Any]) -> JSON:
    """Return attributes with those of a packing in place of what else says the same.

    A scale stays that no packing has, such as that of an array of texts.
    """
    others = {
        name: value
        for name, value in attributes.items()
        if name not in REWRITTEN or (name in SCALING and value is not None)
    }
    return others | {name: value for name, value in packing.items() if name in REWRITTEN}


def read_floats(array: zarr.Array[Any], index: Any = ...) -> NDArray[np.float64]:
    """Read an array's values, or those at an index, decoded; NaN for what is missing."""
    return Packing.of_array(array).decode_floats(np.asarray(array[index]))


def _values_of(value: Any) -> list[Any]:
    """Return an attribute's values, none where there is none."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _single(value: Any) -> Any:
    """Return an attribute that is a list of one as that one."""
    return value[0] if isinstance(value, list | tuple | np.ndarray) and len(value) == 1 else value


def _scale(value: Any) -> Any:
    """Return a scale or an offset as a number where it is a text of one, as GDAL keeps netCDF's."""
    value = _single(value)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _fill_value(value: Any, dtype: np.dtype[Any], flips_sign: bool) -> Any:
    """Return a ``_FillValue`` as a Python value that a dtype has; None where it is none of it.

    Where integers are read as of the other sign (`flips_sign`), it may be told as the one or as
    the other, and is returned as the signed one, which xarray takes in either case.
    """
    if dtype.kind == "c":
        if isinstance(value, complex | np.complexfloating):
            return complex(value)
        numbers = [_float(number) for number in _values_of(value)]
        return complex(*numbers) if len(numbers) in (1, 2) and None not in numbers else None
    number = _float(_single(value))
    if number is None:
        return None
    if dtype.kind == "b":
        return bool(number)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            rounded = float(dtype.type(number))
        return math.nan if rounded != rounded else rounded
    if number != number or math.isinf(number) or number != int(number):
        return None
    bits, number = 8 * dtype.itemsize, int(number)
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    if flips_sign and -(2 ** (bits - 1)) <= number < 2**bits:
        return (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    return number if low <= number <= high else None


def _float(value: Any) -> Any:
    """Return a number that is one, is told by a text, or is packed in base64; None for any other.

    Integers stay integers, of which floats don't hold all.
    """
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, int | float | np.number):
        return value.item() if isinstance(value, np.number) else value
    if not isinstance(value, str):
        return None
    with contextlib.suppress(ValueError, struct.error):
        return float(struct.unpack("<d", base64.b64decode(value, validate=True))[0])
    for parse in (int, float):
        with contextlib.suppress(ValueError):
            return parse(value)
    return None


def _base64(number: float) -> str:
    return base64.standard_b64encode(struct.pack("<d", number)).decode()

"""Fields that are packed by the CF conventions, as xarray writes them.

A time may be a number "since" an instant, and a number may be scaled and shifted. Such a
field is a column of what its numbers mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from l2view.stores.hierarchy import JSON

PACKING = ("units", "calendar", "dtype", "scale_factor", "add_offset")
"""The attributes that say how a field is packed."""


SCALE, OFFSET = ("scale_factor", 1), ("add_offset", 0)
"""Attributes of packed numbers, and what they are where they aren't given."""

UNSIGNED = {
    pa.int8(): pa.uint8(),
    pa.int16(): pa.uint16(),
    pa.int32(): pa.uint32(),
    pa.int64(): pa.uint64(),
}
"""The unsigned type of each size, by the signed one."""


def unpacked_type(kind: pa.DataType, attributes: JSON) -> pa.DataType | None:
    """Return the type of what a field's numbers mean, None where they mean themselves.

    Parameters
    ----------
    kind
        The type of the numbers as they are stored.
    attributes
        The array's attributes.

    Raises
    ------
    ValueError
        Where they are times of a calendar that timestamps don't have.
    """
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    units = attributes.get("units")
    if isinstance(units, str) and " since " in units:
        sample = unpack(np.zeros(1, dtype=np.int64), attributes, pa.timestamp(_unit(units)))
        return pa.timestamp(np.datetime_data(sample.dtype)[0])
    if str(attributes.get("dtype", "")).startswith("timedelta64") and isinstance(units, str):
        return pa.duration(_unit(units))
    if "scale_factor" in attributes or "add_offset" in attributes:
        unpack(np.zeros(1), attributes, pa.float64())
        return pa.float64()
    return None


def signed_as_said(kind: pa.DataType, attributes: JSON) -> pa.DataType:
    """Return the integer type that a field's bytes are to be read as.

    netCDF's older formats have only one kind of integers of each size, and say of the other
    by the attribute ``_Unsigned`` (netCDF Users Guide, "Best practices").
    """
    said = str(attributes.get("_Unsigned", "")).casefold()
    if said == "true" and pa.types.is_signed_integer(kind):
        return UNSIGNED[kind]
    if said == "false" and pa.types.is_unsigned_integer(kind):
        return {unsigned: signed for signed, unsigned in UNSIGNED.items()}[kind]
    return kind


def unpack(values: NDArray[Any], attributes: JSON, kind: pa.DataType) -> NDArray[Any]:
    """Return what packed numbers mean, as NumPy's values of the Arrow type `kind`."""
    packing = {name: attributes[name] for name in PACKING if name in attributes}
    scale, offset = (_number(packing.pop(name, n)) for name, n in (SCALE, OFFSET))
    if pa.types.is_floating(kind) or (scale, offset) != (1, 0):
        values = values.astype(np.float64) * scale + offset
    if pa.types.is_floating(kind):
        return values
    import xarray as xr  # which most collections never need, and is slow to load

    variable = xr.Variable(("row",), values, packing)
    if pa.types.is_timestamp(kind):
        coder = xr.coders.CFDatetimeCoder(use_cftime=False, time_unit=kind.unit)
        return np.asarray(coder.decode(variable).values)
    return np.asarray(xr.coders.CFTimedeltaCoder(time_unit=kind.unit).decode(variable).values)


def _number(value: Any) -> float:
    """Return an attribute that is a number, or a list of one.

    Raises
    ------
    ValueError
        Where it is neither.
    """
    try:
        return float(np.asarray(value).item())
    except (TypeError, ValueError) as error:
        raise ValueError(f"its scale_factor or add_offset is {value!r}") from error


def _unit(units: str) -> Any:
    """Return the Arrow unit that holds CF's `units` exactly."""
    return "ns" if units.casefold().startswith(("nano", "ns")) else "us"

"""How the values of an array are given: one encoding for the arrays of granules that differ."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.dtype import parse_dtype

from l2view.arrays.cf import attributes_of, decode, is_time, native_dtype, packing_of, zarr_dtype
from l2view.stores.hierarchy import JSON
from l2view.virtual.fields import NULL_TIME


@dataclass(frozen=True)
class Form:
    """How the values of one array are given.

    Attributes
    ----------
    data_type, codecs, fill_value
        Of the Zarr v3 document, for a chunk with the axes of a granule's own.
    attributes
        Those by which its values are read.
    decoded
        Whether they are values that were decoded, and not stored numbers as they are.
    """

    data_type: str | JSON
    codecs: tuple[JSON, ...]
    fill_value: Any
    attributes: JSON
    decoded: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's dtype of what is stored."""
        return native_dtype(self.data_type)

    @property
    def stands_for_missing(self) -> bool:
        """Whether a stored number stands for what is missing."""
        return has_missing({"data_type": self.data_type, "attributes": self.attributes})

    def takes(self, variant: JSON) -> bool:
        """Return whether the chunks of a variant are chunks of this form as they are."""
        if json.dumps(variant["data_type"]) != json.dumps(self.data_type):
            return False
        if json.dumps(variant["codecs"]) != json.dumps(list(self.codecs)):
            return False
        return is_plain(variant) if self.decoded else packing_of(variant) == self.attributes

    def values(self, stored: NDArray[Any], variant: JSON) -> NDArray[Any]:
        """Return the stored numbers of a variant as this form stores them.

        Raises
        ------
        ValueError
            Where a time is one that nanoseconds can't tell.
        """
        if not self.decoded:
            return stored.astype(self.dtype, copy=False)
        found = decode(stored, attributes_of(variant))
        if found.dtype == object and is_time(variant["attributes"]):
            raise ValueError("its times are none that nanoseconds since 1970 can tell")
        if found.dtype.kind in "mM":
            found = found.astype(f"{found.dtype.kind}8[ns]").view(np.int64)
        return found.astype(self.dtype, copy=False)


def same_meaning(name: str, one: Any, other: Any) -> bool:
    """Return whether two values of an attribute in `MEANING` say the same.

    Units are told alike by UDUNITS' rules, where cf-xarray and pint are installed.
    """
    if one == other:
        return True
    return name == "units" and _same_units(str(one), str(other))


def knows_units() -> bool:
    """Return whether there is what tells that two units are the same."""
    return find_spec("cf_xarray") is not None and find_spec("pint") is not None


@lru_cache(maxsize=256)
def _same_units(one: str, other: str) -> bool:
    if not knows_units():
        return False
    from cf_xarray.units import units

    try:
        return bool(units.Unit(one) == units.Unit(other))
    except Exception:  # pint raises what it likes for units that it doesn't know
        return False


def is_plain(variant: JSON) -> bool:
    """Return whether the stored numbers of a variant are its values."""
    packing = packing_of(variant)
    if not packing:
        return True
    # A float that stands for what is missing, where that is NaN already.
    fill = attributes_of(variant).get("_FillValue")
    return packing.keys() == {"_FillValue"} and isinstance(fill, float) and fill != fill


def as_stored(variant: JSON, codecs: Sequence[JSON], padded: bool) -> Form:
    """Return the form of a variant as it is stored.

    Parameters
    ----------
    variant
        A Zarr v3 document without shape and chunk grid.
    codecs
        Of its chunks.
    padded
        Whether its fill value shall stand for what isn't there.
    """
    packing = packing_of(variant)
    fill = variant["fill_value"]
    dtype = zarr_dtype(variant["data_type"])
    if padded and (value := _missing(variant)) is not None:
        fill = dtype.to_json_scalar(value, zarr_format=3)
    return Form(variant["data_type"], tuple(codecs), fill, packing, decoded=False)


def _missing(variant: JSON) -> Any:
    """Return the stored number of a variant that stands for what is missing, None without one."""
    dtype = native_dtype(variant["data_type"])
    attributes = attributes_of(variant)
    for name in ("_FillValue", "missing_value"):
        said = attributes.get(name)
        if said is None or isinstance(said, str) or dtype.kind not in "biufcmM":
            continue
        value = np.ravel(np.asarray(said))[:1]
        with np.errstate(all="ignore"):
            stored = value.astype(dtype)
            # One that the stored numbers can't have stands for nothing among them.
            same = dtype.kind not in "biu" or bool((stored == value).all())
        if same or "_Unsigned" in attributes:
            return stored[0]
    if dtype.kind in "mM":
        return np.array("NaT", dtype)[()]
    return dtype.type(np.nan) if dtype.kind in "fc" else None


def has_missing(variant: JSON) -> bool:
    """Return whether a stored number of a variant stands for what is missing."""
    return _missing(variant) is not None


def as_values(dtype: np.dtype[Any], codecs: Sequence[JSON] | None = None) -> Form:
    """Return the form of decoded values.

    Parameters
    ----------
    dtype
        Of the values; times are told as nanoseconds since 1970.
    codecs
        Of chunks that shall pass as they are, None for the bytes of the values.
    """
    attributes: JSON = {}
    fill: Any = None
    if dtype.kind == "M":
        units = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}
        attributes, fill = units | {"_FillValue": NULL_TIME}, NULL_TIME
    elif dtype.kind == "m":
        attributes = {"units": "nanoseconds", "dtype": "timedelta64[ns]", "_FillValue": NULL_TIME}
        fill = NULL_TIME
    stored = np.dtype(np.int64) if dtype.kind in "mM" else dtype
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dtypes without a v3 specification
        said = parse_dtype(stored, zarr_format=3)
    if fill is None:
        missing = np.nan if dtype.kind in "fc" else said.default_scalar()
        fill = said.to_json_scalar(missing, zarr_format=3)
    if codecs is None:
        codecs = [_serializer(stored)]
    data_type: Any = said.to_json(zarr_format=3)
    return Form(data_type, tuple(codecs), fill, attributes, decoded=True)


def _serializer(dtype: np.dtype[Any]) -> JSON:
    """Return the codec of plain values."""
    if dtype.kind in "TO":
        return {"name": "vlen-utf8"}
    if dtype.itemsize == 1 or dtype.kind in "SVb":
        return {"name": "bytes"}
    return {"name": "bytes", "configuration": {"endian": "little"}}

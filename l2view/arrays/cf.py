"""What the stored numbers of an array mean, by the CF conventions.

Values are decoded by xarray's own rules (`xarray.conventions`), so that what l2view shows equals
what xarray decodes from the same array.
"""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends.zarr import FillValueCoder
from xarray.conventions import decode_cf_variable
from zarr.core.dtype.wrapper import ZDType
from zarr.dtype import parse_dtype

from l2view.stores.hierarchy import JSON

TIME_WORDS = frozenset(
    {"nanoseconds", "microseconds", "milliseconds", "seconds", "minutes", "hours", "days", "weeks"}
)
"""The units by which xarray takes numbers for lengths of time."""

PACKING = frozenset(
    {"_FillValue", "_Unsigned", "_Encoding", "add_offset", "dtype", "missing_value", "scale_factor"}
)
"""The attributes by which a stored number becomes a value."""

RANGES = frozenset({"valid_max", "valid_min", "valid_range"})
"""The attributes that are told in stored numbers (CF 1.12, section 2.5.1)."""

TIMES = frozenset({"units", "calendar"})
"""The attributes by which a number becomes a time."""

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


class Quiet:
    """Ignores warnings, for as long as one of several threads is within it.

    `warnings.catch_warnings` of threads that overlap would leave them ignored for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._within += 1
            if self._within == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                self._caught.__exit__(None, None, None)

    def leave(self) -> None:
        """Leave it as a forked process does, into which the threads within it didn't come."""
        if self._within:
            self._caught.__exit__(None, None, None)
        self.__init__()  # type: ignore[misc]


QUIET = Quiet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=QUIET.leave)


@lru_cache(maxsize=256)
def _parsed(data_type: str) -> ZDType[Any, Any]:
    with QUIET:  # of dtypes without a v3 specification
        return parse_dtype(json.loads(data_type), zarr_format=3)


def zarr_dtype(data_type: str | JSON) -> ZDType[Any, Any]:
    """Return zarr's data type for that of a Zarr v3 document."""
    return _parsed(json.dumps(data_type))


def in_native_order(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a dtype in the machine's byte order."""
    return dtype if dtype.kind in "TO" else dtype.newbyteorder("=")


def native_dtype(data_type: str | JSON) -> np.dtype[Any]:
    """Return NumPy's dtype for the data type of a Zarr v3 document."""
    return zarr_dtype(data_type).to_native_dtype()  # type: ignore[no-any-return]


def attributes_of(document: JSON) -> JSON:
    """Return an array's attributes as xarray has them, its ``_FillValue`` decoded."""
    return with_fill(document["attributes"], native_dtype(document["data_type"]))


def with_fill(attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> JSON:
    """Return attributes as xarray has them: it writes the ``_FillValue`` of some dtypes as text.

    Others write a number, which stays as it is.
    """
    found = dict(attributes)
    fill = found.get("_FillValue")
    if isinstance(fill, str) or (fill is not None and dtype.kind not in "fcS"):
        found["_FillValue"] = FillValueCoder.decode(fill, dtype)
    elif fill is None:
        found.pop("_FillValue", None)
    return found


def is_time(attributes: Mapping[str, Any]) -> bool:
    """Return whether the attributes say that numbers are times, or lengths of time."""
    units = str(attributes.get("units", ""))
    if " since " in units:
        return True
    said = str(attributes.get("dtype", "")).startswith("timedelta64")
    return said and units.rstrip("s") in {unit.rstrip("s") for unit in TIME_WORDS}


def packing_of(document: JSON) -> JSON:
    """Return those attributes of a document that make values of stored numbers."""
    attributes = document["attributes"]
    names = PACKING | (TIMES if is_time(attributes) else frozenset())
    return {name: said for name, said in attributes.items() if name in names}


def meaning_of(document: JSON) -> JSON:
    """Return those attributes of a document that say what its values mean."""
    attributes = document["attributes"]
    names = MEANING - (TIMES if is_time(attributes) else frozenset())
    return {name: said for name, said in attributes.items() if name in names}


def decode(values: NDArray[Any], attributes: Mapping[str, Any]) -> NDArray[Any]:
    """Return stored numbers as values, as xarray decodes them.

    Parameters
    ----------
    values
        What is stored, of any shape.
    attributes
        The array's attributes (see `attributes_of`).

    Returns
    -------
    numpy.ndarray
        Of the same shape, in the machine's byte order; times as ``datetime64[ns]``.
    """
    dimensions = [str(axis) for axis in range(values.ndim)]
    kept = {name: said for name, said in attributes.items() if name in PACKING | TIMES}
    if not is_time(kept):
        kept.pop("units", None)
    variable = xr.Variable(dimensions, values, kept)
    with QUIET:  # of what xarray also says of each granule
        return np.asarray(decode_cf_variable("", variable, concat_characters=False).values)


def require_calendar(attributes: Mapping[str, Any]) -> None:
    """Raise where times are in a calendar that NumPy doesn't have.

    Raises
    ------
    ValueError
        Naming the calendar.
    """
    calendar = str(attributes.get("calendar", "standard")).lower()
    if calendar not in CALENDARS:
        raise ValueError(f"its times are in the calendar {calendar}")


@lru_cache(maxsize=1024)
def _decoded_dtype(data_type: str, attributes: str) -> np.dtype[Any]:
    document = {"data_type": json.loads(data_type), "attributes": json.loads(attributes)}
    one = np.zeros(1, native_dtype(document["data_type"]))
    return decode(one, attributes_of(document)).dtype


def decoded_dtype(document: JSON) -> np.dtype[Any]:
    """Return the dtype of an array's values, by the rules of CF as xarray keeps them.

    Raises
    ------
    ValueError
        Where its times are in a calendar that NumPy doesn't have.
    """
    if " since " in str(document["attributes"].get("units", "")):
        require_calendar(document["attributes"])
        return np.dtype("M8[ns]")
    said = json.dumps(packing_of(document), sort_keys=True)
    return _decoded_dtype(json.dumps(document["data_type"]), said)


def common_dtype(dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    """Return the smallest dtype that has all values of others, exactly.

    Raises
    ------
    ValueError
        Where there is none.
    """
    kinds = {_kind(dtype) for dtype in dtypes}
    if len(kinds) == 1 or kinds <= {"number", "bool"}:
        found = np.result_type(*dtypes)
        whole = [dtype for dtype in dtypes if dtype.kind in "iu"]
        parts = found if found.kind == "f" else np.empty(0, found).real.dtype
        exact = found.kind not in "fc" or all(
            np.iinfo(dtype).bits <= np.finfo(parts).nmant + 1 for dtype in whole
        )
        if exact and found.kind != "O":
            return found
    raise ValueError(f"no data type holds all of {', '.join(sorted({*map(str, dtypes)}))}")


def _kind(dtype: np.dtype[Any]) -> str:
    """Return what values of a dtype are."""
    return {"b": "bool", "U": "text", "T": "text"}.get(
        dtype.kind, "number" if dtype.kind in "iufc" else dtype.kind
    )

"""Documents of arrays as xarray opens them: what it can't decode is set aside, or left out.

One attribute that says nothing to xarray would keep it from opening the group, and the tree.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from xarray.conventions import decode_cf_variables

from l2view.arrays.cf import (
    BOUNDS,
    MISSING,
    PACKING,
    SCALING,
    TIMES,
    xarray_attributes,
    zarr_attributes,
)
from l2view.arrays.dtypes import native_dtype
from l2view.arrays.quiet import QUIET
from l2view.granules.references import ArrayReferences
from l2view.stores.hierarchy import JSON
from l2view.text import first_line

COORDINATES = "coordinates"

DECODED = PACKING.union(TIMES, BOUNDS, [COORDINATES])
"""The attributes that xarray takes notice of when it opens an array."""

CANDIDATES = (TIMES, frozenset(SCALING), frozenset({COORDINATES}), BOUNDS, DECODED)
"""The attributes that are set aside together, the fewest first: half decoded would be wrong."""

SET_ASIDE = "undecoded_"
"""What the names of attributes begin with that are set aside."""

NETCDF_FILL = {
    "f4": 9.969209968386869e36,
    "f8": 9.969209968386869e36,
    "i2": -32767,
    "u2": 65535,
    "i4": -2147483647,
    "u4": 4294967295,
    "i8": -9223372036854775806,
    "u8": 18446744073709551614,
}
"""What netCDF fills arrays with by default, and its readers mask; not those of single bytes."""


def make_openable(
    arrays: Iterable[ArrayReferences], *, is_filled: bool
) -> tuple[list[ArrayReferences], dict[str, str], list[str]]:
    """Return the arrays that xarray opens, why others can't be opened, and notes on the former.

    Nothing is read: arrays of one value have the same dtype, dimensions and attributes, and are
    opened once for all granules that share them.

    Parameters
    ----------
    arrays
        A file's arrays.
    is_filled
        Whether netCDF's default fill values stand for what was never written, whatever the
        arrays' own fill values are: netCDF-3 and Kerchunk keep none.
    """
    openable: list[ArrayReferences] = []
    omitted: dict[str, str] = {}
    notes: list[str] = []
    for array in arrays:
        document = _mask_unwritten_times(array.document, is_filled)
        attributes = dict(document["attributes"])
        listed = attributes.get(COORDINATES)
        if isinstance(listed, list) and all(isinstance(name, str) for name in listed):
            attributes[COORDINATES] = " ".join(listed)
        relevant = {name: value for name, value in attributes.items() if name in DECODED}
        names, error = _undecodable(
            array.path.rpartition("/")[2],
            json.dumps(document["data_type"]),
            tuple(document.get("dimension_names") or ()),
            json.dumps(relevant, sort_keys=True),
        )
        if names is None:
            omitted[array.path] = f"xarray can't open it: {error}"
            continue
        if names:
            values = ", ".join(f"{name}={attributes[name]!r}" for name in sorted(names))
            notes.append(
                f"{array.path} isn't decoded by {values[:200]}, which xarray can't; the attribute "
                f"is called {SET_ASIDE}…"
            )
            attributes = {
                f"{SET_ASIDE}{name}" if name in names else name: value
                for name, value in attributes.items()
            }
        document = {**document, "attributes": attributes}
        openable.append(array if document == array.document else replace(array, document=document))
    return openable, omitted, notes


def _mask_unwritten_times(document: JSON, is_filled: bool) -> JSON:
    """Return the document of an array of times with a ``_FillValue`` for those never written.

    xarray looks for the attribute alone, and can't decode 9.97e36 days.
    """
    attributes = document["attributes"]
    is_time = " since " in str(attributes.get("units", ""))
    if not is_time or not attributes.keys().isdisjoint(MISSING):
        return document
    default = NETCDF_FILL.get(native_dtype(document["data_type"]).str[1:])
    if default is None or not (is_filled or document["fill_value"] == default):
        return document
    filled = zarr_attributes({**attributes, MISSING[0]: default}, document["data_type"])
    return {**document, "attributes": filled}


@lru_cache(4096)
def _undecodable(
    name: str, data_type: str, dimensions: tuple[str, ...], attributes: str
) -> tuple[frozenset[str] | None, str]:
    """Return the attributes without which xarray opens an array, None where it doesn't, and why.

    The data type and the attributes are JSON.
    """
    document = {"data_type": json.loads(data_type), "attributes": json.loads(attributes)}
    error = _error(name, dimensions, document)
    if error is None:
        return frozenset(), ""
    for candidates in CANDIDATES:
        names = candidates & document["attributes"].keys()
        rest = {n: value for n, value in document["attributes"].items() if n not in names}
        if names and _error(name, dimensions, {**document, "attributes": rest}) is None:
            return names, error
    return None, error


def _error(name: str, dimensions: tuple[str, ...], document: Mapping[str, Any]) -> str | None:
    """Return why xarray can't open an array of one value with a document."""
    with QUIET:
        try:
            values = np.zeros((1,) * len(dimensions), native_dtype(document["data_type"]))
            variable = xr.Variable(dimensions, values, xarray_attributes(dict(document)))
            decoded, _, _ = decode_cf_variables({name: variable}, {})
            xr.Dataset(decoded).load()
        except Exception as error:  # of whatever xarray makes of an attribute
            return first_line(error)
    return None

"""What a TIFF's tags say of an image, as attributes: nodata and scale as CF has them.

GDAL keeps what TIFF lacks in two tags of its own: a text for nodata, and XML with an item for each
attribute of the file or of one band, some of which have a role.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

import numpy as np
from virtual_tiff.constants import GEO_KEYS

from l2view.arrays.cf import MISSING
from l2view.ingest.harvest.attributes import DATE_TIME
from l2view.stores.hierarchy import JSON

TAGS = ("model_pixel_scale", "model_tiepoint", "model_transformation")
NUMBERS = ("photometric_interpretation", "new_subfile_type")

ROLES = {"scale": ("scale_factor", 1.0), "offset": ("add_offset", 0.0), "unittype": ("units", "")}
"""CF's attributes of GDAL's roles, and what they are of bands that say nothing."""

MSVC_NAMES = {"1.#INF": "inf", "-1.#INF": "-inf", "1.#QNAN": "nan", "-1.#QNAN": "nan"}
"""Floats as Microsoft's C library wrote them, and with it old versions of GDAL."""


def tag_attributes(directory: Any, dtype: np.dtype[Any]) -> JSON:
    """Return the attributes of an image with pixels of a data type."""
    attributes: JSON = {}
    if keys := directory.geo_key_directory:
        values = {name: getattr(keys, name) for name in GEO_KEYS}
        attributes |= {name: value for name, value in values.items() if value is not None}
    attributes |= {name: list(v) for name in TAGS if (v := getattr(directory, name))}
    attributes |= {name: int(v) for name in NUMBERS if (v := getattr(directory, name)) is not None}
    if directory.date_time:
        attributes[DATE_TIME] = str(directory.date_time)
    if directory.extra_samples:
        attributes["extra_samples"] = [int(kind) for kind in directory.extra_samples]
    if text := directory.gdal_metadata:
        attributes |= gdal_attributes(text, int(directory.samples_per_pixel))
    nodata = parse_nodata(directory.gdal_nodata, dtype)
    if nodata is not None:
        attributes[MISSING[0]] = nodata
    return attributes


def gdal_attributes(text: str, count: int) -> JSON:
    """Return the items of GDAL's metadata of an image with some bands.

    What bands say is one value where all say the same, else a list. Fill values of a netCDF file
    that it was made from are left out: nodata says what is missing, and these are of other types.
    """
    try:
        items = list(ET.fromstring(text).iter("Item"))  # noqa: S314 - expat refuses what expands
    except ET.ParseError:
        return {"gdal_metadata": text}
    attributes: JSON = {}
    bands: dict[str, dict[int, str]] = {}
    roles: dict[str, dict[int, Any]] = {}
    for item in items:
        name, value = item.get("name", ""), (item.text or "").strip()
        if not name or name.rpartition("#")[2] in MISSING:
            continue
        sample = item.get("sample", "")
        if not sample.isdigit() or int(sample) >= count:
            attributes[name] = value
            continue
        bands.setdefault(name, {})[int(sample)] = value
        if (role := item.get("role", "")) in ROLES:
            number = value if role == "unittype" else _number(value)
            roles.setdefault(role, {})[int(sample)] = number
    for name, values in bands.items():
        attributes[name] = _shared([values.get(band) for band in range(count)])
    for role, numbers in roles.items():
        name, default = ROLES[role]
        value = _shared([numbers.get(band, default) for band in range(count)])
        if value is not None and value != default:
            attributes[name] = value
        elif role != "unittype":
            attributes.pop(name, None)
    return attributes


def _shared(values: Sequence[Any]) -> Any:
    """Return the value of all bands, or a list of what each has."""
    return values[0] if all(value == values[0] for value in values) else list(values)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def parse_nodata(text: str | None, dtype: np.dtype[Any]) -> Any:
    """Return the nodata value of a text as the data type has it, None where it has none.

    GDAL rounds it towards zero; one beyond what the data type may be hides nothing.
    """
    number = _number(MSVC_NAMES.get(text or "", text or ""))
    if number is None:
        return None
    if dtype.kind == "f":
        # JSON has neither NaN nor infinities, of which xarray takes the names.
        return number if math.isfinite(number) else str(number)
    if dtype.kind not in "iu" or not math.isfinite(number):
        return None
    bounds = np.iinfo(dtype)
    # A float doesn't have all integers of 64 bits.
    value = int(text) if text and text.strip().lstrip("+-").isdigit() else int(number)
    return value if bounds.min <= value <= bounds.max else None


def absent_value(text: str | None, dtype: np.dtype[Any]) -> Any:
    """Return what the pixels are that a file leaves out: nodata, rounded to what they may be."""
    number = _number(MSVC_NAMES.get(text or "", text or "")) or 0.0
    value = parse_nodata(text, dtype)
    if value is not None:
        return dtype.type(value)
    if dtype.kind not in "iu" or number != number:
        return dtype.type(number if dtype.kind in "fc" else 0)
    bounds = np.iinfo(dtype)
    return dtype.type(min(max(number, bounds.min), bounds.max))

"""Where a file describes itself: attributes, the texts of other languages within them, and arrays.

NASA's products hold an inventory in ODL (HDF-EOS ``CoreMetadata``), GPM's and TRMM's a header of
``Key=Value;`` lines; OCO's, NISAR's and CfRadial's have arrays of one value in the place of
attributes. Each becomes a mapping like attributes are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import zarr

from l2view.arrays.values import read_text
from l2view.text import fold_name

ODL_NAMES = re.compile(r"(core|inventory|archive)_?metadata(\.\d+)?", re.IGNORECASE)
"""The names of attributes and arrays with an inventory in ODL."""

HEADER_LINE = re.compile(r"^\s*(\w+)=([^;]*);", re.MULTILINE)
"""A line of a header of GPM's or TRMM's products."""

ARRAY_NAMES = re.compile(r"start|begin|end|stop|first|last|bound|platform|satellite|sensor")
"""What is in the names of arrays of one value that describe a file, where they are texts."""

MAX_TEXT = 128
"""The most characters that such a text has as an array of single ones."""

GDAL = "NC_GLOBAL#"
"""What GDAL puts before the attributes of a netCDF file in those of a TIFF made from it."""

MAX_GROUPS = 500
"""The most groups that are looked through: a description lies near the root."""


type Nodes = Mapping[str, zarr.Group | zarr.Array[Any]]
"""The groups and arrays of a file by their paths, which are read once for all who ask."""


def nodes_of(file: zarr.Group | Nodes) -> Nodes:
    """Return a file's nodes, those near its root first."""
    if not isinstance(file, zarr.Group):
        return file
    members = sorted(file.members(max_depth=None), key=lambda pair: (pair[0].count("/"), pair[0]))
    return {"": file, **dict(members)}


def descriptions(file: zarr.Group | Nodes) -> Iterator[Mapping[str, Any]]:
    """Yield what describes a file by folded names, the file's own attributes first.

    Then come the texts within them, arrays of one value, and the groups below.
    """
    nodes = nodes_of(file)
    groups: dict[str, dict[str, zarr.Array[Any]]] = {}
    for path, node in nodes.items():
        if isinstance(node, zarr.Array):
            group, _, name = path.rpartition("/")
            groups.setdefault(group, {})[name] = node
        else:
            groups.setdefault(path, {})
    for path, arrays in islice(groups.items(), MAX_GROUPS):
        attributes = dict(nodes[path].attrs)
        if attributes:
            yield {fold_name(n.removeprefix(GDAL)): value for n, value in attributes.items()}
        for name, value in attributes.items():
            if isinstance(value, str) and (parsed := _parse_text(name, value)):
                yield parsed
        if path.upper() == "HDFEOS INFORMATION":
            for name, array in arrays.items():
                if ODL_NAMES.fullmatch(name):
                    yield _parse_odl(read_text(array))
        if values := {
            fold_name(name): _value(array)
            for name, array in arrays.items()
            if _describes(name, array)
        }:
            yield values


def _describes(name: str, array: zarr.Array[Any]) -> bool:
    """Whether an array is a text, or a bound, that stands in the place of an attribute."""
    is_text = array.dtype.kind in "SUTO"
    is_short = array.size == 1 or (array.dtype == "S1" and array.ndim == 1)
    named = ARRAY_NAMES.search(name.lower()) if is_text else "bound" in name.lower()
    return bool(named) and is_short and array.size <= MAX_TEXT


def _value(array: zarr.Array[Any]) -> Any:
    if array.dtype.kind not in "SUTO":
        return np.ravel(np.asarray(array[...])).tolist()[0]
    if array.size == 1:
        return read_text(array)
    return b"".join(np.asarray(array[...]).tolist()).decode(errors="replace").strip("\0 ")


def _parse_text(name: str, value: str) -> dict[str, Any]:
    """Return what a text holds by name, nothing where it is plain."""
    if ODL_NAMES.fullmatch(name):
        return _parse_odl(value)
    lines = HEADER_LINE.findall(value)
    return {fold_name(key): text.strip() for key, text in lines} if len(lines) > 2 else {}


def _parse_odl(text: str) -> dict[str, Any]:
    """Return the values of an inventory's objects (HDF-EOS Library User's Guide, ODL).

    The first of several objects of one name counts.
    """
    values: dict[str, Any] = {}
    name = ""
    for line in text.splitlines():
        key, _, value = (side.strip() for side in line.partition("="))
        if key == "OBJECT":
            name = fold_name(value)
        elif key == "VALUE" and name:
            values.setdefault(name, value.strip("()\"'"))
    return values

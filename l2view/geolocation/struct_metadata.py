"""HDF-EOS: what a file's text ``StructMetadata`` says of its swaths and grids.

The text is ODL (HDF-EOS Library User's Guide, "HDF-EOS Structural Metadata"). It has the names of
dimensions, which HDF-EOS5 writes nowhere else, and which dimensions hold tie points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import zarr

from l2view.arrays.values import read_text

STRUCTURE = re.compile(r"(?:HDFEOS INFORMATION/)?StructMetadata\.(\d+)")
"""The attributes of HDF-EOS2, and the arrays of HDF-EOS5, of the text; a long one goes on."""

GROUPS = {"Swath": "SWATHS", "Grid": "GRIDS", "Za": "ZAS"}
FIELDS = {"Geo": "Geolocation Fields", "Data": "Data Fields"}
DIMENSION_MAP = ("GeoDimension", "DataDimension", "Offset", "Increment")

type DimensionMap = tuple[str, str, int, int]
"""The dimensions of geolocation and of data, the latter's offset and increment."""


@dataclass
class Structure:
    """A swath or grid: what is said of it, and the dimensions of its fields by their names."""

    kind: str
    values: dict[str, str] = field(default_factory=dict)
    fields: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)  # with their group
    maps: list[DimensionMap] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name."""
        return self.values.get(f"{self.kind}Name", "")

    def paths(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield the fields' paths in HDF-EOS5, names, and dimensions."""
        for name, (group, dimensions) in self.fields.items():
            path = f"HDFEOS/{GROUPS.get(self.kind, '')}/{self.name}/{group}/{name}"
            yield path, name, dimensions


def read_structures(
    attributes: Mapping[str, Any], arrays: Mapping[str, zarr.Array[Any]]
) -> list[Structure]:
    """Return the swaths and grids of a file, by its own attributes and its arrays by path.

    There are none where it is no file of HDF-EOS.
    """
    texts = {
        int(match[1]): read_text(arrays[name]) if name in arrays else str(attributes[name])
        for name in (*attributes, *arrays)
        if (match := STRUCTURE.fullmatch(name))
    }
    return _parse("".join(texts[number] for number in sorted(texts)))


def _parse(text: str) -> list[Structure]:
    structures: list[Structure] = []
    kind = group = name = ""
    mapped: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = (side.strip() for side in line.partition("="))
        value = value.strip('"')
        if key == "GROUP" and value.endswith("Structure"):
            kind = value.removesuffix("Structure")
        elif key == "GROUP" and re.fullmatch(r"(SWATH|GRID|POINT|ZA)_\d+", value):
            structures.append(Structure(kind))
        elif not structures:
            continue
        elif key in ("GeoFieldName", "DataFieldName"):
            group, name = FIELDS[key.removesuffix("FieldName")], value
        elif key == "DimList" and name:
            structures[-1].fields[name] = group, tuple(re.findall(r'"([^"]+)"', line))
        elif key in DIMENSION_MAP:
            mapped[key] = value
            if key == DIMENSION_MAP[-1]:
                with suppress(KeyError, ValueError):  # where they aren't all of a map
                    ties, data, offset, increment = (mapped[key] for key in DIMENSION_MAP)
                    structures[-1].maps.append((ties, data, int(offset), int(increment)))
                mapped = {}
        elif key not in ("GROUP", "END_GROUP", "OBJECT", "END_OBJECT"):
            structures[-1].values.setdefault(key, value)
    return structures

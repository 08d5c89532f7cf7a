"""HDF-EOS: the structure of swaths and grids in a text, ``StructMetadata``.

The text is ODL (HDF-EOS Library User's Guide, "HDF-EOS Structural Metadata"). It has the names of
dimensions, which HDF-EOS5 writes nowhere else, and where grids lie, by GCTP's projections.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import pyproj
import zarr
from pyproj.exceptions import CRSError
from virtualizarr.manifests import ManifestArray, ManifestGroup

from l2view.arrays.values import read_text
from l2view.granules.references import ArrayReferences
from l2view.ingest.manifests import walk
from l2view.stores.hierarchy import JSON

STRUCTURE = re.compile(r"StructMetadata\.\d+")
"""The names of the texts; a long one is cut, and goes on in the next."""

INFORMATION = "HDFEOS INFORMATION"
"""The group of an HDF-EOS5 file that holds them; in HDF4 they are attributes of the file."""

GROUPS = {"Swath": "SWATHS", "Grid": "GRIDS", "Za": "ZAS"}
FIELDS = {"Geo": "Geolocation Fields", "Data": "Data Fields"}

SPHERES = {0: "+ellps=clrk66", 8: "+ellps=GRS80", 12: "+datum=WGS84", 19: "+R=6370997"}
"""GCTP's spheroids."""

PROJECTIONS = {
    "GEO": "+proj=longlat",
    "SNSOID": "+proj=sinu +lon_0={lon} +x_0={x} +y_0={y}",
    "LAMAZ": "+proj=laea +lat_0={lat} +lon_0={lon} +x_0={x} +y_0={y}",
    "PS": "+proj=stere +lat_0={pole} +lat_ts={lat} +lon_0={lon} +x_0={x} +y_0={y}",
    "CEA": "+proj=cea +lon_0={lon} +lat_ts={lat} +x_0={x} +y_0={y}",
    "BCEA": "+proj=cea +lon_0={lon} +lat_ts={lat} +x_0={x} +y_0={y}",
    "UTM": "+proj=utm +zone={zone} {south}",
}
"""GCTP's projections in PROJ's words (HDF-EOS Library User's Guide, "GCTP Projection Codes")."""


@dataclass
class Structure:
    """A swath or grid: what is said of it, and the dimensions of its fields by their names."""

    kind: str
    values: dict[str, str] = field(default_factory=dict)
    fields: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)  # with their group

    @property
    def name(self) -> str:
        """Its name."""
        return self.values.get(f"{self.kind}Name", "")

    def paths(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield the fields' paths in HDF-EOS5, names, and dimensions."""
        for name, (group, dimensions) in self.fields.items():
            path = f"HDFEOS/{GROUPS.get(self.kind, '')}/{self.name}/{group}/{name}"
            yield path, name, dimensions


def structures_of(file: zarr.Group) -> list[Structure]:
    """Return the swaths and grids of a file, none where it is no file of HDF-EOS."""
    texts: dict[str, str] = {
        name: value
        for name, value in file.attrs.items()
        if STRUCTURE.fullmatch(name) and isinstance(value, str)
    }
    information = dict(file.groups()).get(INFORMATION)
    for name, array in information.arrays() if information is not None else ():
        if STRUCTURE.fullmatch(name):
            texts[name] = read_text(array)
    return _parse("".join(texts[name] for name in sorted(texts)))


def _parse(text: str) -> list[Structure]:
    structures: list[Structure] = []
    kind = group = name = ""
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
        elif key not in ("GROUP", "END_GROUP", "OBJECT", "END_OBJECT"):
            structures[-1].values.setdefault(key, value)
    return structures


def place_grids(
    root: ManifestGroup, arrays: Sequence[ArrayReferences], structures: Sequence[Structure]
) -> list[ArrayReferences]:
    """Add to the arrays of a file's grids where they lie, unless they have another shape.

    That is by the attributes of Zarr's conventions ``spatial`` and ``proj``. They are added to the
    manifests too, which harvesters read.
    """
    places: dict[str, JSON] = {}
    grids = [(grid, place) for grid in structures if (place := _place(grid)) is not None]
    nodes = dict(walk(root)) if grids else {}
    for grid, place in grids:
        for path, name, dimensions in grid.paths():
            paths = (path, f"{grid.name}/{name}", name)
            path = next((path for path in paths if path in nodes), "")
            array = nodes[path]
            if not isinstance(array, ManifestArray) or "YDim" not in dimensions:
                continue
            axis = dimensions.index("YDim")
            is_of_grid = dimensions[axis + 1 : axis + 2] == ("XDim",)
            if is_of_grid and list(array.shape[axis : axis + 2]) == place["spatial:shape"]:
                own = array.metadata.dimension_names or ()
                names = own if any(name.startswith("YDim") for name in own if name) else dimensions
                places[path] = {"spatial:dimensions": list(names[axis : axis + 2]), **place}
                array.metadata.attributes.update(places[path])
    return [_with_attributes(a, places[a.path]) if a.path in places else a for a in arrays]


def _with_attributes(array: ArrayReferences, attributes: JSON) -> ArrayReferences:
    attributes = array.document["attributes"] | attributes
    return replace(array, document={**array.document, "attributes": attributes})


def _place(grid: Structure) -> JSON | None:
    """Return the transform, shape and CRS of a grid, None where its projection isn't known."""
    values = grid.values if grid.kind == "Grid" else {}
    try:
        columns, rows = int(values["XDim"]), int(values["YDim"])
        west, north = _numbers(values["UpperLeftPointMtrs"])
        east, south = _numbers(values["LowerRightMtrs"])
        parameters = _numbers(values.get("ProjParams", "")) + [0.0] * 13
    except (KeyError, ValueError):
        return None
    name = values.get("Projection", "").removeprefix("HE5_").removeprefix("GCTP_")
    wkt = _wkt(
        name, tuple(parameters[:13]), values.get("SphereCode", ""), values.get("ZoneCode", "")
    )
    if wkt is None or "_UL" not in values.get("GridOrigin", "_UL") or not (columns and rows):
        return None
    if name == "GEO":
        west, north, east, south = map(_degrees, (west, north, east, south))
    transform = [(east - west) / columns, 0.0, west, 0.0, (south - north) / rows, north]
    return {"spatial:transform": transform, "spatial:shape": [rows, columns], "proj:wkt2": wkt}


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.strip("() ").split(",") if number.strip()]


def _degrees(packed: float) -> float:
    """Return GCTP's packed degrees, minutes and seconds (DDDMMMSSS.SS) as degrees."""
    minutes, seconds = divmod(abs(packed), 1000)
    degrees, minutes = divmod(minutes, 1000)
    return float((degrees + minutes / 60 + seconds / 3600) * (1 if packed >= 0 else -1))


@lru_cache(64)
def _wkt(name: str, parameters: Sequence[float], sphere: str, zone: str) -> str | None:
    if name not in PROJECTIONS:
        return None
    axis, other = parameters[:2]
    if axis > 0:  # the other is the shorter axis, or the square of the eccentricity
        ellipsoid = f"+a={axis} +b={other}" if other > 1 else f"+a={axis} +es={other}"
    else:
        ellipsoid = SPHERES.get(int(sphere) if sphere.lstrip("-").isdigit() else 12, "")
    lon, lat = map(_degrees, parameters[4:6])
    values: JSON = {"lon": lon, "lat": lat, "x": parameters[6], "y": parameters[7]}
    values |= {"pole": 90 if lat >= 0 else -90, "zone": zone.lstrip("-")}
    values["south"] = "+south" * zone.startswith("-")
    projection = PROJECTIONS[name].format_map(values)
    try:
        return str(pyproj.CRS(f"{projection} {ellipsoid} +no_defs +type=crs").to_wkt())
    except CRSError:
        return None

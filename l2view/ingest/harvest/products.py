"""What the manifest of a product of several files says: time, place, clouds, platform, product.

Sentinels' manifests are XML (Sentinel-SAFE Product Specification, PGSI-GSEG-EOPG-FS-05-0001),
Landsat's ``MTL`` are JSON, XML, or texts of ``KEY = VALUE`` (Landsat 8-9 Collection 2 Level 2 Data
Format Control Book, LSDS-1328).
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import shapely

from l2view.errors import IngestError
from l2view.geolocation.cell_outlines import of_ring
from l2view.geolocation.footprint import of_position_list
from l2view.ingest.files import open_present
from l2view.ingest.granule import BandPacking, Entry
from l2view.ingest.harvest.attributes import parse_time
from l2view.text import first_line, strip_credentials

SENTINEL = {
    "start_datetime": "startTime",
    "end_datetime": "stopTime",
    "product_type": "productType",
    "orbit": "orbitNumber",
    "cycle": "cycleNumber",
}
"""Fields, and the elements of Sentinels' manifests that say them, of which the first counts."""

LANDSAT = {
    "platform": "SPACECRAFT_ID",
    "instrument": "SENSOR_ID",
    "processing_level": "PROCESSING_LEVEL",
    "cloud_cover": "CLOUD_COVER",
    "wrs_path": "WRS_PATH",
    "wrs_row": "WRS_ROW",
}
"""Fields, and the keys of Landsat's metadata."""

NUMBERS = {"orbit": int, "cycle": int, "wrs_path": int, "wrs_row": int, "cloud_cover": float}
CORNERS = ("UL", "UR", "LR", "LL", "UL")
SCALED = ("REFLECTANCE", "TEMPERATURE")
"""The quantities of level 2 that the pixels of Landsat's bands stand for."""

ODL_LINE = re.compile(r'^\s*(\w+) = "?([^"\n]*)"?\s*$', re.MULTILINE)


def read_manifest(data: bytes) -> tuple[dict[str, Any], dict[str, BandPacking]]:
    """Return the fields of a manifest, and how its files' numbers are read, by their names.

    An `IngestError` says that it is none.
    """
    try:
        values = dict(reversed(list(_values(data))))  # of those of one name the first
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise IngestError(f"it can't be read: {error}") from error
    if "SPACECRAFT_ID" in values:
        fields, packing = _landsat_fields(values), dict(_landsat_packing(values))
    else:
        fields, packing = _sentinel_fields(values), {}
    fields = {name: _number(name, value) for name, value in fields.items()}
    fields = {name: value for name, value in fields.items() if value not in (None, "")}
    if not fields:
        raise IngestError("it says nothing that is known")
    return fields, packing


def _number(name: str, value: Any) -> Any:
    """Return the value of a field, None where it is to be a number and is none."""
    try:
        return NUMBERS[name](value) if name in NUMBERS else value
    except (TypeError, ValueError):
        return None


def _values(data: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the names and texts of a manifest's elements, without namespaces."""
    text = data.decode(errors="replace").lstrip("\ufeff \r\n\t")
    if text.startswith("{"):
        pairs: list[tuple[str, Any]] = []
        json.loads(text, object_pairs_hook=pairs.extend)  # of objects within objects, too
        yield from pairs
    elif lines := ODL_LINE.findall(text):
        yield from lines
    else:
        for element in ET.fromstring(data).iter():  # noqa: S314 - as in TIFFs
            name = element.tag.rpartition("}")[2]
            yield name, (element.text or "").strip()
            yield from ((f"{name}@{key}", value) for key, value in element.attrib.items())


def _sentinel_fields(values: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: values.get(key) for name, key in SENTINEL.items()}
    for name in ("start_datetime", "end_datetime"):
        fields[name] = parse_time(fields[name])
    fields["datetime"] = fields["start_datetime"]
    family, number = values.get("familyName", ""), values.get("number", "")
    fields["platform"] = f"{family}{'-' if number[:1].isdigit() else ''}{number}"
    fields["instrument"] = values.get("familyName@abbreviation")
    fields["cloud_cover"] = values.get("cloudyPixels@percentage")
    # SAFE of Sentinels 1 and 2 has GML's older coordinates: latitude,longitude pairs.
    positions = values.get("posList") or values.get("coordinates", "").replace(",", " ")
    ring = positions.split()
    outline = of_position_list(" ".join(ring if ring[:2] == ring[-2:] else [*ring, *ring[:2]]))
    fields["bbox"] = None if outline is None else shapely.to_wkb(outline)
    return fields


def _landsat_fields(values: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: values.get(key) for name, key in LANDSAT.items()}
    # Of Landsat 4 to 9; a night's clouds are -1.
    fields["cloud_cover"] = (
        None if fields["cloud_cover"] in ("-1", "-1.00") else fields["cloud_cover"]
    )
    at = parse_time(values.get("DATE_ACQUIRED"), values.get("SCENE_CENTER_TIME"))
    fields["datetime"] = fields["start_datetime"] = fields["end_datetime"] = at
    try:
        ring = [[float(values[f"CORNER_{c}_{n}_PRODUCT"]) for n in ("LON", "LAT")] for c in CORNERS]
    except (KeyError, ValueError):
        return fields
    outline = of_ring(np.array(ring))
    fields["bbox"] = None if outline is None else shapely.to_wkb(outline)
    return fields


def _landsat_packing(values: Mapping[str, str]) -> Iterator[tuple[str, BandPacking]]:
    """Yield how the bands of level 2 are read, by the names of their files without suffix."""
    for key, file in values.items():
        band = key.removeprefix("FILE_NAME_")
        if band == key or not values.get("PROCESSING_LEVEL", "").startswith("L2"):
            continue
        for quantity in SCALED:
            scale, offset = (values.get(f"{quantity}_{kind}_{band}") for kind in ("MULT", "ADD"))
            if scale is not None and offset is not None:
                packing = {"scale_factor": [float(scale)], "add_offset": [float(offset)]}
                yield Entry.of_file(file).id, {**packing, "_FillValue": [0]}
                break


def describe_product(entry: Entry) -> tuple[Entry, list[str]]:
    """Return a product's granule with what its manifest says, and why it says nothing."""
    if not entry.manifest:
        return entry, []
    try:
        fields, packing = read_manifest(open_present(entry.manifest).read())
    except (IngestError, OSError) as error:
        return entry, [f"its manifest {strip_credentials(entry.manifest)}: {first_line(error)}"]
    stems = {Entry.of_file(url).id: asset for asset, url in entry.assets.items()}
    of_assets = {stems[stem]: packing[stem] for stem in stems.keys() & packing.keys()}
    return replace(entry, fields={**fields, **entry.fields}, packing=of_assets), []

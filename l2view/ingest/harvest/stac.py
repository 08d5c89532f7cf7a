"""STAC Items as granules: their properties as fields, their assets as files.

Names are kept as they are (``eo:cloud_cover``, ``proj:epsg``). Beside them stand the fields by
which zarr-datafusion-search and lazymerge place a scene: ``transform_0`` to ``transform_5``,
``shape_x``, ``shape_y`` and ``asset_<key>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import shapely
import shapely.geometry
import zarr

from l2view.errors import IngestError
from l2view.geolocation.cell_outlines import of_ring
from l2view.geolocation.footprint import on_the_globe
from l2view.geolocation.geometries import GEOMETRY_ERRORS, bbox_corners
from l2view.geolocation.globe import rectangle
from l2view.ingest.granule import SUFFIXES, BandPacking, Entry
from l2view.ingest.harvest.attributes import parse_field
from l2view.stores.urls import url_of

MEDIA = ("tiff", "geotiff", "netcdf", "hdf", "zarr", "fits", "grib")
"""What the media type of an asset with arrays has in it."""

NOT_DATA = frozenset({"thumbnail", "overview", "metadata"})
"""Roles of assets that aren't taken in."""

TIMES = ("datetime", "start_datetime", "end_datetime", "created", "updated")

PACKING = {
    "_FillValue": ("nodata", None),
    "scale_factor": ("scale", 1),
    "add_offset": ("offset", 0),
}
"""The attributes of arrays for the fields of a band, and what these are by default."""


def item_of(item: Mapping[str, Any], base: str = "") -> Entry:
    """Return the granule of a STAC Item.

    Assets' paths may be relative to `base`, the URL that it was read from. An `IngestError` says
    that no asset has arrays.
    """
    members = (link for link in item.get("links") or () if isinstance(link, Mapping))
    links = {link.get("rel"): link.get("href") for link in members}
    remote = bool(base) and not base.startswith("file://")
    base = base or str(links.get("self") or "")
    base = url_of(base) if base else ""  # pystac has paths of this machine
    described = {key: a for key, a in item["assets"].items() if isinstance(a, Mapping)}
    hrefs, assets, omitted = _assets(described, base, remote)
    if not assets:
        reasons = "".join(f"; {key}: {reason}" for key, reason in omitted.items())
        raise IngestError(f"the STAC Item {item.get('id')} has no asset with arrays{reasons}")
    fields = item_fields(item)
    fields |= grid_fields({**described[next(iter(assets))], **fields})
    fields |= {f"asset_{key}": href for key, href in hrefs.items()}
    fields["href"] = links.get("self") or next(iter(assets.values()))
    packing = {key: _packing(described[key], fields) for key in assets}
    return Entry(str(item["id"]), assets, fields, omitted, packing)


def _packing(asset: Mapping[str, Any], properties: Mapping[str, Any]) -> BandPacking:
    """Return how an asset's stored numbers are read (Raster extension 1.1 and 2.0)."""
    bands = asset.get("raster:bands") or asset.get("bands")
    bands = [band for band in bands if isinstance(band, Mapping)] if type(bands) is list else []
    described = [{**asset, **band} for band in bands or [{}]]
    packing: dict[str, list[Any]] = {}
    for attribute, (name, default) in PACKING.items():
        values: list[Any] = []
        for band in described:
            value = band.get(name, band.get(f"raster:{name}", default))
            values += [value] if value not in values else []
        # Earth Search has subtracted it from the pixels, and says it nevertheless.
        is_applied = name == "offset" and properties.get("earthsearch:boa_offset_applied")
        if values != [default] and not is_applied:
            packing[attribute] = values
    return packing


def item_fields(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an Item says of itself: its properties, place and collection."""
    fields: dict[str, Any] = dict(item.get("properties") or {})
    for name in TIMES:
        if isinstance(fields.get(name), str):
            # What is no time is named where all fields are looked at.
            fields[name] = parse_field(name, fields[name]) or fields[name]
    if fields.get("datetime") is None:
        fields["datetime"] = fields.get("start_datetime")
    fields["bbox"] = _outline(item)
    if item.get("collection"):
        fields["collection"] = item["collection"]
    return {name: value for name, value in fields.items() if value is not None}


def harvest_discovery(group: zarr.Group) -> dict[str, Any]:
    """Return the fields of the Item in the attribute ``stac_discovery`` (ESA's EOPF Zarr)."""
    item = group.attrs.get("stac_discovery")
    return item_fields(item) if isinstance(item, Mapping) else {}


def _assets(
    described: Mapping[str, Mapping[str, Any]], base: str, is_remote: bool
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Return assets' URLs, those with arrays, and why those are left out that may have some."""
    hrefs: dict[str, str] = {}
    assets: dict[str, str] = {}
    omitted: dict[str, str] = {}
    for key, asset in described.items():
        if not asset.get("href"):
            continue
        try:
            href = hrefs[key] = _absolute(str(asset["href"]), base)
            kind, roles = str(asset.get("type") or "").lower(), set(asset.get("roles") or ())
        except (TypeError, ValueError) as error:
            omitted[key] = f"its description isn't understood: {error}"
            continue
        if roles & NOT_DATA and "data" not in roles:
            continue
        suffix = PurePosixPath(urlsplit(href).path).suffix.lower()
        if is_remote and href.lower().startswith("file:"):
            omitted[key] = f"it names a file of this machine, {href}"
        elif any(name in kind for name in MEDIA) or (not kind and suffix in SUFFIXES):
            assets[key] = href
        elif not kind or "data" in roles:
            omitted[key] = f"its media type is {kind or 'not said'}"
    return hrefs, assets, omitted


def _absolute(href: str, base: str) -> str:
    """Return an asset's URL, which may be relative to that of its Item, of whatever scheme."""
    if not base or "://" in href:
        return url_of(href)
    parts = urlsplit(base)
    joined = urlsplit(urljoin(f"http://host{parts.path}", href))
    return urlunsplit((parts.scheme, parts.netloc, joined.path, joined.query, ""))


def _outline(item: Mapping[str, Any]) -> Any:
    """Return an Item's place as WKB, by its geometry before its bbox; None where it says none.

    What is no geometry is returned as it is, and named where all fields are looked at.
    """
    geometry, bbox = item.get("geometry"), item.get("bbox")
    with suppress(*GEOMETRY_ERRORS, IngestError):
        shape = shapely.force_2d(shapely.geometry.shape(geometry))
        return shapely.to_wkb(on_the_globe(_across_the_antimeridian(shape, bbox)))
    with suppress(*GEOMETRY_ERRORS):
        return shapely.to_wkb(rectangle(*bbox_corners(bbox or ())))
    return geometry or bbox or None


def _across_the_antimeridian(shape: shapely.Geometry, bbox: Any) -> shapely.Geometry:
    """Return a geometry that isn't cut at the antimeridian with its polygons cut there.

    GeoJSON wants it cut (RFC 7946, 3.1.9). A bbox with west > east tells that it crosses, and a
    polygon of longitudes between the two that it isn't cut.
    """
    if bbox is None or not bbox[0] > bbox[len(bbox) // 2]:
        return shape
    areas: list[shapely.Geometry | None] = []
    for part in shapely.get_parts(shape):
        west, _, east, _ = part.bounds
        is_uncut = west <= bbox[len(bbox) // 2] and east >= bbox[0]
        areas.append(of_ring(shapely.get_coordinates(part.exterior)) if is_uncut else part)
    return shapely.union_all([area for area in areas if area is not None])


def grid_fields(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that place a scene on its grid (STAC's Projection extension)."""
    fields: dict[str, Any] = {}
    code = properties.get("proj:code")
    if isinstance(code, str) and code.upper().startswith("EPSG:") and code[5:].isdigit():
        fields["proj:epsg"] = int(code[5:])
    # What isn't as the extension has it places nothing.
    with suppress(TypeError, ValueError, OverflowError):
        numbers = [float(value) for value in properties.get("proj:transform") or ()]
        fields |= {f"transform_{index}": value for index, value in enumerate(numbers[:6])}
    with suppress(TypeError, ValueError, OverflowError):
        height, width = map(int, properties.get("proj:shape") or ())
        fields |= {"shape_y": height, "shape_x": width}
    return fields

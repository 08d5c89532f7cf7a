"""What attributes and fields declare of where images lie, of n granules at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from l2view.arrays.cf import RELEVANT
from l2view.geolocation.bands import Levels, image_shapes, layout_of
from l2view.geolocation.crs import (
    CF_MAPPING,
    GEOKEYS,
    PROJ_FIELDS,
    PROJ_TEXTS,
    CrsTable,
    geokeys_crs,
    mapping_crs,
    proj_crs,
    proj_text_crs,
)
from l2view.geolocation.image_axes import image_axes
from l2view.geolocation.transforms import (
    NWC_SAF_CORNERS,
    gdal_transform,
    geotiff_transform,
    nwc_saf_transform,
    spatial_transform,
)
from l2view.granules.table import GranuleTable
from l2view.stores.hierarchy import JSON

UNDECODED = frozenset({"undecoded_scale_factor", "undecoded_add_offset"})
"""Scales that ingest has set aside, as those of bands that differ."""

ATTRIBUTES = RELEVANT.union(
    UNDECODED, CF_MAPPING, GEOKEYS, PROJ_FIELDS, PROJ_TEXTS, NWC_SAF_CORNERS, {
    "GeoTransform", "coordinates", "extra_samples", "grid_mapping", "model_pixel_scale",
    "model_tiepoint", "model_transformation", "multiscales", "new_subfile_type",
    "photometric_interpretation", "proj:shape", "proj:transform", "raster_type",
    "spatial:dimensions", "spatial:registration", "spatial:shape", "spatial:transform",
})  # fmt: skip
"""The attributes that say where arrays lie, beside those by which values are read."""

FIELDS = (
    *(f"transform_{index}" for index in range(6)),
    *("proj:transform", "shape_y", "shape_x", "proj:shape", *PROJ_FIELDS),
)
"""Fields of ``/meta`` that say it, of STAC's Projection extension and as harvested from it."""


class DeclaredGeoreference(NamedTuple):
    """What a kind of georeference declares of one level of a band's n granules."""

    transforms: NDArray[np.float64]  # of shape (n, 6), NaN for none
    crs: NDArray[np.int64]  # numbers of a `CrsTable`, of shape (n,); -1 for none
    level: int = 0


class Convention(NamedTuple):
    """How attributes declare a transform and a CRS."""

    transform: Callable[[JSON], Affine | None]
    crs: Callable[[JSON], Any]


SPATIAL = Convention(spatial_transform, proj_crs)
GEOTIFF = Convention(geotiff_transform, geokeys_crs)
PROJ_PARAMETERS = Convention(nwc_saf_transform, proj_text_crs)
GDAL = Convention(gdal_transform, mapping_crs)


class AttributeVariants(NamedTuple):
    """Attributes of an array, a group or fields: the different ones, and whose each are."""

    variants: Sequence[JSON]
    variant_index: NDArray[np.int64] | NDArray[np.int32]
    level: int = 0  # of which they tell
    group: str | None = None  # of whose largest image they tell where they say no shape

    def declare(
        self, convention: Convention, systems: CrsTable, levels: Levels
    ) -> DeclaredGeoreference:
        """Return the declared georeference, without transforms of images of another shape."""
        crs = np.array([systems.number(convention.crs(variant)) for variant in self.variants])
        declared = map(convention.transform, self.variants)
        transforms = np.array([t[:6] if t is not None else (np.nan,) * 6 for t in declared])
        transforms = transforms[self.variant_index]
        if np.isfinite(transforms).any():
            shapes = np.array([_shape(variant) for variant in self.variants])[self.variant_index]
            if self.group is not None:
                shapes = np.where(shapes < 0, _largest_shapes(levels.table, self.group), shapes)
            differs = (shapes >= 0) & (shapes != levels.stored_shapes(self.level))
            transforms[differs.any(axis=1)] = np.nan
        return DeclaredGeoreference(transforms, crs[self.variant_index], self.level)


def _shape(attributes: Mapping[str, Any]) -> tuple[int, int]:
    """Return the rows and columns of the image that attributes tell of, -1 where they don't."""
    shape = attributes.get("spatial:shape") or attributes.get("proj:shape")
    if isinstance(shape, list | tuple) and [type(length) for length in shape] == [int, int]:
        return shape[0], shape[1]
    return -1, -1


def _largest_shapes(table: GranuleTable, group: str) -> NDArray[np.int64]:
    """Return the shape of the largest image below a group, of shape (n, 2)."""
    largest = np.zeros((len(table.rows), 2), dtype=np.int64)
    for path, array in table.arrays.items():
        if array.rank >= 2 and (not group or path.startswith(f"{group}/")):
            shapes = image_shapes(array.shapes, image_axes(array, table))
            larger = shapes.prod(axis=1) > largest.prod(axis=1)
            largest[larger] = shapes[larger]
    return largest


def layout_entries(levels: Levels) -> Iterator[tuple[list[JSON], NDArray[np.int32]]]:
    """Yield what the different groups of granules say of each level, and which each has."""
    if levels.group is not None:
        group = levels.table.groups[levels.group]
        layouts = [layout_of(variant) for variant in group.variants]
        for asset in levels.assets:
            entries = [
                next((entry for entry in layout if entry["asset"] == asset), {})
                for layout in layouts
            ]
            yield entries, group.variant_index


def field_attributes(row: Mapping[str, Any]) -> JSON:
    """Return a granule's fields as attributes of the conventions that they are named after."""
    attributes: JSON = {}
    for name, value in row.items():
        if isinstance(value, str) and name in ("proj:transform", "proj:shape", "proj:projjson"):
            try:
                attributes[name] = json.loads(value)
            except json.JSONDecodeError:
                continue
        elif value is not None:
            attributes[name] = value
    numbers = [attributes.get(f"transform_{index}") for index in range(6)]
    if None not in numbers:
        attributes.setdefault("proj:transform", numbers)
    if "shape_y" in attributes and "shape_x" in attributes:
        attributes.setdefault("proj:shape", [attributes["shape_y"], attributes["shape_x"]])
    return attributes

"""The images of a TIFF as arrays of one group.

A GeoTIFF's overviews are images of their own, after the full one (TIFF 6.0, NewSubfileType);
the group names them by the multiscales convention for Zarr.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from zarr_cm import multiscales

from l2view.arrays.cf import SCALING, zarr_attributes
from l2view.geolocation.bands import is_mask
from l2view.geolocation.coordinates import is_overview
from l2view.granules.references import ArrayReferences
from l2view.ingest.granule import BandPacking
from l2view.stores.hierarchy import JSON
from l2view.text import join_names


def flatten_images(
    arrays: list[ArrayReferences], attributes: Mapping[str, JSON], *, alone: bool
) -> tuple[list[ArrayReferences], dict[str, JSON]]:
    """Return a TIFF's images as arrays ``0``, ``1``, … of one group, and attributes of groups.

    Its parser makes a group of each, with an array of the same name. With `alone`, a single
    image becomes an array without a group.
    """
    renamed = [array.at(array.path.rpartition("/")[2]) for array in arrays]
    if alone and len(renamed) == 1:
        return [renamed[0].at("")], {}
    images = {array.path for array in renamed}
    groups = {path: value for path, value in attributes.items() if path not in images}
    levels = _levels(renamed)
    if len(levels) > 1:
        convention = multiscales.create_convention_attrs(layout=_multiscales_layout(levels))
        groups[""] = {**groups.get("", {}), **convention}
    return renamed, groups


def pack_images(
    arrays: list[ArrayReferences], packing: BandPacking
) -> tuple[list[ArrayReferences], list[str]]:
    """Return images that are read as their Item says, where they don't say it, and notes."""
    packed, notes = [], []
    for array in arrays:
        attributes: JSON = array.document["attributes"]
        own = set(attributes).union(SCALING if attributes.keys() & set(SCALING) else ())
        added = {name: values for name, values in packing.items() if name not in own}
        several = {name for name, values in added.items() if len(values) > 1}
        if several:
            names = join_names(sorted(several))
            notes.append(f"{array.path} isn't decoded: its bands differ in {names}")
        elif not is_mask(attributes):
            attributes = attributes | {name: value for name, (value,) in added.items()}
            attributes = zarr_attributes(attributes, array.document["data_type"])
        packed.append(replace(array, document={**array.document, "attributes": attributes}))
    return packed, notes


def _levels(arrays: list[ArrayReferences]) -> list[ArrayReferences]:
    """Return the full image and its overviews, ever smaller."""
    full = next((array for array in arrays if array.path == "0"), None)
    if full is None or len(full.shape) < 2:
        return []
    levels = [full]
    for array in sorted(arrays, key=lambda image: -image.shape[-1] * image.shape[-2]):
        smaller = all(a < b for a, b in zip(array.shape[-2:], levels[-1].shape[-2:], strict=True))
        is_like = (
            len(array.shape) == len(full.shape)
            and array.document["data_type"] == full.document["data_type"]
            and not is_mask(array.document["attributes"])
        )
        # An image of other proportions is another page.
        if smaller and is_like and is_overview(array.shape[-2:], full.shape[-2:]):
            levels.append(array)
    return levels


def _multiscales_layout(levels: list[ArrayReferences]) -> list[multiscales.LayoutObject]:
    """Return the levels as the convention has them, each a reduction of the full one."""
    full = levels[0]
    layout: list[multiscales.LayoutObject] = [{"asset": full.path}]
    for level in levels[1:]:
        scale = np.divide(full.shape[-2:], level.shape[-2:]).tolist()
        transform: Any = {"scale": scale, "translation": [0.0, 0.0]}
        layout.append({"asset": level.path, "derived_from": full.path, "transform": transform})
    return layout

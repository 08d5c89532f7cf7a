"""TIFF files: their images as arrays of one group.

A GeoTIFF's overviews are images of their own, after the full one (TIFF 6.0, NewSubfileType);
the group names them by the multiscales convention for Zarr.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum, EnumType
from typing import Any

import numpy as np
import virtual_tiff.codecs
from obspec_utils.protocols import ReadableFile
from obspec_utils.registry import ObjectStoreRegistry
from virtual_tiff import VirtualTIFF
from virtualizarr.manifests import ManifestStore
from zarr_cm import multiscales

from l2view.granules.references import ArrayReferences
from l2view.stores.hierarchy import JSON

FLOAT_PREDICTOR = "imagecodecs_floatpred"
INTERLEAVED = "ChunkyCodec"
"""virtual-tiff's codecs for TIFF's predictor 3, and for bands beside each other in a pixel."""

TRANSPARENCY_MASK = 4
"""The photometric interpretation of a mask (TIFF 6.0, 8)."""


class _Endian(Enum):
    """What virtual-tiff 0.5 imports from zarr, which has had only the strings since 3.4."""

    little = "little"
    big = "big"


def parse_tiff(
    url: str, reader: ReadableFile, stores: ObjectStoreRegistry[Any], threshold: int
) -> tuple[ManifestStore, dict[str, str]]:
    """Return a TIFF as references (see `l2view.ingest.formats.CheckedParser`)."""
    codecs: Any = virtual_tiff.codecs
    if not isinstance(codecs.Endian, EnumType):
        codecs.Endian = _Endian
    with warnings.catch_warnings():
        # Of codecs that are virtual-tiff's own, which the documentation names.
        warnings.filterwarnings("ignore", message="imagecodecs codecs are not in the Zarr")
        return VirtualTIFF(ifd_layout="nested")(url, stores), {}


def flatten_images(
    arrays: list[ArrayReferences], attributes: Mapping[str, JSON], *, alone: bool
) -> tuple[list[ArrayReferences], dict[str, JSON], dict[str, str]]:
    """Return a TIFF's images as arrays ``0``, ``1``, … of one group, the full one first.

    Its parser makes a group of each, with an array of the same name. With `alone`, a single
    image becomes an array without a group. Returns the arrays, the attributes of groups, and why
    images are left out, by path.
    """
    renamed: list[ArrayReferences] = []
    omitted: dict[str, str] = {}
    for array in arrays:
        group, _, name = array.path.rpartition("/")
        path = name if name == group else array.path
        reason = _unreadable(array)
        if reason is None:
            renamed.append(
                replace(array, path=path, document=_with_standard_codecs(array.document))
            )
        else:
            omitted[path] = reason
    if alone and len(renamed) == 1 and not omitted:
        return [renamed[0].at("")], {}, {}
    images = {array.path for array in renamed} | omitted.keys()
    groups = {path: value for path, value in attributes.items() if path not in images}
    levels = _levels(renamed)
    if len(levels) > 1:
        convention = multiscales.create_convention_attrs(layout=_multiscales_layout(levels))
        groups[""] = {**groups.get("", {}), **convention}
    return renamed, groups, omitted


def _unreadable(array: ArrayReferences) -> str | None:
    """Return what virtual-tiff's codecs would get wrong of an image, None for nothing."""
    codecs = {codec["name"]: codec.get("configuration") or {} for codec in array.document["codecs"]}
    if array.document["data_type"] == "bool":
        return "its pixels are single bits, which no codec of Zarr's unpacks"
    if FLOAT_PREDICTOR in codecs and INTERLEAVED in codecs:
        return "its bands are interleaved, and predicted as floats"
    if FLOAT_PREDICTOR in codecs and codecs.get("bytes", {}).get("endian") == "big":
        return "its big-endian values are predicted as floats"
    nbytes = math.prod(array.chunk_shape) * np.dtype(array.document["data_type"]).itemsize
    if codecs.keys() <= {"bytes", "transpose", INTERLEAVED} and (
        (array.lengths[array.lengths > 0] < nbytes).any()
    ):
        return "its pixels have a number of bits that no codec of Zarr's unpacks"
    return None


def _with_standard_codecs(document: JSON) -> JSON:
    """Return an array's document with codecs that every reader of Zarr has.

    virtual-tiff takes the bytes of pixels with several bands in Fortran's order, of axes in
    another order. That is a transposition to where the bands are the last axis.
    """
    names = [codec["name"] for codec in document["codecs"]]
    if INTERLEAVED not in names:
        return document
    codecs, at = list(document["codecs"]), names.index(INTERLEAVED)
    order = codecs[at - 1]["configuration"]["order"][::-1]
    codecs[at - 1] = {"name": "transpose", "configuration": {"order": order}}
    codecs[at] = {**codecs[at], "name": "bytes"}
    return {**document, "codecs": codecs}


def _levels(arrays: list[ArrayReferences]) -> list[ArrayReferences]:
    """Return the full image and its overviews, ever smaller."""
    full = next((array for array in arrays if array.path == "0"), None)
    if full is None or len(full.shape) < 2:
        return []
    levels = [full]
    for array in sorted(arrays, key=lambda image: -image.shape[-1] * image.shape[-2]):
        smaller = all(a < b for a, b in zip(array.shape[-2:], levels[-1].shape[-2:], strict=True))
        is_overview = (
            len(array.shape) == len(full.shape)
            and array.document["data_type"] == full.document["data_type"]
            and array.document["attributes"].get("photometric_interpretation") != TRANSPARENCY_MASK
        )
        if smaller and is_overview:
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

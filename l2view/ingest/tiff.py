"""TIFF files: their images as arrays of one group, and what the overviews among them are of.

A GeoTIFF's overviews are images of their own, after the full one (TIFF 6.0, NewSubfileType).
Which they are is said by the multiscales convention for Zarr.
"""

from __future__ import annotations

from collections.abc import Mapping

from zarr_cm import multiscales

from l2view.hierarchy import JSON
from l2view.ingest.references import ArrayReferences

TRANSPARENCY_MASK = 4
"""The photometric interpretation of a mask (TIFF 6.0, 8)."""


def images(
    arrays: list[ArrayReferences], attributes: Mapping[str, JSON], *, alone: bool
) -> tuple[list[ArrayReferences], dict[str, JSON]]:
    """Return a TIFF's images as arrays ``0``, ``1``, … of one group, the full one first.

    Its parser makes a group of each, with an array of the same name.

    Parameters
    ----------
    arrays
        The arrays, as parsed.
    attributes
        The attributes of the groups, by path.
    alone
        Whether a single image is to be an array without a group.
    """
    if alone and len(arrays) == 1:
        return [arrays[0].at("")], {}
    renamed = []
    for array in arrays:
        group, _, name = array.path.rpartition("/")
        renamed.append(array.at(name if name == group else array.path))
    held = {array.path for array in renamed}
    kept = {path: said for path, said in attributes.items() if path not in held}
    levels = _levels(renamed)
    if len(levels) > 1:
        made = multiscales.create_convention_attrs(layout=_layout(levels))
        kept[""] = {**kept.get("", {}), **made}
    return renamed, kept


def _levels(arrays: list[ArrayReferences]) -> list[ArrayReferences]:
    """Return the full image and its overviews, ever smaller."""
    full = next((array for array in arrays if array.path == "0"), None)
    if full is None or len(full.shape) < 2:
        return []
    levels = [full]
    for array in sorted(arrays, key=lambda one: -one.shape[-1] * one.shape[-2]):
        smaller = all(a < b for a, b in zip(array.shape[-2:], levels[-1].shape[-2:], strict=True))
        alike = (
            len(array.shape) == len(full.shape)
            and array.document["data_type"] == full.document["data_type"]
            and array.document["attributes"].get("photometric_interpretation") != TRANSPARENCY_MASK
        )
        if smaller and alike:
            levels.append(array)
    return levels


def _layout(levels: list[ArrayReferences]) -> list[multiscales.LayoutObject]:
    """Return the levels as the convention has them, each a reduction of the full one."""
    full = levels[0]
    found: list[multiscales.LayoutObject] = [{"asset": full.path}]
    for level in levels[1:]:
        pairs = zip(full.shape[-2:], level.shape[-2:], strict=True)
        scale = [large / small for large, small in pairs]
        found.append(
            {
                "asset": level.path,
                "derived_from": full.path,
                "transform": {"scale": scale, "translation": [0.0, 0.0]},
            }
        )
    return found

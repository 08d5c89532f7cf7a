"""Masks of images: the arrays, or bands of them, that say which cells are valid (not 0).

A TIFF has them as images of their own (TIFF 6.0, NewSubfileType) of an image's size, or as bands
of alpha (ExtraSamples).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l2view.geolocation.bands import Levels, is_mask
from l2view.geolocation.coordinates import basename, parent
from l2view.granules.table import ArrayTable
from l2view.stores.hierarchy import JSON

ALPHA = frozenset({1, 2})
"""Of the tag ExtraSamples: alpha that is associated, or not."""

ALPHA_OF = (2, 4)
"""How many bands images have of which the last is alpha, as GDAL has it."""

REDUCED = 1
"""The bit of the tag NewSubfileType that tells an overview."""


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask of images of n granules."""

    array: ArrayTable
    axes: tuple[int, ...]
    picks: tuple[int, ...]  # the positions along other axes
    applies: NDArray[np.bool_]  # of which granules it is, of shape (n,)


def masks_of(levels: Levels, level: int) -> Iterator[Mask]:
    """Yield the masks of one level of a band."""
    image = levels.arrays[level]
    if len(levels.axes) != 2:
        return
    others = [axis for axis in range(image.rank) if axis not in levels.axes]
    if len(others) == 1:
        alpha = np.array([_ends_with_alpha(variant["attributes"]) for variant in image.variants])
        counts = image.shapes[:, others[0]]
        for count in ALPHA_OF:
            applies = alpha[image.variant_index] & (counts == count)
            if applies.any() and levels.picks != (count - 1,):
                yield Mask(image, levels.axes, (count - 1,), applies)
    kinds = [variant["attributes"].get("new_subfile_type") or 0 for variant in image.variants]
    is_masked = np.array([bool(kind & REDUCED) for kind in kinds]) | (basename(image.path) == "0")
    for path, array in levels.table.arrays.items():
        masks = np.array([is_mask(variant["attributes"]) for variant in array.variants])
        if parent(path) != parent(image.path) or array.rank != 2 or not masks.any():
            continue
        same = (array.shapes == levels.stored_shapes(level)).all(axis=1)
        applies = same & masks[array.variant_index] & is_masked[image.variant_index]
        if applies.any():
            yield Mask(array, (0, 1), (), applies)


def _ends_with_alpha(attributes: JSON) -> bool:
    kinds = attributes.get("extra_samples")
    return isinstance(kinds, list) and bool(kinds) and kinds[-1] in ALPHA

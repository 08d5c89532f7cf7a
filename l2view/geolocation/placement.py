"""Where the images of a band lie: transforms of all levels, of n granules at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l2view.geolocation.bands import Levels
from l2view.geolocation.declarations import DeclaredGeoreference, layout_entries
from l2view.granules.table import ArrayTable
from l2view.stores.hierarchy import JSON

type Coordinates = tuple[ArrayTable, ArrayTable]  # the arrays of latitudes and longitudes


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the images of one band of a profile's n granules lie.

    `transforms` are from (column, row) of each level to coordinates, of shape (n, levels, 6), NaN
    where a level can't be used; `crs`, numbers of a `CrsTable`, are of shape (n,), -1 for none.
    Granules without a transform have `coordinates`, if there are any.
    """

    transforms: NDArray[np.float64]
    crs: NDArray[np.int64]
    coordinates: Coordinates | None = None

    @property
    def is_raster(self) -> NDArray[np.bool_]:
        """Which granules have a transform and a CRS, of shape (n,)."""
        return self.usable.any(axis=1) & (self.crs >= 0)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which levels have a transform that can be inverted, of shape (n, levels)."""
        a, b, _, d, e, _ = np.moveaxis(self.transforms, 2, 0)
        return np.asarray(np.isfinite(self.transforms).all(axis=2) & (a * e - b * d != 0))

    def fill(self, declared: DeclaredGeoreference) -> None:
        """Take what is declared where nothing is known yet.

        A CRS that comes with a transform wins over one that was declared alone.
        """
        has_transform = np.isfinite(self.transforms[:, :, 0])
        new = ~has_transform[:, declared.level] & np.isfinite(declared.transforms[:, 0])
        newly_located = new & ~has_transform.any(axis=1)
        self.transforms[new, declared.level] = declared.transforms[new]
        crs = (declared.crs >= 0) & (newly_located | (self.crs < 0))
        self.crs[crs] = declared.crs[crs]


def scale_transforms(
    transforms: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return transforms of images whose pixels are larger, by rows' and columns' scale (n, 2)."""
    scaled = transforms.copy()
    scaled[:, [0, 3]] *= scale[:, 1:]
    scaled[:, [1, 4]] *= scale[:, :1]
    return scaled


def derive_coarser_levels(levels: Levels, transforms: NDArray[np.float64]) -> None:
    """Fill in the transforms of coarser levels, which cover what the finest covers.

    Not where the group of the levels says that they are moved against it.
    """
    layout = dict(enumerate(layout_entries(levels)))
    for level in range(1, len(levels.arrays)):
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = levels.stored_shapes(0) / levels.stored_shapes(level)
            scaled = scale_transforms(transforms[:, 0], scale)
        unknown = np.isnan(transforms[:, level, 0])
        if level in layout:
            entries, index = layout[level]
            unknown &= ~np.array([_is_offset(entry) for entry in entries])[index]
        transforms[unknown, level] = scaled[unknown]


def _is_offset(entry: JSON) -> bool:
    """Whether an entry of a layout says that its level is offset from the finest."""
    relative = entry.get("transform")
    translation = relative.get("translation") if isinstance(relative, dict) else None
    return any(not isinstance(n, int | float) or abs(n) > 1e-6 for n in translation or ())


def crop_transforms(levels: Levels, transforms: NDArray[np.float64]) -> None:
    """Move transforms to where the shown part of the arrays begins."""
    for level, array in enumerate(levels.arrays):
        if array.starts is not None and len(levels.axes) == 2:
            rows, columns = array.starts[:, list(levels.axes)].T
            a, b, c, d, e, f = transforms[:, level].T
            transforms[:, level, 2] = a * columns + b * rows + c
            transforms[:, level, 5] = d * columns + e * rows + f

"""Granules as small pictures, and as swaths on a map, by their own latitudes and longitudes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from shapely.affinity import translate
from zarr.core.sync import sync

from l2view.display.plot import draw_ocean, requiring_matplotlib
from l2view.display.svg import ocean
from l2view.errors import FieldError, L2ViewError
from l2view.geolocation.granule import LocatedGranule, Positions
from l2view.geolocation.windows import corners_of
from l2view.regrid.projection import cell_extremes, longitude_arc, longitudes_around
from l2view.text import join_names, unknown_name
from l2view.virtual.crop import array_windows
from l2view.virtual.store import ViewStore
from l2view.virtual.tree import Tree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.image import AxesImage


PIXELS = 300  # the most rows and columns of a granule that are drawn

MAX_PANELS, MAX_ON_MAP = 16, 64
"""The most granules that are drawn without `limit`, in panels of their own and on one map."""

PERCENTILES = (2, 98)  # where colours begin and end, in hundredths of the values

SEAM = 90.0
"""Cells that seem wider, in degrees of longitude, lie on the map's seam, and aren't drawn."""


@dataclass(frozen=True)
class GranuleImage:
    """What is drawn of one granule: arrays of shape (rows, columns), NaN where there is none."""

    name: str
    label: str  # the variable's name and unit
    values: NDArray[np.float64]
    positions: Positions | None  # None where the granule doesn't say them


def plot_granules(
    store: ViewStore,
    variable: str,
    *,
    ncols: int | None = None,
    limit: int | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    **style: Any,
) -> Any:
    """Draw a variable of each granule (see `View.plot`)."""
    with requiring_matplotlib():
        import matplotlib.pyplot as plt
    # Coordinates may be no variables of the view, and crops are counted from whole arrays.
    root = zarr.open_group(ViewStore(replace(store.tree, variables=None, crop=None)), mode="r")
    total = len(store.tree.granules)
    most = limit or (MAX_ON_MAP if ncols is None else MAX_PANELS)
    rows = range(min(most, total))
    images = [image for row in rows if (image := _read_image(root, store.tree, row, variable))]
    if not images:
        raise FieldError(_undrawable(root, store.tree, variable))
    values = np.concatenate([image.values[np.isfinite(image.values)] for image in images])
    low, high = np.percentile(values, PERCENTILES).tolist() if len(values) else (0.0, 1.0)
    high = high if high > low else low + 1
    appearance: dict[str, Any] = {"vmin": low, "vmax": high, "cmap": "viridis"} | style
    label = images[0].label
    if ncols is None:
        if ax is None:
            ax = plt.figure(figsize=figsize or (9, 5), layout="constrained").add_subplot()
        located = [image for image in images if image.positions is not None]
        if not located:
            raise L2ViewError(
                f"{join_names(image.name for image in images)}: nothing says where their cells "
                "lie; ncols= draws them without a map"
            )
        meshes = [_draw_on_map(ax, image, appearance) for image in located]
        _draw_coast(ax)
        ax.figure.colorbar(meshes[0], ax=ax, label=label, shrink=0.8)
        count = f"{len(located):,}" if len(located) == total else f"{len(located):,} of {total:,}"
        ax.set(xlabel="longitude", ylabel="latitude", title=f"{variable} of {count} granules")
        return ax
    ncols = max(1, min(ncols, len(images)))
    nrows = -(-len(images) // ncols)
    size = figsize or (3.2 * ncols + 0.8, 2.8 * nrows)
    figure, axes = plt.subplots(nrows, ncols, figsize=size, layout="constrained", squeeze=False)
    for image, panel in zip(images, axes.flat, strict=False):
        mesh = _draw_panel(panel, image, appearance)
        panel.set_title(_shorten(image.name), fontsize="small")
    for panel in axes.flat[len(images) :]:
        panel.set_axis_off()
    figure.colorbar(mesh, ax=axes, label=label, shrink=0.8)
    if len(images) < total:
        figure.suptitle(f"{len(images):,} of {total:,} granules", fontsize="medium")
    return axes


def _read_image(root: zarr.Group, tree: Tree, row: int, variable: str) -> GranuleImage | None:
    """Read what is drawn of a granule, None where it has no such variable."""
    name = tree.granules.name(row)
    group = root.get(name)
    if not isinstance(group, zarr.Group):
        return None
    granule = LocatedGranule(group)
    paths = list(filter(tree.shows, granule.arrays))
    named = (path for path in paths if path.rpartition("/")[2] == variable)
    path = variable if variable in paths else next(named, None)
    if path is None:
        return None
    array = granule.arrays[path]
    crop = {} if tree.crop is None else sync(tree.crop.windows(tree.reader, row))
    windows = array_windows(crop, path) or [(0, length) for length in array.shape]
    empty = any(start >= stop for start, stop in windows)
    if array.ndim < 2 or array.dtype.kind not in "iufb" or empty:
        return None
    down, across = (
        slice(start, stop, -(-(stop - start) // PIXELS))
        for start, stop in (windows[axis] for axis in granule.axes(path))
    )
    positions = granule.positions(path, (down, across))
    title, units = array.attrs.get("long_name", variable), array.attrs.get("units")
    label = f"{title} [{units}]" if units else str(title)
    return GranuleImage(name, label, granule.image_values(path, (down, across)), positions)


def _undrawable(root: zarr.Group, tree: Tree, variable: str) -> str:
    """Say that there is no such variable, or that it can't be drawn."""
    granules = tree.granules
    group = root.get(granules.name(0)) if len(granules) else None
    arrays = LocatedGranule(group).arrays if isinstance(group, zarr.Group) else {}
    drawable = [path for path, array in arrays.items() if array.ndim >= 2 and tree.shows(path)]
    if variable in drawable:
        return f"{variable} has no cells in the granules that would be drawn"
    names = [*granules.table.schema.names, *drawable]
    return unknown_name("field or variable of rows and columns", variable, names, "there are")


def _shorten(name: str, most: int = 30) -> str:
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"


def _draw_panel(ax: Axes, image: GranuleImage, style: dict[str, Any]) -> AxesImage | QuadMesh:
    """Draw one granule by itself, on a map where its place is known."""
    if image.positions is None:
        ax.set(xticks=[], yticks=[])
        return ax.imshow(image.values, interpolation="nearest", **style)
    mesh = _draw_on_map(ax, image, style)
    _draw_coast(ax)
    ax.tick_params(labelsize="x-small")
    return mesh


def _draw_on_map(ax: Axes, image: GranuleImage, style: dict[str, Any]) -> QuadMesh:
    """Draw a granule's cells at their latitudes and longitudes."""
    assert image.positions is not None
    lat, lon = corners_of(*image.positions)
    lon = _unwrap(lon)
    west, east = cell_extremes(lon)
    with np.errstate(invalid="ignore"):
        # A cell on the seam of the map would be drawn all over it.
        drawable = np.isfinite([*image.positions, image.values]).all(axis=0) & (east - west < SEAM)
    masked = np.ma.masked_where(~drawable, image.values)
    mesh = (_fill_from_neighbours(lon), _fill_from_neighbours(lat), masked)
    return ax.pcolormesh(*mesh, shading="flat", rasterized=True, zorder=2, **style)


def _unwrap(lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return longitudes in one piece, unless they go around the globe."""
    west, width = longitude_arc(lon)
    centre = (west + width / 2 + 180) % 360 - 180
    return longitudes_around(lon, centre if width < 180 else 0.0)


def _fill_from_neighbours(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return coordinates without NaN, which pcolormesh refuses: NaN takes its neighbour's."""
    import pandas as pd

    frame = pd.DataFrame(values).ffill(axis=1).bfill(axis=1).ffill().bfill()
    return np.asarray(np.nan_to_num(frame.to_numpy()))


def _draw_coast(ax: Axes) -> None:
    """Draw the coastlines below what is drawn, as far as that reaches."""
    ax.autoscale_view()
    (west, east), (south, north) = ax.get_xlim(), ax.get_ylim()
    draw_ocean(ax, [translate(ocean(), xoff=turn) for turn in (-360, 0, 360)])
    if east - west > 360:
        west, east = -180, 180
    ax.set(xlim=(west, east), ylim=(max(south, -90), min(north, 90)), aspect="equal")

"""Granules as small pictures, and as swaths on a map, by their own latitudes and longitudes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from l2view.errors import FieldError, L2ViewError
from l2view.geolocation.coordinates import image_axes
from l2view.geolocation.positions import Steps, positions, thinned
from l2view.geolocation.touching import corners_of, extremes
from l2view.text import join_names, unknown_name
from l2view.virtual.store import ViewStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.image import AxesImage

    from l2view.view import View

PIXELS = 300
"""The most rows and columns of a granule that are drawn."""

PANELS = 16
"""The most granules that are drawn each for itself, if nobody says how many."""

SWATHS = 64
"""The same of those on one map."""

PERCENTILES = (2, 98)
"""Where colours begin and end, in hundredths of the values."""

SEAM = 90.0
"""Cells that seem wider, in degrees of longitude, lie on the map's seam, and aren't drawn."""


@dataclass(frozen=True)
class Look:
    """What is drawn of one granule.

    Attributes
    ----------
    name
        Its name.
    values
        Of shape (rows, columns), NaN where there is none.
    lat, lon
        Of the same shape, None where the granule doesn't say them.
    """

    name: str
    values: NDArray[np.float64]
    lat: NDArray[np.float64] | None
    lon: NDArray[np.float64] | None


def plot_granules(
    view: View,
    variable: str,
    *,
    ncols: int | None = None,
    limit: int | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    **style: Any,
) -> Any:
    """Draw a variable of each granule (see `View.plot`)."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise L2ViewError("plots need matplotlib: pip install 'l2view[plot]'") from error
    most = limit or (SWATHS if ncols is None else PANELS)
    found = (_look(view, name, variable) for name in view.names[:most])
    looks = [one for one in found if one is not None]
    if not looks:
        raise FieldError(_unknown(view, variable))
    low, high = _range(looks)
    look: dict[str, Any] = {"vmin": low, "vmax": high, "cmap": "viridis"} | style
    label = _label(view, looks[0].name, variable)
    total = len(view.names)
    if ncols is None:
        if ax is None:
            ax = plt.figure(figsize=figsize or (9, 5), layout="constrained").add_subplot()
        placed = [one for one in looks if one.lat is not None]
        if not placed:
            raise L2ViewError(
                f"{join_names(one.name for one in looks)}: nothing says where their cells lie; "
                "ncols= draws them without a map"
            )
        drawn = [_on_map(ax, one, look) for one in placed]
        _coast(ax)
        ax.figure.colorbar(drawn[0], ax=ax, label=label, shrink=0.8)
        count = f"{len(placed):,}" if len(placed) == total else f"{len(placed):,} of {total:,}"
        ax.set(xlabel="longitude", ylabel="latitude", title=f"{variable} of {count} granules")
        return ax
    ncols = max(1, min(ncols, len(looks)))
    nrows = -(-len(looks) // ncols)
    size = figsize or (3.2 * ncols + 0.8, 2.8 * nrows)
    figure, axes = plt.subplots(nrows, ncols, figsize=size, layout="constrained", squeeze=False)
    for one, panel in zip(looks, axes.flat, strict=False):
        drawn_here = _panel(panel, one, look)
        panel.set_title(_short(one.name), fontsize="small")
    for panel in axes.flat[len(looks) :]:
        panel.set_axis_off()
    figure.colorbar(drawn_here, ax=axes, label=label, shrink=0.8)
    if len(looks) < total:
        figure.suptitle(f"{len(looks):,} of {total:,} granules", fontsize="medium")
    return axes


def _look(view: View, name: str, variable: str) -> Look | None:
    """Return what is drawn of a granule, None where it has no such variable."""
    group = _granule(view, name)
    array = None if group is None else _find(group, variable)
    if (
        group is None
        or array is None
        or array.ndim < 2
        or array.dtype.kind not in "iufb"
        or not array.size
    ):
        return None
    rows, columns = image_axes(array)
    steps: Steps = (-(-array.shape[rows] // PIXELS), -(-array.shape[columns] // PIXELS))
    where = positions(group, array, steps)
    lat, lon = where if where is not None else (None, None)
    return Look(name, thinned(array, steps), lat, lon)


def _find(group: zarr.Group, variable: str) -> zarr.Array[Any] | None:
    """Return the array at a path below a granule, or the first one with that name."""
    if isinstance(found := group.get(variable), zarr.Array):
        return found
    for path, node in sorted(group.members(max_depth=None)):
        if isinstance(node, zarr.Array) and path.rpartition("/")[2] == variable:
            return node
    return None


def _unknown(view: View, variable: str) -> str:
    """Say that there is no such variable, or that it is none that can be drawn."""
    group = _granule(view, view.names[0]) if len(view.names) else None
    members = [] if group is None else group.members(max_depth=None)
    drawable = [path for path, one in members if isinstance(one, zarr.Array) and one.ndim >= 2]
    if variable in drawable:
        return f"{variable} has no cells in the granules that would be drawn"
    known = [*view.table.schema.names, *drawable]
    return unknown_name("field or variable of rows and columns", variable, known, "there are")


def _granule(view: View, name: str) -> zarr.Group | None:
    """Return a granule's group, whatever shape the view has."""
    tree = zarr.open_group(ViewStore(view.view_store.tree), mode="r")
    found = tree.get(name)
    return found if isinstance(found, zarr.Group) else None


def _range(looks: list[Look]) -> tuple[float, float]:
    values = np.concatenate([one.values[np.isfinite(one.values)] for one in looks])
    if not len(values):
        return 0.0, 1.0
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(high if high > low else low + 1)


def _label(view: View, name: str, variable: str) -> str:
    """Return what the colours mean."""
    group = _granule(view, name)
    assert group is not None
    array = _find(group, variable)
    assert array is not None
    units = array.attrs.get("units")
    said = str(array.attrs.get("long_name", variable))
    return f"{said} [{units}]" if units else said


def _short(name: str, most: int = 30) -> str:
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"


def _panel(ax: Axes, look: Look, style: dict[str, Any]) -> AxesImage | QuadMesh:
    """Draw one granule for itself, on a map where it says where it is."""
    if look.lat is not None:
        drawn = _on_map(ax, look, style)
        _coast(ax)
        ax.tick_params(labelsize="x-small")
        return drawn
    ax.set(xticks=[], yticks=[])
    return ax.imshow(look.values, interpolation="nearest", **style)


def _on_map(ax: Axes, look: Look, style: dict[str, Any]) -> QuadMesh:
    """Draw a granule's cells where they lie."""
    assert look.lat is not None
    assert look.lon is not None
    lat, lon = corners_of(look.lat, look.lon)
    lon = _near(lon)
    west, east = extremes(lon)
    with np.errstate(invalid="ignore"):
        # A cell on the seam of the map would be drawn all over it.
        drawable = np.isfinite(look.lat) & np.isfinite(look.lon) & (east - west < SEAM)
    masked = np.ma.masked_where(~drawable | ~np.isfinite(look.values), look.values)
    mesh = (_filled(lon), _filled(lat), masked)
    return ax.pcolormesh(*mesh, shading="flat", rasterized=True, zorder=2, **style)


def _near(lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return longitudes in one piece around their middle, where they don't go around the globe."""
    some = np.radians(lon[np.isfinite(lon)])
    if not len(some):
        return lon
    middle = np.degrees(np.arctan2(np.sin(some).mean(), np.cos(some).mean()))
    near = (lon - middle + 180) % 360 - 180 + middle
    wide = np.nanmax(near) - np.nanmin(near)
    return near if wide < 180 else (lon + 180) % 360 - 180


def _filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return coordinates without NaN: what isn't there gets its neighbour's, and isn't drawn."""
    found = values
    for axis in (1, 0):
        there = np.isfinite(found)
        length = found.shape[axis]
        index = np.arange(length).reshape((-1, 1) if axis == 0 else (1, -1))
        before = np.maximum.accumulate(np.where(there, index, -1), axis=axis)
        behind = np.minimum.accumulate(np.flip(np.where(there, index, length), axis), axis=axis)
        behind = np.flip(behind, axis)
        at = np.where(before >= 0, before, np.minimum(behind, length - 1))
        found = np.take_along_axis(found, at, axis=axis)
    return np.nan_to_num(found)


def _coast(ax: Axes) -> None:
    """Draw the coastlines below what is there, as far as that reaches."""
    import shapely.affinity
    from matplotlib.collections import PathCollection

    from l2view.display.plot import paths_of
    from l2view.display.svg import ocean

    ax.autoscale_view()
    (west, east), (south, north) = ax.get_xlim(), ax.get_ylim()
    ax.set_facecolor("#f3efe6")
    water = [shapely.affinity.translate(ocean(), xoff=turn) for turn in (-360, 0, 360)]
    paths, _ = paths_of(np.array(water, dtype=object))
    ax.add_collection(
        PathCollection(paths, facecolor="#cfe3ee", edgecolor="none", zorder=0),
        autolim=False,
    )
    if east - west > 360:
        west, east = -180, 180
    ax.set(xlim=(west, east), ylim=(max(south, -90), min(north, 90)), aspect="equal")

"""Footprints on a map, with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import shapely

from l2view.errors import FieldError, L2ViewError, unknown
from l2view.pictures.summary import footprints
from l2view.pictures.svg import map_box, ocean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OUTLINES = 20_000
"""The most footprints that are drawn."""


def plot_footprints(table: pa.Table, ax: Axes | None = None, **style: Any) -> Axes:
    """Draw the footprints of a table of granules with the coastlines around them.

    Parameters
    ----------
    table
        Rows with a geometry field (EPSG:4326).
    ax
        Matplotlib axes to draw on, new ones by default.
    style
        For the `matplotlib.collections.PatchCollection` of the footprints.

    Raises
    ------
    FieldError
        Where there is no geometry field.
    """
    try:
        import matplotlib.pyplot as plt
        from matplotlib.collections import PathCollection
    except ImportError as error:
        raise L2ViewError("plots need matplotlib: pip install 'l2view[plot]'") from error
    shapes = footprints(table, OUTLINES)
    if len(shapes) == 0 and not _has_geometry(table):
        raise FieldError(unknown("geometry field", "bbox", table.schema.names))
    if ax is None:
        ax = plt.figure(figsize=(9, 5), layout="constrained").add_subplot()
    west, south, east, north = map_box(shapes)
    ax.set_facecolor("#f3efe6")
    water = PathCollection(
        _paths(np.array([ocean()])), facecolor="#cfe3ee", edgecolor="none", zorder=0
    )
    ax.add_collection(water, autolim=False)
    look: dict[str, Any] = {
        "facecolor": "#c8452d",
        "edgecolor": "#8f2a17",
        "linewidth": 0.8,
        "zorder": 2,
        "alpha": max(0.15, min(0.6, 8 / max(len(shapes), 1))),
    } | style
    ax.add_collection(PathCollection(_paths(shapes), **look), autolim=False)
    ax.set(xlim=(west, east), ylim=(south, north), aspect="equal")
    ax.set(xlabel="longitude", ylabel="latitude", title=f"{len(shapes):,} footprints")
    return ax


def _has_geometry(table: pa.Table) -> bool:
    from l2view.view.attributes import is_geometry

    return any(is_geometry(field) for field in table.schema)


def _paths(shapes: Any) -> list[Any]:
    """Return polygons and lines as matplotlib paths; points become small squares."""
    from matplotlib.path import Path

    paths = []
    for shape in shapely.get_parts(shapes):
        part = shape.buffer(0.2, cap_style="square") if shape.geom_type == "Point" else shape
        for simple in shapely.get_parts(part):
            rings = (
                (simple.exterior, *simple.interiors) if simple.geom_type == "Polygon" else (simple,)
            )
            paths.append(
                Path.make_compound_path(*(Path(shapely.get_coordinates(r)) for r in rings))
            )
    return paths

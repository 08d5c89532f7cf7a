"""Footprints on a map, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from l2view.display.summary import read_footprints
from l2view.display.svg import map_box, ocean
from l2view.errors import FieldError, explain_missing
from l2view.limits import limits
from l2view.text import unknown_name
from l2view.virtual.attributes import is_geometry, json_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path

CYCLE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#222222")
"""Colours of a legend: the bright scheme of Paul Tol, "Colour Schemes" (2021), and black."""


requiring_matplotlib = partial(explain_missing, "plots need matplotlib", "'l2view[plot]'")


def plot_footprints(
    table: pa.Table,
    column: str | None = None,
    ax: Axes | None = None,
    *,
    figsize: tuple[float, float] = (9, 5),
    total: int | None = None,
    **style: Any,
) -> Axes:
    """Draw the footprints of a table of granules with the coastlines around them.

    Numbers and times of a `column` colour them by a scale, the rest by a legend. `total` are the
    rows that the table is a part of, and `style` is for the `PathCollection` (see `View.plot`).
    """
    with requiring_matplotlib():
        import matplotlib.pyplot as plt
        from matplotlib.collections import PathCollection
    if not any(is_geometry(field) for field in table.schema):
        raise FieldError(unknown_name("geometry field", "bbox", table.schema.names))
    if column is not None and column not in table.schema.names:
        raise FieldError(unknown_name("field", column, table.schema.names))
    shapes, rows = read_footprints(table, limits().drawn_outlines)
    if ax is None:
        ax = plt.figure(figsize=figsize, layout="constrained").add_subplot()
    west, south, east, north = map_box(shapes)
    draw_ocean(ax, [ocean()])
    paths, owners = to_paths(shapes)
    appearance: dict[str, Any] = {
        "facecolor": "#c8452d",
        "edgecolor": "#8f2a17",
        "linewidth": 0.8,
        "zorder": 2,
        "alpha": max(0.15, min(0.6, 8 / max(len(shapes), 1))),
    }
    if column is not None:
        appearance |= {"edgecolor": "#444444", "linewidth": 0.4, "alpha": 0.75}
    outlines = PathCollection(paths, **appearance | style)
    ax.add_collection(outlines, autolim=False)
    if column is not None:
        _color_by(ax, outlines, table.column(column).take(pa.array(rows[owners])), column)
    total = len(table) if total is None else total
    count = (
        f"{len(shapes):,}" if total <= limits().drawn_outlines else f"{len(shapes):,} of {total:,}"
    )
    ax.set(xlim=(west, east), ylim=(south, north), aspect="equal")
    ax.set(xlabel="longitude", ylabel="latitude", title=f"{count} footprints")
    return ax


def _color_by(ax: Axes, paths: PathCollection, values: pa.ChunkedArray, name: str) -> None:
    """Colour paths by `values`, one for each, and say what the colours mean."""
    import matplotlib.dates as mdates
    from matplotlib.patches import Patch

    dates: Any = mdates  # without types
    timed = pa.types.is_timestamp(values.type)
    if timed or pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        numbers = values.to_numpy()
        scaled = dates.date2num(numbers) if timed else numbers.astype(float)
        paths.set_array(np.ma.masked_invalid(scaled))
        locator = dates.AutoDateLocator() if timed else None
        form = dates.AutoDateFormatter(locator) if timed else None
        ax.figure.colorbar(paths, ax=ax, label=name, ticks=locator, format=form, shrink=0.8)
        return
    texts = ["NULL" if v is None else str(v) for v in json_values(values.combine_chunks())]
    labels, codes = np.unique(np.array(texts, dtype=object), return_inverse=True)
    paths.set_facecolor([CYCLE[code % len(CYCLE)] for code in codes])
    patches = [
        Patch(facecolor=CYCLE[code], label=label) for code, label in enumerate(labels[: len(CYCLE)])
    ]
    if len(labels) > len(CYCLE):
        patches.append(Patch(facecolor="none", label=f"… ({len(labels)} in all)"))
    ax.legend(handles=patches, title=name, fontsize="small")


def to_paths(shapes: NDArray[Any]) -> tuple[list[Path], NDArray[np.int64]]:
    """Return geometries as matplotlib paths, points as small squares, and whose part each is."""
    from matplotlib.path import Path

    paths, owners = [], []
    geometries, indices = shapely.get_parts(shapes, return_index=True)
    for shape, owner in zip(geometries, indices, strict=True):
        geometry = shape.buffer(0.2, cap_style="square") if shape.geom_type == "Point" else shape
        for simple in shapely.get_parts(geometry):
            lines = shapely.get_rings(simple) if simple.geom_type == "Polygon" else [simple]
            curves = [Path(shapely.get_coordinates(line)) for line in lines]
            paths.append(Path.make_compound_path(*curves))
            owners.append(owner)
    return paths, np.array(owners, dtype=np.int64)


def draw_ocean(ax: Axes, shapes: Sequence[shapely.Geometry]) -> None:
    """Draw the ocean below everything else, and the land as what is around it."""
    from matplotlib.collections import PathCollection

    paths, _ = to_paths(np.array(shapes, dtype=object))
    ax.set_facecolor("#f3efe6")
    ocean_paths = PathCollection(paths, facecolor="#cfe3ee", edgecolor="none", zorder=0)
    ax.add_collection(ocean_paths, autolim=False)

"""The demo's one picture: footprints on a map, and quicklooks of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr

from l2view.display.plot import plot_footprints
from l2view.view import View

QUICKLOOKS = {"wind": "wind_speed", "sst": "sea_surface_temperature", "scene": "1/1"}
"""The array to show of each product."""

COLORS = {"wind": "viridis", "sst": "inferno", "scene": "gray"}


def draw(everything: pa.Table, view: View, path: Path) -> None:
    """Draw all footprints, those found on top, and a quicklook of each product found.

    Parameters
    ----------
    everything
        The rows of the collection.
    view
        The granules found.
    path
        Where the picture is written, as PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    panels: Any = figure.subfigures(2, 1, height_ratios=(5, 4))
    above, below = panels
    ax = above.add_subplot()
    plot_footprints(everything, ax=ax, facecolor="none", edgecolor="#777777", alpha=0.9)
    limits = ax.get_xlim(), ax.get_ylim()
    plot_footprints(view.table, ax=ax, alpha=0.45)
    ax.set(xlim=limits[0], ylim=limits[1])
    ax.set_title(f"{view.table.num_rows} of {everything.num_rows} granules found (red)")
    examples = _first_of_each(view)
    axes = below.subplots(1, len(examples), squeeze=False)[0]
    for quicklook, (name, product) in zip(axes, examples, strict=True):
        array = view[f"{name}/{QUICKLOOKS[product]}"]
        assert isinstance(array, zarr.Array)
        _quicklook(quicklook, array, COLORS[product])
        quicklook.set_title(f"{name}\n{QUICKLOOKS[product]}", fontsize=8)
    figure.savefig(path, dpi=110)


def _first_of_each(view: View) -> Sequence[tuple[str, str]]:
    """Return the name and product of the first granule found of each product."""
    products = view.table.column("product").to_pylist()
    names = {
        product: name for name, product in reversed(list(zip(view.names, products, strict=True)))
    }
    return [(name, product) for product, name in sorted(names.items())]


def _quicklook(ax: Any, array: zarr.Array[Any], colors: str) -> None:
    raw = np.asarray(array[...])
    attributes: dict[str, Any] = dict(array.attrs)
    values = raw * attributes.get("scale_factor", 1) + attributes.get("add_offset", 0)
    fill = attributes.get("_FillValue")
    masked = np.ma.masked_equal(raw, fill) if fill is not None else np.ma.masked_array(raw)
    image = ax.imshow(np.ma.masked_array(values, masked.mask), cmap=colors, aspect="auto")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.figure.colorbar(image, ax=ax, shrink=0.8, label=str(attributes.get("units", "")))

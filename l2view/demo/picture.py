"""The demo's one picture: footprints on a map, and quicklooks of what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import zarr

from l2view.arrays.cf import read_floats
from l2view.display.plot import plot_footprints
from l2view.view import View

QUICKLOOKS = {"wind": "wind_speed", "sst": "sea_surface_temperature", "scene": "1"}
"""The array to show of each product."""

COLORS = {"wind": "viridis", "sst": "inferno", "scene": "gray"}


def draw(everything: pa.Table, view: View, path: Path) -> None:
    """Draw the footprints of `everything`, those found on top, and a quicklook of each product."""
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
    products = view.table.column("product").to_pylist()
    # The first granule found of each product.
    examples = dict(reversed(list(zip(products, view.names, strict=True))))
    axes = below.subplots(1, len(examples), squeeze=False)[0]
    for quicklook, (product, name) in zip(axes, sorted(examples.items()), strict=True):
        variable = QUICKLOOKS[product]
        array = view[f"{name}/{variable}"]
        assert isinstance(array, zarr.Array)
        image = quicklook.imshow(read_floats(array), cmap=COLORS[product], aspect="auto")
        quicklook.set(xticks=[], yticks=[])
        quicklook.set_title(f"{name}\n{variable}", fontsize=8)
        label = str(array.attrs.get("units", ""))
        quicklook.figure.colorbar(image, ax=quicklook, shrink=0.8, label=label)
    figure.savefig(path, dpi=110)

"""What other packages add to ingest by entry points: file formats and harvesters."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from l2view.errors import L2ViewWarning, warn
from l2view.text import first_line

FORMATS = "l2view.formats"
HARVESTERS = "l2view.harvesters"
"""The groups of entry points."""


@cache
def load_plugins(group: str, kind: Any) -> Mapping[str, Any]:
    """Return the objects of a group of entry points, by name; each process loads them once.

    One that can't be loaded, or is none of a `kind`, is left out with a warning that names it.
    """
    plugins: dict[str, Any] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        package = point.dist.name if point.dist is not None else "an unknown package"
        label = f"the plugin {point.name} ({group}) of {package}"
        try:
            plugin = point.load()
        except Exception as error:  # whatever another package's import raises
            warn(f"{label} can't be loaded: {first_line(error)}", L2ViewWarning)
            continue
        if isinstance(plugin, kind):
            plugins[point.name] = plugin
        else:
            warn(f"{label} is left out: it is a {type(plugin).__name__}", L2ViewWarning)
    return plugins

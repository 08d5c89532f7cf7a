"""What a granule's own files say of it: one row of ``/meta``.

A harvester takes a file and returns fields. Other packages add harvesters by entry points; what
they return wins over l2view's own. The caller's harvester wins over all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import shapely
import zarr

from l2view.errors import IngestError
from l2view.geolocation.footprint import harvest_footprint, on_the_globe
from l2view.ingest import plugins
from l2view.ingest.harvest.attributes import harvest_attributes
from l2view.text import first_line

type Harvester = Callable[[zarr.Group, str], Mapping[str, Any]]
"""Called with a granule's file as a Zarr group, its chunks readable, and its URL."""


def plugin_harvesters() -> Mapping[str, Harvester]:
    """Return the harvesters of other packages, by name."""
    return plugins.load_plugins(plugins.HARVESTERS, Callable)


def harvest_files(
    files: Iterable[tuple[zarr.Group, str]], record: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the fields that a granule's files give, the first file's before the others'.

    l2view's own harvesters stop at the file that completes time and place, with the fields of
    the granule's `record`. An `IngestError` names another package's harvester that fails.
    """
    harvested: dict[str, Any] = {}
    added: dict[str, Any] = {}
    for group, url in files:
        if not {"datetime", "bbox"} <= harvested.keys() | record.keys():
            own = {**harvest_footprint(group, url), **harvest_attributes(group, url)}
            harvested = {**own, **harvested}
        for name, harvester in plugin_harvesters().items():
            try:
                added = {**harvester(group, url), **added}
            except Exception as error:  # whatever another package raises
                raise IngestError(f"the harvester {name} fails: {first_line(error)}") from error
    if added.get("bbox") is not None:
        added["bbox"] = shapely.to_wkb(on_the_globe(added["bbox"]))
    return {**harvested, **added}

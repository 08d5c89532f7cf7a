"""What a granule's own files say of it: one row of ``/meta``.

A harvester takes a file and returns fields. Other packages add harvesters by entry points; what
they return wins over l2view's own. The caller's harvester wins over all.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import date, datetime
from typing import Any

import numpy as np
import shapely
import zarr
from pyproj.exceptions import ProjError

from l2view.errors import IngestError
from l2view.geolocation.footprint import footprint_of, on_the_globe
from l2view.geolocation.granule import LocatedGranule
from l2view.granules.layouts import LAYOUTS
from l2view.ingest import plugins
from l2view.ingest.harvest.attributes import harvest_attributes, parse_field
from l2view.ingest.harvest.descriptions import descriptions, nodes_of
from l2view.ingest.harvest.stac import TIMES as RECORD_TIMES
from l2view.ingest.harvest.stac import harvest_discovery
from l2view.text import first_line

type Harvester = Callable[[zarr.Group, str], Mapping[str, Any]]
"""Called with a granule's file as a Zarr group, its chunks readable, and its URL."""


LOCATING = frozenset(name for layout in LAYOUTS.values() for name in layout.kinds)
"""The fields that say where l2view keeps a granule."""

TIMES = ("datetime", "start_datetime", "end_datetime")
"""The fields that every collection has as times."""


def plugin_harvesters() -> Mapping[str, Harvester]:
    """Return the harvesters of other packages, by name."""
    return plugins.load_plugins(plugins.HARVESTERS, Callable)


def call_harvester(
    harvester: Harvester, label: str, group: zarr.Group, url: str
) -> Mapping[str, Any]:
    """Return the fields by somebody's harvester; an `IngestError` says that it gives none."""
    try:
        fields = harvester(group, url)
    except Exception as error:  # whatever somebody's function raises
        frames = traceback.extract_tb(error.__traceback__)[1:2]
        line = "".join(f" in line {frame.lineno} of {frame.filename}" for frame in frames)
        raise IngestError(
            f"{label} fails{line}: {first_line(error)}; it is called with a zarr.Group and a URL"
        ) from error
    if not isinstance(fields, Mapping):
        kind = type(fields).__name__
        raise IngestError(f"{label} returns {kind}, and not a dict of fields, {{}} for none")
    return fields


def harvest_files(
    files: Iterable[tuple[zarr.Group, str]], record: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the fields that a granule's files give, and notes on them.

    The first file's win over the others'. l2view's own harvesters stop at the file that completes
    time and place, with the fields of the granule's `record`; where that has a time, the files'
    are of no account. An `IngestError` names another package's harvester that fails.
    """
    harvested: dict[str, Any] = {}
    added: dict[str, Any] = {}
    notes: list[str] = []
    for group, url in files:
        known = harvested.keys() | record.keys()
        if not {"datetime", "bbox"} <= known:
            own, of_file = _harvest_file(group, known)
            notes += of_file
            harvested = {**_without_times(own, record), **harvested}
        for name, harvester in plugin_harvesters().items():
            added = {**call_harvester(harvester, f"the harvester {name}", group, url), **added}
    if added.get("bbox") is not None:
        added["bbox"] = field_value("bbox", added["bbox"])
    return {**harvested, **added}, notes


def _harvest_file(group: zarr.Group, known: Set[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the fields by l2view's own harvesters, and notes; a `known` place isn't looked for."""
    discovered, notes = valid_fields(harvest_discovery(group))
    if {"datetime", "bbox"} <= discovered.keys():
        return discovered, notes
    nodes = nodes_of(group)
    described = list(descriptions(nodes))
    attributes, of_times = harvest_attributes(nodes, described)
    own = {**_without_times(attributes, discovered), **discovered}
    notes += of_times if "datetime" not in known | discovered.keys() else []
    if "bbox" not in known | own.keys():
        try:
            shape, of_place = footprint_of(LocatedGranule(group, members=nodes), described)
        except ProjError as error:  # such as a place on Mars
            shape, of_place = None, [f"PROJ can't tell its place: {first_line(error)}"]
        notes += of_place
        own |= {} if shape is None else {"bbox": shapely.to_wkb(shape)}
    return own, notes


def _without_times(fields: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields without times where a record has its own, which they may contradict."""
    return {n: value for n, value in fields.items() if n not in TIMES or "datetime" not in record}


def valid_fields(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a record's fields with times and place as fields hold them.

    Those that are none are left out, with a note.
    """
    valid = {name: value for name, value in fields.items() if name not in LOCATING}
    notes = [f'its field "{n}" is left out: l2view has one' for n in LOCATING & fields.keys()]
    for name in (*RECORD_TIMES, "bbox"):
        value = valid.pop(name, None)
        if value is not None:
            try:
                valid[name] = field_value(name, value)
            except IngestError as error:
                notes.append(f"{error}: it is left out")
    if "start_datetime" in valid:
        valid.setdefault("datetime", valid["start_datetime"])
    return valid, notes


def field_value(name: str, value: Any) -> Any:
    """Return a time, or a place, as fields hold it; an `IngestError` says that it is none."""
    if name == "bbox":
        return None if value is None else shapely.to_wkb(on_the_globe(value))
    if isinstance(value, date) and not isinstance(value, datetime):
        value = value.isoformat()  # whose end is that of the day
    if isinstance(value, str) and value.strip():
        value = parse_field(name, value) or value
    if value is None or isinstance(value, date | np.datetime64):
        return value
    raise IngestError(f'the field "{name}" is {value!r}, which is no time')

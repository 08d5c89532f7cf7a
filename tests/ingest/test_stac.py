"""STAC Items of all kinds: what pystac reads, the collection shows, or the report names."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pystac
import pytest
import shapely
import shapely.geometry
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from l2view.geolocation.cell_outlines import on_the_map
from l2view.ingest.entries import entries_of
from l2view.ingest.granule import Entry, Granule
from l2view.ingest.harvest.stac import TIMES
from l2view.ingest.options import ParseOptions
from l2view.ingest.parse import parse_granule
from l2view.ingest.writer import plan_row
from l2view.meta.columns import Kinds, column

ZONES = (None, UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11)))


@st.composite
def times(draw: st.DrawFn) -> tuple[str, datetime]:
    """Return a time as RFC 3339 and its readers have it, and in UTC."""
    zone = draw(st.sampled_from(ZONES))
    at = draw(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)))
    at = at.replace(microsecond=draw(st.sampled_from([0, 500_000, at.microsecond])), tzinfo=zone)
    text = at.isoformat(draw(st.sampled_from("Tt ")))
    if zone is UTC:
        text = text.removesuffix("+00:00") + draw(st.sampled_from(["Z", "z", "+00:00"]))
    if draw(st.booleans()) and at.second == 59 and not at.microsecond:
        text, at = f"{text[:17]}60{text[19:]}", at + timedelta(seconds=1)
    return text, at if zone is None else at.astimezone(UTC).replace(tzinfo=None)


longitudes, latitudes = st.integers(-180, 180), st.integers(-90, 90)
positions = st.one_of(
    st.tuples(longitudes, latitudes),
    st.tuples(longitudes, latitudes, st.floats(-500, 9000)),
)


def rings(points: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.lists(points, min_size=3, max_size=6).map(lambda ring: [*ring, ring[0]])


flat = st.tuples(longitudes, latitudes)
GEOMETRIES: SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries({"type": st.just("Point"), "coordinates": positions}),
    *(
        st.fixed_dictionaries({"type": st.just(kind), "coordinates": coordinates})
        for kind, coordinates in (
            ("MultiPoint", st.lists(flat, min_size=1, max_size=4)),
            ("LineString", st.lists(flat, min_size=2, max_size=4)),
            ("Polygon", st.tuples(rings(flat))),
            (
                "MultiPolygon",
                st.lists(rings(flat).map(lambda ring: [ring]), min_size=1, max_size=3),
            ),
        )
    ),
)
PLACES: SearchStrategy[Any] = st.one_of(
    GEOMETRIES,
    st.lists(GEOMETRIES, min_size=1, max_size=2).map(
        lambda members: {"type": "GeometryCollection", "geometries": members}
    ),
)

values = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
        st.sampled_from([2**63, -(2**63), 2**64, 10**400, "2025-01-01T00:00:00Z"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.text(min_size=1).filter(
    lambda name: name not in ("id", "href", "bbox")
) | st.sampled_from(["a/b", "eo:cloud_cover", "created", "updated", "slot", "profile", "idx"])


@pytest.fixture(scope="module")
def asset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that says neither time nor place."""
    path = tmp_path_factory.mktemp("asset") / "a.h5"
    with h5py.File(path, "w") as file:
        file["v"] = np.arange(3)
    return path


def row_of(item: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the row that an Item becomes, and the notes on it."""
    (entry,) = entries_of(json.loads(json.dumps(item)))
    assert isinstance(entry, Entry), entry
    granule = parse_granule(entry, ParseOptions())
    assert isinstance(granule, Granule), granule
    assert [array.path for array in granule.references.arrays] == ["a/v"]
    kinds = Kinds({})
    row = plan_row(granule, kinds, "packed")
    for name, kind in kinds.known.items():
        column(kind, [row[name]])
    return row, " ".join(granule.notes)


def item_of(asset: Path, **members: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "i",
        "geometry": None,
        "properties": {"datetime": None},
        "links": [],
        "assets": {"a": {"href": str(asset), "type": "application/x-hdf5"}},
        **members,
    }


@given(start=times(), length=st.timedeltas(timedelta(), timedelta(days=1)), form=st.integers(0, 2))
def test_times_of_items(
    asset: Path,
    start: tuple[str, datetime],
    length: timedelta,
    form: int,
) -> None:
    text, at = start
    end = f"{(at + length).isoformat()}Z"
    properties: dict[str, Any] = {"datetime": text}
    if form:
        properties |= {"start_datetime": text, "end_datetime": end}
    if form == 2:
        properties["datetime"] = None
    row, _ = row_of(item_of(asset, properties=properties))
    assert row["datetime"] == at
    assert row.get("start_datetime") == (at if form else None)
    assert row.get("end_datetime") == (at + length if form else None)
    if ":60" not in text:  # which pystac can't read
        item = pystac.Item.from_dict(item_of(asset, properties=properties))
        expected = item.datetime or item.common_metadata.start_datetime
        assert expected is not None
        assert expected.astimezone(UTC).replace(tzinfo=None) == at


@given(geometry=PLACES, box=st.sampled_from([None, 4, 6]))
def test_places_of_items(asset: Path, geometry: dict[str, Any], box: int | None) -> None:
    shape = shapely.geometry.shape(geometry)
    west, south, east, north = shape.bounds
    members: dict[str, Any] = {"geometry": geometry}
    if box == 4:
        members["bbox"] = [west, south, east, north]
    elif box:
        members["bbox"] = [west, south, -5, east, north, 8000]
    row, notes = row_of(item_of(asset, **members))
    assert row["bbox"] is not None, notes
    place = shapely.from_wkb(row["bbox"])
    assert place.is_valid
    parts = [part for members in shapely.get_parts(shape) for part in shapely.get_parts(members)]
    for part in parts:
        areas = shapely.get_parts(shapely.force_2d(shapely.make_valid(part)))
        assert all(map(place.buffer(1e-9).covers, areas if part.is_valid else areas[:0]))
    if shape.area and shape.is_valid and "Polygon" in shape.geom_type:
        assert place.equals(shape)
    hulls = shapely.union_all([part.convex_hull.buffer(0.2) for part in parts])
    assert place.difference(on_the_map(hulls)).area < 1e-6


@given(
    west=longitudes,
    width=st.integers(1, 359),
    south=st.integers(-90, 89),
    height=st.integers(1, 20),
    has_geometry=st.booleans(),
)
def test_boxes_of_items(
    asset: Path,
    west: int,
    width: int,
    south: int,
    height: int,
    has_geometry: bool,
) -> None:
    """Cut at the antimeridian as GeoJSON has it, where their geometries aren't."""
    north, east = min(south + height, 90), (west + width + 180) % 360 - 180
    members: dict[str, Any] = {"bbox": [west, south, 0, east, north, 5]}
    if has_geometry and width < 180:
        ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
        members["geometry"] = {"type": "Polygon", "coordinates": [ring]}
    row, _ = row_of(item_of(asset, **members))
    parts = [shapely.box(west, south, west + width, north)]
    if west + width > 180:
        parts = [shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)]
    assert shapely.from_wkb(row["bbox"]).symmetric_difference(shapely.union_all(parts)).area < 1e-9


@given(properties=st.dictionaries(names, values, max_size=4))
def test_properties_of_items(asset: Path, properties: dict[str, Any]) -> None:
    properties = {"datetime": "2025-01-01T00:00:00Z", **properties}
    row, notes = row_of(item_of(asset, properties=properties))
    assert row["datetime"] == datetime(2025, 1, 1)
    for name, value in properties.items():
        shown = row.get(name.replace("/", "_"))
        if isinstance(value, list | dict):
            is_same = shown is not None and json.loads(shown) == json.loads(json.dumps(value))
        else:
            is_same = shown == value
        named = name.encode("utf-8", "backslashreplace").decode()
        assert is_same or name in TIMES or f'"{named}"' in notes, (name, value, shown, notes)


@pytest.mark.parametrize(
    "members",
    [
        {"links": None},
        {"links": [None, 5, {"rel": "self"}, {"href": None}]},
        {"geometry": {"type": "Polygon", "coordinates": []}},
        {"geometry": {"type": "Polygon", "coordinates": [[[10**400, 0], [1, 1], [0, 1], [0, 0]]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[[0, 95], [1, 95], [1, 99], [0, 95]]]}},
        {"geometry": {"type": "Feature"}, "bbox": [10**400, 0, 1, 1]},
        {"geometry": 5, "bbox": "here"},
        {"bbox": {"west": 1}},
        {"bbox": [1, 2, None, None]},
        {"properties": {"datetime": "2025-01-01T00:00:00Z", "proj:shape": [float("inf"), 1]}},
        {"properties": {"datetime": "2025-01-01T00:00:00Z", "proj:transform": [10**400]}},
        {"properties": {"datetime": 20250101, "start_datetime": ["2025-01-01T00:00:00Z"]}},
        {"properties": {"datetime": "0001-01-01T00:00:00+01:00", "created": "then"}},
        {"properties": None},
        {"collection": 5, "stac_extensions": None},
    ],
)
def test_what_is_odd_costs_itself_alone(asset: Path, members: dict[str, Any]) -> None:
    item = item_of(asset, **members)
    item["assets"] |= {"b": None, "c": [], "d": {"href": None}, "e": {"href": 5, "type": 7}}
    row, _ = row_of(item)
    assert "bbox" not in row


@pytest.mark.parametrize("latitude", [95, pytest.param(10**400, id="huge")])
def test_a_geometry_that_is_none_gives_way_to_the_bbox(asset: Path, latitude: int) -> None:
    ring = [[0, latitude], [1, latitude], [1, 5], [0, latitude]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    row, _ = row_of(item_of(asset, geometry=geometry, bbox=[0, 1, 2, 3]))
    assert shapely.from_wkb(row["bbox"]).equals(shapely.box(0, 1, 2, 3))


@pytest.mark.parametrize("name", ["created", "updated"])
def test_times_that_are_none_are_no_texts(asset: Path, name: str) -> None:
    row, notes = row_of(item_of(asset, properties={"datetime": None, name: "then"}))
    assert name not in row
    assert f"the field \"{name}\" is 'then', which is no time" in notes

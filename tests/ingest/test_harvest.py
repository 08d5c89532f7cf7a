"""What a file says of itself: when, and where on the globe."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
import zarr
from builders import outline_of
from xarray.backends.zarr import FillValueCoder
from zarr.storage import MemoryStore

from l2view.geolocation.cell_outlines import of_axes, of_swath, of_track, rectangle
from l2view.geolocation.crs import geokeys_crs
from l2view.geolocation.footprint import of_bounds
from l2view.ingest.harvest import harvest_files
from l2view.ingest.harvest.attributes import attribute_times, harvest_attributes
from l2view.text import fold_name

GLOBE = pyproj.Geod(ellps="sphere")


def swath(
    longitude: float, latitude: float, heading: float, length: float = 6e6, width: float = 1e6
) -> tuple[Any, Any]:
    """Latitudes and longitudes of a swath from a point along a great circle."""
    along, across = np.linspace(0, length, 200), np.linspace(-width, width, 21)
    count = len(along)
    start = (np.full(count, longitude), np.full(count, latitude), np.full(count, heading))
    lon, lat, back = GLOBE.fwd(*start, along)
    ones = np.ones(len(across))
    lons, lats, _ = GLOBE.fwd(
        np.outer(lon, ones),
        np.outer(lat, ones),
        np.outer(np.asarray(back) + 90, ones),
        np.outer(np.ones(count), across),
    )
    return np.asarray(lats), np.asarray(lons)


@pytest.mark.parametrize("longitude", [-175.0, -90.0, 0.5, 100.0, 179.0])
@pytest.mark.parametrize("latitude", [-60.0, 0.0, 55.0])
@pytest.mark.parametrize("heading", [12.0, 98.0, 192.0, 350.0])
def test_outlines_of_swaths(longitude: float, latitude: float, heading: float) -> None:
    """Every point lies in the outline, and what lies far from the swath doesn't."""
    lat, lon = swath(longitude, latitude, heading)
    outline = of_swath(lat, lon)
    assert outline is not None
    assert outline.is_valid
    assert outline.geom_type in ("Polygon", "MultiPolygon")
    west, south, east, north = outline.bounds
    assert -180 <= west <= east <= 180
    assert -90 <= south <= north <= 90
    # In degrees a meridian's neighbour is near, wherever it is on the globe.
    inside = shapely.points(((lon + 180) % 360 - 180).ravel(), lat.ravel())
    kept = np.abs(lat.ravel()) < 85
    assert shapely.distance(outline, inside)[kept].max() < 0.7
    grid = np.meshgrid(np.arange(-178, 180, 6), np.arange(-84, 85, 6))
    grid_lon, grid_lat = (values.ravel() for values in grid)
    far = np.ones(len(grid_lon), dtype=bool)
    for row in range(0, len(lat), 10):
        ones = np.ones(len(grid_lon))
        _, _, metres = GLOBE.inv(grid_lon, grid_lat, ones * lon[row, 10], ones * lat[row, 10])
        far &= np.asarray(metres) > 1.6e6
    assert not shapely.intersects(outline, shapely.points(grid_lon, grid_lat))[far].any()


def test_fill_values_are_left_out_of_an_outline() -> None:
    lat, lon = swath(10, 20, 12, length=1e6)
    lat[:, :3] = lon[:, :3] = np.nan
    lat[50, 5], lon[120, 7] = -999, 9.9e36
    outline = of_swath(lat, lon)
    assert outline is not None
    assert outline.bounds[1] > 10
    assert of_swath(np.full((3, 3), np.nan), np.zeros((3, 3))) is None


def test_tracks_and_grids() -> None:
    track = of_track(np.array([10.0, 11, 12]), np.array([178.0, 181, 184]))
    assert track is not None
    assert track.geom_type == "MultiPolygon"
    assert shapely.intersects(track, shapely.Point(-177, 11.66))
    alone = of_track(np.array([10.0]), np.array([20.0]))
    assert alone is not None
    assert alone.contains(shapely.Point(20, 10))
    globe = of_axes(np.arange(-89.5, 90), np.arange(0.5, 360))
    assert globe is not None
    assert globe.equals(shapely.box(-180, -90, 180, 90))
    part = of_axes(np.array([10.0, 11]), np.array([350.0, 351, 352]))
    assert part is not None
    assert part.bounds == pytest.approx((-10.5, 9.5, -7.5, 11.5))


def test_bounds() -> None:
    names = ("westernmostlongitude", "southernmostlatitude", "easternmostlongitude")
    said = dict(zip((*names, "northernmostlatitude"), (170, -10, -170, 10), strict=True))
    crossing = of_bounds(said)
    assert crossing is not None
    assert crossing.equals(
        shapely.MultiPolygon([shapely.box(170, -10, 180, 10), shapely.box(-180, -10, -170, 10)])
    )
    assert of_bounds({**said, "southernmostlatitude": "unknown"}) is None
    assert of_bounds({**said, "southernmostlatitude": -1000}) is None
    assert rectangle(350, 0, 370, 5).equals(shapely.box(-10, 0, 10, 5))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"time_coverage_start": "2025-06-01T10:00:00Z"}, (datetime(2025, 6, 1, 10), None)),
        (
            {"start_time": "20190821T174811Z", "stop_time": "20190821T192701Z"},
            (datetime(2019, 8, 21, 17, 48, 11), datetime(2019, 8, 21, 19, 27, 1)),
        ),
        (
            {
                "start_date": "2015-07-02",
                "start_time": "08:42:00",
                "stop_date": "2015-07-02",
                "stop_time": "10:23:56",
            },
            (datetime(2015, 7, 2, 8, 42), datetime(2015, 7, 2, 10, 23, 56)),
        ),
        (
            {
                "RangeBeginningDate": "2025-01-01",
                "RangeBeginningTime": "23:59:59.5",
                "RangeEndingDate": "2025-01-02",
                "RangeEndingTime": "00:04:59.5",
            },
            (datetime(2025, 1, 1, 23, 59, 59, 500_000), datetime(2025, 1, 2, 0, 4, 59, 500_000)),
        ),
        ({"start_time": "2025-152T00:00:00.5Z"}, (datetime(2025, 6, 1, 0, 0, 0, 500_000), None)),
        ({"start_time": "2025-06-01 02:00:00 UTC"}, (datetime(2025, 6, 1, 2), None)),
        ({"time_coverage_start": "2025-06-01T02:00+02:00"}, (datetime(2025, 6, 1), None)),
        ({"start_time": "soon", "title": "2025"}, (None, None)),
    ],
)
def test_times(attributes: dict[str, Any], expected: tuple[Any, Any]) -> None:
    assert attribute_times({fold_name(n): v for n, v in attributes.items()}) == expected


def test_times_and_places_of_arrays() -> None:
    root = zarr.create_group(MemoryStore())
    below = root.create_group("data")
    units = {"units": "seconds since 2000-01-01", "_FillValue": -1}
    below.create_array("time", data=np.array([60, -1, 30]), attributes=units)
    for name, values in (("latitude", [10.0, 11, 12]), ("longitude", [20.0, 21, 22])):
        below.create_array(name, data=np.array(values), dimension_names=["time"])
    found = harvest_attributes(root)[0]
    assert found["datetime"] == datetime(2000, 1, 1, 0, 0, 30)
    assert found["end_datetime"] == datetime(2000, 1, 1, 0, 1)
    shape = outline_of(root)
    assert shape.contains(shapely.Point(21, 11))


def test_coordinate_systems_of_tiffs() -> None:
    tie = {"model_tiepoint": [0, 0, 0, 0, 0, 0], "model_pixel_scale": [1, 1, 0]}
    assert geokeys_crs({}) is None
    assert geokeys_crs(tie | {"model_type": 2, "geographic_type": 4326}) == "EPSG:4326"
    assert geokeys_crs(tie | {"model_type": 1, "projected_type": 32632}) == "EPSG:32632"
    assert geokeys_crs(tie | {"model_type": 1, "projected_type": 32767}) is None


FILL = 9.96921e36


@pytest.mark.parametrize(
    ("attributes", "dtype", "fill"),
    [
        ({"_FillValue": FillValueCoder.encode(np.float64(FILL), np.dtype("f8"))}, "f8", FILL),
        ({"missing_value": -999}, "i4", -999),
        ({"missing_value": [-999.0, FILL]}, "f8", FILL),
        ({"_FillValue": -1, "missing_value": -2}, "i8", -2),
        ({}, "f8", np.nan),
    ],
)
def test_fill_values_are_no_times(attributes: dict[str, Any], dtype: str, fill: float) -> None:
    group = zarr.create_group(MemoryStore())
    values = np.array([fill, 3600, 60, fill], dtype=dtype)
    array = group.create_array("time", shape=(4,), dtype=dtype)
    array[:] = values
    array.attrs.update(attributes | {"units": "seconds since 2025-06-01"})
    found = harvest_attributes(group)[0]
    assert found["start_datetime"] == datetime(2025, 6, 1, 0, 1)
    assert found["end_datetime"] == datetime(2025, 6, 1, 1)


def test_times_that_are_packed_or_of_a_type_of_their_own() -> None:
    group = zarr.create_group(MemoryStore())
    array = group.create_array("time", shape=(2,), dtype="i2", fill_value=-1)
    array[:] = [1, 3]
    array.attrs.update({"units": "seconds since 2025-06-01", "scale_factor": 0.5, "add_offset": 10})
    assert harvest_attributes(group)[0]["datetime"] == datetime(2025, 6, 1, 0, 0, 10, 500_000)
    group = zarr.create_group(MemoryStore())
    stamps = np.array(["2025-06-01T01", "NaT", "2025-05-01T01"], dtype="M8[s]")
    group.create_array("time", data=stamps)
    found = harvest_attributes(group)[0]
    assert found["start_datetime"] == datetime(2025, 5, 1, 1)
    assert found["end_datetime"] == datetime(2025, 6, 1, 1)


@pytest.mark.parametrize("name", ["_FillValue", "missing_value"])
def test_fill_values_are_no_places(name: str) -> None:
    group = zarr.create_group(MemoryStore())
    for axis, start in (("lat", 10.0), ("lon", 20.0)):
        values = np.full((4, 3), -9999.0)
        along = np.arange(2)[:, None] if axis == "lat" else np.arange(3)[None, :]
        values[1:3] = start + along
        array = group.create_array(axis, data=values)
        fill = np.float64(-9999.0)
        array.attrs[name] = (
            FillValueCoder.encode(fill, fill.dtype) if name == "_FillValue" else float(fill)
        )
    bounds = outline_of(group).bounds
    assert bounds == pytest.approx((19.5, 9.5, 22.5, 11.5), abs=0.1)


def test_a_place_on_mars_costs_the_place() -> None:
    group = zarr.create_group(MemoryStore())
    image = group.create_array("red", data=np.ones((4, 4)), dimension_names=("y", "x"))
    transform = [100.0, 0.0, 0.0, 0.0, -100.0, 0.0]
    image.attrs.update({"spatial:transform": transform, "proj:code": "IAU_2015:49910"})
    fields, notes = harvest_files([(group, "file:///g")], {})
    assert "bbox" not in fields
    assert [note[:27] for note in notes] == ["PROJ can't tell its place: "]

"""Footprints hold all cells, are small, and don't believe what files declare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import shapely
import zarr
from affine import Affine
from builders import outline_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from odc.geo import CRS
from zarr.storage import MemoryStore

from l2view.geolocation.cell_outlines import (
    CLOUD_POINTS,
    of_axes,
    of_cloud,
    of_grid,
    of_points,
    of_swath,
    on_the_map,
)
from l2view.geolocation.footprint import footprint_of, of_bounds, on_the_globe
from l2view.geolocation.globe import GLOBE
from l2view.geolocation.granule import Georeference, LocatedGranule
from l2view.geolocation.simplification import LONG, ORBIT, SCENE, simplify_outward, sphere_area
from l2view.text import fold_name

NAMES = ("geospatial_lon_min", "geospatial_lat_min", "geospatial_lon_max", "geospatial_lat_max")


def write(
    group: zarr.Group, name: str, values: Any, dims: tuple[str, ...] = (), **attributes: Any
) -> None:
    values = np.asarray(values)
    names = {"dimension_names": dims} if dims else {}
    group.create_array(name, data=values, attributes=attributes, **names)


def granule(lat: Any, lon: Any, dims: tuple[str, ...], **attributes: Any) -> zarr.Group:
    group = zarr.create_group(MemoryStore(), attributes=attributes)
    write(group, "lat", lat, dims, units="degrees_north")
    write(group, "lon", lon, dims, units="degrees_east")
    return group


def holds(shape: shapely.Geometry | None, lat: Any, lon: Any) -> bool:
    wrapped = (np.ravel(lon) + 180) % 360 - 180
    return shape is not None and bool(shapely.intersects_xy(shape, wrapped, np.ravel(lat)).all())


@pytest.mark.parametrize(
    "bounds",
    [
        (0.0, 0.0, 0.0, 0.0),
        (-999.0, -999.0, -999.0, -999.0),
        (21.0, 20.0, 10.0, 11.0),
        (-180.0, -90.0, 180.0, 90.0),
        (179.99976, -89.936, -179.99988, 89.935),  # as those of Sentinel-5P
        (100.0, 10.0, 101.0, 11.0),
    ],
)
def test_bounds_that_cells_contradict_are_ignored(bounds: tuple[float, ...]) -> None:
    lat, lon = np.meshgrid(np.linspace(10, 11, 30), np.linspace(20, 21, 20), indexing="ij")
    shape = outline_of(granule(lat, lon, ("y", "x"), **dict(zip(NAMES, bounds, strict=True))))
    assert holds(shape, lat, lon)
    assert shape is not None
    assert shape.bounds == pytest.approx((19.97, 9.98, 21.03, 11.02), abs=0.02)


@pytest.mark.parametrize("west", [20.0, 30.0])
def test_bounds_of_many_cells_are_checked_by_a_chunk(west: float) -> None:
    lat, lon = np.meshgrid(np.linspace(10, 11, 600), np.linspace(20, 21, 600), indexing="ij")
    bounds = (west, 10.0, west + 1.0, 11.5)
    group = granule(lat, lon, ("y", "x"), **dict(zip(NAMES, bounds, strict=True)))
    shape = outline_of(group)
    assert holds(shape, lat, lon)
    assert shape is not None
    assert shape.bounds[3] == pytest.approx(11.5 if west == 20 else 11.0, abs=0.02)


def test_boxes_without_area_are_no_place() -> None:
    for bounds in ((180, 0, 180, 1), (10, 5, 20, 5), (10, 6, 20, 5)):
        assert of_bounds(dict(zip(map(fold_name, NAMES), bounds, strict=True))) is None
        group = zarr.create_group(MemoryStore(), attributes=dict(zip(NAMES, bounds, strict=True)))
        assert outline_of(group) is None


@pytest.mark.parametrize(
    ("lat", "lon", "north", "east"),
    [
        ("lat", "lon", "degrees_N", "degrees_E"),
        ("lat", "lon", "degreeN", "degreesE"),
        ("sp_lat", "sp_lon", "degrees_north", "degrees_east"),
        ("nav_lat", "nav_lon", "degrees_north", "degrees_east"),
        ("XLAT", "XLONG", "degree_north", "degree_east"),
        ("event_lat", "event_lon", "", ""),
        ("lat_lowestmode", "lon_lowestmode", "degrees", "degrees"),
        ("gphit", "glamt", "degree_north", "degree_east"),
    ],
)
def test_latitudes_by_units_and_names(lat: str, lon: str, north: str, east: str) -> None:
    group = zarr.create_group(MemoryStore())
    write(group, lat, np.linspace(10, 20, 30), ("t",), units=north)
    write(group, lon, np.linspace(30, 40, 30), ("t",), units=east)
    assert holds(outline_of(group), np.linspace(10, 20, 30), np.linspace(30, 40, 30))


@pytest.mark.parametrize(
    "name",
    ["satellite_lat", "lat_bnds", "nominal_satellite_subpoint_lat", "along_track", "flat_field"],
)
def test_names_that_are_of_no_cells(name: str) -> None:
    group = zarr.create_group(MemoryStore())
    units = "degrees_north" if "lat" in name and name != "flat_field" else ""
    write(group, name, np.linspace(10, 20, 30), ("t",), units=units)
    write(group, "lon", np.linspace(30, 40, 30), ("t",), units="degrees_east")
    assert outline_of(group) is None


def test_scalars_are_a_point() -> None:
    group = granule(54.2, 7.9, ())
    shape = outline_of(group)
    assert shape is not None
    assert shape.contains(shapely.Point(7.9, 54.2))
    assert shape.area < 0.1


def test_unsigned_coordinates() -> None:
    group = zarr.create_group(MemoryStore())
    lat, lon = np.linspace(-30, 5, 50), np.linspace(-75, -40, 50)
    for name, values, offset in (("event_lat", lat, -66.56), ("event_lon", lon, -141.56)):
        stored = np.round((values - offset) / 0.00203128).astype("u2").view("i2")
        packing = {"_Unsigned": "true", "scale_factor": 0.00203128, "add_offset": offset}
        write(group, name, stored, ("n",), **packing)
    assert holds(outline_of(group), lat[1:-1], lon[1:-1])


def test_a_cloud_of_points_has_its_hull() -> None:
    random = np.random.default_rng(1)
    lat, lon = random.uniform(-20, 40, 3000), random.uniform(165, 215, 3000)
    for longitudes in (lon, lon - 360, (lon + 180) % 360 - 180):
        shape = of_points(lat, longitudes)
        assert holds(shape, lat, lon)
        assert shape is not None
        hull = shapely.MultiPoint(np.column_stack([lon, lat])).convex_hull
        assert shape.area <= 1.01 * hull.area
        assert shapely.get_num_coordinates(simplify_outward(shape)) <= 64


def test_a_track_that_gaps_part_leaves_them_out() -> None:
    ways = ((0, 1, 5), (10, 11, 3), (20, 21, 4))
    points = np.concatenate([np.linspace(*way) for way in ways])
    shape = of_points(points, points)
    assert holds(shape, points, points)
    assert shape is not None
    assert not shape.intersects(shapely.box(4.9, 4.9, 5.1, 5.1))


def test_several_pairs_of_one_group_and_of_several() -> None:
    group = zarr.create_group(MemoryStore())
    for beam, east in (("BEAM0000", 0.0), ("BEAM0001", 1.0)):
        below = group.create_group(beam)
        for rate, count in (("01", 50), ("20_ku", 1000)):
            write(below, f"lat_{rate}", np.linspace(-50, 50, count), (f"time_{rate}",))
            write(below, f"lon_{rate}", np.linspace(10, 30, count) + east, (f"time_{rate}",))
    pairs = {pair.coordinates for pair in LocatedGranule(group).pairs()}
    assert len(pairs) == 4
    assert ("BEAM0001/lat_20_ku", "BEAM0001/lon_20_ku") in pairs
    for east in (0.0, 1.0):
        assert holds(outline_of(group), np.linspace(-50, 50, 9), np.linspace(10, 30, 9) + east)


def test_coordinates_that_an_array_names_by_absolute_paths() -> None:
    group = zarr.create_group(MemoryStore())
    for name, west in (("a", 10.0), ("b", 50.0)):
        lat, lon = np.meshgrid(np.linspace(0, 1, 8), west + np.linspace(0, 1, 9), indexing="ij")
        below = group.create_group(f"geo_{name}")
        write(below, "latitude", lat, ("y", "x"), units="degrees_north")
        write(below, "longitude", lon, ("y", "x"), units="degrees_east")
    named = "/geo_b/latitude /geo_b/longitude"
    write(group.create_group("data"), "v", np.zeros((8, 9)), ("y", "x"), coordinates=named)
    georeference = LocatedGranule(group).georeference("data/v")
    assert georeference is not None
    assert georeference.coordinates == ("geo_b/latitude", "geo_b/longitude")


def test_pairs_of_one_shape_that_arrays_name() -> None:
    group = zarr.create_group(MemoryStore())
    lat, lon = np.meshgrid(np.linspace(0, 1, 8), np.linspace(0, 1, 9), indexing="ij")
    for name, west in (("a", 10.0), ("b", 50.0)):
        write(group, f"lat_{name}", lat, ("y", "x"), units="degrees_north")
        write(group, f"lon_{name}", lon + west, ("y", "x"), units="degrees_east")
        named = f"lat_{name} lon_{name}"
        write(group, f"v_{name}", np.zeros((8, 9)), ("y", "x"), coordinates=named)
    for west in (10.0, 50.0):
        assert holds(outline_of(group), lat, lon + west)


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_texts_with_polygons(order: slice) -> None:
    ring = np.array([(20, 10), (30, 12), (29, 18), (19, 16), (20, 10)])[:, order]
    text = ", ".join(f"{x} {y}" for x, y in ring)
    bounds = dict(zip(NAMES, (19.0, 10.0, 30.0, 18.0), strict=True))
    attributes = {"geospatial_bounds": f"POLYGON (({text}))"}
    group = zarr.create_group(MemoryStore(), attributes=attributes | bounds)
    shape = outline_of(group)
    assert shape is not None
    assert not shape.contains(shapely.Point(29.9, 17.9))
    assert shape.contains(shapely.Point(25, 14))
    # Which of the axes comes first isn't clear.
    assert outline_of(zarr.create_group(MemoryStore(), attributes=attributes)) is None


def test_position_lists_of_gml() -> None:
    group = zarr.create_group(MemoryStore())
    text = "10 20 12 30 18 29 16 19 10 20"
    group.create_group("METADATA/gml:exterior", attributes={"gml:posList": text})
    shape = outline_of(group)
    assert shape is not None
    assert shape.bounds == (19, 10, 30, 18)


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("MULTIPOLYGON (((0 0, 2 0, 2 2, 0 2, 0 0)), ((1 1, 3 1, 3 3, 1 3, 1 1)))", (1.5, 1.5)),
        ("POLYGON ((0 0, 0 3, 3 3, 3 0, 1 0, 1 2, 2 2, 2 -1, 0 -1, 0 0))", (1.5, 1)),
        ("POLYGON ((0 0, 2 2, 2 0, 0 2, 0 0))", (0.5, 1)),
        ("GEOMETRYCOLLECTION (LINESTRING (1 1, 1 1))", (1, 1)),
    ],
)
def test_what_two_rings_go_around_is_inside(text: str, inside: tuple[float, float]) -> None:
    shape = on_the_globe(text)
    assert shape.is_valid
    assert shape.contains(shapely.Point(inside))


def test_latitudes_slightly_beyond_the_poles_are_clipped() -> None:
    assert on_the_globe(shapely.box(0, 80, 10, 90.005)).bounds == (0, 80, 10, 90)
    lat, lon = np.meshgrid(np.linspace(88, 90.004, 9), np.linspace(0, 90, 9), indexing="ij")
    shape = of_swath(lat, lon)
    assert shape is not None
    assert shape.bounds[3] == 90


@pytest.mark.parametrize("make", [of_points, of_cloud])
def test_memory_that_was_not_written_is_no_place(make: Any) -> None:
    tiny = np.array([[6.15378780e-313, 2.33419537e-313]] * 2)
    assert make(tiny[:, 0], tiny[:, 1]) is None
    assert make(np.zeros(9), np.zeros(9)) is None


@pytest.mark.parametrize("zone", [32632, 32701])
def test_outlines_of_scenes_are_small(zone: int) -> None:
    transform = "400000 20 0 5000000 0 -20" if zone == 32632 else "100000 100 0 8000000 0 -100"
    group = zarr.create_group(MemoryStore())
    attributes = {"spatial_ref": f"EPSG:{zone}", "GeoTransform": transform}
    write(group, "crs", np.array(0), **attributes)
    write(group, "red", np.zeros((2000, 2000), "u1"), ("y", "x"), grid_mapping="crs")
    shape = outline_of(group)
    assert shape is not None
    assert shapely.get_num_coordinates(shape) <= 64
    positions = LocatedGranule(group).positions("red", (slice(0, None, 7), slice(0, None, 7)))
    assert positions is not None
    assert holds(shape, *positions)


@pytest.mark.parametrize("seed", range(20))
def test_simplified_outlines_hold_the_others(seed: int) -> None:
    random = np.random.default_rng(seed)
    blobs = [
        shapely.Point(*random.uniform((-60, -50), (60, 50))).buffer(random.uniform(5, 15), 40)
        for _ in range(6)
    ]
    shape = shapely.union_all(blobs)
    simple = simplify_outward(shape)
    assert simple.is_valid
    assert shape.difference(simple).area < 1e-9
    assert sphere_area(simple) <= 1.01 * sphere_area(shape)
    assert shapely.get_num_coordinates(simple) <= 128


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**32),
    st.integers(1, 150),
    st.floats(-180, 180),
    st.floats(-90, 90),
    st.floats(-3, 2),
    st.floats(-3, 0),
    st.booleans(),
)
def test_outlines_of_any_number_of_parts_have_few_vertices(
    seed: int, count: int, lon: float, lat: float, extent: float, size: float, is_line: bool
) -> None:
    """At both poles and the antimeridian too; nothing is cut off, whatever area that costs."""
    at = np.random.default_rng(seed).normal((lon, lat), 10**extent, (count, 2))
    parts = shapely.linestrings([[*at, at[0]]]) if is_line else shapely.points(at)
    areas = shapely.buffer(parts, 10 ** (extent + size), quad_segs=2)
    shape = on_the_map(shapely.union_all(areas))
    assume(shape.area > 0)
    simple = simplify_outward(shape)
    assert simple.is_valid
    assert {part.geom_type for part in shapely.get_parts(simple)} == {"Polygon"}
    assert shapely.covers(GLOBE, simple)
    assert shape.difference(simple).area <= 1e-12 * shape.area
    assert shapely.get_num_coordinates(simple) <= (ORBIT if simple.length > LONG else SCENE)


def test_much_larger_footprints_are_said() -> None:
    group = zarr.create_group(MemoryStore())
    lat, lon = np.meshgrid(np.linspace(10, 10.5, 5), np.linspace(-80, -79.5, 5), indexing="ij")
    for number in range(60):
        part = group.create_group(f"g{number}")
        write(part, "lat", lat + number % 7, ("y", "x"))
        write(part, "lon", lon + number, ("y", "x"))
    shape, notes = footprint_of(LocatedGranule(group))
    assert shape is not None
    assert shapely.get_num_coordinates(shape) <= ORBIT
    assert "larger than where its cells lie" in notes[0]


@pytest.mark.parametrize("seed", range(3))
def test_many_points_have_the_hull_of_all(seed: int) -> None:
    lat, lon = np.random.default_rng(seed).normal(0, 20, (2, 2 * CLOUD_POINTS + 1)).clip(-60, 60)
    shape = of_cloud(lat, lon)
    assert holds(shape, lat, lon)
    assert shape is not None
    assert shape.area < 1.01 * shapely.linestrings(np.column_stack([lon, lat])).convex_hull.area


def test_uneven_axes_of_many_cells() -> None:
    """Of 900 million cells few are looked at."""
    group = zarr.create_group(MemoryStore())
    write(group, "crs", np.array(0), spatial_ref="EPSG:3413")
    for name in "yx":
        axis = np.sort(np.random.default_rng(1).uniform(-1e6, 1e6, 30_000))
        write(group, name, axis, (name,), standard_name=f"projection_{name}_coordinate", units="m")
    group.create_array(
        "h",
        shape=(30_000, 30_000),
        chunks=(1000, 1000),
        dtype="u1",
        dimension_names=("y", "x"),
        attributes={"grid_mapping": "crs"},
    )
    located = LocatedGranule(group)
    shape, _ = footprint_of(located)
    edge, middle = np.arange(30_000), np.full(30_000, 15_000)
    georeference = located.georeference("h")
    assert georeference is not None
    assert georeference.centres is not None
    for part in ((edge, [0, -1]), ([0, -1], edge), (edge[::100], middle[:2])):
        assert holds(shape, *located.cells(georeference, part))


def test_places_of_products(shared_data: Path) -> None:
    """All cells of GOES' lightning and of an ASCAT orbit lie within, little else does."""
    (path,) = (shared_data / "real").glob("OR_GLM*.nc")
    with netCDF4.Dataset(path) as file:
        lat, lon = (
            np.ma.filled(file[f"event_{n}"][:].astype("f8"), np.nan) for n in ("lat", "lon")
        )
    shape = of_points(lat, lon)
    valid = np.isfinite(lat)
    assert holds(shape, lat[valid], lon[valid])
    assert shape is not None
    hull = shapely.MultiPoint(np.column_stack([lon[valid] % 360, lat[valid]])).convex_hull
    assert shape.area <= 1.01 * hull.area
    (path,) = (shared_data / "real").glob("W_XX-EUMETSAT*.nc")
    with netCDF4.Dataset(path) as file:
        lat, lon = (np.asarray(file[n][:], "f8") for n in ("latitude", "longitude"))
    full = of_swath(lat, lon)
    assert full is not None
    simple = simplify_outward(full)
    assert holds(simple, lat, lon)
    assert sphere_area(simple) <= 1.01 * sphere_area(full)
    assert shapely.get_num_coordinates(simple) <= 128
    with netCDF4.Dataset(shared_data / "real" / "tiepoints_slstr_n.nc") as file:
        lat, lon = (np.ma.filled(file[f"SLN_TP_{n}"][:], np.nan) for n in ("lat", "lon"))
    assert of_points(lat, lon) is None


def test_stations_beside_an_image_hide_nothing_of_it() -> None:
    group = granule([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], ("station",))
    corners = {"spatial:transform": [1, 0, 20, 0, -1, 50], "proj:code": "EPSG:4326"}
    write(group, "red", np.ones((10, 10)), ("y", "x"), **corners)
    outline = outline_of(group)
    assert outline is not None
    assert shapely.contains_xy(outline, [2, 25], [2, 45]).all()


def test_axes_are_read_however_many_cells_they_have() -> None:
    declared = dict(zip(NAMES, (0.0, 0.0, 5.0, 5.0), strict=True))
    group = zarr.create_group(MemoryStore(), attributes=declared)
    write(group, "lat", np.linspace(30, 40, 600), ("lat",), units="degrees_north")
    write(group, "lon", np.linspace(50, 60, 500), ("lon",), units="degrees_east")
    outline = outline_of(group)
    assert outline is not None
    np.testing.assert_allclose(outline.bounds, (50, 30, 60, 40), atol=0.1)


@pytest.mark.parametrize(("lat", "lon"), [([10.0], [20.0]), (np.linspace(10, 20, 11), [20.0])])
def test_axes_of_one_value_have_an_area(lat: Any, lon: Any) -> None:
    outline = of_axes(np.asarray(lat), np.asarray(lon))
    assert outline is not None
    assert outline.is_valid
    assert outline.area > 0
    assert shapely.covers(outline, shapely.Point(20, 10))


def test_axes_with_what_is_no_coordinate() -> None:
    lat, lon = np.append(np.linspace(30, 40, 20), -9999), np.append(-9999, np.linspace(50, 60, 50))
    outline = of_axes(lat, lon)
    assert outline is not None
    np.testing.assert_allclose(outline.bounds, (50, 30, 60, 40), atol=0.5)
    assert of_axes(np.zeros(20), np.zeros(50)) is None


@pytest.mark.parametrize(
    ("crs", "bounds"),
    [
        (6931, (-9e6, -9e6, 9e6, 9e6)),
        ("+proj=geos +h=35785831 +lon_0=140.7 +sweep=x", (3.9e6, -5.5e6, 5.5e6, -3.1e6)),
        ("+proj=geos +h=35785831 +lon_0=-137 +sweep=x", (-5.5e6, -5.5e6, 0, 5.5e6)),
        ("+proj=sinu +R=6371007.181", (-4447802, 8895604, -3335852, 10007554)),
    ],
)
def test_outlines_of_grids_hold_cells_that_their_edges_cut_off(crs: Any, bounds: Any) -> None:
    west, south, east, north = bounds
    size = 64
    transform = Affine((east - west) / size, 0, west, 0, (south - north) / size, north)
    grid = Georeference("", ("y", "x"), (size, size), CRS(crs), transform)
    outline = of_grid(grid)
    assert outline is not None
    columns, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    lat, lon = grid.to_degrees(columns, rows)
    valid = np.isfinite(lat)
    assert valid.any()
    lon = (lon[valid] + 180) % 360 - 180
    for shape in (outline, simplify_outward(outline)):
        assert shapely.intersects_xy(shape, lon, lat[valid]).all()


def test_many_scattered_cells_are_simplified_in_reasonable_steps() -> None:
    squares = [shapely.box(x, y, x + 0.2, y + 0.2) for x in range(-170, 170) for y in range(5)]
    outline = shapely.MultiPolygon(squares)
    simple = simplify_outward(outline)
    assert shapely.covers(simple, outline)
    assert shapely.get_num_coordinates(simple) <= ORBIT
    assert sphere_area(simple) <= 1.2 * sphere_area(outline.envelope)


@pytest.mark.parametrize(
    "names",
    [
        NAMES,
        ("Westernmost Longitude", "Southernmost Latitude",
         "Easternmost Longitude", "Northernmost Latitude"),
        ("westBoundLongitude", "southBoundLatitude", "eastBoundLongitude", "northBoundLatitude"),
    ],
)  # fmt: skip
def test_bounds_by_any_name(names: tuple[str, ...]) -> None:
    attributes = dict(zip(names, ("1.0", "2.0", "3.0", "4.0"), strict=True))
    group = zarr.create_group(MemoryStore(), attributes=attributes)
    assert outline_of(group).bounds == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("path", "attributes", "place"),
    [
        ("", {"Latitude": 14.1, "Longitude": "121.0"}, (121.0, 14.1)),
        ("where", {"lat": [52.9], "lon": [4.8], "height": 50.0}, (4.8, 52.9)),
        ("where", {"lat": 51.0, "lon": 5.4, "projdef": "+proj=lcc"}, None),
        ("", {"lat": "latitude", "lon": "longitude"}, None),
        ("", {"lat": 95.0, "lon": 5.0}, None),
    ],
)
def test_a_station_in_attributes(path: str, attributes: Any, place: Any) -> None:
    group = zarr.create_group(MemoryStore())
    (group.require_group(path) if path else group).attrs.update(attributes)
    outline = outline_of(group)
    if place is None:
        assert outline is None
    else:
        assert outline is not None
        assert outline.contains(shapely.Point(place))
        assert outline.area < 0.02


def test_zeros_far_from_all_others_are_no_positions() -> None:
    lat, lon = np.meshgrid(np.linspace(40, 45, 60), np.linspace(20, 26, 50), indexing="ij")
    lat[-7:], lon[-7:] = 0, 0
    for dims in (("y", "x"), ("n",)):
        positions = (lat, lon) if len(dims) > 1 else (lat.ravel(), lon.ravel())
        shape = outline_of(granule(*positions, dims))
        assert holds(shape, lat[:-7], lon[:-7])
        assert shape is not None
        assert shape.bounds[1] > 39
    lat, lon = np.meshgrid(np.linspace(-2, 2, 21), np.linspace(-1, 1, 11), indexing="ij")
    assert holds(outline_of(granule(lat, lon, ("y", "x"))), lat, lon)


@pytest.mark.parametrize(
    "name", ["nominal_satellite_subpoint_{}", "{}_field_of_view", "spacecraft_{}itude"]
)
def test_where_the_satellite_stands_is_no_place(name: str) -> None:
    group = zarr.create_group(MemoryStore())
    for axis, standard, value in (("lat", "latitude", 0.0), ("lon", "longitude", -75.2)):
        attributes = {"units": "degrees", "standard_name": standard}
        write(group, name.format(axis), np.array(value), (), **attributes)
    assert outline_of(group) is None


def test_cells_that_are_not_read_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("l2view.geolocation.footprint.MOST_CELLS", 500)
    group = zarr.create_group(MemoryStore())
    for name, west, count in (("a", 10.0, 10), ("b", 50.0, 30), ("c", 90.0, 40)):
        axes = np.linspace(0, 1, count), west + np.linspace(0, 1, count)
        below = group.create_group(name)
        for axis, values in zip(("lat", "lon"), np.meshgrid(*axes, indexing="ij"), strict=True):
            write(below, axis, values, ("y", "x"))
    shape, notes = footprint_of(LocatedGranule(group))
    assert shape is not None
    assert shape.bounds[2] < 12
    assert notes == ["its place is taken without the cells of b/lat, c/lat"]


GEOS = "+proj=geos +h=35785831 +lon_0=-75 +sweep=x"


@pytest.mark.parametrize(
    ("crs", "bounds", "shape"),
    [
        (3413, (10_000, -1e6, 2e6, 1e6), (2000, 1990)),
        (3413, (200_000, -3.4e6, 3e6, -4e5), (3000, 2800)),
        (3031, (-3e6, 100_000, 3e6, 3e6), (2900, 6000)),
        (6931, (-9e6, -9e6, 9e6, 9e6), (720, 720)),
        (32601, (-5e5, 7e6, 1.5e6, 9e6), (2000, 2000)),
        (GEOS, (-3_627_271, 1_583_173, 1_382_771, 4_589_199), (1500, 2500)),
        (GEOS, (-5_434_894, -5_434_894, 5_434_894, 5_434_894), (2712, 2712)),
    ],
)
def test_cells_at_the_edges_of_large_grids_are_held(crs: Any, bounds: Any, shape: Any) -> None:
    west, south, east, north = bounds
    height, width = shape
    transform = Affine((east - west) / width, 0, west, 0, (south - north) / height, north)
    grid = Georeference("", ("y", "x"), shape, CRS(crs), transform)
    full = of_grid(grid)
    assert full is not None
    simple = simplify_outward(full)
    assert shapely.get_num_coordinates(simple) <= 64
    assert sphere_area(simple) <= 1.01 * sphere_area(full)
    ends = np.arange(width) + 0.5, np.arange(height) + 0.5
    columns = np.concatenate([ends[0], ends[0], np.full(height, 0.5), np.full(height, width - 0.5)])
    rows = np.concatenate([np.full(width, 0.5), np.full(width, height - 0.5), ends[1], ends[1]])
    lat, lon = grid.to_degrees(columns, rows)
    assert holds(simple, lat[np.isfinite(lat)], lon[np.isfinite(lat)])

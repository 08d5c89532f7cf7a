"""Views cropped to a place, against the cells that touch it one by one."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import xarray as xr
import zarr
from builders import put, texts, write_swath
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.transform import from_origin
from rasterio.windows import from_bounds
from zarr.storage import MemoryStore

import l2view
from l2view.geolocation.globe import wrap_geometry
from l2view.geolocation.windows import NOTHING, axis_window, swath_windows


def swath(rows: int, columns: int, lat: float, lon: float, turn: float = 0.0) -> Any:
    """Return the centres of a swath's cells, about a degree apart, turned by an angle."""
    y, x = np.mgrid[:rows, :columns] * 1.0
    a = np.radians(turn)
    north, east = y * np.cos(a) - x * np.sin(a), y * np.sin(a) + x * np.cos(a)
    return lat + north, (lon + east + 180) % 360 - 180


def cells(lat: Any, lon: Any) -> Any:
    """Return each cell as a polygon, half-way to its neighbours, on a plane without seams."""
    lon = np.unwrap(np.unwrap(lon, period=360, axis=1), period=360, axis=0)
    points = np.stack([lon, lat], axis=-1)
    padded = np.pad(points, ((1, 1), (1, 1), (0, 0)), mode="reflect", reflect_type="odd")
    corners = (padded[:-1, :-1] + padded[1:, :-1] + padded[:-1, 1:] + padded[1:, 1:]) / 4
    ring = [corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]]
    return shapely.polygons(np.stack(ring, axis=2))


@given(
    st.integers(2, 9),
    st.integers(2, 9),
    st.floats(-40, 40),
    st.floats(-180, 180),
    st.floats(0, 360),
    st.floats(-12, 12),
    st.floats(-12, 12),
    st.floats(0.01, 6),
    st.booleans(),
)
def test_rows_and_columns_of_swaths(
    rows: int,
    columns: int,
    lat: float,
    lon: float,
    turn: float,
    dy: float,
    dx: float,
    size: float,
    rectangle: bool,
) -> None:
    """The cells within the window are those that touch, and none is left out."""
    y, x = np.round(swath(rows, columns, lat, lon, turn), 9)  # tiny ones weren't written
    plane = shapely.box(lon + dx, lat + dy, lon + dx + size, lat + dy + size)
    if not rectangle:
        plane = plane.centroid.buffer(size / 2)
    # The place as a search has it: within ±180°.
    parts = [
        shapely.affinity.translate(shapely.intersection(plane, strip), xoff=-360 * turn_)
        for turn_ in (-1, 0, 1)
        if (strip := shapely.box(360 * turn_ - 180, -90, 360 * turn_ + 180, 90)).intersects(plane)
    ]
    place = shapely.union_all([part for part in parts if part.area])
    found = swath_windows(y, x, place)
    grid = cells(y, x)
    touching = np.zeros(grid.shape, dtype=bool)
    sure = np.zeros(grid.shape, dtype=bool)
    for turned in (-360, 0, 360):
        moved = shapely.affinity.translate(plane, xoff=turned)
        touching |= shapely.intersects(grid, moved.buffer(0.1))
        sure |= shapely.intersects(shapely.buffer(grid, -0.1), moved)
    for axis, window in enumerate(found):
        inside = np.flatnonzero(sure.any(axis=1 - axis))
        reached = np.flatnonzero(touching.any(axis=1 - axis))
        if len(inside):  # all that surely touch are there
            assert window[0] <= inside[0]
            assert window[1] > inside[-1]
        if not rectangle and window != NOTHING:  # and none that surely doesn't
            assert reached[0] <= window[0]
            assert reached[-1] >= window[1] - 1


@given(
    lat=arrays(float, (5, 4), elements=st.floats(-3, 3)),
    lon=arrays(float, (5, 4), elements=st.floats(-183, -177)),
    missing=arrays(bool, (5, 4)),
    fill=st.sampled_from([np.nan, -999.0, 1e20]),
    at=st.tuples(st.integers(0, 4), st.integers(0, 3)),
    is_triangle=st.booleans(),
)
def test_every_position_in_a_place_is_shown(
    lat: np.ndarray,
    lon: np.ndarray,
    missing: np.ndarray,
    fill: float,
    at: tuple[int, int],
    is_triangle: bool,
) -> None:
    """Also those without neighbours, with fill values among them, and where a path turns back."""
    lat, lon = np.round(lat, 3), np.round(lon, 3)  # tiny numbers are memory that wasn't written
    missing[at] = missing[0, 0] = missing[4, 3] = False
    west, south = (lon[at] + 540) % 360 - 180 - 0.01, lat[at] - 0.01
    place = shapely.box(west, south, west + 0.05, south + 0.05)
    if is_triangle:
        place = shapely.Polygon([(west, south), (west + 0.05, south), (west, south + 0.05)])
    lat, lon = np.where(missing, fill, lat), np.where(missing, fill, lon)
    (top, bottom), (left, right) = swath_windows(lat, lon, wrap_geometry(place, both_sides=True))
    assert top <= at[0] < bottom
    assert left <= at[1] < right


def test_cells_at_a_pole_and_across_the_antimeridian() -> None:
    lat, lon = np.meshgrid(np.linspace(84, 89.5, 12), np.linspace(-170, 170, 18), indexing="ij")
    rows, _ = swath_windows(lat, lon, shapely.box(0, 89.6, 10, 90))
    assert rows[1] == 12
    y, x = swath(6, 6, 0, 177.5)
    crossing = shapely.union_all([shapely.box(179.6, 1, 180, 2), shapely.box(-180, 1, -179.2, 2)])
    assert swath_windows(y, x, crossing) == ((1, 3), (2, 4))
    assert swath_windows(y, x, shapely.box(-1, 0, 1, 5)) == (NOTHING, NOTHING)


def test_cells_without_coordinates() -> None:
    lat, lon = swath(8, 6, 0, 10)
    lat, lon = lat.copy(), lon.copy()
    lat[3], lon[3] = np.nan, np.nan
    rows, columns = swath_windows(lat, lon, shapely.box(11.6, 1.6, 12.4, 2.3))
    assert rows == (2, 3)
    assert columns == (2, 3)
    nothing = np.full((4, 4), np.nan)
    assert swath_windows(nothing, nothing, shapely.box(0, 0, 1, 1)) == (NOTHING, NOTHING)


def test_cells_along_an_axis() -> None:
    assert axis_window(np.arange(10.0), [(2.4, 2.45)]) == (2, 3)
    assert axis_window(np.arange(10.0)[::-1], [(2.6, 4.0)]) == (5, 7)
    assert axis_window(np.arange(0), [(0, 1)]) == NOTHING


# Views


def write(root: zarr.Group, name: str, lat: Any, lon: Any, chunks: Any = (2, 3)) -> None:
    group = root.create_group(name)
    options: Any = {"dimension_names": ("y", "x"), "chunks": chunks}
    for path, values, units in (("lat", lat, "degrees_north"), ("lon", lon, "degrees_east")):
        attributes = {"units": units}
        group.create_array(path, data=np.asarray(values), attributes=attributes, **options)
    numbers = np.arange(lat.size, dtype="i4").reshape(lat.shape)
    group.create_array("x", data=numbers, **options)
    bands = group.create_group("below").create_array(
        "bands",
        data=np.stack([numbers, -numbers]),
        chunks=(1, *chunks),
        dimension_names=("band", "y", "x"),
    )
    assert bands.ndim == 3
    group.create_array("flag", data=np.arange(3), dimension_names=("z",))


@pytest.fixture
def store() -> MemoryStore:
    """Three swaths: at the equator, a little more to the north, and far away."""
    store = MemoryStore()
    root = zarr.create_group(store)
    write(root, "a", *swath(8, 9, 0, 10))
    write(root, "b", *swath(8, 9, 4, 10), chunks=(3, 3))
    write(root, "far", *swath(8, 9, 50, 100))
    put(root.create_group("meta"), "id", texts(["a", "b", "far"]))
    return store


PLACE = (12.8, 5.6, 14.3, 6.9)
"""Rows 6 and 7 and columns 3 and 4 of the first."""


def test_whole_chunks_are_left(store: MemoryStore) -> None:
    """They are the source's own: nothing is decoded on the way."""
    whole, view = l2view.open(store), l2view.open(store).sel(bbox=PLACE)
    assert view["a/x"].shape == (2, 3)  # type: ignore[union-attr]
    np.testing.assert_array_equal(view["a/x"][...], whole["a/x"][6:8, 3:6])  # type: ignore[index]
    np.testing.assert_array_equal(view["a/lat"][...], whole["a/lat"][6:8, 3:6])  # type: ignore[index]
    bands = view["a/below/bands"]
    np.testing.assert_array_equal(bands[...], whole["a/below/bands"][:, 6:8, 3:6])  # type: ignore[index]
    np.testing.assert_array_equal(view["a/flag"][...], [0, 1, 2])  # type: ignore[index]
    np.testing.assert_array_equal(view["b/x"][...], whole["b/x"][0:6, 3:6])  # type: ignore[index]
    assert view["far/x"].shape == (0, 0)  # type: ignore[union-attr]
    assert view.attrs["l2view"]["sel"] == {"bbox": list(PLACE), "exact": False}
    key = "a/x/c/0/0"
    assert store._store_dict["a/x/c/3/1"].to_bytes() == zarr_bytes(view, key)
    tree = view.to_datatree()
    assert tree["a/below/bands"].sizes == {"band": 2, "y": 2, "x": 3}
    np.testing.assert_array_equal(tree["a/x"], view["a/x"][...])  # type: ignore[index]


def zarr_bytes(view: l2view.View, key: str) -> bytes:
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    found = sync(view.store.get(key, default_buffer_prototype()))
    assert found is not None
    return found.to_bytes()


def test_exact_rows_and_columns(store: MemoryStore) -> None:
    whole, view = l2view.open(store), l2view.open(store).sel(bbox=PLACE, exact=True)
    np.testing.assert_array_equal(view["a/x"][...], whole["a/x"][6:8, 3:5])  # type: ignore[index]
    np.testing.assert_array_equal(view["b/x"][...], whole["b/x"][2:4, 3:5])  # type: ignore[index]
    bands = view["b/below/bands"]
    np.testing.assert_array_equal(bands[...], whole["b/below/bands"][:, 2:4, 3:5])  # type: ignore[index]
    np.testing.assert_array_equal(bands[1, 1:], whole["b/below/bands"][1, 3:4, 3:5])  # type: ignore[index]


def test_cropped_granules_are_joined(store: MemoryStore) -> None:
    whole = l2view.open(store)
    view = l2view.open(store, "id <> 'far'", layout="concat", dim="y", encoding="unify")
    found = view.sel(bbox=PLACE, exact=True).to_dataset()
    expected = np.concatenate([whole["a/x"][6:8, 3:5], whole["b/x"][2:4, 3:5]])  # type: ignore[index]
    np.testing.assert_array_equal(found.x, expected)
    stack = l2view.open(store, "id <> 'far'", layout="concat", dim="y", encoding="unify").sel(
        bbox=PLACE
    )
    side = l2view.open(store, "id <> 'far'").sel(bbox=PLACE)
    assert stack["x"].shape[0] == side["a/x"].shape[0] + side["b/x"].shape[0]  # type: ignore[union-attr]
    asked: Any = {"layout": "stack", "encoding": "unify", "ragged": "pad"}
    side = l2view.open(store, "id <> 'far'", variables=["lat", "lon", "x"], **asked)
    with pytest.warns(l2view.L2ViewWarning, match="x has no fill value"):
        side = side.sel(bbox=PLACE).to_dataset()
    np.testing.assert_array_equal(side.x[0, :2], whole["a/x"][6:8, 3:6])  # type: ignore[index]
    np.testing.assert_array_equal(side.x[1], whole["b/x"][0:6, 3:6])  # type: ignore[index]


def test_what_is_cropped_travels_and_is_copied(store: MemoryStore, tmp_path: Path) -> None:
    view = l2view.open(store).sel(intersects=shapely.box(*PLACE))
    again = zarr.open_group(pickle.loads(pickle.dumps(view.store)), mode="r")
    np.testing.assert_array_equal(again["a/x"][...], view["a/x"][...])  # type: ignore[index]
    view.to_zarr(tmp_path / "copy.zarr")
    copy = zarr.open_group(tmp_path / "copy.zarr", mode="r")
    for path in ("a/x", "b/below/bands", "far/x", "a/flag"):
        np.testing.assert_array_equal(copy[path][...], view[path][...])  # type: ignore[index]
    assert view.nbytes < l2view.open(store).nbytes


def test_references_of_what_is_cropped(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    write_swath(tmp_path / "files" / "s.h5", 0, 12, chunk=4)
    l2view.ingest(tmp_path / "files", tmp_path / "collection")
    whole = l2view.open(tmp_path / "collection", variables="sst")
    lat = whole.head(1)
    assert lat is whole
    everything = l2view.open(tmp_path / "collection")
    place = {"bbox": (-180, 8, -174, 9)}
    view = everything.sel(**place)
    rows = view["s/sst"].shape[0]  # type: ignore[union-attr]
    assert rows in (4, 8, 12)
    # Coordinates in one chunk are aligned with it, and the others along the same rows too.
    assert view["s/lat"].shape[0] == rows  # type: ignore[union-attr]
    view.to_icechunk(tmp_path / "copy")
    np.testing.assert_array_equal(
        l2view.open(tmp_path / "copy")["s/sst"][...],  # type: ignore[index]
        view["s/sst"][...],  # type: ignore[index]
    )
    exact = everything.sel(**place, exact=True)
    assert exact["s/sst"].shape[0] < 12  # type: ignore[union-attr]
    with pytest.raises(l2view.ExportError, match="cropped within its chunks"):
        exact.to_icechunk(tmp_path / "another")


def test_grids_and_tracks() -> None:
    store = MemoryStore()
    root = zarr.create_group(store)
    grid = root.create_group("grid")
    lat, lon = np.linspace(89.5, -89.5, 180), np.linspace(0.5, 359.5, 360)
    for name, values in (("lat", lat), ("lon", lon)):
        grid.create_array(name, data=values, dimension_names=(name,))
    grid.create_array(
        "v", data=np.arange(180 * 360).reshape(180, 360), dimension_names=("lat", "lon")
    )
    track = root.create_group("track")
    for name, values in (("latitude", np.linspace(-10, 10, 41)), ("longitude", np.full(41, -20.0))):
        track.create_array(name, data=values, dimension_names=("time",))
    track.create_array("ssh", data=np.arange(41), dimension_names=("time",))
    put(root.create_group("meta"), "id", texts(["grid", "track"]))
    view = l2view.open(store).sel(bbox=(-20.5, 2.2, -19.5, 4.1), exact=True)
    assert view["grid/lat"][...].tolist() == [4.5, 3.5, 2.5]  # type: ignore[index]
    assert view["grid/lon"][...].tolist() == [339.5, 340.5]  # type: ignore[index]
    assert view["grid/v"].shape == (3, 2)  # type: ignore[union-attr]
    found = view["track/latitude"][...]  # type: ignore[index]
    assert found[0] <= 2.2
    assert found[-1] >= 4.0
    assert len(found) <= 6
    assert view["track/ssh"].shape == found.shape  # type: ignore[union-attr]


def test_grids_in_a_projection() -> None:
    store = MemoryStore()
    root = zarr.create_group(store)
    group = root.create_group("utm")
    crs = pyproj.CRS("EPSG:32631")
    y, x = np.arange(5_000_000, 4_990_000, -100.0), np.arange(400_000, 410_000, 100.0)
    for name, values in (("y", y), ("x", x)):
        attributes = {"standard_name": f"projection_{name}_coordinate"}
        group.create_array(name, data=values, dimension_names=(name,), attributes=attributes)
    group.create_array("crs", data=np.int32(0), attributes=crs.to_cf())
    group.create_array("v", data=np.zeros((100, 100)), dimension_names=("y", "x"))
    put(root.create_group("meta"), "id", texts(["utm"]))
    transformer = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    west, south = transformer.transform(402_000, 4_994_000)
    east, north = transformer.transform(403_000, 4_995_000)
    view = l2view.open(store).sel(bbox=(west, south, east, north), exact=True)
    found = view["utm/x"][...], view["utm/y"][...]  # type: ignore[index]
    assert abs(found[0][0] - 402_000) < 250
    assert abs(found[0][-1] - 403_000) < 250
    assert abs(found[1][0] - 4_995_000) < 250
    assert view["utm/v"].shape == (len(found[1]), len(found[0]))  # type: ignore[union-attr]


def test_a_geotiff_and_its_overview(shared_data: Path, tmp_path: Path) -> None:
    """The window is the one that rasterio has."""
    file = shared_data / "l2" / "cog.tif"
    l2view.ingest(file, tmp_path / "c", defaults={"datetime": "2020-01-01"})
    view = l2view.open(tmp_path / "c")
    bbox = (-74.6, 45.0, -74.2, 45.2)
    cut = view.sel(bbox=bbox, exact=True)
    with rasterio.open(file) as source:
        place = shapely.segmentize(shapely.box(*bbox), 0.01)
        transformer = pyproj.Transformer.from_crs("EPSG:4326", source.crs, always_xy=True)
        bounds = shapely.transform(
            place, lambda p: np.column_stack(transformer.transform(*p.T))
        ).bounds
        window = from_bounds(*bounds, source.transform)
        rows = (int(np.floor(window.row_off)), int(np.ceil(window.row_off + window.height)))
        columns = (int(np.floor(window.col_off)), int(np.ceil(window.col_off + window.width)))
        expected = source.read(1)[slice(*rows), slice(*columns)]
    np.testing.assert_array_equal(cut["cog/0"][...], expected)  # type: ignore[index]
    height, width = cut["cog/1"].shape  # type: ignore[union-attr]
    assert abs(height - expected.shape[0] / 2) <= 1
    assert abs(width - expected.shape[1] / 2) <= 1


@pytest.mark.filterwarnings("ignore:Imagecodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize("options", [{"compress": "deflate", "predictor": 2}, {"compress": "jpeg"}])
def test_images_whose_codecs_only_decode(tmp_path: Path, options: dict[str, Any]) -> None:
    """What is cut within its chunks is stored anew, and loses nothing by it."""
    values = np.random.default_rng(0).integers(0, 255, (64, 64), dtype="uint8")
    profile: dict[str, Any] = {"driver": "GTiff", "height": 64, "width": 64, "count": 1}
    profile |= {"dtype": "uint8", "crs": "EPSG:4326", "transform": from_origin(10, 50, 0.1, 0.1)}
    profile |= {"tiled": True, "blockxsize": 32, "blockysize": 32}
    for name in "ab":
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile, **options) as file:
            file.write(values, 1)
    with rasterio.open(tmp_path / "a.tif") as file:
        expected = file.read(1)[20:31, 10:21]
    files = sorted(tmp_path.glob("*.tif"))
    report = l2view.ingest(files, tmp_path / "c", defaults={"datetime": "2020-01-01"})
    assert report.failures == 0, report
    place = {"bbox": (11.05, 46.95, 12.05, 47.95), "exact": True}
    tree = l2view.open(tmp_path / "c").sel(**place)
    np.testing.assert_array_equal(tree["a/0"][...], expected)  # type: ignore[index]
    joined = l2view.open(tmp_path / "c", layout="concat", dim="y").sel(**place)
    np.testing.assert_array_equal(joined["0"][...], np.concatenate([expected, expected]))  # type: ignore[index]


def test_a_granule_that_says_nothing_of_its_place_is_shown_whole() -> None:
    store = MemoryStore()
    root = zarr.create_group(store)
    root.create_group("g").create_array("v", data=np.arange(4), dimension_names=("y",))
    put(root.create_group("meta"), "id", texts(["g"]))
    view = l2view.open(store).sel(bbox=(0, 0, 1, 1))
    with pytest.warns(l2view.L2ViewWarning, match="g is shown whole.*latitude="):
        assert view["g/v"].shape == (4,)  # type: ignore[union-attr]


def test_coordinates_can_be_named() -> None:
    store = MemoryStore()
    root = zarr.create_group(store)
    lat, lon = swath(6, 6, 0, 0)
    group = root.create_group("g")
    for name, values in (("rows_of_it", lat), ("columns_of_it", lon), ("v", lat * lon)):
        group.create_array(name, data=values, dimension_names=("y", "x"))
    put(root.create_group("meta"), "id", texts(["g"]))
    view = l2view.open(store).sel(
        bbox=(1.6, 1.6, 3.4, 3.4), exact=True, latitude="rows_of_it", longitude="columns_of_it"
    )
    np.testing.assert_array_equal(view["g/v"][...], (lat * lon)[2:4, 2:4])  # type: ignore[index]


def test_arguments(store: MemoryStore) -> None:
    view = l2view.open(store)
    for options, text in [
        ({}, "pass bbox= or intersects="),
        ({"bbox": (0, 0, 1, 1), "latitude": "lat"}, "both latitude= and longitude="),
        ({"bbox": (0, 100, 1, 1)}, "bbox="),
    ]:
        with pytest.raises(l2view.QueryError, match=text):
            view.sel(**options)  # type: ignore[arg-type]
    with pytest.raises(l2view.QueryError, match="cropped already"):
        view.sel(bbox=PLACE).sel(bbox=PLACE)


def test_real_swaths(shared_data: Path, tmp_path: Path) -> None:
    """MODIS' one-chunk swath is cut exactly where xarray finds the place."""
    name = "SS_MODIS_A-JPL-L2P-v2014.0"
    l2view.ingest(shared_data / "l2" / f"{name}.nc", tmp_path / "c")
    view = l2view.open(tmp_path / "c").sel(bbox=(75, 40, 77, 42), exact=True)
    file = xr.open_dataset(shared_data / "l2" / f"{name}.nc")
    inside = ((file.lat >= 40) & (file.lat <= 42) & (file.lon >= 75) & (file.lon <= 77)).values
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    lat = view[f"{name}/lat"]
    assert abs(lat.shape[0] - len(rows)) <= 4  # type: ignore[union-attr]
    assert abs(lat.shape[1] - len(columns)) <= 4  # type: ignore[union-attr]
    found = xr.open_zarr(view.store, group=name)
    within = (found.lat >= 40) & (found.lat <= 42) & (found.lon >= 75) & (found.lon <= 77)
    assert int(within.sum()) == int(inside.sum())
    np.testing.assert_allclose(
        found.sea_surface_temperature.values[0][within.values],
        file.sea_surface_temperature.values[0][inside],
        rtol=2e-7,
    )


# What lies beside what is cropped

UTM = {
    "spatial:transform": [10.0, 0.0, 400_000.0, 0.0, -10.0, 5_000_000.0],
    "proj:code": "EPSG:32631",
}


def in_utm(*bounds: float) -> tuple[float, ...]:
    """Return bounds of UTM 31N in degrees."""
    transformer = pyproj.Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True)
    west, south = transformer.transform(bounds[0], bounds[1])
    east, north = transformer.transform(bounds[2], bounds[3])
    return west, south, east, north


def scenes(**arrays: Any) -> MemoryStore:
    store = MemoryStore()
    root = zarr.create_group(store)
    group = root.create_group("g", attributes=UTM)
    for name, (values, names) in arrays.items():
        group.create_array(name, data=values, dimension_names=names)
    put(root.create_group("meta"), "id", texts(["g"]))
    return store


def test_rasters_among_other_arrays() -> None:
    """The transform is that of the full image; what is no overview isn't cropped as one."""
    red = np.arange(600 * 600).reshape(600, 600)
    store = scenes(
        aot=(np.zeros((300, 300)), ("y", "x")),
        lut=(np.zeros((13, 2)), ("band", "nv")),
        odd=(np.zeros((77, 13)), ("y", "x")),
        red=(red, ("y", "x")),
        rgb=(np.stack([red] * 3, axis=-1), ("y", "x", "band")),
    )
    bbox = in_utm(402_000, 4_997_000, 403_000, 4_998_000)
    view = l2view.open(store).sel(bbox=bbox, exact=True)
    rows, columns = view["g/red"].shape  # type: ignore[union-attr]
    assert 100 <= rows <= 106
    assert 100 <= columns <= 106
    first = int(view["g/red"][0, 0])  # type: ignore[index,arg-type]
    assert abs(first // 600 - 199) <= 3
    assert abs(first % 600 - 199) <= 3
    assert view["g/rgb"].shape == (rows, columns, 3)  # type: ignore[union-attr]
    assert abs(view["g/aot"].shape[0] - rows / 2) <= 1  # type: ignore[union-attr]
    assert view["g/lut"].shape == (13, 2)  # type: ignore[union-attr]
    assert view["g/odd"].shape == (77, 13)  # type: ignore[union-attr]


def test_overviews_in_groups_of_their_own() -> None:
    store = MemoryStore()
    root = zarr.create_group(store)
    scene = root.create_group("g")
    for level, size in enumerate((400, 200, 100)):
        scene.create_group(str(level)).create_array(
            "image",
            data=np.zeros((size, size), "u1"),
            dimension_names=("y", "x"),
            attributes=UTM if level == 0 else {},
        )
    put(root.create_group("meta"), "id", texts(["g"]))
    bbox = in_utm(401_000, 4_997_000, 402_000, 4_998_000)
    view = l2view.open(store).sel(bbox=bbox, exact=True)
    shapes = [view[f"g/{level}/image"].shape[0] for level in range(3)]  # type: ignore[union-attr]
    assert 100 <= shapes[0] <= 106
    assert abs(shapes[1] - shapes[0] / 2) <= 1
    assert abs(shapes[2] - shapes[0] / 4) <= 1


def test_arrays_along_one_of_the_dimensions() -> None:
    store = MemoryStore()
    root = zarr.create_group(store)
    write(root, "a", *swath(8, 9, 0, 10))
    group = root["a"]
    assert isinstance(group, zarr.Group)
    bounds = np.arange(16).reshape(8, 2)
    group.create_array("bounds", data=bounds, dimension_names=("y", "nv"))
    group.create_array("seconds", data=np.arange(8)[None], dimension_names=("time", "y"))
    put(root.create_group("meta"), "id", texts(["a"]))
    view = l2view.open(store).sel(bbox=PLACE, exact=True)
    found = xr.open_zarr(view.store, group="a", consolidated=False)
    np.testing.assert_array_equal(found.bounds, bounds[6:8])
    np.testing.assert_array_equal(found.seconds, [[6, 7]])
    assert found.sizes == {"y": 2, "x": 2, "z": 3, "nv": 2, "time": 1}


def test_arrays_that_are_granules_are_cropped_and_joined() -> None:
    store = MemoryStore()
    root = zarr.create_group(store)
    for name in "ab":
        values = np.arange(600 * 600).reshape(600, 600)
        root.create_array(name, data=values, dimension_names=("y", "x"), attributes=UTM)
    meta = root.create_group("meta")
    put(meta, "id", texts(["one", "two"]))
    put(meta, "path", texts(["a", "b"]))
    bbox = in_utm(402_000, 4_997_000, 403_000, 4_998_000)
    tree = l2view.open(store).sel(bbox=bbox, exact=True)
    stack = l2view.open(store, layout="stack").sel(bbox=bbox, exact=True)
    assert stack["data"].shape == (2, *tree["one/a"].shape)  # type: ignore[union-attr]
    np.testing.assert_array_equal(stack["data"][1], tree["two/b"][...])  # type: ignore[index]


def test_a_store_that_fails_once() -> None:
    """What couldn't be read is read again when it is asked for again."""
    store = MemoryStore()
    root = zarr.create_group(store)
    write(root, "a", *swath(8, 9, 0, 10))
    put(root.create_group("meta"), "id", texts(["a"]))
    key = next(key for key in store._store_dict if key.startswith("a/lat/c"))
    whole = store._store_dict[key]
    store._store_dict[key] = whole[:2]
    view = l2view.open(store).sel(bbox=PLACE, exact=True)
    with pytest.raises(Exception, match=r"(?i)zstd|decompress|size"):
        view["a/x"]
    store._store_dict[key] = whole
    assert view["a/x"].shape == (2, 2)  # type: ignore[union-attr]


def test_shards_pass_and_are_read_in_parts(tmp_path: Path) -> None:
    store = MemoryStore()
    root = zarr.create_group(store)
    lat, lon = swath(64, 16, 0, 10)
    write(root, "a", lat, lon, chunks=(16, 16))
    group = root["a"]
    assert isinstance(group, zarr.Group)
    values = np.random.default_rng(0).random((64, 16))
    group.create_array(
        "s", data=values, chunks=(4, 16), shards=(32, 16), dimension_names=("y", "x")
    )
    put(root.create_group("meta"), "id", texts(["a"]))
    view = l2view.open(store).sel(bbox=(12, 40, 14, 44))
    assert view["a/s"].shape == (32, 16)  # type: ignore[union-attr]
    np.testing.assert_array_equal(view["a/s"][...], values[32:])  # type: ignore[index]
    assert zarr_bytes(view, "a/s/c/0/0") == store._store_dict["a/s/c/1/0"].to_bytes()
    from zarr.abc.store import RangeByteRequest
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    part = view.store.get("a/s/c/0/0", default_buffer_prototype(), RangeByteRequest(3, 9))
    found = sync(part)
    assert found is not None
    assert found.to_bytes() == store._store_dict["a/s/c/1/0"].to_bytes()[3:9]


def test_coordinates_that_are_not_there(store: MemoryStore) -> None:
    view = l2view.open(store)
    with pytest.raises(l2view.QueryError, match='no array "lta"; did you mean "lat"'):
        view.sel(bbox=PLACE, latitude="lta", longitude="lon")
    named = view.sel(bbox=PLACE, latitude="lat", longitude="lon")
    assert named.store != view.sel(bbox=PLACE).store


def test_cells_are_drawn_where_their_own_group_lies() -> None:
    from l2view.geolocation.granule import LocatedGranule

    root = zarr.create_group(MemoryStore())
    for name, lat in (("left", 0), ("right", 40)):
        write(root, name, *swath(8, 9, lat, 10))
    array = root["right/x"]
    assert isinstance(array, zarr.Array)
    found = LocatedGranule(root).positions("right/x")
    assert found is not None
    assert 40 < found[0].mean() < 48

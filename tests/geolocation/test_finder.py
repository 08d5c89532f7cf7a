"""Every kind of georeference, and everybody who asks where cells lie: they agree with pyproj."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot
import numpy as np
import pyproj
import pytest
import shapely
import zarr
from builders import outline_of, put, texts
from zarr.storage import MemoryStore

import l2view
from l2view.geolocation.granule import LocatedGranule

ROWS, COLUMNS = 26, 22
CELL = 10_000.0
"""The cells of a granule, and how wide they are in metres."""

GEOS = {
    "grid_mapping_name": "geostationary",
    "perspective_point_height": 35_786_023.0,
    "semi_major_axis": 6_378_137.0,
    "semi_minor_axis": 6_356_752.31414,
    "longitude_of_projection_origin": 0.0,
}

PLACES = {
    "north": ("EPSG:32632", 400_000.0, 5_000_000.0),
    "south": ("EPSG:32719", 400_000.0, 6_000_000.0),
    "antimeridian": ("EPSG:32701", 70_000.0, 8_000_000.0),
    "north pole": ("EPSG:3413", -130_000.0, 110_000.0),
    "south pole": ("EPSG:3031", -130_000.0, 110_000.0),
}
"""A CRS, and the corner of the first cell in it."""


@dataclass(frozen=True)
class Grid:
    """The cells of a granule.

    Attributes
    ----------
    crs
        Their CRS.
    y, x
        The centres of their rows and columns.
    """

    crs: pyproj.CRS
    y: np.ndarray[Any, Any]
    x: np.ndarray[Any, Any]

    @property
    def step(self) -> tuple[float, float]:
        return float(self.x[1] - self.x[0]), float(self.y[1] - self.y[0])

    @property
    def transform(self) -> list[float]:
        dx, dy = self.step
        return [dx, 0.0, float(self.x[0]) - dx / 2, 0.0, dy, float(self.y[0]) - dy / 2]

    def positions(self, around: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The latitudes and longitudes of the cells, or of a grid with more of them around it."""
        dx, dy = self.step
        more = np.arange(1, around + 1)
        x = np.concatenate([self.x[0] - dx * more[::-1], self.x, self.x[-1] + dx * more])
        y = np.concatenate([self.y[0] - dy * more[::-1], self.y, self.y[-1] + dy * more])
        to_degrees = pyproj.Transformer.from_crs(self.crs, "EPSG:4326", always_xy=True)
        lon, lat = to_degrees.transform(*np.meshgrid(x, y))
        return lat, lon


def projected(place: str) -> Grid:
    crs, west, north = PLACES[place]
    x = west + (np.arange(COLUMNS) + 0.5) * CELL
    return Grid(pyproj.CRS(crs), north - (np.arange(ROWS) + 0.5) * CELL, x)


def geographic(place: str) -> Grid:
    south, west = {
        "north": (40.0, 5.0),
        "south": (-42.0, -75.0),
        "antimeridian": (-20.0, 178.5),
        "north pole": (87.4, 10.0),
        "south pole": (-90.0, 10.0),
    }[place]
    lat = (south + (np.arange(ROWS) + 0.5) * 0.1)[::-1]
    return Grid(pyproj.CRS("EPSG:4326"), lat, west + (np.arange(COLUMNS) + 0.5) * 0.1)


def seen_from_space(place: str) -> Grid:
    """A geostationary grid, in radians; the satellite stands where the place is."""
    longitude = {"antimeridian": 179.0, "south": -75.0}.get(place, 9.0)
    y = {"north": 0.1, "south": -0.1}.get(place, 0.0) - np.arange(ROWS) * 4e-4
    sweep = "x" if place == "south" else "y"
    mapping = GEOS | {"longitude_of_projection_origin": longitude, "sweep_angle_axis": sweep}
    height = GEOS["perspective_point_height"]
    assert isinstance(height, float)
    return Grid(pyproj.CRS.from_cf(mapping), y * height, np.arange(-9, 13) * 4e-4 * height)


def write(
    group: zarr.Group, name: str, values: Any, dims: tuple[str, ...], **attributes: Any
) -> None:
    values = np.asarray(values)
    chunks = tuple(max(1, length // 4) for length in values.shape) or None
    options = {"chunks": chunks, "dimension_names": dims} if dims else {}
    array = group.create_array(name, shape=values.shape, dtype=values.dtype, **options)
    array[...] = values
    array.attrs.update(attributes)


IDS = np.arange(ROWS * COLUMNS, dtype="i4").reshape(ROWS, COLUMNS)


def lat_lon_axes(group: zarr.Group, grid: Grid) -> None:
    write(group, "lat", grid.y, ("lat",), units="degrees_north")
    write(group, "lon", grid.x, ("lon",), units="degrees_east")
    write(group, "red", IDS, ("lat", "lon"))


def longitudes_to_360(group: zarr.Group, grid: Grid) -> None:
    lat_lon_axes(group, Grid(grid.crs, grid.y, grid.x % 360))


def lon_lat_axes(group: zarr.Group, grid: Grid) -> None:
    write(group, "lat", grid.y, ("lat",), units="degrees_north")
    write(group, "lon", grid.x, ("lon",), units="degrees_east")
    write(group, "red", IDS.T, ("lon", "lat"))


def swath(group: zarr.Group, grid: Grid) -> None:
    lat, lon = grid.positions()
    write(group, "lat", lat, ("r", "c"), units="degrees_north")
    write(group, "lon", lon, ("r", "c"), units="degrees_east")
    write(group, "red", IDS, ("r", "c"))


def packed_swath(group: zarr.Group, grid: Grid) -> None:
    lat, lon = grid.positions()
    for name, values, side in (("lat", lat, "north"), ("lon", lon, "east")):
        stored = np.round(values / 1e-6).astype("i4")
        write(group, name, stored, ("r", "c"), units=f"degrees_{side}", scale_factor=1e-6)
    write(group, "red", IDS, ("r", "c"))


def sibling_swath(group: zarr.Group, grid: Grid) -> None:
    lat, lon = grid.positions()
    below = group.create_group("geolocation_data")
    write(below, "latitude", lat, ("r", "c"), units="degrees_north")
    write(below, "longitude", lon, ("r", "c"), units="degrees_east")
    write(group.create_group("observation_data"), "red", IDS, ("r", "c"))


def geotiff_keys(group: zarr.Group, grid: Grid) -> None:
    dx, _, x, _, dy, y = grid.transform
    group.attrs.update(
        {
            "model_tiepoint": [0.0, 0.0, 0.0, x, y, 0.0],
            "model_pixel_scale": [dx, -dy, 0.0],
            "projected_type": grid.crs.to_epsg(),
            "model_type": 1,
        }
    )
    write(group, "red", IDS, ("y", "x"))


def convention_on_array(group: zarr.Group, grid: Grid) -> None:
    attributes = {
        "spatial:transform": grid.transform,
        "spatial:shape": [ROWS, COLUMNS],
        "spatial:dimensions": ["y", "x"],
        "proj:code": f"EPSG:{grid.crs.to_epsg()}",
    }
    write(group, "red", IDS, ("y", "x"), **attributes)


def convention_on_group(group: zarr.Group, grid: Grid) -> None:
    group.attrs.update({"spatial:transform": grid.transform, "proj:wkt2": grid.crs.to_wkt()})
    write(group, "red", IDS, ("y", "x"))


def cf_axes(
    group: zarr.Group, grid: Grid, units: str = "m", factor: float = 1.0, flipped: bool = False
) -> None:
    for name, axis in (("y", grid.y), ("x", grid.x)):
        standard = f"projection_{name}_coordinate"
        write(group, name, axis / factor, (name,), standard_name=standard, units=units)
    mapping = {k: v for k, v in grid.crs.to_cf().items() if k != "crs_wkt"}
    write(group, "crs", np.int32(0), (), **mapping)
    dims, ids = (("x", "y"), IDS.T) if flipped else (("y", "x"), IDS)
    write(group, "red", ids, dims, grid_mapping="crs")


def mapping_above(group: zarr.Group, grid: Grid) -> None:
    """As MTG's imager has it (CF 1.12, 2.7.1)."""
    below = group.create_group("data/counts")
    cf_axes(below, grid, "rad", HEIGHT)
    mapping = below["crs"].attrs.asdict()
    del below["crs"]
    write(group, "data/crs", np.int32(0), (), **mapping)


def geotransform(group: zarr.Group, grid: Grid) -> None:
    a, b, c, d, e, f = grid.transform
    attributes = {"crs_wkt": grid.crs.to_wkt(), "GeoTransform": f"{c} {a} {b} {f} {d} {e}"}
    write(group, "spatial_ref", np.int32(0), (), **attributes)
    write(group, "red", IDS, ("y", "x"), grid_mapping="spatial_ref")


def parameters(grid: Grid) -> str:
    """The parameters of PROJ, without the datum, which all places have alike."""
    with warnings.catch_warnings(action="ignore"):
        return grid.crs.to_proj4()


def xarray_raster(group: zarr.Group, grid: Grid) -> None:
    write(group, "y", grid.y, ("y",))
    write(group, "x", grid.x, ("x",))
    write(group, "red", IDS, ("y", "x"), crs=f"+init=epsg:{grid.crs.to_epsg()}")


def nwc_saf_corners(group: zarr.Group, grid: Grid) -> None:
    corners = {"XGEO_UP_LEFT": grid.x[0], "YGEO_UP_LEFT": grid.y[0]}
    corners |= {"XGEO_LOW_RIGHT": grid.x[-1], "YGEO_LOW_RIGHT": grid.y[-1]}
    text = parameters(grid)
    group.attrs.update({name: float(value) for name, value in corners.items()})
    group.attrs.update({"PROJECTION": text, "NC": COLUMNS, "NL": ROWS})
    write(group, "red", IDS, ("phony_dim_0", "phony_dim_1"))


def nwc_saf_axes(group: zarr.Group, grid: Grid) -> None:
    group.attrs["gdal_projection"] = parameters(grid)
    for name, axis in (("y", grid.y), ("x", grid.x)):
        standard = f"projection_{name}_coordinate"
        write(group, name, axis, (name,), standard_name=standard, units="m")
    write(group, "red", IDS, ("y", "x"))


HEIGHT = 35_786_023.0

type Writer = Callable[[zarr.Group, Grid], None]

KINDS: Mapping[str, tuple[Callable[[str], Grid], Writer, str]] = {
    "latitude and longitude axes": (geographic, lat_lon_axes, "even axes"),
    "longitudes from 0 to 360": (geographic, longitudes_to_360, "even axes"),
    "axes in the other order": (geographic, lon_lat_axes, "even axes"),
    "swath": (projected, swath, "latitudes and longitudes"),
    "packed swath": (projected, packed_swath, "latitudes and longitudes"),
    "swath in a sibling group": (projected, sibling_swath, "latitudes and longitudes"),
    "GeoTIFF keys": (projected, geotiff_keys, "GeoTIFF keys"),
    "spatial: and proj: on the array": (
        projected,
        convention_on_array,
        "conventions spatial and proj",
    ),
    "spatial: and proj: on the group": (
        projected,
        convention_on_group,
        "conventions spatial and proj",
    ),
    "CF axes in m": (projected, cf_axes, "even axes"),
    "CF axes in m, x before y": (
        projected,
        lambda group, grid: cf_axes(group, grid, flipped=True),
        "even axes",
    ),
    "CF axes in km": (
        projected,
        lambda group, grid: cf_axes(group, grid, "km", 1e3),
        "even axes",
    ),
    "geostationary in rad": (
        seen_from_space,
        lambda group, grid: cf_axes(group, grid, "rad", HEIGHT),
        "even axes",
    ),
    "geostationary in degrees": (
        seen_from_space,
        lambda group, grid: cf_axes(group, grid, "degrees", HEIGHT * np.pi / 180),
        "even axes",
    ),
    "geostationary, of a mapping above": (seen_from_space, mapping_above, "even axes"),
    "corners of the NWC SAF": (seen_from_space, nwc_saf_corners, "parameters of PROJ"),
    "axes of the NWC SAF": (seen_from_space, nwc_saf_axes, "even axes"),
    "axes as xarray writes rasters": (projected, xarray_raster, "even axes"),
    "GeoTransform": (projected, geotransform, "grid mapping with GeoTransform"),
}


def collection(writer: Writer, grid: Grid) -> tuple[MemoryStore, zarr.Group, str]:
    """Write a granule, and return the store, the granule and the path of its image."""
    store = MemoryStore()
    root = zarr.create_group(store)
    group = root.create_group("granules/a")
    writer(group, grid)
    meta = root.create_group("meta")
    put(meta, "id", texts(["a"]))
    put(meta, "group_path", texts(["granules/a"]))
    path = next(path for path, _ in group.members(max_depth=None) if path.endswith("red"))
    return store, group, path


def block_bbox(
    lat: np.ndarray[Any, Any], lon: np.ndarray[Any, Any], rows: slice, columns: slice
) -> tuple[float, float, float, float]:
    """The bounds of the centres of some cells, west > east across the antimeridian."""
    block = np.unwrap(lon[rows, columns].ravel(), period=360)
    block = (block - block[0] + 180) % 360 - 180 + block[0]
    west, east = ((edge + 180) % 360 - 180 for edge in (block.min(), block.max()))
    part = lat[rows, columns]
    return float(west), float(part.min()), float(east), float(part.max())


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        (kind, place)
        for kind, (grid_of, _, _) in KINDS.items()
        for place in PLACES
        # A geostationary satellite sees no pole.
        if grid_of is not seen_from_space or "pole" not in place
    ],
)
def test_everybody_finds_the_same_place(kind: str, place: str) -> None:
    grid_of, writer, name = KINDS[kind]
    grid = grid_of(place)
    lat, lon = grid.positions()
    store, group, path = collection(writer, grid)

    # positions, which plots draw
    granule = LocatedGranule(group)
    georeference = granule.georeference(path)
    assert georeference is not None
    assert (georeference.transform is None) == (name == "latitudes and longitudes")
    positions = granule.positions(path)
    assert positions is not None
    np.testing.assert_allclose(positions[0], lat, atol=2e-6)
    np.testing.assert_allclose((positions[1] - lon + 180) % 360 - 180, 0, atol=2e-6 / np.cos(1.55))

    # the footprint at ingest holds all cells, and none three cells beyond
    footprint = outline_of(group)
    assert footprint.bounds[0] >= -180
    assert footprint.bounds[2] <= 180
    wrapped = (lon + 180) % 360 - 180
    assert shapely.intersects_xy(footprint.buffer(1e-9), wrapped, lat).all()
    beyond_lat, beyond_lon = grid.positions(around=4)
    outside = np.ones(beyond_lat.shape, dtype=bool)
    outside[1:-1, 1:-1] = False
    outside &= np.isfinite(beyond_lat) & (np.abs(beyond_lat) < 89.9)
    around = (beyond_lon[outside] + 180) % 360 - 180
    assert not shapely.intersects_xy(footprint, around, beyond_lat[outside]).any()

    # rows and columns that a crop shows
    view = l2view.open(store)
    bbox = block_bbox(lat, lon, slice(8, 13), slice(6, 12))
    cut = view.sel(bbox=bbox, exact=True)[f"a/{path}"]
    ids = np.asarray(cut[...])  # type: ignore[index]
    shown = np.array(np.divmod([ids.min(), ids.max()], COLUMNS))
    west, south, east, north = bbox
    inside = (lat >= south) & (lat <= north)
    inside &= (lon - west) % 360 <= (east - west) % 360
    for axis, (start, stop) in enumerate(shown):
        touched = np.flatnonzero(inside.any(axis=1 - axis))
        assert start <= touched[0]
        assert stop >= touched[-1]
        # Of a swath at a pole, cells are shown that only seem to touch the place.
        more = 9 if "swath" in kind and "pole" in place else 2
        assert touched[0] - start <= more
        assert stop - touched[-1] <= more

    # the pixels of a mosaic
    bbox = block_bbox(lat, lon, slice(4, 6), slice(2, 4))
    step = 0.005 if "pole" not in place else 0.02
    west, south, east, north = bbox
    around_block = (west - 2 * step, south - 2 * step, east + 2 * step, north + 2 * step)
    mosaic = view.mosaic(
        crs="EPSG:4326", resolution=step, bbox=around_block, bands={"red": path}, nodata=-1
    )["red"]
    for row in (4, 5):
        for column in (2, 3):
            pixel = mosaic.sel(x=lon[row, column], y=lat[row, column], method="nearest")
            assert int(pixel) == IDS[row, column]

    # the coordinates of cells
    table = view.cells(path).to_table().to_pandas()
    cells = np.divmod(table["value"].to_numpy(), COLUMNS)
    coordinates = {name.rpartition("/")[2] for name in granule.arrays} - {"red"}
    assert {"lat", "latitude", "y"} & coordinates <= set(table.columns)
    for column in coordinates & set(table.columns):
        truth = lat if column.startswith("lat") else lon
        if column in ("y", "x"):
            factor = table[column].abs().max() / np.abs(getattr(grid, column)).max()
            truth = np.meshgrid(grid.x, grid.y)[column == "y"] * factor
        differs = table[column].to_numpy() - truth[cells]
        turn = (differs + 180) % 360 - 180 if column.startswith("lon") else differs
        np.testing.assert_allclose(turn, 0, atol=1e-6 * max(1, np.abs(truth).max()))


@pytest.mark.parametrize("kind", ["CF axes in km", "GeoTransform", "GeoTIFF keys", "swath"])
@pytest.mark.parametrize("variables", [None, ["red"]])
def test_plots_of_crops_lie_where_their_cells_lie(kind: str, variables: Any) -> None:
    grid_of, writer, _ = KINDS[kind]
    grid = grid_of("north")
    lat, lon = grid.positions()
    store, _, _ = collection(writer, grid)
    view = l2view.open(store, variables=variables)
    bbox = block_bbox(lat, lon, slice(8, 13), slice(6, 12))
    for shown in (view, view.sel(bbox=bbox, exact=True)):
        ids = np.asarray(shown["a/red"][...])  # type: ignore[index]
        mesh = next(iter(shown.plot("red").collections))
        corners = mesh.get_coordinates()
        centres = (corners[1:, 1:] + corners[:-1, :-1]) / 2
        np.testing.assert_array_equal(mesh.get_array().reshape(ids.shape), ids)
        np.testing.assert_allclose(centres[..., 0], lon.ravel()[ids], atol=1e-3)
        np.testing.assert_allclose(centres[..., 1], lat.ravel()[ids], atol=1e-3)
    mpl.pyplot.close("all")


@pytest.mark.parametrize(
    ("crs", "half", "inside", "outside"),
    [
        ("EPSG:6931", 9e6, (12.0, 64.0), None),  # EASE-Grid 2.0 North, beyond the equator
        ("EPSG:6932", 9e6, (12.0, -64.0), None),
        ("EPSG:3413", 11e6, (12.0, 64.0), (12.0, -85.0)),
        ("+proj=sinu +R=6371007.181", 20015109.354, (10.0, 40.0), None),  # MODIS, all tiles
        ("EPSG:32633", 5e4, (14.6, 50.1), (16.0, 50.1)),
    ],
)
def test_grids_wider_than_a_hemisphere(
    crs: str, half: float, inside: tuple[float, float], outside: tuple[float, float] | None
) -> None:
    group = zarr.create_group(MemoryStore())
    middle = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(14.6, 50.1)
    x, y = middle if crs == "EPSG:32633" else (0.0, 0.0)
    height = half / 2 if "sinu" in crs else half
    put(group, "crs", np.array(0)).attrs.update(
        {
            "crs_wkt": pyproj.CRS(crs).to_wkt(),
            "GeoTransform": f"{x - half} {half / 36} 0 {y + height} 0 {-height / 36}",
        }
    )
    array = put(group, "red", np.zeros((72, 72), "f4"))
    array.attrs["grid_mapping"] = "crs"
    outline = outline_of(group)
    assert shapely.contains_xy(outline, *inside)
    assert outside is None or not shapely.contains_xy(outline, *outside)


def test_rotated_poles_are_no_longitudes() -> None:
    group = zarr.create_group(MemoryStore())
    rotated = {
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": 39.25,
        "grid_north_pole_longitude": -162.0,
    }
    put(group, "crs", np.array(0)).attrs.update(rotated | {"GeoTransform": "-12 0.5 0 10 0 -0.5"})
    put(group, "red", np.zeros((40, 48), "f4")).attrs["grid_mapping"] = "crs"
    outline = outline_of(group)
    assert shapely.contains_xy(outline, 20.0, 52.0)
    assert not shapely.contains_xy(outline, 0.0, 0.0)


@pytest.mark.parametrize("even", [True, False])
def test_longitudes_that_are_counted_from_another_meridian(even: bool) -> None:
    group = zarr.create_group(MemoryStore())
    mapping = {
        "grid_mapping_name": "latitude_longitude",
        "longitude_of_prime_meridian": 10.0,
        "semi_major_axis": 6_378_137.0,
        "inverse_flattening": 298.257223563,
    }
    put(group, "crs", np.array(0)).attrs.update(mapping)
    lat, lon = 40 + np.arange(12) * 0.5, 5 + np.arange(15) * 0.5
    lat[5] += 0.0 if even else 0.2
    write(group, "lat", lat, ("lat",), units="degrees_north")
    write(group, "lon", lon, ("lon",), units="degrees_east")
    write(group, "red", np.zeros((12, 15)), ("lat", "lon"), grid_mapping="crs")
    positions = LocatedGranule(group).positions("red")
    assert positions is not None
    np.testing.assert_allclose(positions[1][0], lon + 10, atol=1e-6)
    bounds = outline_of(group).bounds
    np.testing.assert_allclose(bounds, (14.75, 39.75, 22.25, 45.75), atol=0.05)


@pytest.mark.parametrize("pole", [90, -90])
def test_a_swath_over_a_pole_keeps_the_cell_that_holds_it(pole: int) -> None:
    crs = pyproj.CRS.from_proj4(f"+proj=stere +lat_0={pole} +R=6371000")
    metres = (np.arange(31) - 15) * 20_000.0
    x, y = np.meshgrid(metres, metres)
    lon, lat = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    root = zarr.create_group(MemoryStore())
    granule = root.create_group("granules/a")
    put(granule, "lat", lat).attrs["units"] = "degrees_north"
    put(granule, "lon", lon).attrs["units"] = "degrees_east"
    put(granule, "red", np.arange(31.0 * 31).reshape(31, 31))
    meta = root.create_group("meta")
    put(meta, "id", texts(["a"]))
    put(meta, "group_path", texts(["granules/a"]))
    south, north = sorted((pole, pole - np.sign(pole) * 0.01))
    view = l2view.open(root.store).sel(bbox=(10, south, 20, north), exact=True)
    assert 15 * 31 + 15 in view["a/red"][...]


def test_a_square_image_of_unnamed_axes_is_no_grid_of_a_track() -> None:
    """Its rows and columns are as many as the points, which are uneven."""
    group = zarr.create_group(MemoryStore())
    put(group, "lat", np.linspace(0, 3, 20) ** 2).attrs["units"] = "degrees_north"
    put(group, "lon", np.linspace(0, 3, 20) ** 2).attrs["units"] = "degrees_east"
    put(group, "covariance", np.zeros((20, 20)))
    put(group, "height", np.zeros(20))
    granule = LocatedGranule(group)
    assert granule.georeference("covariance") is None
    assert granule.georeference("height") is not None


def test_images_between_two_swaths_belong_to_that_of_like_name() -> None:
    group = zarr.create_group(MemoryStore())
    y, x = np.mgrid[:6, :5] * 0.1
    for name, lon in (("geodetic_an", 10), ("geodetic_in", 40)):
        write(group, f"{name}/latitude", y, ("rows", "columns"), units="degrees_north")
        write(group, f"{name}/longitude", x + lon, ("rows", "columns"), units="degrees_east")
    for name, lon in (("radiance_in", 40), ("radiance_an", 10)):
        write(group, f"{name}/values", np.zeros((6, 5)), ("rows", "columns"))
        positions = LocatedGranule(group).positions(f"{name}/values")
        assert positions is not None
        np.testing.assert_array_equal(positions[1], x + lon)

"""Mosaics of swaths, against pyresample and NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import shapely
import zarr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from pyresample import SwathDefinition
from pyresample.kd_tree import resample_nearest
from scenes import meta
from scipy.spatial import cKDTree
from tables import Counting
from zarr.storage import MemoryStore

import l2view
from l2view.mosaic import images
from l2view.regrid.projection import unit_vectors
from l2view.regrid.statistics import STATISTICS, grouped_statistic
from l2view.regrid.swath import SwathCells

RADIUS = 6_370_997.0
"""pyresample's radius of the globe in metres."""


def swaths(granules: list[Mapping[str, Any]], boxes: list[Any] | None = None) -> l2view.View:
    """Write granules of arrays with their latitudes and longitudes, chunked."""
    store = MemoryStore()
    root = zarr.create_group(store)
    outlines = []
    for number, arrays in enumerate(granules):
        group = root.create_group(f"granules/g{number}")
        rank = np.ndim(arrays["lat"])
        for name, values in arrays.items():
            values = np.asarray(values)
            array = group.create_array(
                name,
                shape=values.shape,
                chunks=tuple(max(1, min(n, 16)) for n in values.shape),
                dtype=values.dtype,
                dimension_names=("row", "column")[: values.ndim] if rank == values.ndim else None,
            )
            array[...] = values
            if values.dtype.kind in "iu":
                array.attrs["_FillValue"] = 0
        lat, lon = np.asarray(arrays["lat"]), np.asarray(arrays["lon"])
        outlines.append(shapely.box(np.nanmin(lon), np.nanmin(lat), np.nanmax(lon), np.nanmax(lat)))
    meta(root, len(granules), outlines if boxes is None else boxes)
    return l2view.open(store)


def skewed(rows: int = 60, columns: int = 40, west: float = 10, south: float = 40) -> Any:
    """Return latitudes and longitudes of a swath that runs askew, with cells of some 0.1°."""
    along, across = np.arange(rows)[:, None], np.arange(columns)[None, :]
    lat = south + along * 0.1 + across * 0.02
    lon = west + across * 0.13 - along * 0.03
    return lat, lon


def centres(grid: GeoBox) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return latitudes and longitudes of a grid's pixels."""
    height, width = grid.shape
    at = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = grid.transform @ (at[0], at[1])
    lon, lat = Transformer.from_crs(grid.crs.proj, "EPSG:4326", always_xy=True).transform(x, y)
    return lat, lon


def made(view: l2view.View, grid: GeoBox, **options: Any) -> np.ndarray[Any, Any]:
    options = {"bands": "sst", "chunks": 64} | options
    values: np.ndarray[Any, Any] = l2view.mosaic(view, like=grid, **options)["sst"].to_numpy()
    return values


GRIDS = {
    "degrees": GeoBox((150, 140), Affine(0.06, 0, 8, 0, -0.06, 48), "EPSG:4326"),
    "UTM": GeoBox((160, 150), Affine(5000, 0, 100_000, 0, -5000, 5_300_000), "EPSG:32633"),
    "polar": GeoBox((150, 150), Affine(8000, 0, 4_300_000, 0, -8000, -2_600_000), "EPSG:3413"),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("chunks", [37, 200])
def test_nearest_equals_pyresample(grid: GeoBox, chunks: int) -> None:
    lat, lon = skewed()
    values = np.arange(lat.size, dtype="float64").reshape(lat.shape)
    lat[10, 5] = lon[33, 20] = np.nan
    found = made(swaths([{"lat": lat, "lon": lon, "sst": values}]), grid, chunks=chunks)
    rows, columns = centres(grid)
    theirs = resample_nearest(
        SwathDefinition(np.ma.masked_invalid(lon), np.ma.masked_invalid(lat)),
        np.where(np.isnan(lat) | np.isnan(lon), np.nan, values),
        SwathDefinition(columns, rows),
        radius_of_influence=20_000,
        fill_value=np.nan,
    )
    there = np.isfinite(found)
    assert there.mean() > 0.2
    np.testing.assert_array_equal(found[there], theirs[there])
    assert (np.isfinite(theirs) | ~there).all()


@pytest.mark.parametrize("name", ["MODIS_A", "AMSR2", "ascat_20150702_102400"])
def test_real_swaths_equal_pyresample(name: str, tmp_path: Path, shared_data: Path) -> None:
    every = sorted((shared_data / "l2").iterdir())
    files = [path for path in every if name.lower() in path.name.lower()]
    l2view.ingest(files[:1], tmp_path / "store")
    view = l2view.open(tmp_path / "store", authorize=True)
    granule = view[view.names[0]]
    band = next(
        path
        for path, node in sorted(granule.members(max_depth=None))
        if isinstance(node, zarr.Array)
        and node.ndim >= 2
        and path.split("/")[-1] in ("sea_surface_temperature", "wind_speed")
    )
    arrays = {
        key: view.to_datatree()[view.names[0]].to_dataset()[key].squeeze().load()
        for key in ("lat", "lon", band)
    }
    lat, lon, values = (np.asarray(one, float) for one in arrays.values())
    lon = (lon + 180) % 360 - 180
    known = np.argwhere(np.isfinite(values))
    middle = tuple(known[len(known) // 2])
    south, west = lat[middle] - 2, lon[middle] - 2
    grid = GeoBox.from_bbox((west, south, west + 4, south + 4), "EPSG:4326", resolution=0.03)
    found = made(view, grid, bands={"sst": band}).astype(float)
    rows, columns = centres(grid)
    theirs = resample_nearest(
        SwathDefinition(np.ma.masked_invalid(lon), np.ma.masked_invalid(lat)),
        values,
        SwathDefinition(columns, rows),
        radius_of_influence=40_000,
        fill_value=np.nan,
    )
    there = np.isfinite(found)
    assert there.mean() > 0.02
    np.testing.assert_allclose(found[there], theirs[there], rtol=1e-6)


@pytest.mark.parametrize("resolution", [0.01, 0.05, 0.3])
def test_no_holes_within_and_nothing_far_beyond(resolution: float) -> None:
    lat, lon = skewed()
    view = swaths([{"lat": lat, "lon": lon, "sst": np.ones(lat.shape)}])
    grid = GeoBox.from_bbox((8, 41, 16, 45), "EPSG:4326", resolution=resolution)
    found = np.isfinite(made(view, grid, chunks=100))
    edge = [(0, 0), (0, -1), (-1, -1), (-1, 0)]
    outline = shapely.Polygon([(lon[at], lat[at]) for at in edge])
    rows, columns = centres(grid)
    inside = shapely.contains_xy(outline, columns, rows)
    near = shapely.contains_xy(outline.buffer(0.13 + resolution), columns, rows)
    assert found[inside].all()
    assert not found[~near].any()


def test_gaps_stay_gaps() -> None:
    """Between the two sides of a scatterometer's swath, and where lines are missing."""
    lat = np.linspace(0, 10, 101)[:, None] + np.zeros((1, 42))
    lon = np.concatenate([np.linspace(0, 5, 21), np.linspace(12, 17, 21)])[None] + np.zeros(
        (101, 1)
    )
    lat[60:] += 4
    view = swaths([{"lat": lat, "lon": lon, "sst": np.ones(lat.shape)}])
    grid = GeoBox.from_bbox((-2, -2, 20, 17), "EPSG:4326", resolution=0.1)
    for resampling in ("nearest", "average"):
        found = made(view, grid, resampling=resampling)
        rows, columns = centres(grid)
        gap = (columns > 5.4) & (columns < 11.6)
        line = (rows > 6.2) & (rows < 9.7)
        assert np.isnan(found[gap | line | (rows < -0.4) | (rows > 14.4)]).all()
        assert np.isfinite(found[(columns > 0) & (columns < 5) & (rows > 0) & (rows < 5.9)]).all()


def test_tracks() -> None:
    """Points along a line: wherever one lies in a pixel it is shown, however large that is."""
    lat, lon = np.linspace(-40, 40, 500), np.linspace(0, 30, 500)
    view = swaths([{"lat": lat, "lon": lon, "sst": np.arange(500.0)}])
    for resolution in (5.0, 0.5):
        grid = GeoBox.from_bbox((-10, -45, 40, 45), "EPSG:4326", resolution=resolution)
        held = {
            (int(np.floor((45 - y) / resolution)), int(np.floor((x + 10) / resolution)))
            for y, x in zip(lat, lon, strict=True)
        }
        for resampling in ("nearest", "average", "sum"):
            found = np.isfinite(made(view, grid, resampling=resampling, chunks=7))
            assert all(found[at] for at in held), (resolution, resampling)


def test_points_alone() -> None:
    view = swaths([{"lat": np.array([10.0]), "lon": np.array([20.0]), "sst": np.array([7.0])}])
    grid = GeoBox.from_bbox((19, 9, 21, 11), "EPSG:4326", resolution=0.1)
    found = made(view, grid)
    assert np.isfinite(found).sum() == 1
    assert np.nanmax(found) == 7


@pytest.mark.parametrize("chunks", [16, 500])
def test_large_cells_have_no_holes(chunks: int) -> None:
    lat = np.linspace(0, 10, 6)[:, None] + np.zeros((1, 6))
    view = swaths([{"lat": lat, "lon": lat.T.copy(), "sst": np.arange(36.0).reshape(6, 6)}])
    grid = GeoBox.from_bbox((0, 0, 10, 10), "EPSG:4326", resolution=0.05)
    assert np.isfinite(made(view, grid, chunks=chunks)).all()


def test_repeated_cells_are_the_same_in_any_chunks() -> None:
    rows = np.repeat(np.linspace(10, 14, 60), 2)
    lat = rows[:, None] + np.zeros((1, 50))
    lon = np.linspace(10, 12, 50)[None] + np.zeros((120, 1))
    view = swaths([{"lat": lat, "lon": lon, "sst": np.arange(6000.0).reshape(120, 50)}])
    grid = GeoBox.from_bbox((10, 10, 12, 14), "EPSG:4326", resolution=0.02)
    whole = made(view, grid, chunks=None)
    for chunks in (13, 50):
        np.testing.assert_array_equal(made(view, grid, chunks=chunks), whole)


@pytest.mark.parametrize("resampling", sorted(STATISTICS))
@pytest.mark.parametrize("dtype", ["float64", "int16"])
def test_statistics_are_those_of_the_cells_in_a_pixel(resampling: str, dtype: str) -> None:
    lat, lon = skewed()
    values = (np.random.default_rng(0).integers(1, 20, lat.shape)).astype(dtype)
    grid = GeoBox((7, 10), Affine(0.7, 0, 8.013, 0, -0.7, 45.977), "EPSG:4326")
    view = swaths([{"lat": lat, "lon": lon, "sst": values}])
    found = made(view, grid, resampling=resampling, dtype="float64", nodata=np.nan, chunks=3)
    column, row = (~grid.transform) @ (lon, lat)
    height, width = grid.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    table = pd.DataFrame(
        {"at": (np.floor(row) * width + np.floor(column))[inside], "v": values[inside]}
    ).groupby("at")["v"]
    expected = {
        "average": table.mean,
        "sum": table.sum,
        "min": table.min,
        "max": table.max,
        "med": table.median,
        "q1": lambda: table.quantile(0.25),
        "q3": lambda: table.quantile(0.75),
        "mode": lambda: table.agg(lambda one: one.mode().min()),
        "rms": lambda: table.agg(lambda one: np.sqrt((one.astype(float) ** 2).mean())),
    }[resampling]()
    at = expected.index.to_numpy().astype(int)
    np.testing.assert_allclose(found.ravel()[at], expected.to_numpy(), rtol=1e-12)


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), min_size=1, max_size=6))
def test_mode_is_the_least_of_the_most_frequent(groups: list[list[int]]) -> None:
    values = np.concatenate([np.sort(one) for one in groups])
    starts = np.cumsum([0, *map(len, groups)])[:-1]
    expected = [min(set(one), key=lambda v: (-one.count(v), v)) for one in groups]
    assert grouped_statistic(values, starts, "mode").tolist() == expected


def test_plans_of_swaths_draw_their_footprints() -> None:
    lat, lon = skewed()
    view = swaths([{"lat": lat, "lon": lon, "sst": np.ones(lat.shape)}])
    plan = l2view.explain_mosaic(view, crs=4326, resolution=0.1, bands="sst", chunks=32)
    assert set(plan.table.column("array").to_pylist()) == {"sst", "lat", "lon"}
    axes = plan.plot()
    assert len(axes.collections[-1].get_segments()) == 1
    plt.close(axes.figure)


def test_interpolation_is_refused_before_anything_is_read() -> None:
    lat, lon = skewed()
    view = swaths([{"lat": lat, "lon": lon, "sst": np.ones(lat.shape)}])
    with pytest.raises(l2view.QueryError, match='"bilinear".*"nearest".*average'):
        l2view.mosaic(view, crs=4326, resolution=0.1, bands="sst", resampling="bilinear")


@pytest.mark.parametrize(
    "grid",
    [
        GeoBox.from_bbox((174, -4, 186, 6), "EPSG:4326", resolution=0.1),
        GeoBox.from_bbox((-186, -4, -174, 6), "EPSG:4326", resolution=0.1),
        GeoBox.from_bbox((19_600_000, -300_000, 20_600_000, 600_000), "EPSG:3857", resolution=9000),
        GeoBox.from_bbox((2_800_000, -300_000, 4_000_000, 500_000), "EPSG:3832", resolution=9000),
    ],
    ids=["beyond 180", "beyond -180", "Mercator", "Pacific"],
)
@pytest.mark.parametrize("resampling", ["nearest", "average"])
def test_across_the_antimeridian(grid: GeoBox, resampling: str) -> None:
    lat, lon = skewed(90, 90, 176, -4)
    values = np.cos(np.radians(lon)) * 100 + lat
    wrapped = (lon + 180) % 360 - 180
    boxes = [shapely.box(-180, -10, 180, 10)]
    view = swaths([{"lat": lat, "lon": wrapped, "sst": values}], boxes)
    found = made(view, grid, resampling=resampling, chunks=40)
    rows, columns = centres(grid)
    expected = np.cos(np.radians(columns)) * 100 + rows
    there = np.isfinite(found)
    assert there.mean() > 0.4
    assert np.abs(found - expected)[there].max() < 0.2
    both = [there[:, : there.shape[1] // 2].any(), there[:, there.shape[1] // 2 :].any()]
    assert all(both)


def test_over_a_pole_and_on_a_disc() -> None:
    """Cells around the pole; and what a projection shows of the globe has an end."""
    along, across = np.meshgrid(np.linspace(-12, 12, 121), np.linspace(-6, 6, 61), indexing="ij")
    to = Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True)
    lon, lat = to.transform(along * 111e3, across * 111e3)
    view = swaths([{"lat": lat, "lon": lon, "sst": lat}], [shapely.box(-180, 70, 180, 90)])
    polar = GeoBox.from_bbox((-1.2e6, -6e5, 1.2e6, 6e5), "EPSG:3413", resolution=20_000)
    found = made(view, polar, chunks=30)
    assert np.isfinite(found).all()
    assert np.abs(found - centres(polar)[0]).max() < 0.2
    disc = GeoBox.from_bbox((-7e6, -7e6, 7e6, 7e6), "+proj=ortho +lat_0=60", resolution=60_000)
    for chunks in (20, 234):
        shown = made(view, disc, chunks=chunks)
        rows, columns = centres(disc)
        tree = cKDTree(unit_vectors(lat, lon).reshape(-1, 3))
        points = unit_vectors(*(np.where(np.isfinite(one), one, np.nan) for one in (rows, columns)))
        points = points.reshape(-1, 3)
        ok = np.isfinite(points).all(axis=1)
        far = np.full(len(points), np.inf)
        far[ok] = tree.query(points[ok])[0] * RADIUS
        assert np.isfinite(shown.ravel()[far < 12_000]).all()
        assert np.isnan(shown.ravel()[far > 60_000]).all()


def test_coordinates_of_bands_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lat, lon = skewed()
    bands = {name: lat + at for at, name in enumerate("abc")}
    view = swaths([{"lat": lat, "lon": lon, **bands}])
    located: list[int] = []

    class Counted(SwathCells):
        @classmethod
        def of(cls, lat: Any, lon: Any) -> SwathCells | None:
            located.append(1)
            return SwathCells.of(lat, lon)

    monkeypatch.setattr(images, "SwathCells", Counted)
    found = l2view.mosaic(view, like=GRIDS["degrees"], bands=["a", "b"], chunks=50).compute()
    there = np.isfinite(found["a"].to_numpy())
    np.testing.assert_allclose((found["b"] - found["a"]).to_numpy()[there], 1)
    assert len(located) == 1


def test_what_lies_under_others_is_not_read() -> None:
    """Of a swath under another no more than what shows beside it."""
    lat, lon = skewed(160, 160, 10, 30)
    values = np.ones(lat.shape)
    arrays = {"lat": lat, "lon": lon, "sst": values}
    above = {name: one[:, :150] for name, one in arrays.items()}
    view = swaths([above, arrays])
    store = Counting(view.view_store.tree.source)
    view = l2view.open(store)
    grid = GeoBox.from_bbox((6, 34, 26, 42), "EPSG:4326", resolution=0.1)
    lazy = l2view.mosaic(view, like=grid, bands="sst", chunks=500)
    store.keys.clear()
    lazy.compute()
    read = [key for key in store.chunks if "g1/sst/c" in key]
    assert 0 < len(read) <= 30  # of 100


def test_axes_that_are_uneven_and_in_any_order() -> None:
    """A grid with uneven axes is a swath whose rows and columns are known."""
    lat = np.cumsum(np.linspace(0.1, 0.3, 30)) + 10
    lon = np.cumsum(np.linspace(0.3, 0.1, 40)) + 10
    store = MemoryStore()
    root = zarr.create_group(store)
    for number, turned in enumerate((False, True)):
        group = root.create_group(f"granules/g{number}")
        for name, axis in (("lat", lat), ("lon", lon)):
            array = group.create_array(
                name, shape=axis.shape, chunks=axis.shape, dtype="float64", dimension_names=(name,)
            )
            array[...] = axis
        values = lat[:, None] + 100 * lon[None, :]
        values = values.T if turned else values
        names = ("lon", "lat") if turned else ("lat", "lon")
        band = group.create_array(
            "sst", shape=values.shape, chunks=(16, 16), dtype="float64", dimension_names=names
        )
        band[...] = values
    box = shapely.box(lon[0], lat[0], lon[-1], lat[-1])
    meta(root, 2, [box, box])
    grid = GeoBox.from_bbox((11, 11, 15, 14), "EPSG:4326", resolution=0.05)
    rows, columns = centres(grid)
    for number in range(2):
        found = made(l2view.open(store, ids=[f"g{number}"]), grid)
        near = lat[np.abs(lat[:, None] - rows[:, 0]).argmin(axis=0)]
        beside = lon[np.abs(lon[:, None] - columns[0]).argmin(axis=0)]
        off = np.abs(found - (near[:, None] + 100 * beside[None, :]))
        assert (off < 1e-9).mean() > 0.9
        assert np.isfinite(found).all()

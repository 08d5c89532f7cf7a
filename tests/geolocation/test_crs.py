"""Coordinate reference systems as files declare them: rasterio and closed formulas agree."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import zarr
from async_tiff import TIFF
from async_tiff.store import LocalStore
from builders import outline_of, put, texts
from odc.geo import CRS
from pyproj.crs import ProjectedCRS
from rasterio.warp import transform
from zarr.storage import MemoryStore

import l2view
from l2view.geolocation.crs import CrsTable, axis_factor, geokeys_crs, mapping_crs, to_degrees
from l2view.geolocation.granule import LocatedGranule
from l2view.geolocation.transforms import geotiff_transform

TMERC = "+proj=tmerc +lat_0=30 +lon_0=-85 +k=0.9999 +x_0=150000 +datum=NAD27 +type=crs"
NAD27 = ProjectedCRS(pyproj.CRS(TMERC).coordinate_operation, geodetic_crs=pyproj.CRS(4267))
OF_TIFFS = [
    "EPSG:3031",
    "EPSG:2263",
    NAD27.to_wkt(),
    "+proj=stere +lat_0=90 +lat_ts=70 +lon_0=-45 +a=6378273 +b=6356889.449",
    "+proj=stere +lat_0=-90 +lat_ts=-71 +lon_0=0 +datum=WGS84",
    "+proj=stere +lat_0=90 +k_0=0.994 +lon_0=0 +x_0=2000000 +y_0=2000000 +datum=WGS84",
    "+proj=stere +lat_0=40 +lon_0=10 +k=0.999 +ellps=WGS84",
    "+proj=sterea +lat_0=52.15 +lon_0=5.38 +k=0.9999 +x_0=155000 +y_0=463000 +ellps=bessel",
    "+proj=sinu +lon_0=0 +R=6371007.181",
    "+proj=laea +lat_0=52 +lon_0=10 +x_0=4321000 +y_0=3210000 +ellps=GRS80",
    "+proj=aea +lat_1=29.5 +lat_2=45.5 +lat_0=23 +lon_0=-96 +ellps=GRS80",
    "+proj=lcc +lat_1=33 +lat_2=45 +lat_0=39 +lon_0=-96 +ellps=GRS80",
    "+proj=lcc +lat_1=40 +lat_0=40 +lon_0=-96 +k_0=0.999 +ellps=GRS80",
    "+proj=tmerc +lat_0=49 +lon_0=-2 +k=0.9996 +x_0=400000 +y_0=-100000 +ellps=airy",
    "+proj=tmerc +lat_0=40 +lon_0=-75 +k=0.9999 +x_0=200000 +y_0=0 +ellps=GRS80 +units=us-ft",
    "+proj=utm +zone=33 +south +ellps=intl",
    "+proj=merc +lon_0=150 +k=0.9 +ellps=WGS84",
    "+proj=merc +lat_ts=20 +lon_0=-40 +ellps=WGS84",
    "+proj=eqc +lat_ts=30 +lon_0=20 +ellps=WGS84",
    "+proj=aeqd +lat_0=50 +lon_0=10 +ellps=WGS84",
    "+proj=cea +lat_ts=30 +lon_0=0 +ellps=WGS84",
    "+proj=cass +lat_0=31 +lon_0=35 +ellps=WGS84",
    "+proj=poly +lat_0=0 +lon_0=-54 +ellps=GRS80",
    "+proj=ortho +lat_0=30 +lon_0=20 +R=6371000",
    "+proj=lcc +lat_1=33 +lat_2=45 +lat_0=39 +lon_0=-96 +datum=NAD27 +units=us-ft",
    "+proj=geos +h=35786023 +lon_0=-137 +sweep=x +ellps=GRS80",
    "+proj=longlat +R=6371000",
    "+proj=longlat +ellps=airy",
    "+proj=longlat +ellps=clrk80ign +pm=paris",
]


def tiff_tags(path: Path) -> dict[str, Any]:
    """Return a TIFF's tags that place it, by the names that virtual-tiff gives them."""

    async def read() -> dict[str, Any]:
        (ifd,) = (await TIFF.open(path.name, store=LocalStore(str(path.parent)))).ifds
        keys = ifd.geo_key_directory
        assert keys is not None
        tags = {name: keys[name] for name in keys.keys()}  # noqa: SIM118
        names = ("model_tiepoint", "model_pixel_scale", "model_transformation")
        return tags | {name: list(tag) for name in names if (tag := getattr(ifd, name))}

    return {name: tag for name, tag in asyncio.run(read()).items() if tag is not None}


@pytest.mark.parametrize("crs", OF_TIFFS)
@pytest.mark.parametrize("point", [False, True])
def test_keys_of_tiffs_are_what_gdal_reads(tmp_path: Path, crs: str, point: bool) -> None:
    path = tmp_path / "a.tif"
    size = 1.0 if "longlat" in crs else 1000.0
    place = rasterio.Affine(size, 0, 12 * size, 0, -size, 40 * size)
    options = {"width": 4, "height": 4, "count": 1, "dtype": "uint8", "driver": "GTiff"}
    with rasterio.open(path, "w", crs=crs, transform=place, **options) as file:
        file.update_tags(AREA_OR_POINT="Point" if point else "Area")
        file.write(np.zeros((1, 4, 4), "uint8"))
    tags = tiff_tags(path)
    assert geotiff_transform(tags) == place
    declared = geokeys_crs(tags)
    assert declared is not None
    x, y = (np.linspace(-10, 30, 9) * size for _ in range(2))
    lat, lon = to_degrees(x, y, CRS(declared))
    with rasterio.open(path) as file:
        truth = transform(file.crs, "EPSG:4326", x, y)
    np.testing.assert_allclose(lon, truth[0], atol=1e-9)
    np.testing.assert_allclose(lat, truth[1], atol=1e-9)


def test_keys_that_are_not_known_are_no_crs() -> None:
    tie = {"model_tiepoint": [0, 0, 0, 0, 0, 0], "model_pixel_scale": [1, 1, 0]}
    assert geokeys_crs({}) is None
    assert geokeys_crs(tie | {"model_type": 2, "geographic_type": 4326}) == "EPSG:4326"
    assert geokeys_crs(tie | {"model_type": 1, "projected_type": 32632}) == "EPSG:32632"
    for keys in ({}, {"proj_coord_trans": 23}, {"projection": 1}):
        assert geokeys_crs(tie | {"model_type": 1, "projected_type": 32767} | keys) is None


@pytest.mark.parametrize(
    "name",
    [
        "LC08_L2SR_099120_20191129_20201016_02_T2_SR_B1.TIF",
        "MOD10A2.A2022033.h09v05.061.2022042050729_Eight_Day_Snow_Cover.tif",
        "OPERA_L3_DSWx-HLS_T48SUE_20190302T034350Z_20230131T222341Z_L8_30_v0.0_BROWSE.tiff",
        "OR_ABI-L2-CMIPM1-M6C01_G17_s20200111504255_e20200111504313_c20200111504367_CMI.tif",
    ],
)
def test_real_tiffs_lie_where_rasterio_has_them(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    """By true scales, minor axes, projections, and WKT in a citation."""
    path = shared_data / "real" / name
    l2view.ingest(path, tmp_path / "c", defaults={"datetime": "2020-01-01"})
    view = l2view.open(tmp_path / "c")
    granule = LocatedGranule(view[view.names[0]])  # type: ignore[arg-type]
    image = next(path for path, array in granule.arrays.items() if array.ndim >= 2)
    step = 1 + max(granule.arrays[image].shape) // 1_000
    positions = granule.positions(image, (slice(None, None, step),) * 2)
    assert positions is not None
    with rasterio.open(path) as file:
        rows, columns = np.mgrid[: file.height : step, : file.width : step]
        x, y = file.transform * (columns.ravel() + 0.5, rows.ravel() + 0.5)
        lon, lat = transform(file.crs, "EPSG:4326", x, y)
    np.testing.assert_allclose(positions[0].ravel(), lat, atol=1e-7)
    np.testing.assert_allclose(positions[1].ravel(), lon, atol=1e-7)
    footprint = shapely.from_wkb(view.table.column("bbox")[0].as_py())
    assert shapely.intersects_xy(footprint.buffer(1e-9), lon, lat).all()


GOES = {
    "grid_mapping_name": "geostationary",
    "perspective_point_height": 35_786_023.0,
    "semi_major_axis": 6_378_137.0,
    "semi_minor_axis": 6_356_752.31414,
    "inverse_flattening": 298.2572221,
    "latitude_of_projection_origin": 0.0,
    "longitude_of_projection_origin": -75.0,
    "sweep_angle_axis": "x",
}


def of_mapping(mapping: dict[str, Any]) -> CRS:
    wkt = mapping_crs(mapping)
    assert wkt is not None
    return CRS(wkt)


def test_goes_r_as_its_guide_computes_it() -> None:
    """The example of the GOES-R Product Definition and Users' Guide, volume 5, 4.2.8.1."""
    crs = of_mapping(GOES)
    for units, factor in (("rad", 1.0), ("microradian", 1e6), ("degrees", 180 / np.pi)):
        scale = axis_factor(units, crs)
        assert scale is not None
        x, y = np.array([-0.024052]) * factor * scale, np.array([0.095340]) * factor * scale
        lat, lon = to_degrees(x, y, crs)
        assert lat[0] == pytest.approx(33.846162, abs=1e-6)
        assert lon[0] == pytest.approx(-84.690932, abs=1e-6)


def test_meteosat_as_cgms_computes_it() -> None:
    """The normalised geostationary projection of CGMS 03 (LRIT/HRIT), 4.4.3.2, sweep y."""
    mapping = GOES | {"longitude_of_projection_origin": 0.0, "sweep_angle_axis": "y"}
    mapping |= {"semi_major_axis": 6378.169e3, "semi_minor_axis": 6356.5838e3}
    mapping |= {"perspective_point_height": 42164e3 - 6378.169e3}
    mapping.pop("inverse_flattening")
    crs = of_mapping(mapping)
    x, y = (angle.ravel() for angle in np.meshgrid([-0.1, 0.02, 0.09], [-0.08, 0.01, 0.1]))
    ratio = (6378.169 / 6356.5838) ** 2
    cosines = np.cos(x) * np.cos(y)
    flat = np.cos(y) ** 2 + ratio * np.sin(y) ** 2
    root = np.sqrt((42164 * cosines) ** 2 - flat * (42164**2 - 6378.169**2))
    distance = (42164 * cosines - root) / flat
    along, right = 42164 - distance * cosines, distance * np.sin(x) * np.cos(y)
    lon = np.degrees(np.arctan2(right, along))
    lat = np.degrees(np.arctan(ratio * distance * np.sin(y) / np.hypot(along, right)))
    height = mapping["perspective_point_height"]
    found = to_degrees(x * height, y * height, crs)
    np.testing.assert_allclose(found[0], lat, atol=1e-6)
    np.testing.assert_allclose(found[1], lon, atol=1e-6)
    older = {**mapping, "fixed_angle_axis": "x"}
    older.pop("sweep_angle_axis")
    np.testing.assert_allclose(to_degrees(x * height, y * height, of_mapping(older)), found)


def test_polar_grids_by_either_variant() -> None:
    """NSIDC's, by the latitude of true scale, and by the scale at the pole that it stands for."""
    variant_b = {
        "grid_mapping_name": "polar_stereographic",
        "straight_vertical_longitude_from_pole": -45.0,
        "latitude_of_projection_origin": 90.0,
        "standard_parallel": 70.0,
        "semi_major_axis": 6_378_273.0,
        "semi_minor_axis": 6_356_889.449,
    }
    x, y = np.array([-3.85e6, 0.0, 3.75e6]), np.array([5.85e6, 0.0, -5.35e6])
    lat, lon = to_degrees(x, y, of_mapping(variant_b))
    np.testing.assert_allclose(lat, [30.98, 90, 34.35], atol=0.15)
    assert lon[[0, 2]] == pytest.approx([168.35, -9.97], abs=0.1)
    assert to_degrees(x, y, CRS("EPSG:3411"))[0] == pytest.approx(lat, abs=1e-3)
    e2 = 1 - (6_356_889.449 / 6_378_273) ** 2
    e, s = np.sqrt(e2), np.sin(np.radians(70))
    t = np.tan(np.pi / 4 - np.radians(70) / 2) / ((1 - e * s) / (1 + e * s)) ** (e / 2)
    m = np.cos(np.radians(70)) / np.sqrt(1 - e2 * s**2)
    scale = m * np.sqrt((1 + e) ** (1 + e) * (1 - e) ** (1 - e)) / (2 * t)
    variant_a = variant_b | {"scale_factor_at_projection_origin": scale}
    variant_a.pop("standard_parallel")
    np.testing.assert_allclose(to_degrees(x, y, of_mapping(variant_a))[0], lat, atol=1e-7)


def test_spheres_and_sinusoidal_grids() -> None:
    radius = 6_371_007.181
    mapping = {"grid_mapping_name": "sinusoidal", "earth_radius": radius}
    x, y = np.array([-9e6, 1e6, -1.9e7]), np.array([4e6, -6e6, 4e6])
    for name in ("longitude_of_central_meridian", "longitude_of_projection_origin"):
        lat, lon = to_degrees(x, y, of_mapping(mapping | {name: 0.0}))
        latitude = np.array([4e6, -6e6]) / radius
        longitude = np.array([-9e6, 1e6]) / (radius * np.cos(latitude))
        np.testing.assert_allclose(lat[:2], np.degrees(latitude), atol=1e-9)
        np.testing.assert_allclose(lon[:2], np.degrees(longitude), atol=1e-9)
        assert np.isnan(lat[2])  # beyond the antimeridian
        assert np.isnan(lon[2])


def test_mappings_that_are_not_understood_are_told() -> None:
    table = CrsTable()
    assert table.number(mapping_crs({"grid_mapping_name": "universal_transverse_mercator"})) == -1
    assert table.number(mapping_crs({"grid_mapping_name": "geostationary"})) == -1
    assert len(table.unknown) == 2
    assert mapping_crs({"units": "1"}) is None
    assert table.number(None) == table.number("") == -1
    listed = {name: [said] if isinstance(said, float) else said for name, said in GOES.items()}
    assert of_mapping(listed) == of_mapping(GOES)


def test_units_of_axes() -> None:
    utm, feet, kilometres = (
        CRS("EPSG:32631"),
        CRS("EPSG:2263"),
        CRS("+proj=utm +zone=31 +units=km +type=crs"),
    )
    assert axis_factor(None, utm) == axis_factor("m", utm) == axis_factor("metre", utm) == 1
    assert axis_factor("km", utm) == 1000
    assert axis_factor("km", kilometres) == axis_factor("kilometre", kilometres) == 1
    assert axis_factor("m", feet) == pytest.approx(3937 / 1200)
    assert axis_factor("US survey foot", feet) == 1
    assert axis_factor("rad", utm) is None
    assert axis_factor("degrees", utm) is None
    assert axis_factor("parsec", utm) is None
    assert axis_factor("degrees_north", CRS("EPSG:4326")) == 1
    assert axis_factor("km", CRS("EPSG:4326")) is None


def grid(mapping: dict[str, Any], y: Any, x: Any, units: str) -> tuple[MemoryStore, zarr.Group]:
    store = MemoryStore()
    root = zarr.create_group(store)
    group = root.create_group("a")
    for name, values in (("y", y), ("x", x)):
        attributes = {"standard_name": f"projection_{name}_coordinate", "units": units}
        group.create_array(name, data=values, dimension_names=(name,), attributes=attributes)
    group.create_array("crs", data=np.int32(0), attributes=mapping)
    values = np.arange(len(y) * len(x), dtype="i4").reshape(len(y), len(x))
    group.create_array(
        "red", data=values, dimension_names=("y", "x"), attributes={"grid_mapping": "crs"}
    )
    put(root.create_group("meta"), "id", texts(["a"]))
    return store, group


@pytest.mark.parametrize("longitude", [-75.0, 140.7])
def test_a_full_disk(longitude: float) -> None:
    """Cells beside the disk lie nowhere; its outline is the limb, and crops end there."""
    mapping = GOES | {"longitude_of_projection_origin": longitude}
    angles = np.linspace(-0.151844, 0.151844, 201)
    store, group = grid(mapping, angles[::-1], angles, "rad")
    granule = LocatedGranule(group)
    positions = granule.positions("red")
    assert positions is not None
    lat, lon = positions
    on_disk = np.isfinite(lat)
    assert 0.70 < on_disk.mean() < 0.80
    footprint = outline_of(group)
    assert shapely.intersects_xy(footprint, lon[on_disk], lat[on_disk]).all()
    _, south, _, north = footprint.bounds
    assert -81.6 < south < -81
    assert 81 < north < 81.6
    assert footprint.area < 162 * 162
    view = l2view.open(store)

    def sel(west: float, south: float, east: float, north: float) -> Any:
        west, east = ((longitude + side + 180) % 360 - 180 for side in (west, east))
        return view.sel(bbox=(west, south, east, north), exact=True)["a/red"]

    for center in (-60, 60):
        rows, columns = np.divmod(sel(center - 5, 30, center + 5, 40)[...], 201)
        east_of = (lon - longitude - center + 180) % 360 - 180
        inside = (lat >= 30) & (lat <= 40) & (np.abs(east_of) <= 5)
        for shown, axis in ((rows, 1), (columns, 0)):
            touched = np.flatnonzero(inside.any(axis=axis))
            assert touched[0] - 2 <= shown.min() <= touched[0]
            assert touched[-1] <= shown.max() <= touched[-1] + 2
    limb = np.flatnonzero(on_disk.any(axis=0))
    assert np.ptp(limb) - 1 <= sel(-170, -80, 170, 80).shape[1] <= 201
    assert 0 in sel(100, -10, 110, 10).shape


def test_a_tile_at_the_end_of_a_sinusoidal_grid() -> None:
    mapping = {
        "grid_mapping_name": "sinusoidal",
        "earth_radius": 6_371_007.181,
        "longitude_of_central_meridian": 0.0,
    }
    size = 1_111_950.519667
    x = -20_015_109.354 + (np.arange(60) + 0.5) * size / 60 * 3
    y = 4 * size - (np.arange(40) + 0.5) * size / 20
    _, group = grid(mapping, y, x, "m")
    positions = LocatedGranule(group).positions("red")
    assert positions is not None
    lat, lon = positions
    on_globe = np.isfinite(lat)
    assert 0.2 < on_globe.mean() < 0.95
    footprint = outline_of(group)
    assert shapely.intersects_xy(footprint.buffer(1e-9), lon[on_globe], lat[on_globe]).all()
    assert footprint.bounds[0] == pytest.approx(-180, abs=1e-3)
    assert footprint.bounds[2] < -130


def test_a_real_geostationary_product(shared_data: Path, tmp_path: Path) -> None:
    """ABI's file says which part of the globe it shows."""
    name = "OR_ABI-L2-LSTM2-M6_G16_s20211381700538_e20211381700595_c20211381701211"
    l2view.ingest(shared_data / "real" / f"{name}.nc", tmp_path / "c")
    view = l2view.open(tmp_path / "c")
    group = view[name]
    extent = group["geospatial_lat_lon_extent"].attrs  # type: ignore[union-attr,index]
    footprint = shapely.from_wkb(view.table.column("bbox")[0].as_py())
    truth = [
        extent[f"geospatial_{side}bound_{axis}"]
        for side, axis in (
            ("west", "longitude"),
            ("south", "latitude"),
            ("east", "longitude"),
            ("north", "latitude"),
        )
    ]
    assert footprint.bounds == pytest.approx(truth, abs=0.05), json.dumps(truth)

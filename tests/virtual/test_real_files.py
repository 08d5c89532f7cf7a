"""Granules of five instruments in three formats, through a view, against other readers.

netCDF4 and rasterio read the same files, packed and unpacked.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import icechunk
import netCDF4
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
import zarr
from builders import put, texts
from obspec_utils.registry import ObjectStoreRegistry
from obstore.store import LocalStore
from virtual_tiff import VirtualTIFF
from virtualizarr.parsers import HDFParser, NetCDF3Parser

import l2view
from l2view.geolocation.cell_outlines import of_swath

FILES = [
    "2020_01_02_3200ff_global.nc",
    "S6A_P4_2__HR_RED__NR_014_191_20210403T004056_20210403T005056_F00.nc",
    "SS_AMSR2-L2B_v08_r38622-v02.0-fv01.0.nc",
    "SS_MODIS_A-JPL-L2P-v2014.0.nc",
    "SS_MODIS_T-JPL-L2P-v2014.0.nc",
    "ascat_20150702_084200_metopa_45145_eps_o_250_2300_ovw.l2.nc",
    "ascat_20150702_102400_metopa_45146_eps_o_250_2300_ovw.l2.nc",
    "ascat_20210614_001500_metopa_76026_eps_o_250_3202_ovw.l2.nc",
    "ascat_20211220_213600_metopb_48037_eps_o_250_3202_ovw.l2_subsetted.nc4",
    "ascat_20211220_231800_metopb_48038_eps_o_250_3202_ovw.l2.nc4",
]


def parser_for(path: Path) -> Any:
    """The parser that a file's first bytes ask for."""
    magic = path.read_bytes()[:4]
    if magic[:3] == b"CDF":
        return NetCDF3Parser()
    return HDFParser() if magic[1:] == b"HDF" else VirtualTIFF(ifd_layout="nested")


@pytest.fixture(scope="module", params=["groups", "packed"])
def view(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> l2view.View:
    """Every file of the folder, virtualised into one repository, in both layouts."""
    if request.param == "packed":
        path = tmp_path_factory.mktemp("real") / "repository"
        report = l2view.ingest(
            shared_data / "l2",
            path,
            harvest=lambda _, url: {"id": url.rpartition("/")[2]},
            defaults={"datetime": "2016-01-01"},  # of the TIFF, which doesn't say
        )
        assert report.failures == 0
        return l2view.open(path)
    return in_groups(shared_data / "l2", tmp_path_factory)


def in_groups(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> l2view.View:
    prefix = f"{folder.resolve().as_uri()}/"
    config = icechunk.RepositoryConfig.default()
    store = icechunk.local_filesystem_store(str(folder))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, store))
    path = tmp_path_factory.mktemp("real") / "repository"
    repository = icechunk.Repository.create(
        icechunk.local_filesystem_storage(str(path)), config=config
    )
    session = repository.writable_session("main")
    root = zarr.create_group(session.store)
    registry = ObjectStoreRegistry({"file://": LocalStore()})
    names = sorted(path.name for path in folder.iterdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            tree = parser_for(folder / name)((folder / name).resolve().as_uri(), registry)
            for node in tree.to_virtual_datatree(loadable_variables=[]).subtree:
                group = f"granules/{name}{node.path.rstrip('/')}"
                node.to_dataset(inherit=False).vz.to_icechunk(session.store, group=group, mode="a")
    meta = root.create_group("meta")
    put(meta, "id", texts(names))
    put(meta, "group_path", texts(f"granules/{name}" for name in names))
    session.commit("real granules")
    return l2view.open(path, authorize=[prefix])


def variables(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, variable in group.variables.items():
        yield prefix + name, variable
    for name, below in group.groups.items():
        yield from variables(below, f"{prefix}{name}/")


@pytest.mark.parametrize("name", FILES)
def test_netcdf(view: l2view.View, shared_data: Path, name: str) -> None:
    compared = 0
    with netCDF4.Dataset(shared_data / "l2" / name) as file:
        for path, variable in variables(file):
            if variable.size == 0 and path not in view[name]:
                continue  # VirtualiZarr's parser leaves variables without values out
            array = view[f"{name}/{path}"]
            variable.set_auto_maskandscale(False)
            raw = np.asarray(variable[...])
            found = np.asarray(array[...])
            assert found.shape == raw.shape
            assert found.dtype == raw.dtype.newbyteorder("=")
            assert found.tobytes() == raw.astype(found.dtype).tobytes(), path
            compare_unpacked(view, f"{name}/{path}", variable, raw)
            assert set(variable.ncattrs()) <= {*array.attrs, "_FillValue"}
            compared += 1
        assert set(file.ncattrs()) <= set(view[name].attrs)
    empty = "231800" in name and "profile" not in view.table.schema.names
    assert compared == (0 if empty else len(variables_of(shared_data, name)))


def variables_of(shared_data: Path, name: str) -> list[str]:
    with netCDF4.Dataset(shared_data / "l2" / name) as file:
        return [path for path, _ in variables(file)]


def compare_unpacked(view: l2view.View, path: str, variable: Any, raw: Any) -> None:
    """Compare with netCDF4's unpacking; its single-precision factors leave single precision."""
    if raw.dtype.kind not in "iuf":
        return
    group, _, name = path.rpartition("/")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two fill values, or one that is no value
        dataset = xr.open_zarr(view.store, group=group, decode_times=False, chunks=None)
        found = dataset[name].values.astype(np.float64)
        variable.set_auto_maskandscale(True)
        expected = np.ma.masked_array(variable[...])
    shown = ~np.ma.getmaskarray(expected)
    offset = abs(dataset[name].encoding.get("add_offset", 0))
    largest = np.nanmax(np.abs(expected.data[shown]), initial=0) + offset
    np.testing.assert_allclose(
        found[shown],
        expected.data[shown].astype(np.float64),
        rtol=0,
        atol=2 * np.finfo(np.float32).eps * float(largest),
        err_msg=path,
    )
    if "_FillValue" in variable.ncattrs():
        missing = raw == variable.getncattr("_FillValue")
        assert np.isnan(found[missing]).all(), path


def test_geotiff(view: l2view.View, shared_data: Path) -> None:
    path = shared_data / "l2" / "cog.tif"
    group = view["cog.tif"]
    with rasterio.open(path) as full:
        arrays = [full.read(1)]
        nodata, levels = full.nodata, len(full.overviews(1))
    for level in range(levels):
        with rasterio.open(path, overview_level=level) as overview:
            arrays.append(overview.read(1))
    assert len(arrays) > 1
    for level, expected in enumerate(arrays):
        packed = "profile" in view.table.schema.names
        found = np.asarray(group[f"{level}" if packed else f"{level}/{level}"][...])
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        if packed:  # one Dataset can't hold images of two sizes
            continue
        decoded = xr.open_zarr(view.store, group=f"cog.tif/{level}", chunks=None)[str(level)]
        masked = np.ma.masked_equal(expected, nodata) if nodata is not None else expected
        shown = ~np.ma.getmaskarray(masked)
        np.testing.assert_array_equal(decoded.values[shown], expected[shown])


def test_the_tree_of_everything(view: l2view.View) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files that name two fill values
        tree = l2view_tree(view)
    assert len(tree.children) == len(FILES) + ("profile" not in view.table.schema.names)
    ours = tree[FILES[1]]["data_01/ku"].to_dataset(inherit=False)
    theirs = xr.open_zarr(view.store, group=f"{FILES[1]}/data_01/ku", chunks=None)
    xr.testing.assert_identical(ours, theirs)


def l2view_tree(view: l2view.View) -> xr.DataTree:
    """The tree of all granules, but for packed images of two sizes in one group."""
    if "profile" not in view.table.schema.names:
        return view.to_datatree()
    collection = l2view.Collection(view.attrs["l2view"]["collection"])
    return collection.open("id <> 'cog.tif'").to_datatree()


@pytest.mark.filterwarnings("ignore:WARNING. missing_value not used:UserWarning")
@pytest.mark.parametrize("transposed", [False, True])
def test_footprints_hold_their_pixels(shared_data: Path, transposed: bool) -> None:
    """Whichever axis is along the track."""
    found = 0
    for path in sorted((shared_data / "l2").glob("*.nc*")):
        with netCDF4.Dataset(path) as file:
            if "lat" not in file.variables or file["lat"].ndim < 2 or not file["lat"].size:
                continue
            lat, lon = (np.ma.filled(file[name][:].astype("f8"), np.nan) for name in ("lat", "lon"))
        shape = (-1, lat.shape[-1])
        lat, lon = lat.reshape(shape), (lon.reshape(shape) + 180) % 360 - 180
        outline = of_swath(*((lat.T, lon.T) if transposed else (lat, lon)))
        some = np.isfinite(lat) & np.isfinite(lon)
        outside = ~shapely.intersects_xy(outline, lon[some], lat[some])
        assert outside.mean() < 5e-4, path.name
        assert shapely.get_num_coordinates(outline) < 1_000
        found += 1
    assert found >= 6

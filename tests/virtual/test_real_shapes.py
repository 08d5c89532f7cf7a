"""The shapes of views over granules of five instruments, against xarray on their files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import l2view

ASCAT = ("084200_metopa_45145", "102400_metopa_45146")
SST = ("SS_MODIS_A-JPL-L2P-v2014.0", "SS_MODIS_T-JPL-L2P-v2014.0")
AMSR2 = "SS_AMSR2-L2B_v08_r38622-v02.0-fv01.0"
S6 = "S6A_P4_2__HR_RED__NR_014_191_20210403T004056_20210403T005056_F00"
SHARED = ["lat", "lon", "sea_surface_temperature"]


@pytest.fixture(scope="module")
def collection(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> l2view.Collection:
    path = tmp_path_factory.mktemp("shapes") / "repository"
    report = l2view.ingest(sorted((shared_data / "l2").glob("*.nc*")), path)
    assert report.added.count == 10
    return l2view.Collection(path)


def read(folder: Path, name: str) -> xr.Dataset:
    """Return a file as xarray decodes it."""
    return xr.open_dataset(folder / "l2" / f"{name}.nc")


def close(found: xr.DataArray, expected: Any) -> None:
    """Compare values; the scale factors of Zarr are doubles, where the files have singles."""
    assert found.shape == expected.shape
    if expected.dtype.kind in "mM":
        np.testing.assert_array_equal(found.values, expected)
    else:
        np.testing.assert_allclose(found.values, expected, rtol=2e-7, equal_nan=True)


def test_two_ascat_orbits_stacked(collection: l2view.Collection, shared_data: Path) -> None:
    view = collection.open("id LIKE 'ascat_20150702%'", layout="stack", order_by="id")
    found = xr.open_zarr(view.store)
    files = [read(shared_data, f"ascat_20150702_{name}_eps_o_250_2300_ovw.l2") for name in ASCAT]
    assert set(files[0].variables) <= set(found.variables)
    for name, variable in files[0].variables.items():
        assert found[name].dtype == variable.dtype
        close(found[name], np.stack([file[name].values for file in files]))
    assert found.wind_speed.chunks == ((1, 1), (1632,), (42,))


def test_an_orbit_with_other_attributes(collection: l2view.Collection, shared_data: Path) -> None:
    where = "id LIKE 'ascat_%metopa_%'"
    asked: dict[str, Any] = {"layout": "stack", "order_by": "id"}
    with pytest.raises(l2view.ShapeError, match="time: add_offset is none in ascat_20150702"):
        collection.open(where, **asked)
    found = collection.open(where, encoding="unify", **asked).to_dataset()
    names = [f"{name}" for name in found["id"].values]
    assert len(names) == 3
    files = [read(shared_data, name) for name in names]
    for name in files[0].variables:
        close(found[name], np.stack([file[name].values for file in files]))


def test_modis_swaths_end_to_end(collection: l2view.Collection, shared_data: Path) -> None:
    """Of 1,233 and 1,057 rows, each one chunk, none of which is decoded on the way."""
    view = collection.open("id LIKE 'SS_MODIS%'", layout="concat", dim="nj", order_by="id")
    found = xr.open_zarr(view.store)
    assert found.lat.chunks == ((1233, 1057), (1354,))
    for name, axis in (("lat", 0), ("lon", 0), ("sea_surface_temperature", 1)):
        expected = np.concatenate([read(shared_data, n)[name].values for n in SST], axis=axis)
        close(found[name], expected)
        ones = [f"{name}/c/{n}/0" if axis == 0 else f"{name}/c/0/{n}/0" for n in range(2)]
        assert all(isinstance(view.view_store.shape.find(key), str) for key in ones)
    assert found.time.shape == (2, 1)


def test_three_instruments_unified(collection: l2view.Collection, shared_data: Path) -> None:
    """Other widths, scales, fill values and words for kelvin, end to end and side by side."""
    names = [AMSR2, *SST]
    files = [read(shared_data, name) for name in names]
    asked: dict[str, Any] = {"variables": SHARED, "order_by": "id", "encoding": "unify"}
    where = "id LIKE 'SS_%'"
    with pytest.raises(l2view.ShapeError, match="ragged"):
        collection.open(where, layout="concat", dim="nj", **asked)
    asked["ragged"] = "pad"
    with pytest.warns(l2view.L2ViewWarning, match="subskin_temperature.*skin_temperature"):
        joined = collection.open(where, layout="concat", dim="nj", **asked).to_dataset()
    with pytest.warns(l2view.L2ViewWarning, match="they are joined all the same"):
        stacked = collection.open(where, layout="stack", **asked).to_dataset()
    assert joined.sea_surface_temperature.attrs["units"] == "K"
    assert joined.nj_size.values.tolist() == [1064, 1233, 1057]
    begin = 0
    for number, file in enumerate(files):
        rows, columns = file.lat.shape
        for name in SHARED:
            expected = file[name].values
            end_to_end = joined[name].isel(nj=slice(begin, begin + rows))
            close(end_to_end.isel(ni=slice(columns)), expected)
            assert bool(np.isnan(end_to_end.isel(ni=slice(columns, None))).all())
            side = stacked[name].isel(granule=number)
            close(side.isel(nj=slice(rows), ni=slice(columns)), expected)
            assert bool(np.isnan(side.isel(nj=slice(rows, None))).all())
        begin += rows


def test_nested_groups_of_sentinel_6(collection: l2view.Collection, shared_data: Path) -> None:
    view = collection.open(ids=[S6], layout="stack")
    found = view.to_datatree()
    expected = xr.open_datatree(shared_data / "l2" / f"{S6}.nc")
    compared = 0
    for node in expected.subtree:
        for name, variable in node.dataset.variables.items():
            if name in node.dataset.coords and name not in found[node.path].dataset.variables:
                continue  # inherited
            array = found[node.path].dataset[name]
            assert array.dims == ("granule", *variable.dims)
            close(array, variable.values[None])
            compared += 1
    assert compared >= 111


def test_all_of_them_at_once(collection: l2view.Collection) -> None:
    """What differs stands in groups of its own, each with a name."""
    where = "product_version IS NULL OR product_version <> '2014.0'"
    view = collection.open(where, layout="stack", encoding="unify", ragged="pad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # xarray's, of fill values that are twice in the files
        tree = view.to_datatree()
    said = tree.attrs["l2view"]["stacks"]
    assert set(said) == set(tree.children)
    assert sum(one["granules"] for one in said.values()) == 8
    for name, one in said.items():
        assert all(tree[f"{name}/{path}"].ndim for path in one["arrays"])


def test_real_granules_as_a_collection_and_as_a_copy(
    collection: l2view.Collection, tmp_path: Path
) -> None:
    """All ten: each array of the copies has the values of the view."""
    view = collection.open()
    view.to_icechunk(tmp_path / "copy")
    view.to_zarr(tmp_path / "copy.zarr")
    again = l2view.open(tmp_path / "copy")
    copied = zarr.open_group(tmp_path / "copy.zarr", mode="r")
    assert again.nbytes_by_container == view.nbytes_by_container
    assert [row["id"] for row in again.table.to_pylist()] == view.table["id"].to_pylist()
    compared = 0
    for name in view.names:
        group = view[name]
        assert isinstance(group, zarr.Group)
        for path, node in group.members(max_depth=None):
            if isinstance(node, zarr.Array):
                for other in (again, copied):
                    found = other[f"{name}/{path}"]
                    assert isinstance(found, zarr.Array)
                    np.testing.assert_array_equal(found[...], node[...])
                    assert found.metadata.codecs == node.metadata.codecs  # type: ignore[union-attr]
                compared += 1
    assert compared > 150


def test_real_references(collection: l2view.Collection, shared_data: Path) -> None:
    """They lie within their files, and none of them in another."""
    table = collection.open().references().read_all()
    sizes = {path.as_uri(): path.stat().st_size for path in (shared_data / "l2").iterdir()}
    resolved = {Path(url.removeprefix("file://")).resolve().as_uri(): n for url, n in sizes.items()}
    virtual = [row for row in table.to_pylist() if row["kind"] == "virtual"]
    assert len(virtual) > 200
    for row in virtual:
        file = Path(row["path"].removeprefix("file://")).resolve().as_uri()
        assert row["offset"] + row["length"] <= resolved[file]
        assert row["granule"] in row["path"]


def test_real_swaths_for_kerchunk_and_virtualizarr(
    collection: l2view.Collection, shared_data: Path, tmp_path: Path
) -> None:
    view = collection.open("id LIKE 'ascat_20150702%'", layout="stack", order_by="id")
    files = [read(shared_data, f"ascat_20150702_{name}_eps_o_250_2300_ovw.l2") for name in ASCAT]
    expected = np.stack([file.wind_speed.values for file in files])
    view.to_kerchunk(tmp_path / "refs.json")
    found = xr.open_dataset(str(tmp_path / "refs.json"), engine="kerchunk", chunks=None)
    close(found.wind_speed, expected)
    store = view.to_manifest_store()
    close(xr.open_zarr(store, consolidated=False, zarr_format=3).wind_speed, expected)


def test_real_swaths_on_a_map(collection: l2view.Collection) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    view = collection.open("id LIKE 'ascat_%' OR id LIKE 'SS_%'")
    ax = view.plot("wind_speed")
    assert ax.get_title() == "wind_speed of 5 of 8 granules"
    panels = collection.open("id LIKE 'SS_%'").plot("sea_surface_temperature", ncols=3)
    assert panels.shape == (1, 3)
    panels[0, 0].figure.canvas.draw()
    mpl.pyplot.close("all")

"""What comes in opens: xarray decodes what its attributes say, and the rest is as it is stored."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import shapely
import xarray as xr
import zarr

import l2view
from l2view.ingest.report import IngestReport

DEFAULTS = {"datetime": "2025-06-01", "bbox": shapely.to_wkb(shapely.box(0, 0, 1, 1))}


def ingested(path: Path) -> tuple[l2view.View, IngestReport]:
    report = l2view.ingest(path, path.parent / "collection", defaults=DEFAULTS)
    assert report.added.count == 1, report
    return l2view.open(path.parent / "collection", fields=[]), report


def opened(view: l2view.View, group: str = "g") -> xr.Dataset:
    """Open a granule as xarray does, and compare with the tree."""
    dataset = xr.open_zarr(view.store, group=group, consolidated=False, chunks=None).load()
    with warnings.catch_warnings():
        warnings.simplefilter("error", l2view.UndecodedArrayWarning)
        assert view.to_datatree()[group].to_dataset(inherit=False).load().identical(dataset)
    return dataset


@pytest.mark.parametrize(
    ("attributes", "set_aside"),
    [
        ({"units": "days since 0000-01-01"}, {"units"}),
        ({"units": "days since 2000-01-01", "calendar": "lunar"}, {"units", "calendar"}),
        ({"units": "elapsed since launch", "coordinates": "t"}, {"units"}),
        ({"scale_factor": "0.1 K", "units": "K"}, {"scale_factor"}),
        ({"scale_factor": [0.1, 0.2], "add_offset": 1.0}, {"scale_factor", "add_offset"}),
        ({"coordinates": 5, "scale_factor": 0.5}, {"coordinates"}),
        (
            {"coordinates": 5, "scale_factor": "x", "long_name": "a"},
            {"coordinates", "scale_factor"},
        ),
        ({"coordinates": ["t", "t"], "units": 5}, set()),
    ],
)
def test_attributes_that_xarray_cannot_decode(
    tmp_path: Path, attributes: dict[str, Any], set_aside: set[str]
) -> None:
    root = zarr.create_group(tmp_path / "g.zarr")
    for name, extra in (("odd", attributes), ("t", {"units": "days since 2000-01-01"})):
        array = root.create_array(
            name, data=np.arange(3, dtype="i4"), dimension_names=("n",), attributes=extra
        )
        assert array.shape == (3,)
    view, report = ingested(tmp_path / "g.zarr")
    dataset = opened(view)
    factor = 0.5 if attributes.get("scale_factor") == 0.5 else 1
    np.testing.assert_array_equal(dataset["odd"], np.arange(3) * factor)
    assert dataset["t"].dtype.kind == "M"
    stored = dict(view["g/odd"].attrs)
    assert {f"undecoded_{n}": attributes[n] for n in set_aside}.items() <= stored.items()
    assert stored.keys() >= attributes.keys() - set_aside
    assert [note for note in report.notes if note.startswith("odd isn't decoded")] == (
        list(report.notes) if set_aside else []
    )
    assert "g the first: odd isn't decoded" in str(report) or not set_aside


@pytest.mark.parametrize("file_format", ["NETCDF4", "NETCDF3_CLASSIC"])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i4", "i2"])
def test_times_that_were_never_written(tmp_path: Path, file_format: Any, dtype: str) -> None:
    """They are masked as netCDF's own reader masks them; xarray by an attribute alone."""
    with netCDF4.Dataset(tmp_path / "g.nc", "w", format=file_format) as file:
        file.createDimension("n", 4)
        time = file.createVariable("n", dtype, ("n",))
        time.units = "days since 2000-01-01"
        time[:2] = [1, 2]
        file.createVariable("sst", "f4", ("n",))[:3] = 1
    with netCDF4.Dataset(tmp_path / "g.nc") as file:
        mask = np.ma.getmaskarray(file["n"][:])
    assert mask.tolist() == [False, False, True, True]
    view, _ = ingested(tmp_path / "g.nc")
    dataset = opened(view)
    np.testing.assert_array_equal(np.isnat(dataset["n"]), mask)
    assert dataset["n"][1] == np.datetime64("2000-01-03")
    assert dataset["sst"][3] > 9e36  # as xarray has it


def test_variables_called_like_the_first_of_their_dimensions(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "g.nc", "w") as file:
        file.createDimension("node", 2)
        inner = file.createGroup("inner")
        for group, name in ((file, "siglay"), (inner, "siglev")):
            group.createDimension(name, 3)
            group.createDimension(f"other_{name}", 2)
            group.createVariable(name, "f4", (name, "node"))[:] = np.arange(6).reshape(3, 2)
        expected = {"": file["siglay"].dimensions, "/inner": inner["siglev"].dimensions}
    view, _ = ingested(tmp_path / "g.nc")
    for (group, dimensions), name in zip(expected.items(), ("siglay", "siglev"), strict=True):
        dataset = opened(view, f"g{group}")
        assert dataset[name].dims == dimensions
        np.testing.assert_array_equal(dataset[name], np.arange(6).reshape(3, 2))


def test_dimensions_of_texts_that_have_storage(tmp_path: Path) -> None:
    """They are dimensions by their name, and texts are joined along them."""
    with h5py.File(tmp_path / "g.h5", "w") as file:
        scales = []
        for name, length in (("n", 2), ("string4", 4)):
            scale = file.create_dataset(name, data=np.zeros(length, ">f4"))
            scale.make_scale(f"This is a netCDF dimension but not a netCDF variable.{length:10}")
            scales.append(scale)
        texts = file.create_dataset("name", data=np.array([list("PRES"), list("TEMP")], "S1"))
        for axis, scale in zip(texts.dims, scales, strict=True):
            axis.attach_scale(scale)
    view, _ = ingested(tmp_path / "g.h5")
    expected = xr.open_dataset(tmp_path / "g.h5", engine="h5netcdf")
    dataset = opened(view)
    assert set(dataset.variables) == {"name"}
    assert dataset["name"].identical(expected["name"].assign_attrs(dataset["name"].attrs))


@pytest.mark.parametrize("file_format", ["NETCDF4", "NETCDF3_CLASSIC"])
def test_characters_with_a_fill_value(tmp_path: Path, file_format: Any) -> None:
    """But that xarray masks no character of Zarr v3, which has no attributes of bytes."""
    with netCDF4.Dataset(tmp_path / "g.nc", "w", format=file_format) as file:
        file.createDimension("n", 2)
        file.createDimension("strlen", 3)
        for name, axes, values in (
            ("flag", ("n", "strlen"), [list("ab "), list("c  ")]),
            ("qc", ("n",), ["1", "2"]),
        ):
            variable = file.createVariable(name, "S1", axes, fill_value=b" ")
            variable[:] = np.array(values, "S1")
    view, _ = ingested(tmp_path / "g.nc")
    engine: Any = "h5netcdf" if file_format == "NETCDF4" else "scipy"
    expected = xr.open_dataset(tmp_path / "g.nc", engine=engine)
    dataset = opened(view)
    for name in ("flag", "qc"):
        assert dataset[name].dims == expected[name].dims
        assert dataset[name].to_numpy().tolist() == expected[name].to_numpy().tolist()


def test_a_scalar_called_like_a_dimension(tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "g.zarr")
    root.create_array("x", data=np.array(2.0))
    root.create_array("along", data=np.ones(5), dimension_names=("x",))
    view, _ = ingested(tmp_path / "g.zarr")
    dataset = opened(view)
    assert dataset["x"] == 2
    assert dataset["along"].dims == ("x_1",)


def test_texts_with_a_fill_value(tmp_path: Path) -> None:
    for name in ("g", "h"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            texts = np.array(["good", "", "bad"], dtype=h5py.string_dtype())
            file["x"], file["sst"], file["quality"] = np.arange(3), np.arange(3.0), texts
            file["quality"].attrs["_FillValue"] = ""
            file["x"].make_scale()
            for array in (file["sst"], file["quality"]):
                array.dims[0].attach_scale(file["x"])
    expected = xr.open_dataset(tmp_path / "g.h5", engine="h5netcdf")["quality"]
    assert expected.isnull().to_numpy().tolist() == [False, True, False]
    view, _ = ingested(tmp_path / "g.h5")
    dataset = opened(view)
    assert dataset["quality"].isnull().equals(expected.isnull())
    assert dataset["sst"].to_numpy().tolist() == [0, 1, 2]
    assert l2view.ingest(tmp_path / "h.h5", tmp_path / "collection", defaults=DEFAULTS).added.count
    for layout in ({"layout": "stack"}, {"layout": "concat", "dim": "x", "encoding": "unify"}):
        options: Any = layout
        joined = l2view.open(tmp_path / "collection", fields=[], **options).to_dataset()
        assert joined["quality"].to_numpy().ravel().tolist().count("good") == 2
    cells = l2view.sql(tmp_path / "collection", "SELECT value FROM cells('quality')").to_pylist()
    assert [row["value"] for row in cells].count(None) == 2

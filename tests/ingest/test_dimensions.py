"""Names of dimensions: as netCDF readers name them, and of one length wherever xarray looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import netCDF4
import numpy as np
import pytest
import shapely
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

import l2view
from l2view.geolocation.struct_metadata import read_structures

DEFAULTS = {"datetime": "2025-06-01", "bbox": shapely.to_wkb(shapely.box(0, 0, 1, 1))}

lengths = st.lists(st.integers(1, 4), min_size=1, max_size=3)
names = st.sampled_from(["a", "b", "c"])
groups = st.recursive(
    st.dictionaries(names, lengths, max_size=3),
    lambda children: st.dictionaries(names, st.one_of(lengths, children), max_size=3),
    max_leaves=8,
)


def write(group: h5py.Group, nodes: dict[str, Any]) -> None:
    for name, node in nodes.items():
        if isinstance(node, dict):
            write(group.create_group(name), node)
        else:
            group[name] = np.arange(np.prod(node), dtype="f4").reshape(node)


def view_of(path: Path) -> l2view.View:
    report = l2view.ingest(path, path.parent / "collection", defaults=DEFAULTS)
    assert report.added.count == 1, report
    return l2view.open(path.parent / "collection", fields=[])


def dimensions(group: Any) -> dict[str, tuple[str, ...]]:
    """Return the dimensions of all variables of a netCDF reader's group, by path."""
    found = {name: tuple(variable.dimensions) for name, variable in group.variables.items()}
    for name, child in group.groups.items():
        found |= {f"{name}/{path}": axes for path, axes in dimensions(child).items()}
    return found


@given(groups)
def test_dimensions_of_one_length_are_one_as_in_h5netcdf(
    tmp_path_factory: pytest.TempPathFactory, nodes: dict[str, Any]
) -> None:
    """But for the numbers, which netCDF-C and h5netcdf give in orders of their own."""
    path = tmp_path_factory.mktemp("phony") / "g.h5"
    with h5py.File(path, "w") as file:
        write(file, nodes)
    with h5netcdf.File(path, phony_dims="sort") as file:
        expected = dimensions(file)
    if not expected:
        return
    view = view_of(path)
    root: Any = view["g"]
    pairs = {
        pair
        for name, axes in expected.items()
        for pair in zip(axes, root[name].metadata.dimension_names, strict=True)
    }
    assert len(pairs) == len({theirs for theirs, _ in pairs}) == len({ours for _, ours in pairs})
    tree = view.to_datatree()
    for name in expected:
        np.testing.assert_array_equal(tree[f"g/{name}"].to_numpy(), root[name][...])
    assert xr.open_datatree(view.store, engine="zarr", consolidated=False)


def test_what_was_written_less_far_is_padded_as_netcdf_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "g.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("time", None)
        file.createDimension("x", 3)
        file.createVariable("time", "f8", ("time",))[:] = np.arange(5)
        for name, dtype, written in (("some", "f4", 3), ("few", "i2", 1), ("none", "i4", 0)):
            variable = file.createVariable(name, dtype, ("time", "x"), chunksizes=(2, 3))
            if written:
                variable[:written] = np.ones((written, 3))
        inner = file.createGroup("inner")
        inner.createVariable("some", "u1", ("time",), fill_value=7)[:2] = [1, 2]
        flat = file.createVariable("wide", "f4", ("x", "time"), zlib=True)
        flat[:, :4] = np.ones((3, 4))
    view = view_of(path)
    for group in ("", "inner"):
        # netCDF-C pads no dimension but the first right.
        expected = xr.open_dataset(path, group=group, engine="h5netcdf")
        opened = xr.open_zarr(view.store, group=f"g/{group}", consolidated=False, chunks=None)
        for name, variable in expected.variables.items():
            assert opened[name].dims == variable.dims
            np.testing.assert_array_equal(opened[name], variable)
    assert view.to_datatree()["g/inner/some"].shape == (5,)


def test_a_dimension_of_a_group_hides_one_above(tmp_path: Path) -> None:
    """It has another length for good, and nothing lacks along it."""
    path = tmp_path / "g.nc"
    with netCDF4.Dataset(path, "w") as file:
        inner = file.createGroup("inner")
        for group, length in ((file, 10), (inner, 5)):
            group.createDimension("x", length)
            group.createDimension("time", None)
            group.createVariable("x", "f8", ("x",))[:] = np.arange(length)
            group.createVariable("v", "f4", ("time", "x"))[:length] = np.ones((length, length))
    view = view_of(path)
    root: Any = view["g"]
    assert root["v"].shape == (10, 10)
    assert root["inner/v"].shape == (5, 5)
    assert (root["inner/v"][...] == 1).all()
    assert xr.open_datatree(view.store, engine="zarr", consolidated=False)


@pytest.mark.parametrize("conflict", ["in a group", "below a group"])
def test_a_name_of_several_lengths_is_told_apart(tmp_path: Path, conflict: str) -> None:
    path = tmp_path / "g.zarr"
    root = zarr.create_group(path)
    root.create_array("a", data=np.ones((2, 3)), dimension_names=("y", "x"))
    root.create_array("y_1", data=np.ones(4), dimension_names=("y_1",))
    inner = root if conflict == "in a group" else root.create_group("inner")
    inner.create_array("b", data=np.ones((5, 3)), dimension_names=("y", "x"))
    inner.create_array("c", data=np.ones((5, 2)), dimension_names=("y", "x"))
    view = view_of(path)
    tree = view.to_datatree()
    below = tree["g"] if conflict == "in a group" else tree["g/inner"]
    assert tree["g/a"].dims == ("y", "x")
    assert below["b"].dims == ("y_2", "x")
    assert below["c"].dims == ("y_2", "x_1")
    assert xr.open_datatree(view.store, engine="zarr", consolidated=False)


def test_a_dimension_that_an_array_lies_along_twice(tmp_path: Path) -> None:
    """As averaging kernels do; xarray masks nothing of them in the original."""
    with netCDF4.Dataset(tmp_path / "g.nc", "w") as file:
        file.createDimension("level", 3)
        file.createDimension("x", 2)
        for name, axes in (("kernel", ("x", "level", "level")), ("cube", ("level",) * 3)):
            variable = file.createVariable(name, "f4", axes, fill_value=-1)
            variable[:] = np.arange(variable.size).reshape(variable.shape)
        file.createVariable("profile", "f4", ("level",))[:] = [1, 2, 3]
    opened = view_of(tmp_path / "g.nc").to_datatree()["g"].to_dataset()
    assert opened["kernel"].dims == ("x", "level", "level_1")
    assert opened["cube"].dims == ("level", "level_1", "level_2")
    assert opened["kernel"].sel(level=1, level_1=2).to_numpy().tolist() == [5, 14]
    assert opened["profile"].dims == ("level",)


@pytest.mark.parametrize("layout", ["tree", "stack"])
def test_a_dimension_called_like_that_of_granules(tmp_path: Path, layout: Any) -> None:
    path = tmp_path / "g.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("granule", 5)
        file.createVariable("v", "f8", ("granule",))[:] = np.arange(5)
    view_of(path)
    view = l2view.open(tmp_path / "collection", layout=layout)
    opened = xr.open_datatree(view.store, engine="zarr", consolidated=False)
    values = opened["v" if layout == "stack" else "g/v"].to_numpy().ravel()
    assert values.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("is_variable", [False, True])
def test_lists_of_products(tmp_path: Path, is_variable: bool) -> None:
    path = tmp_path / "g.h5"
    structure = """GROUP=SwathStructure
  GROUP=SWATH_1
    SwathName="O3"
    GROUP=GeoField
      OBJECT=GeoField_1
        GeoFieldName="Latitude"
        DimList=("nTimes")
      END_OBJECT=GeoField_1
    END_GROUP=GeoField
    GROUP=DataField
      OBJECT=DataField_1
        DataFieldName="O3"
        DimList=("nTimes","nLevels")
      END_OBJECT=DataField_1
    END_GROUP=DataField
  END_GROUP=SWATH_1
END_GROUP=SwathStructure
GROUP=GridStructure
  GROUP=GRID_1
    GridName="G"
    GROUP=DataField
      OBJECT=DataField_1
        DataFieldName="wrong"
        DimList=("YDim")
      END_OBJECT=DataField_1
    END_GROUP=DataField
  END_GROUP=GRID_1
END_GROUP=GridStructure
"""
    with h5py.File(path, "w") as file:
        swath = "HDFEOS/SWATHS/O3"
        file[f"{swath}/Geolocation Fields/Latitude"] = np.ones(4)
        file[f"{swath}/Data Fields/O3"] = np.ones((4, 4))
        file["HDFEOS/GRIDS/G/Data Fields/wrong"] = np.ones((2, 3))
        text = structure if is_variable else np.bytes_(structure.ljust(4000, "\0"))
        file["HDFEOS INFORMATION/StructMetadata.0"] = text
        file["S1/Tc"] = np.ones((2, 3))
        file["S1/Tc"].attrs["DimensionNames"] = np.bytes_("nscan1, npixel1")
    root: Any = view_of(path)["g"]
    assert root[f"{swath}/Data Fields/O3"].metadata.dimension_names == ("nTimes", "nLevels")
    assert root[f"{swath}/Geolocation Fields/Latitude"].metadata.dimension_names == ("nTimes",)
    assert root["S1/Tc"].metadata.dimension_names == ("nscan1", "npixel1")
    assert root["HDFEOS/GRIDS/G/Data Fields/wrong"].metadata.dimension_names == (
        "phony_dim_0",
        "phony_dim_1",
    )


def test_a_structure_in_many_pieces() -> None:
    """In the order of their numbers: the tenth comes after the second."""
    text = (
        'GROUP=SwathStructure\nGROUP=SWATH_1\nSwathName="S"\nGROUP=DimensionMap\n'
        'OBJECT=DimensionMap_1\nGeoDimension="t"\nDataDimension="d"\nOffset=2\nIncrement=5\n'
        'END_OBJECT=DimensionMap_1\nDataFieldName="v"\nDimList=("d","x")\nEND_GROUP=SWATH_1\n'
    )
    size = len(text) // 11 + 1
    pieces = {f"StructMetadata.{n}": text[n * size : (n + 1) * size] for n in range(11)}
    (swath,) = read_structures(pieces, {})
    assert (swath.name, swath.maps) == ("S", [("t", "d", 2, 5)])
    assert swath.fields == {"v": ("Data Fields", ("d", "x"))}

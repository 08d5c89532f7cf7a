"""Mosaics as files, by the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 (which gives xarray's objects theirs)
import xarray as xr
import zarr
from scenes import UTM31, X, Y, collection, scene, stack, write_tiff
from typer.testing import CliRunner

import l2view
from l2view.cli import app
from l2view.mosaic import array


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["mosaic", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    collection(stack(), str(tmp_path / "store"))
    return tmp_path


def test_the_command_writes_files(folder: Path) -> None:
    store = str(folder / "store")
    whole = l2view.mosaic(l2view.open(store), crs=UTM31, resolution=10, bands="red")
    for name in ("a.tif", "a.zarr"):
        out = str(folder / name)
        done = run(store, out, "--crs", UTM31, "--resolution", "10", "--band", "r=red")
        assert done.exit_code == 0, done.output
        again = run(store, out, "--crs", UTM31, "--resolution", "10")
        assert again.exit_code == 1
        assert "is there already" in str(again.exception)
        again = run(
            store, out, "--crs", UTM31, "--resolution", "10", "--band", "r=red", "--overwrite"
        )
        assert again.exit_code == 0, again.exception
        assert not list(folder.glob(".a*"))
    with rasterio.open(folder / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1), whole["red"])
        assert file.descriptions == ("r",)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    written = xr.open_zarr(folder / "a.zarr", consolidated=False, mask_and_scale=False)
    np.testing.assert_array_equal(written["r"], whole["red"])
    assert zarr.open_group(folder / "a.zarr").attrs["proj:code"] == UTM31
    like = run(
        store, str(folder / "b.tif"), "--like", str(folder / "a.tif"), "--order-by", "id DESC"
    )
    assert like.exit_code == 0, like.output
    with rasterio.open(folder / "b.tif") as file:
        assert file.shape == whole["red"].shape


def test_the_command_explains(folder: Path) -> None:
    done = run(str(folder / "store"), "--explain", "--crs", UTM31, "--resolution", "20")
    assert done.exit_code == 0
    assert "chunks    1 of" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.png", "--crs", UTM31, "--resolution", "10"], "ends in .tif"),
        (["no/a.tif", "--crs", UTM31, "--resolution", "10"], "there is no folder"),
        (
            ["a.tif", "--crs", UTM31, "--resolution", "10", "--group-by", "P1D"],
            "room for one image.*5 of them.*.zarr",
        ),
        (["a.tif", "--like", "absent.tif"], "is no image"),
    ],
)
def test_the_command_says_what_is_wrong(folder: Path, arguments: list[str], said: str) -> None:
    done = run(str(folder / "store"), str(folder / arguments[0]), *arguments[1:])
    assert done.exit_code == 1
    assert re.search(said, str(done.exception))
    usage = run(str(folder / "store"), "--crs", UTM31)
    assert usage.exit_code == 2


def test_nothing_else_is_overwritten(folder: Path) -> None:
    """Neither the granules, nor what something else wrote."""
    store = str(folder / "store")
    asked = ["--crs", UTM31, "--resolution", "10", "--overwrite"]
    for out in (store, f"{store}/a.zarr", str(folder)):
        assert run(store, out, *asked).exit_code == 2
    (folder / "other.zarr").mkdir()
    (folder / "other.zarr" / "kept.txt").write_text("precious")
    write_tiff(folder / "other.tif", scene(X, Y))
    for out in ("other.zarr", "other.tif"):
        done = run(store, str(folder / out), *asked)
        assert done.exit_code == 1
        assert "no mosaic of l2view's" in str(done.exception)
    assert (folder / "other.zarr" / "kept.txt").read_text() == "precious"
    twice = run(store, str(folder / "a.tif"), *asked[:4], "--band", "a=red", "--band", "a=red")
    assert twice.exit_code == 2


def test_a_tiff_has_bands_of_one_type(tmp_path: Path) -> None:
    one, other = scene(X, Y), scene(X, Y, dtype="float32", nodata=np.nan)
    collection([{"red": one, "t": other}], str(tmp_path / "store"))
    done = run(
        str(tmp_path / "store"), str(tmp_path / "a.tif"), "--crs", UTM31, "--resolution", "10"
    )
    assert "one data type and fill value" in str(done.exception)
    both = ["--dtype", "float32", "--nodata", "-1"]
    done = run(
        str(tmp_path / "store"),
        str(tmp_path / "a.tif"),
        "--crs",
        UTM31,
        "--resolution",
        "10",
        *both,
    )
    assert done.exit_code == 0, done.exception
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.descriptions == ("red", "t")
        assert file.nodata == -1


def test_a_failed_write_leaves_what_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, out = str(folder / "store"), folder / "a.zarr"
    assert run(store, str(out), "--crs", UTM31, "--resolution", "10").exit_code == 0
    before = sorted(out.rglob("*"))

    def broken(*_: Any) -> Any:
        raise l2view.ChunkError("gone")

    monkeypatch.setattr(array.BandArray, "window", broken)
    done = run(store, str(out), "--crs", UTM31, "--resolution", "10", "--overwrite")
    assert done.exit_code == 1
    assert sorted(out.rglob("*")) == before
    assert not list(folder.glob(".a*"))

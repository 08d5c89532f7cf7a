"""``l2view demo``, from an empty folder to a picture."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import shapely
from command_line import run

import l2view
from l2view.cli.demo import MARK, prepare_folder
from l2view.demo.check import check_granule
from l2view.demo.files import require_packages, write_granules

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.slow
def test_demo(demo_run: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    parent, printed = demo_run
    folder = parent / "l2view-demo"
    for line in (
        "8 netCDF-3 swaths",
        "8 HDF5 swaths",
        "6 GeoTIFF scenes",
        "6 granules found",
        "SciPy     8 granules, 24 arrays, 913,152 values: the same",
        "h5py      8 granules, 24 arrays, 1,093,632 values: the same",
        "rasterio  6 granules, 18 arrays, 8,257,536 values: the same",
    ):
        assert line in printed
    assert not list(folder.glob("*/stale"))
    assert (folder / "demo.png").read_bytes().startswith(PNG)
    footprints = shapely.from_wkb(l2view.search(folder / "collection")["bbox"].to_numpy())
    assert "MultiPolygon" in {footprint.geom_type for footprint in footprints}
    # What it printed works as printed.
    monkeypatch.chdir(parent)
    (call,) = re.findall(r"l2view\.open\(.*?\]\)", printed, re.DOTALL)
    assert eval(call, {"l2view": l2view}).table.num_rows == 6


def test_demo_makes_its_folder(tmp_path: Path) -> None:
    files = prepare_folder(tmp_path / "new" / "demo")
    assert files.is_dir()
    assert (tmp_path / "new" / "demo" / MARK).exists()


def test_demo_leaves_folders_of_others_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = run("demo", str(tmp_path), code=1)
    assert "is not empty, and not the demo's; name another folder" in done.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_the_check_would_notice(tmp_path: Path) -> None:
    """A check that can't fail is none: one value of one file is changed behind its back."""
    files = tmp_path / "granules"
    files.mkdir()
    granules = [g for g in write_granules(files) if g.path.suffix == ".h5"][:1]
    l2view.ingest(granules[0].path, tmp_path / "collection")
    view = l2view.open(tmp_path / "collection", authorize=True)
    (name,) = view.names
    assert check_granule(view.get_group(name), granules[0].path).different == ()
    other = tmp_path / "other.h5"
    other.write_bytes(granules[0].path.read_bytes())
    with h5py.File(other, "r+") as file:
        file["lat"][7, 7] += 1
    assert check_granule(view.get_group(name), other).different == ("lat",)


def test_granules_differ_in_packing_shape_and_zone(tmp_path: Path) -> None:
    granules = list(write_granules(tmp_path))
    scales, shapes = set(), set()
    for granule in granules:
        if granule.path.suffix == ".h5":
            with h5py.File(granule.path) as file:
                scales.add(
                    float(np.ravel(file["sea_surface_temperature"].attrs["scale_factor"])[0])
                )
                shapes.add(file["lat"].shape)
    assert len(scales) == len(shapes) == 8
    names = {
        granule.path.name.split("_")[1] for granule in granules if granule.path.suffix == ".tif"
    }
    assert names == {"T31TGJ", "T32TGJ"}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(l2view.L2ViewError, match=r"the demo needs rasterio: pip install 'l2view\["):
        require_packages()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = run("demo", str(tmp_path / "mine.txt"), code=1)
    assert "mine.txt is a file; name a folder for the demo" in done.stderr

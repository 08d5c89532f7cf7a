"""Small files of well-known products, by the plain command: all comes in, with place and time.

``docs/products.md`` says what comes of each, and of the real files; it can't say anything else.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import shapely
from command_line import run
from oracles import (
    hdf4_differences,
    is_hdf5,
    netcdf_differences,
    opened_groups,
    stored_differences,
    tiff_difference,
)
from products.catalogue import Product
from products.table import PRODUCTS, REAL, page_row

import l2view
from l2view.ingest.granule import Entry

# Of data types and codecs that products have and Zarr's specification hasn't.
pytestmark = pytest.mark.filterwarnings("ignore")

PAGE = Path(__file__).parent.parent.parent / "docs" / "products.md"


def ids(product: Product) -> str:
    return product.name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files, and the collection of all of them by one command without options."""
    folder = tmp_path_factory.mktemp("products")
    for product in PRODUCTS:
        product.write(folder / product.file)
    files = (str(folder / product.file) for product in PRODUCTS)
    options = "-s", str(folder / "collection"), "--report", str(folder / "report.json")
    run("ingest", *files, *options)
    return folder


@pytest.fixture(scope="module")
def view(folder: Path) -> l2view.View:
    return l2view.open(folder / "collection", authorize=True)


@pytest.fixture(scope="module")
def report(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """What became of each granule."""
    entries = json.loads((folder / "report.json").read_text())["granules"]
    return {entry["id"]: entry for entry in entries}


@pytest.fixture(scope="module")
def rows(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    found = l2view.Collection(folder / "collection", authorize=True).search().to_pylist()
    return {row["id"]: row for row in found}


def granule_id(product: Product) -> str:
    return Entry.of_file(product.file).id


@pytest.mark.parametrize("product", PRODUCTS, ids=ids)
def test_place(product: Product, rows: Mapping[str, Mapping[str, Any]]) -> None:
    bbox = rows[granule_id(product)]["bbox"]
    if product.place is None:
        assert bbox is None
        return
    bounds = shapely.from_wkb(bbox).bounds
    assert np.abs(np.subtract(bounds, product.place)).max() <= product.apart
    assert shapely.box(*bounds).buffer(0.01).covers(shapely.box(*product.place))


@pytest.mark.parametrize("product", PRODUCTS, ids=ids)
def test_time(product: Product, rows: Mapping[str, Mapping[str, Any]]) -> None:
    row = rows[granule_id(product)]
    times = [row.get("start_datetime"), row.get("end_datetime")]
    for at, expected in zip(times, product.time, strict=True):
        assert (at is None) == (expected is None)
        if at is not None and expected is not None:
            assert abs(at.replace(tzinfo=None) - expected) < dt.timedelta(milliseconds=10)


@pytest.mark.parametrize("product", PRODUCTS, ids=ids)
def test_values(
    product: Product,
    folder: Path,
    view: l2view.View,
    report: Mapping[str, Mapping[str, Any]],
) -> None:
    """What xarray opens of each group has the values that the formats' own readers read."""
    name, path = granule_id(product), folder / product.file
    omitted = report[name].get("omitted", {})
    assert [*omitted] == [*product.omitted]
    assert list(opened_groups(view, name))
    if product.form in ("COG", "GeoTIFF"):
        assert tiff_difference(view, name, path) is None
        return
    if product.form.startswith("HDF4"):
        differing = dict(hdf4_differences(view, name, path))
    else:
        differing = dict(netcdf_differences(view, name, path, omitted=omitted))
        assert not is_hdf5(path) or stored_differences(view[name], path, omitted) == []
    assert differing
    assert {name: differs for name, differs in differing.items() if differs} == {}


@pytest.mark.parametrize(
    ("name", "bbox", "shapes"),
    [
        (
            "MODIS MOD09GA with two grids",
            (14, 33, 16, 36),
            {"state_1km_1": (5, 4), "sur_refl_b01_1": (8, 6)},
        ),
        ("MODIS MCD43A1 tile", (14, 33, 16, 36), {"BRDF": (8, 6, 3)}),
        ("NISE, EASE-Grid north", (0, 70, 30, 80), {"Extent": (6, 5)}),
        ("GPM IMERG (half hour)", (10.5, 41, 11, 42), {"Grid/precipitation": (1, 6, 11)}),
        ("MTG FCI L2 CLM", (-10, 30, 0, 50), {"cloud_state": (10, 6)}),
    ],
)
def test_grids_are_cropped(
    folder: Path, name: str, bbox: Any, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    granule = next(granule_id(product) for product in PRODUCTS if product.name == name)
    view = l2view.open(folder / "collection", ids=[granule], authorize=True)
    cropped = view.sel(bbox=bbox, exact=True)[granule]
    assert {path: cropped[path].shape for path in shapes} == shapes
    if "MTG" in name:  # the last columns of the western half are those below the satellite
        assert cropped["x"][...].tolist() == [26, 27, 28, 29, 30, 31]


def test_one_tree(view: l2view.View) -> None:
    tree = view.to_datatree()
    assert len(tree.children) == len(PRODUCTS)
    assert all(node.to_dataset() is not None for node in tree.subtree)


def test_the_page_tells_what_comes_of_each(
    report: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Mapping[str, Any]]
) -> None:
    named = {granule_id(p): (p.name, p.level, p.form, p.note) for p in PRODUCTS}
    assert missing_rows(named, report, rows) == []


def missing_rows(
    named: Mapping[str, tuple[str, str, str, str]],
    report: Mapping[str, Mapping[str, Any]],
    rows: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Return the rows that the page lacks; ``python -m products.table`` prints all, in ``tests``."""
    lines = PAGE.read_text().splitlines()
    expected = (
        page_row(product, level, form, report[name], rows.get(name), note)
        for name, (product, level, form, note) in named.items()
    )
    return [row for row in expected if row not in lines]


def test_the_page_tells_what_comes_of_real_files(shared_data: Path, tmp_path: Path) -> None:
    files = sorted(path for path in (shared_data / "real").iterdir() if path.suffix != ".md")
    assert {path.name for path in files} == REAL.keys()
    options = "-s", str(tmp_path / "c"), "--report", str(tmp_path / "report.json")
    run("ingest", *map(str, files), *options, code=1)  # some are left out
    entries = json.loads((tmp_path / "report.json").read_text())["granules"]
    found = l2view.Collection(tmp_path / "c", authorize=True).search().to_pylist()
    named = {entry["id"]: REAL[unquote(entry["href"]).rpartition("/")[2]] for entry in entries}
    report = {entry["id"]: entry for entry in entries}
    assert len(named) == len(REAL)
    assert missing_rows(named, report, {row["id"]: row for row in found}) == []

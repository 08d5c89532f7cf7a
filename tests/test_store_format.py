"""Collections that an earlier version wrote, packed and groups, open and grow with this one.

`store_format/write.py` wrote them, and what netCDF4 and rasterio say of the same files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import icechunk
import netCDF4
import numpy as np
import originals
import pytest
import shapely
import xarray as xr

import l2view

ROWS = {row["id"]: row for row in json.loads((originals.FOLDER / "rows.json").read_text())}
with np.load(originals.FOLDER / "arrays.npz") as archive:
    ARRAYS = dict(archive)
IDS = ["swath_a", "swath_b", "scene_a", "track", "scene_b", "swath_c"]
TAGGED = {"first": ["swath_a", "swath_d", "swath_b", "scene_a"], "second": IDS}
SWATHS = ["swath_a", "swath_b", "swath_c"]
SCENES = ["scene_a", "scene_b"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with originals.serve() as url:
        yield url


def unpack(form: str, folder: Path) -> Path:
    with ZipFile(originals.FOLDER / f"{form}.zip") as archive:
        archive.extractall(folder / "collection")
    return folder / "collection"


@pytest.fixture(params=["packed", "groups"])
def path(request: pytest.FixtureRequest, tmp_path: Path, url: str) -> Path:
    """A collection to write to."""
    return unpack(request.param, tmp_path)


@pytest.fixture(scope="module", params=["packed", "groups"])
def collection(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, url: str
) -> l2view.Collection:
    """A collection to read from."""
    path = unpack(request.param, tmp_path_factory.mktemp(request.param))
    return l2view.Collection(path, authorize=[f"{url}/"])


def stored(name: str) -> dict[str, Any]:
    """Return the stored values of a granule's arrays by their paths."""
    return {
        key.removeprefix(f"{name}/"): values
        for key, values in ARRAYS.items()
        if key.startswith(f"{name}/") and "decoded:" not in key
    }


def decoded(name: str, variable: str) -> Any:
    return ARRAYS[f"{name}/decoded:{variable}"]


def ids(table: Any) -> list[str]:
    return table.column("id").to_pylist()


def assert_values(view: l2view.View, names: list[str]) -> None:
    assert list(view.names) == names
    for name in names:
        for variable, values in stored(name).items():
            array = view[f"{name}/{variable}"]
            assert array.dtype == values.dtype or array.dtype.kind == "T"
            np.testing.assert_array_equal(array[...], values)


def test_nothing_is_read_unasked(path: Path) -> None:
    with pytest.raises(l2view.AuthorizationError, match=originals.URL):
        l2view.open(path)


def test_fields(collection: l2view.Collection) -> None:
    rows = {row["id"]: row for row in collection.search().to_pylist()}
    assert list(rows) == IDS
    for name, row in rows.items():
        expected = dict(ROWS[name])
        west, south, east, north = expected.pop("bounds")
        for field, value in expected.items():
            actual = row[field]
            if field in ("datetime", "end_datetime", "reviewed"):
                actual = actual and actual.isoformat()
            if field == "token":
                actual = (actual or b"").hex() or None
            assert actual == value, (name, field)
        shape = shapely.from_wkb(row["bbox"])
        if west < east:
            np.testing.assert_allclose(shape.bounds, (west, south, east, north), atol=0.4)
        else:
            assert shape.bounds == (-180, south, 180, north)
        assert row["href"].startswith(f"{originals.URL}/{name}.")


@pytest.mark.parametrize(
    ("where", "is_match"),
    [
        (
            "cloud_cover < 41",
            lambda row: row["cloud_cover"] is not None and row["cloud_cover"] < 41,
        ),
        ("pass_number IS NULL", lambda row: row["pass_number"] is None),
        (f"pass_number = {2**60}", lambda row: row["pass_number"] == 2**60),
        ("daytime", lambda row: row["daytime"] is True),
        ("note IN ('ü', 'b')", lambda row: row["note"] in ("ü", "b")),
        ("product = 'scene' OR id = 'swath_c'", lambda row: row["id"] in (*SCENES, "swath_c")),
        ("reviewed > '2025-07-01T12:00:00'", lambda row: row["reviewed"] is not None),
    ],
)
def test_where(
    collection: l2view.Collection, where: str, is_match: Callable[[dict[str, Any]], bool]
) -> None:
    expected = [name for name in IDS if is_match(ROWS[name])]
    assert expected
    assert ids(collection.search(where)) == expected
    sql = f"SELECT id FROM meta WHERE {where} ORDER BY idx"
    assert ids(collection.sql(sql).to_arrow_table()) == expected


@pytest.mark.parametrize("name", IDS)
def test_bbox(collection: l2view.Collection, name: str) -> None:
    west, south, east, north = ROWS[name]["bounds"]
    x = (west + (east if east > west else east + 360)) / 2
    y = (south + north) / 2
    box = (x - 0.2, y - 0.2, x + 0.2 if x + 0.2 <= 180 else x - 359.8, y + 0.2)
    assert ids(collection.search(bbox=box)) == [name]
    assert list(collection.open(bbox=box, fields="id").names) == [name]


def test_datetime_order_and_limit(collection: l2view.Collection) -> None:
    interval = "2025-06-02T10:03:00Z/2025-06-20T11:00:00Z"
    assert ids(collection.search(datetime=interval)) == ["swath_b", "scene_a", "swath_c"]
    expected = sorted(IDS, key=lambda name: -(ROWS[name]["cloud_cover"] or -1))
    ordered = [name for name in expected if ROWS[name]["cloud_cover"] is not None]
    where = "cloud_cover IS NOT NULL"
    assert ids(collection.search(where, order_by="cloud_cover DESC")) == ordered
    assert ids(collection.search(where, order_by="cloud_cover DESC", limit=2)) == ordered[:2]
    assert ids(collection.search(ids=["scene_b", "swath_a"], order_by="id")) == [
        "scene_b",
        "swath_a",
    ]


def test_values(collection: l2view.Collection) -> None:
    view = collection.open()
    assert_values(view, IDS)
    assert view.verify() == {}
    for name in SWATHS:
        with netCDF4.Dataset(originals.FOLDER / "granules" / f"{name}.nc") as file:
            assert view[name].attrs["title"] == file.title
            attributes = dict(view[f"{name}/sst"].attrs)
            for key in ("scale_factor", "add_offset", "units"):
                assert attributes[key] == file["sst"].getncattr(key)


def test_values_as_xarray_decodes_them(collection: l2view.Collection) -> None:
    view = collection.open("product = 'swath'")
    tree = xr.open_datatree(view.store, engine="zarr", consolidated=False, chunks=None)
    for name in SWATHS:
        dataset = xr.open_zarr(view.store, group=name, consolidated=False, chunks=None)
        np.testing.assert_allclose(dataset["sst"], decoded(name, "sst"))
        np.testing.assert_array_equal(tree[f"{name}/lat"], decoded(name, "lat"))


def test_tags_and_snapshots(path: Path, url: str) -> None:
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path)))
    assert {"first", "second"} == set(repository.list_tags())
    for tag, names in TAGGED.items():
        for version in ({"tag": tag}, {"snapshot": repository.lookup_tag(tag)}):
            assert ids(l2view.search(path, **version)) == names
    # One file was written again between the tags.
    view = l2view.open(path, tag="first", authorize=[f"{url}/"])
    assert view.verify().keys() == {"swath_b"}
    with pytest.raises(l2view.ChunkError, match="has changed"):
        view["swath_b/sst"][...]
    unchanged = l2view.open(path, "id != 'swath_b'", tag="first", authorize=[f"{url}/"])
    assert_values(unchanged, ["swath_a", "swath_d", "scene_a"])


def test_cells(collection: l2view.Collection) -> None:
    query = """SELECT granule, count(*) AS cells, count(value) AS valid, sum(value) AS total
        FROM cells('sst', where => 'cloud_cover > 20') GROUP BY granule ORDER BY granule"""
    rows = collection.sql(query).to_pylist()
    assert [row["granule"] for row in rows] == ["swath_b", "swath_c"]
    for row in rows:
        values = decoded(row["granule"], "sst")
        assert (row["cells"], row["valid"]) == (values.size, np.isfinite(values).sum())
        assert row["total"] == pytest.approx(np.nansum(values))


def test_stack(collection: l2view.Collection) -> None:
    view = collection.open("product = 'scene'", layout="stack", encoding="unify")
    for variable in ("0", "1"):
        expected = np.stack([ARRAYS[f"{name}/{variable}"] for name in SCENES])
        np.testing.assert_array_equal(view[variable][...], expected)


def test_concatenation(collection: l2view.Collection) -> None:
    view = collection.open("product = 'swath'", layout="concat", dim="row", encoding="unify")
    dataset = xr.open_zarr(view.store, consolidated=False, chunks=None)
    for variable in ("sst", "lat"):
        expected = np.concatenate([decoded(name, variable) for name in SWATHS])
        np.testing.assert_allclose(dataset[variable], expected, atol=1e-9)


def test_ingest(path: Path, url: str) -> None:
    report = l2view.ingest(
        [f"{url}/swath_e.nc", f"{url}/swath_a.nc"],
        path,
        harvest=lambda group, url: {"product": "swath", "cloud_cover": 5.0, "pass_number": 9},
    )
    assert (report.added.ids, report.skipped.ids, report.failures) == (["swath_e"], ["swath_a"], 0)
    collection = l2view.Collection(path, authorize=[f"{url}/"])
    view = collection.open()
    assert_values(view, [*IDS, "swath_e"])
    assert view.verify() == {}
    assert ids(collection.search("cloud_cover BETWEEN 1 AND 12")) == ["swath_e"]
    assert ids(collection.search(bbox=(101, 21, 102, 22))) == ["swath_e"]
    assert ids(collection.search(ids=["swath_e"])) == ["swath_e"]
    assert ids(l2view.search(path, tag="second")) == IDS


def test_replacement(path: Path, url: str) -> None:
    """A granule of the packed store moves to another slot, that of groups to another group."""
    report = l2view.ingest(
        f"{url}/swath_a.nc", path, on_conflict="replace", harvest=lambda group, url: {"note": "new"}
    )
    assert (report.replaced.ids, report.failures) == (["swath_a"], 0)
    view = l2view.open(path, authorize=[f"{url}/"])
    assert_values(view, IDS)
    assert ids(l2view.search(path, "note = 'new'")) == ["swath_a"]


def test_deletion(path: Path, url: str) -> None:
    assert l2view.Collection(path).delete("id IN ('swath_a', 'track')") == 2
    view = l2view.open(path, authorize=[f"{url}/"], order_by="id")
    assert_values(view, ["scene_a", "scene_b", "swath_b", "swath_c"])
    assert ids(l2view.search(path, bbox=(0, 20, 22, 46))) == ["swath_b", "scene_a", "scene_b"]


@pytest.mark.parametrize("drop", [True, False])
def test_indexes(path: Path, drop: bool) -> None:
    l2view.Collection(path).index(drop=drop)
    if not drop:
        l2view.Collection(path).index(["bbox", "cloud_cover", "note"])
    collection = l2view.Collection(path)
    assert ids(collection.search(bbox=(21, 21, 22, 22))) == ["swath_b"]
    assert ids(collection.search("cloud_cover < 1")) == ["scene_a"]
    assert ids(collection.search(order_by="cloud_cover", limit=2)) == ["scene_a", "swath_a"]
    assert ids(collection.search("note >= 'c'", order_by="note")) == ["swath_c", "swath_a"]

"""The view: a Zarr group that reads the same as its source, with metadata in its attributes."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pyarrow as pa
import pytest
import shapely
import xarray as xr
import zarr
from builders import boxes, put, texts, write_collection, write_swath
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

import l2view
from l2view.errors import MissingGranuleWarning, QueryError, ReadOnlyViewError, SkippedArrayWarning
from l2view.limits import override_limits
from l2view.stores.composed import resolve_chunk
from l2view.virtual.attributes import array_attributes, group_attributes, json_values

WHERE = "idx IN (1, 2, 4)"


def test_it_is_a_zarr_group(view: l2view.View) -> None:
    assert isinstance(view, zarr.Group)
    assert view.metadata.zarr_format == 3
    assert sorted(view.group_keys()) == ["S2A_001", "S2A_002", "S2A_004"]
    fields = ["bbox", "cloud_cover", "datetime", "eo:cloud_cover", "group_path", "id", "idx"]
    assert sorted(view.array_keys()) == [*fields, "orbit", "platform"]
    assert len(view) == 12 == len(list(view))
    assert "S2A_001" in view
    assert "S2A_001/red" in view
    assert "S2A_003" not in view
    assert view.names == ["S2A_001", "S2A_002", "S2A_004"]
    assert view.read_only
    assert view.table["idx"].to_pylist() == [1, 2, 4]


def test_arrays_read_as_in_the_source(view: l2view.View, store: MemoryStore) -> None:
    source = zarr.open_group(store, mode="r")
    for number in (1, 2, 4):
        for path in ("red", "nir", "quality/flag"):
            array = view[f"S2A_{number:03d}/{path}"]
            expected = source[f"granules/g{number:03d}/{path}"]
            assert array.metadata.zarr_format == 3
            assert array.shape == expected.shape
            assert array.chunks == expected.chunks
            assert array.dtype == expected.dtype
            assert array.fill_value == expected.fill_value
            np.testing.assert_array_equal(array[:], expected[:])
    assert view["S2A_001/red"].metadata.dimension_names == ("y", "x")
    assert dict(view["S2A_001/quality"].attrs) == {"method": "made up"}


def test_attributes(view: l2view.View) -> None:
    attributes = dict(view["S2A_001"].attrs)
    bbox = shapely.from_wkt(attributes.pop("bbox"))
    assert bbox.equals(boxes(20)[1])
    assert attributes == {
        "title": "granule 1",
        "platform": "B",  # the field wins in the group
        "idx": 1,
        "cloud_cover": 5.0,
        "datetime": "2025-06-02T10:00:00Z",
        "eo:cloud_cover": 3,
        "group_path": "granules/g001",
        "id": "S2A/001",
        "orbit": 1,
    }
    red = dict(view["S2A_001/red"].attrs)
    assert red["scale_factor"] == 0.2
    assert red["units"] == "1"
    assert red["cloud_cover"] == 5.0
    assert red["platform"] == "B"
    assert view["S2A_001/quality/flag"].attrs["orbit"] == 1


def test_null_is_null(v3_store: MemoryStore) -> None:
    view = l2view.open(v3_store, "idx IN (5, 7)")
    assert view["S2A_005"].attrs["orbit"] is None
    assert view["S2A_007"].attrs["cloud_cover"] is None


def test_fields_never_decode_an_array() -> None:
    """A field called ``scale_factor`` or ``units`` must not change what is read."""
    root = zarr.create_group(MemoryStore())
    plain = root.create_group("a").create_array(
        "x", shape=(3,), chunks=(3,), dtype="int16", dimension_names=("i",)
    )
    plain[:] = [1, 2, 3]
    meta = root.create_group("meta")
    put(meta, "id", texts(["a"]))
    decoding = {
        "scale_factor": np.array([10.0]),
        "add_offset": np.array([5.0]),
        "units": texts(["days since 2000-01-01"]),
        "calendar": texts(["noleap"]),
        "_FillValue": np.array([2]),
        "coordinates": texts(["x"]),
        "missing_value": np.array([3]),
        "dtype": texts(["bool"]),
        "valid_range": np.array([2.0]),
    }
    for name, values in decoding.items():
        put(meta, name, values)
    view = l2view.open(root.store)
    assert not set(view["a/x"].attrs) & set(decoding)
    assert view["a"].attrs["units"] == "days since 2000-01-01"
    dataset = xr.open_zarr(view.store, group="a")
    assert dataset["x"].values.tolist() == [1, 2, 3]
    assert list(dataset.data_vars) == ["x"]


def test_on_a_clash_the_field_wins_in_the_group_and_the_array_keeps_its_own() -> None:
    source = {"units": "K", "name": "of the file", "coordinates": "lat lon"}
    fields = {"units": "s", "name": "of meta", "new": 1, "coordinates": "x"}
    assert group_attributes(source, fields) == {
        "units": "s",
        "name": "of meta",
        "new": 1,
        "coordinates": "lat lon",
    }
    assert array_attributes(source, fields) == {**source, "new": 1}


def test_values_that_json_has() -> None:
    def values(*said: Any, kind: pa.DataType) -> list[Any]:
        found = json_values(pa.array(said, kind))
        json.dumps(found, allow_nan=False)
        return found

    assert values(0, 1_500, None, kind=pa.timestamp("ms")) == [
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:00:01.5Z",
        None,
    ]
    assert values(1, kind=pa.timestamp("ns")) == ["1970-01-01T00:00:00.000000001Z"]
    assert values(-1, kind=pa.timestamp("s")) == ["1969-12-31T23:59:59Z"]
    assert values(90, -1, None, kind=pa.duration("s")) == ["PT90S", "-PT1S", None]
    assert values(1, 1500, kind=pa.duration("ms")) == ["PT0.001S", "PT1.5S"]
    assert values(float("inf"), float("-inf"), 0.1, None, kind=pa.float64()) == [
        "Infinity",
        "-Infinity",
        0.1,
        None,
    ]
    assert values(b"\x00\xff", None, kind=pa.binary()) == ["00ff", None]
    assert values(2**63, kind=pa.uint64()) == [2**63]
    assert values(True, None, kind=pa.bool_()) == [True, None]
    geometries = pa.array([shapely.Point(0.1, 1 / 3).wkb, None, b"not WKB"], pa.binary())
    texts_ = json_values(geometries, geometry=True)
    assert shapely.from_wkt(texts_[0]).equals(shapely.Point(0.1, 1 / 3))
    assert texts_[1:] == [None, b"not WKB".hex()]


def test_chunks_of_packed_granules_are_listed(tmp_path: Path) -> None:
    for number in range(2):
        write_swath(tmp_path / f"s{number}.h5", number, chunk=4)
    l2view.ingest(tmp_path / "*.h5", tmp_path / "c")
    view = l2view.open(tmp_path / "c")
    for name in view.names:
        array: Any = zarr.open_group(view.store, mode="r")[f"{name}/sst"]
        assert array.nchunks_initialized == array.nchunks > 1


def test_other_ways_in(view: l2view.View) -> None:
    assert sorted(zarr.open_group(view.store).group_keys()) == sorted(view.group_keys())
    assert zarr.open_group(view.store, mode="r").attrs == view.attrs
    assert zarr.open_array(view.store, path="S2A_001/red", mode="r")[0, 0] == 1
    assert zarr.open(view.store, mode="r")["S2A_001/red"][0, 0] == 1
    tree = str(view.tree())
    for line in ("S2A_001", "quality", "flag (3,) uint8", "red (11, 8) int16", "orbit (3,) int32"):
        assert line in tree


@pytest.mark.parametrize(
    "write",
    [
        lambda view: view["S2A_001/red"].__setitem__(0, 1),
        lambda view: view.create_group("new"),
        lambda view: view.create_array("new", shape=(1,), dtype="int8"),
        lambda view: view.attrs.__setitem__("a", 1),
        lambda view: view["S2A_001"].attrs.update({"a": 1}),
        lambda view: view["S2A_001/red"].resize((1, 1)),
        lambda view: zarr.open_group(view.store).create_group("new"),
        lambda view: zarr.create_group(view.store, path="new"),
        lambda view: xr.Dataset({"a": 1}).to_zarr(view.store, mode="a", consolidated=False),
        lambda view: view.__delitem__("S2A_001"),
        lambda view: zarr.open_group(view.store, mode="w"),
        lambda view: xr.Dataset({"a": 1}).to_zarr(view.store, mode="w", consolidated=False),
    ],
)
def test_writing_is_refused_by_name(v3_store: MemoryStore, write: Any) -> None:
    view = l2view.open(v3_store, WHERE)
    before = dict(v3_store._store_dict)
    with pytest.raises(ReadOnlyViewError, match="^a view is read-only; write to the store that"):
        write(view)
    assert v3_store._store_dict == before


def test_it_pickles(view: l2view.View) -> None:
    again = pickle.loads(pickle.dumps(view))
    assert isinstance(again, l2view.View)
    np.testing.assert_array_equal(again["S2A_004/red"][:], view["S2A_004/red"][:])
    assert again.attrs == view.attrs
    assert dict(again["S2A_004"].attrs) == dict(view["S2A_004"].attrs)
    array = pickle.loads(pickle.dumps(view["S2A_004/red"]))
    np.testing.assert_array_equal(array[:], view["S2A_004/red"][:])


@pytest.mark.parametrize("kind", ["local", "icechunk"])
def test_it_reads_in_another_process(
    tmp_path: Path, repository: icechunk.Repository, kind: str
) -> None:
    given: Any = repository
    if kind == "local":
        given = tmp_path / "store.zarr"
        write_collection(LocalStore(given))
    view = l2view.open(given, WHERE)
    (tmp_path / "view.pickle").write_bytes(pickle.dumps(view))
    code = (
        "import pickle, pathlib, sys; view = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes());"
        "print(view['S2A_004/red'][:].sum(), view['S2A_004'].attrs['orbit'])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "view.pickle")]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert found.split() == [str(view["S2A_004/red"][:].sum()), "4"]


def test_it_reads_in_a_dask_worker(repository: icechunk.Repository) -> None:
    from distributed import Client, LocalCluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
        with LocalCluster(**options) as cluster, Client(cluster) as client:
            view = l2view.open(repository, WHERE)
            total = client.submit(lambda view: int(view["S2A_004/red"][:].sum()), view).result()
            tree = view.to_datatree().chunk()
            mean = float(tree["S2A_004/red"].mean().compute())
    assert total == view["S2A_004/red"][:].sum()
    assert mean == pytest.approx(float(view["S2A_004/red"][:].mean()) * 0.5)


def test_description(repository: icechunk.Repository) -> None:
    area = shapely.box(-180, -90, 180, 90)
    asked = {
        "params": {"most": 40.5},
        "bbox": (-170, -90, 100, 90),
        "intersects": area,
        "datetime": "2025-06-02/..",
        "ids": ["S2A/001", "S2A/004"],
        "order_by": "cloud_cover DESC",
        "limit": 7,
    }
    view = l2view.open(
        repository, "cloud_cover < $most", fields=["id", "orbit"], variables="red", **asked
    )
    said = view.attrs["l2view"]
    assert said == {
        "version": 1,
        "collection": said["collection"],
        "snapshot": repository.lookup_branch("main"),
        "query": {
            "where": "cloud_cover < $most",
            "params": {"most": 40.5},
            "bbox": [-170, -90, 100, 90],
            "intersects": area.wkt,
            "datetime": "2025-06-02T00:00:00Z/..",
            "ids": ["S2A/001", "S2A/004"],
            "order_by": "cloud_cover DESC",
            "limit": 7,
        },
        "fields": ["id", "orbit"],
        "count": 2,
        "variables": ["red"],
    }
    json.dumps(said)


def test_the_same_query_on_the_same_snapshot_is_the_same_view(
    repository: icechunk.Repository,
) -> None:
    view = l2view.open(
        repository,
        "platform = $p",
        params={"p": "A"},
        datetime="2025-06-02/2025-06-09",
        bbox=(-150, -90, 0, 90),
        intersects=shapely.box(-180, -90, 180, 90),
        order_by="cloud_cover DESC",
        limit=3,
        variables=["r*"],
    )
    session = repository.writable_session("main")
    root = zarr.open_group(session.store)
    root["meta/platform"][:] = texts("B" * 20)
    root["granules/g004/red"][:] = 0
    session.commit("everything is different")
    assert l2view.open(repository, "platform = 'A'").table.num_rows == 0
    said = view.attrs["l2view"]
    again = l2view.open(
        repository,
        snapshot=said["snapshot"],
        fields=said["fields"],
        variables=said["variables"],
        **said["query"],
    )
    assert again.table.equals(view.table)
    assert again.attrs == view.attrs
    assert again.names == view.names
    for name in view.names:
        assert dict(again[name].attrs) == dict(view[name].attrs)
        np.testing.assert_array_equal(again[f"{name}/red"][:], view[f"{name}/red"][:])


def test_the_time_of_a_momentary_search_is_told(v3_store: MemoryStore) -> None:
    assert "opened" not in l2view.open(v3_store, "idx < 2").attrs["l2view"]
    view = l2view.open(v3_store, "datetime < now()", limit=1)
    assert view.attrs["l2view"]["opened"].endswith("Z")
    with pytest.raises(QueryError, match="random.. answers otherwise each time"):
        l2view.open(v3_store, "random() < 0.5")
    assert len(l2view.open(v3_store, "id <> 'random()'", limit=1).table) == 1


def test_nothing_found_is_an_empty_view(store: MemoryStore) -> None:
    view = l2view.open(store, "idx > 1000")
    assert view.attrs["l2view"]["count"] == 0
    assert list(view.group_keys()) == []
    assert view["id"].shape == (0,)
    assert bool(view)
    dataset = xr.open_zarr(view.store)
    assert dict(dataset.sizes) == {"granule": 0}
    xr.testing.assert_identical(view.to_dataset(), dataset.load())
    assert len(view.to_datatree().children) == 0
    assert "View of 0 granules" in repr(view)


def test_fields_and_variables(v3_store: MemoryStore) -> None:
    view = l2view.open(v3_store, WHERE, fields=["orbit"], variables=["r?d", "quality/*"])
    assert sorted(view.array_keys()) == ["idx", "orbit"]
    assert set(view["S2A_001"].attrs) == {"title", "platform", "idx", "orbit"}
    assert sorted(view["S2A_001"].keys()) == ["quality", "red"]
    assert "nir" not in view["S2A_001"]
    assert view["S2A_001/quality/flag"][:].tolist() == [1, 2, 1]
    assert list(l2view.open(v3_store, WHERE, variables="flag")["S2A_001"].array_keys()) == []
    assert list(l2view.open(v3_store, WHERE, variables="flag")["S2A_001/quality"]) == ["flag"]
    tree = l2view.open(v3_store, WHERE, variables="red").to_datatree()
    assert set(tree["S2A_001"].data_vars) == {"red"}


@pytest.mark.parametrize("most", [32, 2])
def test_variables_that_match_nothing(v3_store: MemoryStore, most: int) -> None:
    with override_limits(checked_granules=most):
        with pytest.warns(SkippedArrayWarning) as caught:
            l2view.open(v3_store, WHERE, variables="rde")
        assert str(caught[0].message) == (
            "no array of S2A_001, the first granule, matches variables=['rde']; "
            "it has nir, quality/flag, red"
        )


def test_a_granule_whose_arrays_are_missing(store: MemoryStore) -> None:
    with pytest.warns(MissingGranuleWarning) as caught:
        view = l2view.open(store, "idx IN (2, 3)")
    assert str(caught[0].message) == (
        "1 of 2 granules have no arrays in memory: S2A_003: "
        "there is no group or array at 'granules/g003'"
    )
    with pytest.warns(MissingGranuleWarning, match="the granule S2A_003 has no arrays in memory"):
        group = view["S2A_003"]
    assert group.attrs["l2view"] == {"missing": "there is no group or array at 'granules/g003'"}
    assert group.attrs["orbit"] == 3
    with pytest.warns(MissingGranuleWarning):
        assert list(group) == []
        tree = view.to_datatree()
    assert list(tree["S2A_003"].to_dataset().variables) == []
    assert view["S2A_002/red"][0, 0] == 2


def test_many_granules_are_not_looked_at_when_opened() -> None:
    store = MemoryStore()
    write_collection(store, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        view = l2view.open(store)
    with pytest.warns(MissingGranuleWarning, match="the granule S2A_003 has no arrays"):
        view["S2A_003"]


def test_a_collection_without_arrays() -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    put(meta, "cloud_cover", np.arange(3.0))
    with pytest.warns(MissingGranuleWarning, match="meta has no field with paths .*location="):
        view = l2view.open(root.store, "cloud_cover > 1")
    assert view["2"].attrs["cloud_cover"] == 2.0
    assert "no field with paths" in view["2"].attrs["l2view"]["missing"]
    assert dict(xr.open_zarr(view.store).sizes) == {"granule": 1}


def test_tab_completion(view: l2view.View) -> None:
    assert {"S2A_001", "id"} <= set(view._ipython_key_completions_())
    assert {"table", "to_datatree", "plot", "tree"} <= set(dir(view))


def test_sharded_arrays_and_rectilinear_grids() -> None:
    root = zarr.create_group(MemoryStore())
    group = root.create_group("a")
    sharded = group.create_array("sharded", shape=(20,), chunks=(3,), shards=(12,), dtype="int16")
    sharded[:] = np.arange(20)
    with zarr.config.set({"array.rectilinear_chunks": True}):
        ragged = group.create_array("ragged", shape=(10,), chunks=[[3, 5, 2]], dtype="int16")
        ragged[:] = np.arange(10)
        put(root.create_group("meta"), "id", texts(["a"]))
        view = l2view.open(root.store)
        assert view["a/sharded"].shards == (12,)
        assert view["a/sharded"].chunks == (3,)
        assert view["a/sharded"][4:17].tolist() == list(range(4, 17))
        assert view["a/ragged"][2:9].tolist() == list(range(2, 9))


def put_array_without_v3_form(store: MemoryStore, like: str, path: str) -> None:
    document = json.loads(store._store_dict[f"{like}/.zarray"].to_bytes())
    document |= {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}]}
    value = zarr.core.buffer.cpu.Buffer.from_bytes(json.dumps(document).encode())
    store._store_dict[f"{path}/.zarray"] = value


def test_a_granule_that_is_an_array_without_a_v3_form_costs_itself_alone() -> None:
    root = zarr.create_group(MemoryStore(), zarr_format=2)
    root.create_array("a", shape=(2,), chunks=(2,), dtype="int8")[:] = [1, 2]
    put(root.create_group("meta"), "id", texts(["a", "odd"]))
    put_array_without_v3_form(root.store, "a", "odd")
    with pytest.warns(MissingGranuleWarning, match="1 of 2 .*: odd: .*'odd' .* no v3 form"):
        view = l2view.open(root.store)
    with pytest.warns(MissingGranuleWarning, match="odd has no arrays"):
        assert list(view["odd"]) == []
    assert view["a/a"][:].tolist() == [1, 2]
    assert view.references().read_all()["granule"].unique().to_pylist() == ["a"]
    with pytest.warns(MissingGranuleWarning, match="1 of 2 .* left out: odd"):
        assert view.cells("a").to_table()["value"].to_pylist() == [1, 2]
    with pytest.warns(MissingGranuleWarning, match="1 of 2 .* left out: odd"):
        stack = l2view.open(root.store, layout="stack")
    assert stack["a"][:].tolist() == [[1, 2]]
    array = view.view_store.find("odd/odd/0")
    assert sync(resolve_chunk(array)) is None


def test_an_array_without_a_v3_form_is_left_out_by_name() -> None:
    root = zarr.create_group(MemoryStore(), zarr_format=2)
    group = root.create_group("a")
    group.create_array("x", shape=(2,), chunks=(2,), dtype="int8")[:] = [1, 2]
    put(root.create_group("meta"), "id", texts(["a"]))
    put_array_without_v3_form(root.store, "a/x", "a/odd")
    view = l2view.open(root.store)
    with pytest.warns(SkippedArrayWarning, match="a/odd is left out: .* no v3 form"):
        assert "odd" not in view["a"]
    with pytest.warns(SkippedArrayWarning, match="a/odd is left out: .* no v3 form"):
        assert l2view.open(root.store, layout="stack")["x"][:].tolist() == [[1, 2]]
    assert view["a/x"][:].tolist() == [1, 2]

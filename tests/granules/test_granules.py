"""How granules are found in the store, and named in a view."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zarr
from builders import put, texts
from zarr.storage import MemoryStore

import l2view
from l2view.errors import FieldError
from l2view.virtual.granules import group_names


@pytest.mark.parametrize("name", ["group_path", "array_location", "path", "id", "where_it_is"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_location_fields(name: str, slash: str) -> None:
    root = zarr.create_group(MemoryStore())
    root.create_group("g/a").create_array("x", shape=(2,), chunks=(2,), dtype="int8")[:] = [1, 2]
    put(root.create_group("meta"), name, texts([f"{slash}g/a{slash}"]))
    options = {"location": name} if name == "where_it_is" else {}
    view = l2view.open(root.store, **options)
    (granule,) = view.names
    assert view[f"{granule}/x"][:].tolist() == [1, 2]


def test_group_path_comes_before_id() -> None:
    root = zarr.create_group(MemoryStore())
    for path in ("a", "b"):
        array = root.create_group(path).create_array("x", shape=(1,), chunks=(1,), dtype="S1")
        array[:] = path.encode()
    meta = root.create_group("meta")
    put(meta, "id", texts(["a"]))
    put(meta, "group_path", texts(["b"]))
    assert l2view.open(root.store)["a/x"][:].tolist() == [b"b"]
    assert l2view.open(root.store, location="id")["a/x"][:].tolist() == [b"a"]
    with pytest.raises(FieldError, match='no field "goup_path"; did you mean "group_path"'):
        l2view.open(root.store, location="goup_path")


def test_granules_that_are_arrays() -> None:
    root = zarr.create_group(MemoryStore())
    for number in range(3):
        array = root.create_array(
            f"scenes/s{number}/red",
            shape=(4,),
            chunks=(2,),
            dtype="int16",
            dimension_names=("i",),
            attributes={"units": "1"},
        )
        array[:] = np.arange(4) + number
    meta = root.create_group("meta")
    put(meta, "id", texts("abc"))
    put(meta, "array_location", texts(f"scenes/s{number}/red" for number in range(3)))
    view = l2view.open(root.store, "idx > 0")
    assert sorted(view["c"].array_keys()) == ["red"]
    assert view["c/red"][:].tolist() == [2, 3, 4, 5]
    assert view["c/red"].attrs["units"] == "1"
    again = pickle.loads(pickle.dumps(view["c/red"]))
    assert again[:].tolist() == [2, 3, 4, 5]
    assert view.to_datatree()["c/red"].values.tolist() == [2, 3, 4, 5]
    assert "c/red/c/1" in set(zarr.core.sync.sync(_collect(view.store.list())))


async def _collect(keys: Any) -> list[str]:
    return [key async for key in keys]


def test_an_array_of_its_group_s_name() -> None:
    """The one path that may be that of a group's array or of a granule that is an array."""
    root = zarr.create_group(MemoryStore())
    array = root.create_array("g/red/red", shape=(2,), chunks=(2,), dtype="int8")
    array[:] = [5, 6]
    meta = root.create_group("meta")
    put(meta, "group_path", texts(["g/red"]))
    view = l2view.open(root.store)
    assert view["0/red"][:].tolist() == [5, 6]
    assert pickle.loads(pickle.dumps(view["0/red"]))[:].tolist() == [5, 6]


def names(ids: list[Any] | None, taken: set[str] = frozenset({"idx"})) -> list[str]:  # type: ignore[assignment]
    rows = pa.chunked_array([range(10, 10 + len(ids or [0, 1]))], pa.int64())
    return group_names(rows, None if ids is None else pa.chunked_array([ids]), taken).to_pylist()


def test_names_of_groups() -> None:
    assert names(["a", "b"]) == ["a", "b"]
    assert names(["a/b", "c\\d\n"]) == ["a_b", "c_d_"]
    assert names([5, 6]) == ["5", "6"]
    assert names([b"a", b"\xff"]) == ["10", "11"]
    assert names([".", ".."]) == ["id.", "id.."]
    assert names(["__x", "zarr.json"]) == ["id__x", "idzarr.json"]
    assert names([".zarray", "é–"]) == ["id.zarray", "é–"]
    # Row numbers where ids don't tell granules apart.
    assert names(None) == ["10", "11"]
    assert names(["a", "a"]) == ["10", "11"]
    assert names(["a/b", "a_b"]) == ["10", "11"]
    assert names(["a", None]) == ["10", "11"]
    assert names(["a", ""]) == ["10", "11"]
    assert names(["idx", "b"]) == ["10", "11"]
    assert names(["a", "a"], {"10"}) == ["_10", "_11"]


def test_duplicate_ids_do_not_hide_granules() -> None:
    root = zarr.create_group(MemoryStore())
    for path in ("a", "b"):
        root.create_group(path)
    meta = root.create_group("meta")
    put(meta, "id", texts(["same", "same"]))
    put(meta, "path", texts(["a", "b"]))
    view = l2view.open(root.store)
    assert sorted(view.group_keys()) == ["0", "1"]
    assert view["1"].attrs["path"] == "b"


def test_names_are_a_sequence(v3_store: MemoryStore) -> None:
    names = l2view.open(v3_store, "idx <> 3").names
    assert len(names) == len(list(names)) == 19
    assert names[0] == "S2A_000"
    assert names[-1] == "S2A_019"
    assert list(names[1:3]) == ["S2A_001", "S2A_002"]
    assert "S2A_001" in names
    assert "S2A_003" not in names
    assert 1 not in names
    assert names.index("S2A_004") == 3
    assert names != ["S2A_000"]
    assert repr(names) == "<19 names: S2A_000, S2A_001, S2A_002, …>"
    with pytest.raises(IndexError):
        names[19]


def test_head_is_the_view_of_the_first_granules(v3_store: MemoryStore) -> None:
    view = l2view.open(v3_store, "idx <> 3", order_by="idx DESC")
    first = view.head(2)
    assert first.names == ["S2A_019", "S2A_018"]
    assert first["S2A_019/red"].shape == (29, 8)
    assert "S2A_017" not in first
    assert first.attrs["l2view"]["head"] == first.attrs["l2view"]["count"] == 2
    assert first.attrs["l2view"]["query"] == view.attrs["l2view"]["query"]
    assert view.head(99) is view
    assert view.head(0).names == []


def test_a_tree_shows_the_first_of_many_granules() -> None:
    store = MemoryStore()
    root = zarr.create_group(store)
    root.create_array("a/x", shape=(2,), chunks=(2,), dtype="int8")
    put(root.create_group("meta"), "path", texts(["a"] * 2000))
    view = l2view.open(store)
    shown = repr(view.tree())
    assert shown.startswith("the first 249 of 2,000 granules; max_nodes= shows more\n")
    assert shown.count("x (2,) int8") == 249
    assert repr(view.tree(level=0)).count("──") == 500
    assert "first" not in repr(view.head(3).tree())

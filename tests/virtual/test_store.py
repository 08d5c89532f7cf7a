"""`ViewStore` against zarr's own tests of stores, and what is its own besides."""

from __future__ import annotations

import json
import pickle
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import obstore.store
import pyarrow as pa
import pytest
import zarr
from builders import write_collection, write_granule
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.core.sync import _collect_aiterator, sync
from zarr.storage import LocalStore, MemoryStore, WrapperStore
from zarr.testing.store import StoreTests

import l2view
from l2view.errors import MissingGranuleWarning, ReadOnlyViewError
from l2view.granules.groups import GroupsLayout
from l2view.stores.hierarchy import Hierarchy
from l2view.virtual.granules import Granules
from l2view.virtual.store import ViewStore
from l2view.virtual.tree import Tree

PROTOTYPE = default_buffer_prototype()
GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}


def view_store(source: Any, names: Sequence[str] = ("g",), **options: Any) -> ViewStore:
    """A view of granules that lie at ``src/<name>`` of `source`."""
    paths = pa.table({"path": [f"src/{name}" for name in names]})
    rows = pa.table({"idx": pa.array(range(len(names)), pa.int64())})
    layout = GroupsLayout(Hierarchy(source), "path")
    granules = Granules(rows, pa.array(list(names), pa.string()), paths)
    return ViewStore(Tree(source, layout, granules, {"collection": "memory"}, **options))


class GranuleStore(ViewStore):
    """A view's store addressed from its one granule on, for tests that name keys freely."""

    def __init__(self, *, source: MemoryStore, read_only: bool = False) -> None:
        inner = view_store(source)
        state = inner.__getstate__() | {"read_only": read_only}
        super().__init__(**state)

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "read_only": self.read_only}

    def __setstate__(self, state: dict[str, Any]) -> None:
        GranuleStore.__init__(self, **state)

    def with_read_only(self, read_only: bool = False) -> GranuleStore:
        return GranuleStore(source=self.source, read_only=read_only)

    async def get(self, key: str, *args: Any, **options: Any) -> Buffer | None:
        return await super().get(key if key.startswith("g/") else f"g/{key}", *args, **options)

    def get_sync(self, key: str, **options: Any) -> Buffer | None:
        return super().get_sync(f"g/{key}", **options)

    async def getsize(self, key: str) -> int:
        return await super().getsize(f"g/{key}")

    async def exists(self, key: str) -> bool:
        return await super().exists(f"g/{key}")

    async def get_ranges(
        self, key: str, byte_ranges: Sequence[ByteRequest | None], **options: Any
    ) -> AsyncIterator[Any]:
        async for group in super().get_ranges(f"g/{key}", byte_ranges, **options):
            yield group


class TestViewStore(StoreTests[GranuleStore, cpu.Buffer]):
    """The read side; writing is refused, and metadata is composed, never arbitrary bytes."""

    store_cls = GranuleStore
    buffer_cls = cpu.Buffer

    async def set(self, store: GranuleStore, key: str, value: Buffer) -> None:
        if key.endswith("zarr.json"):
            value = cpu.Buffer.from_bytes(json.dumps(GROUP).encode())
        store.source._store_dict[f"src/g/{key}"] = value

    async def get(self, store: GranuleStore, key: str) -> Buffer:
        return store.source._store_dict[f"src/g/{key}"]

    @pytest.fixture
    def store_kwargs(self) -> dict[str, Any]:
        document = cpu.Buffer.from_bytes(json.dumps(GROUP).encode())
        return {"source": MemoryStore({"src/g/zarr.json": document})}

    def test_store_repr(self, store: GranuleStore) -> None:
        assert repr(store) == str(store) == "<ViewStore: 1 granules of memory>"

    def test_store_supports_writes(self, store: GranuleStore) -> None:
        assert not store.supports_writes
        assert store.supports_deletes  # so that zarr asks for one, and is refused

    def test_store_supports_listing(self, store: GranuleStore) -> None:
        assert store.supports_listing

    async def test_serializable_store(self, store: GranuleStore) -> None:
        await self.set(store, "foo", cpu.Buffer.from_bytes(b"\x01\x02"))
        again = pickle.loads(pickle.dumps(store))
        assert again == store
        found = await again.get("foo", PROTOTYPE)
        assert found is not None
        assert found.to_bytes() == b"\x01\x02"

    async def refuses(self, store: GranuleStore) -> None:
        value = cpu.Buffer.from_bytes(b"bar")
        with pytest.raises(ReadOnlyViewError, match="a view is read-only; write to the store"):
            await store.set("foo", value)
        with pytest.raises(ReadOnlyViewError):
            await store.delete("foo")
        with pytest.raises(ReadOnlyViewError):
            await store.set_if_not_exists("foo", value)
        with pytest.raises(ReadOnlyViewError):
            await store._set_many([("foo", value)])
        with pytest.raises(ReadOnlyViewError):
            store.set_sync("foo", value)
        with pytest.raises(ReadOnlyViewError):
            store.delete_sync("foo")

    async def test_read_only_store_raises(self, open_kwargs: dict[str, Any]) -> None:
        for read_only in (True, False):
            await self.refuses(await self.store_cls.open(**open_kwargs, read_only=read_only))

    async def test_with_read_only_store(self, open_kwargs: dict[str, Any]) -> None:
        store = await self.store_cls.open(**open_kwargs)
        reader = store.with_read_only(True)
        assert reader.read_only
        assert not reader.with_read_only(False).read_only
        await self.refuses(reader)
        await self.refuses(reader.with_read_only(False))

    async def test_set(self, store: GranuleStore) -> None:  # type: ignore[override]
        await self.refuses(store)

    async def test_set_not_open(self, store_not_open: GranuleStore) -> None:
        await self.refuses(store_not_open)

    test_set_many = test_set_if_not_exists = test_set  # type: ignore[assignment]
    test_delete = test_delete_dir = test_set  # type: ignore[assignment]
    test_delete_nonexistent_key_does_not_raise = test_set  # type: ignore[assignment]

    async def test_clear(self, store: GranuleStore) -> None:
        with pytest.raises(ReadOnlyViewError):
            await store.clear()

    def test_set_sync(self, store: GranuleStore) -> None:
        sync(self.refuses(store))

    test_delete_sync = test_delete_sync_missing = test_set_sync  # type: ignore[assignment]
    test_delete_sync_visible_to_async_get = test_set_sync  # type: ignore[assignment]

    async def test_sync_async_set_get_parity(self, store: GranuleStore) -> None:  # type: ignore[override]
        await self.set(store, "parity", cpu.Buffer.from_bytes(b"\x01\x02"))
        found = await store.get("parity", PROTOTYPE)
        sync_found = store.get_sync("parity")
        assert found is not None
        assert sync_found is not None
        assert found.to_bytes() == sync_found.to_bytes() == b"\x01\x02"

    @pytest.mark.parametrize(
        "byte_range",
        [
            None,
            RangeByteRequest(1, 4),
            OffsetByteRequest(1),
            SuffixByteRequest(1),
            RangeByteRequest(10, 20),
        ],
    )
    async def test_get_sync_byte_range_parity(
        self, store: GranuleStore, byte_range: ByteRequest | None
    ) -> None:
        await self.set(store, "parity", cpu.Buffer.from_bytes(b"\x01\x02\x03\x04"))
        found = await store.get("parity", PROTOTYPE, byte_range)
        sync_found = store.get_sync("parity", byte_range=byte_range)
        assert (found and found.to_bytes()) == (sync_found and sync_found.to_bytes())

    async def test_exists(self, store: GranuleStore) -> None:
        assert not await store.exists("foo/zarr.json")
        assert not await store.exists("foo/c/0")
        await self.set(store, "foo/c/0", cpu.Buffer.from_bytes(b"bar"))
        assert await store.exists("foo/c/0")

    async def test_getsize_prefix(self, v3_store: MemoryStore) -> None:  # type: ignore[override]
        store = l2view.open(v3_store, "idx = 1").store
        expected = sum(
            len(value)
            for key, value in v3_store._store_dict.items()
            if key.startswith("granules/g001/red/c/")
        )
        assert await store.getsize_prefix("S2A_001/red/c") == expected > 0

    async def test_is_empty(self, v3_store: MemoryStore) -> None:  # type: ignore[override]
        store = l2view.open(v3_store, "idx = 1").store
        for prefix in ("", "S2A_001", "S2A_001/", "S2A_001/red/c", "idx/"):
            assert not await store.is_empty(prefix)
        for prefix in ("S2A", "S2A_002", "S2A_001/blue", "nothing/"):
            assert await store.is_empty(prefix)

    async def test_list(self, v3_store: MemoryStore) -> None:  # type: ignore[override]
        store = l2view.open(v3_store, "idx = 1", fields="id").store
        source = {key for key in v3_store._store_dict if key.startswith("granules/g001/")}
        expected = {key.replace("granules/g001", "S2A_001") for key in source}
        expected |= {
            "zarr.json",
            *(f"{f}/{k}" for f in ("id", "idx") for k in ("zarr.json", "c/0")),
        }
        found = await _collect_aiterator(store.list())
        assert len(found) == len(set(found))
        assert set(found) == expected

    async def test_list_prefix(self, v3_store: MemoryStore) -> None:  # type: ignore[override]
        store = l2view.open(v3_store, "idx IN (1, 2)", fields="id").store
        everything = await _collect_aiterator(store.list())
        for prefix in ("", "S2A_00", "S2A_001/", "S2A_001/red", "S2A_001/red/c/1", "i", "id/", "z"):
            found = await _collect_aiterator(store.list_prefix(prefix))
            assert sorted(found) == sorted(key for key in everything if key.startswith(prefix))

    test_list_empty_path = test_list  # type: ignore[assignment]

    async def test_list_dir(self, v3_store: MemoryStore) -> None:  # type: ignore[override]
        store = l2view.open(v3_store, "idx IN (1, 2)", fields="id").store
        everything = await _collect_aiterator(store.list())
        folders = {""} | {key.rpartition("/")[0] for key in everything}
        folders |= {folder.rpartition("/")[0] for folder in folders}
        for folder in folders:
            prefix = f"{folder}/" if folder else ""
            below = (key.removeprefix(prefix) for key in everything if key.startswith(prefix))
            expected = {key.split("/")[0] for key in below}
            for said in {folder, prefix}:
                found = await _collect_aiterator(store.list_dir(said))
                assert sorted(found) == sorted(expected)
        assert await _collect_aiterator(store.list_dir("nothing")) == ()

    async def test_every_listed_key_is_there(self, v3_store: MemoryStore) -> None:
        store = l2view.open(v3_store, "idx IN (1, 2)").store
        for key in await _collect_aiterator(store.list()):
            assert await store.exists(key), key
            value = await store.get(key, PROTOTYPE)
            assert value is not None
            assert len(value) == await store.getsize(key)
            sync_value = store.get_sync(key)
            assert sync_value is not None
            assert sync_value.to_bytes() == value.to_bytes()

    async def test_get_ranges(self, store: GranuleStore) -> None:
        await self.set(store, "c/0", cpu.Buffer.from_bytes(bytes(range(100))))
        wanted = [RangeByteRequest(3, 7), SuffixByteRequest(2), None, OffsetByteRequest(98)]
        found: dict[int, bytes] = {}
        async for group in store.get_ranges("c/0", wanted, prototype=PROTOTYPE):
            found |= {index: value.to_bytes() for index, value in group if value is not None}
        assert found == {
            0: bytes(range(3, 7)),
            1: bytes([98, 99]),
            2: bytes(range(100)),
            3: bytes([98, 99]),
        }


def test_equality(v3_store: MemoryStore) -> None:
    one, same, other = (l2view.open(v3_store, f"idx < {n}", limit=2).store for n in (2, 2, 3))
    assert one == same
    assert one != other
    assert one != v3_store


@pytest.mark.parametrize("name", [".zarray", ".zgroup", ".zattrs", ".zmetadata"])
@pytest.mark.parametrize("path", ["", "S2A_001/", "S2A_001/red/", "id/"])
def test_v2_metadata_never_shows(name: str, path: str) -> None:
    store = MemoryStore()
    write_collection(store, 3, zarr_format=2)
    view = l2view.open(store, "idx = 1").store
    assert sync(view.get(path + name, PROTOTYPE)) is None
    assert not sync(view.exists(path + name))


@pytest.mark.parametrize(
    "key",
    [
        "../secret/c/0",
        "S2A_001/../../secret/c/0",
        "S2A_009/red/c/0/0",
        "id/c/9",
        "id/x",
        "zarr",
        "",
    ],
)
def test_keys_that_are_not_there(v3_store: MemoryStore, key: str) -> None:
    v3_store._store_dict["secret/c/0"] = cpu.Buffer.from_bytes(b"secret")
    store = l2view.open(v3_store, "idx = 1").store
    assert sync(store.get(key, PROTOTYPE)) is None
    assert store.get_sync(key) is None
    assert not sync(store.exists(key))
    with pytest.raises(FileNotFoundError):
        sync(store.getsize(key))


def test_keys_do_not_climb_out_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    write_collection(LocalStore(tmp_path / "store"), 2)
    store = l2view.open(tmp_path / "store", "idx = 1").store
    for key in ("S2A_001/../../../secret", "S2A_001/red/../../../../secret", "../secret"):
        assert sync(store.get(key, PROTOTYPE)) is None
        assert store.get_sync(key) is None
    write_collection(LocalStore(tmp_path / "outside"), 1)
    for path in ("S2A_001/../../../outside", "S2A_001/red/../../../../outside/meta/id"):
        assert sync(store.get(f"{path}/zarr.json", PROTOTYPE)) is None
        assert sync(_collect_aiterator(store.list_dir(path))) == ()


@pytest.mark.parametrize("kind", ["obstore", "folder"])
def test_a_missing_granule_of_any_store(tmp_path: Path, kind: str) -> None:
    write_collection(LocalStore(tmp_path), 5)  # without the arrays of one
    store = obstore.store.LocalStore(tmp_path) if kind == "obstore" else tmp_path
    with pytest.warns(MissingGranuleWarning, match="1 of 5 granules have no arrays.*S2A_003"):
        view = l2view.open(store)
    with pytest.warns(MissingGranuleWarning, match="S2A_003"):
        tree = view.to_datatree()
    assert tree["S2A_004/red"].shape == (14, 8)


def test_what_is_written_later_is_seen(v3_store: MemoryStore) -> None:
    with pytest.warns(MissingGranuleWarning):
        view = l2view.open(v3_store, "idx = 3")
    write_granule(zarr.open_group(v3_store).create_group("granules/g003"), 3)
    assert view["S2A_003/red"].shape == (13, 8)


@pytest.mark.parametrize(
    "path",
    [
        "../granules/g001",
        "granules/../granules/g001",
        "s3://other/g001",
        "granules\\g001",
        "/",
        ".",
    ],
)
def test_locations_stay_inside_the_store(path: str) -> None:
    source = MemoryStore()
    root = zarr.create_group(source)
    root.create_group("granules/g001").create_array("x", shape=(2,), chunks=(2,), dtype="int8")
    layout = GroupsLayout(Hierarchy(source), "path")
    assert sync(layout.document((path,), "")) is None
    assert layout.source_key((path,), "x/c/0") is None
    assert sync(layout.children((path,), "")) == []
    assert "is not a path inside the store" in layout.missing((path,))
    assert "is NULL" in layout.missing((None,))


class Remembering(WrapperStore[MemoryStore]):
    """A source that remembers the keys and ranges it was asked for."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.asked: list[tuple[str, ByteRequest | None]] = []

    async def get(self, key: str, prototype: Any, byte_range: ByteRequest | None = None) -> Any:
        self.asked.append((key, byte_range))
        return await super().get(key, prototype, byte_range)

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
        self.asked.append((key, byte_range))
        return super().get_sync(key, prototype=prototype, byte_range=byte_range)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[Any]) -> Any:
        key_ranges = list(key_ranges)
        self.asked.extend(key_ranges)
        return await super().get_partial_values(prototype, key_ranges)


def test_only_the_wanted_chunks_are_read(v3_store: MemoryStore) -> None:
    source = Remembering(v3_store)
    array = l2view.open(source, "idx = 1")["S2A_001/red"]
    source.asked.clear()
    array[:2, :2]
    assert source.asked == [("granules/g001/red/c/0/0", None)]


def test_byte_ranges_reach_the_source() -> None:
    store = MemoryStore()
    root = write_collection(store, 2)
    root["granules/g001"].create_array(
        "sharded", shape=(64,), chunks=(4,), shards=(64,), dtype="int32", dimension_names=("i",)
    )[:] = range(64)
    source = Remembering(store)
    array = l2view.open(source, "idx = 1")["S2A_001/sharded"]
    source.asked.clear()
    assert array[8:12].tolist() == [8, 9, 10, 11]
    assert source.asked
    assert {key for key, _ in source.asked} == {"granules/g001/sharded/c/0"}
    assert all(byte_range is not None for _, byte_range in source.asked)


def test_opening_reads_nothing_of_many_granules() -> None:
    store = MemoryStore()
    write_collection(store, 40)
    source = Remembering(store)
    collection = l2view.Collection(source)
    source.asked.clear()
    collection.open()
    assert not [key for key, _ in source.asked if key.startswith("granules/")]

"""Granules that are read below any view."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import zarr
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from l2view.arrays.cf import RELEVANT
from l2view.arrays.values import ValueDecoder
from l2view.errors import ReadOnlyViewError
from l2view.granules.groups import GroupsLayout
from l2view.granules.reader import GranuleReader, NeedsMetadata
from l2view.stores.composed import resolve_chunk
from l2view.stores.hierarchy import Hierarchy
from l2view.virtual.granules import Granules

VALUES = np.arange(12, dtype="<i2").reshape(3, 4)


@pytest.fixture
def reader() -> GranuleReader:
    """A granule that is a group, and one that is an array."""
    store = MemoryStore()
    root = zarr.create_group(store)
    for path in ("group/sst", "alone"):
        array = root.create_array(path, shape=VALUES.shape, chunks=(2, 4), dtype=VALUES.dtype)
        array[:] = VALUES
    paths = pa.array(["group", "alone"], pa.large_string())
    table = pa.table({"idx": np.arange(2)})
    granules = Granules(table, pa.array(["G", "A"], pa.large_string()), pa.table({"path": paths}))
    return GranuleReader(store, GroupsLayout(Hierarchy(store), "path"), granules)


def test_a_key_that_takes_metadata_is_found_once_it_was_read(reader: GranuleReader) -> None:
    assert reader.chunk(0, "sst/c/0/0") == "group/sst/c/0/0"
    chunk = reader.chunk(1, "alone/c/0/0")
    assert isinstance(chunk, NeedsMetadata)
    assert sync(resolve_chunk(chunk)) == "alone/c/0/0"
    assert reader.chunk(1, "alone/c/0/0") == "alone/c/0/0"


@pytest.mark.parametrize("row", [0, 1])
def test_a_granule_is_a_zarr_store(reader: GranuleReader, row: int) -> None:
    store = reader.store(row, "G")
    group = zarr.open_group(store, mode="r")
    ((_, array),) = group.arrays()
    np.testing.assert_array_equal(array[:], VALUES)
    assert sync(store.exists(f"{array.path}/c/1/0"))
    assert not sync(store.exists(f"{array.path}/c/2/0"))
    with pytest.raises(ReadOnlyViewError, match="the granule G is read-only"):
        sync(store.set("zarr.json", cpu.Buffer.from_bytes(b"{}")))


def test_arrays_are_opened_by_tables(reader: GranuleReader) -> None:
    locations = [reader.granules.location(row) for row in range(2)]
    for table in sync(reader.layout.tables(locations, RELEVANT)):
        (array,) = table.arrays.values()
        decoders = [ValueDecoder.of_document(variant) for variant in array.variants]
        for member, row in enumerate(table.rows.tolist()):
            stored = reader.stored_array(row, array, member, decoders)
            assert stored.name == f"{'GA'[row]}/{array.path}"
            window = (range(1, 3), range(4))
            np.testing.assert_array_equal(stored.read_stored(window), VALUES[1:])


def test_a_chunk_that_is_gone_reads_as_nothing(reader: GranuleReader) -> None:
    assert sync(reader.store(0).get("sst/c/9/9", default_buffer_prototype())) is None
    assert reader.store(0).get_sync("other/c/0") is None


def test_a_reader_remembers_a_few_decoders(
    reader: GranuleReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("l2view.granules.reader.DECODERS", 2)
    reader = GranuleReader(reader.source, reader.layout, reader.granules)
    for _ in range(5):
        for table in sync(reader.layout.tables([("group",)], RELEVANT)):
            decoders = [ValueDecoder.of_document(v) for v in table.arrays["sst"].variants]
            array = reader.stored_array(0, table.arrays["sst"], 0, decoders)
            assert array.read_stored((range(3), range(4))).tolist() == VALUES.tolist()
    assert len(reader._decoders._values) == 2

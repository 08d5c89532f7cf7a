"""The table ``meta`` as a dataset of Arrow: projection, filters and engines."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pytest
import zarr
from builders import collection_of, put, texts
from zarr.storage import MemoryStore, WrapperStore

import l2view
from l2view.errors import FieldError, StoreError
from l2view.limits import override_limits
from l2view.scan.dataset import TableDataset
from l2view.scan.filter import with_sql_nulls


class Counting(WrapperStore[MemoryStore]):
    """A store that remembers what was read."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.keys: list[str] = []

    def get_sync(self, key: str, **options: Any) -> Any:
        self.keys.append(key)
        return super().get_sync(key, **options)

    async def get(self, key: str, *options: Any, **more: Any) -> Any:
        self.keys.append(key)
        return await super().get(key, *options, **more)

    def chunks(self) -> list[str]:
        return [key for key in self.keys if "/c/" in key and key.startswith("meta/")]


def large(rows: int = 400, chunk: int = 100) -> Counting:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    numbers = np.arange(rows)
    put(meta, "n", numbers, chunks=(chunk,))
    put(meta, "other", numbers * 2, chunks=(chunk,))
    put(meta, "name", texts(map(str, numbers)), chunks=(chunk,))
    return Counting(root.store)


@pytest.fixture
def small_ranges() -> Iterator[None]:
    with override_limits(run_rows=100):
        yield


def test_projection_and_filter_are_pushed_down(small_ranges: None) -> None:
    store = large()
    collection = l2view.Collection(store)
    assert collection.sql("SELECT count(*) c FROM meta").to_pydict() == {"c": [400]}
    assert store.chunks() == []
    assert collection.sql("SELECT other FROM meta WHERE n = 250").to_pydict() == {"other": [500]}
    # The filter's field everywhere, the other only where a row passed, the third nowhere.
    assert sorted(store.chunks()) == [*(f"meta/n/c/{i}" for i in range(4)), "meta/other/c/2"]


@pytest.mark.parametrize("engine", ["duckdb", "polars", "pyarrow", "datafusion"])
def test_engines_query_the_same_object(engine: str, small_ranges: None) -> None:
    store = large()
    meta = l2view.Collection(store).meta
    assert isinstance(meta, pads.Dataset)
    store.keys.clear()
    if engine == "duckdb":
        query = "SELECT idx, name FROM meta WHERE n >= 398 OR n = 7 ORDER BY idx"
        rows = duckdb.sql(query).fetchall()
    elif engine == "polars":
        frame = pl.scan_pyarrow_dataset(meta)
        wanted = (pl.col("n") >= 398) | (pl.col("n") == 7)
        rows = frame.filter(wanted).select("idx", "name").sort("idx").collect().rows()
    elif engine == "pyarrow":
        wanted = (pc.field("n") >= 398) | (pc.field("n") == 7)
        table = meta.to_table(columns=["idx", "name"], filter=wanted)
        rows = list(zip(*table.to_pydict().values(), strict=True))
    else:
        query = "SELECT idx, name FROM meta WHERE n >= 398 OR n = 7 ORDER BY idx"
        frame = l2view.Collection(store).sql(query)
        rows = list(zip(*frame.to_pydict().values(), strict=True))
    assert rows == [(7, "7"), (398, "398"), (399, "399")]
    assert not any("other" in key for key in store.chunks())


def test_polars_pushes_its_filter_down(small_ranges: None) -> None:
    store = large()
    meta = l2view.Collection(store).meta
    found = pl.scan_pyarrow_dataset(meta).filter(pl.col("n") == 250).collect()
    assert found.rows() == [(250, 250, "250", 500)]
    assert [key for key in store.chunks() if "/name/" in key] == ["meta/name/c/2"]


def test_duckdb_sees_geometry_and_time(v3_store: MemoryStore) -> None:
    meta = l2view.Collection(v3_store).meta
    (row,) = duckdb.sql("SELECT bbox, datetime FROM meta WHERE idx = 1").fetchall()
    assert isinstance(row[0], bytes)
    assert row[1].isoformat() == "2025-06-02T10:00:00"
    assert meta.schema.field("bbox").metadata[b"ARROW:extension:name"] == b"geoarrow.wkb"


def test_dataset_methods(small_ranges: None) -> None:
    meta = l2view.Collection(large()).meta
    assert meta.count_rows() == 400
    assert meta.count_rows(filter=pc.field("n") < 10) == 10
    assert meta.head(3, columns=["n"]).to_pydict() == {"n": [0, 1, 2]}
    assert meta.take([399, 0, 399], columns=["n"])["n"].to_pylist() == [399, 0, 399]
    assert meta.take([], columns=["n"]).schema == pa.schema([("n", pa.int64())])
    with pytest.raises(IndexError, match="from 0 to 399"):
        meta.take([400])
    doubled = meta.to_table(columns={"m": pc.field("n") * 2}, filter=pc.field("other") == 6)
    assert doubled.to_pydict() == {"m": [6]}
    with pytest.raises(FieldError, match='no field "nme"; did you mean "name"'):
        meta.to_table(columns=["nme"])
    fragments = list(meta.get_fragments())
    assert fragments[0].scanner(columns=["n"]).to_table()["n"][0].as_py() == 0
    counts = [fragment.scanner(columns=["n"]).to_table().num_rows for fragment in fragments]
    assert sum(counts) == 400
    batches = list(meta.to_batches(columns=["n"], batch_size=30))
    assert max(batch.num_rows for batch in batches) == 30
    assert repr(meta).startswith("<TableDataset: meta, 400 rows>")
    # What needs a dataset of Arrow's own fails by name, and not the process.
    with pytest.raises(FileNotFoundError, match="read by its own methods"):
        meta.sort_by("n")


def test_dataset_pickles(v3_store: MemoryStore) -> None:
    meta = l2view.Collection(v3_store).meta
    again = pickle.loads(pickle.dumps(meta))
    assert isinstance(again, TableDataset)
    assert again.to_table().equals(meta.to_table())


def test_not_in_leaves_null_out() -> None:
    """DataFusion leaves ``NOT IN`` of more than three numbers to the dataset."""
    values = np.array([1.0, np.nan, 7.0])
    collection = collection_of({"x": values, "s": texts(["a", "b", "c"])})
    assert collection.search("x NOT IN (1, 2, 3, 4, 5)")["idx"].to_pylist() == [2]
    assert collection.search("x IN (1, 2, 3, 4, 5)")["idx"].to_pylist() == [0]
    assert collection.search("NOT (x IN (1, 2, 3, 4, 5) AND s = 'a')")["idx"].to_pylist() == [1, 2]
    wanted = ~pc.field("x").isin([1.0, 2.0, 3.0])
    assert collection.meta.to_table(filter=wanted)["idx"].to_pylist() == [2]
    meta = collection.meta
    for condition in ("NOT IN (1, 2, 3, 4, 5)", "<> ALL ([1, 2, 3])", "NOT IN (1, 2)"):
        assert duckdb.sql(f"SELECT idx FROM meta WHERE x {condition}").fetchall() == [(2,)]
    lazy = pl.scan_pyarrow_dataset(meta).filter(~pl.col("x").is_in([1.0, 2.0, 3.0, 4.0]))
    assert lazy.collect()["idx"].to_list() == [2]


def test_not_in_leaves_null_out_of_the_users_datasets(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    mine = pa.table({"x": [1.0, None, 7.0], "part": ["a", "b", None]})
    pq.write_to_dataset(mine, tmp_path, partition_cols=["part"])
    collection = collection_of({"n": np.arange(3)})
    found = collection.sql(
        "SELECT x FROM mine WHERE x NOT IN (1, 2, 3, 4, 5)",
        tables={"mine": pads.dataset(tmp_path, partitioning="hive")},
    )
    assert found.to_pydict() == {"x": [7.0]}
    found = collection.sql(
        "SELECT x FROM mine WHERE part NOT IN ('b', 'c', 'd', 'e')",
        tables={"mine": pads.dataset(tmp_path, partitioning="hive")},
    )
    assert found.to_pydict() == {"x": [1.0]}


def test_expressions_without_lists_stay_as_they_are() -> None:
    condition = (pc.field("x") > 1) & pc.field("s").is_valid()
    assert with_sql_nulls(condition).equals(condition)


def test_a_dataset_that_is_filtered(small_ranges: None) -> None:
    """As with a dataset of Arrow's own, whatever is asked of it then."""
    store = large()
    meta = l2view.Collection(store).meta
    arrow = pads.dataset(meta.to_table())
    conditions = [pc.field("n") >= 120, pc.field("other") < 600]
    ours, theirs = meta, arrow
    store.keys.clear()
    for condition in conditions:
        ours, theirs = ours.filter(condition), theirs.filter(condition)
    assert store.chunks() == []
    again = pickle.loads(pickle.dumps(ours))
    assert isinstance(ours, pads.Dataset)
    for dataset in (ours, again):
        assert dataset.count_rows() == theirs.count_rows() == 180
        assert dataset.count_rows(filter=conditions[0]) == 180
        assert dataset.to_table() == theirs.to_table()
        assert dataset.take([5, 0, 179]) == theirs.take([5, 0, 179])
        assert dataset.head(3) == theirs.head(3)
        fragments = [f.scanner().to_table() for f in dataset.get_fragments()]
        assert pa.concat_tables(fragments) == theirs.to_table()
    assert duckdb.sql("SELECT count(*), min(n), max(n) FROM ours").fetchall() == [(180, 120, 299)]
    with pytest.raises(IndexError, match="Index 180 out of bounds"):
        ours.take([180])
    assert meta.count_rows() == 400


def test_a_failure_stays_that_of_its_scan() -> None:
    """Another partition that is read beside it must not clear it."""

    class Broken:
        schema = pa.schema([("a", pa.int64())])

        def partitions(self, *_: Any, **__: Any) -> list[Any]:
            raise StoreError("gone")

    dataset = TableDataset(Broken())  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        list(dataset.get_fragments())
    good = pa.record_batch({"a": [1]})
    assert dataset.scan(lambda *_: iter([good]), ["a"], None, 10).to_table().num_rows == 1
    assert isinstance(dataset.failure, StoreError)

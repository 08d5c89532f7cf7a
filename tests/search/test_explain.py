"""What a search reads, what is kept of it, and when that is no longer true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import obstore
import pytest
import shapely
import zarr
from obstore.store import LocalStore as Folder
from obstore.store import S3Store
from rows import found, wide, write

import l2view
from l2view.cache import CACHE, Cache
from l2view.index.commands import build_indexes
from l2view.limits import override_limits
from l2view.meta.chunks import Tally
from l2view.meta.objects import CACHED_FOLDERS

pytestmark = pytest.mark.usefixtures("small")


def test_what_a_search_costs(tmp_path: Path) -> None:
    write(tmp_path / "c", wide(70))
    plain = l2view.Collection(tmp_path / "c").explain("f = 7", fields=[])
    assert (plain.rows, plain.found, plain.tally.decoded) == (70, 2, 10)
    assert plain.tally.runs == 10
    build_indexes(tmp_path / "c")
    build_indexes(tmp_path / "c", "f")
    CACHE.clear()
    collection = l2view.Collection(tmp_path / "c")
    cost = collection.explain("t < TIMESTAMP '2025-01-01 05:00:00'", fields=["s"])
    assert cost.found == 5
    assert cost.tally.ruled_out == {"zone maps of t": 9}
    assert cost.tally.decoded == 2  # a chunk of t, a chunk of s
    cost = collection.explain("f = 7", fields=[])
    assert cost.tally.ruled_out["sorted index of f"] == 8
    assert cost.tally.decoded == 2  # values and rows of the index; the field isn't read
    place = shapely.box(-180, 0, -179.5, 1)
    cost = collection.explain("ST_Intersects(bbox, $p)", params={"p": place}, fields=[])
    assert cost.found == 1
    # It is a rectangle, of which the index tells all.
    assert cost.tally.ruled_out == {"R-tree of bbox": 10}
    assert "1 of 70 granules" in str(cost)
    again = collection.explain("ST_Intersects(bbox, $p)", params={"p": place}, fields=[])
    assert again.tally.decoded == 0
    assert again.tally.cached > 0
    assert collection.explain("f >= 0", fields=[], limit=2).tally.runs == 1
    assert collection.explain("id IS NOT NULL", ids=["g005"], fields=[]).found == 1


def test_counting_reads_nothing(tmp_path: Path) -> None:
    write(tmp_path / "c", wide(70))
    collection = l2view.Collection(tmp_path / "c")
    tally = Tally()
    collection.table = replace(collection.table, tally=tally)
    counted = collection.sql("SELECT COUNT(*) FROM meta").to_arrow_table()
    assert counted.column(0).to_pylist() == [70]
    assert tally.requests == 0


def test_a_sort_with_a_limit_reads_the_rest_for_few(tmp_path: Path) -> None:
    write(tmp_path / "c", wide(70))
    collection = l2view.Collection(tmp_path / "c")
    cost = collection.explain(order_by="f DESC", limit=1, fields=["s", "id"])
    assert cost.tally.decoded == 10 + 2


def test_the_cache_keeps_to_its_budget() -> None:
    cache = Cache[object, bytes](lambda: 3000)
    for number in range(10):
        cache.put(number, b"", 500)
    assert cache.nbytes <= 3000
    assert len(cache) == 3
    assert cache.get(9) == b""
    assert cache.get(0) is None
    cache.put("large", b"", 5000)
    assert cache.get("large") is None
    cache.get(7)
    cache.put("new", b"", 500)
    assert cache.get(7) == b""  # which was asked for
    assert cache.get(8) is None


def test_a_chunk_that_changes_is_read_again(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(20))
    collection = l2view.Collection(tmp_path / "c")
    assert collection.search("f = 7", fields=[]).num_rows == 1
    array = zarr.open_array(store, path="meta/f")
    array[0] = 7.0
    assert collection.search("f = 7", fields=[]).num_rows == 2


def test_a_store_that_changes_while_it_is_open(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(10))
    assert found(store, "n < 0") == []
    for name, array in zarr.open_group(store, path="meta").arrays():
        array.resize((13,))  # the chunk's file is what it was
        del name
    assert found(store, "f = 0 AND n = 0") == [0, 10, 11, 12]
    build_indexes(tmp_path / "c", ["n"])
    build_indexes(tmp_path / "c")
    collection = l2view.Collection(store)
    assert collection.search("n = 2", fields=[]).num_rows == 3
    zarr.open_array(store, path="meta/n")[0] = 500
    build_indexes(tmp_path / "c", ["n"])
    build_indexes(tmp_path / "c")
    assert collection.search("n = 500", fields=[]).column("idx").to_pylist() == [0]


@pytest.fixture
def bucket(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A bucket with the store that lies in a folder, too."""
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    name = f"kept-{tmp_path.name.replace('_', '-')}"[:60].rstrip("-")
    boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1").create_bucket(Bucket=name)
    bucket = S3Store(
        name, endpoint=s3_server, region="us-east-1", client_options={"allow_http": True}
    )
    write(tmp_path / "c", wide(20))
    build_indexes(tmp_path / "c", ["id"])
    folder = Folder(tmp_path / "c")
    for page in folder.list():
        for one in page:
            bucket.put(one["path"], folder.get(one["path"]).bytes())
    return bucket


def test_a_footprint_of_a_bucket_is_asked_for_once(bucket: S3Store) -> None:
    """First for where it is, and then for what it is."""
    with l2view.config.set({"cache.bytes": 0}):
        place = shapely.box(-180, -90, 180, 90)
        cost = l2view.Collection(bucket).explain(intersects=place, fields=["bbox"])
    # Beside three chunks, the four keys that tell which indexes there are.
    assert (cost.found, cost.tally.requests) == (20, 3 + 4)


@pytest.fixture(params=[16, 1])
def few(request: pytest.FixtureRequest) -> Iterator[None]:
    """Many objects are requested on a condition, or one before the folder is listed."""
    with override_limits(conditional_requests=request.param):
        yield


@pytest.mark.usefixtures("few")
def test_chunks_of_a_bucket_are_kept_by_their_etags(bucket: S3Store, tmp_path: Path) -> None:
    collection = l2view.Collection(bucket)
    assert collection.explain("f = 7", fields=[]).tally.decoded > 0
    again = collection.explain("f = 7", fields=[])
    assert (again.found, again.tally.decoded) == (1, 0)
    zarr.open_array(tmp_path / "c" / "meta" / "f")[5] = 7.0
    obstore.put(bucket, "meta/f/c/0", (tmp_path / "c" / "meta" / "f" / "c" / "0").read_bytes())
    changed = collection.search("f = 7", fields=[])
    assert changed.num_rows == 2
    with l2view.config.set({"cache.folder": str(tmp_path / "kept")}):
        for decoded in (True, False, False):
            CACHE.clear()
            CACHED_FOLDERS.clear()
            cost = collection.explain("f = 7", fields=["id"])
            assert cost.found == 2
            assert (cost.tally.decoded > 0, cost.tally.nbytes > 0) == (decoded, decoded)
        obstore.put(bucket, "meta/f/c/0", (tmp_path / "c" / "meta" / "n" / "c" / "1").read_bytes())
        with pytest.raises(l2view.L2ViewError, match="can't be decoded"):
            collection.search("f = 7", fields=["id"])
    obstore.delete(bucket, "meta/f/c/0")  # and is all fill values: 0
    assert collection.search("f = 7", fields=[]).num_rows == 0


def arrows(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.arrow"))


def cold_cost(path: Path) -> tuple[int, int, list[int]]:
    """Return what a search costs that finds nothing in memory, and what it finds."""
    CACHE.clear()
    collection = l2view.Collection(path)
    cost = collection.explain("f = 7", fields=["s", "bbox"])
    CACHE.clear()
    found = collection.search("f = 7", fields=["s", "bbox"])
    shapes = shapely.from_wkb(found.column("bbox").to_pylist())
    assert (shapely.bounds(shapes)[:, 3] == 1).all()
    return cost.tally.decoded, cost.tally.requests, found.column("idx").to_pylist()


def test_what_is_kept_in_a_folder(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(70))
    build_indexes(tmp_path / "c")
    build_indexes(tmp_path / "c", ["f"])
    expected = [1, 51]
    with l2view.config.set({"cache.folder": str(tmp_path / "kept")}):
        decoded, requests, found = cold_cost(tmp_path / "c")
        assert (decoded > 0, requests > 0, found) == (True, True, expected)
        kept = arrows(tmp_path / "kept")
        assert len(kept) == decoded
        known = requests - decoded  # what says which indexes there are
        assert cold_cost(tmp_path / "c") == (0, known, expected)
        # What was cut short, or isn't there any more, is made again.
        kept[0].write_bytes(kept[0].read_bytes()[:-9])
        kept[1].unlink()
        assert cold_cost(tmp_path / "c") == (2, known + 2, expected)
        assert cold_cost(tmp_path / "c") == (0, known, expected)
        # And what changed is another thing.
        zarr.open_array(store, path="meta/s")[1] = "other"
        assert l2view.search(store, "f = 7", fields=["s"]).column("s").to_pylist()[0] == "other"
        with l2view.config.set({"cache.folder_bytes": 3000}):
            zarr.open_array(store, path="meta/s")[2] = "another"
            cold_cost(tmp_path / "c")
            assert 0 < sum(path.stat().st_size for path in arrows(tmp_path / "kept")) <= 3000
        with l2view.config.set({"cache.folder_bytes": 10}):
            assert cold_cost(tmp_path / "c")[2] == expected
    assert cold_cost(tmp_path / "c")[0] == decoded


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    write(tmp_path / "c", wide(10))
    (tmp_path / "file").write_text("")
    with (
        l2view.config.set({"cache.folder": str(tmp_path / "file" / "kept")}),
        pytest.warns(l2view.L2ViewWarning, match="nothing is kept in"),
    ):
        assert found(tmp_path / "c", "f = 7") == [1]
    with (
        l2view.config.set({"cache.folder": 3}),
        pytest.raises(l2view.L2ViewError, match="cache.folder is a path, not 3"),
    ):
        l2view.search(tmp_path / "c", "f = 7")

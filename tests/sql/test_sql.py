"""Groups, arrays, chunks and cells of stores in SQL."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import icechunk
import numcodecs
import numpy as np
import obstore
import pytest
import zarr
from builders import virtual_repository, write_collection
from zarr.storage import MemoryStore, StorePath

import l2view
from l2view.errors import AuthorizationError, FieldError, QueryError, StoreError
from l2view.sql.access import is_allowed
from l2view.sql.arguments import positional


def write_sample(store: Any, zarr_format: Any, *, consolidated: bool = False) -> Any:
    """Write groups and arrays of several kinds."""
    root = zarr.create_group(store, zarr_format=zarr_format, attributes={"title": "sample"})
    group = root.create_group("stations")
    v2 = zarr_format == 2
    gzip: Any = numcodecs.GZip(level=1) if v2 else zarr.codecs.GzipCodec(level=1)
    root.create_array(
        "temperature",
        data=np.arange(12.0).reshape(4, 3),
        chunks=(2, 2),
        compressors=gzip,
        attributes={"units": "K", **({"_ARRAY_DIMENSIONS": ["y", "x"]} if v2 else {})},
        **({} if v2 else {"dimension_names": ["y", "x"]}),
    )
    group.create_array("elevation", data=np.array([100, 200], dtype=">i4"), compressors=None)
    sparse = root.create_array(
        "sparse", shape=(6,), chunks=(2,), dtype="i2", fill_value=-1, compressors=None
    )
    sparse[2:4] = [7, 8]
    if consolidated:
        zarr.consolidate_metadata(store, zarr_format=zarr_format)
    return store


@pytest.fixture(params=["v3", "v2", "v3 consolidated", "v2 consolidated"])
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, int]:
    """A folder with a store, and its format."""
    version = int(request.param[1])
    place = str(tmp_path / "sample.zarr")
    write_sample(place, version, consolidated="consolidated" in request.param)
    return place, version


def rows(store: Any, query: str, **options: Any) -> list[dict[str, Any]]:
    return list(l2view.sql(store, query, **options).to_arrow_table().to_pylist())


@pytest.mark.filterwarnings("ignore:Consolidated metadata:zarr.errors.ZarrUserWarning")
class TestStores:
    def test_groups(self, sample: tuple[str, int]) -> None:
        place, version = sample
        found = rows(place, "SELECT * FROM zarr_groups() ORDER BY group_path")
        assert [row["group_path"] for row in found] == ["/", "stations"]
        assert {row["zarr_format"] for row in found} == {version}
        assert {row["store_path"] for row in found} == {place}
        assert json.loads(found[0]["attributes"]) == {"title": "sample"}
        assert all(row["metadata_path"].startswith(f"{place}/") for row in found)

    def test_arrays(self, sample: tuple[str, int]) -> None:
        place, version = sample
        found = {row["array_path"]: row for row in rows(place, "SELECT * FROM zarr()")}
        assert set(found) == {"temperature", "stations/elevation", "sparse"}
        one = found["temperature"]
        assert (one["rank"], one["shape"], one["chunk_shape"]) == (2, [4, 3], [2, 2])
        assert (one["dtype"], one["order"], one["chunk_count"]) == ("<f8", "C", 4)
        assert json.loads(one["compressor"]) == {"id": "gzip", "level": 1}
        assert one["dimension_names"] == ["y", "x"]
        assert one["dimension_separator"] == ("." if version == 2 else "/")
        assert one["chunk_key_encoding"] == ("v2" if version == 2 else "default")
        assert json.loads(one["attributes"])["units"] == "K"
        assert found["stations/elevation"]["dtype"] == (">i4" if version == 2 else "<i4")
        assert found["stations/elevation"]["compressor"] is None
        assert found["sparse"]["fill_value"] == "-1"
        assert found["sparse"]["shard_shape"] is None

    def test_chunks(self, sample: tuple[str, int]) -> None:
        place, version = sample
        query = "SELECT * FROM zarr_chunks() ORDER BY array_path, chunk_key"
        found = rows(place, query)
        keys = [(row["array_path"], row["chunk_key"]) for row in found]
        if version == 2:
            grid = ["0.0", "0.1", "1.0", "1.1"]
            alone = {"sparse": "1", "stations/elevation": "0"}
        else:
            grid = ["c/0/0", "c/0/1", "c/1/0", "c/1/1"]
            alone = {"sparse": "c/1", "stations/elevation": "c/0"}
        assert keys == [*alone.items(), *(("temperature", key) for key in grid)]
        for row in found:
            file = Path(place, row["array_path"], row["chunk_key"])
            assert row["file_path"] == file.as_uri()
            assert row["length"] == row["file_size_bytes"] == file.stat().st_size
            assert (row["offset"], row["kind"]) == (0, "native")
        assert found[-1]["chunk_coords"] == [1, 1]

    def test_cells(self, sample: tuple[str, int]) -> None:
        place, _ = sample
        found = rows(place, "SELECT y, x, value FROM zarr_cells('temperature') ORDER BY 1, 2")
        assert [tuple(row.values()) for row in found] == [
            (y, x, float(3 * y + x)) for y in range(4) for x in range(3)
        ]
        sparse = rows(place, "SELECT value FROM zarr('sparse') ORDER BY dim_0")
        assert [row["value"] for row in sparse] == [-1, -1, 7, 8, -1, -1]
        query = "SELECT sum(value) s FROM zarr_cells('stations/elevation') WHERE dim_0 = 1"
        assert rows(place, query) == [{"s": 200}]

    def test_another_store_by_its_path(self, sample: tuple[str, int]) -> None:
        place, _ = sample
        own = MemoryStore()
        write_collection(own, 3)
        for query in (
            f"SELECT count(*) n FROM zarr_arrays('{place}')",
            f"SELECT count(*) n FROM zarr('{place}')",
        ):
            assert rows(own, query, allow_stores=True) == [{"n": 3}]
            error = QueryError if "zarr(" in query else StoreError
            with pytest.raises(error, match=r"may not read: allow_stores=\['|where allow_stores= "):
                l2view.sql(own, query)
        query = f"SELECT sum(value) s FROM zarr('{place}', 'temperature')"
        assert rows(own, query, allow_stores=str(Path(place).parent)) == [{"s": 66.0}]
        with pytest.raises(StoreError, match="may not read"):
            l2view.sql(own, query, allow_stores=["/nowhere", "s3://bucket"])


def test_a_filter_on_paths_looks_at_no_other_array(monkeypatch: pytest.MonkeyPatch) -> None:
    from l2view.cells import store as tables

    asked: list[str] = []
    real = tables.stored_chunks

    def watched(store: Any, source: Any, *rest: Any) -> Any:
        asked.append(source.path)
        return real(store, source, *rest)

    monkeypatch.setattr(tables, "stored_chunks", watched)
    store = write_sample(MemoryStore(), 3)
    query = "SELECT count(*) n FROM zarr_chunks() WHERE array_path = 'temperature' AND length > 0"
    assert rows(store, query) == [{"n": 4}]
    assert asked == ["temperature"]


def test_icechunk(tmp_path: Path) -> None:
    repository, prefix = virtual_repository(tmp_path)
    found = rows(repository, "SELECT * FROM zarr_chunks() WHERE kind = 'virtual'")
    assert [(r["array_path"], r["file_path"], r["length"]) for r in found] == [
        ("granules/a/x", f"{prefix}a.bin", 48)
    ]
    assert rows(repository, "SELECT file_size_bytes s FROM zarr_chunks() WHERE length = 48") == [
        {"s": None}
    ]
    with pytest.raises(AuthorizationError, match="authorize="):
        l2view.sql(repository, "SELECT * FROM zarr_cells('granules/a/x')")
    query = "SELECT sum(value) s FROM zarr_cells('granules/a/x') WHERE i > 9"
    assert rows(repository, query, authorize=[prefix]) == [{"s": 21.0}]
    cells = "SELECT id, sum(value) s FROM cells('x') GROUP BY id"
    assert rows(repository, cells, authorize=True) == [{"id": "a", "s": 66.0}]
    with pytest.raises(AuthorizationError):
        l2view.sql(repository, cells)


def test_icechunk_of_the_past(tmp_path: Path) -> None:
    repository = icechunk.Repository.create(
        icechunk.local_filesystem_storage(str(tmp_path / "repository"))
    )
    session = repository.writable_session("main")
    write_sample(session.store, 3)
    first = session.commit("one")
    session = repository.writable_session("main")
    zarr.open_group(session.store)["sparse"][:] = np.arange(6)
    session.commit("two")
    query = "SELECT sum(value) s FROM zarr_cells('sparse')"
    assert rows(tmp_path / "repository", query) == [{"s": 15}]
    assert rows(tmp_path / "repository", query, snapshot=first) == [{"s": 11}]


def test_a_bucket(bucket: str) -> None:
    store = obstore.store.from_url(f"{bucket}/sample.zarr", client_options={"allow_http": True})
    write_sample(zarr.storage.ObjectStore(store), 3)
    url = f"{bucket}/sample.zarr"
    found = rows(url, "SELECT file_path p, length n FROM zarr_chunks() WHERE array_path = 'sparse'")
    assert found == [{"p": f"{url}/sparse/c/1", "n": 4}]
    assert rows(url, "SELECT sum(value) s FROM zarr_cells('temperature')") == [{"s": 66.0}]
    assert rows(url, "SELECT count(*) n FROM zarr_groups()") == [{"n": 2}]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The URL of a folder on a server that doesn't list."""
    handler = functools.partial(Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.filterwarnings("ignore:Consolidated metadata:zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize("version", [2, 3])
def test_http(served: str, tmp_path: Path, version: int) -> None:
    write_sample(str(tmp_path / "sample.zarr"), version, consolidated=True)
    url = f"{served}/sample.zarr"
    assert rows(url, "SELECT count(*) n FROM zarr_arrays()") == [{"n": 3}]
    assert rows(url, "SELECT sum(value) s FROM zarr_cells('temperature')") == [{"s": 66.0}]
    found = rows(url, "SELECT * FROM zarr_chunks() WHERE array_path = 'sparse'")
    key = "1" if version == 2 else "c/1"
    assert [(r["file_path"], r["length"]) for r in found] == [(f"{url}/sparse/{key}", 4)]
    write_sample(str(tmp_path / "plain.zarr"), version)
    with pytest.raises(Exception, match="needs consolidated metadata"):
        rows(f"{served}/plain.zarr", "SELECT * FROM zarr_arrays()")


def test_ome_zarr() -> None:
    store = MemoryStore()
    multiscales = [{"axes": [{"name": n} for n in "zyx"], "datasets": [{"path": "0"}]}]
    root = zarr.create_group(
        store, attributes={"ome": {"version": "0.5", "multiscales": multiscales}}
    )
    values = np.arange(24, dtype="u2").reshape(2, 3, 4)
    options: dict[str, Any] = {"chunks": (1, 1, 2), "shards": (1, 3, 4)}
    root.create_array("0", data=values, dimension_names=list("zyx"), **options)
    root.create_array("1", data=values[:, ::2, ::2], dimension_names=list("zyx"))
    labels = root.create_group("labels/0")
    labels.create_array("0", data=(values > 5).astype("i1"), dimension_names=list("zyx"))
    found = rows(store, "SELECT array_path, shard_shape, chunk_shape FROM zarr() ORDER BY 1")
    assert [row["array_path"] for row in found] == ["0", "1", "labels/0/0"]
    assert (found[0]["shard_shape"], found[0]["chunk_shape"]) == ([1, 3, 4], [1, 1, 2])
    groups = rows(store, "SELECT group_path FROM zarr_groups() WHERE attributes LIKE '%ome%'")
    assert groups == [{"group_path": "/"}]
    query = """
        SELECT sum(image.value) s FROM zarr_cells('0') image
        JOIN zarr_cells('labels/0/0') label USING (z, y, x) WHERE label.value = 1 AND image.z = 0
    """
    assert rows(store, query) == [{"s": int(values[0][values[0] > 5].sum())}]
    assert len(rows(store, "SELECT * FROM zarr_chunks() WHERE array_path = '0'")) == 2


def test_rectilinear_grids_and_orders() -> None:
    store = MemoryStore()
    root = zarr.create_group(store)
    with zarr.config.set({"array.rectilinear_chunks": True}):
        root.create_array("odd", data=np.arange(10), chunks=[[3, 7]])
        order = zarr.codecs.TransposeCodec(order=(1, 0))
        root.create_array("f", data=np.eye(3), filters=order)
        query = 'SELECT array_path p, chunk_shape c, chunk_count n, "order" o FROM zarr_arrays()'
        found = {row["p"]: row for row in rows(store, query)}
        assert (found["odd"]["c"], found["odd"]["n"]) == (None, 2)
        assert (found["f"]["o"], found["odd"]["o"]) == ("F", "C")
        query = "SELECT sum(value) s FROM zarr_cells('odd') WHERE dim_0 > 7"
        assert rows(store, query) == [{"s": 17}]


@pytest.fixture
def collection(v3_store: MemoryStore) -> l2view.Collection:
    return l2view.Collection(v3_store)


@pytest.mark.parametrize(
    ("query", "error", "said"),
    [
        ("SELECT * FROM zarr_cells('meta/orbitt')", QueryError, 'did you mean "meta/orbit"'),
        ("SELECT * FROM zarr_cells('granules')", QueryError, 'no array "granules"'),
        ("SELECT * FROM zarr_cells('../meta/id')", QueryError, 'no array "../meta/id"'),
        ("SELECT * FROM zarr_cells()", QueryError, "takes the path of an array"),
        ("SELECT * FROM zarr_cells('a', 'b', 'c')", QueryError, "takes the path of an array"),
        ("SELECT * FROM zarr_cells(3)", QueryError, "paths, which are texts, not 3"),
        ("SELECT * FROM meta, zarr_cells(meta.id)", QueryError, "are constants, not"),
        ("SELECT * FROM zarr('granules')", QueryError, 'no array "granules"'),
        ("SELECT * FROM zarr('nothing')", QueryError, 'no array "nothing"'),
        ("SELECT * FROM zarr_arrays('a', 'b')", QueryError, "one path or URL"),
        ("SELECT * FROM zarr_arrays('/a')", StoreError, "may not read"),
        ("SELECT * FROM zarr('/etc/passwd')", QueryError, 'no array "/etc/passwd"'),
        ("SELECT * FROM zarr(decode => true)", QueryError, "with the path of an array only"),
        ("SELECT * FROM zarr_cells('https://me:pw@h/x?sig=1')", QueryError, '"https://h/x"'),
        (
            "SELECT * FROM zarr_cells('meta/id', decode => true, decode => true)",
            QueryError,
            "the argument decode twice",
        ),
        ("SELECT * FROM zarr_cells('meta/id', max_cells => 0.5)", QueryError, "number of cells"),
        ("SELECT * FROM zarr_chunks('s3://me:secret@b/a')", StoreError, "s3://b/a"),
        ("SELECT * FROM zarr_cells('meta/id', decode => 1)", QueryError, "true or false, not 1"),
        ("SELECT * FROM zarr_cells('meta/id', dcode => true)", QueryError, 'mean "decode"'),
        ("SELECT * FROM zarr_cells(decode => true, 'meta/id')", QueryError, "without a name"),
        ("SELECT * FROM zarr_cell('meta/id')", QueryError, r'mean "zarr_cells\(\)"'),
        ("SELECT * FROM nothing(a => 1)", QueryError, "the argument a is of no table function"),
        ("SELECT valeu FROM zarr_cells('meta/orbit')", FieldError, 'did you mean "value"'),
        ("SELECT * FROM cells('redd')", QueryError, 'did you mean "red"'),
        ("SELECT * FROM cells()", QueryError, "the name of a variable"),
        ("SELECT * FROM cells('red', wher => 'a')", QueryError, 'did you mean "where"'),
        ("SELECT * FROM cells('red', where => 'orbt = 1')", FieldError, 'mean "orbit"'),
        ("SELECT * FROM cells('red', where => $w)", QueryError, "placeholder"),
        ("SELECT * FROM cells('red', bbox => [1, 2])", QueryError, "bbox"),
        ("SELECT * FROM cells('red', max_cells => 'a')", QueryError, "number of cells"),
        ("SELECT * FROM cells('red', max_cells => 5)", QueryError, "more than max_cells=5"),
        ("SELECT * FROM zarr_cells('meta/id', max_cells => 5)", QueryError, "20 cells to go"),
    ],
)
@pytest.mark.filterwarnings("ignore::l2view.errors.MissingGranuleWarning")
def test_errors(
    collection: l2view.Collection, query: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        collection.sql(query)
    assert "secret" not in str(raised.value)
    assert "traceback" not in str(raised.value).lower()


@pytest.mark.filterwarnings("ignore::l2view.errors.MissingGranuleWarning")
def test_limits_read_little(collection: l2view.Collection) -> None:
    query = "SELECT value FROM zarr_cells('meta/orbit', max_cells => 5) LIMIT 3"
    assert len(collection.sql(query).to_pylist()) == 3
    with pytest.raises(QueryError, match="max_cells=7"):
        collection.sql("SELECT sum(value) FROM zarr_cells('meta/orbit')", max_cells=7)


@pytest.mark.filterwarnings("ignore::l2view.errors.MissingGranuleWarning")
def test_placeholders_are_arguments(collection: l2view.Collection) -> None:
    query = """
        SELECT DISTINCT granule FROM cells($variable, where => 'orbit < $most', limit => $n)
        ORDER BY granule
    """
    found = collection.sql(query, {"variable": "red", "most": 9, "n": 2}).to_pydict()
    assert found == {"granule": ["S2A_000", "S2A_001"]}
    with pytest.raises(QueryError, match="the placeholder \\$most has no value"):
        collection.sql(query, {"variable": "red", "n": 2})


@pytest.mark.filterwarnings("ignore::l2view.errors.MissingGranuleWarning")
def test_tables_join(collection: l2view.Collection) -> None:
    query = """
        SELECT m.id, max(c.value) v FROM meta m JOIN CELLS('red', WHERE => 'orbit = 2') c
        ON m.idx = c.idx WHERE m.orbit < 9 GROUP BY m.id
    """
    (row,) = collection.sql(query).to_pylist()
    assert row["id"] == "S2A/002"
    red = collection.open("orbit = 2")["S2A_002/red"]
    assert row["v"] == pytest.approx(red[:].max() * red.attrs["scale_factor"])
    counted = "SELECT value, count(*) n FROM zarr_cells('meta/platform') GROUP BY value ORDER BY 1"
    assert collection.sql(counted).to_pydict() == {"value": ["A", "B"], "n": [10, 10]}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT ' cells(a => 1)' FROM t", None),
        ('SELECT "a cells(" => 1', None),
        ("SELECT 1 -- cells(a => 1)\n", None),
        ("SELECT /* /* nested */ cells(a => 1) */ 1", None),
        ("SELECT $$cells(a => 1)$$, E'it\\'s cells(a => 1)'", None),
        ("SELECT f(a => 1), cells", None),
        ("FROM Cells ( 'x' , Where=>'a => b')", "FROM cells ( 'x' , '#where','a => b')"),
        (
            "cells('a', b => [1, (2)], c => f(d => 3), e => {f: 1})",
            "cells('a', '#b' , [1, (2)], '#c' , f(d => 3), '#e' , {f: 1})",
        ),
        (
            "cells('it''s', a => 1), \"zarr_cells\"('x', \"b\" := 2)",
            "cells('it''s', '#a' , 1), zarr_cells('x', '#b' , 2)",
        ),
    ],
)
def test_named_arguments(query: str, expected: str | None) -> None:
    assert positional(query, ["cells", "zarr_cells"], "#") == (expected or query)


def test_which_stores_are_allowed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    allowed = [str(inside), "s3://bucket/a"]
    assert is_allowed(str(inside / "x.zarr"), allowed)
    assert is_allowed((inside / "x.zarr").as_uri(), allowed)
    assert is_allowed("s3://bucket/a/b", allowed)
    assert is_allowed("s3://bucket/a", "s3://bucket/a/")
    for place in (
        str(outside),
        str(inside / "../out"),
        str(inside / "link"),
        f"{inside}side",
        "s3://bucket/ab",
        "s3://bucket/a/../b",
        "s3://bucket/a/%2e%2e/b",
        "s3://other/a",
        "https://bucket/a",
        "s3://bucket/a/..\\b",
        "s3://bucket/a/%5c../b",
        "s3://bucket/a/%252e%252e/b",
        "s3://bucket/a/ b",
        "~nobody-is-called-so/a",
        "a\0b",
    ):
        assert not is_allowed(place, allowed), place
    assert is_allowed("anything", True)
    assert not is_allowed("anything", False)


@pytest.mark.parametrize("said", [None, 5, [5], "", [""]])
def test_what_allows_no_stores(collection: l2view.Collection, said: Any) -> None:
    with pytest.raises(QueryError, match="allow_stores= is True, False, or paths and URLs"):
        collection.sql("SELECT 1", allow_stores=said)


def test_lists_are_compared_by_their_elements() -> None:
    store = write_sample(MemoryStore(), 3)
    query = (
        "SELECT chunk_key k FROM zarr_chunks() WHERE chunk_coords[1] = 1 AND chunk_coords[2] = 0"
    )
    assert rows(store, query) == [{"k": "c/1/0"}]
    query = "SELECT chunk_key k FROM zarr_chunks() WHERE array_to_string(chunk_coords, ',') = '1,0'"
    assert rows(store, query) == [{"k": "c/1/0"}]
    with pytest.raises(Exception, match="chunk_coords can't be compared as a whole"):
        rows(store, "SELECT * FROM zarr_chunks() WHERE chunk_coords = [1, 0]")


ODD: dict[str, dict[str, Any]] = {
    "data type": {"data_type": "float128x"},
    "grid": {"chunk_grid": {"name": "spiral"}},
    "keys": {"chunk_key_encoding": {"name": "hashed"}},
    "short names": {"codecs": ["bytes"], "chunk_key_encoding": "default"},
    "no length": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0]}}},
}


@pytest.mark.filterwarnings("ignore::l2view.errors.SkippedArrayWarning")
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_array_stands_beside_others(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "odd.zarr"
    root = zarr.create_group(place)
    root.create_array("ok", data=np.arange(3))
    root.create_array("odd", data=np.arange(3))
    document = json.loads((place / "odd/zarr.json").read_text()) | ODD[kind]
    (place / "odd/zarr.json").write_text(json.dumps(document))
    found = rows(place, "SELECT array_path p, rank FROM zarr_arrays() ORDER BY 1")
    assert [row["p"] for row in found] == ["odd", "ok"]
    chunks = rows(place, "SELECT array_path p FROM zarr_chunks()")
    assert "ok" in [row["p"] for row in chunks]
    assert rows(place, "SELECT sum(value) s FROM zarr_cells('ok')") == [{"s": 3}]


def test_rectilinear_arrays_are_told_without_zarrs_switch(tmp_path: Path) -> None:
    place = tmp_path / "a.zarr"
    with zarr.config.set({"array.rectilinear_chunks": True}):
        zarr.create_group(place).create_array("a", data=np.arange(10), chunks=[[3, 3, 3, 1]])
    assert rows(place, "SELECT chunk_count n FROM zarr_arrays()") == [{"n": 4}]
    assert rows(place, "SELECT count(*) n FROM zarr_chunks()") == [{"n": 4}]


def test_what_zarr_v2_stores_is_told_as_it_is(tmp_path: Path) -> None:
    place = tmp_path / "a.zarr"
    root = zarr.create_group(place, zarr_format=2)
    blosc: Any = numcodecs.Blosc(cname="lz4", clevel=3, shuffle=1)
    root.create_array(
        "a",
        data=np.arange(4, dtype="i4"),
        compressors=blosc,
        fill_value=5,
        attributes={"_ARRAY_DIMENSIONS": ["x"], "k": 1},
        order="F",
    )
    (row,) = rows(place, "SELECT * FROM zarr_arrays()")
    stored = json.loads((place / "a/.zarray").read_text())
    assert json.loads(row["compressor"]) == stored["compressor"]
    assert json.loads(row["fill_value"]) == 5
    assert json.loads(row["attributes"]) == {"_ARRAY_DIMENSIONS": ["x"], "k": 1}
    assert (row["order"], row["dimension_names"]) == ("F", ["x"])
    stored["compressor"] = {"id": "foozip"}
    (place / "a/.zarray").write_text(json.dumps(stored))
    (row,) = rows(place, "SELECT compressor c FROM zarr_arrays()")
    assert json.loads(row["c"]) == {"id": "foozip"}
    assert rows(place, "SELECT count(*) n FROM zarr_chunks()") == [{"n": 1}]
    with pytest.raises(QueryError, match="the array a can't be opened"):
        rows(place, "SELECT * FROM zarr_cells('a')")


def test_stores_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    own = write_sample(MemoryStore(), 3)
    with pytest.raises(Exception, match="no Zarr hierarchy at"):
        rows(own, f"SELECT * FROM zarr_arrays('{tmp_path / 'folder'}')", allow_stores=True)
    with pytest.raises(StoreError, match="there is nothing at"):
        rows(own, f"SELECT * FROM zarr_arrays('{tmp_path / 'nothing'}')", allow_stores=True)


def test_a_group_called_meta_that_is_no_table(tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "a.zarr")
    root.create_array("v", data=np.arange(3))
    meta = root.create_group("meta")
    meta.create_array("x", data=np.arange(3))
    meta.create_array("y", data=np.arange(5))
    with pytest.warns(l2view.L2ViewWarning, match="there is no table meta: .*differ in length"):
        found = rows(tmp_path / "a.zarr", "SELECT sum(value) s FROM zarr_cells('v')")
    assert found == [{"s": 3}]


def test_a_group_as_the_store() -> None:
    store = MemoryStore()
    zarr.create_group(store)
    write_sample(StorePath(store, "g"), 3)
    group = zarr.open_group(store, path="g")
    found = rows(group, "SELECT metadata_path m FROM zarr_groups() ORDER BY 1")
    assert [row["m"].count("g/") for row in found] == [1, 1]
    assert rows(group, "SELECT sum(value) s FROM zarr_cells('temperature')") == [{"s": 66.0}]
    assert rows(group, "SELECT count(*) n FROM zarr_chunks()") == [{"n": 6}]


def test_the_callers_limit_holds() -> None:
    store = write_sample(MemoryStore(), 3)
    query = "SELECT count(value) FROM zarr_cells('temperature', max_cells => 1000)"
    with pytest.raises(QueryError, match="more than max_cells=5"):
        l2view.sql(store, query, max_cells=5)

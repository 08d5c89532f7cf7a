"""Joined, cropped and exported views of what is odd, but plausible."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import xarray as xr
import zarr
from builders import decoded, packed_store, put, texts
from zarr.codecs import ShardingCodec
from zarr.storage import LocalStore, MemoryStore

import l2view
from l2view.limits import override_limits

type Writer = Callable[[zarr.Group, int], None]


def collection(
    count: int, write: Writer, fields: Any = None, *, store: Any = None, zarr_format: Any = 3
) -> Any:
    """Return a plain store with granules that `write` writes."""
    store = MemoryStore() if store is None else store
    root = zarr.create_group(store, zarr_format=zarr_format)
    for number in range(count):
        write(root.create_group(f"g{number}"), number)
    meta = root.create_group("meta")
    put(meta, "id", texts(f"g{number}" for number in range(count)))
    for name, values in (fields or {}).items():
        put(meta, name, values)
    return store


def array(group: zarr.Group, name: str, values: Any, chunks: Any = None, **options: Any) -> Any:
    values = np.asarray(values)
    names = ("y", "x", "z")[: values.ndim]
    options.setdefault("dimension_names", names)
    made = group.create_array(
        name,
        shape=values.shape,
        chunks=chunks or tuple(max(n, 1) for n in values.shape),
        dtype=options.pop("dtype", values.dtype),
        **options,
    )
    made[...] = values
    return made


UNIFY: dict[str, Any] = {"layout": "stack", "encoding": "unify"}


@pytest.mark.filterwarnings("ignore:The data type")
@pytest.mark.parametrize("kind", ["M8[s]", "m8[s]", "M8[D]"])
def test_numpys_own_times(kind: str) -> None:
    """They are no numbers of nanoseconds, whatever is made of their chunks."""

    def write(group: zarr.Group, number: int) -> None:
        values = (np.arange(3 + number) + 18262).astype(kind)
        array(group, "t", values, (2,), fill_value=0)

    store = collection(2, write)
    expected = [granule.t.values for granule in decoded(store)]
    joined = l2view.open(store, layout="concat", dim="y")
    np.testing.assert_array_equal(joined.to_dataset().t, np.concatenate(expected))
    for options in ({"ragged": "pad"}, {"ragged": "pad", "encoding": "unify"}):
        found = l2view.open(store, layout="stack", **options).to_dataset().t.values  # type: ignore[arg-type]
        np.testing.assert_array_equal(found[0, :3], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
        assert np.isnat(found[0, 3])


@pytest.mark.parametrize("layout", ["stack", "concat"])
def test_bounds_are_read_as_their_times(layout: Any) -> None:
    def write(group: zarr.Group, number: int) -> None:
        attributes = {"units": f"days since 202{number}-01-01", "bounds": "t_bnds"}
        array(group, "t", np.arange(3, dtype="i4"), attributes=attributes)
        array(group, "t_bnds", np.arange(6, dtype="i4").reshape(3, 2))

    store = collection(2, write)
    granules = decoded(store)
    join = np.stack if layout == "stack" else np.concatenate
    options = {"dim": "y"} if layout == "concat" else {}
    found = l2view.open(store, layout=layout, encoding="unify", **options).to_dataset()  # type: ignore[arg-type]
    for name in ("t", "t_bnds"):
        np.testing.assert_array_equal(found[name], join([one[name].values for one in granules]))
    assert found.t_bnds.dtype == granules[0].t_bnds.dtype


def test_scalars_of_zarr_2_are_exported(tmp_path: Path) -> None:
    def write(group: zarr.Group, number: int) -> None:
        group.create_array(
            "s", shape=(), dtype="i4", fill_value=0, attributes={"_ARRAY_DIMENSIONS": []}
        )[...] = 7 + number

    store = collection(2, write, store=LocalStore(tmp_path / "v2.zarr"), zarr_format=2)
    view = l2view.open(store)
    assert view.nbytes > 0
    view.to_icechunk(tmp_path / "copy")
    assert int(l2view.open(tmp_path / "copy")["g1/s"][...]) == 8  # type: ignore[arg-type,index]
    stack = l2view.open(store, layout="stack")
    one = xr.open_zarr(stack.to_manifest_store(), consolidated=False, zarr_format=3)
    assert one.s.values.tolist() == [7, 8]
    two = xr.open_zarr(view.to_manifest_store(), group="g1", consolidated=False, zarr_format=3)
    assert int(two.s) == 8


def test_the_names_of_a_head_travel(tmp_path: Path) -> None:
    """Ids that are alike further on make numbers of all names."""
    storage = icechunk.local_filesystem_storage(str(tmp_path / "c"))
    repository = icechunk.Repository.create(storage)
    session = repository.writable_session("main")
    root = zarr.create_group(session.store)
    for name in "abc":
        array(root.create_group(name), "v", np.arange(2))
    meta = root.create_group("meta")
    put(meta, "id", texts(["a", "b", "a"]))
    put(meta, "group_path", texts(["a", "b", "c"]))
    session.commit("three")
    view = l2view.open(repository).head(2)
    again = pickle.loads(pickle.dumps(view))
    assert list(again.names) == list(view.names) == ["0", "1"]
    assert again["1/v"][...].tolist() == [0, 1]


def test_fields_keep_their_places() -> None:
    def write(group: zarr.Group, number: int) -> None:
        array(group, "time", np.arange(3) + number)
        array(group, "granule_time", np.arange(3))
        array(group.create_group("quality"), "flag", np.arange(3))

    fields = {"time": np.array([10, 20]), "quality": texts(["good", "bad"])}
    store = collection(2, write, fields)
    with pytest.raises(l2view.ShapeError, match='there is an array "time" besides the field'):
        l2view.open(store, layout="stack", dim="time")
    found = l2view.open(store, layout="stack").to_dataset()
    assert found.time.shape == (2, 3)
    assert found["granule_time_"].values.tolist() == [10, 20]
    assert found["granule_quality"].values.tolist() == ["good", "bad"]
    assert {"granule_time_", "granule_quality"} <= set(found.coords)
    alone = l2view.open(store, layout="stack", dim="time", variables="flag").to_datatree()
    assert alone.indexes["time"].tolist() == [10, 20]


def test_what_pads_is_missing() -> None:
    def write(group: zarr.Group, number: int) -> None:
        rows = 3 - number
        array(group, "c", np.ones(rows, "c8"), (3,), fill_value=0)
        attributes = {"missing_value": -99}
        array(group, "m", np.ones(rows, "i2"), (3,), fill_value=0, attributes=attributes)

    found = l2view.open(collection(2, write), layout="stack", ragged="pad").to_dataset()
    assert np.isnan(found.c.values[1, 2])
    assert np.isnan(found.m.values[1, 2])
    assert not np.isnan(found.m.values[0]).any()


def test_times_and_lengths_of_time_in_a_copy(tmp_path: Path) -> None:
    def write(group: zarr.Group, number: int) -> None:
        array(group, "v", np.arange(2))

    fields = {
        "fine": np.array([123_456_789], "M8[ns]"),
        "coarse": np.array(["2025-01-01T00:00:01"], "M8[ms]"),
    }
    store = collection(1, write, fields, store=LocalStore(tmp_path / "z"))
    with pytest.warns(l2view.L2ViewWarning, match='"fine" is kept to the microsecond'):
        l2view.open(store).to_icechunk(tmp_path / "copy")
    l2view.open(store, fields=["id", "coarse"]).to_icechunk(tmp_path / "another")


def test_other_kinds_of_values_are_warned_of() -> None:
    def write(group: zarr.Group, number: int) -> None:
        attributes = {"standard_name": ("wind_speed", "air_temperature")[number]}
        array(group, "v", np.arange(2), attributes=attributes)
        crs = {"crs_wkt": f"UTM zone {31 + number}"}
        array(group, "crs", np.int32(0), attributes=crs)

    with pytest.warns(l2view.L2ViewWarning) as told:
        l2view.open(collection(2, write), layout="stack")
    text = " ".join(str(one.message) for one in told)
    assert "v: standard_name is 'wind_speed' in g0 and 'air_temperature' in g1" in text
    assert "crs: crs_wkt is 'UTM zone 31' in g0" in text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array([1], "i8"), np.array([2**63 + 1], "u8")),
        (np.array([1]), np.array(["a"], np.dtypes.StringDType())),
        (np.array([1], "M8[s]"), np.array([1])),
    ],
    ids=["int64 and uint64", "numbers and texts", "times and numbers"],
)
@pytest.mark.filterwarnings("ignore:The data type")
def test_what_no_encoding_holds(one: Any, other: Any) -> None:
    def write(group: zarr.Group, number: int) -> None:
        values = (one, other)[number]
        array(group, "v", values, dtype="string" if values.dtype.kind == "T" else values.dtype)

    with pytest.raises(l2view.ShapeError, match="v can't be brought into one encoding.*variables="):
        l2view.open(collection(2, write), **UNIFY)


def test_calendars_and_epochs() -> None:
    def write(group: zarr.Group, number: int) -> None:
        array(group, "t", [736_700 + number], attributes={"units": "days since 0001-01-01"})
        units = {"units": "days since 2000-01-01", "calendar": ("standard", "noleap")[number]}
        array(group, "n", [1], attributes=units)

    store = collection(2, write)
    with pytest.raises(l2view.ShapeError, match="n can't be .*calendar noleap"):
        l2view.open(store, **UNIFY)

    def differing(group: zarr.Group, number: int) -> None:
        units = ("days since 0001-01-01", "hours since 2018-01-01")[number]
        array(group, "t", [736_700 if number == 0 else 24], attributes={"units": units})

    store = collection(2, differing)
    found = l2view.open(store, **UNIFY).to_dataset()
    expected = np.stack([one.t.values for one in decoded(store)])
    np.testing.assert_array_equal(found.t, expected)


def sharded(group: zarr.Group, number: int, rows: int) -> None:
    group.create_array(
        "v",
        shape=(rows, 4),
        chunks=(16, 4),
        dtype="f4",
        serializer=ShardingCodec(chunk_shape=(8, 4)),
        compressors=None,
        dimension_names=("y", "x"),
    )[...] = np.arange(rows * 4).reshape(rows, 4) + number


@pytest.mark.parametrize("encoding", ["keep", "unify"])
def test_shards_that_are_cut(encoding: Any) -> None:
    store = collection(3, lambda group, number: sharded(group, number, (16, 9, 32)[number]))
    granules = [one.v.values for one in decoded(store)]
    long = l2view.open(store, layout="concat", dim="y", encoding=encoding).to_dataset()
    np.testing.assert_array_equal(long.v, np.concatenate(granules))
    side = l2view.open(store, layout="stack", ragged="pad", encoding=encoding).to_dataset()
    for number, expected in enumerate(granules):
        np.testing.assert_array_equal(side.v[number, : len(expected)], expected)
    whole = l2view.open(store, "id <> 'g1'", layout="concat", dim="y", encoding=encoding)
    assert "sharding" in str(whole["v"].metadata.codecs).lower()  # type: ignore[union-attr]
    np.testing.assert_array_equal(whole["v"][...], np.concatenate([granules[0], granules[2]]))  # type: ignore[index]


def test_one_of_them_is_sharded() -> None:
    def write(group: zarr.Group, number: int) -> None:
        if number:
            array(group, "v", np.arange(80, dtype="f4").reshape(20, 4))
        else:
            sharded(group, number, 20)

    store = collection(2, write)
    found = l2view.open(store, **UNIFY).to_dataset()
    np.testing.assert_array_equal(found.v, np.stack([one.v.values for one in decoded(store)]))


def test_lengths_that_conflict_within_a_granule() -> None:
    def write(group: zarr.Group, number: int) -> None:
        array(group, "a", np.arange(2 + number))
        array(group, "b", np.arange(3))

    with pytest.raises(l2view.ShapeError, match="b and a have different lengths along y in g0"):
        l2view.open(collection(2, write), layout="concat", dim="y", encoding="unify")


def test_nothing_found_in_every_shape(tmp_path: Path) -> None:
    def write(group: zarr.Group, number: int) -> None:
        array(group, "v", np.arange(2))

    store = MemoryStore()
    root = zarr.create_group(store)
    write(root.create_group("g"), 0)
    storage = icechunk.local_filesystem_storage(str(tmp_path / "c"))
    repository = packed_store(root, [{"id": "g"}], storage)
    for options in ({}, {"layout": "stack"}, {"layout": "concat", "dim": "y"}):
        view = l2view.open(repository, "id = 'none'", **options)  # type: ignore[arg-type]
        fields = {"idx", "bbox", "datetime", "id", "profile", "slot"}
        assert set(view.to_dataset().data_vars) == (fields if not options else set())
        assert len(pickle.loads(pickle.dumps(view)).names) == 0
    assert not l2view.open(repository, layout="stack").head(0).to_dataset().data_vars


def test_chunks_that_dask_chooses() -> None:
    def write(group: zarr.Group, number: int) -> None:
        array(group, "v", np.arange(4), (2,))

    found = l2view.open(collection(2, write), layout="stack").to_dataset(chunks="auto")
    assert found.v.chunks == ((2,), (4,))
    assert found["id"].values.tolist() == ["g0", "g1"]


def test_a_copy_into_icechunk(tmp_path: Path) -> None:
    def write(group: zarr.Group, number: int) -> None:
        array(group, "v", np.arange(4) + number, (2,))

    view = l2view.open(collection(2, write), layout="stack")
    storage = icechunk.local_filesystem_storage(str(tmp_path / "c"))
    session = icechunk.Repository.create(storage).writable_session("main")
    view.to_zarr(session.store)
    session.commit("a cube")
    found = zarr.open_group(session.store, mode="r")
    assert "l2view-copy" not in found
    np.testing.assert_array_equal(found["v"][...], view["v"][...])  # type: ignore[index]


def test_arrays_that_are_granules_are_one_stack() -> None:
    """Each has a name of its own; side by side they are one array."""
    store = MemoryStore()
    root = zarr.create_group(store)
    for number in range(3):
        array(root, f"scene{number}", np.arange(4) + number, (2,))
    meta = root.create_group("meta")
    put(meta, "id", texts(f"g{number}" for number in range(3)))
    put(meta, "array_location", texts(f"scene{number}" for number in range(3)))
    view = l2view.open(store, layout="stack")
    assert view.to_dataset().data.values.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]
    long = l2view.open(store, layout="concat", dim="y", encoding="unify").to_dataset()
    assert long.data.shape == (12,)
    assert l2view.open(store)["g1/scene1"][...].tolist() == [1, 2, 3, 4]  # type: ignore[index]


@override_limits(cached_documents=1)
def test_references_of_more_granules_than_are_remembered(tmp_path: Path) -> None:
    """What a granule is, is read again where it was read too long ago."""
    root = zarr.create_group(LocalStore(tmp_path / "plain.zarr"))
    for number in range(3):
        array(root, f"scene{number}", np.arange(1, 5) + number, (2,))
    meta = root.create_group("meta")
    put(meta, "array_location", texts(f"scene{number}" for number in range(3)))
    table = l2view.open(tmp_path / "plain.zarr").references().read_all()
    assert table["granule"].to_pylist() == ["0", "0", "1", "1", "2", "2"]
    assert set(table["kind"].to_pylist()) == {"native"}


@pytest.mark.parametrize("layout", ["tree", "stack"])
def test_many_granules_are_cropped_at_once(tmp_path: Path, layout: Any) -> None:
    """What reads coordinates leaves zarr the threads that it needs."""

    def write(group: zarr.Group, number: int) -> None:
        y, x = np.mgrid[:6, :5] * 1.0
        array(group, "lat", y, attributes={"units": "degrees_north"})
        array(group, "lon", x, attributes={"units": "degrees_east"})
        for name in "abcdef":
            array(group, name, (y * x).astype("f4"))

    store = collection(24, write, store=LocalStore(tmp_path / "z"))
    view = l2view.open(store, layout=layout)
    cut = view.sel(bbox=(0.8, 1.8, 2.2, 3.2), exact=True)
    if layout == "stack":
        assert cut.to_dataset().a.shape == (24, 2, 3) or cut.to_dataset().a.shape[0] == 24
    else:
        tree = xr.open_datatree(cut.store, engine="zarr", consolidated=False)
        assert len(tree.children) == 24
        assert tree["g7/a"].shape == cut["g7/a"].shape  # type: ignore[union-attr]


def test_shards_that_are_cropped() -> None:
    def write(group: zarr.Group, number: int) -> None:
        sharded(group, number, 20)
        y, x = np.mgrid[:20, :4] * 1.0
        array(group, "lat", y, attributes={"units": "degrees_north"})
        array(group, "lon", x, attributes={"units": "degrees_east"})

    store = collection(1, write)
    whole = l2view.open(store)["g0/v"][...]  # type: ignore[index]
    cut = l2view.open(store).sel(bbox=(0.6, 4.6, 2.4, 12.4), exact=True)
    np.testing.assert_array_equal(cut["g0/v"][...], whole[5:13, 1:3])  # type: ignore[index]


def test_a_slot_that_two_rows_name(tmp_path: Path) -> None:
    root = zarr.create_group(MemoryStore())
    for number, name in enumerate("abc"):
        array(root.create_group(name), "x", np.arange(6) + 10 * number, (3,))
    storage = icechunk.local_filesystem_storage(str(tmp_path / "c"))
    repository = packed_store(root, [{"id": name} for name in "abc"], storage)
    session = repository.writable_session("main")
    meta = zarr.open_group(session.store)["meta"]
    assert isinstance(meta, zarr.Group)
    for name, field in meta.arrays():
        first = field[:1]
        field.resize((4,))
        field[3:] = np.array(["d"]) if name == "id" else first
    session.commit("the first once more")
    view = l2view.open(repository)
    kinds = view.references().read_all().to_pylist()
    assert len(kinds) == 8
    assert {row["kind"] for row in kinds} == {"inline"}
    view.to_icechunk(tmp_path / "copy")
    again = l2view.open(tmp_path / "copy")
    for name in "abcd":
        np.testing.assert_array_equal(again[f"{name}/x"][...], view[f"{name}/x"][...])  # type: ignore[index]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array([2**53 + 1], "i8"), np.array([0.5])),
        (np.array(["abc"]), np.array([5])),
        (np.array([5], "i8"), np.array([0.5], "f4")),
    ],
    ids=["int64 and float64", "texts and numbers", "int64 and float32"],
)
@pytest.mark.filterwarnings("ignore:The data type")
def test_what_no_float_holds(one: Any, other: Any) -> None:
    store = collection(2, lambda group, number: array(group, "v", (one, other)[number]))
    with pytest.raises(l2view.ShapeError, match="no data type holds all of"):
        l2view.open(store, **UNIFY)


def test_numbers_that_a_float_holds() -> None:
    values = (np.array([2**24 - 1], "i4"), np.array([0.5], "f4"), np.array([True]))
    found = l2view.open(collection(3, lambda g, n: array(g, "v", values[n])), **UNIFY).to_dataset()
    assert found.v.dtype == "float64"
    assert found.v.values.ravel().tolist() == [2**24 - 1, 0.5, 1.0]


def test_lengths_of_time_are_no_numbers() -> None:
    def write(group: zarr.Group, number: int) -> None:
        attributes = {"units": "days", "dtype": "timedelta64[ns]"} if number else {}
        array(group, "v", np.array([5]), attributes=attributes)

    with pytest.raises(l2view.ShapeError, match="v can't be brought into one encoding"):
        l2view.open(collection(2, write), **UNIFY)


def test_the_repr_of_nothing() -> None:
    store = collection(1, lambda group, number: array(group, "v", np.arange(2)))
    for options in ({"layout": "stack"}, {"layout": "concat", "dim": "y"}):
        assert "View of 0 granules" in repr(l2view.open(store, "id = 'none'", **options))  # type: ignore[arg-type]


def test_shards_of_nothing_end_to_end() -> None:
    store = collection(2, lambda group, number: sharded(group, number, 0))
    found = l2view.open(store, layout="concat", dim="y").to_dataset()
    assert found.v.shape == (0, 4)


def test_granules_shorter_than_their_chunks_are_regular() -> None:
    store = collection(4, lambda group, number: array(group, "v", np.arange(3) + number, (1024,)))
    view = l2view.open(store, layout="concat", dim="y")
    assert view["v"].chunks == (3,)  # type: ignore[union-attr]
    assert view["v"][...].tolist() == [0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4, 5]  # type: ignore[index]


def test_a_dimension_twice() -> None:
    store = collection(
        2, lambda group, number: array(group, "v", np.eye(3), dimension_names=("y", "y"))
    )
    with pytest.raises(l2view.ShapeError, match="v has the dimension y twice"):
        l2view.open(store, layout="concat", dim="y")


def test_granules_without_the_dimension_are_named() -> None:
    def write(group: zarr.Group, number: int) -> None:
        names = ("y",) if number else ("z",)
        array(group, "v", np.arange(3), dimension_names=names)

    store = collection(3, write)
    with pytest.raises(l2view.ShapeError, match=r"1 of 3 granules have no dimension y: g0"):
        l2view.open(store, layout="concat", dim="y")


def test_places_of_another_collection_are_not_copied(tmp_path: Path) -> None:
    fields = {"slot": np.array([7])}
    write: Writer = lambda group, number: array(group, "v", np.arange(2))  # noqa: E731
    store = collection(1, write, fields, store=LocalStore(tmp_path / "z"))
    with pytest.warns(l2view.L2ViewWarning, match="the fields slot are where"):
        l2view.open(store).to_icechunk(tmp_path / "copy")
    assert l2view.open(tmp_path / "copy").table["slot"].to_pylist() == [0]


def test_a_fill_value_that_the_numbers_cannot_have() -> None:
    """1e20 is no int16, and what it would be cast to stands for nothing."""

    def write(group: zarr.Group, number: int) -> None:
        attributes = {"missing_value": 1e20}
        array(group, "v", np.ones(3 - number, "i2"), (3,), fill_value=0, attributes=attributes)

    store = collection(2, write)
    with pytest.warns(l2view.L2ViewWarning, match="v has no fill value of its own: 0"):
        l2view.open(store, layout="stack", ragged="pad")
    found = l2view.open(store, ragged="pad", **UNIFY).to_dataset()
    assert np.isnan(found.v.values[1, 2])
    np.testing.assert_array_equal(found.v.values[0], [1, 1, 1])

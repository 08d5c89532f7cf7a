"""The same computation on Dask's threads, on processes of its cluster, and on Cubed."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import obstore
import pytest
import xarray as xr
import zarr
from builders import packed_store, put, texts
from scenes import collection, scene
from zarr.storage import LocalStore

import l2view

GRANULES = 500
ROWS, COLUMNS = 24, 16


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray[Any, Any]]:
    """A store with a granule a day, and the values of their variable."""
    path = tmp_path_factory.mktemp("cluster") / "store.zarr"
    root = zarr.create_group(LocalStore(path))
    values = np.random.default_rng(0).integers(-500, 500, (GRANULES, ROWS, COLUMNS), dtype="i2")
    for number in range(GRANULES):
        root.create_group(f"g{number:03d}").create_array(
            "sst",
            data=values[number],
            chunks=(12, 16),
            dimension_names=("y", "x"),
            attributes={"scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -500},
        )
    meta = root.create_group("meta")
    put(meta, "id", texts(f"g{number:03d}" for number in range(GRANULES)), chunks=(GRANULES,))
    days = np.datetime64("2024-01-01", "us") + np.arange(GRANULES).astype("m8[D]")
    put(meta, "datetime", days, chunks=(GRANULES,))
    return path, np.where(values == -500, np.nan, values * 0.01 + 280.0)


def by_month(dataset: xr.Dataset, months: np.ndarray[Any, Any]) -> list[Any]:
    """Return the mean of each month, not computed yet."""
    begins = np.flatnonzero(np.append(True, months[1:] != months[:-1]))
    ends = np.append(begins[1:], len(months))
    return [
        dataset.sst.isel(granule=slice(begin, end)).mean()
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
    ]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options: Any = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(**options) as made, Client(made) as client:
            yield client


def with_threads(view: l2view.View, months: Any, cluster: Any) -> list[float]:
    import dask

    found = by_month(xr.open_zarr(view.store), months)
    with dask.config.set(scheduler="threads"):  # type: ignore[no-untyped-call]
        return [float(one) for one in dask.compute(*found)]  # type: ignore[attr-defined]


def with_distributed(view: l2view.View, months: Any, cluster: Any) -> list[float]:
    found = by_month(xr.open_zarr(view.store), months)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [float(one) for one in cluster.gather(cluster.compute(found))]


def with_cubed(view: l2view.View, months: Any, cluster: Any) -> list[float]:
    import cubed

    options: Any = {"chunked_array_type": "cubed"}
    spec = {"spec": cubed.Spec(allowed_mem="200MB")}
    # Cubed keeps what is between two steps on disk: many granules to a task.
    options |= {"chunks": {"granule": 125, "y": ROWS}, "drop_variables": ["idx", "id", "datetime"]}
    dataset = xr.open_zarr(view.store, from_array_kwargs=spec, **options)
    return [float(one.compute()) for one in by_month(dataset[["sst"]], months)]


ENGINES: list[Callable[..., list[float]]] = [with_threads, with_distributed, with_cubed]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["keep", "unify"])
def test_a_mean_by_month_on_every_engine(
    written: tuple[Path, np.ndarray[Any, Any]], cluster: Any, encoding: Any
) -> None:
    path, values = written
    view = l2view.open(path, layout="stack", encoding=encoding)
    months = view.to_dataset().datetime.dt.strftime("%Y-%m").values
    expected = [np.nanmean(values[months == month]) for month in np.unique(months)]
    assert len(expected) == 17
    for engine in ENGINES:
        np.testing.assert_allclose(engine(view, months, cluster), expected, rtol=1e-12)


def many(path: Path, count: int) -> icechunk.Repository:
    """Return a packed collection of as many granules, all of them like the first."""
    store = zarr.storage.MemoryStore()
    root = zarr.create_group(store)
    root.create_group("g").create_array(
        "sst", data=np.zeros((6, 4), "i2"), chunks=(3, 4), dimension_names=("y", "x")
    )
    storage = icechunk.local_filesystem_storage(str(path))
    packed_store(root, [{"id": "g", "orbit": 0}], storage)
    repository = icechunk.Repository.open(storage)
    session = repository.writable_session("main")
    written = zarr.open_group(session.store)
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, array in written["meta"].arrays():  # type: ignore[union-attr]
            first = array[:1]
            array.resize((count,))
            if name == "id":
                array[:] = texts(f"S3A_SL_2_WST_{n:06d}_{n * 7919:012x}" for n in range(count))
            elif name == "slot":
                array[:] = np.arange(count)
            elif name == "orbit":
                array[:] = rng.integers(0, 100_000, count)
            else:
                array[:] = np.repeat(first, count)
        ids = written["l2view/ids"]
        profile = next(group for _, group in written["l2view"].groups() if "shapes" in group)  # type: ignore[union-attr]
        for array in (ids, *(array for _, array in profile.arrays())):
            first = array[:1]  # type: ignore[index]
            array.resize((count, *array.shape[1:]))  # type: ignore[union-attr]
            array[:] = np.repeat(first, count, axis=0)  # type: ignore[index]
        packed = written["granules"].members(max_depth=None)  # type: ignore[union-attr]
        for _, node in packed:
            if isinstance(node, zarr.Array):
                node.resize((count, *node.shape[1:]))
    session.commit("many")
    return icechunk.Repository.open(storage)


@pytest.mark.parametrize("layout", ["tree", "stack"])
def test_a_view_of_many_travels_small(tmp_path: Path, layout: Any) -> None:
    """100,000 of 300,000 granules, no order among them, in less than 1 MiB."""
    repository = many(tmp_path / "many", 300_000)
    view = l2view.open(repository, "orbit % 3 = 0", layout=layout)
    assert 95_000 < len(view.names) < 105_000
    data = pickle.dumps(view)
    assert len(data) <= 2**20
    again = pickle.loads(data)
    path = "sst" if layout == "stack" else f"{view.names[77_777]}/sst"
    assert again[path].shape == view[path].shape  # type: ignore[union-attr]
    assert again.table.equals(view.table)
    assert list(again.names[:3]) == list(view.names[:3])


def test_a_view_of_a_plain_store_travels_with_its_rows(
    written: tuple[Path, np.ndarray[Any, Any]],
) -> None:
    """Nothing says that the store stays what it is."""
    view = l2view.open(written[0])
    again = pickle.loads(pickle.dumps(view))
    assert again.table.equals(view.table)
    assert again.table.schema.equals(view.table.schema, check_metadata=True)


def test_mosaics_on_processes(cluster: Any, tmp_path: Path) -> None:
    """Each process reads what its chunks need, from a graph that holds no data."""
    scenes = [scene(600_000 + 1000 * at, 5_000_000, (128, 160), seed=at) for at in range(4)]
    collection(scenes, LocalStore(tmp_path / "scenes.zarr"))
    view = l2view.open(str(tmp_path / "scenes.zarr"))
    lazy = l2view.mosaic(view, crs="EPSG:32632", resolution=20, bands="red", chunks=64)
    assert len(pickle.dumps(lazy)) < 100_000
    expected = lazy.red.compute(scheduler="threads").to_numpy()
    found = cluster.compute(lazy.red).result().to_numpy()
    np.testing.assert_array_equal(found, expected)
    assert (expected > 0).any()


def test_mosaics_of_a_bucket(bucket: str) -> None:
    one = scene(600_000, 5_000_000, (128, 160))
    store = obstore.store.from_url(f"{bucket}/scenes.zarr", client_options={"allow_http": True})
    collection([one], zarr.storage.ObjectStore(store))
    lazy = l2view.mosaic(l2view.open(f"{bucket}/scenes.zarr"), like=one.geobox, bands="red")
    # Not on the cluster, whose processes have no credentials in their environment.
    np.testing.assert_array_equal(lazy.red.compute(scheduler="threads"), one.values)

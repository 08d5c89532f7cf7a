"""Arrays for the tests of tables, and a store that tells what is read of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import xarray as xr
from zarr.storage import MemoryStore, WrapperStore


class Counting(WrapperStore[Any]):
    """A store that keeps the keys and bytes that it is asked for."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.keys: list[str] = []
        self.nbytes = 0

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        found = await self._store.get(key, *arguments, **options)
        self.keys.append(key)
        self.nbytes += 0 if found is None else len(found)
        return found

    def get_sync(self, key: str, **options: Any) -> Any:
        found = super().get_sync(key, **options)
        self.keys.append(key)
        self.nbytes += 0 if found is None else len(found)
        return found

    def get_ranges(self, key: str, byte_ranges: Any, **options: Any) -> Any:
        self.keys.append(key)
        return self._counted(self._store.get_ranges(key, byte_ranges, **options))

    async def _counted(self, groups: Any) -> Any:
        async for group in groups:
            self.nbytes += sum(0 if part is None else len(part) for _, part in group)
            yield group

    def with_read_only(self, read_only: bool = False) -> Counting:
        return self  # which counts on

    @property
    def chunks(self) -> list[str]:
        return sorted(key for key in self.keys if not key.endswith(("zarr.json", ".zarray")))


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    """Return a table's rows, sorted."""
    return sorted(zip(*(column.to_pylist() for column in table.columns), strict=True))


def rows_of_numpy(expected: np.ndarray[Any, Any]) -> list[tuple[int, ...]]:
    return [(*index, int(expected[index])) for index in np.ndindex(*expected.shape)]


def written(dataset: xr.Dataset, zarr_format: Any = 3, **encoding: Any) -> Counting:
    store = MemoryStore()
    dataset.to_zarr(store, zarr_format=zarr_format, consolidated=False, encoding=encoding)
    return Counting(store)


def grid_dataset() -> xr.Dataset:
    return xr.Dataset(
        {"t": (("y", "x"), np.arange(120, dtype="f4").reshape(10, 12))},
        coords={
            "y": np.linspace(50, 41, 10).astype("f4"),
            "x": np.linspace(0, 11, 12),
            "row": ("y", np.arange(10) * 10),
            "lat": (("y", "x"), np.add.outer(np.arange(10.0), np.arange(12.0))),
        },
    )

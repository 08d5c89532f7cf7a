"""Fields as xarray writes them: packed, masked, in both formats of Zarr."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from builders import put, texts
from zarr.storage import MemoryStore

import l2view
from l2view.errors import SkippedFieldWarning


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "encoding",
    [
        {"dtype": "int16", "scale_factor": 0.1, "_FillValue": -1},
        {"dtype": "float32", "_FillValue": -999.0},
        {"dtype": "uint8", "_FillValue": 0},
        {},
    ],
)
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_what_xarray_masks_is_null(zarr_format: Any, encoding: dict[str, Any]) -> None:
    store = MemoryStore()
    values = np.array([5, np.nan, 40.0])
    dataset = xr.Dataset({"cloud_cover": ("granule", values), "n": ("granule", np.arange(3))})
    dataset.to_zarr(
        store,
        group="meta",
        zarr_format=zarr_format,
        encoding={"cloud_cover": encoding},
        consolidated=False,
    )
    found = l2view.search(store)
    np.testing.assert_allclose(found["cloud_cover"].to_numpy(), values, rtol=1e-6)
    assert found["cloud_cover"].is_null().to_pylist() == [False, True, False]
    assert l2view.search(store, "cloud_cover IS NULL")["idx"].to_pylist() == [1]
    assert found["n"].to_pylist() == [0, 1, 2]


def test_scaled_times_and_durations() -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    since = {"units": "seconds since 2025-01-01", "scale_factor": 0.1}
    put(meta, "t", np.array([6000], "i4"), attributes=since)
    took = {"units": "minutes", "dtype": "timedelta64[ns]", "scale_factor": [0.5]}
    put(meta, "took", np.array([60], "i4"), attributes=took)
    put(meta, "share", np.array([3], "i2"), attributes={"scale_factor": [0.5], "add_offset": [1]})
    row = l2view.search(root.store).to_pylist()[0]
    assert str(row["t"]) == "2025-01-01 00:10:00"
    assert row["took"].total_seconds() == 30 * 60
    assert row["share"] == 2.5


def test_a_packing_that_is_none_leaves_the_field_out() -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    put(meta, "id", texts("a"))
    put(meta, "share", np.array([3], "i2"), attributes={"scale_factor": [0.5, 1]})
    with pytest.warns(SkippedFieldWarning, match=r'"share": its scale_factor or add_offset is \['):
        assert l2view.search(root.store, "id = 'a'").num_rows == 1


def test_booleans_with_null() -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    attributes = {"dtype": "bool", "_FillValue": -1}
    put(meta, "day", np.array([1, 0, -1], "i1"), attributes=attributes)
    assert l2view.search(root.store)["day"].to_pylist() == [True, False, None]
    assert l2view.search(root.store, "NOT day")["idx"].to_pylist() == [1]

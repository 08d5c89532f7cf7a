"""Data types of Zarr and NumPy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from zarr.core.dtype.wrapper import ZDType
from zarr.dtype import parse_dtype

from l2view.arrays.quiet import QUIET
from l2view.stores.hierarchy import JSON

TEXT_KINDS = frozenset("SUTO")  # NumPy's kinds of texts; objects are texts too

KINDS = {"b": "bool", "U": "text", "T": "text", **dict.fromkeys("iufc", "number")}
"""What the values of NumPy's kinds are, where several kinds have the same."""


@lru_cache(maxsize=256)
def _parse(data_type: str) -> ZDType[Any, Any]:
    with QUIET:  # of dtypes without a v3 specification
        return parse_dtype(json.loads(data_type), zarr_format=3)


def zarr_dtype(data_type: str | JSON) -> ZDType[Any, Any]:
    """Return zarr's data type for that of a Zarr v3 document."""
    return _parse(json.dumps(data_type))


def zarr_dtype_of(dtype: np.dtype[Any]) -> ZDType[Any, Any]:
    """Return zarr's data type for one of NumPy's."""
    with QUIET:
        return parse_dtype(dtype, zarr_format=3)


def native_dtype(data_type: str | JSON) -> np.dtype[Any]:
    """Return NumPy's dtype for the data type of a Zarr v3 document."""
    return zarr_dtype(data_type).to_native_dtype()  # type: ignore[no-any-return]


def in_native_order(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a dtype in the machine's byte order."""
    return dtype if dtype.kind in "TO" else dtype.newbyteorder("=")


def common_dtype(dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    """Return the smallest dtype that has all values of others, exactly.

    A `ValueError` says that there is none.
    """
    kinds = {KINDS.get(dtype.kind, dtype.kind) for dtype in dtypes}
    if len(kinds) == 1 or kinds <= {"number", "bool"}:
        common = np.result_type(*dtypes)
        integers = [dtype for dtype in dtypes if dtype.kind in "iu"]
        number = common if common.kind == "f" else np.empty(0, common).real.dtype
        exact = common.kind not in "fc" or all(
            np.iinfo(dtype).bits <= np.finfo(number).nmant + 1 for dtype in integers
        )
        if exact and common.kind != "O":
            return common
    raise ValueError(f"no data type holds all of {', '.join(sorted({*map(str, dtypes)}))}")

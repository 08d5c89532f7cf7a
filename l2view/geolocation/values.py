"""An array's values as they are meant, where a harvester reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from xarray.backends.zarr import FillValueCoder


def valid(array: zarr.Array[Any], raw: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of an array's stored values are some.

    Those that aren't are the attribute ``_FillValue`` or ``missing_value`` (CF 1.11, 2.5.1),
    in whatever way Zarr's readers keep it; NaN; and the array's own fill value where its
    attributes name none, unless that is 0, which formats put there for want of another.

    Parameters
    ----------
    array
        The array.
    raw
        Its values, before ``scale_factor`` and ``add_offset``.
    """
    found = np.ones(raw.shape, dtype=bool)
    named = False
    for name in ("_FillValue", "missing_value"):
        fill = array.attrs.get(name)
        if isinstance(fill, str):
            fill = _fill(fill, raw.dtype) if name == "_FillValue" else None
        if fill is not None:
            named = True
            found &= ~np.isin(raw, np.asarray(fill))
    if not named and array.fill_value is not None and array.fill_value != np.zeros((), raw.dtype):
        found &= raw != array.fill_value
    if raw.dtype.kind in "fM":
        found &= raw == raw
    return found


def _fill(text: str, dtype: np.dtype[Any]) -> Any:
    """Return a fill value that is a text: xarray's encoding of it, or Zarr's, such as "NaN"."""
    try:
        return FillValueCoder.decode(text, dtype)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return None


def decoded(array: zarr.Array[Any]) -> NDArray[np.float64]:
    """Return an array's values, unpacked, NaN where there is none (CF 1.11, 8.1)."""
    raw = np.asarray(array[...])
    return unpacked(array, np.where(valid(array, raw), raw, np.nan).astype(np.float64))


def unpacked(array: zarr.Array[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Return stored values with the array's ``scale_factor`` and ``add_offset`` applied."""
    packing = {"scale_factor", "add_offset"} & set(array.attrs)
    if not packing:
        return values
    scale, offset = (
        float(np.ravel(np.asarray(array.attrs.get(name, default), dtype=float))[0])
        for name, default in (("scale_factor", 1), ("add_offset", 0))
    )
    return np.asarray(values * scale + offset)

"""A view's values against the files themselves, read by other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray


@dataclass(frozen=True)
class Checked:
    """What was compared of one granule."""

    reader: str  # what read the file
    arrays: int  # how many arrays are the same
    values: int  # and how many values
    different: tuple[str, ...]  # the arrays that are not


def check_granule(group: zarr.Group, path: Path) -> Checked:
    """Compare every array of a granule's group with its file, as they are stored."""
    reader, arrays = _read(path)
    same, values, different = 0, 0, []
    for name, expected in arrays.items():
        array = group[name]
        assert isinstance(array, zarr.Array)
        stored = np.asarray(array[...])
        if np.array_equal(stored, expected, equal_nan=stored.dtype.kind == "f"):
            same, values = same + 1, values + stored.size
        else:
            different.append(name)
    return Checked(reader, same, values, tuple(different))


def _read(path: Path) -> tuple[str, dict[str, NDArray[Any]]]:
    """Read a file's arrays without unpacking them."""
    if path.suffix == ".nc":
        from scipy.io import netcdf_file

        with netcdf_file(path, mmap=False, maskandscale=False) as file:
            return "SciPy", {name: np.array(v[...]) for name, v in file.variables.items()}
    if path.suffix == ".h5":
        import h5py

        with h5py.File(path) as file:
            return "h5py", {name: file[name][...] for name in file if file[name].ndim == 2}
    import rasterio

    with rasterio.open(path) as full:
        arrays, overviews = {"0": full.read(1)}, full.overviews(1)
    for level in range(len(overviews)):
        with rasterio.open(path, overview_level=level) as overview:
            arrays[f"{level + 1}"] = overview.read(1)
    return "rasterio", arrays

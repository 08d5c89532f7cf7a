"""What the formats' own readers make of originals, and how decoded values differ from it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import rasterio
import xarray as xr
import zarr
from pyhdf.SD import SD
from xarray.backends import H5NetCDFStore
from xarray.conventions import decode_cf_variable

import l2view

SINGLE = float(np.finfo(np.float32).eps)
"""The relative resolution of singles, in which xarray decodes what has a scale in singles.

JSON has doubles alone, so that a view decodes in these, which is closer to what the scale means.
"""

SCALING = {"scale_factor", "add_offset"}

PURE_DIMENSION = b"This is a netCDF dimension but not a netCDF variable"


def is_hdf5(path: Path) -> bool:
    return bool(h5py.is_hdf5(path))


def groups_of(group: zarr.Group, path: str = "") -> Iterator[tuple[str, zarr.Group]]:
    for name, child in group.groups():
        inner = f"{path}/{name}".strip("/")
        yield inner, child
        yield from groups_of(child, inner)


def arrays_of(group: zarr.Group, path: str = "") -> Iterator[tuple[str, zarr.Array[Any]]]:
    for name, array in group.arrays():
        yield f"{path}/{name}".strip("/"), array
    for name, child in group.groups():
        yield from arrays_of(child, f"{path}/{name}".strip("/"))


def hdf5_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the datasets of a file by path, but for dimensions without a variable."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    with h5py.File(path) as file:

        def visit(name: str, node: Any) -> None:
            if not isinstance(node, h5py.Dataset) or node.shape is None:
                return
            properties = node.id.get_create_plist()
            is_defined = properties.fill_value_defined() != h5py.h5d.FILL_VALUE_UNDEFINED
            if not node.id.get_storage_size() and not is_defined:
                return  # h5py returns what is in memory
            scale = node.attrs.get("NAME", b"")
            text = scale if isinstance(scale, bytes) else str(scale).encode()
            if text.startswith(PURE_DIMENSION):
                return
            is_text = h5py.check_string_dtype(node.dtype) is not None
            is_object = is_text and node.dtype.kind == "O"
            arrays[name.replace("_nc4_non_coord_", "")] = (
                node.asstr(errors="surrogateescape")[()] if is_object else node[()]
            )

        file.visititems(visit)
    return arrays


def difference(values: xr.DataArray, expected: xr.DataArray | xr.Variable) -> str | None:
    """Return how decoded values differ from those of the original's own reader."""
    ours, theirs = values.to_numpy(), expected.to_numpy()
    kinds = {array.dtype.kind.replace("O", "S").replace("T", "S") for array in (ours, theirs)}
    if ours.shape != theirs.shape or len(kinds - {"U"}) > 1:
        return f"{ours.dtype}{ours.shape}, not {theirs.dtype}{theirs.shape}"
    if theirs.dtype.kind in "OSUT":
        texts = [
            [text.decode(errors="replace") if isinstance(text, bytes) else text for text in array]
            for array in (ours.ravel().tolist(), theirs.ravel().tolist())
        ]
        same = all(a == b or (a != a and b != b) for a, b in zip(*texts, strict=True))
    elif theirs.dtype.kind in "mM":
        within = resolution(expected.encoding)
        same = bool((np.isnat(ours) == np.isnat(theirs)).all()) and bool(
            (np.abs(ours - theirs)[~np.isnat(ours)] <= within).all()
        )
    elif theirs.dtype.kind in "fc":
        within = 16 * SINGLE if SCALING & expected.encoding.keys() else 0
        same = np.allclose(ours, theirs, rtol=within, atol=0, equal_nan=True)
    else:
        same = np.array_equal(ours, theirs)
    return None if same else f"{ours.ravel()[:3]}, not {theirs.ravel()[:3]}"


def resolution(encoding: Mapping[Any, Any]) -> np.timedelta64:
    """Return how exactly xarray decodes times: in singles, if their scale is one."""
    if not isinstance(encoding.get("scale_factor"), np.float32):
        return np.timedelta64(0, "ns")
    is_small = np.dtype(encoding["dtype"]).itemsize <= 2  # a few seconds, not decades
    return np.timedelta64(1_000, "ns") if is_small else np.timedelta64(64, "s")


def stored_differences(granule: Any, path: Path, omitted: Container[str] = ()) -> list[str]:
    """Return the datasets of an HDF5 file that are missing, or have other values than h5py's."""
    arrays, expected = dict(arrays_of(granule)), hdf5_arrays(path)
    missing = expected.keys() - arrays.keys()
    differing = [f"{name} is missing" for name in missing if name not in omitted]
    for name in expected.keys() & arrays.keys():
        values, stored = arrays[name][...], np.asarray(expected[name])
        kind = stored.dtype.kind
        if stored.shape != values.shape:  # shorter than an unlimited dimension
            values = values[tuple(slice(n) for n in stored.shape)]
        same = np.array_equal(values, stored, equal_nan=kind in "fc")
        if not same and kind in "OSV":
            same = values.astype(str).tolist() == stored.astype(str).tolist()
        if not same:
            differing.append(name)
    return differing


def opened_groups(view: l2view.View, name: str) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield the groups of a granule by their paths, as xarray opens them."""
    for group in ("", *(inner for inner, _ in groups_of(view[name]))):
        node = f"{name}/{group}".strip("/")
        yield group, xr.open_zarr(view.store, group=node, consolidated=False, chunks=None)


def netcdf_differences(
    view: l2view.View,
    name: str,
    path: Path,
    dropped: Sequence[str] | None = (),
    omitted: Container[str] = (),
) -> Iterator[tuple[str, str | None]]:
    """Yield the variables that xarray decodes of a file, and how the view's differ.

    Those of `dropped` aren't decoded; None is for a file that xarray can't open.
    """
    if dropped is None:
        return
    with ExitStack() as opened:
        # Opened once: h5netcdf looks through a whole file for dimensions without a scale.
        file: Any = (
            opened.enter_context(h5netcdf.File(path, phony_dims="sort", decode_vlen_strings=True))
            if is_hdf5(path)
            else None
        )
        for group, ours in opened_groups(view, name):
            if group in omitted:  # which has the attributes of a dataset alone
                continue
            source: Any = path if file is None else H5NetCDFStore(file[group] if group else file)
            original = xr.open_dataset(source, drop_variables=[*dropped])
            for variable in original.variables:
                member = f"{group}/{variable}".strip("/")
                if member not in omitted:
                    yield member, difference(ours[variable], original[variable])


def hdf4_differences(view: l2view.View, name: str, path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the datasets that pyhdf reads of a file, and how the view's differ, decoded."""
    ours: dict[str, list[xr.DataArray]] = {}
    for _, opened in opened_groups(view, name):
        for variable in opened.variables:
            ours.setdefault(str(variable), []).append(opened[variable])
    file = SD(str(path))
    for number in range(len(file.datasets())):
        dataset = file.select(number)
        variable, rank, shape = dataset.info()[:3]
        if 0 in np.atleast_1d(shape):  # which pyhdf doesn't read
            continue
        stored = np.asarray(dataset.get())
        attributes = dataset.attributes()
        if isinstance(attributes.get("_FillValue"), int | float):
            attributes["_FillValue"] = stored.dtype.type(attributes["_FillValue"])
        axes = [f"axis_{axis}" for axis in range(rank)]
        expected = decode_cf_variable(variable, xr.Variable(axes, stored, attributes))
        differing = [difference(array, expected) for array in ours[variable]]
        yield variable, None if None in differing else differing[0]


def tiff_difference(view: l2view.View, name: str, path: Path) -> str | None:
    """Return how an image differs from that which GDAL masks by nodata and scales, band by band."""
    opened = xr.open_zarr(view.store, group=name, consolidated=False, chunks=None)
    ours = opened["0"].to_numpy()
    with rasterio.open(path) as image:
        expected = image.read(masked=True).astype(np.float64)
        scales, offsets = (np.array(n)[:, None, None] for n in (image.scales, image.offsets))
    values = (expected * scales + offsets).filled(np.nan)
    if ours.ndim == 3 and ours.shape != values.shape:
        ours = np.moveaxis(ours, -1, 0)
    same = np.allclose(ours.reshape(values.shape), values, rtol=1e-6, equal_nan=True)
    return None if same else f"{ours.ravel()[:3]}, not {values.ravel()[:3]}"

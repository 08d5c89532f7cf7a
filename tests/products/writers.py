"""Small files in the forms that products have, by their formats' own libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import h5py
import netCDF4
import numpy as np
import pyhdf.VS  # noqa: F401  (HDF.vstart needs it)
import rasterio
from pyhdf.HDF import HC, HDF
from pyhdf.SD import SD, SDC

type Attributes = Mapping[str, Any]


class V(NamedTuple):
    """A variable: the names of its dimensions, values as they are stored, attributes, options."""

    dimensions: str
    values: Any
    attributes: Attributes = MappingProxyType({})
    options: Mapping[str, Any] = MappingProxyType({})


def netcdf(
    path: Path,
    variables: Mapping[str, V],
    attributes: Attributes = {},
    *,
    model: Any = "NETCDF4",
    unlimited: str = "",
    groups: Mapping[str, Attributes] = {},
) -> None:
    """Write variables by path, whose dimensions lie at the root, or in their group: ``.x``."""
    with netCDF4.Dataset(path, "w", format=model) as file:
        file.setncatts(attributes)
        for group, members in groups.items():
            file.createGroup(group).setncatts(members)
        for member, variable in variables.items():
            group, _, name = member.rpartition("/")
            node = file.createGroup(group) if group else file
            values = np.asarray(variable.values)
            names = []
            for dimension, length in zip(variable.dimensions.split(), values.shape, strict=True):
                holder = node if dimension.startswith(".") else file
                names.append(dimension.lstrip("."))
                if names[-1] not in holder.dimensions:
                    is_unlimited = names[-1] in unlimited.split()
                    holder.createDimension(names[-1], None if is_unlimited else length)
            stored = {**variable.attributes}
            options: dict[str, Any] = dict(variable.options)
            if "_FillValue" in stored:
                options["fill_value"] = stored.pop("_FillValue")
            is_text = values.dtype.kind in "UO"
            array = node.createVariable(name, str if is_text else values.dtype, names, **options)
            array.set_auto_maskandscale(False)
            array.set_auto_chartostring(False)
            array.setncatts(stored)
            if values.size:
                array[...] = values


def fixed(attributes: Attributes, shape: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return attributes as products of HDF5's C library write them: texts of fixed lengths.

    Numbers and texts are arrays of a shape.
    """
    return {
        name: np.full(shape, np.bytes_(value) if isinstance(value, str) else value)
        if np.ndim(value) == 0
        else value
        for name, value in attributes.items()
    }


def hdf5(
    path: Path,
    datasets: Mapping[str, V],
    attributes: Mapping[str, Attributes] = {},
    *,
    scales: bool = False,
    form: Callable[[Attributes], Attributes] = fixed,
) -> None:
    """Write datasets by path, with scales of dimensions or without, and groups' attributes."""
    with h5py.File(path, "w") as file:
        for group, members in attributes.items():
            file.require_group(group or "/").attrs.update(form(members))
        for member, dataset in datasets.items():
            values = dataset.values
            if isinstance(values, str):
                values = np.bytes_(values)
            node = file.create_dataset(member, data=values, **dataset.options)
            node.attrs.update(form(dataset.attributes))
        for member, dataset in datasets.items() if scales else ():
            node, group = file[member], member.rpartition("/")[0]
            for axis, name in enumerate(dataset.dimensions.split()):
                scale = file[f"{group}/{name}"]
                if scale == node:
                    node.make_scale(name)
                else:
                    scale.make_scale(name) if not scale.is_scale else None
                    node.dims[axis].attach_scale(scale)


def hdf4(
    path: Path,
    datasets: Mapping[str, V],
    attributes: Attributes = {},
    tables: Mapping[str, list[tuple[str, Any]]] = {},
) -> None:
    """Write scientific datasets, then tables (Vdata) of one record a value."""
    codes = {"i1": SDC.INT8, "u1": SDC.UINT8, "i2": SDC.INT16, "u2": SDC.UINT16}
    codes |= {"i4": SDC.INT32, "u4": SDC.UINT32, "f4": SDC.FLOAT32, "f8": SDC.FLOAT64}
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    for name, value in attributes.items():
        setattr(file, name, value)
    for name, dataset in datasets.items():
        values = np.asarray(dataset.values)
        node = file.create(name, codes[values.dtype.str[1:]], values.shape)
        for axis, dimension in enumerate(dataset.dimensions.split(" ")):
            node.dim(axis).setname(dimension)
        for key, value in dataset.attributes.items():
            if isinstance(value, np.generic):
                node.attr(key).set(codes[value.dtype.str[1:]], value.item())
            else:
                setattr(node, key, value)
        if dataset.options.get("deflate"):
            node.setcompress(SDC.COMP_DEFLATE, 5)
        node[:] = values
        node.endaccess()
    file.end()
    if not tables:
        return
    file = HDF(str(path), HC.WRITE)
    vs = file.vstart()
    for name, columns in tables.items():
        kinds = {"f": HC.FLOAT32, "d": HC.FLOAT64, "i": HC.INT32, "h": HC.INT16, "S": HC.CHAR8}
        arrays = [np.asarray(values) for _, values in columns]
        fields = [
            (field, kinds[array.dtype.char], array.itemsize if array.dtype.kind == "S" else 1)
            for (field, _), array in zip(columns, arrays, strict=True)
        ]
        table = vs.create(name, fields)
        rows = zip(*(array.tolist() for array in arrays), strict=True)
        table.write([[v.decode() if isinstance(v, bytes) else v for v in row] for row in rows])
        table.detach()
    vs.end()
    file.close()


def tiff(path: Path, values: Any, *, overviews: tuple[int, ...] = (), **options: Any) -> None:
    """Write an image by GDAL, with overviews; ``scales``, ``offsets`` and ``tags`` are its own."""
    values = np.asarray(values)
    values = values[None] if values.ndim == 2 else values
    count, height, width = values.shape
    own = {name: options.pop(name) for name in ("scales", "offsets", "tags") if name in options}
    with rasterio.open(
        path, "w", "GTiff", width, height, count, dtype=values.dtype, **options
    ) as image:
        image.write(values)
        image.update_tags(**own.pop("tags", {}))
        for name, value in own.items():
            setattr(image, name, value)
    if overviews:
        with rasterio.open(path, "r+") as image:
            image.build_overviews(overviews)

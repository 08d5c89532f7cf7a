"""A view as an xarray DataTree, without asking the store for each node on its own.

The documents of all granules are read side by side; an array becomes a `zarr.Array` only
when its values are first wanted.
"""

from __future__ import annotations

import uuid
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends.api import _chunk_ds
from xarray.backends.common import BackendArray
from xarray.backends.zarr import ZarrArrayWrapper, _compact_chunk_sizes
from xarray.conventions import decode_cf_variables
from xarray.core import indexing
from zarr.core.sync import sync
from zarr.storage import StorePath

from l2view.arrays.cf import xarray_attributes
from l2view.arrays.dtypes import native_dtype
from l2view.errors import L2ViewError, UndecodedArrayWarning, warn
from l2view.granules.reader import open_array
from l2view.stores.hierarchy import JSON, join
from l2view.text import first_line, join_names
from l2view.virtual.store import ViewStore, read_nodes
from l2view.virtual.tree import Tree

type StoredGroup = tuple[JSON, dict[str, xr.Variable]]
"""A group's attributes, and its arrays as they are stored."""


def datatree(store: ViewStore, chunks: Any = None, **decoding: Any) -> xr.DataTree:
    """Return the tree of the view over `store`.

    `chunks` and the arguments of `decoding` are as for `xarray.open_datatree`; the root's fields
    of granules that are groups are in memory either way.
    """
    datasets: dict[str, xr.Dataset] = {}
    paths: Any = [""]
    if store.shape is store.tree:
        datasets["/"] = fields_dataset(store.tree, **decoding)
        paths = store.tree.granules.names.to_pylist()
    return xr.DataTree.from_dict(datasets | _datasets(_read_groups(store, paths), chunks, decoding))


def joined_dataset(store: ViewStore, chunks: Any = None) -> xr.Dataset:
    """Return the arrays in the root of joined granules as a Dataset."""
    root = next(iter(_read_groups(store, [""])))
    return _datasets([root], chunks, {})[""]


def _datasets(
    groups: Iterable[tuple[str, StoredGroup]], chunks: Any, decoding: Mapping[str, Any]
) -> dict[str, xr.Dataset]:
    """Return groups as Datasets, decoded as xarray's own Zarr backend decodes them.

    What xarray can't decode stays as it is stored and has no index, with a warning.
    """
    datasets: dict[str, xr.Dataset] = {}
    undecoded: dict[str, Exception] = {}
    # Dask's own name for an array would be a hash of the whole view, for each of them.
    token = uuid.uuid4().hex
    for path, (attributes, variables) in groups:
        errors: dict[str, Exception] = {}
        try:
            dataset = _decode(variables, errors, attributes, decoding)
        except Exception:  # of one of them, of whatever xarray makes of its attributes or values
            errors = dict(_undecodable(variables, decoding))
            dataset = _decode(variables, errors, attributes, decoding)
        undecoded |= {join(path, name): error for name, error in errors.items()}
        if chunks is not None:
            name = f"{path}-{token}"
            dataset = _chunk_ds(dataset, name, "l2view", chunks, False, False, None, {})  # type: ignore[no-untyped-call]
        datasets[path] = dataset
    if undecoded:
        reason = first_line(next(iter(undecoded.values())))
        verb = "array is shown as it is" if len(undecoded) == 1 else "arrays are shown as they are"
        warn(
            f"{len(undecoded):,} {verb} stored: {join_names(undecoded)}; the first, for {reason}",
            UndecodedArrayWarning,
        )
    return datasets


def fields_dataset(tree: Tree, **decoding: Any) -> xr.Dataset:
    """Return the fields of a view as a Dataset over the dimension ``granule``."""
    variables = {}
    for name, array in tree.fields.items():
        values = array.values
        if values.dtype == object:
            values = values.astype(np.dtypes.StringDType())
        dimensions = array.document["dimension_names"]
        variables[name] = xr.Variable(dimensions, values, xarray_attributes(array.document))
    return xr.decode_cf(xr.Dataset(variables, attrs=tree.root["attributes"]), **decoding)


def _read_groups(store: ViewStore, paths: Sequence[str]) -> Iterable[tuple[str, StoredGroup]]:
    """Return the groups at some paths and below with their arrays, none of which is opened."""
    groups: dict[str, StoredGroup] = {}
    for path, node in sync(read_nodes(store.shape, paths)).items():
        if node["node_type"] == "group":
            attributes = node["attributes"].items()
            groups[path] = {n: v for n, v in attributes if not n.lower().startswith("_nc")}, {}
        else:
            group, _, name = path.rpartition("/")
            groups[group][1][name] = _variable(store, path, node)
    return groups.items()


def _decode(
    variables: Mapping[str, xr.Variable],
    undecoded: Container[str],
    attributes: JSON,
    decoding: Mapping[str, Any],
) -> xr.Dataset:
    """Return a Dataset of variables, all of them decoded but those that are `undecoded`."""
    dropped = decoding.get("drop_variables") or ()
    dropped = {dropped} if isinstance(dropped, str) else set(dropped)
    variables = {name: variable for name, variable in variables.items() if name not in dropped}
    stored = {name: variable for name, variable in variables.items() if name in undecoded}
    decoded, others, coordinates = decode_cf_variables(
        variables, attributes, **{**decoding, "drop_variables": set(stored)}
    )
    axes = {name: variable for name, variable in stored.items() if variable.dims == (name,)}
    values = {**decoded, **{name: stored[name] for name in stored.keys() - axes.keys()}}
    # An index would be made of values that may be unreadable.
    coords = xr.Coordinates(axes, indexes={}) if axes else None
    dataset = xr.Dataset(values, coords, others)
    return dataset.set_coords(coordinates.intersection(dataset.variables))


def _undecodable(
    variables: Mapping[str, xr.Variable], decoding: Mapping[str, Any]
) -> Iterator[tuple[str, Exception]]:
    """Yield the variables of a group that can't be decoded, or whose index can't."""
    for name, variable in variables.items():
        others = variables.keys() - {name}
        try:
            # Bounds take the units of the times that they are of.
            decoded = decode_cf_variables(
                dict(variables), {}, **{**decoding, "drop_variables": others}
            )[0]
            if variable.dims == (name,):
                xr.Dataset(decoded)
        except (L2ViewError, OSError, MemoryError):  # of reading, not of decoding
            raise
        except Exception as error:  # which xarray has of many kinds
            yield name, error


def _variable(store: ViewStore, path: str, document: JSON) -> xr.Variable:
    dimensions = document.get("dimension_names") or ()
    if len(dimensions) != len(document["shape"]):
        raise KeyError(
            f"the array {path} has no dimension names, which xarray needs; leave it out with "
            "variables=, or read it from the view itself"
        )
    lazy = LazyArray(store, path, document)
    indexed: Any = indexing.LazilyIndexedArray(lazy)
    data = indexing.MemoryCachedArray(indexing.CopyOnWriteArray(indexed))  # type: ignore[no-untyped-call]
    return xr.Variable(dimensions, data, xarray_attributes(document), _encoding(lazy))


def _encoding(array: LazyArray) -> JSON:
    document = array.document
    grid = document["chunk_grid"]
    if grid["name"] != "regular":
        sizes = _compact_chunk_sizes(array.zarr.read_chunk_sizes)
        preferred = dict(zip(document["dimension_names"], sizes, strict=True))
        return {"chunks": sizes, "preferred_chunks": preferred}
    chunks = tuple(grid["configuration"]["chunk_shape"])
    encoding: JSON = {"chunks": chunks}
    if document["codecs"][0]["name"] == "sharding_indexed":
        inner = tuple(document["codecs"][0]["configuration"]["chunk_shape"])
        encoding = {"chunks": inner, "shards": chunks}
    names = document.get("dimension_names") or ()
    return encoding | {"preferred_chunks": dict(zip(names, encoding["chunks"], strict=True))}


class LazyArray(BackendArray):
    """An array of a view that is opened when its values are first wanted."""

    def __init__(self, store: ViewStore, path: str, document: JSON) -> None:
        self.store = store
        self.path = path
        self.document = document
        self.shape = tuple(document["shape"])
        self.dtype = native_dtype(document["data_type"])

    @cached_property
    def zarr(self) -> zarr.Array[Any]:
        """The array as zarr has it."""
        return zarr.Array(open_array(StorePath(self.store, self.path), self.document))

    @cached_property
    def _array(self) -> ZarrArrayWrapper:
        return ZarrArrayWrapper(self.zarr)  # type: ignore[no-untyped-call]

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Return the values at `key`, as `ZarrArrayWrapper` does."""
        return self._array[key]

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Any:
        """Return the values at `key` from within an event loop."""
        return await self._array.async_getitem(key)  # type: ignore[no-untyped-call]

"""Granule files, virtualised into an Icechunk repository that can be searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import shapely
import zarr
from obspec_utils.registry import ObjectStoreRegistry
from obstore.store import LocalStore
from zarr.dtype import VariableLengthBytes

from l2view.demo.files import GranuleFile


def container(folder: Path) -> str:
    """Return the URL prefix of the granules' files."""
    return f"{folder.resolve().as_uri()}/"


def build_repository(folder: Path, granules: Sequence[GranuleFile], path: Path) -> str:
    """Write references to the granules and their metadata into a new repository at `path`.

    Metadata and references land in one commit. No byte of the granules is copied.

    Returns
    -------
    str
        The snapshot's id.
    """
    prefix = container(folder)
    config = icechunk.RepositoryConfig.default()
    files = icechunk.local_filesystem_store(str(folder.resolve()))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, files))
    repository = icechunk.Repository.create(
        icechunk.local_filesystem_storage(str(path)),
        config=config,
        authorize_virtual_chunk_access={prefix: icechunk.credentials.LocalFileSystemAccess},
    )
    session = repository.writable_session("main")
    root = zarr.create_group(session.store)
    root.create_group("granules")
    registry = ObjectStoreRegistry({"file://": LocalStore()})
    for granule in granules:
        tree = _parser(granule.path)(granule.path.resolve().as_uri(), registry)
        for node in tree.to_virtual_datatree(loadable_variables=[]).subtree:
            group = f"granules/{granule.path.stem}{node.path.rstrip('/')}"
            dataset = node.to_dataset(inherit=False)
            if dataset.variables:
                dataset.vz.to_icechunk(session.store, group=group, mode="a")
            else:
                root.create_group(group, attributes=dataset.attrs)
    _write_meta(root, granules)
    return str(session.commit("Demo granules"))


def _parser(path: Path) -> Any:
    """Return VirtualiZarr's parser for a file of the demo."""
    if path.suffix == ".nc":
        from virtualizarr.parsers import NetCDF3Parser

        return NetCDF3Parser()
    if path.suffix == ".h5":
        from virtualizarr.parsers import HDFParser

        return HDFParser()
    from virtual_tiff import VirtualTIFF

    return VirtualTIFF(ifd_layout="nested")


def _write_meta(root: zarr.Group, granules: Sequence[GranuleFile]) -> None:
    """Write one row a granule to ``/meta``."""
    meta = root.create_group("meta")
    strings = ("id", "platform", "product")
    columns: dict[str, tuple[Any, Any]] = {
        name: (np.array([granule.fields[name] for granule in granules], dtype=object), "string")
        for name in strings
    }
    columns["group_path"] = (
        np.array([f"granules/{granule.path.stem}" for granule in granules], dtype=object),
        "string",
    )
    for name in ("datetime", "start_datetime", "end_datetime"):
        values = np.array([granule.fields[name] for granule in granules], dtype="datetime64[ms]")
        columns[name] = (values, values.dtype)
    cover = np.array([granule.fields["cloud_cover"] for granule in granules], dtype=np.float64)
    columns["cloud_cover"] = (cover, cover.dtype)
    outlines = shapely.to_wkb([granule.footprint for granule in granules])
    columns["bbox"] = (np.array(list(outlines), dtype=object), VariableLengthBytes())
    for name, (values, dtype) in columns.items():
        array = meta.create_array(name, shape=(len(values),), chunks=(65_536,), dtype=dtype)
        array[:] = values

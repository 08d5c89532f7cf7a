"""Granule files, virtualised into an Icechunk repository that can be searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import shapely
import xarray as xr
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

    They land in one commit, whose snapshot is returned. No byte of the granules is copied.
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
    registry = ObjectStoreRegistry({"file://": LocalStore()})
    trees = {}
    for granule in granules:
        manifests = _parser(granule.path)(granule.path.resolve().as_uri(), registry)
        trees[granule.path.stem] = manifests.to_virtual_datatree(loadable_variables=[])
    tree: Any = xr.DataTree(children={"granules": xr.DataTree(children=trees)})
    tree.vz.to_icechunk(session.store)
    _write_meta(zarr.open_group(session.store), granules)
    return str(session.commit("Demo granules"))


def _parser(path: Path) -> Any:
    """Return VirtualiZarr's parser for a file of the demo."""
    from virtual_tiff import VirtualTIFF
    from virtualizarr.parsers import HDFParser, NetCDF3Parser

    if path.suffix == ".tif":
        return VirtualTIFF(ifd_layout="nested")
    return NetCDF3Parser() if path.suffix == ".nc" else HDFParser()


def _write_meta(root: zarr.Group, granules: Sequence[GranuleFile]) -> None:
    """Write one row a granule to ``/meta``."""
    meta = root.create_group("meta")
    rows = [
        granule.fields
        | {"group_path": f"granules/{granule.path.stem}", "bbox": shapely.to_wkb(granule.footprint)}
        for granule in granules
    ]
    dtypes: dict[str, Any] = dict.fromkeys(("id", "platform", "product", "group_path"), "string")
    dtypes |= dict.fromkeys(("datetime", "start_datetime", "end_datetime"), "datetime64[ms]")
    dtypes |= {"cloud_cover": "float64", "bbox": VariableLengthBytes()}
    for name, dtype in dtypes.items():
        array = meta.create_array(name, shape=(len(rows),), chunks=(65_536,), dtype=dtype)
        is_number = dtype in ("datetime64[ms]", "float64")
        array[:] = np.array([row[name] for row in rows], dtype if is_number else object)

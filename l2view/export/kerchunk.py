"""A view as Kerchunk's references, in JSON or Parquet, for whoever reads them with fsspec."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from virtualizarr.manifests import ManifestArray
from virtualizarr.writers.kerchunk import variable_to_kerchunk_arr_refs
from zarr.core.buffer import default_buffer_prototype

from l2view.arrays.cf import xarray_attributes
from l2view.errors import ExportError, explain_missing
from l2view.export.manifests import ManifestNodes, manifest_nodes
from l2view.stores.hierarchy import JSON, join
from l2view.text import first_line
from l2view.virtual.store import Shape


def to_kerchunk(
    shape: Shape,
    path: str | PathLike[str],
    *,
    format: Literal["json", "parquet"] = "json",
    zarr_format: Literal[2, 3] = 2,
    copy_native: bool = False,
) -> None:
    """Write the view as Kerchunk's references (see `View.to_kerchunk`)."""
    if format not in ("json", "parquet"):
        raise ExportError(f"format={format!r} is not json or parquet")
    if format == "parquet" and zarr_format == 3:
        raise ExportError("references in Parquet are of Zarr format 2; write JSON for format 3")
    nodes = manifest_nodes(shape, copy_native=copy_native)
    refs = {"version": 1, "refs": _references(nodes, zarr_format)}
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if format == "json":
        target.write_text(json.dumps(refs))
        return
    needs = "references in Parquet need kerchunk and fastparquet"
    with explain_missing(needs, "'l2view[kerchunk]'", ExportError):
        from kerchunk.df import refs_to_dataframe
    target.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas', of the engine that kerchunk writes with
        refs_to_dataframe(refs, str(target))


def _references(nodes: ManifestNodes, zarr_format: Literal[2, 3]) -> JSON:
    """Return all references by key."""
    refs: JSON = {}
    for path, attributes in nodes.groups.items():
        if zarr_format == 3:
            document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
            refs[join(path, "zarr.json")] = json.dumps(document)
        else:
            refs[join(path, ".zgroup")] = json.dumps({"zarr_format": 2})
            refs[join(path, ".zattrs")] = json.dumps(attributes)
    for path, array in nodes.arrays.items():
        try:
            references: JSON = variable_to_kerchunk_arr_refs(
                array.to_virtual_variable(), path, zarr_format=zarr_format
            )
        except Exception as error:  # VirtualiZarr raises what it likes for what v2 can't say
            raise ExportError(
                f"{path} can't be told in Zarr format {zarr_format} ({first_line(error)}); "
                + ("pass zarr_format=3, or " if zarr_format == 2 else "")
                + "leave it out with variables= or fields="
            ) from error
        if zarr_format == 2:
            references = dict(references) | _with_masked_fill_value(path, array, references)
        # VirtualiZarr has no key of the chunk of an array without dimensions.
        refs |= {join(path, key or "0"): value for key, value in references.items()}
    return refs


def _with_masked_fill_value(
    path: str, array: ManifestArray, refs: Mapping[str, Any]
) -> dict[str, str]:
    """Return an array's metadata of format 2, with the fill value that xarray shall mask.

    In format 2 xarray masks by the fill value of the array itself, in format 3 by the attribute
    ``_FillValue``. Where that would give chunks that aren't there other values, it's an error.
    """
    zarray, zattrs = json.loads(refs[".zarray"]), json.loads(refs[".zattrs"])
    metadata = array.metadata
    text = metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes()
    document: JSON = json.loads(text)
    value = xarray_attributes(document).get("_FillValue")
    zattrs.pop("_FillValue", None)
    missing = bool((array.manifest._paths == "").any())
    fill = np.asarray(metadata.fill_value)
    same = value is not None and np.array_equal(fill, value, equal_nan=fill.dtype.kind in "fc")
    # What nothing is said of reads as zero.
    if missing and not same and not (value is None and not fill.any()):
        raise ExportError(
            f"{path} lacks chunks whose fill value {metadata.fill_value!r} is not what stands for "
            "missing, which Zarr format 2 can't tell apart; pass zarr_format=3"
        )
    zarray["fill_value"] = None
    if value is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of dtypes without a v3 specification
            scalar = np.asarray(value, fill.dtype)[()]
            zarray["fill_value"] = metadata.dtype.to_json_scalar(scalar, zarr_format=2)
    return {".zarray": json.dumps(zarray), ".zattrs": json.dumps(zattrs)}

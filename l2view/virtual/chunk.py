"""Documents of a view's arrays, and the keys of their chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding

from l2view.arrays.encoding import ArrayEncoding
from l2view.granules.chunks import grid_of
from l2view.granules.profile import DEFAULT_KEYS
from l2view.stores.hierarchy import JSON, join


def array_document(
    encoding: ArrayEncoding,
    shape: Sequence[int],
    chunk_grid: JSON,
    dimensions: Sequence[str | None],
    attributes: JSON | None = None,
) -> JSON:
    """Return the Zarr v3 document of an array of a view."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": encoding.data_type,
        "chunk_grid": chunk_grid,
        "chunk_key_encoding": DEFAULT_KEYS,
        "fill_value": encoding.fill_value,
        "codecs": list(encoding.codecs),
        "attributes": attributes or {},
        "dimension_names": list(dimensions),
    }


def chunk_index(key: str, grid: Sequence[int]) -> tuple[int, ...] | None:
    """Return the index of the chunk with the key `key`, None where the grid has none.

    Examples
    --------
    >>> chunk_index("c/0/2", (1, 3)), chunk_index("c/0/3", (1, 3)), chunk_index("c", ())
    ((0, 2), None, ())
    """
    prefix, *numbers = key.split("/")
    if prefix != "c" or len(numbers) != len(grid) or not all(map(str.isdecimal, numbers)):
        return None
    index = tuple(map(int, numbers))
    return index if all(i < n for i, n in zip(index, grid, strict=True)) else None


def chunk_keys(path: str, document: JSON) -> Iterator[str]:
    """Yield the keys of all chunks that an array may have, by its path and document."""
    encoding = parse_chunk_key_encoding(document["chunk_key_encoding"])
    for index in np.ndindex(*grid_of(document)):
        yield join(path, encoding.encode_chunk_key(index))

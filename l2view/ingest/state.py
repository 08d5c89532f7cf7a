"""A collection as an ingest meets it: its fields, its storage, and the granules with an id."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store

from l2view.errors import IngestError
from l2view.granules.layouts import LAYOUTS, StorageName, check_version, detect_storage
from l2view.meta.columns import Kind, Kinds, are_exact, kind_of_array
from l2view.stores.hierarchy import META, OWN, join

SEARCHED: Mapping[str, Kind] = {"datetime": "time", "bbox": "bytes"}
"""The fields of a new collection, by which granules are searched, whether they have them or not."""

IDS = join(OWN, "ids")
"""A hash of every granule's id, in the order of the rows."""


@dataclass(frozen=True)
class CollectionState:
    """A collection as it is before a batch: rows, kinds of fields, storage.

    Where nothing was ever written, there is neither a root nor a storage.
    """

    root: zarr.Group | None = None
    rows: int = 0
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    storage: StorageName | None = None

    def require_storage(self, storage: StorageName | None) -> StorageName:
        """Return the collection's storage or the caller's; an `IngestError` where they differ."""
        if storage is not None and storage not in LAYOUTS:
            raise IngestError(f"storage={storage!r} is not {' or '.join(LAYOUTS)}")
        if self.storage is not None and storage not in (None, self.storage):
            raise IngestError(f"this collection has storage={self.storage!r}, not {storage!r}")
        return self.storage or storage or "packed"

    def field_kinds(self, storage: StorageName) -> Kinds:
        """Return the kinds of the fields, to which granules add theirs."""
        return Kinds({**(self.kinds or SEARCHED), **LAYOUTS[storage].kinds}, self._is_exact)

    def _is_exact(self, name: str) -> bool:
        """Return whether the integers of a field are the same as floats."""
        if self.root is None or name not in self.kinds:
            return True
        return are_exact(np.asarray(_array(self.root, join(META, name))[:]))

    def sources(self, ids: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Return the row number and the ``href`` of those of `ids` that are in the collection."""
        if not self.rows or self.root is None or not ids:
            return {}
        rows = find_rows(self.root, ids)
        if "href" not in self.kinds:
            return {name: (row, "") for name, row in rows.items()}
        hrefs = _texts_at(self.root, "href", np.array(list(rows.values()), dtype=np.int64))
        return {name: (rows[name], href) for name, href in zip(rows, hrefs, strict=True)}


def _array(root: zarr.Group, path: str) -> zarr.Array[Any]:
    array = root[path]
    assert isinstance(array, zarr.Array)
    return array


def read_state(store: Store) -> CollectionState:
    """Return the state of a collection.

    An `IngestError` or `FieldError` says what ingest can't add to.
    """
    try:
        root = zarr.open_group(store, mode="r")
    except FileNotFoundError:
        return CollectionState()
    check_version(root.attrs, "this collection")
    meta = root.get(META)
    if not isinstance(meta, zarr.Group):
        return CollectionState(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dtypes without a v3 specification
        arrays = dict(meta.arrays())
    if not arrays:
        return CollectionState(root)
    storage = detect_storage(arrays)
    ids = root.get(IDS)
    if storage is None or "id" not in arrays or not isinstance(ids, zarr.Array):
        raise IngestError("this collection wasn't made by ingest, which can't add to it")
    rows = int(arrays["id"].shape[0])
    if ids.shape != (rows,):
        raise IngestError(
            f"this collection isn't whole: {ids.shape[0]:,} ids in {IDS} for {rows:,} rows of meta"
        )
    kinds = {name: kind_of_array(array) for name, array in arrays.items()}
    return CollectionState(root, rows, kinds, storage)


def hash_ids(ids: Iterable[str]) -> NDArray[np.uint64]:
    """Return a hash of each id."""
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in ids]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def find_rows(root: zarr.Group, ids: Sequence[str]) -> dict[str, int]:
    """Return the row numbers of those of `ids` that are in the collection at `root`."""
    hashes = _array(root, IDS)
    targets = hash_ids(ids)
    candidates = [np.empty(0, dtype=np.int64)]
    step = 16 * int(hashes.chunks[0])
    for start in range(0, int(hashes.shape[0]), step):
        block = np.asarray(hashes[start : start + step])
        candidates.append(start + _positions(targets, block))
    rows = np.concatenate(candidates)
    names = set(ids)  # and not only their hashes
    pairs = zip(_texts_at(root, "id", rows), rows.tolist(), strict=True)
    return {name: row for name, row in pairs if name in names}


def _positions(targets: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the positions in `hashes` of the `targets`, few among many."""
    # A look at two bytes of each leaves so few that the rest is quick.
    begins = np.zeros(2**16, dtype=bool)
    begins[targets.astype("<u8").view("<u2")[::4]] = True
    near = np.flatnonzero(begins[hashes.astype("<u8", copy=False).view("<u2")[::4]])
    return near[np.isin(hashes[near], targets)]


def _texts_at(root: zarr.Group, name: str, rows: NDArray[np.int64]) -> list[str]:
    """Return a field of texts at some rows, each of its chunks read once."""
    if len(rows) == 0:
        return []
    texts = _array(root, join(META, name)).get_coordinate_selection(rows)
    return [str(text) for text in np.asarray(texts).tolist()]

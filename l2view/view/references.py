"""Where the chunks of a view lie: file, offset and length of each.

They are read array by array from Icechunk's manifests, or from the listing of a plain Zarr store;
never all of them are held at once.

Not good for a few granules of a large collection: Icechunk tells the chunks of an array from the
first to the last, and they are gone through until those of the view were found.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import quote

import icechunk
import numpy as np
import obstore
import obstore.exceptions
import pyarrow as pa
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding
from zarr.core.sync import sync
from zarr.storage import LocalStore, ObjectStore

from l2view.errors import StoreError, said
from l2view.hierarchy import JSON, METADATA_KEYS
from l2view.layout import Location
from l2view.layout.inventory import ArrayInventory, Inventory, Source
from l2view.view.tree import Tree

type Kind = Literal["missing", "native", "virtual", "inline"]
"""How a chunk is there: not at all, as a value of the store, in a file, or in the manifest."""

KINDS: tuple[Kind, ...] = ("missing", "native", "virtual", "inline")
"""The kinds by number, those of `icechunk.ChunkType` but for the first."""

MISSING, NATIVE, VIRTUAL, INLINE = range(4)

BATCH = 100_000
"""How many chunks are told at once."""

SCHEMA = pa.schema(
    [
        ("granule", pa.dictionary(pa.int32(), pa.large_string())),
        ("array", pa.dictionary(pa.int32(), pa.string())),
        ("chunk", pa.list_(pa.int64())),
        ("kind", pa.dictionary(pa.int8(), pa.string())),
        ("path", pa.string()),
        ("offset", pa.uint64()),
        ("length", pa.uint64()),
        ("checksum", pa.string()),
    ]
)
"""The columns of a table of references."""


@dataclass(frozen=True)
class Chunks:
    """Some chunks of one array of granules.

    Attributes
    ----------
    members
        Whose they are, of shape (n,): positions among the granules of an inventory.
    index
        Their chunk indices, of shape (n, rank).
    kinds
        Numbers of `KINDS`, of shape (n,).
    paths
        The URLs of their files; for native chunks of Icechunk's their ids. Empty for inline
        ones.
    offsets, lengths
        In bytes, of shape (n,).
    inlined
        The bytes of inline ones, by position.
    checksums
        The ETags of their files, where they are known.
    """

    members: NDArray[np.int64]
    index: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    paths: Sequence[str]
    offsets: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    inlined: Mapping[int, bytes]
    checksums: Sequence[str | None] | None = None

    def __len__(self) -> int:
        return len(self.members)


async def chunks_of(
    tree: Tree, inventory: Inventory, locations: Sequence[Location], path: str
) -> AsyncIterator[Chunks]:
    """Yield the chunks that there are of the arrays at `path`."""
    array = inventory.arrays[path]
    grids = array.grids
    counts = grids.prod(axis=1)
    for source in tree.layout.sources(inventory, locations, path):
        left = int(counts[source.members].sum())
        async for found in _chunks(tree.source, source, array):
            chunks = found if array.starts is None else _shown(found, array, grids)
            left -= len(chunks)
            if len(chunks):
                yield chunks
            if left <= 0:
                break


def _shown(chunks: Chunks, array: ArrayInventory, grids: NDArray[np.int64]) -> Chunks:
    """Return those chunks that are shown, with the indices that they then have."""
    index = chunks.index - array.first_chunks[chunks.members]
    inside = (index >= 0) & (index < grids[chunks.members])
    return _taken(replace(chunks, index=index), np.flatnonzero(inside.all(axis=1)))


def _taken(chunks: Chunks, kept: NDArray[np.intp]) -> Chunks:
    """Return some of the chunks."""
    numbers = kept.tolist()
    known = chunks.checksums
    return Chunks(
        chunks.members[kept],
        chunks.index[kept],
        chunks.kinds[kept],
        [chunks.paths[number] for number in numbers],
        chunks.offsets[kept],
        chunks.lengths[kept],
        {n: chunks.inlined[old] for n, old in enumerate(numbers) if old in chunks.inlined},
        None if known is None else [known[number] for number in numbers],
    )


def _chunks(store: Store, source: Source, array: ArrayInventory) -> AsyncIterator[Chunks]:
    if isinstance(store, icechunk.IcechunkStore):
        return _from_icechunk(store, source)
    return _from_listing(store, source, array)


async def _from_icechunk(store: icechunk.IcechunkStore, source: Source) -> AsyncIterator[Chunks]:
    """Yield chunks from Icechunk's manifests."""
    order = None if source.slots is None else np.argsort(source.slots, kind="stable")
    async for found, kinds, paths, offsets, lengths, inlined in store.array_chunk_iterator(
        f"/{source.path}", BATCH
    ):
        index: NDArray[np.int64] = found.astype(np.int64)
        if source.slots is None or order is None:
            members = np.repeat(source.members, len(index))
            yield Chunks(members, index, kinds, paths, offsets, lengths, inlined)
            continue
        # A slot may be that of several granules, or of none of the view.
        slots = source.slots[order]
        begins = np.searchsorted(slots, index[:, 0], side="left")
        counts = np.searchsorted(slots, index[:, 0], side="right") - begins
        rows = np.repeat(np.arange(len(index)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        members = source.members[order[np.repeat(begins, counts) + within]]
        all_of_them = Chunks(index[:, 0], index[:, 1:], kinds, paths, offsets, lengths, inlined)
        whole = len(rows) == len(index) and bool((counts == 1).all())
        yield replace(all_of_them if whole else _taken(all_of_them, rows), members=members)


async def _from_listing(
    store: Store, source: Source, array: ArrayInventory
) -> AsyncIterator[Chunks]:
    """Yield the chunks of a plain Zarr store: each is an object of its own."""
    member = int(source.members[0])
    encoding = parse_chunk_key_encoding(array.variants[array.which[member]]["chunk_key_encoding"])
    slots: dict[int, list[int]] | None = None
    if source.slots is not None:
        slots = {}
        for slot, one in zip(source.slots.tolist(), source.members.tolist(), strict=True):
            slots.setdefault(slot, []).append(one)
    grid = -(-array.shapes // np.maximum(array.chunk_shapes, 1))
    async for listed in _listed(store, f"{source.path}/"):
        members, index, paths, sizes, checksums = [], [], [], [], []
        for key, path, size, checksum in listed:
            inner = key.removeprefix(f"{source.path}/")
            if key.rpartition("/")[2] in METADATA_KEYS:
                continue
            try:
                at = tuple(encoding.decode_chunk_key(inner))
            except (ValueError, TypeError):  # what lies beside the chunks is none
                continue
            if array.rank == 0 and slots is None:  # which has an index in Zarr v2
                at = ()
            whose = [member] if slots is None else slots.get(at[0], [])
            at = at if slots is None else at[1:]
            for one in whose:
                if len(at) == array.rank and (at < grid[one]).all():
                    members.append(one)
                    index.append(at)
                    paths.append(path)
                    sizes.append(size)
                    checksums.append(checksum)
        count = len(members)
        yield Chunks(
            np.array(members, dtype=np.int64),
            np.array(index, dtype=np.int64).reshape(count, array.rank),
            np.full(count, NATIVE, dtype=np.uint8),
            paths,
            np.zeros(count, dtype=np.uint64),
            np.array(sizes, dtype=np.uint64),
            {},
            checksums,
        )


type Listed = tuple[str, str, int, str | None]
"""The key of an object, its URL, its size, its ETag."""


async def _listed(store: Store, prefix: str) -> AsyncIterator[list[Listed]]:
    """Yield the objects below `prefix`."""
    objects: Any = None
    root = ""
    if isinstance(store, LocalStore):
        # Its keys are then told with sizes, many at a time.
        objects, root = obstore.store.LocalStore(store.root), store.root.absolute().as_uri()
    elif isinstance(store, ObjectStore):
        objects, root = store.store, _root_of(store.store)
    if objects is not None:
        try:
            async for page in obstore.list(objects, prefix=prefix.rstrip("/"), chunk_size=BATCH):
                yield [
                    (one["path"], f"{root}/{quote(one['path'])}", one["size"], one["e_tag"])
                    for one in page
                ]
        except (obstore.exceptions.BaseError, NotImplementedError) as error:
            raise StoreError(
                f"the chunks below {prefix} can't be listed ({said(error)}), which telling where "
                "they lie takes of a store that isn't Icechunk"
            ) from error
        return
    keys = [key async for key in store.list_prefix(prefix)]
    sizes = await asyncio.gather(*(store.getsize(key) for key in keys))
    yield [(key, key, size, None) for key, size in zip(keys, sizes, strict=True)]


def _root_of(objects: Any) -> str:
    """Return the URL of an obstore store's root, empty where it has none."""
    prefix = getattr(objects, "prefix", None)
    below = f"/{prefix}" if prefix else ""
    match type(objects).__name__:
        case "S3Store":
            return f"s3://{objects.config['bucket']}{below}"
        case "GCSStore":
            return f"gs://{objects.config['bucket']}{below}"
        case "HTTPStore":
            return str(objects.url).rstrip("/")
        case "LocalStore":
            return f"file://{quote(str(prefix or ''))}"
    return ""


def references(tree: Tree) -> pa.RecordBatchReader:
    """Return where the chunks of a tree's granules lie, as Arrow batches.

    Parameters
    ----------
    tree
        The granules.

    Returns
    -------
    pyarrow.RecordBatchReader
        With the columns of `SCHEMA`; it is read from the store as it is read.
    """
    return pa.RecordBatchReader.from_batches(SCHEMA, _batches(tree))


def _batches(tree: Tree) -> Iterator[pa.RecordBatch]:
    names = tree.granules.names.cast(pa.large_string())
    for inventory, locations in sync(tree.inventories()):
        for path, array in inventory.arrays.items():
            if not tree.shows(path):
                continue
            shapes = array.grids
            firsts = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))]).astype(np.int64)
            seen = np.zeros(int(firsts[-1]), dtype=bool)
            for chunks in synchronous(chunks_of(tree, inventory, locations, path)):
                seen[numbers_of(chunks.members, chunks.index, shapes, firsts)] = True
                yield _batch(chunks, inventory.rows, path, names)
            lost = np.flatnonzero(~seen)
            for start in range(0, len(lost), BATCH):
                chunks = _missing(lost[start : start + BATCH], shapes, firsts)
                yield _batch(chunks, inventory.rows, path, names)


def synchronous[Item](items: AsyncIterator[Item]) -> Iterator[Item]:
    """Yield what an asynchronous iterator yields, in zarr's event loop."""

    async def following() -> Item | None:
        return await anext(items, None)

    while (item := sync(following())) is not None:
        yield item


def numbers_of(
    members: NDArray[np.int64],
    index: NDArray[np.int64],
    shapes: NDArray[np.int64],
    firsts: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the numbers of chunks, those of each granule in C order after those before."""
    number = np.zeros(len(members), dtype=np.int64)
    for axis in range(index.shape[1]):
        number = number * shapes[members, axis] + index[:, axis]
    return firsts[members] + number


def _missing(
    numbers: NDArray[np.int64], shapes: NDArray[np.int64], firsts: NDArray[np.int64]
) -> Chunks:
    """Return the chunks with some numbers, which aren't there."""
    members = np.searchsorted(firsts, numbers, side="right") - 1
    rest = numbers - firsts[members]
    index = np.zeros((len(numbers), shapes.shape[1]), dtype=np.int64)
    for axis in range(shapes.shape[1] - 1, -1, -1):
        rest, index[:, axis] = np.divmod(rest, shapes[members, axis])
    nothing = np.zeros(len(numbers), dtype=np.uint64)
    kinds = np.full(len(numbers), MISSING, dtype=np.uint8)
    return Chunks(members, index, kinds, [""] * len(numbers), nothing, nothing, {})


def _batch(chunks: Chunks, rows: NDArray[np.int64], path: str, names: pa.Array) -> pa.RecordBatch:
    """Return chunks as a batch of `SCHEMA`."""
    count, rank = chunks.index.shape
    granules = pa.array(rows[chunks.members].astype(np.int32))
    ends = pa.array(np.arange(count + 1, dtype=np.int32) * rank)
    there = (chunks.kinds == NATIVE) | (chunks.kinds == VIRTUAL)
    missing = chunks.kinds == MISSING
    paths = pa.array(chunks.paths, pa.string())
    return pa.record_batch(
        [
            pa.DictionaryArray.from_arrays(granules, names),
            pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(count, dtype=np.int32)), pa.array([path])
            ),
            pa.ListArray.from_arrays(ends, pa.array(chunks.index.ravel())),
            pa.DictionaryArray.from_arrays(pa.array(chunks.kinds.astype(np.int8)), pa.array(KINDS)),
            _masked(paths, ~there),
            pa.array(chunks.offsets, mask=~there),
            pa.array(chunks.lengths, mask=missing),
            pa.nulls(count, pa.string())
            if chunks.checksums is None
            else pa.array(chunks.checksums, pa.string()),
        ],
        schema=SCHEMA,
    )


def _masked(values: pa.Array, mask: NDArray[np.bool_]) -> pa.Array:
    import pyarrow.compute as pc

    return pc.if_else(pa.array(mask), None, values) if mask.any() else values


def nbytes_by_container(tree: Tree) -> dict[str, int]:
    """Return how many bytes the chunks of a tree's granules have, by where they lie.

    Returns
    -------
    dict
        By the prefix of the virtual chunk container; by the name of the collection for those
        that it holds itself.
    """
    containers = _containers(tree.source)
    found: dict[str, int] = {}
    for inventory, locations in sync(tree.inventories()):
        for path in inventory.arrays:
            if not tree.shows(path):
                continue
            for chunks in synchronous(chunks_of(tree, inventory, locations, path)):
                for place, size in _sizes(chunks, containers, tree.description).items():
                    found[place] = found.get(place, 0) + size
    return dict(sorted(found.items()))


def _sizes(chunks: Chunks, containers: Sequence[str], description: JSON) -> dict[str, int]:
    found: dict[str, int] = {}
    virtual = chunks.kinds == VIRTUAL
    own = int(chunks.lengths[~virtual].sum())
    if own or not virtual.any():
        found[str(description["collection"])] = own
    if virtual.any():
        files = pa.array(chunks.paths, pa.string()).dictionary_encode()
        codes = files.indices.to_numpy()[virtual]
        sizes = np.bincount(
            codes,
            weights=chunks.lengths[virtual].astype(np.float64),
            minlength=len(files.dictionary),
        )
        for url, size in zip(files.dictionary.to_pylist(), sizes.tolist(), strict=True):
            place = next((one for one in containers if url.startswith(one)), "")
            if size:
                found[place] = found.get(place, 0) + int(size)
    return found


def _containers(store: Store) -> list[str]:
    """Return the prefixes of a store's virtual chunk containers, the longest first."""
    if not isinstance(store, icechunk.IcechunkStore):
        return []
    known = store.session.config.virtual_chunk_containers or {}
    return sorted((quote(prefix, safe=":/") for prefix in known), key=len, reverse=True)

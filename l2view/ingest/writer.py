"""One batch of granules into one Icechunk commit: metadata, references, all or nothing.

A batch is planned and written in a session of its own. Where someone else committed first, it
is planned again on what is there now: nothing was parsed for the plan, so that costs little,
and no row, slot or id is ever given twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import cpu
from zarr.core.sync import sync

from l2view.errors import FieldError, IngestError, L2ViewError
from l2view.hierarchy import JSON, join
from l2view.ingest.columns import Kind, Kinds, Value, kind_of_array, plain, write
from l2view.ingest.references import ArrayReferences, GranuleReferences
from l2view.layout.profile import (
    ArrayTemplate,
    Profile,
    differences,
    own_path,
    packed_path,
    template,
)

type OnConflict = Literal["skip", "replace", "error"]
"""What becomes of a granule whose id is there already."""

VERSION = 1
"""Of the store's format."""

SLOTS = 1024
"""The slots in a chunk of a profile's shapes."""

ATTRIBUTE_SLOTS = 256
"""The slots in a chunk of a profile's attributes, and in a block that is read at a time."""

ATTEMPTS = 100
"""How often a batch is planned again where others commit first."""

META = "meta"
IDS = join("l2view", "ids")
"""A hash of every granule's id, in the order of the rows."""


@dataclass(frozen=True)
class Granule:
    """A granule that is ready to be written.

    Attributes
    ----------
    row
        Its fields; ``id`` among them.
    references
        Its arrays.
    """

    row: Mapping[str, Any]
    references: GranuleReferences

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.row["id"])


@dataclass
class Written:
    """What became of a batch.

    Attributes
    ----------
    added, replaced, skipped
        Ids.
    failed
        Ids, each with its reason.
    snapshot
        The commit, None where nothing was written.
    """

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    snapshot: str | None = None


@dataclass
class Packed:
    """What the packed array of one variable holds so far.

    Attributes
    ----------
    shape
        The longest of the granules' shapes along each axis.
    grid
        The largest of their numbers of chunks.
    chunk_shape
        Their chunk shape, None where they differ.
    """

    shape: list[int]
    grid: list[int]
    chunk_shape: list[int] | None

    def add(self, array: ArrayReferences) -> None:
        """Take in one granule's array."""
        self.shape = [max(pair) for pair in zip(self.shape, array.shape, strict=True)]
        self.grid = [max(pair) for pair in zip(self.grid, array.grid, strict=True)]
        if self.chunk_shape is not None and self.chunk_shape != list(array.chunk_shape):
            self.chunk_shape = None

    def document(self, array: ArrayTemplate, slots: int) -> JSON:
        """Return the packed array's Zarr v3 document."""
        if self.chunk_shape is None:
            return array.ragged(slots, self.grid)
        return array.packed(slots, self.shape, self.chunk_shape)


def profile_of(granule: GranuleReferences) -> Profile:
    """Return the profile of a granule.

    Raises
    ------
    ValueError
        Where an array can't be packed.
    """
    arrays = sorted(granule.arrays, key=lambda array: array.path)
    return Profile(tuple(template(array.path, array.document) for array in arrays), granule.groups)


def hashed(ids: Iterable[str]) -> NDArray[np.uint64]:
    """Return a hash of each id."""
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in ids]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def write_batch(
    repository: icechunk.Repository,
    granules: Sequence[Granule],
    *,
    branch: str = "main",
    on_conflict: OnConflict = "skip",
    message: str | None = None,
) -> Written:
    """Write a batch in one commit.

    Parameters
    ----------
    repository
        The collection's repository. Its virtual chunk containers cover the granules' files.
    granules
        The batch. Of several with one id, the first counts (the last with ``"replace"``).
    branch
        The branch to commit to.
    on_conflict
        What becomes of a granule whose id is there already.
    message
        Of the commit.

    Returns
    -------
    Written
        What became of each granule.
    """
    for attempt in range(ATTEMPTS):
        session = repository.writable_session(branch)
        written = _Batch(session.store).write(granules, on_conflict)
        if not written.added and not written.replaced:
            return written
        text = message or f"ingest {len(written.added) + len(written.replaced)} granules"
        try:
            written.snapshot = session.commit(text)
            return written
        except icechunk.ConflictError:
            time.sleep(random.uniform(0, min(2.0, 0.02 * 2**attempt)))  # noqa: S311 (no secret)
    raise IngestError(
        f"others committed first {ATTEMPTS} times; nothing of this batch was written. "
        "Run the same command again"
    )


class _Batch:
    """A batch on its way into one session's store."""

    def __init__(self, store: icechunk.IcechunkStore) -> None:
        self.store = store
        self.root = zarr.open_group(store, mode="a")
        if "l2view" not in self.root.attrs:
            self.root.attrs["l2view"] = {"version": VERSION}
        self.meta = self.root.require_group(META)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of dtypes without a v3 specification
            arrays = dict(self.meta.arrays())
        self.kinds = Kinds({name: kind_of_array(array) for name, array in arrays.items()})
        self.rows = int(arrays["id"].shape[0]) if "id" in arrays else 0
        if arrays and "slot" not in arrays:
            raise IngestError(
                "this collection has its granules as groups; ingest adds to packed collections"
            )
        self.documents: dict[str, JSON] = {}

    def write(self, granules: Sequence[Granule], on_conflict: OnConflict) -> Written:
        """Write what can be written, and say what became of each granule."""
        written = Written()
        chosen = self._chosen(granules, on_conflict, written)
        by_profile: dict[str, tuple[Profile, list[int]]] = {}
        rows: list[dict[str, Value] | None] = []
        for index, granule in enumerate(chosen):
            try:
                profile = profile_of(granule.references)
                row = {name: plain(name, value) for name, value in granule.row.items()}
                row["profile"], row["slot"] = profile.name, 0
                self.kinds.add(row)
            except (FieldError, ValueError) as error:
                written.failed.append((granule.id, str(error)))
                rows.append(None)
                continue
            rows.append(row)
            by_profile.setdefault(profile.name, (profile, []))[1].append(index)
        for profile, members in by_profile.values():
            first = self._write_profile(profile, [chosen[i].references for i in members])
            for slot, index in enumerate(members, start=first):
                row_of = rows[index]
                assert row_of is not None
                row_of["slot"] = slot
        self._write_rows(chosen, rows, written)
        return written

    def _chosen(
        self, granules: Sequence[Granule], on_conflict: OnConflict, written: Written
    ) -> list[Granule]:
        """Return the granules to write, each id once."""
        unique: dict[str, Granule] = {}
        for granule in granules:
            if granule.id not in unique or on_conflict == "replace":
                if granule.id in unique:
                    written.skipped.append(granule.id)
                unique[granule.id] = granule
            elif on_conflict == "error":
                written.failed.append((granule.id, "its id is twice in this ingest"))
            else:
                written.skipped.append(granule.id)
        self.present = self._present(list(unique))
        if on_conflict == "skip":
            written.skipped.extend(name for name in unique if name in self.present)
        elif on_conflict == "error":
            said = "its id is in the collection already"
            written.failed.extend((name, said) for name in self.present)
        if on_conflict != "replace":
            unique = {n: g for n, g in unique.items() if n not in self.present}
        return list(unique.values())

    def _present(self, ids: list[str]) -> dict[str, int]:
        """Return the rows of those of `ids` that are in the collection."""
        if not self.rows or not ids:
            return {}
        return rows_of(self.root, ids)

    def _write_rows(
        self, chosen: Sequence[Granule], rows: Sequence[dict[str, Value] | None], written: Written
    ) -> None:
        added, replaced = [], {}
        for granule, row in zip(chosen, rows, strict=True):
            if row is None:
                continue
            if granule.id in self.present:
                replaced[self.present[granule.id]] = row
                written.replaced.append(granule.id)
            else:
                added.append(row)
                written.added.append(granule.id)
        if not added and not replaced:
            return
        kinds: dict[str, Kind] = self.kinds.known
        write(self.meta, kinds, self.rows, added, replaced)
        if IDS not in self.root:
            chunks = (65_536,)
            self.root.create_array(IDS, shape=(0,), chunks=chunks, dtype="uint64", compressors=None)
        ids = self.root[IDS]
        assert isinstance(ids, zarr.Array)
        if added:
            ids.resize((self.rows + len(added),))
            ids[self.rows :] = hashed(str(row["id"]) for row in added)

    def _write_profile(self, profile: Profile, granules: Sequence[GranuleReferences]) -> int:
        """Write granules of one profile, and return the slot of the first."""
        path = own_path(profile.name)
        if path not in self.root:
            self._create_profile(profile, granules[0])
        group = self.root[path]
        assert isinstance(group, zarr.Group)
        shapes, chunk_shapes, attributes = (
            group[name] for name in ("shapes", "chunk_shapes", "attributes")
        )
        assert isinstance(shapes, zarr.Array)
        assert isinstance(chunk_shapes, zarr.Array)
        assert isinstance(attributes, zarr.Array)
        first = int(shapes.shape[0])
        stop = first + len(granules)
        said: JSON = group.attrs.asdict()
        base: JSON = said["attributes"]
        packed = {name: Packed(**state) for name, state in said["packed"].items()}
        ordered = [{array.path: array for array in granule.arrays} for granule in granules]
        for arrays in ordered:
            for name, array in arrays.items():
                packed[name].add(array)
        self._put_documents(profile, packed, stop)
        for slot, (granule, arrays) in enumerate(zip(granules, ordered, strict=True), start=first):
            for array in arrays.values():
                self._put_references(profile, array, slot, granule.checksums)
        width = profile.width
        for target, which in ((shapes, "shape"), (chunk_shapes, "chunk_shape")):
            values = [
                [n for array in profile.arrays for n in getattr(arrays[array.path], which)]
                for arrays in ordered
            ]
            target.resize((stop, width))
            if width:
                target[first:stop] = np.array(values, dtype=np.int64).reshape(-1, width)
        attributes.resize((stop,))
        texts = [_attribute_text(base, granule) for granule in granules]
        attributes[first:stop] = np.array(texts, dtype=np.dtypes.StringDType())
        group.attrs["packed"] = {name: vars(state) for name, state in packed.items()}
        return first

    def _create_profile(self, profile: Profile, granule: GranuleReferences) -> None:
        """Create the groups and arrays of a profile without granules."""
        arrays = {array.path: array for array in granule.arrays}
        base = {**granule.attributes, **{n: a.document["attributes"] for n, a in arrays.items()}}
        packed = {
            path: {
                "shape": list(array.shape),
                "grid": list(array.grid),
                "chunk_shape": list(array.chunk_shape),
            }
            for path, array in arrays.items()
        }
        own = self.root.create_group(
            own_path(profile.name),
            attributes={"profile": profile.to_json(), "attributes": base, "packed": packed},
        )
        for name in ("shapes", "chunk_shapes"):
            chunks = (SLOTS, max(profile.width, 1))
            own.create_array(name, shape=(0, profile.width), chunks=chunks, dtype="int64")
        own.create_array("attributes", shape=(0,), chunks=(ATTRIBUTE_SLOTS,), dtype="string")
        groups = {join(packed_path(profile.name), path) for path in ("", *profile.groups)}
        for array in profile.arrays:
            parts = packed_path(profile.name, array.path).split("/")[:-1]
            groups |= {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
        document = {"zarr_format": 3, "node_type": "group", "attributes": {}}
        self._put({f"{path}/zarr.json": document for path in groups | {"granules"}})

    def _put_documents(self, profile: Profile, packed: Mapping[str, Packed], slots: int) -> None:
        self._put(
            {
                packed_path(profile.name, f"{array.path}/zarr.json"): packed[array.path].document(
                    array, slots
                )
                for array in profile.arrays
            }
        )

    def _put(self, documents: Mapping[str, JSON]) -> None:
        async def put() -> None:
            await asyncio.gather(
                *(
                    self.store.set(key, cpu.Buffer.from_bytes(json.dumps(document).encode()))
                    for key, document in documents.items()
                )
            )

        sync(put())

    def _put_references(
        self, profile: Profile, array: ArrayReferences, slot: int, checksums: Mapping[str, str]
    ) -> None:
        path = packed_path(profile.name, array.path)
        for url, locations in _by_file(array.locations):
            failed = self.store.set_virtual_refs_arr(
                f"/{path}",
                (1, *array.grid),
                locations,
                array.offsets,
                array.lengths,
                validate_containers=False,
                arr_offset=(slot, *([0] * len(array.grid))),
                checksum=checksums.get(url),
            )
            if failed:
                raise L2ViewError(f"{array.path}: the references {failed[:3]} can't be written")
        if array.inlined:
            chunks = {
                "/".join([path, "c", str(slot), *map(str, index)]): data
                for index, data in array.inlined.items()
            }

            async def put() -> None:
                await asyncio.gather(
                    *(self.store.set(k, cpu.Buffer.from_bytes(v)) for k, v in chunks.items())
                )

            sync(put())


def rows_of(root: zarr.Group, ids: Sequence[str]) -> dict[str, int]:
    """Return the row numbers of those of `ids` that are in the collection at `root`."""
    hashes, names = root[IDS], root[f"{META}/id"]
    assert isinstance(hashes, zarr.Array)
    assert isinstance(names, zarr.Array)
    wanted, found = set(ids), {}
    sought = np.unique(hashed(ids))
    step = 16 * int(hashes.chunks[0])
    for start in range(0, int(hashes.shape[0]), step):
        part = np.asarray(hashes[start : start + step])
        # Few are sought among many: bisection, where `np.isin` would sort the many.
        places = np.minimum(np.searchsorted(sought, part), len(sought) - 1)
        for row in start + np.flatnonzero(sought[places] == part):
            name = str(names[int(row)])
            if name in wanted:  # and not only its hash
                found[name] = int(row)
    return found


def _by_file(locations: list[str]) -> list[tuple[str, list[str]]]:
    """Return the files of an array's chunks, each with the locations that lie in it."""
    urls = set(locations) - {""}
    if len(urls) == 1:
        return [(urls.pop(), locations)]
    return [(url, [place if place == url else "" for place in locations]) for url in sorted(urls)]


def _attribute_text(base: Mapping[str, JSON], granule: GranuleReferences) -> str:
    """Return how a granule's attributes differ from its profile's, as JSON."""
    own = dict(granule.attributes)
    own.update((array.path, array.document["attributes"]) for array in granule.arrays)
    changed = {path: differences(base.get(path, {}), said) for path, said in own.items()}
    return json.dumps({path: said for path, said in changed.items() if said})

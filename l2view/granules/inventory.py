"""What many granules' arrays are, as columns: the ground on which granules are joined.

A granule's document says all of it for one array of one granule. Here the same is told of all
granules of a profile at once, with what they have in common said once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2view.stores.hierarchy import JSON


@dataclass(frozen=True)
class ArrayInventory:
    """One array of n granules.

    Attributes
    ----------
    path
        Its path below a granule.
    variants
        The different Zarr v3 documents, without shape and chunk grid, and with only those
        attributes by which values are read.
    which
        The variant of each granule, of shape (n,).
    shapes, chunk_shapes
        Of shape (n, rank).
    attributes
        The attributes that all granules share.
    starts, stops
        What is shown along each axis, of shape (n, rank); None for all of it.
    """

    path: str
    variants: tuple[JSON, ...]
    variant_index: NDArray[np.int32]
    shapes: NDArray[np.int64]
    chunk_shapes: NDArray[np.int64]
    attributes: JSON
    starts: NDArray[np.int64] | None = None
    stops: NDArray[np.int64] | None = None

    @property
    def begins(self) -> NDArray[np.int64]:
        """Where what is shown begins, of shape (n, rank)."""
        return np.zeros_like(self.shapes) if self.starts is None else self.starts

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where it ends, of shape (n, rank)."""
        return self.shapes if self.stops is None else self.stops

    @property
    def first_chunks(self) -> NDArray[np.int64]:
        """The index of the first chunk that is shown, of shape (n, rank)."""
        return self.begins // np.maximum(self.chunk_shapes, 1)

    @property
    def grids(self) -> NDArray[np.int64]:
        """The number of chunks that are shown along each axis, of shape (n, rank)."""
        lengths = np.maximum(self.chunk_shapes, 1)
        counts = -(-self.ends // lengths) - self.first_chunks
        return np.where(self.ends > self.begins, counts, 0)

    def document(self, member: int) -> JSON:
        """Return the Zarr v3 document of one of the arrays."""
        variant = self.variants[self.variant_index[member]]
        return grid_document(variant, self.shapes[member], self.chunk_shapes[member])

    def narrow(self, relevant: frozenset[str]) -> ArrayInventory:
        """Return the same with fewer variants: those that differ in `relevant` attributes."""
        known: dict[str, int] = {}
        variants, numbers = [], []
        for variant in self.variants:
            kept = {k: said for k, said in variant["attributes"].items() if k in relevant}
            narrow = {**variant, "attributes": kept}
            text = json.dumps(narrow, sort_keys=True)
            if text not in known:
                known[text] = len(known)
                variants.append(narrow)
            numbers.append(known[text])
        variant_index = np.array(numbers, dtype=np.int32)[self.variant_index]
        return replace(self, variants=tuple(variants), variant_index=variant_index)

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return int(self.shapes.shape[1])

    @property
    def dimensions(self) -> tuple[str | None, ...]:
        """The names of its dimensions, None where one has none."""
        return tuple(self.variants[0].get("dimension_names") or (None,) * self.rank)


def grid_document(variant: JSON, shape: NDArray[np.int64], chunks: NDArray[np.int64]) -> JSON:
    """Return the Zarr v3 document of an array of a variant."""
    grid = {"name": "regular", "configuration": {"chunk_shape": chunks.tolist()}}
    return {**variant, "shape": shape.tolist(), "chunk_grid": grid}


@dataclass(frozen=True)
class GroupInventory:
    """One group of n granules.

    Attributes
    ----------
    variants
        The different attributes, of those that were asked for.
    which
        The variant of each granule, of shape (n,).
    attributes
        The attributes that all granules share.
    """

    variants: tuple[JSON, ...]
    variant_index: NDArray[np.int32]
    attributes: JSON


@dataclass(frozen=True)
class Inventory:
    """The arrays of the n granules of one profile.

    Attributes
    ----------
    name
        The profile's name.
    rows
        Which granules they are, of shape (n,), ascending.
    arrays
        Their arrays, by path.
    groups
        Their groups, by path; ``""`` for the granule's own.
    """

    name: str
    rows: NDArray[np.int64]
    arrays: Mapping[str, ArrayInventory]
    groups: Mapping[str, GroupInventory]


@dataclass(frozen=True)
class SourceArray:
    """Where the chunks of one array of some granules lie: in one array of the source store.

    Attributes
    ----------
    path
        The path of that array in the store.
    slots
        The first index of the chunks of each granule, of shape (n,); None where the array is
        that of one granule alone, and the indices are its own.
    members
        Which of the inventory's granules they are, of shape (n,).
    """

    path: str
    slots: NDArray[np.int64] | None
    members: NDArray[np.int64]


@dataclass
class Variants:
    """The documents of one array or group, counted as they come.

    Attributes
    ----------
    relevant
        The attributes by which they are told apart.
    documents
        The different ones, by their text.
    shared
        The attributes that all of them share, None before the first.
    """

    relevant: frozenset[str]
    documents: dict[str, JSON] = field(default_factory=dict)
    shared: JSON | None = None
    _seen: dict[str, int] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number(self, text: str, document: Callable[[], JSON]) -> int:
        """Return the number of one granule's document; its `text` tells it from others."""
        if text not in self._seen:
            whole = document()
            attributes = whole.get("attributes") or {}
            kept = {name: said for name, said in attributes.items() if name in self.relevant}
            bare = {
                name: said
                for name, said in whole.items()
                if name not in ("shape", "chunk_grid", "attributes")
            } | {"attributes": kept}
            known = json.dumps(bare, sort_keys=True)
            self.documents.setdefault(known, bare)
            self._seen[text] = self._numbers.setdefault(known, len(self._numbers))
            self.shared = shared_attributes(self.shared, attributes)
        return self._seen[text]

    def numbers(
        self, count: int, changed: Sequence[tuple[int, JSON]], document: Callable[[JSON], JSON]
    ) -> NDArray[np.int32]:
        """Return the numbers of the documents of many granules.

        Parameters
        ----------
        count
            How many granules there are.
        changed
            Those whose attributes differ from what most have, and by what.
        document
            Makes a document of such a difference.
        """
        variant_index = np.zeros(count, dtype=np.int32)
        if len(changed) < count:
            variant_index[:] = self.number("", lambda: document({}))
        for number, difference in changed:
            text = json.dumps(difference, sort_keys=True)
            variant_index[number] = self.number(text, partial(document, difference))
        return variant_index

    def group(self, variant_index: NDArray[np.int32]) -> GroupInventory:
        """Return the inventory of a group whose documents these are."""
        variants = tuple(document["attributes"] for document in self.documents.values())
        return GroupInventory(variants, variant_index, self.shared or {})


def shared_attributes(shared: JSON | None, attributes: JSON) -> JSON:
    """Return those of the `shared` attributes that are the same in `attributes`."""
    if shared is None:
        return dict(attributes)
    return {
        name: said
        for name, said in shared.items()
        if name in attributes and same_json(said, attributes[name])
    }


def same_json(one: Any, other: Any) -> bool:
    """Return whether two JSON values are the same text: 1, 1.0 and true are not."""
    if type(one) is type(other) and isinstance(one, str | int):
        return bool(one == other)
    return one is other or json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)

"""What many granules' arrays are, as columns: the ground on which granules are joined.

A document describes one array of one granule. A table describes that array of all granules
of a profile, with what they have in common once.
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
class ArrayTable:
    """One array of n granules.

    Attributes
    ----------
    path
        Its path below a granule.
    variants
        The different Zarr v3 documents, without shape and chunk grid, and with only those
        attributes by which values are read.
    variant_index
        The variant of each granule, of shape (n,).
    shapes, chunk_shapes
        Of shape (n, rank).
    attributes
        The attributes that all granules share.
    starts, stops
        The part that is shown along each axis, of shape (n, rank); None for all of it.
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
        """Where the part that is shown begins, of shape (n, rank)."""
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

    def narrow(self, relevant: frozenset[str]) -> ArrayTable:
        """Return the table with fewer variants: those that differ in `relevant` attributes."""
        narrowed = Variants(relevant)
        numbers = [
            narrowed.number(json.dumps(variant, sort_keys=True), partial(dict, variant))
            for variant in self.variants
        ]
        index = np.array(numbers, dtype=np.int32)[self.variant_index]
        return replace(self, variants=tuple(narrowed.documents.values()), variant_index=index)

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
class GroupTable:
    """One group of n granules, as an `ArrayTable` has arrays; a variant is its attributes."""

    variants: tuple[JSON, ...]
    variant_index: NDArray[np.int32]
    attributes: JSON


@dataclass(frozen=True)
class GranuleTable:
    """The arrays and groups, by path, of the n granules of one profile.

    `rows` are the granules, of shape (n,), ascending; the group ``""`` is the granule itself.
    """

    name: str
    rows: NDArray[np.int64]
    arrays: Mapping[str, ArrayTable]
    groups: Mapping[str, GroupTable]


@dataclass(frozen=True)
class SourceArray:
    """An array of the source store with the chunks of one array of some granules.

    Attributes
    ----------
    path
        Its path in the store.
    slots
        The first index of the chunks of each granule, of shape (n,); None where the array is
        that of one granule alone, and the indices are its own.
    members
        The granules' positions in the table, of shape (n,).
    """

    path: str
    slots: NDArray[np.int64] | None
    members: NDArray[np.int64]


@dataclass
class Variants:
    """The different documents of one array or group, by their text, numbered as they come.

    They differ in `relevant` attributes; `shared` are those of all, None before the first.
    """

    relevant: frozenset[str]
    documents: dict[str, JSON] = field(default_factory=dict)
    shared: JSON | None = None
    _seen: dict[str, int] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number(self, text: str, document: Callable[[], JSON]) -> int:
        """Return the number of one granule's document; `text` stands for all of it."""
        if text not in self._seen:
            complete = document()
            attributes = complete.get("attributes") or {}
            bare = {
                name: value
                for name, value in complete.items()
                if name not in ("shape", "chunk_grid", "attributes")
            }
            bare["attributes"] = {k: v for k, v in attributes.items() if k in self.relevant}
            key = json.dumps(bare, sort_keys=True)
            self.documents.setdefault(key, bare)
            self._seen[text] = self._numbers.setdefault(key, len(self._numbers))
            self.shared = shared_attributes(self.shared, attributes)
        return self._seen[text]

    def numbers(
        self, count: int, changed: Sequence[tuple[int, JSON]], document: Callable[[JSON], JSON]
    ) -> NDArray[np.int32]:
        """Return the numbers of the documents of `count` granules.

        Most have the `document` of an empty patch; those that `changed` come with their patch.
        """
        numbers = np.zeros(count, dtype=np.int32)
        if len(changed) < count:
            numbers[:] = self.number("", lambda: document({}))
        for row, patch in changed:
            text = json.dumps(patch, sort_keys=True)
            numbers[row] = self.number(text, partial(document, patch))
        return numbers

    def group(self, index: NDArray[np.int32]) -> GroupTable:
        """Return the table of a group whose documents these are."""
        variants = tuple(document["attributes"] for document in self.documents.values())
        return GroupTable(variants, index, self.shared or {})


def shared_attributes(shared: JSON | None, attributes: JSON) -> JSON:
    """Return those of the `shared` attributes that are the same in `attributes`."""
    if shared is None:
        return dict(attributes)
    return {
        name: value
        for name, value in shared.items()
        if name in attributes and same_json(value, attributes[name])
    }


def same_json(a: Any, b: Any) -> bool:
    """Return whether two JSON values have the same text: 1, 1.0 and true have not."""
    if type(a) is type(b) and isinstance(a, str | int):
        return bool(a == b)
    return a is b or json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)

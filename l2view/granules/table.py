"""What many granules' arrays are, as columns: the ground on which granules are joined.

A document describes one array of one granule. A table describes that array of all granules
of a profile, with what they have in common once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from l2view.stores.hierarchy import JSON


@dataclass(frozen=True)
class ArrayTable:
    """One array of n granules."""

    path: str  # below a granule
    variants: tuple[JSON, ...]  # the different documents, see `find_variants`
    variant_index: NDArray[np.int32]  # the variant of each granule, of shape (n,)
    shapes: NDArray[np.int64]  # of shape (n, rank), as the other columns
    chunk_shapes: NDArray[np.int64]
    attributes: JSON  # those that all granules share
    # The part that is shown, to `stops`; None for all of it.
    starts: NDArray[np.int64] | None = None
    stops: NDArray[np.int64] | None = None

    @property
    def begins(self) -> NDArray[np.int64]:
        """Where the part that is shown begins, of shape (n, rank)."""
        zeros = np.broadcast_to(np.int64(0), self.shapes.shape)
        return zeros if self.starts is None else self.starts

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where it ends, of shape (n, rank)."""
        return self.shapes if self.stops is None else self.stops

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How much is shown along each axis, of shape (n, rank)."""
        return self.ends - self.begins

    @property
    def first_chunks(self) -> NDArray[np.int64]:
        """The index of the first chunk that is shown, of shape (n, rank)."""
        return self.begins // np.maximum(self.chunk_shapes, 1)

    @property
    def grids(self) -> NDArray[np.int64]:
        """The number of chunks that are shown along each axis, of shape (n, rank)."""
        counts = -(-self.ends // np.maximum(self.chunk_shapes, 1)) - self.first_chunks
        return np.where(self.ends > self.begins, counts, 0)

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return int(self.shapes.shape[1])

    @property
    def dimensions(self) -> tuple[str | None, ...]:
        """The names of its dimensions, None where one has none."""
        return tuple(self.variants[0].get("dimension_names") or (None,) * self.rank)

    def document(self, member: int) -> JSON:
        """Return the Zarr v3 document of one of the arrays."""
        return {
            **self.variants[self.variant_index[member]],
            "shape": self.shapes[member].tolist(),
            "chunk_grid": regular_grid(self.chunk_shapes[member].tolist()),
        }

    def narrow(self, relevant: frozenset[str]) -> ArrayTable:
        """Return the table with fewer variants: those that differ in `relevant` attributes."""
        variants, index, _ = find_variants(self.variants, self.variant_index, relevant)
        return replace(self, variants=variants, variant_index=index)


@dataclass(frozen=True)
class GroupTable:
    """One group of n granules, as an `ArrayTable` has arrays; a variant is its attributes."""

    variants: tuple[JSON, ...]
    variant_index: NDArray[np.int32]
    attributes: JSON

    @classmethod
    def of(
        cls, documents: Iterable[JSON], index: NDArray[np.int32], relevant: frozenset[str]
    ) -> Self:
        """Return the table of granules' groups (see `find_variants`)."""
        variants, variant_index, attributes = find_variants(documents, index, relevant)
        return cls(tuple(v["attributes"] for v in variants), variant_index, attributes)


@dataclass(frozen=True)
class GranuleTable:
    """The arrays and groups, by path, of the n granules of one profile.

    `rows` are the granules, of shape (n,), ascending, and `locations` are theirs in the source
    store, where they are asked for; the group ``""`` is the granule itself.
    """

    name: str
    rows: NDArray[np.int64]
    arrays: Mapping[str, ArrayTable]
    groups: Mapping[str, GroupTable]
    locations: Sequence[tuple[object, ...]] = ()


@dataclass(frozen=True)
class SourceArray:
    """An array of the source store with the chunks of one array of some granules.

    The `slots` are the first index of the chunks of each granule, of shape (n,); None where the
    array is that of one granule alone, and the indices are its own.
    """

    path: str  # in the store
    slots: NDArray[np.int64] | None
    members: NDArray[np.int64]  # the granules' positions in the table, of shape (n,)


def find_variants(
    documents: Iterable[JSON], index: NDArray[np.int32], relevant: frozenset[str] | None = None
) -> tuple[tuple[JSON, ...], NDArray[np.int32], JSON]:
    """Return the variants that documents are of, that of each granule, and shared attributes.

    The `index` has the document of each granule, of shape (n,), as the result has its variant.
    Variants are documents without shape and chunk grid, told apart by `relevant` attributes alone,
    None for all.
    """
    variants: dict[str, JSON] = {}
    numbers: dict[str, int] = {}
    renumbered: list[int] = []
    shared: JSON | None = None
    for document in documents:
        attributes = document.get("attributes") or {}
        variant = {n: v for n, v in document.items() if n not in ("shape", "chunk_grid")}
        variant["attributes"] = {
            n: v for n, v in attributes.items() if relevant is None or n in relevant
        }
        text = json.dumps(variant, sort_keys=True)
        variants.setdefault(text, variant)
        renumbered.append(numbers.setdefault(text, len(numbers)))
        shared = attributes if shared is None else _intersect(shared, attributes)
    return tuple(variants.values()), np.array(renumbered, dtype=np.int32)[index], shared or {}


def shared_attributes(attributes: Sequence[JSON]) -> JSON:
    """Return the attributes that are the same in all."""
    return reduce(_intersect, attributes) if attributes else {}


def _intersect(first: JSON, second: JSON) -> JSON:
    return {
        name: value
        for name, value in first.items()
        if name in second and same_json(value, second[name])
    }


def same_json(a: Any, b: Any) -> bool:
    """Return whether two JSON values have the same text: 1, 1.0 and true have not."""
    if type(a) is type(b) and isinstance(a, str | int):
        return bool(a == b)
    return a is b or json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def regular_grid(chunk_shape: Sequence[int]) -> JSON:
    """Return the chunk grid of a Zarr v3 document."""
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}}

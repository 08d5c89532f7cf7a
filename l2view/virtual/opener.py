"""What opens granules' arrays, many of one product in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zarr
from zarr.storage import StorePath

from l2view.arrays.stored import ChunkDecoder, StoredArray
from l2view.arrays.values import ValueDecoder
from l2view.granules.inventory import ArrayInventory
from l2view.stores.hierarchy import join
from l2view.virtual.join_array import opened
from l2view.virtual.tree import Tree


class GranuleOpener:
    """Opens arrays of a tree's granules by what inventories say of them.

    Parameters
    ----------
    tree
        The granules.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        # By the arrays themselves, which are held for that, so that no other takes an id's place.
        self._decoders: dict[
            tuple[int, int, tuple[int, ...]], tuple[ArrayInventory, ChunkDecoder]
        ] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"tree": self.tree}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["tree"])  # type: ignore[misc]

    def stored(
        self, row: int, array: ArrayInventory, member: int, values: Sequence[ValueDecoder]
    ) -> StoredArray:
        """Return one granule's array.

        Parameters
        ----------
        row
            The granule.
        array
            The array, of this granule and others.
        member
            Which of them it is.
        values
            What becomes of the stored values of each variant.
        """
        begin, end = array.begins[member], array.ends[member]
        which, chunks = int(array.variant_index[member]), tuple(array.chunk_shapes[member].tolist())

        def open() -> zarr.Array[Any]:
            return zarr.Array(opened(self.tree, row, array.path, array.document(member)))

        # What decodes a chunk is the same for all granules with such chunks.
        key = (id(array), which, chunks)
        if key not in self._decoders:
            self._decoders[key] = array, ChunkDecoder.of(open())
        return StoredArray(
            name=f"{self.tree.granules.name(row)}/{array.path}",
            place=StorePath(self.tree.numbered, join(str(row), array.path)),
            open=open,
            decoder=self._decoders[key][1],
            length=tuple(array.shapes[member].tolist()),
            values=values[which],
            begin=tuple(begin.tolist()),
            shape=tuple((end - begin).tolist()),
        )

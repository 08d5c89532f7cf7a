"""The data elements of an HDF4 file, and where their bytes lie.

Names are those of the HDF4 specification and developer's guide: an element has a tag, a
reference number and a data descriptor; a special element's descriptor points to a header, which
says how its bytes are stored. Numbers of the file's structure are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from itertools import takewhile
from math import gcd, prod
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from l2view.errors import IngestError

type Order = Literal[">", "<", "="]

LINKED_BLOCK, COMPRESSED, NUMBER_TYPE, DATASET_VALUES = 20, 40, 106, 702
DATASETS = (720, 700)
"""The tags of groups of a dataset's elements, the second that of old files."""
RASTER_IMAGE, TABLE_HEADER, TABLE, GROUP = 306, 1962, 1963, 1965
STRUCTURES = frozenset({"SWATH", "GRID", "POINT"})
"""The classes of Vgroups that are HDF-EOS's."""
SPECIAL = 0x4000
"""What is added to a special element's tag."""
LINKED, EXTERNAL, CODED, CHUNKED = 1, 2, 3, 5
"""How a special element is stored."""
DEFLATE = 4
CODERS = {1: "run lengths", 2: "N-bit", 3: "Huffman", 5: "szip"}
"""The codecs that Zarr lacks."""
ORDERS: dict[int, Order] = {1: ">", 4: "<"}
"""Byte orders by the class of a number type."""

FIELD_TYPES = {
    3: "u1", 4: "S1", 5: "f4", 6: "f8", 20: "i1", 21: "u1", 22: "i2", 23: "u2", 24: "i4", 25: "u4",
}  # fmt: skip
"""NumPy's data types by HDF4's codes."""
LITTLE_ENDIAN = 0x4000
"""What is added to a data type's code where it isn't big-endian."""


def dtype_of(code: int) -> np.dtype[np.generic]:
    """Return the data type with a code; an `IngestError` says that l2view knows none."""
    kind = FIELD_TYPES.get(code & ~LITTLE_ENDIAN)
    if kind is None:
        raise IngestError(f"its data type, {code} in HDF4's numbers, has no Zarr form")
    return np.dtype(f"{'<' if code & LITTLE_ENDIAN else '>'}{kind}")


class Extent(NamedTuple):
    """A range of bytes of the file."""

    offset: int
    length: int


@dataclass(frozen=True)
class Layout:
    """How the values of a dataset are stored.

    Attributes
    ----------
    chunk_shape
        That of all chunks, at the edges too.
    chunks
        The extents of those that are stored, by their place in the grid: of each one, or several.
    is_deflated
        Whether they are compressed.
    order
        Their byte order, ``"="`` for that of the machine.
    fill
        The bytes of the value that stands in the other ones, where a chunked element says it.
    """

    chunk_shape: tuple[int, ...]
    chunks: dict[tuple[int, ...], list[Extent]]
    is_deflated: bool
    order: Order
    fill: bytes = b""


class Group(NamedTuple):
    """A Vgroup, with the tags and reference numbers of its members."""

    ref: int
    name: str
    kind: str
    members: list[tuple[int, int]]


class Table(NamedTuple):
    """A Vdata: records of fields, the codes of their types and how many values each has.

    A record takes `width` bytes; `is_by_field`, all of a field stands before all of the next.
    """

    ref: int
    name: str
    kind: str
    records: int
    width: int
    is_by_field: bool
    fields: list[tuple[str, int, int]]


@dataclass(frozen=True)
class Elements:
    """The data elements of an open file."""

    file: BinaryIO
    size: int
    _extents: dict[tuple[int, int], Extent] = field(default_factory=dict)

    @classmethod
    def of(cls, file: BinaryIO) -> Elements:
        """Read the data descriptors; an `IngestError` says that they are broken."""
        elements = cls(file, file.seek(0, 2))
        dtype = np.dtype([("tag", ">u2"), ("ref", ">u2"), ("offset", ">i4"), ("length", ">i4")])
        block, visited = 4, set[int]()
        while block and block not in visited:
            visited.add(block)
            count, following = struct.unpack(">HI", elements.read_extent(Extent(block, 6)))
            rows = elements.read_extent(Extent(block + 6, count * dtype.itemsize))
            for tag, ref, offset, length in np.frombuffer(rows, dtype).tolist():
                if offset >= 0 and length >= 0:  # else it was never written
                    elements._extents.setdefault((tag, ref), Extent(offset, length))
            block = following
        return elements

    def read_extent(self, extent: Extent) -> bytes:
        """Read a range of bytes; an `IngestError` says that the file is cut off."""
        if extent.offset + extent.length > self.size:
            raise IngestError("the file ends before its bytes do")
        self.file.seek(extent.offset)
        return self.file.read(extent.length)

    def read_extents(self, extents: Iterable[Extent]) -> bytes:
        """Read ranges of bytes, one after another."""
        return b"".join(map(self.read_extent, extents))

    def _special(self, tag: int, ref: int) -> tuple[int, bytes]:
        """Return how an element is stored and its header, 0 and none where it isn't special."""
        extent = self._extents.get((tag | SPECIAL, ref))
        if extent is None:
            return 0, b""
        header = self.read_extent(extent)
        return int.from_bytes(header[:2]), header

    def extents(self, tag: int, ref: int) -> list[Extent]:
        """Return where an element's bytes lie: in one place, or in linked blocks."""
        kind, header = self._special(tag, ref)
        if not kind:
            return [self._extents[tag, ref]] if (tag, ref) in self._extents else []
        if kind == EXTERNAL:
            raise IngestError("its values lie in another file")
        if kind != LINKED:
            raise IngestError(f"its values are a special element of HDF4's kind {kind}")
        nbytes, _, count, table = struct.unpack_from(">iiiH", header, 2)
        refs: list[int] = []
        tables = {0}
        while table not in tables:
            tables.add(table)
            words = self.read_extent(self._extents[LINKED_BLOCK, table])
            table, *more = np.frombuffer(words, ">u2", count + 1).tolist()
            refs += more
        written = takewhile(lambda ref: (LINKED_BLOCK, ref) in self._extents, refs)
        return _first_bytes([self._extents[LINKED_BLOCK, ref] for ref in written], nbytes)

    def read(self, tag: int, ref: int) -> bytes:
        """Read an element that isn't compressed."""
        return self.read_extents(self.extents(tag, ref))

    @cached_property
    def groups(self) -> list[Group]:
        """The Vgroups."""
        return [self._group(ref) for tag, ref in self._extents if tag == GROUP]

    def _group(self, ref: int) -> Group:
        words = BytesIO(self.read(GROUP, ref))
        count = _take(words, "H")
        tags = [_take(words, "H") for _ in range(count)]
        members = [(tag, _take(words, "H")) for tag in tags]
        return Group(ref, _text(words), _text(words), members)

    @cached_property
    def tables(self) -> list[Table]:
        """The Vdatas."""
        return [self._table(ref) for tag, ref in self._extents if tag == TABLE_HEADER]

    def _table(self, ref: int) -> Table:
        words = BytesIO(self.read(TABLE_HEADER, ref))
        interlace, records, width, count = (_take(words, code) for code in "HiHH")
        codes, _, _, orders = ([_take(words, "H") for _ in range(count)] for _ in range(4))
        names = [_text(words) for _ in range(count)]
        fields = list(zip(names, codes, orders, strict=True))
        return Table(ref, _text(words), _text(words), records, width, interlace == 1, fields)

    def read_table(self, table: Table) -> dict[str, NDArray[Any]]:
        """Read a Vdata's fields, each of shape (records,), or (records, values) if it has more."""
        data, at = self.read(TABLE, table.ref) or bytes(table.width), 0
        if len(data) < table.records * table.width:
            raise IngestError("some of its bytes were never written")
        fields: dict[str, NDArray[Any]] = {}
        for name, code, count in table.fields:
            dtype, order = dtype_of(code), (count,) if count > 1 else ()
            dtype = np.dtype(f"S{count}") if dtype.kind == "S" else np.dtype((dtype, order))
            shape, step = (table.records, *dtype.shape), dtype.base.itemsize
            steps = (dtype.itemsize if table.is_by_field else table.width, step)[: len(shape)]
            values = np.ndarray(shape, dtype.base, data, at, steps)
            fields[name] = values.astype(dtype.base.newbyteorder("="), order="C")
            at += dtype.itemsize * (table.records if table.is_by_field else 1)
        return fields

    @property
    def raster_images(self) -> list[str]:
        """The names of raster images."""
        names = [group.name for group in self.groups if group.kind == "RI0.0"]
        return names or [f"raster_{ref}" for tag, ref in self._extents if tag == RASTER_IMAGE]

    @property
    def structures(self) -> dict[int, str]:
        """The names of HDF-EOS's swaths, grids and points by the references of their members."""
        groups = {group.ref: group for group in self.groups}
        return {
            member: structure.name
            for structure in self.groups
            if structure.kind in STRUCTURES
            for _, ref in structure.members
            if ref in groups
            for _, member in groups[ref].members
        }

    def dataset_tag(self, ref: int) -> int | None:
        """Return the tag of the dataset with a reference number, None where there is none."""
        return next((tag for tag in DATASETS if (tag, ref) in self._extents), None)

    def layout(self, ref: int, shape: tuple[int, ...], itemsize: int) -> Layout:
        """Return how the dataset with a reference number is stored.

        Raises
        ------
        IngestError
            Where its chunks can't be referred to, or its codec is none of Zarr's.
        """
        tag = self.dataset_tag(ref)
        if tag is None:
            raise IngestError("it has no descriptor of its own")
        pairs = np.frombuffer(self.read(tag, ref), ">u2").reshape(-1, 2).tolist()
        members = {tag & ~SPECIAL: ref for tag, ref in pairs}
        number_type = self.read(NUMBER_TYPE, members.get(NUMBER_TYPE, 0))
        order = ORDERS.get(number_type[3] & 0xF if number_type else 1)
        if order is None and itemsize > 1:
            raise IngestError(f"its numbers are those of another machine, {number_type[3]}")
        order = order or ">"
        values = members.get(DATASET_VALUES)
        if values is None:
            return Layout(shape, {}, False, order)
        kind, header = self._special(DATASET_VALUES, values)
        if kind == CHUNKED:
            return self._chunked(header, order, itemsize)
        extents, is_deflated = self._chunk(DATASET_VALUES, values, prod(shape) * itemsize)
        row = prod(shape[1:]) * itemsize
        nbytes = gcd(*(extent.length for extent in extents[:-1]))
        if is_deflated or len(extents) < 2 or nbytes % row:
            chunks = {(0,) * len(shape): extents} if extents else {}
            return Layout(shape, chunks, is_deflated, order)
        # As many records are a chunk as all blocks have a multiple of, but for the last.
        ranges = [
            [Extent(offset + at, nbytes)]
            for offset, length in extents
            for at in range(0, length, nbytes)
        ]
        if rest := extents[-1].length % nbytes:
            ranges[-1] = [Extent(ranges[-1][0].offset, rest), Extent(0, 0)]
        chunks = {(n, *(0 for _ in shape[1:])): extent for n, extent in enumerate(ranges)}
        return Layout((nbytes // row, *shape[1:]), chunks, is_deflated, order)

    def _chunked(self, header: bytes, order: Order, itemsize: int) -> Layout:
        words = BytesIO(header)
        table, _, _, rank = [_take(words, code) for code in "HiBiiiiHHHHi"][-4:]
        chunk_shape = tuple([_take(words, "i") for _ in range(3)][-1] for _ in range(rank))
        fill = words.read(_take(words, "i"))
        origins, tags, refs = self.read_table(self._table(table)).values()
        rows = zip(origins.reshape(-1, rank).tolist(), tags.tolist(), refs.tolist(), strict=True)
        chunks: dict[tuple[int, ...], list[Extent]] = {}
        deflated = set[bool]()
        for index, tag, ref in rows:
            extents, is_deflated = self._chunk(tag, ref, prod(chunk_shape) * itemsize)
            if extents:
                chunks[tuple(index)] = extents
                deflated.add(is_deflated)
        if len(deflated) > 1:
            raise IngestError("only some of its chunks are compressed")
        return Layout(chunk_shape, chunks, True in deflated, order, fill)

    def _chunk(self, tag: int, ref: int, nbytes: int) -> tuple[list[Extent], bool]:
        """Return where a chunk lies, nowhere if it isn't stored, and whether it is deflated."""
        kind, header = self._special(tag, ref)
        coder = 0
        if kind == CODED:
            ref, _, coder = struct.unpack_from(">HHH", header, 8)
            tag = COMPRESSED
            if coder not in (0, DEFLATE):
                name = CODERS.get(coder, f"HDF4's coder {coder}")
                raise IngestError(f"it is compressed by {name}, for which Zarr has no codec")
        extents = self.extents(tag, ref)
        if extents and coder != DEFLATE:
            extents = _first_bytes(extents, nbytes)
        if any(sum(extent) > self.size for extent in extents):
            raise IngestError("the file ends before its bytes do")
        return extents, coder == DEFLATE


def _first_bytes(extents: Iterable[Extent], nbytes: int) -> list[Extent]:
    """Return where the first bytes of ranges lie, those together that follow each other."""
    joined: list[Extent] = []
    for offset, length in extents:
        length = min(length, nbytes)
        nbytes -= length
        if joined and sum(joined[-1]) == offset:
            offset, length = joined[-1].offset, joined.pop().length + length
        if length:
            joined.append(Extent(offset, length))
    if nbytes:
        raise IngestError("some of its bytes were never written")
    return joined


def _take(words: BytesIO, code: str) -> int:
    """Return the next big-endian number of an element."""
    (value,) = struct.unpack(f">{code}", words.read(struct.calcsize(f">{code}")))
    return int(value)


def _text(words: BytesIO) -> str:
    return words.read(_take(words, "H")).decode("latin-1")

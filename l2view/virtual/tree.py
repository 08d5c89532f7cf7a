"""A view in which each granule is a group: what the data is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, partial

from zarr.abc.store import Store
from zarr.core.sync import sync

from l2view.arrays.cf import RELEVANT, zarr_attributes
from l2view.errors import MissingGranuleWarning, SkippedArrayWarning, UnsupportedArrayError, warn
from l2view.granules import Layout
from l2view.granules.reader import GranuleReader
from l2view.granules.table import GranuleTable
from l2view.limits import limits
from l2view.stores.composed import ChunkSource, resolve_chunk
from l2view.stores.hierarchy import JSON, OWN, group_document, join
from l2view.text import join_names
from l2view.virtual.attributes import array_attributes, group_attributes
from l2view.virtual.crop import Crop, CroppedChunk
from l2view.virtual.fields import FieldArray, field_arrays
from l2view.virtual.granules import Granules
from l2view.virtual.pickling import field_state


@dataclass(frozen=True, eq=False)
class Tree:
    """The granules as groups, and the fields as arrays of the root."""

    source: Store
    layout: Layout
    granules: Granules
    description: JSON  # the root's attribute ``l2view``
    # Globs for the arrays to show, see `is_shown`; None for all.
    variables: tuple[str, ...] | None = None
    field_attributes: Mapping[str, JSON] = field(default_factory=dict)  # of arrays of /meta
    crop: Crop | None = None  # what its arrays are cropped to

    __getstate__ = field_state

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Tree)
            and self.source == other.source
            and self.description == other.description
            and self.variables == other.variables
            and self.granules.table.equals(other.granules.table)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def tree(self) -> Tree:
        """Itself."""
        return self

    @cached_property
    def reader(self) -> GranuleReader:
        """What reads the arrays of the granules."""
        return GranuleReader(self.source, self.layout, self.granules)

    def head(self, count: int) -> Tree:
        """Return the tree of the first `count` granules."""
        granules = self.granules.head(count)
        description = {**self.description, "head": len(granules), "count": len(granules)}
        return replace(self, granules=granules, description=description)

    @cached_property
    def fields(self) -> dict[str, FieldArray]:
        """The root's arrays, by name."""
        return field_arrays(self.granules.table, self.field_attributes)

    @property
    def root(self) -> JSON:
        """The document of the root group."""
        return group_document({OWN: self.description})

    def sample_arrays(self) -> list[str]:
        """Return the paths of the first granule's arrays, shown or not."""
        locations = [self.granules.location(row) for row in range(min(len(self.granules), 1))]
        tables = sync(self.layout.tables(locations, frozenset()))
        return [path for table in tables for path in table.arrays]

    @property
    def members(self) -> int:
        """The number of nodes directly below the root."""
        return len(self.fields) + len(self.granules)

    def warn_on_open(self) -> None:
        """Warn of granules without arrays, and of variables that the first has none of.

        Of many granules only the first is looked at: each warns when it is asked for.
        """
        collection, total = self.description["collection"], len(self.granules)
        are_many = total > limits().checked_granules
        if total and not self.layout.fields:
            message = f"the granules of {collection} have no arrays: {self.layout.missing(())}"
            warn(message, MissingGranuleWarning)
            return
        if not total or (are_many and self.variables is None):
            return
        missing = sync(self._missing_rows(range(1 if are_many else total)))
        if missing and not are_many:
            locations = map(self.granules.location, missing)
            reasons = list(dict.fromkeys(map(self.layout.missing, locations)))
            shown = "; ".join(reasons[:3]) + ("; …" if len(reasons) > 3 else "")
            problem = self.granules.describe(missing, f"have no arrays in {collection}")
            warn(f"{problem}: {shown}", MissingGranuleWarning)
        paths = [] if self.variables is None or 0 in missing else self.sample_arrays()
        if paths and not any(map(self.shows, paths)):
            warn(
                f"no array of {self.granules.name(0)}, the first granule, matches "
                f"variables={list(self.variables or ())}; it has {join_names(paths)}",
                SkippedArrayWarning,
            )

    async def _missing_rows(self, rows: range) -> list[int]:
        """Return the rows of granules that have no group in the store."""
        locations = list(map(self.granules.location, rows))
        await self.layout.prefetch([(location, "") for location in locations])
        documents = [await self.layout.document(location, "") for location in locations]
        return [row for row, document in zip(rows, documents, strict=True) if document is None]

    async def load(self, path: str) -> None:
        """Read what finding the node or chunk at `path` takes: names and fields."""
        await self.granules.load()

    async def document(self, path: str) -> JSON | None:
        """Return the Zarr v3 document of the node at `path`, None where there is none."""
        await self.granules.load()
        if not path:
            return self.root
        name, _, inner = path.partition("/")
        if name in self.fields:
            return self.fields[name].document if not inner else None
        row = self.granules.row(name)
        if row is None:
            return None
        try:
            document = await self.layout.document(self.granules.location(row), inner)
        except UnsupportedArrayError as error:
            warn(f"{path} is left out: {error}", SkippedArrayWarning)
            return None
        if document is None:
            return None if inner else self._missing_group(row, name)
        attributes = document.get("attributes") or {}
        if document["node_type"] == "array":
            if not self.shows(inner):
                return None
            if self.crop is not None:
                array = await self.crop.array(self.reader, row, inner, document)
                document = document if array is None else array.document
            attributes = zarr_attributes(attributes, document["data_type"])
            attributes = array_attributes(attributes, self.granules.attributes(row))
        elif not inner:
            attributes = group_attributes(attributes, self.granules.attributes(row))
        return {**document, "attributes": attributes}

    def _missing_group(self, row: int, name: str) -> JSON:
        """Return the document of a granule that has no group in the store."""
        reason = self.layout.missing(self.granules.location(row))
        if self.layout.fields:  # else no granule has one, and the view has warned of it
            collection = self.description["collection"]
            warn(
                f"the granule {name} has no arrays in {collection}: {reason}", MissingGranuleWarning
            )
        attributes = {**self.granules.attributes(row), OWN: {"missing": reason}}
        return group_document(attributes)

    async def documents(self, paths: Sequence[str]) -> list[JSON | None]:
        """Return the documents of the nodes at `paths`, reading them together."""
        await self.granules.load()
        rows = [(row, inner) for row, inner in map(self._locate, paths) if row is not None]
        await self.layout.prefetch([(self.granules.location(row), inner) for row, inner in rows])
        return [await self.document(path) for path in paths]

    def _locate(self, path: str) -> tuple[int | None, str]:
        """Return the row of the granule that `path` is in, and the path below it."""
        name, _, inner = path.partition("/")
        return self.granules.row(name), inner

    async def tables(self, relevant: frozenset[str] = RELEVANT) -> list[GranuleTable]:
        """Describe the granules' arrays profile by profile, with the granules' locations.

        Nodes are told apart by the `relevant` attributes.
        """
        locations = [self.granules.location(row) for row in range(len(self.granules))]
        tables = await self.layout.tables(locations, relevant)
        if self.crop is not None:
            tables = [await self.crop.crop_table(self.reader, each) for each in tables]
        return [replace(t, locations=[locations[row] for row in t.rows.tolist()]) for t in tables]

    def shows(self, path: str) -> bool:
        """Return whether the array at `path` below a granule is among the variables."""
        return is_shown(path, self.variables)

    async def names(self, path: str) -> list[str]:
        """Return the names of the nodes directly below the group at `path`."""
        await self.granules.load()
        if not path:
            return [*self.fields, *self.granules.names.to_pylist()]
        row, inner = self._locate(path)
        if row is None:
            return []
        children = await self.layout.children(self.granules.location(row), inner)
        if self.variables is None:
            return children
        documents = await asyncio.gather(*(self.document(join(path, child)) for child in children))
        return [child for child, node in zip(children, documents, strict=True) if node]

    def find(self, key: str) -> ChunkSource:
        """Return where the chunk at `key` comes from."""
        name, _, inner = key.partition("/")
        if name in self.fields:
            return self.fields[name].chunk_at(inner)
        row = self.granules.row(name) if inner else None
        if row is None:
            return None
        if self.crop is not None:
            return CroppedChunk(partial(self.crop.find, self.reader, row, inner))
        return self.reader.chunk(row, inner)

    async def source_path(self, path: str) -> str | None:
        """Return where the array at `path` lies in the source store, None where it does not.

        Packed arrays hold chunks of other granules too, and cropped ones are others.
        """
        row, inner = self._locate(path)
        if row is None or self.crop is not None:
            return None
        key = await resolve_chunk(self.reader.chunk(row, inner))
        return key if isinstance(key, str) else None


def is_shown(path: str, variables: Sequence[str] | None) -> bool:
    """Return whether the array at `path` below a granule is among the `variables`.

    A glob with a slash is matched with the path, one without with the name.

    Examples
    --------
    >>> is_shown("data_01/ku/swh", ["s*"]), is_shown("data_01/ku/swh", ["data_20/*"])
    (True, False)
    """
    if variables is None:
        return True
    name = path.rpartition("/")[2]
    return any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in variables)

"""A collection as it is searched: the granules that a query finds, as rows and as a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from l2view.errors import FieldError, L2ViewWarning, warn
from l2view.granules import Layout
from l2view.meta.schema import ROW
from l2view.search.parameters import as_texts
from l2view.search.query import Query, view_attributes
from l2view.search.result import SearchResult, find_rows
from l2view.search.table import MetaTable
from l2view.stores.hierarchy import META
from l2view.stores.open import Source, SourceOptions, require_authorization
from l2view.text import join_names, unknown_name
from l2view.virtual.granules import Granules, group_names
from l2view.virtual.tree import Tree


@dataclass(frozen=True)
class CollectionSearch:
    """Finds the granules of a collection."""

    source: Source
    options: SourceOptions
    table: MetaTable
    layout: Layout

    def select_fields(self, fields: Sequence[str] | str | None) -> list[str]:
        """Return the names of fields, all by default, without ``idx``."""
        names = as_texts("fields", fields)
        if names is None:
            return list(self.table.fields)
        for name in names:
            if name not in self.table.fields and name != ROW:
                raise FieldError(unknown_name("field", name, self.table.fields))
        return [name for name in dict.fromkeys(names) if name != ROW]

    def with_fields(self, query: Query) -> Query:
        """Return a query that looks at the collection's fields of footprints and times."""
        return replace(
            query,
            geometry_field=query.geometry_field or self.options.geometry_field,
            time_field=query.time_field or self.options.time_field,
        )

    def find(self, query: Query, names: Sequence[str] = ()) -> SearchResult:
        """Find the rows that answer a query, of which `names` are read next."""
        result = find_rows(self.table, self.with_fields(query), names)
        if query.ids is not None and query.limit is None and query.conditions == {"ids"}:
            present = set(result.take(["id"]).column(0).to_pylist())
            if absent := [str(id) for id in dict.fromkeys(query.ids) if id not in present]:
                warn(f"no granule has the id {join_names(absent)}", L2ViewWarning)
        return result

    def tree(
        self,
        query: Query,
        names: list[str],
        globs: tuple[str, ...] | None = None,
        *,
        later: bool = False,
    ) -> Tree:
        """Return the granules that a query finds; their fields are read `later` where they can."""
        require_authorization(self.source)
        query, fields = self.with_fields(query), self.table.fields
        locating = [name for name in ("id", *self.layout.fields) if name in fields]
        meta = self.table if self.source.snapshot is not None else None
        later = later and meta is not None
        read = list(dict.fromkeys([*(() if later else names), *locating]))
        rows = self.find(query, read).take([ROW, *read])
        ids = rows.column("id") if "id" in fields else None
        titles = group_names(rows.column(ROW), ids, {ROW, *names})
        table, numbers = None if later else rows.select([ROW, *names]), rows.column(ROW).to_numpy()
        locations = rows.select(list(self.layout.fields))
        description = view_attributes(query, self.source, names, len(rows), globs)
        if self.options.group != META:
            description["group"] = self.options.group
        if self.options.location is not None:
            description["location"] = self.options.location
        return Tree(
            source=self.source.store,
            layout=self.layout,
            granules=Granules(table, titles, locations, meta, names, numbers),
            description=description,
            variables=globs,
            field_attributes={name: fields[name].attributes for name in names},
        )

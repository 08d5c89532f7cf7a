"""A collection: a store, its ``/meta`` and the layout of its granules, tied together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import icechunk
import numpy as np
import pyarrow as pa
from datafusion import DataFrame
from numpy.typing import NDArray
from zarr.core.sync import sync

from l2view.cells.scan import MAX_CELLS
from l2view.display.plot import plot_footprints
from l2view.display.summary import Summary, spread_rows, summarize_collection
from l2view.errors import FieldError, IngestError, QueryError, SkippedFieldWarning, warn
from l2view.granules.layouts import open_layout
from l2view.index.commands import Index, build_indexes
from l2view.index.indexes import Indexes
from l2view.ingest.writer import delete_granules
from l2view.limits import limits
from l2view.meta.chunks import Tally
from l2view.meta.schema import ROW, fields_of
from l2view.scan.dataset import TableDataset
from l2view.search.parameters import as_texts
from l2view.search.place import geometry_field
from l2view.search.query import Query, as_query
from l2view.search.result import SearchCost, find_rows
from l2view.search.table import MetaTable
from l2view.search.time import ENDS, STARTS, time_field
from l2view.sql.access import AllowStores
from l2view.sql.session import SqlSession
from l2view.stores.hierarchy import META, Hierarchy
from l2view.stores.open import Authorize, SourceOptions, StoreLike, open_source
from l2view.stores.repository import find_repository
from l2view.text import unknown_name
from l2view.view import View
from l2view.virtual.join_plan import plan_join
from l2view.virtual.join_shape import EncodingName, JoinOptions, RaggedName, ShapeName
from l2view.virtual.search import CollectionSearch
from l2view.virtual.store import ViewStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Collection:
    """Granules that can be searched with SQL.

    Parameters
    ----------
    store
        An Icechunk repository, session or store; a Zarr store or group; an obstore store; a
        path; a URL.
    branch, tag, snapshot
        Which state of an Icechunk repository to search, the branch ``main`` by default.
    group
        The group with the fields.
    location
        The field with the paths of the granules' groups or arrays; by default the first of
        ``group_path``, ``array_location``, ``path`` and ``id``.
    geometry_field
        The field with footprints (WKB or WKT, EPSG:4326); by default ``bbox`` or ``geometry``.
    time_field
        The field with times; by default the first of ``datetime``, ``date``,
        ``start_datetime`` and ``time``.
    authorize
        Which virtual chunk containers of a repository may be read: a list of URL prefixes, a
        mapping from prefix to credentials (Icechunk's, or ``"env"`` for the environment's),
        True for all that the repository lists, False for none.

    Raises
    ------
    StoreError
        Where there is no store, or it is no collection.
    FieldError
        Where the fields differ in length, or a named field isn't there.
    """

    def __init__(
        self,
        store: StoreLike,
        *,
        branch: str | None = None,
        tag: str | None = None,
        snapshot: str | None = None,
        group: str = "meta",
        location: str | None = None,
        geometry_field: str | None = None,
        time_field: str | None = None,
        authorize: Authorize | None = None,
    ) -> None:
        self._store = store
        self._options = options = SourceOptions(
            branch, tag, snapshot, group.strip("/"), location, geometry_field, time_field, authorize
        )
        source = open_source(store, options)
        hierarchy = Hierarchy(source.store, source.path)
        columns, skipped = sync(fields_of(hierarchy, options.group, source.label, geometry_field))
        if skipped:
            reasons = "; ".join(f'"{name}": {why}' for name, why in skipped.items())
            warn(f"left out of the table meta: {reasons}", SkippedFieldWarning)
        fields = {field.name: field for field in columns}
        for named in (geometry_field, time_field):
            if named is not None and named not in fields:
                raise FieldError(unknown_name("field", named, fields))
        layout = open_layout(hierarchy, tuple(fields), location, source.label)
        indexes = None  # those of a store are of its group ``meta``
        if options.group == META:
            indexes = Indexes(hierarchy, fixed=source.snapshot is not None)
        self.table = MetaTable(source.store, fields, source.snapshot, indexes)
        """The table ``meta``, as searches read it."""
        self._search = CollectionSearch(source, options, self.table, layout)

    @classmethod
    def of(cls, store: StoreLike, options: SourceOptions) -> Self:
        """Open a collection as `options` say."""
        return cls(store, **vars(options))

    @property
    def meta(self) -> TableDataset:
        """The table ``meta`` as a `pyarrow.dataset.Dataset`, for DuckDB, Polars and others."""
        return TableDataset(self.table)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the table ``meta``."""
        return self.table.schema

    @property
    def label(self) -> str:
        """What a person calls the store."""
        return self._search.source.label

    @property
    def snapshot(self) -> str | None:
        """The Icechunk snapshot that is searched, None where there is none."""
        return self._search.source.snapshot

    @property
    def geometry_fields(self) -> tuple[str, ...]:
        """The fields of footprints, the one that a search by place looks at first."""
        names = [field.name for field in self.table.fields.values() if field.geometry is not None]
        if self._options.geometry_field is not None:
            names.insert(0, self._options.geometry_field)
        return tuple(dict.fromkeys(names))

    @property
    def time_fields(self) -> tuple[str, ...]:
        """The fields that a search by time looks at, none where there is no time."""
        try:
            name = time_field(self.schema, self._options.time_field)
        except FieldError:
            return ()
        names = (STARTS.get(name), name, ENDS.get(name))
        return tuple(name for name in names if name is not None and name in self.table.fields)

    def __len__(self) -> int:
        """Return the number of granules."""
        return self.table.rows

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary().to_html()

    def summary(self) -> Summary:
        """Return what the collection holds, as text and footprints."""
        return summarize_collection(self.label, self.snapshot, self.table, self.time_fields)

    def search(
        self,
        where: str | Query | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        bbox: Sequence[float] | str | None = None,
        intersects: Any = None,
        datetime: Any = None,
        ids: Iterable[Any] | None = None,
        fields: Sequence[str] | str | None = None,
        order_by: str | Sequence[str] | None = None,
        limit: int | None = None,
    ) -> pa.Table:
        """Find granules and return their rows, without their arrays.

        The parameters and errors are those of `l2view.open`.

        Returns
        -------
        pyarrow.Table
            The row number ``idx`` and the fields, one row a granule.
        """
        names = self._search.select_fields(fields)
        query = as_query(where, params, bbox, intersects, datetime, ids, order_by, limit)
        return self._search.find(query, names).take([ROW, *names])

    def sql(
        self,
        query: str,
        params: Mapping[str, Any] | None = None,
        tables: Mapping[str, Any] | None = None,
        *,
        allow_stores: AllowStores = False,
        max_cells: int = MAX_CELLS,
    ) -> DataFrame:
        """Run an SQL query over the table ``meta`` and the store's arrays.

        Beside ``meta`` there are the table functions ``zarr_groups()``, ``zarr_arrays()``,
        ``zarr_chunks()`` and ``zarr_cells('array/path')`` of the store itself, and
        ``cells('red', where => …, bbox => …)``, the cells of a variable of the granules that a
        search finds, with their fields.

        The parameters are those of `l2view.sql`.

        Returns
        -------
        datafusion.DataFrame
            It runs when it is asked for rows: by ``to_arrow_table()``, ``to_pandas()``,
            ``to_polars()``, ``show()``. What indexes tell of it, how many rows have each value
            of a field, and which come first, is found out before.

        Raises
        ------
        QueryError, FieldError
            Where the query isn't valid, or would do more than read.
        """
        session = self.session(tables, allow_stores=allow_stores, max_cells=max_cells)
        return session.run(query, params)

    def session(
        self,
        tables: Mapping[str, Any] | None = None,
        *,
        allow_stores: AllowStores = False,
        max_cells: int = MAX_CELLS,
    ) -> SqlSession:
        """Return a DataFusion session with the tables that `sql` has."""
        source = self._search.source
        return SqlSession(self.table, tables, source, self._search, allow_stores, max_cells)

    def open(
        self,
        where: str | Query | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        bbox: Sequence[float] | str | None = None,
        intersects: Any = None,
        datetime: Any = None,
        ids: Iterable[Any] | None = None,
        fields: Sequence[str] | str | None = None,
        variables: Sequence[str] | str | None = None,
        order_by: str | Sequence[str] | None = None,
        limit: int | None = None,
        layout: ShapeName = "tree",
        dim: str | None = None,
        encoding: EncodingName = "keep",
        ragged: RaggedName = "error",
    ) -> View:
        """Find granules and return them as a Zarr group, as `l2view.open` does."""
        joining = JoinOptions.of(layout, dim, encoding, ragged)
        query = as_query(where, params, bbox, intersects, datetime, ids, order_by, limit)
        names = self._search.select_fields(fields)
        tree = self._search.tree(query, names, as_texts("variables", variables))
        if joining is not None:
            return View.of(ViewStore(plan_join(tree, joining)))
        tree.warn_on_open()
        return View.of(ViewStore(tree))

    def explain(
        self,
        where: str | Query | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        bbox: Sequence[float] | str | None = None,
        intersects: Any = None,
        datetime: Any = None,
        ids: Iterable[Any] | None = None,
        fields: Sequence[str] | str | None = None,
        order_by: str | Sequence[str] | None = None,
        limit: int | None = None,
    ) -> SearchCost:
        """Search, and return what it cost instead of what was found.

        The parameters are those of `search`.
        """
        names = self._search.select_fields(fields)
        query = as_query(where, params, bbox, intersects, datetime, ids, order_by, limit)
        tally, start = Tally(), time.perf_counter()
        table = replace(self.table, tally=tally)
        rows = find_rows(table, self._search.with_fields(query), names).take([ROW, *names])
        return SearchCost(len(self), len(rows), tally, time.perf_counter() - start)

    def delete(
        self,
        where: str | Query | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        bbox: Sequence[float] | str | None = None,
        intersects: Any = None,
        datetime: Any = None,
        ids: Iterable[Any] | None = None,
        order_by: str | Sequence[str] | None = None,
        limit: int | None = None,
    ) -> int:
        """Delete granules in one commit: no search finds them any more, but the past has them.

        This collection goes on showing the state that it was opened on.

        The parameters are those of `search`; all granules are ``where="true"``.

        Returns
        -------
        int
            How many there were.

        Raises
        ------
        QueryError
            Where no condition says which granules.
        IngestError
            Where the store is no Icechunk repository, or its state can't be added to: that of a
            tag or snapshot, or of a group other than ``meta``.
        """
        query = as_query(where, params, bbox, intersects, datetime, ids, order_by, limit)
        if not query.conditions:
            raise QueryError(
                "name the granules to delete: where=, bbox=, intersects=, datetime= or ids=; all "
                "are where='true'"
            )
        self._require_branch("granules are deleted from")
        repository = find_repository(self._store)
        if repository is None:
            raise IngestError(f"{self.label} is no Icechunk repository, which deleting takes")
        options = replace(self._options, branch=None, authorize=None)

        def find(session: icechunk.Session) -> NDArray[np.int64]:
            return Collection.of(session, options)._search.find(query).rows

        return delete_granules(repository, find, self._options.branch or "main")

    def index(
        self,
        fields: Sequence[str] | str | None = None,
        *,
        drop: bool = False,
        progress: Callable[[Index, int, int], None] = lambda index, rows, total: None,
    ) -> tuple[str, ...]:
        """Make indexes, by which searches read less; or drop them.

        They go into the store, in commits of their own. This collection goes on showing the
        state that it was opened on.

        Parameters
        ----------
        fields
            Of which fields: footprints get an R-tree, others a sorted index. By default zone
            maps of all fields, the R-trees of all footprints, and the sorted index of ``id``.
        drop
            Whether they are dropped instead.
        progress
            Called with an index, the rows that it covers so far, and how many there are.

        Returns
        -------
        tuple of str
            What was made or dropped, for people.

        Raises
        ------
        FieldError
            Where there is no such field, or it has no order.
        IngestError, StoreError
            Where the store can't be written to.
        """
        self._require_branch("indexes are made on")
        indexes = build_indexes(
            self._store,
            as_texts("fields", fields),
            drop=drop,
            branch=self._options.branch or "main",
            geometry_field=self._options.geometry_field,
            progress=progress,
        )
        return tuple(map(str, indexes))

    def _require_branch(self, purpose: str) -> None:
        """Raise where the collection is a past state, or not the one that is written to."""
        if {"tag", "snapshot"} & self._options.state.keys() or self._options.group != META:
            raise IngestError(
                f"{purpose} a branch and its group {META}; open the collection without tag=, "
                "snapshot= and group="
            )

    def plot(
        self,
        column: str | None = None,
        ax: Axes | None = None,
        *,
        figsize: tuple[float, float] = (9, 5),
        **style: Any,
    ) -> Axes:
        """Draw the footprints of the collection on a map with coastlines.

        The parameters are those of `View.plot`.
        """
        name = geometry_field(self.schema, self._options.geometry_field)
        names = [name] if column is None else [name, *self._search.select_fields(column)]
        rows = spread_rows(self.table.rows, limits().drawn_outlines)
        table = self.table.take(rows, list(dict.fromkeys(names)))
        total = self.table.rows
        return plot_footprints(table, column, ax, figsize=figsize, total=total, **style)

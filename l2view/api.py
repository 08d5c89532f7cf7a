"""The three questions one can ask a store in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from datafusion import DataFrame
from zarr.core.sync import sync

from l2view.cells.scan import MAX_CELLS
from l2view.collection import Collection
from l2view.errors import FieldError, L2ViewWarning, NotACollectionError, warn
from l2view.search.query import Query, as_query
from l2view.search.table import MetaTable
from l2view.sql.access import AllowStores
from l2view.sql.session import SqlSession
from l2view.stores.hierarchy import Hierarchy
from l2view.stores.open import Authorize, SourceOptions, StoreLike, open_source
from l2view.view import View
from l2view.virtual.join_shape import EncodingName, RaggedName, ShapeName

if TYPE_CHECKING:
    from l2view.granules.layouts import StorageName
    from l2view.ingest.executors import Parallel
    from l2view.ingest.formats import Parser
    from l2view.ingest.grouping import GranuleOf
    from l2view.ingest.harvest import Harvester
    from l2view.ingest.options import OnConflict
    from l2view.ingest.report import IngestReport


def open(
    store: StoreLike,
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
    branch: str | None = None,
    tag: str | None = None,
    snapshot: str | None = None,
    group: str = "meta",
    location: str | None = None,
    geometry_field: str | None = None,
    time_field: str | None = None,
    authorize: Authorize | None = None,
) -> View:
    """Find granules and return them as a Zarr group.

    Parameters
    ----------
    store
        An Icechunk repository, session or store; a Zarr store or group; an obstore store; a
        path; a URL.
    where
        One SQL boolean expression in DataFusion's dialect, with the ``ST_*`` functions; or a
        `Query`, which has all conditions, the order and the limit.
    params
        Values for its ``$name`` placeholders.
    bbox
        West, south, east, north in degrees (EPSG:4326); west > east crosses the antimeridian.
    intersects
        A geometry in EPSG:4326: shapely, GeoJSON or WKT.
    datetime
        A STAC interval: ``"2025-06"``, ``"2025-06-01/.."``, datetimes, or a pair of them.
    ids
        Values of the field ``id``.
    fields
        The fields to carry along, all by default.
    variables
        Globs for the arrays to show, all by default. One without a slash is matched with an
        array's name, one with a slash with its path below the granule.
    order_by
        SQL sort expressions, such as ``"cloud_cover DESC"``; ties keep the order of the rows.
    limit
        The most granules.
    layout
        ``"tree"``: each granule is a group. ``"stack"``: granules are joined along a new first
        dimension. ``"concat"``: granules are concatenated along one of their dimensions.
    dim
        For a stack, the name of the new dimension: a field, which becomes its coordinate
        (``granule`` by default). For a concatenation, a dimension of the arrays.
    encoding
        For granules with different encodings: ``"keep"`` is an error that names them,
        ``"unify"`` joins them in one harmonised encoding.
    ragged
        For granules with different shapes: ``"error"``, or ``"pad"``, which pads with the fill
        value.
    branch, tag, snapshot, group, location, geometry_field, time_field, authorize
        Which state of a repository to search, which of its fields locate granules, and which
        virtual chunk containers may be read; as for `Collection`.

    Returns
    -------
    View
        A `zarr.Group`; empty where nothing was found.

    Raises
    ------
    StoreError
        Where there is no store, or it is no collection.
    AuthorizationError
        Where the repository's virtual chunks may not be read yet.
    QueryError, FieldError
        Where the search can't be asked of this collection.
    ShapeError
        Where the granules found can't be joined so.
    """
    source = SourceOptions(
        branch, tag, snapshot, group, location, geometry_field, time_field, authorize
    )
    query = as_query(where, params, bbox, intersects, datetime, ids, order_by, limit)
    return Collection.of(store, source).open(
        query,
        fields=fields,
        variables=variables,
        layout=layout,
        dim=dim,
        encoding=encoding,
        ragged=ragged,
    )


def search(
    store: StoreLike,
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
    branch: str | None = None,
    tag: str | None = None,
    snapshot: str | None = None,
    group: str = "meta",
    location: str | None = None,
    geometry_field: str | None = None,
    time_field: str | None = None,
    authorize: Authorize | None = None,
) -> pa.Table:
    """Find granules and return their rows, without their arrays.

    The parameters are those of `open`; no array is read, so nothing has to be authorised.

    Returns
    -------
    pyarrow.Table
        The row number ``idx`` and the fields, one row a granule.
    """
    source = SourceOptions(
        branch, tag, snapshot, group, location, geometry_field, time_field, authorize
    )
    query = as_query(where, params, bbox, intersects, datetime, ids, order_by, limit)
    return Collection.of(store, source).search(query, fields=fields)


def sql(
    store: StoreLike,
    query: str,
    params: Mapping[str, Any] | None = None,
    tables: Mapping[str, Any] | None = None,
    *,
    branch: str | None = None,
    tag: str | None = None,
    snapshot: str | None = None,
    group: str = "meta",
    location: str | None = None,
    geometry_field: str | None = None,
    time_field: str | None = None,
    authorize: Authorize | None = None,
    allow_stores: AllowStores = False,
    max_cells: int = MAX_CELLS,
) -> DataFrame:
    """Run an SQL query over the table ``meta`` of a collection, and over its arrays.

    Beside ``meta`` there are the table functions of `Collection.sql`. The store may be any that
    Zarr reads: of one that is no collection there are ``zarr_groups()``, ``zarr_arrays()``,
    ``zarr_chunks()`` and ``zarr_cells('array/path')``.

    Parameters
    ----------
    store, branch, tag, snapshot, group, location, geometry_field, time_field, authorize
        As for `open`; only cells need an authorisation.
    query
        One statement that reads, in DataFusion's dialect, with the ``ST_*`` functions.
    params
        Values for its ``$name`` placeholders.
    tables
        Tables of your own to join with, by name: whatever speaks Arrow.
    allow_stores
        Which other stores the table functions may read: none, True for all, or those at and below
        some paths and URLs.
    max_cells
        A query that goes through more cells is an error.

    Returns
    -------
    datafusion.DataFrame
        Not run yet: ``to_arrow_table()``, ``to_pandas()``, ``to_polars()``, ``show()`` do.
    """
    source = SourceOptions(
        branch, tag, snapshot, group, location, geometry_field, time_field, authorize
    )
    session = open_session(store, source, tables, allow_stores=allow_stores, max_cells=max_cells)
    return session.run(query, params)


def open_session(
    store: StoreLike,
    options: SourceOptions = SourceOptions(),
    tables: Mapping[str, Any] | None = None,
    *,
    allow_stores: AllowStores = False,
    max_cells: int = MAX_CELLS,
) -> SqlSession:
    """Return the session of a collection, or of another store that Zarr reads (see `sql`)."""
    try:
        collection = Collection.of(store, options)
        return collection.session(tables, allow_stores=allow_stores, max_cells=max_cells)
    except (NotACollectionError, FieldError) as error:
        named = replace(options, branch=None, tag=None, snapshot=None, authorize=None)
        source = open_source(store, options)
        is_zarr = sync(Hierarchy(source.store, source.path).document("")) is not None
        # Whoever names a group or field means a collection.
        if named != SourceOptions() or not is_zarr:
            raise
        if isinstance(error, FieldError):
            warn(f"there is no table meta: {error}", L2ViewWarning)
    table = MetaTable(source.store, {})
    return SqlSession(table, tables, source, None, allow_stores, max_cells)


def ingest(
    granules: Any,
    store: Any,
    *,
    on_conflict: OnConflict = "skip",
    granule_of: GranuleOf | str | None = None,
    harvest: Harvester | None = None,
    parser: Parser | None = None,
    collection: str | None = None,
    defaults: Mapping[str, Any] | None = None,
    require: Sequence[str] = (),
    parallel: Parallel = False,
    batch: int = 1_000,
    strict: bool = False,
    branch: str = "main",
    storage: StorageName | None = None,
    inline_threshold: int = 2**20,
    check: bool = True,
    dry_run: bool = False,
    progress: bool | Callable[[IngestReport], None] = False,
    report: str | PathLike[str] | None = None,
) -> IngestReport:
    """Add granules to a collection, without copying their data.

    Parameters
    ----------
    granules
        A path or URL of a file, folder, prefix or glob; a STAC Item, ItemCollection or search;
        a CMR record; or an iterable of them, of any length.
    store
        A path or URL, where a repository is made if there is none; or an Icechunk repository.
    on_conflict
        What becomes of a granule whose id is there already: ``"skip"`` leaves it as it is,
        ``"replace"`` takes the new one in its place, ``"error"`` counts it as failed.
    granule_of
        Which files are one granule: called with a file's URL, it returns the granule's id, or that
        and the file's name in it. Or a regular expression (see `l2view.ingest.grouping`). Folders
        of Sentinels (``.SEN3``, ``.SAFE``) and Landsat's scenes are granules without it.
    harvest
        Your own fields: called with each of a granule's files as a `zarr.Group` and its URL, it
        returns fields, which win over all others. A ``bbox`` is (west, south, east, north) in
        degrees, WKT, GeoJSON, WKB or a geometry of shapely's.
    parser
        A VirtualiZarr parser for all files, instead of telling each by its content.
    collection
        The field ``collection``, which wins over what STAC and CMR say.
    defaults
        Fields of granules that don't say, such as ``datetime`` and ``bbox`` (as in `harvest`).
    require
        Fields without which a granule is left out, such as ``datetime`` and ``bbox``; others are
        NULL where a granule doesn't say.
    parallel
        How files are parsed: False one after another, a number of processes, True for one a
        processor, ``"threads"``, ``"dask"``, ``"lithops"``, or an executor. What processes run
        must pickle.
    batch
        The granules in a commit.
    strict
        Whether the first granule that fails is an error.
    branch
        The branch to commit to.
    storage
        Where the arrays go: ``"packed"``, by product version, or ``"groups"``, a group for each
        granule, which is not for many; as in the collection by default, and packed in a new one.
    inline_threshold
        The most bytes of an array that are copied where they can't be referred to, such as
        strings of varying length. An array with more is left out and stands in the report.
    check
        Whether a chunk of each array of a new product version is decoded, where it has at most 32
        MiB. An array that can't be decoded is left out and stands in the report.
    dry_run
        Whether to parse all and write nothing; the report then says which fields there are.
    progress
        True for a bar; or what is called with the report as granules come in.
    report
        A JSON file for what became of every granule, and why; written as they go in.

    Returns
    -------
    IngestReport
        What became of each. Granules that fail are left out whole, and the rest go on.

    Raises
    ------
    IngestError
        Where the store can't be written to, or a granule fails with `strict`.
    """
    # Whoever only searches doesn't wait for VirtualiZarr to load.
    from l2view.ingest.options import IngestOptions, ParseOptions
    from l2view.ingest.pipeline import run_ingest

    require = [require] if isinstance(require, str) else require
    parsing = ParseOptions(
        parser, harvest, collection, dict(defaults or {}), tuple(require), inline_threshold, check
    )
    options = IngestOptions(
        parsing, on_conflict, parallel, batch, strict, branch, storage, dry_run, progress
    )
    options = replace(options, report=report, granule_of=granule_of)
    return run_ingest(granules, store, options)

"""The three questions one can ask a store in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from datafusion import DataFrame

from l2view.collection import Collection
from l2view.stores import Authorize, StoreLike
from l2view.view.group import View


def open(
    store: StoreLike,
    where: str | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    bbox: Sequence[float] | None = None,
    intersects: Any = None,
    datetime: Any = None,
    ids: Iterable[Any] | None = None,
    fields: Sequence[str] | str | None = None,
    variables: Sequence[str] | str | None = None,
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
) -> View:
    """Find granules and return them as a Zarr group.

    Parameters
    ----------
    store
        An Icechunk repository, session or store; a Zarr store or group; an obstore store; a
        path; a URL.
    where
        One SQL boolean expression in DataFusion's dialect, with the ``ST_*`` functions.
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
        Globs for the arrays to show, all by default.
    order_by
        SQL sort expressions, such as ``"cloud_cover DESC"``.
    limit
        The most granules.
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
        Which virtual chunk containers may be read; see `Collection`.

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
    """
    collection = Collection(
        store,
        branch=branch,
        tag=tag,
        snapshot=snapshot,
        group=group,
        location=location,
        geometry_field=geometry_field,
        time_field=time_field,
        authorize=authorize,
    )
    return collection.open(
        where,
        params=params,
        bbox=bbox,
        intersects=intersects,
        datetime=datetime,
        ids=ids,
        fields=fields,
        variables=variables,
        order_by=order_by,
        limit=limit,
    )


def search(
    store: StoreLike,
    where: str | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    bbox: Sequence[float] | None = None,
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
    collection = Collection(
        store,
        branch=branch,
        tag=tag,
        snapshot=snapshot,
        group=group,
        location=location,
        geometry_field=geometry_field,
        time_field=time_field,
        authorize=authorize,
    )
    return collection.search(
        where,
        params=params,
        bbox=bbox,
        intersects=intersects,
        datetime=datetime,
        ids=ids,
        fields=fields,
        order_by=order_by,
        limit=limit,
    )


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
    geometry_field: str | None = None,
    authorize: Authorize | None = None,
) -> DataFrame:
    """Run an SQL query over the table ``meta`` of a collection.

    Parameters
    ----------
    store, branch, tag, snapshot, group, geometry_field, authorize
        As for `open`; no array is read, so nothing has to be authorised.
    query
        One statement that reads, in DataFusion's dialect, with the ``ST_*`` functions.
    params
        Values for its ``$name`` placeholders.
    tables
        Tables of your own to join with, by name: whatever speaks Arrow.

    Returns
    -------
    datafusion.DataFrame
        Not run yet: ``to_arrow_table()``, ``to_pandas()``, ``to_polars()``, ``show()`` do.
    """
    collection = Collection(
        store,
        branch=branch,
        tag=tag,
        snapshot=snapshot,
        group=group,
        geometry_field=geometry_field,
        authorize=authorize,
    )
    return collection.sql(query, params, tables)

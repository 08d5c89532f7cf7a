"""DataFusion's sessions and plans, with functions of SQL that it lacks or has slower."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import geodatafusion
import pyarrow as pa
import shapely
from datafusion import Expr, SessionConfig, SessionContext, col, udf

from l2view.meta.footprints import read_geometries
from l2view.scan.dataset import BATCH_ROWS

TABLE = "meta"  # the name of the table in SQL

SUBQUERY = re.compile("<subquery>|Subquery:")
"""How a plan's text shows a subquery within an expression, which is no part of the plan that can
be gone through."""

RANDOM = re.compile(r"\b(random|uuid)\(\)")  # functions that answer otherwise each time


def column(name: str) -> Expr:
    """Return the column called exactly `name`."""
    return col('"' + name.replace('"', '""') + '"')


def _within_distance(left: pa.Array, right: pa.Array, distance: pa.Array) -> pa.Array:
    shapes = (read_geometries(column) for column in (left, right))
    is_within = shapely.dwithin(*shapes, distance.to_numpy(zero_copy_only=False))
    missing = left.is_null().to_numpy(False) | right.is_null().to_numpy(False)
    return pa.array(is_within, mask=missing | distance.is_null().to_numpy(False))


def _from_text(texts: pa.Array) -> pa.Array:
    shapes = shapely.from_wkt(texts.to_numpy(zero_copy_only=False))
    return pa.array(shapely.to_wkb(shapes), pa.binary())


FUNCTIONS = (
    # ST_DWithin(geometry, geometry, distance) of PostGIS, in degrees.
    udf(
        _within_distance,
        [pa.binary(), pa.binary(), pa.float64()],
        pa.bool_(),
        "immutable",
        "st_dwithin",
    ),
    # ST_GeomFromText(text), as WKB: geodatafusion's is a union of all types of geometries, which
    # a plan takes milliseconds to copy each time that it is looked at.
    udf(_from_text, [pa.string()], pa.binary(), "immutable", "st_geomfromtext"),
)


def plain_context(partitions: int | None = None) -> SessionContext:
    """Return a session of DataFusion alone."""
    # Rows come through Python: in many small batches that would take longer than the query.
    config = SessionConfig().with_batch_size(BATCH_ROWS)
    return SessionContext(
        config if partitions is None else config.with_target_partitions(partitions)
    )


def geo_context(partitions: int | None = None) -> SessionContext:
    """Return a session with the ``ST_*`` functions."""
    context = plain_context(partitions)
    geodatafusion.register_all(context)
    for function in FUNCTIONS:
        context.register_udf(function)
    return context


def kind(node: Any) -> str:
    """Return the kind of a plan's node: ``TableScan``, ``Filter``, …."""
    return type(node).__name__


def plan_nodes(plan: Any) -> list[Any]:
    """Return the nodes of a plan from its root, as far as each has one input.

    There are none where one of them has a subquery, or answers otherwise each time.
    """
    text = plan.display_indent()
    return [] if SUBQUERY.search(text) or RANDOM.search(text) else list(_down(plan))


def _down(plan: Any) -> Iterator[Any]:
    yield plan.to_variant()
    inputs = plan.inputs()
    if len(inputs) == 1:
        yield from _down(inputs[0])


def renames_columns(projection: Any) -> bool:
    """Tell if a projection computes or renames a column."""
    return any(term.variant_name() != "Column" for term in projection.projections())


def value(literal: Expr) -> Any:
    """Return the value of a literal, None of any other expression."""
    if literal.variant_name() != "Literal":
        return None
    constant = literal.python_value()
    return constant.as_py() if isinstance(constant, pa.Scalar) else constant

"""What a planned query asks of the rows, as far as indexes can answer it beforehand.

Only conditions that every row of the answer fulfils count: those that stand in an AND. Each gives
rows that may fulfil it, and DataFusion then asks all conditions of those.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import shapely
from datafusion import DataFrame, Expr, SessionContext
from shapely.errors import ShapelyError

from l2view.meta.candidates import EVERY, Candidates
from l2view.meta.chunks import Chunks
from l2view.meta.dataset import MetaDataset
from l2view.meta.rtree import Box

MEETING = frozenset(
    f"st_{name}"
    for name in (
        "intersects",
        "within",
        "contains",
        "covers",
        "coveredby",
        "touches",
        "crosses",
        "overlaps",
        "equals",
    )
)
"""Functions that are true only of geometries whose rectangles meet."""

WITHIN = "st_dwithin"
"""The function that is true of geometries at most so far apart."""

DISTANCE = "st_distance"
"""The function that tells how far apart geometries are."""

PARTS = 64
"""The most parts of a geometry that are looked for one by one."""


def candidates(
    context: SessionContext, frame: DataFrame, table: str, meta: MetaDataset
) -> Candidates:
    """Return the rows of `meta` that a query may find.

    Parameters
    ----------
    context
        The session, with the ``ST_*`` functions.
    frame
        The query, planned.
    table
        The name under which it knows `meta`.
    meta
        The table of granules.
    """
    chunks = Chunks(meta.store, meta.snapshot, meta.tally)
    found = EVERY
    for condition in conditions(frame, table):
        near = _near(context, condition, meta)
        if near is None:
            continue
        name, boxes = near
        field = meta.fields[name]
        tree = None if meta.indexes is None else meta.indexes.tree(field, chunks)
        some = None if tree is None else tree.candidates(chunks, boxes)
        found = found.both(some or Candidates(near={name: (boxes,)}))
    return found


def conditions(frame: DataFrame, table: str) -> list[Expr]:
    """Return the conditions that a query has for the rows of one table, combined with AND.

    None where the query scans the table more than once, or in ways that aren't known here.
    """
    scans = list(_scans(frame.optimized_logical_plan(), table, []))
    if len(scans) != 1:
        return []
    return [part for one in scans[0] for part in _parts(one)]


def _scans(plan: Any, table: str, above: list[Expr]) -> Iterator[list[Expr]]:
    """Yield the conditions of each scan of a table: its own and those right above it."""
    node = plan.to_variant()
    kind = type(node).__name__
    if kind == "TableScan":
        if node.table_name() == table:
            yield [*above, *node.filters()]
        return
    if kind == "Filter":
        above = [*above, node.predicate()]
    elif kind not in ("Projection", "SubqueryAlias") or (kind == "Projection" and _renames(node)):
        above = []
    for inner in plan.inputs():
        yield from _scans(inner, table, above)


def _renames(projection: Any) -> bool:
    """Return whether a projection shows anything but columns under their own names."""
    return any(one.variant_name() != "Column" for one in projection.projections())


def _parts(condition: Expr) -> Iterator[Expr]:
    """Yield the conditions that an AND combines."""
    if condition.variant_name() == "BinaryExpr" and condition.rex_call_operator() == "AND":
        for operand in condition.rex_call_operands():
            yield from _parts(operand)
    else:
        yield condition


def _near(
    context: SessionContext, condition: Expr, meta: MetaDataset
) -> tuple[str, tuple[Box, ...]] | None:
    """Return a field of footprints, and rectangles of which each must meet one.

    None where the condition is no function of a footprint and a geometry that is always the same.
    """
    margin: Any = 0.0
    if condition.variant_name() == "BinaryExpr" and condition.rex_call_operator() in ("<", "<="):
        condition, most = condition.rex_call_operands()
        if _function(condition) != DISTANCE:
            return None
        margin = _value(most)
    elif _function(condition) == WITHIN:
        margin = _value(condition.rex_call_operands()[2])
    elif _function(condition) not in MEETING:
        return None
    if not isinstance(margin, int | float) or not 0 <= margin < math.inf:
        return None
    one, other = condition.rex_call_operands()[:2]
    if one.variant_name() != "Column":
        one, other = other, one
    if one.variant_name() != "Column":
        return None
    name = one.to_variant().name()
    field = meta.fields.get(name)
    if field is None or field.geometry is None:
        return None
    shape = _constant(context, other)
    if shape is None:
        return None
    parts = shapely.get_parts(shape)
    if len(parts) > PARTS:
        parts = [shape]
    boxes = []
    for part in parts:
        west, south, east, north = shapely.bounds(part).tolist()
        if not west <= east:  # which is so of nothing, and of what isn't finite
            return None
        boxes.append((west - margin, south - margin, east + margin, north + margin))
    return name, tuple(boxes)


def _function(expression: Expr) -> str | None:
    """Return the name of the function that an expression calls, None where it calls none."""
    called = expression.variant_name() == "ScalarFunction"
    return expression.rex_call_operator() if called else None


def _value(expression: Expr) -> Any:
    if expression.variant_name() != "Literal":
        return None
    value = expression.python_value()
    return value.as_py() if isinstance(value, pa.Scalar) else value


def _constant(context: SessionContext, expression: Expr) -> shapely.Geometry | None:
    """Return a geometry that is the same for all rows, None where it isn't or can't be told."""
    if expression.variant_name() != "Literal":
        return None
    value = expression.python_value()
    kind = value.type if isinstance(value, pa.Scalar) else None
    try:
        if kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            return shapely.from_wkb(value.as_py())
        if kind is not None and pa.types.is_string(kind):
            return shapely.from_wkt(value.as_py())
        one = context.from_pydict({"one": [1]})
        table = one.select(
            context.udf("st_asbinary")(Expr(expression)).alias("wkb")
        ).to_arrow_table()
        return shapely.from_wkb(table.column("wkb")[0].as_py())
    except (ShapelyError, TypeError):
        return None
    except Exception:  # DataFusion raises bare Exceptions, of a literal that is no geometry
        return None

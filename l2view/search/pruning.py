"""What a planned query asks of the rows, as far as indexes can answer it beforehand.

Only conditions that every row of the answer fulfils count: those that stand in an AND. Each gives
rows that may fulfil it, and DataFusion then asks all conditions of those.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from datafusion import DataFrame, Expr, SessionContext

from l2view.index.candidates import EVERY, Candidates
from l2view.index.rtree import Box
from l2view.index.sorted import Span, point_spans
from l2view.index.trees import COVERINGS
from l2view.meta.schema import Field
from l2view.search.logical_plan import SUBQUERY, kind, value
from l2view.search.table import MetaTable

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

INTERSECTS = "st_intersects"
"""The function that is true of geometries with a point in common."""

WITHIN = "st_dwithin"
"""The function that is true of geometries at most so far apart."""

DISTANCE = "st_distance"
"""The function that tells how far apart geometries are."""

COMPARISONS: dict[str, Callable[[pa.Scalar], Span]] = {
    "=": lambda value: Span(value, value),
    "<": lambda value: Span(high=value, with_high=False),
    "<=": lambda value: Span(high=value),
    ">": lambda value: Span(low=value, with_low=False),
    ">=": lambda value: Span(low=value),
}
"""The values that a comparison with one leaves."""

FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
"""Comparisons, the other way round."""

ROUNDING = 1e-12
"""How much of a sum of doubles may be lost, at most."""

PARTS = 64
"""The most parts of a geometry that are looked for one by one."""


@dataclass(frozen=True)
class Conditions:
    """Conditions that all hold for the rows of an answer.

    Attributes
    ----------
    parts
        The conditions.
    whole
        Whether the answer is of all rows for which they hold.
    """

    parts: tuple[Expr, ...]
    whole: bool

    def and_(self, *more: Expr) -> Conditions:
        """Return these conditions and others."""
        parts = [part for condition in more for part in _split_and(condition)]
        return replace(self, parts=(*self.parts, *parts))


NO_CONDITIONS = Conditions((), False)


@dataclass(frozen=True)
class BboxTest:
    """A condition of place.

    Attributes
    ----------
    field
        The footprints.
    boxes
        Rectangles of which a footprint must meet one.
    filled
        Whether a footprint that lies in one of them certainly fulfils the condition.
    """

    field: str
    boxes: tuple[Box, ...]
    filled: bool


def find_candidates(
    context: SessionContext, frame: DataFrame, table: str, meta: MetaTable
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
    chunks = meta.chunks()
    ordered: dict[str, list[Span]] = {}
    near: list[BboxTest] = []
    asked = conditions(frame, table)
    for condition in asked.parts:
        if (compared := _comparison_spans(condition, meta)) is not None:
            name, spans = compared
            ordered[name] = _intersect_spans(ordered[name], spans) if name in ordered else spans
        elif (place := _bbox_test(context, condition, meta)) is not None:
            near.append(place)
    found = Candidates(bbox_tests=_group_by_field(near))
    if meta.indexes is None:
        return found
    boxed = any(ordered.keys() >= {*names} for names in COVERINGS)
    outlines = [one for one in meta.fields.values() if one.geometry is not None and boxed]
    wanted = {*ordered, *(one.field for one in near), *(one.name for one in outlines)}
    meta.indexes.prefetch([meta.fields[name] for name in wanted], meta.tally)
    for field in outlines:
        tree = meta.indexes.tree(field)
        box = None if tree is None else _covering_box(tree.covering, ordered)
        if tree is not None and box is not None:
            some = tree.candidates(chunks, [box], with_covering=True)
            found = found if some is None else found.intersect(some)
    for one in near:
        tree = meta.indexes.tree(meta.fields[one.field])
        some = None if tree is None else tree.candidates(chunks, one.boxes, filled=one.filled)
        found = found if some is None else found.intersect(some)
    for name, spans in ordered.items():
        some = meta.indexes.rows_with_values(meta.fields[name], spans, chunks)
        found = found if some is None else found.intersect(some)
    if asked.whole and len(near) == len(asked.parts) == len(found.pruned_by):
        return found
    return replace(found, certain=found.certain[:0])


def _covering_box(covering: Sequence[str], ordered: Mapping[str, list[Span]]) -> Box | None:
    """Return a rectangle that footprints meet where the fields with their bounds lie in spans.

    None where nothing bounds it on all four sides.
    """
    if not covering or not all(ordered.get(name) for name in covering):
        return None
    xmin, ymin, xmax, ymax = (ordered[name] for name in covering)
    ends = [[one.low for one in spans] for spans in (xmax, ymax)]
    ends += [[one.high for one in spans] for spans in (xmin, ymin)]
    values = [[math.nan if end is None else end.as_py() for end in some] for some in ends]
    box = (min(values[0]), min(values[1]), max(values[2]), max(values[3]))
    return None if any(math.isnan(value) for some in values for value in some) else box


def _group_by_field(near: list[BboxTest]) -> dict[str, tuple[tuple[Box, ...], ...]]:
    """Return rectangles by the field that must meet them."""
    return {
        one.field: tuple(other.boxes for other in near if other.field == one.field) for one in near
    }


def with_values(meta: MetaTable, name: str, values: pa.Array) -> Candidates:
    """Return the rows that may have one of some values of a field."""
    some = None
    if meta.indexes is not None and name in meta.fields:
        chunks = meta.chunks()
        found = values.drop_null().unique().sort()
        some = meta.indexes.rows_with_values(meta.fields[name], point_spans(list(found)), chunks)
    return EVERY if some is None else some


def conditions(frame: DataFrame, table: str) -> Conditions:
    """Return the conditions that a query has for the rows of one table.

    There are none where the query scans the table more than once: what one scan needn't see,
    another may.
    """
    plan = frame.optimized_logical_plan()
    if SUBQUERY.search(plan.display_indent()):
        return NO_CONDITIONS
    scans = list(_scans(plan, table, Conditions((), True)))
    return scans[0] if len(scans) == 1 else NO_CONDITIONS


def _scans(plan: Any, table: str, above: Conditions) -> Iterator[Conditions]:
    """Yield the conditions of each scan of a table: its own and those right above it."""
    node = plan.to_variant()
    step = kind(node)
    if step == "TableScan":
        if node.fqn()[-1] == table:  # of whatever schema
            yield above.and_(*node.filters())
        return
    if step == "Filter":
        above = above.and_(node.predicate())
    elif step not in ("Projection", "SubqueryAlias") or (
        step == "Projection" and _renames_columns(node)
    ):
        above = NO_CONDITIONS
    for inner in plan.inputs():
        yield from _scans(inner, table, above)


def _renames_columns(projection: Any) -> bool:
    """Return whether a projection shows anything but columns under their own names."""
    return any(one.variant_name() != "Column" for one in projection.projections())


def _split_and(condition: Expr) -> Iterator[Expr]:
    """Yield the conditions that an AND combines."""
    if condition.variant_name() == "BinaryExpr" and condition.rex_call_operator() == "AND":
        for operand in condition.rex_call_operands():
            yield from _split_and(operand)
    else:
        yield condition


def _comparison_spans(condition: Expr, meta: MetaTable) -> tuple[str, list[Span]] | None:
    """Return a field, and the spans of its values in one of which a row's must lie.

    None where the condition is no comparison of a field with what is always the same.
    """
    form = condition.variant_name()
    if form == "InList":
        if condition.to_variant().negated():
            return None
        subject, *options = condition.rex_call_operands()
        pairs = [(subject, "=", option) for option in options]
    elif form == "BinaryExpr" and condition.rex_call_operator() == "OR":
        pairs = []
        for part in _split_or(condition):
            if part.variant_name() != "BinaryExpr" or part.rex_call_operator() != "=":
                return None
            one, other = part.rex_call_operands()
            pairs.append((one, "=", other))
    elif form == "BinaryExpr":
        one, other = condition.rex_call_operands()
        pairs = [(one, condition.rex_call_operator(), other)]
    elif form == "Like":
        return _like_spans(condition, meta)
    else:
        return None
    spans, names = [], set()
    for one, operator, other in pairs:
        if one.variant_name() == "Literal":
            one, other, operator = other, one, FLIPPED.get(operator, operator)
        if one.variant_name() != "Column" or operator not in COMPARISONS:
            return None
        name = one.to_variant().name()
        said = _field_literal(other, meta.fields.get(name))
        if said is None:
            return None
        names.add(name)
        spans.append(COMPARISONS[operator](said))
    if len(names) != 1:
        return None
    return names.pop(), list(dict.fromkeys(spans))  # a value may be named twice


def _split_or(condition: Expr) -> Iterator[Expr]:
    """Yield the conditions that an OR combines."""
    if condition.variant_name() == "BinaryExpr" and condition.rex_call_operator() == "OR":
        for operand in condition.rex_call_operands():
            yield from _split_or(operand)
    else:
        yield condition


def _like_spans(condition: Expr, meta: MetaTable) -> tuple[str, list[Span]] | None:
    """Return a field, and the span of texts that begin as a LIKE says."""
    like = condition.to_variant()
    column, pattern = like.expr(), like.pattern()
    # ILIKE is a LIKE too, which only its text tells.
    if not condition.canonical_name().startswith(f"{column.canonical_name()} LIKE "):
        return None
    if like.negated() or like.escape_char() or column.variant_name() != "Column":
        return None
    name = column.to_variant().name()
    text = _field_literal(pattern, meta.fields.get(name))
    if text is None or not pa.types.is_string(text.type) or "\\" in text.as_py():
        return None
    begins = re.split("[%_]", text.as_py(), maxsplit=1)[0]
    if not begins or ord(begins[-1]) in (0xD7FF, 0x10FFFF):
        return None
    after = pa.scalar(begins[:-1] + chr(ord(begins[-1]) + 1), text.type)
    return name, [Span(pa.scalar(begins, text.type), after, with_high=False)]


def _field_literal(expression: Expr, field: Field | None) -> pa.Scalar | None:
    """Return a literal as a value of a field, None where it can't be one of its values."""
    if field is None or field.geometry is not None or expression.variant_name() != "Literal":
        return None
    value = expression.python_value()
    if not isinstance(value, pa.Scalar) or not value.is_valid:
        return None
    if value.type != field.type:
        return None
    if pa.types.is_floating(value.type) and math.isnan(value.as_py()):
        return None
    return value


def _intersect_spans(one: list[Span], other: list[Span]) -> list[Span]:
    """Return the spans of values that lie in one of each."""
    pairs = (_intersect(a, b) for a in one for b in other)
    return [span for span in pairs if span is not None]


def _intersect(one: Span, other: Span) -> Span | None:
    """Return the values that lie in both of two spans, None where there are none."""
    low, with_low = one.low, one.with_low
    if other.low is not None:
        if low is None or pc.greater(other.low, low).as_py():
            low, with_low = other.low, other.with_low
        elif pc.equal(other.low, low).as_py():
            with_low = with_low and other.with_low
    high, with_high = one.high, one.with_high
    if other.high is not None:
        if high is None or pc.less(other.high, high).as_py():
            high, with_high = other.high, other.with_high
        elif pc.equal(other.high, high).as_py():
            with_high = with_high and other.with_high
    if low is not None and high is not None:
        if pc.greater(low, high).as_py():
            return None
        if pc.equal(low, high).as_py() and not (with_low and with_high):
            return None
    return Span(low, high, with_low, with_high)


def _bbox_test(context: SessionContext, condition: Expr, meta: MetaTable) -> BboxTest | None:
    """Return what a condition asks of where footprints are.

    None where it is no function of a footprint and a geometry that is always the same.
    """
    margin: Any = 0.0
    if condition.variant_name() == "BinaryExpr" and condition.rex_call_operator() in ("<", "<="):
        condition, most = condition.rex_call_operands()
        if _function_name(condition) != DISTANCE:
            return None
        margin = value(most)
    elif _function_name(condition) == WITHIN:
        margin = value(condition.rex_call_operands()[2])
    elif _function_name(condition) not in MEETING:
        return None
    if not isinstance(margin, int | float) or not 0 <= margin < math.inf:
        return None
    function = _function_name(condition)
    one, other = condition.rex_call_operands()[:2]
    if one.variant_name() != "Column":
        one, other = other, one
    if one.variant_name() != "Column":
        return None
    name = one.to_variant().name()
    field = meta.fields.get(name)
    if field is None or field.geometry is None:
        return None
    shape = _constant_geometry(context, other)
    if shape is None:
        return None
    parts = shapely.get_parts(shape)
    if len(parts) > PARTS:
        parts = [shape]
    if margin:  # by more than rounding can take away
        margin += ROUNDING * (1 + margin + float(np.abs(shapely.get_coordinates(shape)).max()))
    boxes = []
    for part in parts:
        west, south, east, north = shapely.bounds(part).tolist()
        if not west <= east:  # which is so of nothing, and of what isn't finite
            return None
        boxes.append((west - margin, south - margin, east + margin, north + margin))
    # What lies in a rectangle meets it, whatever its shape.
    filled = not margin and function == INTERSECTS and all(map(_is_rectangle, parts))
    return BboxTest(name, tuple(boxes), filled)


def _is_rectangle(shape: shapely.Geometry) -> bool:
    """Return whether a geometry is all of the rectangle around it."""
    return bool(
        shapely.get_type_id(shape) == shapely.GeometryType.POLYGON
        and shapely.get_num_coordinates(shape) == 5
        and shapely.equals(shape, shapely.envelope(shape))
    )


def _function_name(expression: Expr) -> str | None:
    """Return the name of the function that an expression calls, None where it calls none."""
    called = expression.variant_name() == "ScalarFunction"
    return expression.rex_call_operator() if called else None


def _constant_geometry(context: SessionContext, expression: Expr) -> shapely.Geometry | None:
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
    except Exception:  # of a literal that is no geometry, which the query itself will say
        return None

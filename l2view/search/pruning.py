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

MAX_BOXES = 64
"""Geometries of more parts are tested by one bounding box."""


@dataclass(frozen=True)
class Conditions:
    """Conditions that all hold for the rows of an answer.

    Attributes
    ----------
    conjuncts
        The conditions that an AND combines.
    complete
        Whether the answer has every row for which they hold.
    """

    conjuncts: tuple[Expr, ...]
    complete: bool

    def and_(self, *more: Expr) -> Conditions:
        """Add further conditions."""
        added = [conjunct for condition in more for conjunct in _split_and(condition)]
        return replace(self, conjuncts=(*self.conjuncts, *added))


NO_CONDITIONS = Conditions((), False)


@dataclass(frozen=True)
class BboxTest:
    """A condition of place.

    Attributes
    ----------
    field
        The footprints.
    boxes
        Rectangles; a footprint must meet at least one.
    filled
        Whether a footprint that lies in one of them certainly fulfils the condition.
    """

    field: str
    boxes: tuple[Box, ...]
    filled: bool


def find_candidates(
    context: SessionContext, frame: DataFrame, table: str, meta: MetaTable
) -> Candidates:
    """Find the rows of `meta` that may answer a query.

    Parameters
    ----------
    context
        The session, with the ``ST_*`` functions.
    frame
        The query, planned.
    table
        The name of `meta` in the query.
    meta
        The table of granules.
    """
    chunks = meta.chunks()
    spans_by_field: dict[str, list[Span]] = {}
    bbox_tests: list[BboxTest] = []
    required = conditions(frame, table)
    for condition in required.conjuncts:
        if (comparison := _comparison_spans(condition, meta)) is not None:
            name, spans = comparison
            spans_by_field[name] = (
                _intersect_spans(spans_by_field[name], spans) if name in spans_by_field else spans
            )
        elif (bbox_test := _bbox_test(context, condition, meta)) is not None:
            bbox_tests.append(bbox_test)
    candidates = Candidates(bbox_tests=_group_by_field(bbox_tests))
    if meta.indexes is None:
        return candidates
    has_bounds = any(spans_by_field.keys() >= {*names} for names in COVERINGS)
    footprints = [
        field for field in meta.fields.values() if field.geometry is not None and has_bounds
    ]
    searched_fields = {
        *spans_by_field,
        *(test.field for test in bbox_tests),
        *(field.name for field in footprints),
    }
    meta.indexes.prefetch([meta.fields[name] for name in searched_fields], meta.tally)
    for field in footprints:
        tree = meta.indexes.tree(field)
        box = None if tree is None else _covering_box(tree.covering, spans_by_field)
        if tree is not None and box is not None:
            matches = tree.candidates(chunks, [box], with_covering=True)
            candidates = candidates if matches is None else candidates.intersect(matches)
    for test in bbox_tests:
        tree = meta.indexes.tree(meta.fields[test.field])
        matches = None if tree is None else tree.candidates(chunks, test.boxes, filled=test.filled)
        candidates = candidates if matches is None else candidates.intersect(matches)
    for name, spans in spans_by_field.items():
        matches = meta.indexes.rows_with_values(meta.fields[name], spans, chunks)
        candidates = candidates if matches is None else candidates.intersect(matches)
    if required.complete and len(bbox_tests) == len(required.conjuncts) == len(
        candidates.pruned_by
    ):
        return candidates
    return replace(candidates, certain=candidates.certain[:0])


def _covering_box(covering: Sequence[str], spans_by_field: Mapping[str, list[Span]]) -> Box | None:
    """Return a rectangle that footprints meet if the fields of their bounds lie in these spans.

    None where a side is unbounded.
    """
    if not covering or not all(spans_by_field.get(name) for name in covering):
        return None
    xmin, ymin, xmax, ymax = (spans_by_field[name] for name in covering)
    bounds = [[span.low for span in spans] for spans in (xmax, ymax)]
    bounds += [[span.high for span in spans] for spans in (xmin, ymin)]
    values = [[math.nan if bound is None else bound.as_py() for bound in side] for side in bounds]
    box = (min(values[0]), min(values[1]), max(values[2]), max(values[3]))
    return None if any(math.isnan(value) for side in values for value in side) else box


def _group_by_field(tests: list[BboxTest]) -> dict[str, tuple[tuple[Box, ...], ...]]:
    """Group the rectangles of tests by field."""
    names = dict.fromkeys(test.field for test in tests)
    return {name: tuple(test.boxes for test in tests if test.field == name) for name in names}


def with_values(meta: MetaTable, name: str, values: pa.Array) -> Candidates:
    """Return the rows that may have one of some values of a field."""
    if meta.indexes is None or name not in meta.fields:
        return EVERY
    spans = point_spans(list(values.drop_null().unique().sort()))
    candidates = meta.indexes.rows_with_values(meta.fields[name], spans, meta.chunks())
    return EVERY if candidates is None else candidates


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
    """Tell if a projection computes or renames a column."""
    return any(term.variant_name() != "Column" for term in projection.projections())


def _split_and(condition: Expr) -> Iterator[Expr]:
    """Yield the conditions that an AND combines."""
    if condition.variant_name() == "BinaryExpr" and condition.rex_call_operator() == "AND":
        for operand in condition.rex_call_operands():
            yield from _split_and(operand)
    else:
        yield condition


def _comparison_spans(condition: Expr, meta: MetaTable) -> tuple[str, list[Span]] | None:
    """Return the field that a condition compares with constants, and the spans of its values.

    None where the condition is no such comparison.
    """
    form = condition.variant_name()
    if form == "InList":
        if condition.to_variant().negated():
            return None
        subject, *options = condition.rex_call_operands()
        comparisons = [(subject, "=", option) for option in options]
    elif form == "BinaryExpr" and condition.rex_call_operator() == "OR":
        comparisons = []
        for disjunct in _split_or(condition):
            if disjunct.variant_name() != "BinaryExpr" or disjunct.rex_call_operator() != "=":
                return None
            left, right = disjunct.rex_call_operands()
            comparisons.append((left, "=", right))
    elif form == "BinaryExpr":
        left, right = condition.rex_call_operands()
        comparisons = [(left, condition.rex_call_operator(), right)]
    elif form == "Like":
        return _like_spans(condition, meta)
    else:
        return None
    spans, names = [], set()
    for subject, operator, literal in comparisons:
        if subject.variant_name() == "Literal":
            subject, literal, operator = literal, subject, FLIPPED.get(operator, operator)
        if subject.variant_name() != "Column" or operator not in COMPARISONS:
            return None
        name = subject.to_variant().name()
        constant = _field_literal(literal, meta.fields.get(name))
        if constant is None:
            return None
        names.add(name)
        spans.append(COMPARISONS[operator](constant))
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
    """Return the field and the span of texts of a LIKE with a constant prefix."""
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
    prefix = re.split("[%_]", text.as_py(), maxsplit=1)[0]
    if not prefix or ord(prefix[-1]) in (0xD7FF, 0x10FFFF):
        return None
    after = pa.scalar(prefix[:-1] + chr(ord(prefix[-1]) + 1), text.type)
    return name, [Span(pa.scalar(prefix, text.type), after, with_high=False)]


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


def _intersect_spans(spans: list[Span], others: list[Span]) -> list[Span]:
    """Intersect two lists of spans, each a union."""
    pairs = (_intersect(a, b) for a in spans for b in others)
    return [span for span in pairs if span is not None]


def _intersect(a: Span, b: Span) -> Span | None:
    """Intersect two spans; None where no value lies in both."""
    low, with_low = a.low, a.with_low
    if b.low is not None:
        if low is None or pc.greater(b.low, low).as_py():
            low, with_low = b.low, b.with_low
        elif pc.equal(b.low, low).as_py():
            with_low = with_low and b.with_low
    high, with_high = a.high, a.with_high
    if b.high is not None:
        if high is None or pc.less(b.high, high).as_py():
            high, with_high = b.high, b.with_high
        elif pc.equal(b.high, high).as_py():
            with_high = with_high and b.with_high
    if low is not None and high is not None:
        if pc.greater(low, high).as_py():
            return None
        if pc.equal(low, high).as_py() and not (with_low and with_high):
            return None
    return Span(low, high, with_low, with_high)


def _bbox_test(context: SessionContext, condition: Expr, meta: MetaTable) -> BboxTest | None:
    """Return the test of bounding boxes that a condition implies.

    None where it is no function of a footprint and a constant geometry.
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
    footprint, target = condition.rex_call_operands()[:2]
    if footprint.variant_name() != "Column":
        footprint, target = target, footprint
    if footprint.variant_name() != "Column":
        return None
    name = footprint.to_variant().name()
    field = meta.fields.get(name)
    if field is None or field.geometry is None:
        return None
    shape = _constant_geometry(context, target)
    if shape is None:
        return None
    components = shapely.get_parts(shape)
    if len(components) > MAX_BOXES:
        components = [shape]
    if margin:  # by more than rounding can take away
        margin += ROUNDING * (1 + margin + float(np.abs(shapely.get_coordinates(shape)).max()))
    boxes = []
    for component in components:
        west, south, east, north = shapely.bounds(component).tolist()
        if not west <= east:  # which is so of nothing, and of what isn't finite
            return None
        boxes.append((west - margin, south - margin, east + margin, north + margin))
    # What lies in a rectangle meets it, whatever its shape.
    filled = not margin and function == INTERSECTS and all(map(_is_rectangle, components))
    return BboxTest(name, tuple(boxes), filled)


def _is_rectangle(shape: shapely.Geometry) -> bool:
    """Tell if a geometry fills its bounding box."""
    return bool(
        shapely.get_type_id(shape) == shapely.GeometryType.POLYGON
        and shapely.get_num_coordinates(shape) == 5
        and shapely.equals(shape, shapely.envelope(shape))
    )


def _function_name(expression: Expr) -> str | None:
    """Return the name of the function in a call, None of any other expression."""
    called = expression.variant_name() == "ScalarFunction"
    return expression.rex_call_operator() if called else None


def _constant_geometry(context: SessionContext, expression: Expr) -> shapely.Geometry | None:
    """Return the geometry of a literal, None of any other expression."""
    if expression.variant_name() != "Literal":
        return None
    value = expression.python_value()
    kind = value.type if isinstance(value, pa.Scalar) else None
    try:
        if kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            return shapely.from_wkb(value.as_py())
        if kind is not None and pa.types.is_string(kind):
            return shapely.from_wkt(value.as_py())
        single_row = context.from_pydict({"row": [0]})
        wkb = context.udf("st_asbinary")(Expr(expression)).alias("wkb")
        table = single_row.select(wkb).to_arrow_table()
        return shapely.from_wkb(table.column("wkb")[0].as_py())
    except Exception:  # of a literal that is no geometry, which the query itself will say
        return None

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
from datafusion import Expr, SessionContext

from l2view.index.candidates import EVERY, Candidates
from l2view.index.rtree import Box
from l2view.index.sorted import Span, read_sorted
from l2view.index.trees import COVERINGS, read_trees
from l2view.meta.schema import Field
from l2view.search.context import SUBQUERY, TABLE, kind, renames_columns, value
from l2view.search.table import MetaTable

INTERSECTS, WITHIN, DISTANCE = "st_intersects", "st_dwithin", "st_distance"
"""Functions that are true of geometries with a point in common, or at most so far apart, and the
one that tells how far apart they are."""

MEETING = {
    INTERSECTS,
    "st_within",
    "st_contains",
    "st_covers",
    "st_coveredby",
    "st_touches",
    "st_crosses",
    "st_overlaps",
    "st_equals",
}
"""Functions that are true only of geometries whose rectangles meet."""

COMPARISONS: dict[str, Callable[[pa.Array], Span]] = {
    "=": Span.of_values,
    "<": lambda value: Span(high=value, with_high=False),
    "<=": lambda value: Span(high=value),
    ">": lambda value: Span(low=value, with_low=False),
    ">=": lambda value: Span(low=value),
}
"""The values that a comparison leaves of those on its left."""

ROUNDING = 1e-12  # how much of a sum of doubles may be lost, at most
MAX_BOXES = 64  # geometries of more parts are tested by one bounding box


@dataclass(frozen=True)
class BboxTest:
    """A condition of place."""

    field: str  # the footprints
    boxes: tuple[Box, ...]  # rectangles; a footprint must meet at least one
    filled: bool  # whether a footprint that lies in one of them certainly fulfils the condition


def find_candidates(context: SessionContext, plan: Any, meta: MetaTable) -> Candidates:
    """Find the rows of ``meta`` that may answer a query, by its optimised logical plan."""
    spans: dict[str, list[Span]] = {}
    tests: list[BboxTest] = []
    boxes: dict[str, tuple[tuple[Box, ...], ...]] = {}
    conjuncts, complete = _conditions(plan)
    for condition in conjuncts:
        if (comparison := _comparison(condition, meta)) is not None:
            name, span = comparison
            spans.setdefault(name, []).append(span)
        elif (test := _bbox_test(context, condition, meta)) is not None:
            tests.append(test)
            boxes[test.field] = (*boxes.get(test.field, ()), test.boxes)
    candidates = Candidates(bbox_tests=boxes)
    if meta.indexes is None:
        return candidates
    for matches in _index_matches(meta, spans, tests):
        candidates = candidates if matches is None else candidates.intersect(matches)
    if complete and len(tests) == len(conjuncts) == len(candidates.pruned_by):
        return candidates
    return replace(candidates, certain=candidates.certain[:0])


def _index_matches(
    meta: MetaTable, spans: Mapping[str, list[Span]], tests: Sequence[BboxTest]
) -> Iterator[Candidates | None]:
    """Yield the candidates of each index that knows a condition, None where they are too many."""
    indexes, chunks = meta.indexes, meta.chunks()
    assert indexes is not None
    has_bounds = any(spans.keys() >= {*names} for names in COVERINGS)
    footprints = [field for field in meta.fields.values() if field.geometry and has_bounds]
    tested = [meta.fields[test.field] for test in tests]
    searched = {*spans, *(field.name for field in (*tested, *footprints))}
    indexes.prefetch([meta.fields[name] for name in searched], meta.tally)
    for field in footprints:
        tree = read_trees(indexes, field)
        box = None if tree is None else _covering_box(tree.covering, spans)
        if tree is not None and box is not None:
            yield tree.candidates(chunks, [box], with_covering=True)
    for field, test in zip(tested, tests, strict=True):
        tree = read_trees(indexes, field)
        if tree is not None:
            yield tree.candidates(chunks, test.boxes, filled=test.filled)
    for name, field_spans in spans.items():
        index = read_sorted(indexes, meta.fields[name])
        if index is not None:
            yield index.candidates(chunks, field_spans)


def _covering_box(covering: Sequence[str], spans: Mapping[str, list[Span]]) -> Box | None:
    """Return a rectangle that footprints meet if the fields of their bounds lie in these spans.

    None where a side is unbounded.
    """
    if not covering:
        return None
    xmin, ymin, xmax, ymax = (spans.get(name, ()) for name in covering)
    lows = [[pc.min(s.low).as_py() for s in side if s.low is not None] for side in (xmax, ymax)]
    highs = [[pc.max(s.high).as_py() for s in side if s.high is not None] for side in (xmin, ymin)]
    if not all([*lows, *highs]):
        return None
    (west, south), (east, north) = map(max, lows), map(min, highs)
    return west, south, east, north


def with_values(meta: MetaTable, name: str, values: pa.Array) -> Candidates:
    """Return the rows that may have one of some values of a field."""
    index = None if meta.indexes is None else read_sorted(meta.indexes, meta.fields[name])
    if index is None:
        return EVERY
    return index.candidates(meta.chunks(), [Span.of_values(values.drop_null())]) or EVERY


type Conditions = tuple[tuple[Expr, ...], bool]
"""Conditions that all hold for the rows of an answer, and whether it has every row for which they
do."""

NO_CONDITIONS: Conditions = ((), False)


def _conditions(plan: Any) -> Conditions:
    """Return the conditions that a query has for the rows of ``meta``.

    There are none where the query scans the table more than once: what one scan needn't see,
    another may.
    """
    if SUBQUERY.search(plan.display_indent()):
        return NO_CONDITIONS
    scans = list(_scans(plan, ((), True)))
    return scans[0] if len(scans) == 1 else NO_CONDITIONS


def _scans(plan: Any, above: Conditions) -> Iterator[Conditions]:
    """Yield the conditions of each scan of ``meta``: its own and those right above it."""
    node = plan.to_variant()
    step = kind(node)
    if step == "TableScan":
        if node.fqn()[-1] == TABLE:  # of whatever schema
            yield _with_conjuncts(above, *node.filters())
        return
    if step == "Filter":
        above = _with_conjuncts(above, node.predicate())
    elif step != "SubqueryAlias" and (step != "Projection" or renames_columns(node)):
        above = NO_CONDITIONS
    for inner in plan.inputs():
        yield from _scans(inner, above)


def _with_conjuncts(above: Conditions, *conditions: Expr) -> Conditions:
    added = [conjunct for condition in conditions for conjunct in _split(condition, "AND")]
    return (*above[0], *added), above[1]


def _split(condition: Expr, operator: str) -> Iterator[Expr]:
    """Yield the conditions that ``AND`` or ``OR`` combines."""
    if condition.variant_name() == "BinaryExpr" and condition.rex_call_operator() == operator:
        for operand in condition.rex_call_operands():
            yield from _split(operand, operator)
    else:
        yield condition


def _comparison(condition: Expr, meta: MetaTable) -> tuple[str, Span] | None:
    """Return the field that a condition compares with constants, and its values.

    None where the condition is no such comparison. A plan has the constants on the right.
    """
    form = condition.variant_name()
    if form == "Like":
        return _prefix(condition, meta)
    if form == "InList" and not condition.to_variant().negated():
        subject, *literals = condition.rex_call_operands()
        operators, subjects = {"="}, [subject]
    elif form == "BinaryExpr":
        terms = list(_split(condition, "OR"))
        if any(term.variant_name() != "BinaryExpr" for term in terms):
            return None
        operators = {term.rex_call_operator() for term in terms}
        operands = [term.rex_call_operands() for term in terms]
        subjects, literals = [pair[0] for pair in operands], [pair[1] for pair in operands]
    else:
        return None
    operator = operators.pop()
    if operators or operator not in COMPARISONS or (operator != "=" and len(literals) > 1):
        return None
    if any(subject.variant_name() != "Column" for subject in subjects):
        return None
    name, *others = {str(subject.to_variant().name()) for subject in subjects}
    field = meta.fields.get(name)
    constants = [_field_literal(literal, field) for literal in literals]
    if others or field is None or any(constant is None for constant in constants):
        return None
    return name, COMPARISONS[operator](pa.array(constants, field.type))


def _prefix(condition: Expr, meta: MetaTable) -> tuple[str, Span] | None:
    """Return the field and the texts of a LIKE with a constant prefix."""
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
    after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return name, Span(pa.array([prefix]), pa.array([after]), with_high=False)


def _field_literal(expression: Expr, field: Field | None) -> pa.Scalar | None:
    """Return a literal as a value of a field, None where it can't be one of its values."""
    if field is None or field.geometry is not None or expression.variant_name() != "Literal":
        return None
    value = expression.python_value()
    if not isinstance(value, pa.Scalar) or not value.is_valid or value.type != field.type:
        return None
    is_nan = pa.types.is_floating(value.type) and math.isnan(value.as_py())
    return None if is_nan else value


def _bbox_test(context: SessionContext, condition: Expr, meta: MetaTable) -> BboxTest | None:
    """Return the test of bounding boxes that a condition implies.

    None where it is no function of a footprint and a constant geometry.
    """
    margin: Any = 0.0
    functions = MEETING | {WITHIN}
    if condition.variant_name() == "BinaryExpr" and condition.rex_call_operator() in ("<", "<="):
        condition, limit = condition.rex_call_operands()
        functions, margin = {DISTANCE}, value(limit)
    if condition.variant_name() != "ScalarFunction":
        return None
    function = condition.rex_call_operator()
    if function not in functions:
        return None
    first, second, *options = condition.rex_call_operands()
    if function == WITHIN:
        margin = value(options[0])
    if not isinstance(margin, int | float) or not 0 <= margin < math.inf:
        return None
    footprint, target = (first, second) if first.variant_name() == "Column" else (second, first)
    is_column = footprint.variant_name() == "Column"
    field = meta.fields.get(footprint.to_variant().name()) if is_column else None
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
    return BboxTest(field.name, tuple(boxes), filled)


def _is_rectangle(shape: shapely.Geometry) -> bool:
    """Tell if a geometry fills its bounding box."""
    return bool(
        shapely.get_type_id(shape) == shapely.GeometryType.POLYGON
        and shapely.get_num_coordinates(shape) == 5
        and shapely.equals(shape, shapely.envelope(shape))
    )


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

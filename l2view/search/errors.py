"""DataFusion's errors as errors of l2view, with the name that was likely meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import geodatafusion
from datafusion import SessionConfig, SessionContext

from l2view.errors import FieldError, QueryError
from l2view.text import closest_name, join_names, strip_credentials, unknown_name

LAYERS = re.compile(
    r"^(?:(?:DataFusion|External|FFI|Arrow|Schema|Cast|Parser|Execution|Internal) error: "
    r"|Error during planning: |This feature is not implemented: )+"
)
"""Prefixes that libraries put before the message of an error."""

RAISED = re.compile(r"(?s)PyErr \{ type: .*?, value: \w+\((['\"])(.+?)\1\), trace")
"""An exception of Python in DataFusion's message."""


TRANSLATIONS = {
    r"[Pp]laceholder (?:with name )?'?(\$\w+)": (
        "the placeholder {} has no value; pass it in params="
    ),
    r"(?:DDL|DML|Statement) not supported: (\w+)": "only queries that read are allowed, not {}",
    "only supports a single SQL statement": "one statement at a time",
    r'(?:Parser|Tokenizer)Error\("(.*)"\)': "not valid SQL: {}",
    r"non-boolean predicate '(.+)' returning (\S+)": (
        "where= is a condition, true or false for each granule; {} is {}"
    ),
    "BooleanScalar": (
        "a comparison with NULL is never true; write IS NULL, or leave NULL out of the list. "
        "Nor is a condition that contradicts itself, such as x = 1 AND x = 2"
    ),
    "logical expression WindowFunction|Aggregate functions are not": (
        "a condition on rows can't have an aggregate or window function; use sql()"
    ),
    "Data not conforming to GeoArrow": (
        "an ST_* function got something that is no geometry; ST_GeomFromText makes one of WKT"
    ),
}
"""What DataFusion says, and what is said instead, with the groups of the pattern."""


def explain(message: str, fields: Sequence[str], tables: Sequence[str]) -> QueryError | FieldError:
    """Return the error for DataFusion's `message` on a query of these fields and tables."""
    if match := re.search(r"No field named (?:\w+\.)?(?:\"([^\"]+)\"|([^\s.]+))\.", message):
        name = match.group(1) or match.group(2)
        return FieldError(unknown_name("field", name, fields) + _quoting(name, fields))
    if match := re.search(r"Invalid function '([^']+)'", message):
        close = closest_name(match.group(1), function_names())
        hint = f'did you mean "{close}"?' if close else "DataFusion's functions and ST_* are there"
        return QueryError(f'no function "{match.group(1)}"; {hint}')
    if match := re.search(
        r"argument types '([^']+)'.*Candidate functions:(.+)", message, re.DOTALL
    ):
        return QueryError(_no_signature(match.group(1), match.group(2).split("\n"), message))
    for pattern, translation in TRANSLATIONS.items():
        if match := re.search(pattern, message):
            return QueryError(translation.format(*match.groups()))
    if match := re.search(r"table 'datafusion\.public\.(.+)' not found", message):
        return QueryError(unknown_name("table", match.group(1), tables))
    if match := re.search(r"Unsupported function argument type: (\w+) =>", message):
        functions = [name for name in tables if name.endswith("()")]
        return QueryError(
            f"the argument {match.group(1)} is of no table function that there is: "
            f"{join_names(functions)}"
        )
    if match := re.search(r"table function '(.+)' not found", message):
        return QueryError(unknown_name("table function", f"{match.group(1)}()", tables, "tables"))
    hint = "; for a list, write field = ANY($name)" if "[List(" in message else ""
    return QueryError(_last_cause(message) + hint)


def _last_cause(message: str) -> str:
    """Return the first line of the innermost cause."""
    cause = re.split(r"\ncaused by\n", message)[-1]
    if match := RAISED.search(cause):
        cause = match.group(2)
    elif match := re.search(r"Python error: (.+)$", cause, re.DOTALL):
        cause = match.group(1)
    line = next((candidate for candidate in cause.splitlines() if candidate.strip()), message)
    return strip_credentials(LAYERS.sub("", line.strip()))


def _quoting(name: str, fields: Sequence[str]) -> str:
    """Explain how SQL reads quotes, where they may be the cause."""
    if longer := next((field for field in fields if field.startswith(f"{name}:")), None):
        return f'. Names with a colon are written in double quotes: "{longer}"'
    closest = closest_name(name, fields)
    if closest is None:
        return f". A text is written in single quotes: '{name}'"
    if closest == closest.lower():
        return ""
    return f'. SQL reads unquoted names in lower case: write "{closest}" in double quotes'


def _no_signature(call: str, candidates: Sequence[str], message: str) -> str:
    """Explain how a function is called."""
    signatures = [text.strip() for text in candidates if text.strip() and "UserDefined" not in text]
    if signatures:
        return f"no function {call}; there is {' or '.join(signatures)}"
    if match := re.search(r"expected (\d+) arguments? but received (\d+)", message):
        return f"{call} has {match.group(2)} arguments; the function takes {match.group(1)}"
    return f"no function {call}; look at the types of its arguments"


@lru_cache(maxsize=1)
def function_names() -> tuple[str, ...]:
    """Return the names of the functions that a query can use."""
    context = SessionContext(SessionConfig().with_information_schema(True))
    geodatafusion.register_all(context)
    query = "SELECT DISTINCT routine_name FROM information_schema.routines ORDER BY routine_name"
    return tuple(context.sql(query).to_arrow_table().column(0).to_pylist())

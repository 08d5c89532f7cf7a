"""What DataFusion's errors mean, and what was most likely meant instead."""

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
"""The libraries through which an error came, each of which puts its name before it."""

RAISED = re.compile(r"(?s)PyErr \{ type: .*?, value: \w+\((['\"])(.+?)\1\), trace")
"""How an exception of Python is shown."""


def explain(message: str, fields: Sequence[str], tables: Sequence[str]) -> QueryError | FieldError:
    """Return the error to raise for DataFusion's `message`.

    Parameters
    ----------
    message
        What DataFusion said.
    fields, tables
        The names that a query can use.
    """
    if found := re.search(r"No field named (?:\w+\.)?(?:\"([^\"]+)\"|([^\s.]+))\.", message):
        name = found.group(1) or found.group(2)
        return FieldError(unknown_name("field", name, fields) + _quoting(name, fields))
    if found := re.search(r"Invalid function '([^']+)'", message):
        return QueryError(_no_function(found.group(1)))
    if found := re.search(
        r"argument types '([^']+)'.*Candidate functions:(.+)", message, re.DOTALL
    ):
        return QueryError(_no_signature(found.group(1), found.group(2).split("\n"), message))
    if found := re.search(r"[Pp]laceholder (?:with name )?'?(\$\w+)", message):
        return QueryError(f"the placeholder {found.group(1)} has no value; pass it in params=")
    if found := re.search(r"(?:DDL|DML|Statement) not supported: (\w+)", message):
        return QueryError(f"only queries that read are allowed, not {found.group(1)}")
    if "only supports a single SQL statement" in message:
        return QueryError("one statement at a time")
    if found := re.search(r"table 'datafusion\.public\.(.+)' not found", message):
        return QueryError(unknown_name("table", found.group(1), tables))
    if found := re.search(r"Unsupported function argument type: (\w+) =>", message):
        known = [name for name in tables if name.endswith("()")]
        return QueryError(
            f"the argument {found.group(1)} is of no table function that there is: "
            f"{join_names(known)}"
        )
    if found := re.search(r"table function '(.+)' not found", message):
        return QueryError(unknown_name("table function", f"{found.group(1)}()", tables, "tables"))
    if found := re.search(r'(?:Parser|Tokenizer)Error\("(.*)"\)', message):
        return QueryError(f"not valid SQL: {found.group(1)}")
    if found := re.search(r"non-boolean predicate '(.+)' returning (\S+)", message):
        return QueryError(
            f"where= is a condition, true or false for each granule; {found.group(1)} is "
            f"{found.group(2)}"
        )
    if "BooleanScalar" in message:
        return QueryError(
            "a comparison with NULL is never true; write IS NULL, or leave NULL out of the list. "
            "Nor is a condition that contradicts itself, such as x = 1 AND x = 2"
        )
    if "logical expression WindowFunction" in message or "Aggregate functions are not" in message:
        return QueryError(
            "a condition on rows can't have an aggregate or window function; use sql()"
        )
    if "Data not conforming to GeoArrow" in message:
        return QueryError(
            "an ST_* function got something that is no geometry; ST_GeomFromText makes one of WKT"
        )
    return QueryError(_last_cause(message) + _of_lists(message))


def _last_cause(message: str) -> str:
    """Return the innermost cause in one line."""
    cause = re.split(r"\ncaused by\n", message)[-1]
    if found := re.search(
        r"PyErr \{ type: .*?, value: \w+\((['\"])(.+?)\1\), trace", cause, re.DOTALL
    ):
        cause = found.group(2)
    elif found := re.search(r"Python error: (.+)$", cause, re.DOTALL):
        cause = found.group(1)
    first = next((line for line in cause.splitlines() if line.strip()), message)
    return strip_credentials(LAYERS.sub("", first.strip()))


def _of_lists(message: str) -> str:
    return "; for a list, write field = ANY($name)" if "[List(" in message else ""


def _quoting(name: str, fields: Sequence[str]) -> str:
    """Tell what SQL makes of quotes, where that may be what went wrong."""
    if longer := next((field for field in fields if field.startswith(f"{name}:")), None):
        return f'. Names with a colon are written in double quotes: "{longer}"'
    close = closest_name(name, fields)
    if close is None:
        return f". A text is written in single quotes: '{name}'"
    if close == close.lower():
        return ""
    return f'. SQL reads unquoted names in lower case: write "{close}" in double quotes'


def _no_function(name: str) -> str:
    close = closest_name(name, function_names())
    hint = f'did you mean "{close}"?' if close else "DataFusion's functions and ST_* are there"
    return f'no function "{name}"; {hint}'


def _no_signature(call: str, candidates: Sequence[str], message: str) -> str:
    """Say how a function is called, for a `call` that isn't one of its `candidates`."""
    known = [text.strip() for text in candidates if text.strip() and "UserDefined" not in text]
    if known:
        return f"no function {call}; there is {' or '.join(known)}"
    counted = re.search(r"expected (\d+) arguments? but received (\d+)", message)
    if counted:
        return f"{call} has {counted.group(2)} arguments; the function takes {counted.group(1)}"
    return f"no function {call}; look at the types of its arguments"


@lru_cache(maxsize=1)
def function_names() -> tuple[str, ...]:
    """Return the names of the functions that a query can use."""
    context = SessionContext(SessionConfig().with_information_schema(True))
    geodatafusion.register_all(context)
    query = "SELECT DISTINCT routine_name FROM information_schema.routines ORDER BY routine_name"
    return tuple(context.sql(query).to_arrow_table().column(0).to_pylist())

"""Arguments by name (``decode => true``), as DataFusion takes them.

It plans table functions with arguments by position only, so each is written as a pair of a name and
a value before it sees them. Values never become a part of a query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

TOKEN = re.compile(
    r"[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(\w*)\$.*?\$\1\$|--[^\n]*"
    r"|/\*|\*/|\w+|=>|:=|\s+|.",
    re.DOTALL,
)
"""What SQL is made of, as far as it takes to find calls and their arguments: texts, quoted names,
comments (which nest), words, arrows, brackets."""

SPACE = re.compile(r"\s+|--.*", re.DOTALL)

ARROWS = ("=>", ":=")  # what stands between the name and the value of an argument


def positional(query: str, names: Iterable[str], mark: str) -> str:
    """Rewrite the named arguments of these functions as pairs.

    The text that stands for an argument's name begins with `mark`.

    Examples
    --------
    >>> positional("SELECT * FROM cells('a => b', decode => true)", ["cells"], "#")
    "SELECT * FROM cells('a => b', '#decode' , true)"
    """
    functions = set(names)
    tokens = [*(match.group() for match in TOKEN.finditer(query)), ""]
    depth = 0
    calls: list[int] = []
    for number, following in pairwise(_significant(tokens)):
        text, after = tokens[number], tokens[following]
        word = text.strip('"').lower()
        if text in ("(", "[", "{"):
            depth += 1
        elif text in (")", "]", "}"):
            depth -= 1
            while calls and calls[-1] > depth:
                calls.pop()
        elif word in functions and after == "(":
            tokens[number] = word
            calls.append(depth + 1)
        elif after in ARROWS and word.isidentifier() and calls and calls[-1] == depth:
            tokens[number] = f"'{mark}{word}'"
            tokens[following] = ","
    return "".join(tokens)


def _significant(tokens: Sequence[str]) -> list[int]:
    """Numbers of the tokens that are neither space nor comment."""
    numbers, comments = [], 0
    for number, token in enumerate(tokens):
        if token == "/*":  # noqa: S105 (no secret)
            comments += 1
        elif token == "*/" and comments:  # noqa: S105
            comments -= 1
        elif not comments and not SPACE.fullmatch(token):
            numbers.append(number)
    return numbers

"""The words that messages share."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit

from l2view.errors import L2ViewError


def join_names(names: Iterable[str], *, most: int = 12) -> str:
    """Join `names` for a message, the first `most` of them."""
    names = list(names)
    if not names:
        return "(none)"
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text}, … ({len(names):,} in all)"


def fold_name(name: str) -> str:
    """Return a name in lower case, without prefix and separators: products write it in many ways.

    Examples
    --------
    >>> fold_name("RangeBeginningDate") == fold_name("range_beginning_date")
    True
    >>> fold_name("FH:Validity_Period:Validity_Start")
    'validitystart'
    """
    return re.sub(r"[\W_]+", "", name.rpartition(":")[2]).lower()


def closest_name(name: str, names: Iterable[str]) -> str | None:
    """Return the name in `names` that is closest to `name`, None where none is close."""
    folded = {candidate.casefold(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def unknown_name(kind: str, name: str, names: Iterable[str], plural: str | None = None) -> str:
    """Say that there is no `name` among `names`, and which one may have been meant.

    Examples
    --------
    >>> unknown_name("field", "cloudcover", ["id", "cloud_cover"])
    'no field "cloudcover"; did you mean "cloud_cover"? fields: id, cloud_cover'
    """
    names = list(names)
    close = closest_name(name, names)
    hint = f'; did you mean "{close}"?' if close else ";"
    return f'no {kind} "{name}"{hint} {plural or kind + "s"}: {join_names(names)}'


_URLS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s\"'<>()]+")


def strip_credentials(text: str) -> str:
    """Return `text` with every URL in it without user, password, query and fragment.

    Examples
    --------
    >>> strip_credentials("can't read https://me:secret@host/a?sig=secret")
    "can't read https://host/a"
    """

    def bare(match: re.Match[str]) -> str:
        try:
            url = urlsplit(match.group())
        except ValueError:  # where credentials would be can't be told
            return f"{match.group().partition('://')[0]}://…"
        return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))

    return _URLS.sub(bare, text)


def first_line(error: Exception) -> str:
    """Return the message of an error, in one line and without credentials."""
    if isinstance(error, L2ViewError):
        return str(error)
    lines = str(error).strip().splitlines()
    text = strip_credentials(lines[0]) if lines else "no reason given"
    return f"{type(error).__name__}: {text}"


def replace_surrogates(text: str) -> str:
    """Return a text without what UTF-8 can't hold.

    Bytes that aren't UTF-8 reach Python as half a surrogate pair each; they are most often
    Latin-1, which older files are written in.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        text = re.sub("[\udc80-\udcff]", lambda half: chr(ord(half.group()) - 0xDC00), text)
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text

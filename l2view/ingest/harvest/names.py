"""Times that names of files have, for granules that say theirs nowhere else."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from l2view.ingest.harvest.attributes import parse_digits

YEAR = r"(?:19[6-9]\d|20\d\d)"

PATTERNS = tuple(
    map(
        re.compile,
        (
            # ISO 8601's basic format, of a beginning and perhaps an end.
            (
                rf"(?<!\d)(?P<start>{YEAR}\d{{3,4}}T\d{{6}})"
                rf"(?:[\d.]*Z?[-_]+(?P<end>{YEAR}\d{{3,4}}T\d{{6}}))?"
            ),
            r"(?P<day>\d{8})-S(?P<begin>\d{6})-E(?P<end>\d{6})",  # GPM and TRMM
            r"_d(?P<day>\d{8})_t(?P<begin>\d{6})\d_e(?P<end>\d{6})\d_",  # JPSS
            r"_s(?P<start>\d{13})\d_e(?P<end>\d{13})\d_c\d{14}",  # GOES-R
            r"\.D(?P<start>\d{5}\.S\d{4})\.E",  # NOAA's level 1B
            rf"L[CEMOT]\d{{7}}(?P<start>{YEAR}\d{{3}})[A-Z]{{3}}\d\d",  # Landsat before collections
            r"\.A(?P<start>\d{7}\.\d{4})\.",  # granules of MODIS and VIIRS
            r"\.A(?P<start>\d{7})\.",  # their days
            rf"(?<!\d)(?P<start>{YEAR}(?:m\d{{4}}t\d{{4}}|d\d{{3}}))(?!\d)",  # EOS Aura
            rf"(?<!\d)(?P<start>{YEAR}-\d\d-\d\d[T_ ]\d\d[-:]\d\d[-:]\d\d)",  # CALIPSO
            rf"(?<!\d)(?P<start>\d\d[A-Z]{{3}}{YEAR}_\d{{4}})_",  # INSAT
            (
                rf"(?<!\d)(?P<start>{YEAR}\d{{4}}[-_]\d{{6}})"
                rf"(?:[-_]+e?(?P<end>{YEAR}\d{{4}}[-_]\d{{6}}))?(?!\d)"
            ),
            rf"(?<!\d)(?P<start>{YEAR}\d{{4}}_\d{{4}})(?!\d)",
            rf"(?<!\d)(?P<start>{YEAR}(?:\d{{8,10}}|\d{{3,4}}))(?!\d)",
            rf"(?<!\d)(?P<start>{YEAR}([-._])\d\d\2\d\d)(?!\d)",
        ),
    )
)
"""Where times stand in names, the patterns that mean one thing first."""

MAX_SPAN = timedelta(days=2)
"""The longest that a granule takes: a later time in its name is that of its making."""


def times_in_name(url: str) -> tuple[datetime | None, datetime | None]:
    """Return the first and last time that a file's name has, in UTC; None for what it lacks.

    Examples
    --------
    >>> times_in_name("2A.GPM.GMI.GPROF2021v1.20140304-S175932-E193159.000079.V07A.HDF5")
    (datetime.datetime(2014, 3, 4, 17, 59, 32), datetime.datetime(2014, 3, 4, 19, 31, 59))
    >>> times_in_name("s3://bucket/LC08_L2SP_005009_20150710_20200908_02_T2_SR_B2.TIF")
    (datetime.datetime(2015, 7, 10, 0, 0), None)
    """
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    for pattern in PATTERNS:
        for match in pattern.finditer(name):
            groups = match.groupdict()
            day = groups.get("day") or ""
            start = _parse(groups.get("start") or day + groups["begin"])
            if start is None:
                continue
            end = _parse(day + (groups.get("end") or ""))
            if end is not None and end < start and day:  # it ends on the next day
                end += timedelta(days=1)
            return start, end if end is not None and start <= end <= start + MAX_SPAN else None
    return None, None


def _parse(text: str) -> datetime | None:
    with suppress(ValueError):
        return datetime.strptime(text, "%d%b%Y_%H%M")
    return parse_digits(re.sub(r"\D", "", text))

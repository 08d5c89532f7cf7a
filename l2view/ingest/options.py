"""What a caller chooses for an ingest, as values that are handed on whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import shapely

from l2view.errors import IngestError
from l2view.geolocation.footprint import on_the_globe
from l2view.granules.layouts import StorageName
from l2view.ingest.executors import Parallel
from l2view.ingest.formats import Parser
from l2view.ingest.harvest import Harvester

if TYPE_CHECKING:
    from l2view.ingest.report import IngestReport

type OnConflict = Literal["skip", "replace", "error"]
"""What becomes of a granule whose id is there already."""


@dataclass(frozen=True)
class ParseOptions:
    """How granules are parsed, by `l2view.ingest`'s parameters; it goes to the workers."""

    parser: Parser | None = None
    harvest: Harvester | None = None
    collection: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    require: tuple[str, ...] = ()
    inline_threshold: int = 2**20
    check: bool = True

    def with_valid_defaults(self, storage: StorageName | None) -> ParseOptions:
        """Return them with the default time and place as fields hold them.

        An `IngestError` says that one is none, or that a field can't be called so.
        """
        defaults: dict[str, Any] = {}
        reserved = LAYOUTS[storage or "packed"].kinds
        for name, value in self.defaults.items():
            try:
                require_field_name(name)
            except FieldError as error:
                raise IngestError(f"defaults= names a field {name!r}: {error}") from error
            if name in reserved:
                raise IngestError(f'defaults= names "{name}", where l2view keeps granules\' places')
            defaults[name] = time_of(name, value) if name in TIMES else value
        if defaults.get("bbox") is not None:
            defaults["bbox"] = shapely.to_wkb(on_the_globe(defaults["bbox"]))
        return replace(self, defaults=defaults)


@dataclass(frozen=True)
class IngestOptions:
    """How granules are added to a collection, by `l2view.ingest`'s parameters.

    An `IngestError` says that a value isn't allowed.
    """

    parsing: ParseOptions = ParseOptions()
    on_conflict: OnConflict = "skip"
    parallel: Parallel = False
    batch: int = 1_000
    strict: bool = False
    branch: str = "main"
    storage: StorageName | None = None
    dry_run: bool = False
    progress: bool | Callable[[IngestReport], None] = False
    report: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.on_conflict not in ("skip", "replace", "error"):
            raise IngestError(f"on_conflict={self.on_conflict!r} is not skip, replace or error")
        if self.batch < 1:
            raise IngestError(f"batch={self.batch} is no number of granules")

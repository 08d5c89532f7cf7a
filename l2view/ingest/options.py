"""What a caller chooses for an ingest, as values that are handed on whole."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from l2view.errors import FieldError, IngestError
from l2view.granules.layouts import StorageName
from l2view.ingest.executors import Parallel
from l2view.ingest.formats import Parser
from l2view.ingest.grouping import GranuleOf, pattern_grouping
from l2view.ingest.harvest import TIMES, Harvester, field_value
from l2view.meta.columns import plain, require_field_name
from l2view.text import closest_name, unknown_name

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

    def check_required(self, fields: Iterable[str]) -> None:
        """Raise an `IngestError` where a required field is one of another name, misspelt."""
        known = sorted({*TIMES, "bbox", *self.defaults, *fields})
        for name in self.require:
            if self.harvest is None and name not in known and closest_name(name, known):
                raise IngestError(f"require= (--require): {unknown_name('field', name, known)}")

    def with_valid_defaults(self, reserved: Container[str]) -> ParseOptions:
        """Return them with the default time and place as fields hold them.

        An `IngestError` says of a default why no granule can have it; `reserved` are the names of
        fields that locate granules.
        """
        defaults: dict[str, Any] = {}
        for name, value in self.defaults.items():
            try:
                if not isinstance(name, str) or name in reserved:
                    raise FieldError(f"no granule can have a field {name!r} of its own")
                require_field_name(name.replace("/", "_"))
                valid = field_value(name, value) if name in (*TIMES, "bbox") else value
                plain(name, valid)
            except (FieldError, IngestError) as error:
                raise IngestError(f"defaults= (--default) can't be used: {error}") from error
            defaults[name] = valid
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
    granule_of: GranuleOf | str | None = None

    def __post_init__(self) -> None:
        if self.on_conflict not in ("skip", "replace", "error"):
            raise IngestError(f"on_conflict={self.on_conflict!r} is not skip, replace or error")
        if self.batch < 1:
            raise IngestError(f"batch={self.batch} is no number of granules")
        if isinstance(self.granule_of, str):
            pattern_grouping(self.granule_of)

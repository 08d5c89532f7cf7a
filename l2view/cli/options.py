"""The options that commands share, as values.

A command takes `StoreOptions` and `SearchOptions` whole; `with_options` makes an argument or
option of each of their fields.
"""

from __future__ import annotations

import functools
import inspect
import json
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from l2view.collection import Collection
from l2view.errors import QueryError
from l2view.search.query import Query
from l2view.stores.open import Authorize, SourceOptions

Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="NAME=VALUE",
        help="A value for $NAME: JSON where it is JSON, else text. Repeatable.",
    ),
]


@dataclass(frozen=True)
class StoreOptions:
    """Which store a command reads, and in which state."""

    store: Annotated[
        str, typer.Argument(help="Path or URL of an Icechunk repository or a Zarr store.")
    ]
    branch: Annotated[str | None, typer.Option(help="A branch of the repository.")] = None
    tag: Annotated[str | None, typer.Option(help="A tag of the repository.")] = None
    snapshot: Annotated[str | None, typer.Option(help="A snapshot of the repository.")] = None
    group: Annotated[str, typer.Option(help="The group with the fields.")] = "meta"
    location: Annotated[str | None, typer.Option(help="The field with the paths of granules.")] = (
        None
    )
    geometry_field: Annotated[str | None, typer.Option(help="The field with footprints.")] = None
    time_field: Annotated[str | None, typer.Option(help="The field with times.")] = None
    authorize: Annotated[
        list[str] | None,
        typer.Option(metavar="PREFIX", help="A URL prefix whose files may be read. Repeatable."),
    ] = None

    def source(self, authorize: Authorize | None = None) -> SourceOptions:
        """Return the options of the store; `authorize` is for commands that read no chunk."""
        options = {name: value for name, value in vars(self).items() if name != "store"}
        return SourceOptions(**options | {"authorize": self.authorize or authorize})

    def open(self, authorize: Authorize | None = None) -> Collection:
        """Open the collection."""
        return Collection.of(self.store, self.source(authorize))


@dataclass(frozen=True)
class SearchOptions:
    """Which granules a command is about."""

    where: Annotated[
        str | None, typer.Option(help="One SQL condition, such as 'cloud_cover < 10'.")
    ] = None
    param: Params = None
    bbox: Annotated[
        str | None,
        typer.Option(
            metavar="W,S,E,N",
            help="Degrees. West > east crosses the antimeridian; --bbox=-10,… for a west < 0.",
        ),
    ] = None
    intersects: Annotated[str | None, typer.Option(help="GeoJSON or WKT in EPSG:4326.")] = None
    datetime: Annotated[
        str | None, typer.Option(help="An instant or interval, such as 2025-06 or 2025-06-01/..")
    ] = None
    ids: Annotated[list[str] | None, typer.Option("--id", help="An id. Repeatable.")] = None
    order_by: Annotated[str | None, typer.Option(help="Such as 'cloud_cover DESC, date'.")] = None
    limit: Annotated[int | None, typer.Option(min=0, help="The most granules.")] = None

    def query(self) -> Query:
        """Return the search; its conditions are combined with AND."""
        options = dict(vars(self))
        options["params"] = parse_assignments(options.pop("param")) or None
        options["ids"] = self.ids or None
        try:
            return Query(**options)
        except QueryError as error:
            raise typer.BadParameter(str(error)) from error


PANELS: dict[Any, str] = {StoreOptions: "The store", SearchOptions: "The search"}
"""The titles over the options in a command's help."""


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function that takes dataclasses of options.

    Each field of such a parameter becomes a parameter of the command, with its annotation and
    default; the others stay as they are.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        group = parameter.annotation
        if group not in PANELS:
            parameters.append(parameter)
            continue
        groups[parameter.name] = group
        for option in inspect.signature(group, eval_str=True).parameters.values():
            option.annotation.__metadata__[0].rich_help_panel = PANELS[group]
            parameters.append(option)

    @functools.wraps(command)
    def run(**values: Any) -> None:
        options = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**options, **values)

    keywords = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in parameters]
    run.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in keywords}
    return run


def parse_assignments(texts: list[str] | None, option: str = "--param") -> dict[str, Any]:
    """Return the values of an option NAME=VALUE: JSON where they are JSON, else text."""
    values = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text} is not NAME=VALUE", param_hint=option)
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = value
    return values


def load_function(text: str, option: str) -> Callable[..., Any]:
    """Return the function that an option MODULE:FUNCTION names; modules lie in the folder, too."""
    sys.path.insert(0, "")
    try:
        function = pkgutil.resolve_name(text)
    except (ImportError, AttributeError, ValueError) as error:
        raise typer.BadParameter(f"{text} can't be loaded: {error}", param_hint=option) from error
    finally:
        sys.path.remove("")
    if ":" not in text or not callable(function):
        raise typer.BadParameter(f"{text} is not MODULE:FUNCTION", param_hint=option)
    return function  # type: ignore[no-any-return]


def parse_numbers(text: str | None, option: str, form: str) -> tuple[float, ...] | None:
    """Return the numbers of an option, with commas between; an error says its `form`."""
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.replace(",", " ").split())
    except ValueError as error:
        raise typer.BadParameter(f"{text} is not {form}", param_hint=option) from error


def split_names(texts: list[str] | None) -> list[str] | None:
    """Return names that are given with commas between, or one by one; None for all."""
    if texts is None:
        return None
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]

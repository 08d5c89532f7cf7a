"""The options that commands share."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Store = Annotated[
    str, typer.Argument(help="Path or URL of an Icechunk repository or a Zarr store.")
]
Where = Annotated[str | None, typer.Option(help="One SQL condition, such as 'cloud_cover < 10'.")]
Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="NAME=VALUE",
        help="A value for $NAME: JSON where it is JSON, else text. Repeatable.",
    ),
]
BBox = Annotated[
    str | None,
    typer.Option(
        metavar="W,S,E,N",
        help="Degrees. West > east crosses the antimeridian. Write --bbox=-10,… for a west < 0.",
    ),
]
Intersects = Annotated[str | None, typer.Option(help="GeoJSON or WKT in EPSG:4326.")]
Datetime = Annotated[
    str | None, typer.Option(help="An instant or interval, such as 2025-06 or 2025-06-01/..")
]
Ids = Annotated[list[str] | None, typer.Option("--id", help="An id. Repeatable.")]
Fields = Annotated[
    list[str] | None,
    typer.Option(help="The fields to write, with commas between, or repeated. All by default."),
]
OrderBy = Annotated[str | None, typer.Option(help="Such as 'cloud_cover DESC, date'.")]
Branch = Annotated[str | None, typer.Option(help="A branch of the repository.")]
Tag = Annotated[str | None, typer.Option(help="A tag of the repository.")]
Snapshot = Annotated[str | None, typer.Option(help="A snapshot of the repository.")]
Group = Annotated[str, typer.Option(help="The group with the fields.")]
Authorized = Annotated[
    list[str] | None,
    typer.Option("--authorize", metavar="PREFIX", help="A container that may be read. Repeatable."),
]
Location = Annotated[str | None, typer.Option(help="The field with the paths of granules.")]
GeometryField = Annotated[str | None, typer.Option(help="The field with footprints.")]
TimeField = Annotated[str | None, typer.Option(help="The field with times.")]


def params(said: list[str] | None, option: str = "--param") -> dict[str, Any]:
    """Return the values of an option NAME=VALUE: JSON where they are JSON, else text."""
    found = {}
    for text in said or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text} is not NAME=VALUE", param_hint=option)
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def bbox(said: str | None) -> tuple[float, ...] | None:
    """Return the numbers of ``--bbox``."""
    if said is None:
        return None
    try:
        return tuple(float(part) for part in said.replace(",", " ").split())
    except ValueError as error:
        raise typer.BadParameter(
            f"{said} is not W,S,E,N in degrees", param_hint="--bbox"
        ) from error


def fields(said: list[str] | None) -> list[str] | None:
    """Return the names of ``--fields``."""
    if said is None:
        return None
    return [name.strip() for text in said for name in text.split(",") if name.strip()]

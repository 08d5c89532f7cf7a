"""``l2view index``: indexes of a collection, made or dropped."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from l2view.cli import options


def index(
    store: options.Store,
    field: Annotated[
        list[str] | None,
        typer.Option(help="A field: footprints get an R-tree, others are sorted. Repeatable."),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop them instead.")] = False,
    branch: options.Branch = None,
    geometry_field: options.GeometryField = None,
) -> None:
    """Make the indexes by which searches read less.

    Without --field: zone maps of all fields, R-trees of footprints, the sorted index of id.
    """
    from l2view.index.commands import Index
    from l2view.index.commands import index as make

    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        tasks: dict[Index, TaskID] = {}

        def tell(one: Index, rows: int, total: int) -> None:
            if one not in tasks:
                tasks[one] = bar.add_task(str(one), total=total)
            bar.update(tasks[one], completed=rows)

        found = make(
            store,
            field,
            drop=drop,
            branch=branch or "main",
            geometry_field=geometry_field,
            progress=tell,
        )
    for one in found:
        typer.echo(f"{'dropped' if drop else 'made'}: {one}")

"""``l2view index``: indexes of a collection, made or dropped."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from l2view.cli.options import StoreOptions, with_options
from l2view.index.commands import Index


@with_options
def build_indexes(
    source: StoreOptions,
    field: Annotated[
        list[str] | None,
        typer.Option(help="A field: footprints get an R-tree, others are sorted. Repeatable."),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop them instead.")] = False,
) -> None:
    """Build the indexes by which searches read less.

    Without --field: zone maps of all fields, R-trees of footprints, the sorted index of id.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    tasks: dict[Index, TaskID] = {}

    def show(index: Index, rows: int, total: int) -> None:
        if index not in tasks:
            tasks[index] = bar.add_task(str(index), total=total)
        bar.update(tasks[index], completed=rows)

    with bar:
        names = source.open(authorize=False).index(field, drop=drop, progress=show)
    for name in names:
        typer.echo(f"{'dropped' if drop else 'made'}: {name}")

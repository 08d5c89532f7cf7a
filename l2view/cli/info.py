"""``l2view info``: what a collection holds."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from l2view.cli import options
from l2view.collection import Collection


def info(
    store: options.Store,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    branch: options.Branch = None,
    tag: options.Tag = None,
    snapshot: options.Snapshot = None,
    group: options.Group = "meta",
    geometry_field: options.GeometryField = None,
    time_field: options.TimeField = None,
) -> None:
    """Say what a collection holds: granules, time span, fields."""
    collection = Collection(
        store,
        branch=branch,
        tag=tag,
        snapshot=snapshot,
        group=group,
        geometry_field=geometry_field,
        time_field=time_field,
    )
    summary = collection.summary()
    fields = {field.name: str(field.type) for field in collection.schema}
    facts = {name: value for name, value in summary.facts.items() if name != "fields"}
    if as_json:
        typer.echo(json.dumps({"granules": len(collection), **facts, "fields": fields}, indent=2))
        return
    console = Console(highlight=False)
    console.print(f"[bold]{len(collection):,} granules[/]")
    for name, value in facts.items():
        console.print(f"[dim]{name:<9}[/]", end=" ")
        console.print(value, markup=False, soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("field")
    table.add_column("type")
    for name, kind in fields.items():
        table.add_row(Text(name), Text(kind))
    console.print(table)

"""``l2view info``: what a collection holds."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from l2view.cli.options import SearchOptions, StoreOptions, with_options


@with_options
def show_info(
    source: StoreOptions,
    search: SearchOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Describe a collection, or those of its granules that match: count, times, fields."""
    collection = source.open(authorize=False)
    query = search.query()
    searches = query.has_conditions or query.limit is not None
    view = collection.open(query) if searches else None
    count = len(collection) if view is None else len(view.names)
    facts = {
        name: value
        for name, value in (view or collection).summary().facts.items()
        if name not in ("fields", "granules")
    }
    schema = collection.schema if view is None else view.table.schema
    types = {field.name: str(field.type) for field in schema}
    if as_json:
        typer.echo(json.dumps({"granules": count, **facts, "fields": types}, indent=2))
        return
    console = Console(highlight=False)
    total = "" if view is None else f" of {len(collection):,}"
    console.print(f"[bold]{count:,}{total} granules[/]")
    for name, value in facts.items():
        console.print(f"[dim]{name:<10}[/]", end=" ")
        console.print(value, markup=False, soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("field")
    table.add_column("type")
    for name, type_name in types.items():
        table.add_row(Text(name), Text(type_name))
    console.print(table)

"""Commands about granules; ``demo`` and ``mosaic`` have modules of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from l2view import api
from l2view.cells.scan import MAX_CELLS
from l2view.cli.options import (
    Params,
    SearchOptions,
    StoreOptions,
    load_function,
    parse_assignments,
    split_names,
    with_options,
)
from l2view.cli.output import AsFormat, Output, OutputFormat, choose_format, write_table
from l2view.collection import Collection
from l2view.index.commands import Index
from l2view.progress import show_progress
from l2view.virtual.references import verify_granules

STALE = 3  # the exit code of `verify` where files changed; 1 is for errors
MAX_NODES = 10_000  # the most groups and arrays that `tree` shows
MAX_GRANULES = 10  # the most granules that `tree` shows, without --limit


@with_options
def info_command(
    source: StoreOptions,
    search: SearchOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Describe a collection, or those of its granules that match: count, times, fields."""
    collection = source.open(authorize=False)
    query = search.query()
    searches = bool(query.conditions) or query.limit is not None
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
    table = Table("field", "type", box=None, header_style="bold", pad_edge=False)
    for name, type_name in types.items():
        table.add_row(Text(name), Text(type_name))
    with console.capture() as text:
        console.print(f"[bold]{count:,}{total} granules[/]")
        for name, value in facts.items():
            console.print(f"[dim]{name:<10}[/]", end=" ")
            console.print(value, markup=False, soft_wrap=True)
        console.print(table)
    typer.echo(text.get(), nl=False)


@with_options
def search_command(
    source: StoreOptions,
    search: SearchOptions,
    fields: Annotated[
        list[str] | None,
        typer.Option(help="The fields to write, with commas between, or repeated; else all."),
    ] = None,
    form: AsFormat = None,
    output: Output = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Write what the search cost, and no rows.")
    ] = False,
) -> None:
    """Find granules and write their rows. Conditions are combined with AND."""
    collection = source.open(authorize=False)
    form = choose_format(form, output)
    names = _fields_to_write(collection, split_names(fields), form)
    if explain:
        if output is not None:
            raise typer.BadParameter("--explain writes no rows: leave out --output")
        typer.echo(str(collection.explain(search.query(), fields=names)))
    else:
        write_table(collection.search(search.query(), fields=names), form, output)


def _fields_to_write(
    collection: Collection, names: list[str] | None, form: OutputFormat
) -> list[str] | None:
    """Return the fields to write: a footprint is for maps, and too long for a table."""
    geometries = collection.geometry_fields
    if form is OutputFormat.geojson and names is not None:
        return names if set(names) & set(geometries) else [*names, *geometries[:1]]
    if form is OutputFormat.table and names is None:
        return [name for name in collection.schema.names if name not in geometries]
    return names


@with_options
def sql_command(
    source: StoreOptions,
    query: Annotated[
        str,
        typer.Argument(
            help="A query over the table meta, and over zarr_groups(), zarr_arrays(), "
            "zarr_chunks(), zarr_cells('path') and cells('variable', where => …)."
        ),
    ],
    param: Params = None,
    form: AsFormat = None,
    output: Output = None,
    allow_store: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX",
            help="A path or URL at and below which the query may read other stores. Repeatable.",
        ),
    ] = None,
    max_cells: Annotated[
        int, typer.Option(min=0, help="A query that goes through more cells is an error.")
    ] = MAX_CELLS,
) -> None:
    """Run an SQL query over the table meta and the arrays of a store, and write its rows."""
    session = api.open_session(
        source.store, source.source(), allow_stores=allow_store or False, max_cells=max_cells
    )
    with Console(stderr=True).status("reading"):
        table = session.read(query, parse_assignments(param))
    write_table(table, choose_format(form, output), output)


@with_options
def tree_command(
    source: StoreOptions,
    search: SearchOptions,
    variables: Annotated[
        list[str] | None, typer.Option(help="A glob for the arrays to show. Repeatable.")
    ] = None,
) -> None:
    """Show the groups and arrays of matching granules, of the first 10 without --limit."""
    # A tree is made of metadata: no chunk is read.
    collection = source.open(authorize=False)
    limit = MAX_GRANULES if search.limit is None else search.limit
    query = replace(search.query(), limit=limit + 1)
    view = collection.open(query, variables=variables or None)
    typer.echo(view.head(limit).tree(max_nodes=MAX_NODES))
    if len(view.names) > limit:
        Console(stderr=True).print(f"the first {limit} granules; --limit shows more")


def ingest_command(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, prefixes or globs, paths or URLs; or STAC or CMR records."
        ),
    ],
    store: Annotated[
        str, typer.Option("--store", "-s", help="The repository; it is made where there is none.")
    ],
    on_conflict: Annotated[
        str, typer.Option(help="A granule that is there already: skip, replace or error.")
    ] = "skip",
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="Files in whose names its groups match the same are one granule."
        ),
    ] = None,
    collection: Annotated[str | None, typer.Option(help="The field collection.")] = None,
    default: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A field of granules that don't say, such as datetime, or bbox as W,S,E,N, WKT "
            "or GeoJSON. Repeatable.",
        ),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(help="Fields without which a granule is left out: datetime,bbox."),
    ] = None,
    harvest: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION", help="Your own fields, from a file's zarr.Group and URL."
        ),
    ] = None,
    parallel: Annotated[
        str, typer.Option(help="Processes that parse, or: threads, dask, lithops.")
    ] = "1",
    batch: Annotated[int, typer.Option(min=1, help="The granules in a commit.")] = 1000,
    storage: Annotated[
        str | None,
        typer.Option(help="packed (by product version, the default) or groups (one a granule)."),
    ] = None,
    inline_threshold: Annotated[
        int,
        typer.Option(min=0, help="The most bytes of an array to copy that can't be referred to."),
    ] = 2**20,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Decode a chunk of each array of a new product."),
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Parse, say what would be written, write nothing.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first that fails.")] = False,
    branch: Annotated[str, typer.Option(help="The branch to commit to.")] = "main",
    report: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A JSON file for every granule, with the reasons."),
    ] = None,
) -> None:
    """Add granules to a collection, without copying their data.

    Run again, it goes on where it ended. The exit code is 1 where a granule was left out.
    """
    done = api.ingest(
        files,
        store,
        on_conflict=on_conflict,  # type: ignore[arg-type]
        granule_of=group_by,
        collection=collection,
        harvest=None if harvest is None else load_function(harvest, "--harvest"),
        defaults=parse_assignments(default, "--default"),
        require=split_names(require) or (),
        parallel=int(parallel) if parallel.isdigit() else parallel,
        batch=batch,
        strict=strict,
        branch=branch,
        storage=storage,  # type: ignore[arg-type]
        inline_threshold=inline_threshold,
        check=check,
        dry_run=dry_run,
        progress=True,
        report=report,
    )
    typer.echo(str(done))
    if done.failures:
        raise typer.Exit(1)


@with_options
def verify_command(source: StoreOptions, search: SearchOptions) -> None:
    """Find granules whose files changed since ingest, or are missing.

    The exit code is 3 if there are any.
    """
    view = source.open().open(search.query(), fields=["id"])
    total, stale = len(view.names), 0
    with show_progress(True, "granules") as report:
        for done, (name, reason) in enumerate(verify_granules(view.view_store.tree), start=1):
            report(done, total)
            if reason is not None:
                stale += 1
                typer.echo(f"{name}: {reason}")
    typer.echo(f"{stale:,} of {total:,} granules have files that changed or are missing")
    if stale:
        raise typer.Exit(STALE)


@with_options
def index_command(
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


@with_options
def delete_command(
    source: StoreOptions,
    search: SearchOptions,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete matching granules from a collection in one commit. Earlier snapshots keep them."""
    query = search.query()
    if not query.conditions:
        raise typer.BadParameter(
            "name the granules to delete, all by --where true", param_hint="--where, --bbox, …"
        )
    collection = source.open(authorize=False)
    count = collection.search(query, fields=[]).num_rows
    if count and not yes:
        typer.confirm(f"Delete {count:,} of {len(collection):,} granules?", abort=True, err=True)
    typer.echo(f"{collection.delete(query):,} granules deleted")

"""The command ``l2view``."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import icechunk
import typer
from rich.console import Console

from l2view.cli import delete, demo, index, info, ingest, mosaic, search, sql, tree, verify
from l2view.errors import L2ViewError

app = typer.Typer(
    name="l2view",
    help="Search a collection of Level 2 granules with SQL, get a Zarr group of those that match.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)
app.command("info")(info.show_info)
app.command("search")(search.search_granules)
app.command("sql")(sql.run_sql)
app.command("tree")(tree.show_tree)
app.command("mosaic")(mosaic.make_mosaic)
app.command("ingest")(ingest.ingest_files)
app.command("verify")(verify.verify_files)
app.command("index")(index.build_indexes)
app.command("delete")(delete.delete_granules)
app.command("demo")(demo.run_demo)


@app.callback(invoke_without_command=True)
def version(
    show: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    """Print the version where it is asked for."""
    if show:
        from l2view import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command: 0 where it worked, 1 for an error of the data, 2 for one of usage."""
    icechunk.set_logs_filter("error")
    errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def show(message: Warning | str, *_: Any) -> None:
        errors.print("[yellow]warning:[/]", end=" ")
        errors.print(str(message), markup=False)

    warnings.showwarning = show  # type: ignore[assignment]
    try:
        app()
    except (L2ViewError, OSError) as error:
        errors.print("[red]error:[/]", end=" ")
        errors.print(str(error), markup=False)
        sys.exit(1)

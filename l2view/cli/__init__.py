"""The command ``l2view``."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from l2view.errors import L2ViewError

COMMANDS = {
    "info": "Describe a collection, or those of its granules that match: count, times, fields.",
    "search": "Find granules and write their rows. Conditions are combined with AND.",
    "sql": "Run an SQL query over the table meta and the arrays of a store, and write its rows.",
    "tree": "Show the groups and arrays of matching granules, of the first 10 without --limit.",
    "mosaic": "Resample matching granules to one image, with the first of --order-by on top.",
    "ingest": "Add granules to a collection, without copying their data.",
    "verify": "Find granules whose files changed since ingest, or are missing.",
    "index": "Build the indexes by which searches read less.",
    "delete": "Delete matching granules from a collection in one commit. "
    "Earlier snapshots keep them.",
    "demo": "Write granules in real formats, search them, read them back and check every value.",
}
"""The line of each command in the help, the first of its function's docstring."""

SETTINGS: dict[str, Any] = {"rich_markup_mode": "rich", "pretty_exceptions_show_locals": False}


class CommandTable(TyperGroup):
    """Imports a command's module when the command is run, completed or explained."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Find the command that `args` start with: not its stand-in of the table, but itself."""
        name, command, remaining = super().resolve_command(ctx, args)
        return name, command and load_command(str(name)), remaining


def load_command(name: str) -> Any:
    """Import the command `name`, with its options."""
    import_module("icechunk").set_logs_filter("error")
    module = name if name in ("demo", "mosaic") else "commands"
    function = getattr(import_module(f"l2view.cli.{module}"), f"{name}_command")
    single = typer.Typer(add_completion=False, **SETTINGS)
    single.command(name)(_ends_with_its_reader()(function))
    return typer.main.get_command(single)


@contextmanager
def _ends_with_its_reader() -> Iterator[None]:
    """End a command without an error where the reader of its pipe has seen enough."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None


app = typer.Typer(
    name="l2view",
    cls=CommandTable,
    help="Search a collection of Level 2 granules with SQL, get a Zarr group of those that match.",
    no_args_is_help=True,
    **SETTINGS,
)
for name, summary in COMMANDS.items():
    app.command(name, help=summary)(lambda: None)


@app.callback(invoke_without_command=True)
def version(
    show: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    """Print the version where it is asked for."""
    if show:
        typer.echo(import_module("l2view").__version__)
        raise typer.Exit


def main() -> None:
    """Run the command: 0 where it worked, 1 for an error of the data, 2 for one of usage."""
    warnings.showwarning = lambda message, *_: _show("[yellow]warning:[/]", message)
    # Of texts of a fixed length: zarr's warning to those who write arrays of them.
    warnings.filterwarnings("ignore", ".*does not have a Zarr V3 specification")
    try:
        app()
    except (L2ViewError, OSError) as error:
        _show("[red]error:[/]", error)
        sys.exit(1)


def _show(kind: str, message: object) -> None:
    console = import_module("rich.console").Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(kind, end=" ")
    console.print(str(message), markup=False)

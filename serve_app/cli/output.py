"""What commands print: JSON for programs, on stdout alone, and tables for people."""

import json
import os
import sys
from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]

PIPED_WIDTH: Final = 500


def print_json(value: Any, *, finite: bool = False) -> None:
    """Print a struct, a dataclass or plain values as indented JSON.

    NaN and infinities, which JSON lacks, are null; with ``finite`` they raise ValueError.
    """
    if finite:
        json.dumps(msgspec.to_builtins(value), allow_nan=False)
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    sys.stdout.write(text + "\n")


def counted(count: int, noun: str) -> str:
    """Put a regular noun behind its number.

    >>> counted(1, "problem"), counted(0, "problem")
    ('1 problem', '0 problems')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def print_table(title: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table; None stands as an empty cell, and markup in a value is left as text."""
    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else _escaped(cell) for cell in row))
    show_table(table)


def show_table(table: Table) -> None:
    """Print rich's table.

    Into a pipe or a file rows are as wide as they need, unless ``COLUMNS`` says otherwise.
    """
    free = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    Console(width=PIPED_WIDTH if free else None).print(table)


def _escaped(cell: object) -> str:
    from rich.markup import escape

    return escape(str(cell))

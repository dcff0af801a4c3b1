"""Printing tables."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_whole(console: "Console", table: "Table") -> None:
    """A table in its full width, whatever the terminal's: a wrapped row of numbers cannot be read."""
    for column in table.columns:
        column.no_wrap = True
    needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
    # `console.print` never goes beyond the console's own width.
    type(console)(file=console.file, width=max(console.width, needed)).print(table, crop=False)

"""How the commands speak: results on standard output, everything else on standard error.

People at a terminal get colours, tables and progress bars; a pipe gets the same words plainly, and
``--json`` what programs read. Nothing that a text or a file name holds can steer the terminal.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from typer import Option

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

Json = Annotated[bool, Option("--json", help="Write JSON, for programs.")]
Device = Annotated[
    str | None, Option(help="Where the model runs: cpu, cuda, cuda:1, mps; by default the best.")
]
Dtype = Annotated[
    str, Option(help="What the model computes in: float32, bfloat16, float16, int8 or auto.")
]

DEFAULT_MODEL = "m3-small"
"""Comes with the package, so that every command works offline and at once."""

# Wider than any line that is meant for a pipe, so that nothing is wrapped or cut there.
_PIPE_WIDTH = 1 << 16
# Of columns whose cells may be wrapped.
_LEAST_WIDTH = 12
# Marks that reorder what stands around them.
_REORDERING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


class Advance(Protocol):
    """Moves a progress bar."""

    def __call__(
        self, done: float | None = None, total: float | None = None, note: str | None = None
    ) -> None:
        """Show how far the work is.

        Args:
            done: How much is done; one more than before if ``None``.
            total: How much there is.
            note: What is worked on.
        """


def clean(text: str, *, lines: bool = False) -> str:
    r"""Make text of anywhere safe to show: no escape sequence reaches the terminal.

    Args:
        text: The text.
        lines: Keep line breaks and tabs; else they become spaces.

    Returns:
        The text, with other control characters and marks that reorder text replaced.

    Example:
        >>> clean("a\x1b[31mb\n")
        'a\ufffd[31mb '
    """
    shown = []
    for one in text:
        if one in "\n\t":
            shown.append(one if lines else " ")
        elif unicodedata.category(one) in ("Cc", "Cs") or ord(one) in _REORDERING:
            shown.append("\ufffd")
        else:
            shown.append(one)
    return "".join(shown)


def near(path: str) -> str:
    """Shorten a path to what one would write here.

    Args:
        path: Absolute, with slashes.

    Returns:
        The path from the current folder, if it lies in there.
    """
    return path.removeprefix(f"{Path.cwd().as_posix().rstrip('/')}/")


def output() -> Console:
    """Where results go: standard output.

    Returns:
        A console that wraps for a terminal, and never in a pipe.
    """
    return _console(sys.stdout)


def notes() -> Console:
    """Where everything else goes: standard error.

    Returns:
        A console, as ``output``.
    """
    return _console(sys.stderr)


def note(message: str) -> None:
    """Say something that is no result.

    Args:
        message: A line.
    """
    notes().print(clean(message, lines=True), style="dim", markup=False, soft_wrap=True)


def write_line(values: Any) -> None:
    """Write a line of JSON to standard output.

    Args:
        values: Plain values.
    """
    sys.stdout.write(json.dumps(values, ensure_ascii=not _is_unicode()) + "\n")


def write(values: Any) -> None:
    """Write a command's result to standard output, as one JSON object.

    Args:
        values: Plain values.
    """
    sys.stdout.write(json.dumps(values, ensure_ascii=not _is_unicode(), indent=2) + "\n")


def write_table(
    rows: Iterable[Sequence[str | Text]], columns: Sequence[str], numbers: Sequence[str] = ()
) -> None:
    """Write a table to standard output: with a frame for people, with tabs into a pipe.

    Args:
        rows: As many cells as columns; no cell needs cleaning before.
        columns: Their names.
        numbers: Of these, those whose cells stand on the right.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = output()
    if not console.is_terminal:
        sys.stdout.write("\t".join(columns) + "\n")
        for row in rows:
            sys.stdout.write("\t".join(clean(str(cell)) for cell in row) + "\n")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        is_number = column in numbers
        table.add_column(
            column,
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row))
    _print_whole(console, table)


def write_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Write names with values to standard output, one a line.

    Args:
        pairs: No value needs cleaning before.
    """
    from rich.table import Table
    from rich.text import Text

    console, listed = output(), list(pairs)
    if not console.is_terminal:
        for name, value in listed:
            line = clean(value.replace("\n", "; "))
            sys.stdout.write(f"{name}\t{line}\n")
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in listed:
        table.add_row(name, Text(clean(value, lines=True)))
    _print_whole(console, table)


def _print_whole(console: Console, table: Table) -> None:
    """Print a table with all figures and names whole: narrow terminals wrap its lines."""
    from rich.cells import cell_len

    for column in table.columns:
        cells = [str(column.header), *map(str, column.cells)]
        longest = max(cell_len(one) for one in cells)
        least = max(_LEAST_WIDTH, cell_len(cells[0]))
        column.min_width = longest if column.no_wrap else min(longest, least)
    needed = sum(column.min_width or 0 for column in table.columns) + 3 * len(table.columns)
    console.width = max(console.width, needed)
    console.print(table)


@contextmanager
def progress(what: str, total: float | None = None) -> Iterator[Advance]:
    """Show a progress bar on standard error, if that is a terminal; gone when the work is done.

    Args:
        what: What is done.
        total: How much there is, if it is known.

    Yields:
        What moves it.
    """
    console = notes()
    if not console.is_terminal:
        yield _nowhere
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total, note="")

        def advance(
            done: float | None = None, total: float | None = None, note: str | None = None
        ) -> None:
            fields: dict[str, Any] = {} if note is None else {"note": clean(note)}
            bar.update(
                task, completed=done, total=total, advance=1 if done is None else None, **fields
            )

        yield advance


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on standard error what takes a moment, if that is a terminal.

    Args:
        what: What is done.

    Yields:
        To the work.
    """
    console = notes()
    if not console.is_terminal:
        yield
        return
    with console.status(clean(what), spinner="dots"):
        yield


def read_lines(*, keep_empty: bool = False) -> list[str]:
    """Read standard input, a text a line.

    Args:
        keep_empty: Give empty lines too.

    Returns:
        The lines.

    Raises:
        ValueError: It is not UTF-8, or says nothing.
    """
    data = sys.stdin.buffer.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"standard input is not UTF-8 in line {line}") from error
    if not text.strip():
        raise ValueError("standard input says nothing, and - reads it")
    lines = text.replace("\r\n", "\n").split("\n")
    return [line for line in lines if keep_empty or line.strip()]


def _nowhere(
    done: float | None = None, total: float | None = None, note: str | None = None
) -> None:
    """Move nothing."""


def _is_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def _console(stream: Any) -> Console:
    from rich.console import Console

    class OurConsole(Console):
        """One that leaves a reader's going away to the command."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    console = OurConsole(file=stream, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console

"""The ``m3-retrieval`` command.

Commands stand in the files beside this one, each with an ``app`` of its own that is added below.
What they need beyond their options they import when they run, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from m3_core import __version__
from m3_core.cli import evaluating, exporting, training
from m3_core.cli.commands import new_app

if TYPE_CHECKING:
    from collections.abc import Sequence

app = new_app("m3-retrieval")
app.add_typer(training.app)
app.add_typer(exporting.app)
app.add_typer(evaluating.app)


def _show_version(asked: bool) -> None:  # noqa: FBT001 (typer's callback)
    if asked:
        sys.stdout.write(f"m3-retrieval {__version__}\n")
        raise typer.Exit


@app.callback()
def _describe(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """Train, distill, mine, mix, evaluate and export models of the BGE-M3 kind."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit status, 2 after an error.

    Args:
        arguments: Those after the command's name; the process's own if ``None``.
    """
    app(arguments, prog_name=app.info.name)


if __name__ == "__main__":
    main()

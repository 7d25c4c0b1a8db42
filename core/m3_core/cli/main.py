"""The ``m3-retrieval`` command.

Commands stand in the files beside this one, each with an ``app`` of its own that is added below.
What they need beyond their options they import when they run, so that ``--help`` is quick.
"""

from __future__ import annotations

import atexit
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from m3_core import __version__
from m3_core.cli import (
    bulk,
    demo,
    describing,
    evaluating,
    exporting,
    indexing,
    scoring,
    searching,
    serving,
    training,
)
from m3_core.cli.commands import FAILED, INTERRUPTED, described, new_app

if TYPE_CHECKING:
    from collections.abc import Sequence

app = new_app("m3-retrieval", completion=True)
app.add_typer(demo.app)
app.add_typer(indexing.app)
app.add_typer(searching.app)
app.add_typer(scoring.app)
app.add_typer(describing.app)
app.add_typer(training.app)
app.add_typer(exporting.app)
app.add_typer(evaluating.app)
app.add_typer(serving.app)
app.add_typer(bulk.app)


def _show_version(asked: bool) -> None:  # noqa: FBT001 (typer's callback)
    if asked:
        sys.stdout.write(f"m3-retrieval {__version__}\n")
        raise typer.Exit


@app.callback()
def _describe(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Search your own texts by meaning and by words, with models of the BGE-M3 kind.

    Begin with:
      m3-retrieval index docs --to docs.m3      text, Markdown, HTML, JSON lines
      m3-retrieval search docs.m3 "a question"
      m3-retrieval explain "a question" "a text"         why it matches
      m3-retrieval demo                          what it finds that others do not

    Without --model the model m3-small is used, which comes with the package: nothing is downloaded.
    Results go to standard output, all else to standard error; --json is for programs.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit status, 2 after an error.

    Args:
        arguments: Those after the command's name; the process's own if ``None``.
    """
    try:
        app(arguments, prog_name=app.info.name)
    except OSError as error:
        # Of the help or the version, which no command writes.
        with suppress(OSError):
            sys.stderr.write(f"{app.info.name}: {described(error)}\n")
        sys.exit(FAILED)


def script() -> None:
    """Run the command as a process of its own, and end that.

    Libraries that are taken down while their threads still end, or that were interrupted while
    they were being loaded, may abort the process on its way out, as torch does. All that the
    command had to do is done by then: whoever wants to be told of the end is, and the process ends.
    """
    status: object = 0
    _occupy_closed_streams()
    try:
        main()
    except SystemExit as end:
        status = end.code
    except KeyboardInterrupt:
        status = INTERRUPTED
    if not isinstance(status, int):
        status = int(status is not None)
    try:
        atexit._run_exitfuncs()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def _occupy_closed_streams() -> None:
    """Put something into the place of standard streams that the caller has closed.

    Otherwise the next file that is opened takes their number, and gets what others write to it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        # What reads standard input finds its end; results that nobody can get are an error.
        handle = os.open(os.devnull, os.O_RDONLY if name != "stderr" else os.O_WRONLY)
        try:
            os.fstat(number)
        except OSError:
            os.dup2(handle, number)
            handle = number
        # Without a buffer, so that nothing is left to be written when the process ends.
        file = open(handle, "rb" if name == "stdin" else "wb", buffering=0, closefd=False)  # noqa: SIM115
        setattr(sys, name, io.TextIOWrapper(file, encoding="utf-8", write_through=True))


if __name__ == "__main__":
    script()

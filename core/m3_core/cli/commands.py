"""What the commands share: options made from dataclasses, options with several values, errors.

Exit statuses: 0, 1 where a search found nothing, 2 after an error, 130 after Ctrl-C (143 after
``SIGTERM``), 141 where the reader of a pipe went away.
"""

from __future__ import annotations

import dataclasses
import errno
import inspect
import io
import logging
import os
import signal
import sys
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from m3_core.cli.console import clean, write
from m3_core.errors import M3Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


NOTHING_FOUND, FAILED, INTERRUPTED, NO_READER = 1, 2, 130, 141

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "NOTHING_FOUND",
    "NO_READER",
    "Command",
    "Commands",
    "described",
    "fields_of",
    "new_app",
    "write",
]


class Command(TyperCommand):
    """A command whose list options take several values: ``--data a.jsonl b.jsonl``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the name of a list option before each of its values, as typer reads them."""
        lists = {
            name for one in self.params if getattr(one, "multiple", False) for name in one.opts
        }
        spread: list[str] = []
        current, values = "", 0
        for arg in args:
            if arg.startswith("--"):
                current, values = arg, 0
            else:
                if current in lists and values:
                    spread.append(current)
                values += 1
            spread.append(arg)
        return super().parse_args(ctx, spread)


class Commands(TyperGroup):
    """Commands whose errors are one line on standard error, with exit status 2.

    In their help, paragraphs with an indented line stand as they are written.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for one in (self, *self.commands.values()):
            one.help = _laid_out(one.help)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        # It tells of every request.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        name = ctx.command_path
        for stream in (sys.stdout, sys.stderr):
            # What a stream of another encoding than UTF-8 cannot show is no reason to end.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            with _one_line_warnings(), _ended_by_signals():
                result = super().invoke(ctx)
                sys.stdout.flush()
                return result
        except BrokenPipeError:
            _let_go_of_output()
            raise typer.Exit(NO_READER) from None
        except KeyboardInterrupt as stop:
            sys.stderr.write(f"{name} {ctx.invoked_subcommand}: interrupted\n")
            raise typer.Exit(stop.args[0] if stop.args else INTERRUPTED) from None
        except (M3Error, ValueError, OSError) as error:
            line = clean(" ".join(described(error).split()))
            sys.stderr.write(f"{name} {ctx.invoked_subcommand}: {line}\n")
            raise typer.Exit(FAILED) from error


def _laid_out(text: str | None) -> str | None:
    """Mark paragraphs with an indented line as not to be wrapped."""
    if text is None:
        return None
    return "\n\n".join(
        f"\b\n{one}" if "\n " in one and not one.startswith("\b") else one
        for one in inspect.cleandoc(text).split("\n\n")
    )


def described(error: Exception) -> str:
    """Put an error into words: what the system says comes without its number.

    Args:
        error: The error.

    Returns:
        Its text.
    """
    if isinstance(error, OSError) and error.errno == errno.EBADF and error.filename is None:
        return "standard output is closed"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, M3Error):
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _let_go_of_output() -> None:
    """Have nothing complain about what can no longer be written."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End by ``SIGTERM`` as by Ctrl-C, so that files are left whole."""

    def stop(number: int, _: Any) -> None:
        raise KeyboardInterrupt(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:
        # Signals belong to the main thread.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Write warnings without the place in our code that they come from."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print_warning(str(message))
        yield


def print_warning(message: str) -> None:
    """Write a warning to standard error.

    Args:
        message: What it says.
    """
    sys.stderr.write(f"warning: {clean(' '.join(message.split()))}\n")


def new_app(name: str | None = None, *, completion: bool = False) -> typer.Typer:
    """Make a group of commands.

    Args:
        name: What starts it; none for commands that another group takes over.
        completion: Offer to complete its commands and options in a shell.

    Returns:
        The group: plain text, no traces with local variables.
    """
    return typer.Typer(
        name=name,
        cls=Commands,
        no_args_is_help=True,
        add_completion=completion,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def fields_of(
    options: type[Any], renamed: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of a dataclass, and the finished dataclass.

    The command takes it as its last positional argument, after those of decorators further out.

    Args:
        options: The dataclass; its fields are ``Annotated`` with a ``Doc``.
        renamed: Options that are called otherwise than their field.

    Returns:
        A decorator, to stand below ``app.command``.
    """
    names = renamed or {}

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(run, eval_str=True).parameters.values()
        kept = [one for one in own if one.kind is one.KEYWORD_ONLY]
        made = list(_parameters(options, names))

        def command(*others: Any, **values: Any) -> None:
            entries = {
                entry.name: values.pop(names.get(entry.name, entry.name))
                for entry in dataclasses.fields(options)
            }
            tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in entries.items()}
            run(*others, options(**tuples), **values)

        command.__name__, command.__doc__ = run.__name__, run.__doc__
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # read by typer
            [*kept, *made]
        )
        return command

    return decorate


def _parameters(options: type[Any], renamed: Mapping[str, str]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(options, include_extras=True)
    for entry in dataclasses.fields(options):
        hint, doc = get_args(hints[entry.name])
        if get_args(hint)[1:] == (...,):
            # typer knows no tuples of any length, nor lists of choices, which options check.
            hint = list[str]
        default = ... if entry.default is dataclasses.MISSING else entry.default
        yield inspect.Parameter(
            renamed.get(entry.name, entry.name),
            inspect.Parameter.KEYWORD_ONLY,
            default=typer.Option(default, help=doc.documentation),
            annotation=hint,
        )

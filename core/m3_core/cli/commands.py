"""What the commands share: options made from dataclasses, options with several values, errors."""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import sys
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from m3_core.errors import M3Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


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
    """Commands whose errors are one line on standard error, with exit status 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        try:
            return super().invoke(ctx)
        except (M3Error, ValueError, OSError) as error:
            line = " ".join(str(error).split())
            sys.stderr.write(f"{ctx.command_path} {ctx.invoked_subcommand}: {line}\n")
            raise typer.Exit(2) from error


def new_app(name: str | None = None) -> typer.Typer:
    """Make a group of commands.

    Args:
        name: What starts it; none for commands that another group takes over.

    Returns:
        The group: plain text, no traces with local variables.
    """
    return typer.Typer(
        name=name,
        cls=Commands,
        no_args_is_help=True,
        add_completion=False,
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


def write(values: Any) -> None:
    """Write a command's result to standard output, as JSON.

    Args:
        values: Plain values.
    """
    sys.stdout.write(json.dumps(values, ensure_ascii=False, indent=2) + "\n")

"""``m3-retrieval demo``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from m3_core.cli.commands import new_app, write

if TYPE_CHECKING:
    from collections.abc import Collection

app = new_app()


@app.command()
def demo(
    context: typer.Context,
    questions: Annotated[
        list[str] | None, Argument(help="Questions of your own, in place of the tour.")
    ] = None,
    *,
    model: Annotated[
        str,
        Option(envvar="M3_MODEL", help="The embedded model, a folder or a hub repository."),
    ] = "m3-small",
    json: Annotated[
        bool, Option("--json", help="Print what is found as JSON, without the frameworks.")
    ] = False,
) -> None:
    """Show what each representation finds, on texts in seven languages."""
    from m3_core.cli import demo_tour

    corpus = demo_tour.load(model)
    if json:
        write({"model": model, "answers": demo_tour.found(corpus, questions or [])})
    elif questions:
        demo_tour.answer(corpus, questions)
    else:
        demo_tour.tour(corpus, model, _commands(context))


def _commands(context: typer.Context) -> Collection[str]:
    """The names of all commands there are."""
    group = context.parent.command if context.parent else context.command
    return getattr(group, "commands", {})

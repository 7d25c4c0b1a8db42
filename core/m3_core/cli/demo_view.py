"""The demo for the eye: tables that hold at 80 columns, and plain text in a pipe.

Passages are written last in their lines: wide characters and combining marks, which terminals
count differently, and scripts from right to left, which some put in order themselves, have nothing
behind them to shift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from m3_core.cli.demo_search import DEPTH, RANKINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from m3_core.cli.demo_frameworks import Snippet
    from m3_core.cli.demo_search import Answer, Hit

NAMES = {"dense": "dense", "sparse": "lexical", "colbert": "multi-vector", "hybrid": "hybrid"}
LANGUAGES = ("en", "de", "es", "zh", "ru", "hi", "ar")
# From here on code and its output fit side by side.
_WIDE = 118
_RIGHT, _WRONG, _NAME = "green", "dim", "cyan"


def heading(title: str) -> RenderableType:
    """Draw a line with a title.

    Args:
        title: The title.

    Returns:
        What rich prints.
    """
    return Group("", Rule(Text(title, style="bold"), align="left", style=_NAME))


def indented(content: RenderableType) -> RenderableType:
    """Move something two columns to the right.

    Args:
        content: What rich prints.

    Returns:
        The same, moved.
    """
    return Padding(content, (0, 0, 0, 2))


def asked(answer: Answer) -> RenderableType:
    """Show a question, what it shows and the rankings side by side.

    Args:
        answer: Its answer.

    Returns:
        What rich prints.
    """
    question = answer.question
    lines: list[RenderableType] = [heading(question.title or "Your question")]
    lines.append(Text(f"? {question.text}", style="bold"))
    if question.note:
        lines.append(indented(Text(question.note)))
    return Group(*lines, "", indented(rankings(answer)))


def rankings(answer: Answer) -> Table:
    """Put the rankings of a question side by side.

    Args:
        answer: Its answer.

    Returns:
        A column a ranking, headed by whether its first hit is on topic.
    """
    table = Table.grid(padding=(0, 2))
    for _ in RANKINGS:
        table.add_column(no_wrap=True)
    table.add_row(*(_head(answer, name) for name in RANKINGS))
    depth = answer.question.shown
    for place in range(depth):
        columns = [answer.rankings[name] for name in RANKINGS]
        if any(place < len(hits) for hits in columns):
            table.add_row(*(_cell(answer, hits, place) for hits in columns))
    if depth == DEPTH and answer.question.topic:
        counts = (len(answer.languages(name)) for name in RANKINGS)
        table.add_row(*(Text(f"{n} of 7 languages", style="bold") for n in counts))
    return table


def _head(answer: Answer, name: str) -> Text:
    is_right = answer.is_first_right(name)
    mark = {True: " ✓", False: " ✗", None: ""}[is_right]
    text = Text(NAMES[name], style=f"bold {_NAME}")
    return text.append(mark, style="bold green" if is_right else "bold red")


def _cell(answer: Answer, hits: Sequence[Hit], place: int) -> Text:
    if place >= len(hits):
        return Text("")
    hit = hits[place]
    style = _RIGHT if answer.question.topic is None or answer.is_right(hit) else _WRONG
    passage = hit.passage
    return Text(f"{passage.language} {passage.topic:8} {hit.score:6.3f}", style=style)


def passages(hits: Sequence[Hit]) -> Table:
    """Write passages below each other, whole, each behind its language.

    Args:
        hits: The passages.

    Returns:
        What rich prints.
    """
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for hit in hits:
        table.add_row(Text(hit.passage.language, style=_NAME), Text(hit.passage.text))
    return table


def survey(answers: Sequence[Answer]) -> Table:
    """Count in which languages a question about each topic finds it.

    Args:
        answers: Of one question a topic.

    Returns:
        A line a topic, a column a language.
    """
    table = Table.grid(padding=(0, 2))
    table.add_row(
        "", *(Text(language, style=_NAME) for language in LANGUAGES), Text("asked", style=_NAME)
    )
    for answer in answers:
        found = answer.languages("hybrid")
        marks = (
            Text("✓", style="bold green") if language in found else Text("·", style="dim")
            for language in LANGUAGES
        )
        question = answer.question
        table.add_row(Text(question.topic or ""), *marks, Text(question.text, style="dim"))
    return table


def snippet(snippet: Snippet, output: RenderableType, width: int) -> RenderableType:
    """Show code beside what it printed, or above where the terminal is narrow.

    Args:
        snippet: The code.
        output: What it printed, or why it did not run.
        width: Columns there are.

    Returns:
        What rich prints.
    """
    from rich.syntax import Syntax

    code = Syntax(
        snippet.code.rstrip(), "python", theme="ansi_dark", background_color="default", padding=0
    )
    title = heading(f"{snippet.framework} in five lines")
    if width < _WIDE:
        return Group(title, indented(code), "", indented(output))
    table = Table.grid(padding=(0, 3))
    table.add_column(width=max(len(line) for line in snippet.code.splitlines()))
    table.add_column()
    table.add_row(code, output)
    return Group(title, indented(table))


def cut_lines(lines: Sequence[str]) -> Text:
    """Show lines, each cut where the room ends.

    Args:
        lines: The lines.

    Returns:
        What rich prints.
    """
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")


def suggestions(rows: Mapping[str, str]) -> Table:
    """List commands and what they do.

    Args:
        rows: What to type, and what it does.

    Returns:
        What rich prints.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for command, meaning in rows.items():
        table.add_row(Text(command, style="bold"), Text(meaning))
    return table


def make_console(*, stderr: bool = False) -> Console:
    """Make a console that no encoding of the terminal stops.

    Args:
        stderr: Whether it writes to standard error.

    Returns:
        The console: colours on a terminal without ``NO_COLOR``, plain text elsewhere.
    """
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=False)
    reconfigure = getattr(console.file, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return console

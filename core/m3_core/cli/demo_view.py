"""The demo for the eye: tables that hold at 80 columns, and plain text in a pipe.

Passages are written last in their lines: wide characters and combining marks, which terminals
count differently, and scripts from right to left, which some put in order themselves, have nothing
behind them to shift.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from m3_core.cli.cells import cut, wrap
from m3_core.cli.demo_search import DEPTH, LANGUAGES, RANKINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from m3_core.cli.demo_frameworks import Snippet
    from m3_core.cli.demo_search import Answer, Hit
    from m3_core.cli.demo_words import Match, Matches

NAMES = {"dense": "dense", "sparse": "lexical", "colbert": "multi-vector", "hybrid": "hybrid"}
# From here on code and its output fit side by side.
_WIDE = 118
# Of a ranking: language, topic, score; and what is between two.
_CELL, _GAP = 18, 2
# Spaces at the end of a line, with what changes colours.
_FILL = re.compile(r"(?: |\x1b\[[\d;]*m)+$")
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


def asked(answer: Answer, matches: Mapping[str, Matches], width: int) -> RenderableType:
    """Show a question, what it shows, the rankings side by side, and why their first hits matched.

    Args:
        answer: Its answer.
        matches: For some rankings the words that matched in the first hit.
        width: Columns there are.

    Returns:
        What rich prints.
    """
    question = answer.question
    lines: list[RenderableType] = [heading(question.title or "Your question")]
    lines.append(Text(f"? {question.text}", style="bold"))
    if question.note:
        lines.append(indented(Text(question.note)))
    lines.extend(["", indented(rankings(answer, width - 2))])
    if matches:
        lines.extend(["", indented(_why(answer, matches))])
    return Group(*lines)


def _why(answer: Answer, matches: Mapping[str, Matches]) -> Table:
    """The words that matched in the first hit of the lexical and the multi-vector ranking."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    meanings = {"sparse": "words in common", "colbert": "closest words"}
    for name, found in matches.items():
        passage = answer.rankings[name][0].passage
        label = Text(meanings[name], style=_NAME)
        words = getattr(found, name)
        line = Text(f"{passage.language} {passage.topic}: ")
        line.append(_listed(words) or "none", style="bold")
        table.add_row(label, line)
    return table


def _listed(matches: Sequence[Match]) -> str:
    return " · ".join(map(str, matches))


def rankings(answer: Answer, width: int) -> RenderableType:
    """Put the rankings of a question side by side, as many as there is room for.

    Args:
        answer: Its answer.
        width: Columns of the terminal there are.

    Returns:
        A column a ranking, headed by whether its first hit is on topic.
    """
    beside = max(min((width + _GAP) // (_CELL + _GAP), len(RANKINGS)), 1)
    starts = range(0, len(RANKINGS), beside)
    return Group(*(_side_by_side(answer, RANKINGS[at : at + beside]) for at in starts))


def _side_by_side(answer: Answer, names: Sequence[str]) -> Table:
    table = Table.grid(padding=(0, _GAP))
    for _ in names:
        table.add_column(no_wrap=True, min_width=_CELL)
    table.add_row(*(_head(answer, name) for name in names))
    columns = [answer.rankings[name] for name in names]
    depth = answer.question.shown
    for place in range(min(depth, max(map(len, columns)))):
        table.add_row(*(_cell(answer, hits, place) for hits in columns))
    if depth == DEPTH and answer.question.topic:
        counts = (len(answer.languages(name)) for name in names)
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


def passages(
    hits: Sequence[tuple[Hit, Matches]], width: int, *, reasons: bool = False
) -> RenderableType:
    """Write passages below each other, whole, each behind its language.

    Args:
        hits: The passages, with the words in them that matched, which stand out.
        width: Columns there are.
        reasons: Say below each which words of the question they are closest to.

    Returns:
        What rich prints.
    """
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ignore")
    room = width - len("  en ")
    for hit, matches in hits:
        text = Text(hit.passage.text)
        for start, end in matches.places:
            text.stylize("bold", start, end)
        table.add_row(Text(hit.passage.language, style=_NAME), wrap(text, room))
        if reasons and matches.colbert:
            table.add_row("", wrap(Text(_listed(matches.colbert), style=_RIGHT), room))
    return table


def survey(answers: Sequence[Answer], width: int) -> Table:
    """Count in which languages a question finds its topic.

    Args:
        answers: Of questions with a topic.
        width: Columns there are.

    Returns:
        A line a question, a column a language.
    """
    table = Table.grid(padding=(0, 2))
    for _ in range(4):
        table.add_column(no_wrap=True, overflow="ignore")
    header = Text(" ".join(LANGUAGES), style=_NAME)
    table.add_row("", " " * 8, header, Text("question", style=_NAME))
    room = width - len(f"  en  {'topic':8}  {header.plain}  ")
    for answer in answers:
        found = answer.languages("hybrid")
        marks = Text()
        for language in LANGUAGES:
            is_found = language in found
            marks.append("✓  " if is_found else "·  ", style="bold green" if is_found else "dim")
        marks.right_crop(2)
        question = answer.question
        line = cut(question.text, room)
        table.add_row(question.language, question.topic, marks, line)
    return table


def snippet_beside(
    snippet: Snippet, given: str, output: Sequence[str], width: int
) -> RenderableType:
    """Show code beside what it printed, or above where the terminal is narrow.

    Args:
        snippet: The code.
        given: What the code knows already.
        output: The lines that it printed, or why it did not run; each is cut where the room ends.
        width: Columns there are.

    Returns:
        What rich prints.
    """
    code = Text(snippet.code.rstrip())
    # Colours that light and dark terminals both show.
    code.highlight_regex(r"\b(from|import|for|in|print|True)\b", _NAME)
    title = heading(f"{snippet.framework} in five lines")
    known = indented(Text(given, style="dim"))
    if width < _WIDE:
        printed = Text("\n".join(cut(line, width - 2) for line in output))
        return Group(title, known, "", indented(code), "", indented(printed))
    longest = max(len(line) for line in snippet.code.splitlines())
    printed = Text("\n".join(cut(line, width - 2 - longest - 3) for line in output))
    table = Table.grid(padding=(0, 3))
    table.add_column(width=longest)
    table.add_column(no_wrap=True, overflow="ignore")
    table.add_row(code, printed)
    return Group(title, known, "", indented(table))


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
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    reconfigure = getattr(console.file, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return console


def show(console: Console, *contents: RenderableType) -> None:
    """Print, but no spaces at the ends of lines: where a line is wider than rich thinks, they wrap.

    Args:
        console: Where to.
        *contents: What rich prints, one below the other.
    """
    with console.capture() as captured:
        console.print(*contents, sep="\n")
    lines = captured.get().splitlines()
    console.file.write("".join(f"{_FILL.sub(_codes, line)}\n" for line in lines))
    console.file.flush()


def _codes(fill: re.Match[str]) -> str:
    """What changes colours among the spaces."""
    return fill.group().replace(" ", "")

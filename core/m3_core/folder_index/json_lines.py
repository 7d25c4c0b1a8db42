"""JSON lines: a document a line, with its metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from m3_core.collection import copied_metadata, metadata_to_json
from m3_core.json_text import parse_json

TEXT_FIELDS = ("text", "contents", "content", "body", "document", "passage")
"""Where the text is looked for, the first that is there."""

OWN_FIELDS = frozenset(
    {"path", "root", "format", "line", "end_line", "heading", "passage", "passages", "digest"}
)
"""Names of what is known of every passage."""

_TOLD = 3


@dataclass(frozen=True, slots=True)
class JsonLine:
    """A document.

    Attributes:
        text: Its text.
        headings: Its title, if it has one.
        line: Where it stands, counted from 1.
        metadata: All other fields.
    """

    text: str
    headings: tuple[str, ...]
    line: int
    metadata: dict[str, Any]


@dataclass(slots=True)
class JsonLines:
    """What a file of JSON lines says.

    Attributes:
        lines: Its documents.
        problem: What is wrong with the other lines; ``""`` for nothing.
    """

    lines: list[JsonLine] = field(default_factory=list)
    problem: str = ""


def read_json_lines(text: str, text_field: str | None) -> JsonLines:
    """Read documents, each a JSON object in a line.

    Args:
        text: The lines; empty ones are passed over.
        text_field: Which field is the text; else the first of ``TEXT_FIELDS`` that is there.

    Returns:
        The documents. Fields other than text and title are metadata; those of names that the
        passages' own metadata have get ``jsonl.`` in front.

    Example:
        >>> read_json_lines('{"title": "A", "text": "x", "year": 2020}', None).lines[0].metadata
        {'year': 2020}
        >>> read_json_lines('{"title": "A"}', None).problem
        'line 1: no text in any of text, contents, content, body, document, passage'
    """
    found, wrong = JsonLines(), list[str]()
    count = 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.lines.append(_read(line, number, text_field))
        except (ValueError, TypeError) as error:
            count += 1
            if count <= _TOLD:
                wrong.append(f"line {number}: {error}")
    if count > _TOLD:
        wrong.append(f"and {count - _TOLD:,} more lines")
    found.problem = "; ".join(wrong)
    return found


def _read(line: str, number: int, text_field: str | None) -> JsonLine:
    try:
        given = parse_json(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(given, dict):
        raise TypeError(f"{type(given).__name__} in place of an object")
    names = (text_field,) if text_field else TEXT_FIELDS
    name = next((one for one in names if isinstance(given.get(one), str)), None)
    if name is None or not given[name].strip():
        raise ValueError(f"no text in {'any of ' if len(names) > 1 else ''}{', '.join(names)}")
    text = given.pop(name)
    title = given.pop("title") if isinstance(given.get("title"), str) else ""
    heading = " ".join(title.split())
    metadata = {f"jsonl.{key}" if key in OWN_FIELDS else key: one for key, one in given.items()}
    try:
        # What cannot be saved would otherwise be refused only when everything is.
        saved = metadata_to_json(f"line {number}", copied_metadata(f"line {number}", metadata))
        f"{text}{heading}{saved}".encode()
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair in a string") from error
    return JsonLine(text, (heading,) if heading else (), number, metadata)

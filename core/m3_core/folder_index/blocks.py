"""Text, Markdown and HTML as blocks: paragraphs with the headings above them and their lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
_TITLE = re.compile(r"title:[ \t]*(.+)")


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, a list, a table, some code: what a reader would not cut.

    Attributes:
        text: What it says.
        line: Its first line in the file, counted from 1.
        end_line: Its last one.
        headings: Those above it, the highest first.
        has_lines: Whether the line breaks in the text are those of the file.
    """

    text: str
    line: int
    end_line: int
    headings: tuple[str, ...] = ()
    has_lines: bool = True


def text_blocks(text: str, headings: tuple[str, ...] = ()) -> list[Block]:
    r"""Cut plain text at empty lines.

    Args:
        text: With ``\n`` at the end of lines.
        headings: Those above it.

    Returns:
        Its paragraphs.

    Example:
        >>> [(one.text, one.line) for one in text_blocks("a\nb\n\nc")]
        [('a\nb', 1), ('c', 4)]
    """
    found, first, held = [], 0, list[str]()
    for number, line in enumerate([*_lines(text), ""], 1):
        if line.strip():
            first = first if held else number
            held.append(line)
        elif held:
            found.append(_block(held, first, headings))
            held = []
    return found


def markdown_blocks(text: str) -> list[Block]:
    r"""Cut Markdown at headings, empty lines and around fenced code.

    Args:
        text: With ``\n`` at the end of lines.

    Returns:
        Its blocks under their headings; a heading without any text below it is a block itself.

    Example:
        >>> [(one.headings, one.text) for one in markdown_blocks("# A\nx\n## B\ny\n# C\n")]
        [(('A',), 'x'), (('A', 'B'), 'y'), ((), 'C')]
    """
    return _Markdown().read(_lines(text))


def html_blocks(text: str) -> list[Block]:
    """Cut HTML at the elements that browsers begin a new line with.

    Args:
        text: A page or a piece of one; what it lacks or closes wrongly does not matter.

    Returns:
        The blocks of its visible text under their headings.

    Raises:
        ValueError: A declaration in it cannot be read.

    Example:
        >>> [(one.headings, one.text) for one in html_blocks("<h1>A</h1><p>x <b>y</b><p>z")]
        [(('A',), 'x y'), (('A',), 'z')]
    """
    page = _Page()
    try:
        page.feed(text)
        page.close()
    except AssertionError as error:
        # So the parser refuses some declarations.
        raise ValueError(f"it is no HTML that can be read: {error}") from error
    page.flush()
    return page.outline.finished()


class _Outline:
    """Headings in force, and blocks under them."""

    def __init__(self) -> None:
        self._levels: dict[int, str] = {}
        self._blocks: list[Block] = []
        # A heading that nothing stands under yet: its level and line.
        self._bare: tuple[int, int] | None = None

    def _above(self, level: int = 99) -> tuple[str, ...]:
        names = [self._levels[key] for key in sorted(self._levels) if key < level]
        return tuple(dict.fromkeys(names))

    def head(self, level: int, title: str, line: int) -> None:
        """Begin a section."""
        if not title:
            return
        if self._bare is not None and level <= self._bare[0]:
            self._keep_bare()
        self._levels = {key: name for key, name in self._levels.items() if key < level}
        self._levels[level] = title
        self._bare = level, line

    def add(self, text: str, line: int, end_line: int, *, has_lines: bool = True) -> None:
        """Put a block under the headings in force."""
        self._bare = None
        self._blocks.append(Block(text, line, end_line, self._above(), has_lines))

    def finished(self) -> list[Block]:
        """All blocks."""
        if self._bare is not None:
            self._keep_bare()
            self._bare = None
        return self._blocks

    def _keep_bare(self) -> None:
        if self._bare is not None:
            level, line = self._bare
            self._blocks.append(Block(self._levels[level], line, line, self._above(level)))


class _Markdown:
    """Reads Markdown line by line."""

    def __init__(self) -> None:
        self._outline = _Outline()
        self._held: list[str] = []
        self._first = 0
        self._fence = ""

    def read(self, lines: list[str]) -> list[Block]:
        """Read all lines."""
        start = self._front_matter(lines)
        for number, line in enumerate(lines[start:], start + 1):
            self._line(number, line)
        self._flush()
        return self._outline.finished()

    def _front_matter(self, lines: list[str]) -> int:
        """Pass over metadata in YAML, but for the title; the number of their lines."""
        if not lines or lines[0].rstrip() != "---":
            return 0
        for number, line in enumerate(lines[1:], 1):
            if line.rstrip() in ("---", "..."):
                for own in lines[1:number]:
                    if match := _TITLE.match(own):
                        self._outline.head(0, match[1].strip().strip("\"'"), 1)
                return number + 1
        return 0

    def _line(self, number: int, line: str) -> None:
        fence = _FENCE.match(line)
        if self._fence:
            self._hold(number, line)
            closes = fence and fence[1].startswith(self._fence) and not line[fence.end() :].strip()
            if closes:
                self._fence = ""
                self._flush()
            return
        if fence:
            self._flush()
            self._fence = fence[1]
            self._hold(number, line)
        elif match := _ATX.match(line.rstrip("\n")):
            self._flush()
            self._outline.head(len(match[1]), _plain(match[2] or ""), number)
        elif len(self._held) == 1 and (match := _UNDERLINE.match(line)):
            title, self._held = self._held[0], []
            self._outline.head(1 if match[1][0] == "=" else 2, _plain(title), number - 1)
        elif line.strip():
            self._hold(number, line)
        else:
            self._flush()

    def _hold(self, number: int, line: str) -> None:
        if not self._held:
            self._first = number
        self._held.append(line)

    def _flush(self) -> None:
        if self._held:
            block = _block(self._held, self._first, ())
            self._outline.add(block.text, block.line, block.end_line)
            self._held = []


_HIDDEN_TAGS = frozenset(
    {"script", "style", "template", "noscript", "svg", "math", "head", "object"}
)
_INLINE_TAGS = frozenset(
    {
        *("a", "abbr", "b", "bdi", "bdo", "button", "cite", "code", "data", "del", "dfn", "em"),
        *("font", "i", "img", "input", "ins", "kbd", "label", "mark", "q", "s", "samp", "small"),
        *("span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"),
    }
)
_CELLS = frozenset({"td", "th", "br"})
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


class _Page(HTMLParser):
    """Collects the visible text of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.outline = _Outline()
        self._hidden: list[str] = []
        self._pieces: list[str] = []
        self._first = self._last = 0
        self._heading = ""
        self._in_title = False
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an element."""
        if tag == "title":
            self.flush()
            self._in_title = True
        elif tag in _HIDDEN_TAGS:
            self.flush()
            self._hidden.append(tag)
        elif tag == "body":
            self._hidden.clear()
        elif tag in _HEADINGS:
            self.flush()
            self._heading = tag
        elif tag == "img":
            self._add(f" {dict(attrs).get('alt') or ''} ")
        elif tag in _CELLS:
            self._add("\n" if self._preformatted else " ")
        elif tag not in _INLINE_TAGS:
            self.flush()
            self._preformatted += tag == "pre"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element that closes itself."""
        if tag not in _HIDDEN_TAGS:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        """End an element."""
        if tag == "title":
            self._head(0)
            self._in_title = False
        elif tag in self._hidden:
            del self._hidden[self._hidden.index(tag) :]
        elif tag in _HEADINGS:
            self._head(_HEADINGS[tag])
            self._heading = ""
        elif tag not in _INLINE_TAGS | _CELLS:
            self.flush()
            self._preformatted = max(self._preformatted - (tag == "pre"), 0)

    def handle_data(self, data: str) -> None:
        """Take text."""
        self._add(data)

    def flush(self) -> None:
        """End a block."""
        if self._in_title or self._heading:
            # It was never closed: what follows is no part of it.
            self._head(_HEADINGS.get(self._heading, 0))
            self._in_title, self._heading = False, ""
            return
        text = self._taken()
        if text:
            self.outline.add(text, self._first, self._last, has_lines=False)

    def _head(self, level: int) -> None:
        self.outline.head(level, " ".join(self._taken().split()), self._first)

    def _add(self, data: str) -> None:
        if self._hidden and not self._in_title:
            return
        line = self.getpos()[0]
        if data.strip():
            before = len(data) - len(data.lstrip())
            if not "".join(self._pieces).strip():
                self._first = line + data.count("\n", 0, before)
            self._last = line + data.rstrip().count("\n")
        self._pieces.append(data if self._preformatted else re.sub(r"\s+", " ", data))

    def _taken(self) -> str:
        text = "".join(self._pieces)
        self._pieces = []
        return text.strip("\n").rstrip() if self._preformatted else " ".join(text.split())


def _lines(text: str) -> list[str]:
    return _LINE.findall(text)


def _block(lines: list[str], first: int, headings: tuple[str, ...]) -> Block:
    return Block("".join(lines).rstrip(), first, first + len(lines) - 1, headings)


def _plain(title: str) -> str:
    """A heading without the marks of links, code and emphasis."""
    return " ".join(_LINK.sub(r"\1", title).replace("`", "").replace("**", "").split())

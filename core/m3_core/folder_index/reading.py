"""Files of a folder, and what each of them says; what cannot be read is told by name."""

from __future__ import annotations

import codecs
import errno
import fnmatch
import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3_core.folder_index.blocks import html_blocks, markdown_blocks, text_blocks
from m3_core.folder_index.json_lines import read_json_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from m3_core.folder_index.blocks import Block

READ_FORMATS = ("text", "markdown", "html", "jsonl")
"""What a file can be read as."""

STDIN = "-"
_UNREADABLE = "cannot be read"
_ENDINGS = {
    **dict.fromkeys((".txt", ".text", ".rst", ".adoc", ".org", ".tex", ""), "text"),
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mkd", ".mdx"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonlines"), "jsonl"),
}
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([\w.:-]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingOptions:
    """Which files are read, and how.

    Attributes:
        include: Patterns of further files, which are read as text unless their ending says more:
            ``"*.py"``, or with a slash, of their path in the folder.
        exclude: Patterns of files and folders that are passed over.
        hidden: Read files and folders whose name begins with a dot.
        format: Read everything as this of ``READ_FORMATS``, whatever its ending.
        encoding: Of files that are not UTF-8, and have no mark of another one.
        text_field: Which field of JSON lines is the text.
        max_bytes: Larger files are not read; JSON lines are, whatever their size.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    format: str | None = None
    encoding: str | None = None
    text_field: str | None = None
    max_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in READ_FORMATS:
            raise ValueError(f"format is {self.format!r}; it must be of {', '.join(READ_FORMATS)}")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError as error:
                raise ValueError(f"there is no encoding {self.encoding!r}") from error
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes is {self.max_bytes}; it must be 1 or more")


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was not read.

    Attributes:
        path: Where it lies.
        reason: Why.
        in_part: Whether some of it was read.
    """

    path: str
    reason: str
    in_part: bool = False


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that shall be read.

    Attributes:
        root: The folder it was found from, absolute; ``""`` for standard input.
        path: Its path in there, with slashes.
        format: Of ``READ_FORMATS``.
    """

    root: str
    path: str
    format: str

    @property
    def source(self) -> str:
        """Its absolute path, with slashes; what tells files apart."""
        return f"{self.root.rstrip('/')}/{self.path}" if self.root else self.path


@dataclass(frozen=True, slots=True)
class Record:
    """Blocks that belong together and never share a passage with others.

    Attributes:
        blocks: What it says.
        metadata: Its own, beside those of its passages.
    """

    blocks: list[Block]
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Walk:
    """What a walk through folders finds.

    Attributes:
        files: What is to be read, in order.
        skipped: What is not.
        unread: Absolute paths of what cannot be looked into, so that nobody knows what is there.
        scopes: Absolute paths of the files and folders that were walked.
    """

    files: list[SourceFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    scopes: list[str] = field(default_factory=list)


def check_sources(sources: Sequence[str]) -> None:
    """Check that files and folders are there.

    Args:
        sources: Folders and files; ``"-"`` is standard input.

    Raises:
        FileNotFoundError: One of them is not.
    """
    for source in sources:
        if source != STDIN and not place_of(source).exists():
            raise FileNotFoundError(f"there is no file or folder {source!r}")


def place_of(source: str) -> Path:
    """Where a folder or file is, whatever the current folder.

    Args:
        source: Its path, with a home folder as ``~`` if need be.

    Returns:
        Its absolute path, without links.
    """
    return Path(source).expanduser().resolve()


def walk(sources: Sequence[str], options: ReadingOptions, passed_over: Path) -> Walk:
    """Find the files of folders.

    Args:
        sources: Folders and files; ``"-"`` is standard input.
        options: Which files.
        passed_over: A folder that is none of theirs: the index itself.

    Returns:
        What was found, each file once.

    Raises:
        FileNotFoundError: One of the sources is not there.
    """
    found = Walk()
    check_sources(sources)
    for source in sources:
        if source == STDIN:
            found.files.append(SourceFile("", STDIN, options.format or "text"))
            found.scopes.append(STDIN)
            continue
        place = place_of(source)
        if not _is_text(str(place)):
            raise ValueError(f"the name of {_shown(place)} is not UTF-8: give it another one")
        found.scopes.append(place.as_posix())
        if place.is_dir():
            _Walker(place, options, passed_over.resolve(), found).walk(place)
        elif problem := _refusal(place):
            found.skipped.append(Skipped(_shown(place), problem))
        else:
            kind = options.format or _ENDINGS.get(place.suffix.lower(), "text")
            found.files.append(SourceFile(place.parent.as_posix(), place.name, kind))
    found.files = list({one.source: one for one in reversed(found.files)}.values())[::-1]
    return found


def rooted(file: SourceFile, folders: Sequence[str]) -> SourceFile:
    """Name a file by the outermost folder that it lies in, whatever it was found from.

    Args:
        file: The file.
        folders: Absolute paths of folders and files.

    Returns:
        The same file.
    """
    if not file.root:
        return file
    above = [one for one in below(file.source, folders) if one != file.source]
    root = min([file.root, *above], key=len)
    return replace(file, root=root, path=file.source[len(root.rstrip("/")) + 1 :])


class _Walker:
    """Walks through one folder."""

    def __init__(self, root: Path, options: ReadingOptions, own: Path, found: Walk) -> None:
        self._root, self._options, self._own, self._found = root, options, own, found

    def walk(self, folder: Path) -> None:
        """Look at everything in a folder and below."""
        waiting = [folder]
        while waiting:
            waiting += reversed(list(self._look(waiting.pop())))

    def _look(self, folder: Path) -> Iterator[Path]:
        """Take the files of a folder, and yield the folders in it."""
        try:
            entries = sorted(os.scandir(folder), key=lambda one: one.name)
        except OSError as error:
            self._found.unread.append(folder.as_posix())
            self._skip(folder, f"cannot be looked into: {error.strerror}")
            return
        for entry in entries:
            place = Path(entry.path)
            if place == self._own:
                continue
            if reason := self._reason(entry, place):
                self._skip(place, reason)
            elif entry.is_dir(follow_symlinks=False):
                yield place
            elif problem := _refusal(place):
                if problem.startswith(_UNREADABLE) and not _is_gone(place):
                    # It says something that nobody may read at the moment.
                    self._found.unread.append(place.as_posix())
                self._skip(place, problem)
            else:
                self._take(place)

    def _reason(self, entry: os.DirEntry[str], place: Path) -> str:
        """Why something is passed over by its name alone."""
        path = place.relative_to(self._root).as_posix()
        if any(_fits(path, pattern) for pattern in self._options.exclude):
            return "excluded"
        if entry.name.startswith(".") and not self._options.hidden:
            return "hidden"
        if entry.is_symlink() and place.is_dir():
            return "a link to a folder, which is not followed"
        return ""

    def _take(self, place: Path) -> None:
        path = place.relative_to(self._root).as_posix()
        kind = _ENDINGS.get(place.suffix.lower())
        if kind is None and any(_fits(path, pattern) for pattern in self._options.include):
            kind = "text"
        if kind is None and self._options.format is None:
            self._skip(place, f"{place.suffix.lower()} files are not read without --include")
            return
        form = self._options.format or kind or "text"
        self._found.files.append(SourceFile(self._root.as_posix(), path, form))

    def _skip(self, place: Path, reason: str) -> None:
        self._found.skipped.append(Skipped(_shown(place), reason))


def read_bytes(place: Path, most: int | None) -> bytes:
    """Read a regular file, without ever waiting for another process.

    Args:
        place: The file.
        most: Bytes that are read at most; any number if ``None``.

    Returns:
        Its content.

    Raises:
        ValueError: It is no regular file, or larger.
        OSError: It cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(place, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("no regular file")
        if most is not None and status.st_size > most:
            raise ValueError(f"{status.st_size:,} bytes are more than --max-bytes {most:,}")
        return file.read()


def decoded(data: bytes, options: ReadingOptions, form: str) -> str:
    r"""Turn the bytes of a file into text.

    Args:
        data: The bytes.
        options: Say which encoding what is not UTF-8 has.
        form: Of ``READ_FORMATS``.

    Returns:
        The text, with ``\n`` at the end of lines.

    Raises:
        ValueError: It is no text, or of an unknown encoding.
    """
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "")
    if data.startswith(b"%PDF-"):
        raise ValueError("a PDF: convert it to text or HTML first")
    if not encoding and b"\0" in data:
        raise ValueError("binary")
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        declared = _CHARSET.search(data[:2048]) if form == "html" else None
        other = options.encoding or (declared[1].decode("ascii") if declared else "")
        if encoding or not other:
            line = data.count(b"\n", 0, error.start) + 1
            raise ValueError(
                f"not UTF-8 (byte 0x{data[error.start]:02x} in line {line}): use --encoding"
            ) from error
        try:
            text = data.decode(other)
        except (UnicodeDecodeError, LookupError) as second:
            raise ValueError(f"neither UTF-8 nor {other}") from second
    return text.replace("\r\n", "\n").replace("\r", "\n")


def records_of(text: str, form: str, options: ReadingOptions) -> tuple[list[Record], str]:
    """Read what a file says.

    Args:
        text: Its text.
        form: Of ``READ_FORMATS``.
        options: Say which field of JSON lines is the text.

    Returns:
        Its records, and what is wrong with some of its lines; ``""`` for nothing.

    Raises:
        ValueError: It cannot be read as what it shall be.
    """
    if form == "jsonl":
        read = read_json_lines(text, options.text_field)
        records = [
            Record(text_blocks_at(one.text, one.line, one.headings), one.metadata)
            for one in read.lines
        ]
        return records, read.problem
    blocks = {"markdown": markdown_blocks, "html": html_blocks}.get(form, text_blocks)(text)
    return ([Record(blocks)] if blocks else []), ""


def text_blocks_at(text: str, line: int, headings: tuple[str, ...]) -> list[Block]:
    """Cut a text that stands in one line of a file.

    Args:
        text: The text.
        line: The line.
        headings: Those above it.

    Returns:
        Its paragraphs, all in that line.
    """
    return [
        replace(one, line=line, end_line=line, has_lines=False)
        for one in text_blocks(text, headings)
    ]


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(place: Path) -> str:
    """Why something of this name is no file that can be read."""
    if not _is_text(str(place)):
        return "its name is not UTF-8"
    try:
        mode = place.stat().st_mode
    except OSError as error:
        return f"{_UNREADABLE}: {error.strerror}"
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    if not stat.S_ISREG(mode):
        return f"{kinds.get(stat.S_IFMT(mode), 'a device')}, no regular file"
    return ""


def _is_gone(place: Path) -> bool:
    """Whether nothing is there, or a link that leads nowhere."""
    try:
        place.stat()
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    return False


def _fits(path: str, pattern: str) -> bool:
    name = path if "/" in pattern else path.rpartition("/")[2]
    return fnmatch.fnmatchcase(name, pattern.rstrip("/"))


def _shown(place: Path) -> str:
    return place.as_posix().encode("utf-8", "backslashreplace").decode()


def below(source: str, folders: Sequence[str]) -> Iterator[str]:
    """Yield those of some files and folders that a file is, or lies in.

    Args:
        source: Absolute path of the file.
        folders: Absolute paths.

    Yields:
        The paths.
    """
    for folder in folders:
        if source == folder or source.startswith(folder.rstrip("/") + "/"):
            yield folder

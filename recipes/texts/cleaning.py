"""Cleaning, language checks, and the guard that keeps XQuAD out of the texts."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LANGUAGES = (
    "en",
    "de",
    "es",
    "zh",
    "ru",
    "hi",
    "ar",
    "fr",
    "ja",
    "ko",
    "pt",
    "it",
    "pl",
    "tr",
    "vi",
    "id",
    "th",
    "el",
    "uk",
    "nl",
)
MAX_CHARS = 1500
_NO_SPACES = frozenset({"zh", "ja", "th"})

_SCRIPTS = {
    "hi": re.compile(r"[\u0900-\u097f]"),
    "ar": re.compile(r"[\u0600-\u06ff]"),
    "ru": re.compile(r"[\u0400-\u04ff]"),
    "uk": re.compile(r"[\u0400-\u04ff]"),
    "zh": re.compile(r"[\u4e00-\u9fff]"),
    "ja": re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]"),
    "ko": re.compile(r"[\uac00-\ud7af]"),
    "th": re.compile(r"[\u0e00-\u0e7f]"),
    "el": re.compile(r"[\u0370-\u03ff]"),
}
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_LETTER = re.compile(r"[^\W\d_]|[\u0900-\u097f\u0e00-\u0e7f\u064b-\u0655]")
_TAG = re.compile(r"<[^<>]{0,400}>")
_SPACE = re.compile(r"\s+")
_PLACEHOLDER = re.compile(
    r"%(?:\d+\$)?[-+ #0]*\d*(?:\.\d+)?(?:l{0,2}|h|z)[diouxXeEfgGscpn]\b|%\(\w+\)[sd]|%n|%[1-9]\b"
    r"|\$\{[^}]*\}|\{\{[^{}]*\}\}|\{[\w.:!]*\}|\$(?:[1-9]|\w+)|%[A-Z_]+%?|&[\w-]+;|#\[[^\]]*\]|@\w+@"
)
_ACCELERATOR_CJK = re.compile(r"\(\s*[_&~]\w\s*\)")
_ACCELERATOR = re.compile(r"(?<!\w)[_&~](?=\w)|(?<=\w)[_&~](?=\w)")
_WIKI_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_SENTENCE_END = re.compile(r"(?<=[.!?।؟。！？])\s*")
_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ue000-\uf8ff\ufeff\ufff0-\uffff]"
)
_ESCAPES = re.compile("\x1b\\[[0-9;]*m")


class Text(NamedTuple):
    """One paragraph or sentence."""

    lang: str
    text: str


def plain(text: str) -> str:
    """Remove tags, entities and control characters, and collapse white space."""
    text = _TAG.sub(" ", _ESCAPES.sub("", text))
    if "&" in text:
        text = html.unescape(text)
    text = _CONTROL.sub(" ", text)
    return _SPACE.sub(" ", text).strip(" \u00a0¶")


def plain_message(text: str) -> str:
    """Clean an interface message of placeholders and accelerators too; '' if little remains."""
    text = _WIKI_LINK.sub(r"\1", text)
    text, found = _PLACEHOLDER.subn(" ", text)
    if found > 2:
        return ""
    text = _ACCELERATOR.sub("", _ACCELERATOR_CJK.sub("", text.replace("'''", "").replace("''", "")))
    return plain(text)


def is_language(lang: str, text: str) -> bool:
    """Whether the letters of `text` are mostly of the script of `lang`."""
    letters = len(_LETTER.findall(text))
    if letters < 2:
        return False
    script = _SCRIPTS.get(lang)
    if script is None:
        return len(_LATIN.findall(text)) >= 0.8 * letters
    if lang == "zh" and _KANA.search(text):
        return False
    return len(script.findall(text)) >= 0.45 * letters


def is_prose(lang: str, text: str) -> bool:
    """Whether `text` reads like a sentence or more: long enough, and mostly letters and spaces."""
    shortest = 10 if lang in ("zh", "ja") else 14 if lang in ("ko", "th") else 20
    if not shortest <= len(text) <= MAX_CHARS:
        return False
    words = len(_LETTER.findall(text)) + text.count(" ")
    return (
        words >= 0.75 * len(text)
        and (lang in _NO_SPACES or text.count(" ") >= 2)
        and is_language(lang, text)
    )


def split_long(text: str, limit: int = MAX_CHARS) -> Iterator[str]:
    """Cut `text` at ends of sentences into parts of at most `limit` characters."""
    if len(text) <= limit:
        yield text
        return
    part = ""
    for sentence in _SENTENCE_END.split(text):
        if part and len(part) + len(sentence) > limit * 2 // 3:
            yield part
            part = ""
        part = f"{part} {sentence}".strip()
    if part:
        yield part


class EvaluationGuard:
    """Tells whether a text shares a long piece with the evaluation set."""

    def __init__(self, folder: Path, longest_shared: int = 60) -> None:
        """Read `xquad.*.json` of `folder`; texts sharing that many characters are refused."""
        self.length, self.window = longest_shared, longest_shared // 2
        self.windows: set[int] = set()
        self.long_windows: set[int] = set()
        self.whole: set[str] = set()
        self.refused: Counter[str] = Counter()
        for path in sorted(folder.glob("xquad.*.json")):
            dense_script = path.name.split(".")[1] in ("zh", "ja", "ko", "th")
            for article in json.loads(path.read_text("utf-8"))["data"]:
                for paragraph in article["paragraphs"]:
                    self._learn(paragraph["context"], dense_script=dense_script)
                    for question in paragraph["qas"]:
                        self._learn(question["question"], dense_script=dense_script)
        if not self.whole:
            raise FileNotFoundError(f"no xquad.*.json in {folder}; the guard must not run empty")

    @staticmethod
    def _normal(text: str) -> str:
        return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()

    def _learn(self, text: str, *, dense_script: bool) -> None:
        text = self._normal(text)
        self.whole.add(text)
        self.windows.update(
            hash(text[i : i + self.window]) for i in range(len(text) - self.window + 1)
        )
        shared = self.window if dense_script else self.length
        self.long_windows.update(hash(text[i : i + shared]) for i in range(len(text) - shared + 1))

    def shares(self, text: str) -> bool:
        """Whether `text` equals an evaluation text or shares a piece of the refused length.

        A shared piece of 60 characters always holds a window of 30 that starts at a multiple of
        30 in `text`, so only those are looked up first. In Chinese a shared window of 30 is
        refused already.
        """
        text = self._normal(text)
        if text in self.whole:
            return True
        step = self.window
        if not any(
            hash(text[i : i + step]) in self.windows for i in range(0, len(text) - step + 1, step)
        ):
            return False
        return any(
            hash(text[i : i + size]) in self.long_windows
            for size in (self.length, self.window)
            for i in range(len(text) - size + 1)
        )


def fingerprint(*parts: str) -> int:
    """A number that is equal for texts that differ only in case, digits, punctuation and spaces."""
    return hash("\x00".join(re.sub(r"[\W\d_]+", "", part.casefold()) or part for part in parts))

"""Text to token ids, with ``tokenizer.json`` itself and a truncation of our own.

A tokenizer of the ``tokenizers`` library keeps truncation as mutable state, so two threads with
different lengths get each other's. Here it never truncates: ids are cut afterwards, in arrays
that belong to the call.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tokenizers import Tokenizer as RawTokenizer
from tokenizers.models import Unigram

from m3_core.errors import CorruptCheckpointError
from m3_core.forks import in_forked_child
from m3_core.network.checkpoint import read_json
from m3_core.network.prefixes import grown, part_of, places_of, stable_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# A first cut of a long text at this many characters a token: real text needs 2 to 5.
CHARACTERS_PER_TOKEN = 8
# Texts of which a usable tokenizer makes tokens of some.
_PROBES = ("a", "1", ".", "字", "a b")

_DEFAULT_SPECIALS = (
    {"cls_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
    {"cls_token": "[CLS]", "pad_token": "[PAD]", "unk_token": "[UNK]"},
)


class TokenPiece(NamedTuple):
    """A token where it stands in a text.

    Attributes:
        id: Its id.
        text: The part of the text, or the name of a special token.
        special: Whether it was put around the text.
        start: Its first character.
        stop: The character behind its last.
    """

    id: int
    text: str
    special: bool
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class TokenBatch:
    """Token ids of texts, special tokens included, one text after another.

    Attributes:
        ids: Shape: (tokens,). Dtype: int32.
        offsets: Text i is ``ids[offsets[i]:offsets[i + 1]]``. Shape: (texts + 1,). Dtype: int64.
        truncated: Which texts were longer than allowed. Shape: (texts,). Dtype: bool.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    truncated: NDArray[np.bool_]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens a text. Shape: (texts,)."""
        return np.diff(self.offsets)


class Tokenizer:
    """A ``tokenizer.json`` that cuts without state; safe under threads.

    Args:
        raw: The tokenizer; it is switched to neither truncate nor pad.
        special_tokens: The text of ``cls_token``, ``eos_token``, ``pad_token``, ``unk_token``.

    Raises:
        ValueError: It makes no tokens of texts, or leaves them out of what it surrounds.
    """

    def __init__(self, raw: RawTokenizer, special_tokens: Mapping[str, str]) -> None:
        raw.no_truncation()
        raw.no_padding()
        self._raw = raw
        self._probe = next((one for one in _PROBES if self._inner(one)), "")
        inner, whole = self._inner(self._probe), raw.encode(self._probe).ids
        starts = [i for i in range(len(whole)) if inner and whole[i : i + len(inner)] == inner]
        if not starts:
            raise ValueError(f"it makes {whole} of {self._probe!r}, and {inner} without specials")
        self.prefix: tuple[int, ...] = tuple(whole[: starts[0]])
        self.suffix: tuple[int, ...] = tuple(whole[starts[0] + len(inner) :])
        self.vocabulary_size: int = raw.get_vocab_size(with_added_tokens=True)
        ids = {
            name: token_id
            for name, token in special_tokens.items()
            if (token_id := raw.token_to_id(token)) is not None
        }
        self.special_ids: dict[str, int] = ids
        names = ("cls_token", "eos_token", "pad_token", "unk_token")
        self.unweighted_ids: NDArray[np.int32] = np.array(
            sorted({ids[name] for name in names if name in ids}), np.int32
        )

    @classmethod
    def from_folder(cls, folder: Path, vocabulary: int | None = None) -> Tokenizer:
        """Load ``tokenizer.json`` and the names of its special tokens.

        Args:
            folder: The checkpoint.
            vocabulary: How many ids the network knows, which no id may reach; any if ``None``.

        Returns:
            The tokenizer.

        Raises:
            CorruptCheckpointError: ``tokenizer.json`` is absent, cannot be read or used, or has
                ids that the network does not know.
        """
        path = folder / "tokenizer.json"
        try:
            raw = RawTokenizer.from_str(path.read_text(encoding="utf-8"))
            tokenizer = cls(raw, _special_tokens(folder, raw))
            largest = tokenizer._largest_id()
        except FileNotFoundError as error:
            raise CorruptCheckpointError(
                f"{folder} has no tokenizer.json: save the fast tokenizer beside the model"
            ) from error
        except CorruptCheckpointError:
            raise
        except BaseException as error:
            # A panic of the library is no Exception.
            if not is_failure(error):
                raise
            raise CorruptCheckpointError(f"{path} cannot be read: {error}") from error
        if vocabulary is not None and largest >= vocabulary:
            raise CorruptCheckpointError(
                f"{path} has the token id {largest}, and the network knows {vocabulary} tokens, "
                "from 0 on: the tokenizer is another model's, or tokens were added to it without "
                "resizing the network's embeddings"
            )
        return tokenizer

    def id_to_token(self, token_id: int) -> str:
        """The token's text as a reader sees it: without the marks of word starts and pieces.

        Args:
            token_id: Any id of the vocabulary.

        Returns:
            What FlagEmbedding's ``convert_id_to_token`` gives: the decoded id.
        """
        return str(self._raw.decode([int(token_id)], skip_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids back into text, special tokens included.

        Args:
            ids: Token ids.

        Returns:
            The text.
        """
        return str(self._raw.decode(list(ids), skip_special_tokens=False))

    def pieces(self, text: str, *, special_tokens: bool = True) -> list[TokenPiece]:
        """Show the tokens of a whole text.

        Args:
            text: A checked text.
            special_tokens: With those that stand around it.

        Returns:
            The tokens, in their order.
        """
        with self._failures_named():
            found = self._raw.encode(text, add_special_tokens=special_tokens)
        rows = zip(found.ids, found.tokens, found.special_tokens_mask, found.offsets, strict=True)
        return [
            TokenPiece(token_id, token if special else text[a:b], bool(special), a, b)
            for token_id, token, special, (a, b) in rows
        ]

    @property
    def pair_separator(self) -> tuple[int, ...]:
        """Special ids that the tokenizer puts between the two texts of a pair.

        The pair's first and last special ids are ``prefix`` and ``suffix``, as a single text's.
        """
        pair, inner = self._raw.encode(self._probe, self._probe).ids, self._inner(self._probe)
        first = len(self.prefix) + len(inner)
        return tuple(pair[first : len(pair) - len(self.suffix) - len(inner)])

    def ids_of_tokens(self) -> dict[str, int]:
        """Every token of the vocabulary, as it is written there, and its id."""
        return dict(self._raw.get_vocab(with_added_tokens=True))

    def content_ids(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        """Token ids without special tokens, complete up to ``limit`` and perhaps one beyond.

        Args:
            texts: Checked texts.
            limit: How many tokens the caller will keep. A result longer than this says that the
                text is longer; how much longer is not known.

        Returns:
            One list of ids a text.
        """
        bound = max(limit, 1) * CHARACTERS_PER_TOKEN
        long = [i for i, text in enumerate(texts) if grown(text) > 2 * bound]
        if not long:
            return self._encode(texts)
        short = list(texts)
        for i in long:
            short[i] = ""
        ids = self._encode(short)
        for i in long:
            ids[i] = self._long_content_ids(texts[i], limit, bound)
        return ids

    def encode(
        self, texts: Sequence[str], max_length: int, marker_every: int | None = None
    ) -> TokenBatch:
        """Tokenise texts and cut each to ``max_length`` tokens, keeping its last special token.

        Args:
            texts: Checked texts; the empty string is valid.
            max_length: Tokens a text at most, special tokens included.
            marker_every: Put the leading special token again before every so many content tokens
                (MCLS); it then counts towards ``max_length``.

        Returns:
            Ids of all texts.

        Raises:
            ValueError: ``max_length`` leaves no room beside the special tokens.
        """
        room = max_length - len(self.prefix) - len(self.suffix)
        if room < 0:
            raise ValueError(
                f"max_length is {max_length}; the special tokens alone need {max_length - room}"
            )
        prefix, suffix = list(self.prefix), list(self.suffix)
        rows: list[list[int]] = []
        truncated = np.zeros(len(texts), bool)
        for i, ids in enumerate(self.content_ids(texts, room)):
            body = ids if marker_every is None else _with_markers(ids, prefix, marker_every)
            truncated[i] = len(body) > room
            rows.append([*prefix, *body[:room], *suffix])
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        flat = np.fromiter(chain.from_iterable(rows), np.int32, int(offsets[-1]))
        return TokenBatch(flat, offsets, truncated)

    def locate(self, text: str, max_length: int) -> tuple[TokenBatch, NDArray[np.int64]]:
        """Say where in a text the tokens stand that ``encode`` makes of it.

        Args:
            text: A checked text.
            max_length: Tokens at most, special tokens included.

        Returns:
            What ``encode`` gives, and of each token its first character and the one behind its
            last, shape (tokens, 2); of special tokens around the text both are 0.
        """
        batch = self.encode([text], max_length)
        inside = slice(len(self.prefix), len(batch.ids) - len(self.suffix))
        places = np.zeros((len(batch.ids), 2), np.int64)
        with self._failures_named():
            places[inside] = places_of(self._raw, text, batch.ids[inside].tolist())
        return batch, places

    def _inner(self, text: str) -> list[int]:
        ids: list[int] = self._raw.encode(text, add_special_tokens=False).ids
        return ids

    def _largest_id(self) -> int:
        """Of all ids that it may give."""
        raw = self._raw
        around = (*self.prefix, *self.pair_separator, *self.suffix)
        if isinstance(raw.model, Unigram):
            # It numbers its pieces; listing as many as XLM-R's takes a third of a second.
            listed = [raw.get_vocab_size(with_added_tokens=False) - 1]
        else:
            listed = list(raw.get_vocab(with_added_tokens=False).values())
        return max((*listed, *raw.get_added_tokens_decoder(), *around), default=-1)

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if not is_failure(error):
                raise
            raise CorruptCheckpointError(
                f"tokenizer.json fails at a text ({error}): it may be damaged, copy it again"
            ) from error

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        with self._failures_named():
            if in_forked_child():
                # The library's pool of threads is not in the child, where a batch would wait for it
                # for ever; with TOKENIZERS_PARALLELISM=true the library does not notice. One text
                # at a time does without the pool.
                return [self._inner(text) for text in texts]
            encodings = self._raw.encode_batch_fast(list(texts), add_special_tokens=False)
            return [encoding.ids for encoding in encodings]

    def _long_content_ids(self, text: str, limit: int, bound: int) -> list[int]:
        """First tokens of a long text, from a part of it; equal to the whole text's."""
        size = grown(text)
        while 2 * bound < size:
            end = part_of(text, bound)
            at = max(text.rfind(space, end // 2, end) for space in " \n\t\r")
            # Words are tokenised on their own, so a cut at white space changes nothing before it.
            ids = self._encode([text[:at]])[0] if at > 0 else self._stable_ids(text, end)
            if len(ids) > limit:
                return ids
            bound *= 4
        return self._encode([text])[0]

    def _stable_ids(self, text: str, end: int) -> list[int]:
        with self._failures_named():
            return stable_ids(self._raw, text, end)


def _with_markers(ids: list[int], marker: list[int], every: int) -> list[int]:
    parts = [ids[at : at + every] for at in range(0, len(ids), every)]
    # The text's own first token is the first part's marker.
    return list(chain.from_iterable([*marker, *part] for part in parts))[len(marker) :]


def is_failure(error: BaseException) -> bool:
    """Whether a call failed, and was not interrupted; a panic in Rust is no ``Exception``.

    Args:
        error: What it raised.

    Returns:
        False for what ends the program, and for a lack of memory.
    """
    if isinstance(error, Exception):
        return not isinstance(error, MemoryError)
    return type(error).__name__ == "PanicException"


def _special_tokens(folder: Path, raw: RawTokenizer) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        for key, value in (read_json(folder / name) or {}).items():
            content = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(content, str):
                found[key] = content
    if found:
        return found
    for defaults in _DEFAULT_SPECIALS:
        if raw.token_to_id(defaults["cls_token"]) is not None:
            return dict(defaults)
    return found

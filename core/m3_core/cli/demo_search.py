"""What the demo asks, of which passages, and what each ranking finds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m3_core.encoder import TextEncoder
    from m3_core.representations import Representations

# Of dense, lexical and multi-vector scores, as in the M3 paper.
WEIGHTS = (1.0, 0.3, 1.0)
# Rankings are this long: a topic has a passage in each of seven languages.
DEPTH = 10
RANKINGS = ("dense", "sparse", "colbert", "hybrid")
LANGUAGES = ("en", "de", "es", "zh", "ru", "hi", "ar")


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to find.

    Attributes:
        id: Topic and language.
        topic: What it is about; seven languages have the same passage on most topics.
        language: ISO 639 code.
        text: The text.
    """

    id: str
    topic: str
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """A query.

    Attributes:
        text: The query.
        topic: Of the passages that answer it; ``None`` where nobody knows.
        language: ISO 639 code, where it matters.
        title: What it shows.
        note: Why, in a sentence or two.
        shown: How many of each ranking are worth a line.
    """

    text: str
    topic: str | None = None
    language: str = "en"
    title: str = ""
    note: str = ""
    shown: int = 3


TOUR = (
    Question(
        "Why does the sea come and go twice a day?",
        "tides",
        title="Other words, same meaning",
        note="The passages say tides, ocean and Moon: they share only common little words with the "
        "question. Dense vectors compare meanings.",
    ),
    Question(
        "What does ISO 3103 describe?",
        "ISO 3103",
        title="An identifier",
        note="Eight passages speak of one ISO standard each. To a dense vector their numbers look "
        "alike; lexical weights compare the words themselves.",
    ),
    Question(
        "How does a vaccine protect the body?",
        "vaccine",
        title="One question, seven languages",
        note="Asked in English. Below, each passage with the words that come closest to those of "
        "the question.",
        shown=DEPTH,
    ),
)


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage in a ranking.

    Attributes:
        passage: The passage.
        score: Its score there.
    """

    passage: Passage
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question finds.

    Attributes:
        question: The question.
        rankings: The first ten by ``dense``, ``sparse``, ``colbert`` and ``hybrid``, best first;
            lexical ones only with a score above 0.
    """

    question: Question
    rankings: Mapping[str, Sequence[Hit]] = field(repr=False)

    def is_right(self, hit: Hit) -> bool:
        """Whether a hit is on the question's topic."""
        return hit.passage.topic == self.question.topic

    def is_first_right(self, ranking: str) -> bool | None:
        """Whether a ranking's first hit is on topic; ``None`` where no topic is known."""
        if self.question.topic is None:
            return None
        hits = self.rankings[ranking]
        return bool(hits) and self.is_right(hits[0])

    def languages(self, ranking: str) -> tuple[str, ...]:
        """Languages in which a ranking has the topic among its first ten, best first."""
        return tuple(hit.passage.language for hit in self.rankings[ranking] if self.is_right(hit))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "question": self.question.text,
            "topic": self.question.topic,
            "rankings": {
                name: [
                    {"id": hit.passage.id, "score": round(hit.score, 6), "text": hit.passage.text}
                    for hit in hits
                ]
                for name, hits in self.rankings.items()
            },
            "languages": {name: self.languages(name) for name in self.rankings},
        }


@cache
def read_passages() -> tuple[Passage, ...]:
    """Read the passages that come with the package.

    Returns:
        All of them: topics in seven languages, then ISO standards in English.
    """
    return tuple(Passage(**row) for row in _rows("demo.jsonl"))


@cache
def read_questions() -> tuple[Question, ...]:
    """Read the plain questions that come with the package.

    Returns:
        First one in each language, then one in English about each other topic.
    """
    return tuple(Question(**row) for row in _rows("demo_questions.jsonl"))


def _rows(name: str) -> list[dict[str, Any]]:
    text = files("m3_core.cli").joinpath(name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


class Corpus:
    """Passages with all their representations.

    Args:
        encoder: An encoder with three representations.
        passages: The passages, which it encodes.

    Raises:
        MissingRepresentationError: The encoder gives fewer than three.
    """

    def __init__(self, encoder: TextEncoder, passages: Sequence[Passage]) -> None:
        from m3_core.encoder import PARTS, CachedEncoder

        # Whoever asks again why a passage matched finds both texts encoded.
        self.encoder = CachedEncoder(encoder, PARTS)
        self.passages = passages
        self._representations = self.encoder.encode_documents(
            [passage.text for passage in passages], return_sparse=True, return_colbert_vecs=True
        )

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Rank all passages for each question.

        Args:
            questions: The questions.

        Returns:
            One answer a question.
        """
        queries = self.encoder.encode_queries(
            [question.text for question in questions], return_sparse=True, return_colbert_vecs=True
        )
        scores = _scores(queries, self._representations)
        return [
            Answer(
                question,
                {name: self._best(matrix[row], name) for name, matrix in scores.items()},
            )
            for row, question in enumerate(questions)
        ]

    def _best(self, scores: np.ndarray[Any, Any], ranking: str) -> list[Hit]:
        best = np.argsort(-scores, kind="stable")[:DEPTH]
        return [
            Hit(self.passages[place], float(scores[place]))
            for place in best.tolist()
            if ranking != "sparse" or scores[place] > 0
        ]


def _scores(queries: Representations, documents: Representations) -> dict[str, Any]:
    from m3_core.scoring import hybrid_scores

    weights = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), WEIGHTS)
    return {
        name: hybrid_scores(queries, documents, some)
        for name, some in zip(RANKINGS, weights, strict=True)
    }

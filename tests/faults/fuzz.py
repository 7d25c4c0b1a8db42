"""Public functions called with odd values: each works, or says what it cannot take.

    python tests/faults/fuzz.py --calls 100000

``TypeError``, ``ValueError`` and the errors of ``m3_core.errors`` are answers. All others, and
those of a library underneath, are listed with the call; the script then ends with 1.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import random
import struct
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from m3_core import Encoder, LexicalIndex, LexicalWeights, MultiVectors, Representations, Reranker
from m3_core import converters as c
from m3_core import scoring as s
from m3_core.collection import DocumentCollection
from m3_core.encoder import CachedEncoder
from m3_core.errors import M3Error
from m3_core.filters import parse_filter
from m3_core.testing import FakeEncoder, tiny_checkpoint, tiny_reranker
from m3_core.training.data import parse_example

DEEP: Any = []
for _ in range(2000):
    DEEP = [DEEP]
LOOP: list[Any] = []
LOOP.append(LOOP)

ODD: list[Callable[[], Any]] = [
    lambda value=value: value
    for value in (
        *(
            None,
            True,
            False,
            0,
            1,
            -1,
            7,
            2**31,
            2**63,
            -(2**63),
            10**400,
            0.5,
            -0.0,
            1e300,
            1e-300,
        ),
        *(float("nan"), float("inf"), -float("inf"), 1 + 2j, "", "a", " ", "panda", "\ud800", "\0"),
        *(
            "x" * 3000,
            "ﷺ" * 50,
            "1",
            "$and",
            "dense",
            b"",
            b"bytes",
            bytearray(b"x"),
            (),
            ("a", "b"),
        ),
        *((1, 2, 3), frozenset({"a"}), range(3), Ellipsis, NotImplemented, object, int, len),
        *(
            np.float32(1),
            np.int64(3),
            np.bool_(True),
            np.str_("a"),
            np.nan,
            Path("x"),
            date.today(),
        ),
        *(slice(0, 2), lambda x: x, ValueError("x")),
    )
]
ODD += [
    list,
    dict,
    set,
    object,
    lambda: [None],
    lambda: ["a"],
    lambda: ["a", None],
    lambda: ["a", "a"],
    lambda: [["a"]],
    lambda: [1, 2],
    lambda: [0.5, float("nan")],
    lambda: [2**70],
    lambda: ["\ud800"],
    lambda: [b"a"],
    lambda: [{}],
    lambda: [[]],
    lambda: [()],
    lambda: [("a", "b")],
    lambda: [("a", None)],
    lambda: {"a": 1},
    lambda: {1: 1.0},
    lambda: {1: -1.0},
    lambda: {1: None},
    lambda: {"1": "2"},
    lambda: {None: None},
    lambda: {1: float("nan"), 2: float("inf")},
    lambda: {2**40: 1.0},
    lambda: {-1: 1.0},
    lambda: {True: 1.0},
    lambda: {(1, 2): 3},
    lambda: {"a": {"$in": None}},
    lambda: {"$and": 5},
    lambda: {"$or": [{}]},
    lambda: {"a": {"$gt": [1]}},
    lambda: {"a": {"b": {"c": 1}}},
    lambda: DEEP,
    lambda: LOOP,
    lambda: iter(["a", "b"]),
    lambda: (x for x in "ab"),
    lambda: np.array([]),
    lambda: np.array(1.0),
    lambda: np.array("a"),
    lambda: np.array([np.nan, 1.0]),
    lambda: np.array([[1.0, 2.0]]),
    lambda: np.zeros((2, 3, 4)),
    lambda: np.zeros((0, 4), np.float32),
    lambda: np.array([1, 2]),
    lambda: np.array([None, "a"], object),
    lambda: np.array([1 + 1j]),
    lambda: np.array([[1, 2], [3, 4]], np.uint8),
    lambda: bytes(8),
    lambda: LexicalWeights.from_dicts([]),
    lambda: LexicalWeights.from_dicts([{1: 0.5, 3: 0.25}, {}]),
    lambda: MultiVectors.from_arrays([np.ones((2, 4), np.float32), np.zeros((0, 4), np.float32)]),
    lambda: Representations(dense_vecs=np.ones((1, 4), np.float32)),
]

Valid = Callable[[random.Random], Any]


def texts(rng: random.Random) -> list[str]:
    words = ("panda", "river", "Fluss", "大熊猫", "", "a b c", "мир")
    return [" ".join(rng.choices(words, k=rng.randrange(5))) for _ in range(rng.randrange(4))]


def ids(rng: random.Random) -> list[str]:
    return [f"d{rng.randrange(9)}" for _ in range(rng.randrange(4))]


def weights(rng: random.Random) -> dict[int, float]:
    return {rng.randrange(50): rng.random() for _ in range(rng.randrange(5))}


def several(rng: random.Random) -> LexicalWeights:
    return LexicalWeights.from_dicts([weights(rng) for _ in range(rng.randrange(1, 4))])


def vectors(rng: random.Random) -> MultiVectors:
    shapes = [rng.randrange(4) for _ in range(rng.randrange(1, 4))]
    return MultiVectors.from_arrays([np.ones((n, 4), np.float32) for n in shapes])


def dense(rng: random.Random) -> np.ndarray:
    return np.ones((rng.randrange(4), 4), np.float32)


def number(rng: random.Random) -> int:
    return rng.randrange(1, 6)


def flag(rng: random.Random) -> bool:
    return rng.random() < 0.5


def where(rng: random.Random) -> Any:
    return rng.choice([None, {"a": 1}, {"a": {"$gt": 2}}, {"$or": [{"a": 1}, {"b": "x"}]}])


def metadata(rng: random.Random) -> list[dict[str, Any]]:
    return [{"a": rng.randrange(3), "b": "x"} for _ in range(rng.randrange(4))]


def text(rng: random.Random) -> str:
    return rng.choice(["panda river", "", "大熊猫", "a"])


def one_id(rng: random.Random) -> str:
    return f"d{rng.randrange(9)}"


def pairs(rng: random.Random) -> list[tuple[str, str]]:
    return [(text(rng), text(rng)) for _ in range(rng.randrange(3))]


def vector(rng: random.Random) -> list[float]:
    return [rng.random() for _ in range(16)]


def mixture(rng: random.Random) -> list[float]:
    return [rng.random() for _ in range(3)]


def line(rng: random.Random) -> str:
    example = {"query": "q", "pos": ["d"], "neg": ["n"], "pos_scores": [1.0]}
    return json.dumps(example)[: rng.choice([999, rng.randrange(40)])]


Function = tuple[str, Callable[..., Any], dict[str, Valid]]


def functions(place: Path) -> list[Function]:
    """What is called: name, function and what each of its arguments usually is."""
    fake = FakeEncoder(dimension=16)
    index = LexicalIndex()
    index.add(["d0", "d1"], [{1: 0.5}, {2: 0.25, 7: 1.0}])
    held = DocumentCollection(CachedEncoder(fake, ("dense", "sparse", "colbert")))
    held.add(["panda", "river"], [{"a": 1}, {"b": "x"}], ["d0", "d1"])
    encoder = Encoder.from_pretrained(tiny_checkpoint(place / "m3"), device="cpu", dtype="float32")
    reranker = Reranker.from_pretrained(tiny_reranker(place / "r"), device="cpu", dtype="float32")
    fixed = LexicalWeights.from_dicts([{1: 0.5, 3: 0.25}, {}])
    parts = {"return_dense": flag, "return_sparse": flag, "return_colbert_vecs": flag}
    found: list[Function] = [
        ("dense_scores", s.dense_scores, {"queries": dense, "documents": dense}),
        ("lexical_scores", s.lexical_scores, {"queries": several, "documents": several}),
        ("maxsim_scores", s.maxsim_scores, {"queries": vectors, "documents": vectors}),
        (
            "hybrid_scores",
            s.hybrid_scores,
            {"queries": reps, "documents": reps, "weights": mixture},
        ),
        ("normalized_weights", s.normalized_weights, {"weights": mixture}),
        ("reciprocal_rank_fusion", s.reciprocal_rank_fusion, {"rankings": rankings, "k": number}),
        ("entries", c.entries, {"weights": weights}),
        ("to_qdrant", c.to_qdrant, {"weights": weights}),
        ("to_milvus", c.to_milvus, {"weights": weights}),
        ("to_milvus_csr", c.to_milvus_csr, {"weights": several, "vocabulary_size": number}),
        ("to_elasticsearch", c.to_elasticsearch, {"weights": weights, "tokens": nothing}),
        ("to_vespa", c.to_vespa, {"weights": weights}),
        ("to_sparsevec", c.to_sparsevec, {"weights": weights, "vocabulary_size": number}),
        ("merge_token_weights", c.merge_token_weights, {"token_ids": numbers, "weights": mixture}),
        ("LexicalWeights.from_dicts", LexicalWeights.from_dicts, {"rows": rows}),
        (
            "LexicalWeights",
            LexicalWeights,
            {"token_ids": array, "weights": array, "offsets": array},
        ),
        ("LexicalWeights[]", fixed.__getitem__, {"0": number}),
        ("LexicalWeights.to_scipy", fixed.to_scipy, {"vocabulary_size": number}),
        ("MultiVectors.from_arrays", MultiVectors.from_arrays, {"arrays": arrays}),
        ("MultiVectors", MultiVectors, {"vectors": dense, "offsets": array}),
        ("Representations", Representations, {"dense_vecs": dense, "lexical_weights": several}),
        ("Representations.concatenate", Representations.concatenate, {"parts": many_reps}),
        ("parse_filter", parse_filter, {"where": where}),
        ("parse_example", partial(parse_example, where="here"), {"line": line}),
        ("LexicalIndex.add", index.add, {"ids": ids, "weights": rows}),
        ("LexicalIndex.delete", index.delete, {"ids": ids}),
        ("LexicalIndex.get", index.get, {"document": one_id}),
        ("LexicalIndex.search", index.search, {"weights": weights, "k": number}),
        ("LexicalIndex.search_batch", index.search_batch, {"weights": several, "k": number}),
        ("LexicalIndex.score_all", index.score_all, {"weights": weights}),
        ("collection.add", held.add, {"texts": texts, "metadatas": metadata, "ids": ids}),
        ("collection.delete", held.delete, {"ids": ids}),
        ("collection.get", held.get, {"ids": ids}),
        ("collection.ids", held.ids, {"where": where}),
        ("collection.search", held.search, {"query": text, "k": number, "where": where}),
        ("collection.search of ids", held.search, {"query": text, "k": number, "ids": ids}),
        (
            "collection.search by vector",
            held.search,
            {"query": text, "k": number, "vector": vector},
        ),
        ("collection.search mixed", held.search, {"query": text, "k": number, "weights": mixture}),
        ("fake.encode", fake.encode_documents, {"texts": texts, **parts}),
        (
            "encode_documents",
            encoder.encode_documents,
            {"texts": texts, **parts, "max_length": length},
        ),
        ("encode_queries", encoder.encode_queries, {"texts": texts, **parts}),
        ("compute_score", encoder.compute_score, {"pairs": pairs, "weights": mixture}),
        ("decode_weights", encoder.decode_weights, {"weights": weights}),
        ("with_options", encoder.with_options, {"max_length": length, "truncate_dim": number}),
        ("reranker.compute_score", reranker.compute_score, {"pairs": pairs, "normalize": flag}),
        ("reranker.rank", reranker.rank, {"query": text, "documents": texts, "top_n": number}),
    ]
    return [*found, *_frameworks(fake)]


def _frameworks(fake: FakeEncoder) -> list[Function]:
    from llama_index.core.schema import QueryBundle, TextNode

    from langchain_m3 import M3Embeddings, M3InMemoryVectorStore
    from llamaindex_m3 import M3Index

    store = M3InMemoryVectorStore(encoder=fake)
    embeddings = M3Embeddings(encoder=fake)
    llama = M3Index([TextNode(id_="d0", text="panda")], encoder=fake)

    def nodes(rng: random.Random) -> list[TextNode]:
        return [TextNode(id_=one, text=text(rng)) for one in set(ids(rng))]

    def retrieve(query: Any, **options: Any) -> Any:
        # LlamaIndex itself takes a query apart.
        return llama.as_retriever(**options).retrieve(QueryBundle(query))

    def mode(rng: random.Random) -> str:
        return rng.choice(["dense", "sparse", "colbert", "hybrid"])

    by_vector = store.similarity_search_by_vector
    return [
        ("embed_documents", embeddings.embed_documents, {"texts": texts}),
        ("embed_query", embeddings.embed_query, {"text": text}),
        ("add_texts", store.add_texts, {"texts": texts, "metadatas": metadata, "ids": ids}),
        ("get_by_ids", store.get_by_ids, {"0": ids}),
        ("delete", store.delete, {"ids": ids}),
        (
            "similarity_search",
            store.similarity_search,
            {"query": text, "k": number, "filter": where},
        ),
        ("similarity_search_by_vector", by_vector, {"embedding": vector, "k": number}),
        ("search_with_scores", store.search_with_scores, {"query": text}),
        ("insert_nodes", llama.insert_nodes, {"nodes": nodes}),
        ("delete_nodes", llama.delete_nodes, {"node_ids": ids}),
        ("retrieve", retrieve, {"query": text, "similarity_top_k": number, "mode": mode}),
        ("retrieve of ids", retrieve, {"query": text, "node_ids": ids, "doc_ids": ids}),
        ("retrieve filtered", retrieve, {"query": text, "filters": where, "weights": mixture}),
    ]


def reps(rng: random.Random) -> Representations:
    count = rng.randrange(1, 3)
    return Representations(
        dense_vecs=np.ones((count, 4), np.float32),
        lexical_weights=LexicalWeights.from_dicts([weights(rng) for _ in range(count)]),
        colbert_vecs=MultiVectors.from_arrays([np.ones((2, 4), np.float32)] * count),
    )


def many_reps(rng: random.Random) -> list[Representations]:
    return [reps(rng) for _ in range(rng.randrange(3))]


def rankings(rng: random.Random) -> list[list[str]]:
    return [ids(rng) for _ in range(rng.randrange(3))]


def rows(rng: random.Random) -> list[dict[int, float]]:
    return [weights(rng) for _ in range(rng.randrange(4))]


def array(rng: random.Random) -> np.ndarray:
    return np.sort(np.array([rng.randrange(4) for _ in range(rng.randrange(4))], np.int64))


def arrays(rng: random.Random) -> list[np.ndarray]:
    return [dense(rng) for _ in range(rng.randrange(3))]


def numbers(rng: random.Random) -> list[int]:
    return [rng.randrange(9) for _ in range(3)]


def length(rng: random.Random) -> int:
    return rng.randrange(3, 40)


def nothing(_: random.Random) -> None:
    return None


def calls(
    known: list[Function], number_of: int, seed: int
) -> Iterator[tuple[str, Callable[..., Any], list[Any], dict[str, Any]]]:
    """Calls in which some arguments are odd."""
    rng = random.Random(seed)
    for _ in range(number_of):
        name, function, arguments = rng.choice(known)
        odd = rng.choice((0.1, 0.5, 1.0))
        made = {
            key: (rng.choice(ODD)() if rng.random() < odd else usual(rng))
            for key, usual in arguments.items()
        }
        first = [made.pop("0")] if "0" in made else []
        yield name, function, first, made


# What the documentation of a function names besides.
DOCUMENTED = {"LexicalWeights[]": IndexError, "LexicalIndex.get": KeyError}


def raw(name: str, error: BaseException) -> str | None:
    """The name of an error that is no answer."""
    if isinstance(error, (M3Error, DOCUMENTED.get(name, M3Error))):
        return None
    inner = (UnicodeError, json.JSONDecodeError, struct.error, np.exceptions.AxisError)
    if isinstance(error, (TypeError, ValueError)) and not isinstance(error, inner):
        return None
    return type(error).__name__


def fuzz(
    known: list[Function], number_of: int, seed: int = 0
) -> tuple[collections.Counter[str], dict[str, str]]:
    """Call functions; how each call ended, and one example of each raw error."""
    counts: collections.Counter[str] = collections.Counter()
    examples: dict[str, str] = {}
    for name, function, first, made in calls(known, number_of, seed):
        try:
            function(*first, **made)
            counts["worked"] += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001
            kind = raw(name, error)
            counts["refused" if kind is None else "RAW"] += 1
            if kind is not None:
                frames = [
                    frame
                    for frame in traceback.extract_tb(error.__traceback__)
                    if "m3" in frame.filename
                ]
                at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "none"
                counts[f"{kind} of {name} at {at}"] += 1
                shown = {key: _shown(value) for key, value in made.items()}
                examples.setdefault(f"{kind} of {name} at {at}", f"{shown}: {error!s:.80}")
    return counts, examples


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.60}"
    except RecursionError:
        return "nested"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    with tempfile.TemporaryDirectory() as place:
        counts, examples = fuzz(functions(Path(place)), asked.calls, asked.seed)
    print({key: counts[key] for key in ("worked", "refused", "RAW")})
    for key, example in sorted(examples.items()):
        print(f"  {counts[key]} x {key}: {example}")
    return 1 if counts["RAW"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""M3Index against LlamaIndex's bge-m3 managed index: the same rankings, queries how much faster.

    python benchmarks/llamaindex_managed.py --model FOLDER --xquad FOLDER --storage FOLDER

``--model``: a checkpoint in M3's layout with mean pooling and the prompts "query: " and
"passage: " of multilingual-e5-small (see the README's stand-in). The managed index is told of the
pooling, and the prompts are put into its texts. ``--xquad``: a folder with ``xquad.en.json`` and
the files of the other five languages. Needs ``pip install llama-index-indices-managed-bge-m3
FlagEmbedding`` beside this package.

Ranking: every fourth question of XQuAD en over its 240 paragraphs, which each index encodes with
its own code. The ten best of each mode must be the same nodes in the same order, except where the
scores of the two nodes differ by less than 1e-4.

Speed: 10,000 nodes. ``--texts paragraphs``: those of XQuAD in six languages, encoded once by
M3Index and saved in ``--storage``, each about seven times with noise of its own on every number.
``--texts sentences``: its sentences in six languages and questions in four, all different. The
managed index gets the same arrays, in the types of FlagEmbedding's ``encode``, so that nothing is
encoded twice. Each query is asked of the managed index and of ours in turn. "Whole" is what users
wait for: query encoding on both sides. "Search" leaves it out: the managed index is given the
query's encoding, ours finds it in the cache of the query before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from llama_index.core.schema import TextNode
from xquad_nodes import contexts, large_index, questions

from llamaindex_m3 import M3Index
from m3_core import Encoder
from m3_core.encoder import CachedEncoder
from m3_core.encoder.cache import cache_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llama_index.core.schema import NodeWithScore

    from m3_core.representations import Representations

MODES = {
    "dense": [1.0, 0.0, 0.0],
    "sparse": [0.0, 1.0, 0.0],
    "colbert": [0.0, 0.0, 1.0],
    "hybrid": [1.0, 0.3, 1.0],
}
TOP = 10
TIE = 1e-4


def managed_index(model: Path, texts: list[str]) -> Any:
    """The peer, over texts that it encodes itself."""
    from llama_index.indices.managed.bge_m3 import BGEM3Index

    nodes = [TextNode(id_=str(i), text=f"passage: {text}") for i, text in enumerate(texts)]
    return BGEM3Index(nodes, model_name=str(model), pooling_method="mean", doc_maxlen=512)


def refill(index: Any, texts: list[str], reps: Representations) -> None:
    """Put other texts with their encodings into the peer, in FlagEmbedding's types."""
    assert reps.dense_vecs is not None
    assert reps.lexical_weights is not None
    assert reps.colbert_vecs is not None
    rows = [
        defaultdict(int, {str(token): np.float32(weight) for token, weight in row.items()})
        for row in reps.lexical_weights
    ]
    index._multi_embed_store = {
        "dense_vecs": reps.dense_vecs,
        "lexical_weights": rows,
        "colbert_vecs": [np.array(row, np.float32) for row in reps.colbert_vecs],
    }
    nodes = [TextNode(id_=str(i), text=text) for i, text in enumerate(texts)]
    index._docs_pos_to_node_id = {i: node.node_id for i, node in enumerate(nodes)}
    index.docstore.add_documents(nodes, allow_update=True)


@contextlib.contextmanager
def encoded_once(index: Any, query: str) -> Iterator[None]:
    """Have the peer find a query's encoding ready."""
    encode = index.model.encode
    encoding = encode(query, return_sparse=True, return_colbert_vecs=True)
    index.model.encode = lambda *_, **__: encoding
    try:
        yield
    finally:
        index.model.encode = encode


def is_same(ours: list[NodeWithScore], theirs: list[NodeWithScore]) -> bool:
    """Whether the best are the same, up to ties; ``theirs`` holds all nodes."""
    scores = {one.node.node_id: float(one.score) for one in theirs}
    return all(
        mine.node.node_id == other.node.node_id
        or abs(scores[mine.node.node_id] - float(other.score)) < TIE
        for mine, other in zip(ours[:TOP], theirs[:TOP], strict=True)
    )


def compare_rankings(args: argparse.Namespace, encoder: Encoder, theirs: Any) -> None:
    texts = contexts(args.xquad, "en")
    asked = questions(args.xquad, "en")[:: args.every]
    ours = M3Index(
        [TextNode(id_=str(i), text=text) for i, text in enumerate(texts)], encoder=encoder
    )
    same: dict[str, list[int]] = {mode: [0, 0] for mode in MODES}
    apart = dict.fromkeys(MODES, 0.0)
    for question in asked:
        with encoded_once(theirs, f"query: {question}"):
            for mode, weights in MODES.items():
                theirs.weights_for_different_modes = weights
                expected = theirs.query(f"query: {question}", len(texts))
                for place, options in enumerate(({}, {"fetch_k": 100})):
                    retriever = ours.as_retriever(mode=mode, similarity_top_k=TOP, **options)
                    found = retriever.retrieve(question)
                    same[mode][place] += is_same(found, expected)
                scores = {one.node.node_id: float(one.score) for one in expected}
                differences = [abs(one.score - scores[one.node.node_id]) for one in found]
                apart[mode] = max(apart[mode], *differences)
    for mode, (plain, few) in same.items():
        print(
            f"  {mode:8} the same ten best for {plain} of {len(asked)} questions, with "
            f"fetch_k=100 for {few}; scores within {apart[mode]:.0e}",
            flush=True,
        )


def forget(view: CachedEncoder) -> None:
    """Empty the cache of recent encodings."""
    cache = cache_of(view.encoder.model)
    most, cache.max_entries = cache.max_entries, 0
    view.queries([""])
    cache.max_entries = most


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def compare_speed(args: argparse.Namespace, encoder: Encoder, theirs: Any) -> None:
    ours, texts, reps = large_index(args.xquad, args.texts, args.storage, encoder)
    assert reps.colbert_vecs is not None
    refill(theirs, texts, reps)
    print(f"  {len(texts)} nodes, {len(reps.colbert_vecs.vectors) / len(texts):.0f} tokens each")
    view = CachedEncoder(encoder, ("dense",))
    asked = questions(args.xquad, "en")[1 :: args.every][: args.queries]
    for mode, weights in MODES.items():
        theirs.weights_for_different_modes = weights
        calls: dict[str, Any] = {"managed": theirs.as_retriever(similarity_top_k=TOP)}
        calls["default"] = ours.as_retriever(mode=mode, similarity_top_k=TOP)
        if mode in ("colbert", "hybrid"):
            calls["exhaustive"] = ours.as_retriever(
                mode=mode, similarity_top_k=TOP, exhaustive=True
            )
        taken: dict[tuple[str, str], list[float]] = defaultdict(list)
        same: dict[str, int] = defaultdict(int)
        for number, question in enumerate(asked):
            expected: list[str] = []
            for name, retriever in calls.items():
                query = f"query: {question}" if name == "managed" else question
                forget(view)
                whole, found = timed(lambda r=retriever, q=query: r.retrieve(q))
                with encoded_once(theirs, query):
                    search, _ = timed(lambda r=retriever, q=query: r.retrieve(q))
                if number:
                    taken[name, "whole"].append(whole)
                    taken[name, "search"].append(search)
                ids = [one.node.node_id for one in found]
                expected = expected or ids
                same[name] += ids == expected
        for name in calls:
            whole, search = (statistics.median(taken[name, part]) for part in ("whole", "search"))
            ratios = [
                statistics.median(
                    a / b for a, b in zip(taken["managed", p], taken[name, p], strict=True)
                )
                for p in ("whole", "search")
            ]
            print(
                f"  {mode:8} {name:10} whole {1e3 * whole:7.1f} ms {ratios[0]:6.1f} x   "
                f"search {1e3 * search:7.2f} ms {ratios[1]:6.1f} x   "
                f"same ten best {same[name]}/{len(asked)}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--xquad", type=Path, required=True)
    parser.add_argument("--storage", type=Path, required=True, help="of encoded nodes")
    parser.add_argument("--texts", choices=("paragraphs", "sentences"), default="paragraphs")
    parser.add_argument("--every", type=int, default=4, help="use each so-manieth question")
    parser.add_argument("--queries", type=int, default=21, help="timed for each mode")
    parser.add_argument("--only", choices=("build", "rankings", "speed"), help="a part of it")
    args = parser.parse_args()
    encoder = Encoder.from_pretrained(
        args.model,
        device="cpu",
        dtype="float32",
        query_instruction="query: ",
        document_instruction="passage: ",
    )
    print(json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__}), flush=True)
    if args.only == "build":
        large_index(args.xquad, args.texts, args.storage, encoder)
        return
    most = 1 if args.only == "speed" else None
    theirs = managed_index(args.model, contexts(args.xquad, "en")[:most])
    if args.only != "speed":
        print("Rankings, XQuAD en")
        compare_rankings(args, encoder, theirs)
    if args.only != "rankings":
        print("Speed")
        compare_speed(args, encoder, theirs)


if __name__ == "__main__":
    main()

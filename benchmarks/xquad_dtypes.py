"""What a data type costs in quality: retrieval on XQuAD in several of them.

    python benchmarks/xquad_dtypes.py --model MODEL --data XQUAD_FOLDER [--dtypes float32 int8]

Every fourth question against all 240 paragraphs of a language (https://github.com/google-deepmind/
xquad, ``xquad.<language>.json``), brute force over the representations. Prints R@1 of each head
and of two hybrids in the first type, how far each other type is from it, and the averages over
languages. ``--save FILE`` keeps the ten best of each question in the last type; ``--against FILE``
says for how many questions they are those of another run, with other instruction sets for example.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from xquad_retrievers import read

from m3_core import Encoder
from m3_core.scoring import dense_scores, lexical_scores, maxsim_scores

HYBRIDS = {".4/.2/.4": (0.4, 0.2, 0.4), "1/.3/1": (1.0, 0.3, 1.0)}
HEADS = ("dense", "sparse", "colbert", *HYBRIDS)


def scores_of(
    encoder: Encoder, questions: list[str], paragraphs: list[str]
) -> dict[str, NDArray[np.float32]]:
    flags = {"return_sparse": True, "return_colbert_vecs": True}
    asked = encoder.encode_queries(questions, **flags)
    known = encoder.encode_documents(paragraphs, **flags)
    assert asked.dense_vecs is not None
    assert known.dense_vecs is not None
    each = {
        "dense": dense_scores(asked.dense_vecs, known.dense_vecs),
        "sparse": lexical_scores(asked.lexical_weights, known.lexical_weights),
        "colbert": maxsim_scores(asked.colbert_vecs, known.colbert_vecs),
    }
    for name, weights in HYBRIDS.items():
        each[name] = sum(w * scores for w, scores in zip(weights, each.values(), strict=False))
    return each


def best_ten(scores: NDArray[np.float32]) -> list[list[int]]:
    return np.argsort(-scores, axis=1, kind="stable")[:, :10].tolist()


def compare(ours: dict[str, list[list[int]]], path: Path) -> None:
    """Say for how many questions the ten best are those of another run."""
    others = json.loads(path.read_text(encoding="utf-8"))
    for name in HEADS:
        keys = [key for key in ours if key.endswith(f" {name}") and key in others]
        pairs = [pair for key in keys for pair in zip(ours[key], others[key], strict=True)]
        same = sum(set(a) == set(b) for a, b in pairs) / len(pairs)
        first = sum(a[0] == b[0] for a, b in pairs) / len(pairs)
        shared = sum(len(set(a) & set(b)) for a, b in pairs) / len(pairs) / 10
        print(
            f"{name:9} of {len(pairs)} questions: the same ten {same:.4f}, the same first "
            f"{first:.4f}, share of the ten {shared:.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "int8"])
    parser.add_argument("--languages", nargs="+", default=["en", "de", "es", "zh", "ru", "hi"])
    parser.add_argument("--save", type=Path)
    parser.add_argument("--against", type=Path)
    args = parser.parse_args()
    encoders = [Encoder.from_pretrained(args.model, device="cpu", dtype=d) for d in args.dtypes]
    recalls = np.zeros((len(args.languages), len(encoders), len(HEADS)))
    ranked: dict[str, list[list[int]]] = {}
    print(" ".join(["language, type".ljust(18), *(name.rjust(15) for name in HEADS)]))
    for row, language in enumerate(args.languages):
        paragraphs, questions, gold = read(args.data / f"xquad.{language}.json")
        for number, encoder in enumerate(encoders):
            for column, (name, scores) in enumerate(
                scores_of(encoder, questions, paragraphs).items()
            ):
                own = scores[np.arange(len(gold)), gold, None]
                recalls[row, number, column] = ((scores > own).sum(1) == 0).mean()
                ranked[f"{language} {name}"] = best_ten(scores)
            show(f"{language} {args.dtypes[number]}", recalls[row, number], recalls[row, 0])
    for number, dtype in enumerate(args.dtypes):
        show(f"mean {dtype}", recalls[:, number].mean(0), recalls[:, 0].mean(0))
    if args.against is not None:
        compare(ranked, args.against)
    if args.save is not None:
        args.save.write_text(json.dumps(ranked), encoding="utf-8")


def show(name: str, values: NDArray[np.float64], reference: NDArray[np.float64]) -> None:
    cells = [
        f"{value:.4f} ({value - base:+.4f})" for value, base in zip(values, reference, strict=True)
    ]
    print(" ".join([name.ljust(18), *cells]), flush=True)


if __name__ == "__main__":
    main()

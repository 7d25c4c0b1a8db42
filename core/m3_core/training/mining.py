"""Hard negatives: documents that a model ranks high for a query without being right.

Output is FlagEmbedding's format (``scripts/hn_mine.py``): the same examples with ``neg`` filled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m3_core.errors import TrainingDataError
from m3_core.json_text import parse_json
from m3_core.training.data import check_text, read_examples
from m3_core.training.evaluation import score_matrix
from m3_core.training.options import MiningOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from m3_core.encoder import Encoder
    from m3_core.representations import Representations

__all__ = ["MiningOptions", "mine", "mine_files"]


def mine(
    encoder: Encoder,
    examples: Sequence[dict[str, Any]],
    pool: Iterable[str] | None = None,
    options: MiningOptions | None = None,
    *,
    block: int = 256,
) -> list[dict[str, Any]]:
    """Fill in the negatives of examples.

    Args:
        encoder: Ranks the documents.
        examples: As of ``data.parse_example``.
        pool: Documents to choose from; all documents of the examples if ``None``.
        options: Which of them to take.
        block: Queries scored at a time.

    Returns:
        The examples with ``neg``; one with too few candidates is filled up at random.

    Raises:
        TrainingDataError: There are no examples, or fewer documents than negatives.
    """
    options = options or MiningOptions()
    if not examples:
        raise TrainingDataError("no examples to mine negatives for")
    own = (text for row in examples for text in (*row["pos"], *row["neg"]))
    documents = list(dict.fromkeys(own if pool is None else pool))
    asked = {"return_dense": options.method != "sparse", "return_sparse": options.method != "dense"}
    d = encoder.encode_documents(documents, show_progress=True, **asked)
    q = encoder.encode_queries([row["query"] for row in examples], show_progress=True, **asked)
    rng = np.random.default_rng(options.seed)
    mined = []
    for start in range(0, len(examples), block):
        scores = _scores(q[start : start + block], d, options.method)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : options.last]
        for row, ranking in zip(examples[start : start + block], best, strict=True):
            mined.append(_filled(row, documents, ranking, options, rng))
    return mined


def _filled(
    row: dict[str, Any],
    documents: list[str],
    ranking: np.ndarray[Any, Any],
    options: MiningOptions,
    rng: np.random.Generator,
) -> dict[str, Any]:
    kept = list(row["neg"]) if options.keep else []
    taken = {*row["pos"], *kept, row["query"]}
    found = [documents[i] for i in ranking[options.first :] if documents[i] not in taken]
    if len(found) > options.negatives:
        chosen = sorted(rng.choice(len(found), options.negatives, replace=False))
        found = [found[i] for i in chosen]
    taken.update(found)
    missing = options.negatives - len(found)
    if missing:
        others = [text for text in documents if text not in taken]
        if len(others) < missing:
            raise TrainingDataError(
                f"{len(documents)} documents are too few for {options.negatives} negatives of "
                f"{row['query'][:60]!r}: give a larger pool or ask for fewer"
            )
        found += [others[i] for i in rng.choice(len(others), missing, replace=False)]
    # Scores of a teacher belong to the former negatives.
    return {**row, "neg": kept + found, "pos_scores": None, "neg_scores": None}


def _scores(q: Representations, d: Representations, method: str) -> np.ndarray[Any, Any]:
    if method != "hybrid":
        return score_matrix(method, q, d)
    return score_matrix("dense", q, d) + np.float32(0.3) * score_matrix("sparse", q, d)


def mine_files(
    encoder: Encoder,
    sources: Sequence[str | Path],
    output: str | Path,
    pool: str | Path | None = None,
    options: MiningOptions | None = None,
) -> int:
    """Mine negatives for files of examples.

    Args:
        encoder: Ranks the documents.
        sources: Files of examples, or folders of them.
        output: Where the examples go, as JSON lines.
        pool: JSON lines with ``text``, documents to choose from.
        options: Which of them to take.

    Returns:
        Number of examples.

    Raises:
        TrainingDataError: The examples or the pool cannot be, or the output is a folder.
    """
    target = Path(output)
    if target.is_dir():
        raise TrainingDataError(f"output {target} is a folder: name a file")
    examples = read_examples(sources)
    documents = None if pool is None else _read_pool(Path(pool))
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = mine(encoder, examples, documents, options)
    partial = target.with_name(target.name + ".partial")
    with partial.open("w", encoding="utf-8") as lines:
        for row in rows:
            known = {key: value for key, value in row.items() if value is not None}
            lines.write(json.dumps(known, ensure_ascii=False) + "\n")
    partial.replace(target)
    return len(rows)


def _read_pool(path: Path) -> list[str]:
    texts = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingDataError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = parse_json(line)["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingDataError(f"{path}:{number}: no JSON object with 'text'") from error
        check_text(text, "'text'", f"{path}:{number}")
        texts.append(text)
    return texts

"""Where training starts, in closed form: token vectors and weights out of teacher.npz.

    python start.py --vocabulary vocab36k --work material --wordfreq wordfreq-3.1.1-py3-none-any.whl

Writes start.npz: ``rows`` (untrained embedding table), ``colbert`` and ``sparse`` (heads) and
``targets`` (the teacher's dense vectors in the student's space).

An embedding row is [s m, ballast, -ballast, w, -w] with m the meaning, s how much the piece counts
in the mean of a text, w its lexical weight, and ballast what makes all rows equally long: the layer
norm scales each row to one length, so the ballast decides how much is left for the meaning.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import (
    FAINT,
    HIDDEN,
    MEANING,
    general_frequency,
    read_vocabulary,
    text_frequency,
    unit,
    whitening,
    zero_sum_basis,
)

# A lexical weight is 0.6 times the root of the inverse document frequency, 8 at most: query and
# document together give the frequency itself.
MOST, LARGEST, STORED = 8.0, 0.6, 0.35
# Documents of this many tokens are what "document frequency" is about.
LENGTH = 120


def ridge(x: np.ndarray, y: np.ndarray, strength: float = 20.0) -> np.ndarray:
    """The linear map from rows of x to rows of y."""
    return np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)


def token_vectors(teacher: np.lib.npyio.NpzFile) -> np.ndarray:
    """One vector a piece: in context where seen often, else alone, else the input embedding."""
    sums, counts, have = teacher["sums"], teacher["counts"], teacher["have"]
    context = unit(sums / np.maximum(counts, 1)[:, None] - sums.sum(0) / counts.sum())
    context[counts == 0] = 0
    alone = unit(teacher["alone"] - teacher["alone"][have].mean(0))
    given = unit(teacher["input"] - teacher["input"].mean(0))
    alone[~have] = unit(given @ ridge(given[have], alone[have]))[~have]
    seen = counts >= 6
    guess = unit(0.6 * unit(alone @ ridge(alone[seen], context[seen])) + 0.5 * alone)
    trust = (counts / (counts + 12))[:, None]
    mixed = unit(trust * context + (1 - trust) * guess)
    return unit(mixed - mixed.mean(0))


def projection(dense: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Principal directions of dense and token vectors, onto rows that sum to 0."""
    spread = dense.T @ dense / len(dense) + 0.5 * tokens.T @ tokens / len(tokens)
    directions = np.linalg.eigh(spread)[1][:, ::-1][:, : MEANING - 1]
    return np.asarray(directions @ zero_sum_basis())


def frequencies(general: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Geometric mean of both, but not far below the larger."""
    mean = np.sqrt(np.maximum(general, 1e-8) * np.maximum(texts, 1e-8))
    return np.maximum(np.maximum(mean, 0.3 * np.maximum(general, texts)), 2e-7)


def start(
    meaning: torch.Tensor, frequency: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embedding rows and the weights of both heads."""
    inverse = (1 + 1 / (1 - (-LENGTH * frequency).exp())).log().clamp(0.2, MOST)
    weight = (STORED * (inverse / MOST).sqrt()).float()
    weight[:5] = 0
    weight[-1] = 0
    share = (3e-4 / (3e-4 + frequency)).clamp(0.05, 1) ** 0.7 * inverse / MOST
    share = 0.9 * share.clamp(0.02, 1).float()
    share[:3] = 0.03
    share = torch.minimum(share, (0.99 - weight**2).sqrt())
    ballast = (1 - share**2 - weight**2).sqrt()
    pairs = torch.stack([ballast, -ballast, weight, -weight], 1) / 2**0.5
    rows = torch.cat([meaning * share[:, None], pairs], 1)
    colbert = torch.zeros(HIDDEN, HIDDEN)
    colbert[:MEANING, :MEANING] = torch.eye(MEANING)
    colbert[MEANING, MEANING] = colbert[MEANING + 1, MEANING + 1] = 0.7 / FAINT
    sparse = torch.zeros(HIDDEN)
    # The layer norm makes a row of length 1 the root of HIDDEN long.
    sparse[MEANING + 2] = LARGEST / (STORED * (2 * HIDDEN) ** 0.5 * FAINT)
    sparse[MEANING + 3] = -sparse[MEANING + 2]
    return rows, colbert, sparse


def main() -> None:
    """Write start.npz."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--wordfreq", type=Path, required=True, help="wheel of wordfreq")
    arguments = parser.parse_args()
    tokenizer, _ = read_vocabulary(arguments.vocabulary)
    teacher = np.load(arguments.work / "teacher.npz")
    frequency = frequencies(
        general_frequency(tokenizer, arguments.wordfreq),
        text_frequency(tokenizer, arguments.work / "texts.jsonl.gz"),
    )
    tokens = token_vectors(teacher)
    dense = unit(teacher["dense"] - teacher["dense"].mean(0))
    matrix = projection(dense, tokens)
    meaning = torch.from_numpy(unit(tokens @ matrix)).float()
    white = whitening(meaning)
    rows, colbert, sparse = start(
        torch.nn.functional.normalize(meaning @ white, dim=1), torch.from_numpy(frequency)
    )
    targets = torch.from_numpy(unit(dense @ matrix)).float() @ white
    np.savez(
        arguments.work / "start.npz",
        rows=rows.numpy(),
        colbert=colbert.numpy(),
        sparse=sparse.numpy(),
        targets=torch.nn.functional.normalize(targets, dim=1).numpy(),
    )


if __name__ == "__main__":
    main()

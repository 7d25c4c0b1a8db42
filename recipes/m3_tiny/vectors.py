"""Train the embedding table and the heads, as a network without layers.

    python vectors.py --work material --minutes 15

Reads start.npz and prepared.npz, writes table.npz. Contrastive on pairs of one language and on
passages with some of their own words as queries (dense, lexical, multi-vector and their sum), on
pairs across languages (dense), and towards the teacher's dense vectors.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
from common import FAINT, HIDDEN, MEANING, Rows
from torch.nn import functional
from vocabulary import CORE

log = logging.getLogger("vectors")
BATCH, CROSS, TAUGHT = 48, 384, 256


class Table(torch.nn.Module):
    """Embedding table and heads.

    Args:
        start: What start.py wrote.
    """

    def __init__(self, start: np.lib.npyio.NpzFile) -> None:
        super().__init__()
        self.rows = torch.nn.Parameter(torch.from_numpy(start["rows"]))
        self.colbert = torch.nn.Parameter(torch.from_numpy(start["colbert"]))
        self.sparse = torch.nn.Parameter(torch.from_numpy(start["sparse"]))
        self.bias = torch.nn.Parameter(torch.zeros(1))
        self.sharpness = torch.nn.Parameter(torch.tensor(math.log(8.0)))
        faint = torch.ones(HIDDEN)
        faint[MEANING:] = FAINT
        self.register_buffer("faint", faint)

    def states(self, ids: torch.Tensor) -> torch.Tensor:
        """Hidden states of pieces. Shape: (pieces, HIDDEN)."""
        return functional.layer_norm(self.rows[ids], (HIDDEN,)) * self.faint


def unique(*lists: list[np.ndarray]) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """Ids that occur in groups of texts; the place of each token among them; where texts begin."""
    flats = [np.concatenate(rows) for rows in lists]
    ids, places = np.unique(np.concatenate(flats), return_inverse=True)
    parts = np.split(places, np.cumsum([len(flat) for flat in flats])[:-1])
    begins = [np.cumsum([0, *map(len, rows[:-1])]) for rows in lists]
    return (
        torch.from_numpy(ids.astype(np.int64)),
        [torch.from_numpy(part) for part in parts],
        [torch.from_numpy(begin) for begin in begins],
    )


def mean_states(states: torch.Tensor, places: torch.Tensor, begins: torch.Tensor) -> torch.Tensor:
    """Dense vectors."""
    return functional.normalize(functional.embedding_bag(places, states, begins, mode="mean"))


def contrast(scores: torch.Tensor) -> torch.Tensor:
    """InfoNCE in both directions; scores are divided by the temperature already."""
    own = torch.arange(len(scores))
    return (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)) / 2


def padded(places: torch.Tensor, rows: list[np.ndarray]) -> torch.Tensor:
    """Places of the tokens that have multi-vectors, all but the first, filled up with -1."""
    parts = [part[1:] for part in places.split([len(row) for row in rows])]
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=-1)


def all_losses(
    table: Table, queries: list[np.ndarray], documents: list[np.ndarray]
) -> dict[str, torch.Tensor]:
    """Contrastive losses of the three representations and of their sum."""
    ids, (q, d), (q_begins, d_begins) = unique(queries, documents)
    states = table.states(ids)
    dense = mean_states(states, q, q_begins) @ mean_states(states, d, d_begins).T
    weights = functional.relu(states @ table.sparse + table.bias)
    sides = []
    for places, rows in ((q, queries), (d, documents)):
        number = torch.from_numpy(np.repeat(np.arange(len(rows)), [len(row) for row in rows]))
        holds = torch.zeros(len(rows), len(ids))
        holds[number, places] = 1
        sides.append(holds * weights)
    lexical = sides[0] @ sides[1].T
    vectors = functional.normalize(states @ table.colbert.T, dim=-1)
    q_places, d_places = padded(q, queries), padded(d, documents)
    own, back = torch.unique(q_places, return_inverse=True)
    similar = vectors[own.clamp(min=0)] @ vectors[d_places.clamp(min=0).flatten()].T
    similar = similar.view(len(own), *d_places.shape).masked_fill(d_places < 0, -2)
    real = (q_places >= 0).float()
    colbert = (similar.amax(2)[back] * real[:, :, None]).sum(1) / real.sum(1)[:, None]
    return {
        "dense": contrast(dense / 0.05),
        "sparse": contrast(lexical * table.sharpness.exp()),
        "colbert": contrast(colbert / 0.02),
        "sum": contrast((dense + 0.3 * lexical + colbert) / 0.04),
    }


def own_words(rng: np.random.Generator, row: np.ndarray, begins_word: np.ndarray) -> np.ndarray:
    """A stretch of a text with some words left out, between the special tokens."""
    inner = row[1:-1]
    length = int(rng.integers(5, 26))
    at = int(rng.integers(max(len(inner) - length, 1)))
    part = inner[at : at + length]
    word = np.cumsum(begins_word[part])
    keep = (rng.random(word[-1] + 1) < rng.choice((0.35, 0.55, 0.8)))[word]
    if word[-1] < 3:  # a script without spaces
        keep = np.repeat(rng.random(len(part) // 2 + 1) < 0.5, 2)[: len(part)]
    if keep.sum() >= 2:
        part = part[keep]
    return np.concatenate([row[:1], part, row[-1:]])


class Sampler:
    """Draws batches.

    Args:
        prepared: What prepare.py wrote.
        seed: Of the draws.
    """

    def __init__(self, prepared: np.lib.npyio.NpzFile, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        names = ("query", "document", "passage", "taught")
        self.rows = {n: Rows(prepared[n], prepared[f"{n}_offsets"]) for n in names}
        self.begins_word = prepared["begins_word"]
        a, b = prepared["query_lang"], prepared["document_lang"]
        self.cross = np.flatnonzero(a != b)
        self.mono = {lang: np.flatnonzero((a == b) & (a == lang)) for lang in CORE}
        self.passages = {lang: np.flatnonzero(prepared["passage_lang"] == lang) for lang in CORE}

    def pick(self, pool: np.ndarray, most: int) -> np.ndarray:
        """Numbers out of a pool, none twice."""
        return self.rng.choice(pool, min(most, len(pool)), replace=False)

    def pairs(self, numbers: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Queries and documents."""
        return self.rows["query"].take(numbers), self.rows["document"].take(numbers)

    def one_language(self, step: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Every third time pairs, else passages and queries of their own words."""
        lang = CORE[int(self.rng.integers(len(CORE)))]
        if step % 3 == 0 and len(self.mono[lang]) >= BATCH:
            return self.pairs(self.pick(self.mono[lang], BATCH))
        documents = self.rows["passage"].take(self.pick(self.passages[lang], BATCH))
        return [own_words(self.rng, row, self.begins_word) for row in documents], documents


def step_losses(
    table: Table, sampler: Sampler, targets: torch.Tensor, step: int
) -> dict[str, torch.Tensor]:
    """The parts of one step's loss."""
    numbers = sampler.pick(np.arange(len(targets)), TAUGHT)
    ids, (places,), (begins,) = unique(sampler.rows["taught"].take(numbers))
    taught = mean_states(table.states(ids), places, begins)[:, :MEANING]
    wanted = targets[numbers]
    near = (1 - functional.cosine_similarity(taught, wanted)).mean()
    told = functional.cross_entropy(taught @ wanted.T / 0.05, torch.arange(len(wanted)))
    queries, documents = sampler.pairs(sampler.pick(sampler.cross, CROSS))
    ids, (q, d), (q_begins, d_begins) = unique(queries, documents)
    states = table.states(ids)
    across = mean_states(states, q, q_begins) @ mean_states(states, d, d_begins).T
    parts = all_losses(table, *sampler.one_language(step))
    return parts | {"teacher": near + 0.25 * told, "cross": contrast(across / 0.05)}


WEIGHTS = {"teacher": 0.7, "cross": 0.4, "dense": 0.5, "sparse": 0.3, "colbert": 0.7, "sum": 0.5}


def main() -> None:
    """Train for some minutes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    start = np.load(arguments.work / "start.npz")
    table, targets = Table(start), torch.from_numpy(start["targets"])
    anchor = table.rows.detach().clone()
    sampler = Sampler(np.load(arguments.work / "prepared.npz"), arguments.seed)
    rates = [4e-4, 3e-4, 1e-4, 1e-3]
    groups = [[table.rows], [table.colbert], [table.sparse, table.bias], [table.sharpness]]
    optimizer = torch.optim.Adam([{"params": group} for group in groups], betas=(0.9, 0.99))
    begun, step, done = time.monotonic(), 0, 0.0
    while done < 1:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1, (step + 1) / 30) * max(0.03, 1 - done)
        parts = step_losses(table, sampler, targets, step)
        loss = sum(WEIGHTS[name] * part for name, part in parts.items())
        loss = loss + 1e-6 * (table.rows - anchor).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        done = (time.monotonic() - begun) / 60 / arguments.minutes
        if step % 25 == 0:
            log.info("%d %s", step, {name: round(part.item(), 3) for name, part in parts.items()})
    with torch.no_grad():
        rows = functional.layer_norm(table.rows, (HIDDEN,))
    np.savez(
        arguments.work / "table.npz",
        rows=rows.numpy(),
        **{n: getattr(table, n).detach().numpy() for n in ("colbert", "sparse", "bias")},
    )


if __name__ == "__main__":
    main()

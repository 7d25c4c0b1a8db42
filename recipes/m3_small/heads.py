"""Fit m3-small's heads on stored hidden states; the network stays as it is.

The lexical head is a linear layer over hidden states. It starts from the ridge regression of
each token's inverse document frequency in its language, as the word lists and texts of pieces.py
count it; then it learns to tell the passages of questions apart, of those that people asked
(``questions.py``) and of cloze questions (``lexical_head/make_pairs.py``), held to that start.
The multi-vector head takes the mean hidden state away: what all tokens have in common says
nothing about any of them.

    python heads.py --model m3-small --vocabulary VOCABULARY --pairs PAIRS --out HEADS
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from m3_core.network import PackedBackbone, PackedBatch, Tokenizer, read_checkpoint

log = logging.getLogger("heads")

# Rows of frequencies.npy.
LANGUAGES = ("en", "de", "es", "zh", "ru", "hi", "ar")
# Logarithms of one in so many tokens: words as frequent as the first tell nothing apart, those as
# rare as the second tell most.
COMMON, RARE = 5.5, 15.0
# Which file comes up when: English, the language asked for most, more often than others.
TURNS = tuple(
    "en-asked en en-asked zh-asked ar-asked de es en-asked zh ru hi ar".split()  # noqa: SIM905
)
# Tokens of a passage: those of Wikipedia are longer.
MAX_LENGTH = {True: 288, False: 160}


@dataclass(frozen=True)
class States:
    """Tokens of texts, special ones left out: id, hidden state and the text of each."""

    ids: torch.Tensor
    hidden: torch.Tensor
    rows: torch.Tensor
    count: int

    def some(self, texts: torch.Tensor) -> States:
        """The tokens of some texts, renumbered."""
        place = torch.full((self.count,), -1)
        place[texts] = torch.arange(len(texts))
        kept = place[self.rows] >= 0
        return States(self.ids[kept], self.hidden[kept], place[self.rows[kept]], len(texts))

    def weights(self, head: torch.Tensor, vocabulary: torch.Tensor) -> torch.Tensor:
        """Weight of each id of a sorted vocabulary in each text; the head ends with its bias."""
        at = torch.searchsorted(vocabulary, self.ids).clamp(max=len(vocabulary) - 1)
        known = vocabulary[at] == self.ids
        values = (self.hidden[known].float() @ head[:-1] + head[-1]).relu()
        flat = values.new_zeros(self.count * len(vocabulary))
        flat = flat.scatter_reduce(
            0, self.rows[known] * len(vocabulary) + at[known], values, "amax"
        )
        return flat.view(self.count, -1)


@dataclass(frozen=True)
class Material:
    """Queries and passages of a language; the last fifth of the passages is held out."""

    queries: States
    documents: States
    gold: torch.Tensor

    @property
    def cut(self) -> int:
        """The first passage that is held out."""
        return self.documents.count * 4 // 5


class Network:
    """Hidden states of texts, in bfloat16.

    Args:
        folder: The checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        checkpoint = read_checkpoint(folder, folder.name)
        self.prompts = checkpoint.prompts
        self.tokenizer = Tokenizer.from_folder(folder)
        self.backbone = PackedBackbone.load(checkpoint, torch.device("cpu"), torch.bfloat16)

    def states(self, texts: list[str], role: str, limit: int) -> States:
        """Encode texts as queries or documents, in batches of about 2,048 tokens."""
        tokens = self.tokenizer.encode([self.prompts[role] + text for text in texts], limit)
        order = np.argsort(-tokens.lengths, kind="stable")
        special = torch.from_numpy(self.tokenizer.unweighted_ids.astype(np.int64))
        found: list[tuple[torch.Tensor, ...]] = []
        start = 0
        while start < len(order):
            size = max(2048 // int(tokens.lengths[order[start]]), 1)
            chosen = order[start : start + size]
            start += size
            parts = [tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]] for i in chosen]
            lengths = np.array([len(part) for part in parts])
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            batch = PackedBatch(np.concatenate(parts).astype(np.int32), offsets)
            hidden, _ = self.backbone.forward(batch)
            ids = torch.from_numpy(batch.ids.astype(np.int64))
            rows = torch.from_numpy(np.repeat(chosen, lengths))
            kept = ~torch.isin(ids, special)
            found.append((ids[kept], hidden[kept].half().clone(), rows[kept]))
        ids, hidden, rows = (torch.cat(part) for part in zip(*found, strict=True))
        return States(ids, hidden, rows, len(texts))


def read(network: Network, file: Path, max_length: int, kept: Path) -> Material:
    """Encode a file of pairs, or read the states that an earlier run kept."""
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    passages = list(dict.fromkeys(row["pos"][0] for row in rows))
    texts = {"query": [row["query"] for row in rows], "document": passages}
    found = {}
    for role, limit in (("query", 64), ("document", max_length)):
        stored = kept / f"{file.stem}.{role}.safetensors"
        if stored.exists():
            found[role] = States(**load_file(stored), count=len(texts[role]))
        else:
            made = found[role] = network.states(texts[role], role, limit)
            kept.mkdir(parents=True, exist_ok=True)
            save_file({"ids": made.ids, "hidden": made.hidden, "rows": made.rows}, stored)
    number = {text: i for i, text in enumerate(passages)}
    gold = torch.tensor([number[row["pos"][0]] for row in rows])
    log.info("%s: %d passages, %d tokens", file.stem, len(passages), len(found["document"].ids))
    return Material(found["query"], found["document"], gold)


def rarity(frequencies: np.ndarray) -> torch.Tensor:
    """Inverse document frequency of each piece in a language, from 0 to 1."""
    rare = -np.log(np.maximum(frequencies, np.exp(-RARE)))
    return torch.from_numpy(((rare - COMMON) / (RARE - COMMON)).clip(0, 1).astype(np.float32))


def regress(
    parts: dict[str, Material], targets: dict[str, torch.Tensor], ridge: float
) -> torch.Tensor:
    """The linear function of hidden states, and bias, that comes closest to the targets."""
    size = next(iter(parts.values())).documents.hidden.shape[1] + 1
    left, right = torch.zeros(size, size), torch.zeros(size)
    for lang, part in parts.items():
        for states, share in ((part.documents, 1.0), (part.queries, 1.0)):
            x = functional.pad(states.hidden.float(), (0, 1), value=1.0)
            left += share / len(x) * x.T @ x
            right += share / len(x) * x.T @ targets[lang][states.ids]
    penalty = torch.eye(size)
    penalty[-1, -1] = 0
    return torch.linalg.solve(left + ridge * penalty, right)


def scores(
    head: torch.Tensor, material: Material, queries: torch.Tensor, documents: torch.Tensor
) -> torch.Tensor:
    """Lexical scores of some queries and some passages."""
    asked = material.queries.some(queries)
    vocabulary = torch.unique(asked.ids)
    given = material.documents.some(documents).weights(head, vocabulary)
    return asked.weights(head, vocabulary) @ given.T


@torch.no_grad()
def measure(head: torch.Tensor, material: Material) -> tuple[float, float]:
    """Held-out questions: the share whose passage comes first of all, and the mean score of it."""
    queries = (material.gold >= material.cut).nonzero().squeeze(1)
    found = scores(head, material, queries, torch.arange(material.documents.count))
    own = found.gather(1, material.gold[queries, None])
    return ((found >= own).sum(1) == 1).float().mean().item(), own.mean().item()


def spread(parts: dict[str, Material]) -> torch.Tensor:
    """Lower Cholesky factor of the second moments of hidden states, all files counting alike."""
    chance = torch.Generator().manual_seed(0)
    moments = torch.zeros(0)
    for part in parts.values():
        for states in (part.documents, part.queries):
            some = torch.randperm(len(states.ids), generator=chance)[:8000]
            x = functional.pad(states.hidden[some].float(), (0, 1), value=1.0)
            moments = x.T @ x / len(x) + (moments if len(moments) else 0)
    moments /= 2 * len(parts)
    return torch.linalg.cholesky(moments + 1e-6 * torch.eye(len(moments)))


def contrast(
    start: torch.Tensor, parts: dict[str, Material], arguments: argparse.Namespace
) -> torch.Tensor:
    """Move the head so that questions find their passages, held to where it starts.

    The step away from the start is taken in directions in which hidden states vary alike: its
    square is then the mean square of what changes in a token's weight.
    """
    factor = spread(parts)
    moved = torch.zeros(len(start), requires_grad=True)
    temperature = torch.tensor(1.6, requires_grad=True)
    optimizer = torch.optim.Adam(
        [{"params": [moved], "lr": arguments.learning_rate}, {"params": [temperature], "lr": 0.02}]
    )
    fall = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / arguments.steps)
    rng = np.random.default_rng(0)

    def head() -> torch.Tensor:
        step = torch.linalg.solve_triangular(factor.T, moved[:, None], upper=True)
        return start + step.squeeze(1)

    for step in range(arguments.steps):
        name = TURNS[step % len(TURNS)]
        material = parts[name]
        known = (material.gold < material.cut).nonzero().squeeze(1).numpy()
        chosen = torch.from_numpy(rng.choice(known, min(64, len(known)), replace=False))
        drawn = rng.choice(material.cut, min(arguments.candidates, material.cut), replace=False)
        candidates = torch.unique(torch.cat([material.gold[chosen], torch.from_numpy(drawn)]))
        found = scores(head(), material, chosen, candidates)
        gold = torch.searchsorted(candidates, material.gold[chosen])
        loss = functional.cross_entropy(found * temperature.exp(), gold)
        change = moved.square().sum()
        optimizer.zero_grad()
        (loss + arguments.prior * change).backward()
        optimizer.step()
        fall.step()
        if step % 100 == 0:
            log.info("step %d, %s: loss %.3f, moved %.3f", step, name, loss, change)
    return head().detach()


def main() -> None:
    """Encode, fit, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="what assemble.py wrote")
    parser.add_argument("--vocabulary", type=Path, required=True, help="what pieces.py wrote")
    parser.add_argument("--pairs", type=Path, required=True, help="what make_pairs.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--states", type=Path, required=True, help="folder for hidden states")
    parser.add_argument("--ridge", type=float, default=1e-5)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--candidates", type=int, default=350, help="passages a step")
    parser.add_argument("--prior", type=float, default=0.03)
    parser.add_argument("--matched", type=float, default=0.35, help="mean score of matching pairs")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    network = Network(arguments.model)
    frequencies = np.load(arguments.vocabulary / "frequencies.npy")
    rarities = {lang: rarity(row) for lang, row in zip(LANGUAGES, frequencies, strict=True)}
    targets = {name: rarities[name[:2]] for name in TURNS}
    parts = {
        name: read(
            network,
            arguments.pairs / f"{name}.jsonl",
            MAX_LENGTH[name.endswith("-asked")],
            arguments.states,
        )
        for name in targets
    }
    start = regress(parts, targets, arguments.ridge)
    log.info("ridge, held out: %s", {name: measure(start, part) for name, part in parts.items()})
    head = contrast(start, parts, arguments) if arguments.steps else start
    measured = {name: measure(head, part) for name, part in parts.items()}
    log.info("fitted, held out: %s", measured)
    # Both sides of a score carry a weight, so each takes the square root.
    head *= (arguments.matched / np.mean([own for _, own in measured.values()])) ** 0.5
    mean = torch.stack([part.documents.hidden.float().mean(0) for part in parts.values()]).mean(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.save({"weight": head[None, :-1], "bias": head[-1:]}, arguments.out / "sparse_linear.pt")
    colbert = {"weight": torch.eye(len(mean)), "bias": -mean}
    torch.save(colbert, arguments.out / "colbert_linear.pt")


if __name__ == "__main__":
    main()

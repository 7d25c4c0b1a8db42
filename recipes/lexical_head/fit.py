"""Fit the lexical head alone, on stored hidden states: minutes on a CPU.

    python recipes/lexical_head/fit.py --model m3-e5 --data pairs/en.jsonl pairs/zh.jsonl --out new

The network is frozen, so each text is encoded once; then the head (one weight a hidden value, and a
bias) learns to tell each query's document from others of its file. Dense and multi-vectors stay as
they are. A tenth of the documents is held out to measure on, and at the end the head is scaled so
that scores of matching pairs have the mean they had: mixtures with dense scores keep their meaning.
``m3-retrieval train --freeze network colbert`` trains the same in batches, with gradients.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from m3_core.network import read_checkpoint
from m3_core.training import TrainableM3, save_checkpoint
from m3_core.training.data import load_examples
from m3_core.training.padded import pad

log = logging.getLogger("fit")


@dataclass(frozen=True)
class States:
    """Weighted tokens of texts: id, hidden state and number of the text of each."""

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

    def weights(self, head: torch.nn.Linear, vocabulary: torch.Tensor) -> torch.Tensor:
        """Weight of each id of a sorted vocabulary in each text."""
        at = torch.searchsorted(vocabulary, self.ids).clamp(max=len(vocabulary) - 1)
        known = vocabulary[at] == self.ids
        values = head(self.hidden[known].float()).squeeze(-1).relu()
        flat = values.new_zeros(self.count * len(vocabulary))
        flat = flat.scatter_reduce(
            0, self.rows[known] * len(vocabulary) + at[known], values, "amax"
        )
        return flat.view(self.count, -1)


@torch.no_grad()
def encode(model: TrainableM3, texts: list[str], limit: int, size: int = 16) -> States:
    """Hidden states of all tokens that carry a weight, in float16."""
    order = np.argsort([-len(text) for text in texts], kind="stable")
    ids, hidden, rows = [], [], []
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        tokens = model.tokenizer.encode([texts[i] for i in batch], limit)
        padded, mask = (t.to(model.device) for t in pad(tokens, 1))
        states = model.hidden_states(padded, mask)
        kept = (mask > 0) & ~model.unweighted[padded]
        ids.append(padded[kept].cpu())
        hidden.append(states[kept].half().cpu())
        row = torch.from_numpy(batch.copy())[:, None].expand(padded.shape)
        rows.append(row[kept.cpu()])
    return States(torch.cat(ids), torch.cat(hidden), torch.cat(rows), len(texts))


@dataclass(frozen=True)
class Material:
    """Encoded queries and documents of a file; those from ``cut`` on are held out."""

    name: str
    queries: States
    documents: States
    gold: torch.Tensor
    cut: int

    def held_out(self) -> tuple[States, States, torch.Tensor]:
        """Queries, documents and golds of the held-out part."""
        chosen = (self.gold >= self.cut).nonzero().squeeze(1)
        documents = self.documents.some(torch.arange(self.cut, self.documents.count))
        return self.queries.some(chosen), documents, self.gold[chosen] - self.cut


def score(head: torch.nn.Linear, queries: States, documents: States) -> torch.Tensor:
    """Lexical scores of all pairs."""
    vocabulary = torch.unique(queries.ids)
    return queries.weights(head, vocabulary) @ documents.weights(head, vocabulary).T


@torch.no_grad()
def measure(head: torch.nn.Linear, part: Material) -> tuple[float, float]:
    """R@1 and mean score of the matching pairs, on what is held out."""
    queries, documents, gold = part.held_out()
    hits, matching = [], []
    for rows in torch.arange(queries.count).split(64):
        scores = score(head, queries.some(rows), documents)
        own = scores.gather(1, gold[rows, None])
        hits.append((scores > own).sum(1) == 0)
        matching.append(own)
    return torch.cat(hits).float().mean().item(), torch.cat(matching).mean().item()


def read(
    model: TrainableM3, file: Path, prompts: dict[str, str], max_length: int, kept: Path | None
) -> Material:
    """Encode a file of examples, or read the states that an earlier run kept."""
    rows = load_examples(file)
    documents = list(dict.fromkeys(row["pos"][0] for row in rows))
    number = {text: i for i, text in enumerate(documents)}
    texts = {
        "query": [prompts.get("query", "") + row["query"] for row in rows],
        "document": [prompts.get("document", "") + text for text in documents],
    }
    states = {}
    for role, limit in (("query", 64), ("document", max_length)):
        stored = None if kept is None else kept / f"{file.stem}.{role}.safetensors"
        if stored is not None and stored.exists():
            states[role] = States(**load_file(stored), count=len(texts[role]))
            continue
        states[role] = encode(model, texts[role], limit)
        if stored is not None:
            stored.parent.mkdir(parents=True, exist_ok=True)
            found = states[role]
            save_file({"ids": found.ids, "hidden": found.hidden, "rows": found.rows}, stored)
    gold = torch.tensor([number[row["pos"][0]] for row in rows])
    log.info("%s: %d documents", file, len(documents))
    cut = len(documents) * 9 // 10
    return Material(file.stem, states["query"], states["document"], gold, cut)


def fit(head: torch.nn.Linear, parts: list[Material], a: argparse.Namespace) -> None:
    """Contrast each query's document with others, language by language."""
    optimizer = torch.optim.Adam(head.parameters(), lr=a.learning_rate)
    fall = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / a.steps)
    rng = np.random.default_rng(a.seed)
    for step in range(a.steps):
        part = parts[step % len(parts)]
        known = (part.gold < part.cut).nonzero().squeeze(1).numpy()
        chosen = torch.from_numpy(rng.choice(known, min(a.batch_size, len(known)), replace=False))
        drawn = rng.choice(part.cut, min(a.candidates, part.cut), replace=False)
        candidates = torch.unique(torch.cat([part.gold[chosen], torch.from_numpy(drawn)]))
        scores = score(head, part.queries.some(chosen), part.documents.some(candidates))
        gold = torch.searchsorted(candidates, part.gold[chosen])
        loss = functional.cross_entropy(scores / a.temperature, gold)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        fall.step()
        if step % 50 == 0:
            log.info("step %d: loss %.4f", step, loss.item())


def main() -> None:
    """Encode, fit, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="a file a language")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--states", type=Path, help="folder to keep encoded texts in, for refits")
    parser.add_argument("--max-length", type=int, default=192)
    parser.add_argument("--temperature", type=float, default=0.2)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--candidates", type=int, default=640, help="documents a step")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    model = TrainableM3.from_pretrained(a.model).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    prompts = read_checkpoint(model.source, a.model).prompts
    parts = [read(model, file, prompts, a.max_length, a.states) for file in a.data]
    head = model.sparse_linear.cpu()
    before = [measure(head, part) for part in parts]
    fit(head, parts, a)
    after = [measure(head, part) for part in parts]
    for part, (old, _), (new, _) in zip(parts, before, after, strict=True):
        log.info("%s, held out: R@1 %.4f before, %.4f after", part.name, old, new)
    # Both sides of a score carry a weight, so each takes the square root.
    scale = (sum(mean for _, mean in before) / sum(mean for _, mean in after)) ** 0.5
    with torch.no_grad():
        head.weight.mul_(scale)
        head.bias.mul_(scale)
    save_checkpoint(model.cpu(), a.out)
    log.info("saved %s", a.out)


if __name__ == "__main__":
    main()

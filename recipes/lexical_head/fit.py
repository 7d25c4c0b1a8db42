"""Fit the lexical head alone, on stored hidden states: minutes on a CPU.

    python recipes/lexical_head/fit.py --model m3-e5 --data pairs/en.jsonl pairs/zh.jsonl --out new

The network is frozen, so each text is encoded once; then the head (one weight a hidden value, and a
bias) learns to tell each query's document from all others of its file. Dense and multi-vectors
stay as they are. ``m3-retrieval train --freeze network colbert`` does the same in batches.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from m3_core.checkpoint import read_checkpoint
from m3_core.training.data import load_examples
from m3_core.training.modeling import TrainableM3
from m3_core.training.padded import pad
from m3_core.training.saving import save_checkpoint

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


def main() -> None:
    """Encode, fit, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", nargs="+", required=True, help="a file a language")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-length", type=int, default=192)
    parser.add_argument("--temperature", type=float, default=0.2)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    model = TrainableM3.from_pretrained(a.model).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    prompts = read_checkpoint(model.source, a.model).prompts
    sets = []
    for file in a.data:
        began, rows = time.monotonic(), load_examples(file)
        documents = list(dict.fromkeys(row["pos"][0] for row in rows))
        number = {text: i for i, text in enumerate(documents)}
        gold = torch.tensor([number[row["pos"][0]] for row in rows])
        queries = [prompts.get("query", "") + row["query"] for row in rows]
        texts = [prompts.get("document", "") + text for text in documents]
        sets.append((encode(model, queries, 64), encode(model, texts, a.max_length), gold))
        log.info("%s: %d documents, %.0f s", file, len(documents), time.monotonic() - began)
    head = model.sparse_linear.cpu()
    optimizer = torch.optim.Adam(head.parameters(), lr=a.learning_rate)
    fall = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / a.steps)
    rng = np.random.default_rng(a.seed)
    for step in range(a.steps):
        queries, documents, gold = sets[step % len(sets)]
        size = min(a.batch_size, len(gold))
        chosen = torch.from_numpy(rng.choice(len(gold), size, replace=False))
        asked = queries.some(chosen)
        vocabulary = torch.unique(asked.ids)
        scores = asked.weights(head, vocabulary) @ documents.weights(head, vocabulary).T
        loss = functional.cross_entropy(scores / a.temperature, gold[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        fall.step()
        if step % 50 == 0:
            log.info("step %d: loss %.4f", step, loss.item())
    save_checkpoint(model.cpu(), a.out)
    log.info("saved %s", a.out)


if __name__ == "__main__":
    main()

"""Efficient batching: texts of like length together, the same batches in every process.

Source: M3-Embedding (arXiv 2402.03216), section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from m3_core.errors import TrainingDataError
from m3_core.training.data import SOURCE
from m3_core.training.options import check_at_least
from m3_core.training.padded import pad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from m3_core.network import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """How examples become batches.

    Attributes:
        batch_size: Queries a batch and process.
        group_size: Documents a query: a positive and ``group_size - 1`` negatives.
        query_max_length: Tokens a query at most.
        document_max_length: Tokens a document at most.
        query_instruction: Put before queries without a ``prompt`` of their own.
        document_instruction: Put before documents.
        teacher_scores: Whether to use the examples' ``pos_scores`` and ``neg_scores``.
        keep_texts: Whether batches hold the texts too, for a teacher to read.
        same_file: Whether a batch's examples are from one file.
        epochs: How often each example is seen.
        seed: Of the order and of the choice of documents, the same in all processes.
        processes: How many there are.
    """

    batch_size: int = 8
    group_size: int = 2
    query_max_length: int = 64
    document_max_length: int = 256
    query_instruction: str = ""
    document_instruction: str = ""
    teacher_scores: bool = False
    keep_texts: bool = False
    same_file: bool = False
    epochs: int = 1
    seed: int = 42
    processes: int = 1

    def __post_init__(self) -> None:
        check_at_least(self, 1, "batch_size", "group_size", "epochs", "processes")


def length_groups(
    lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Put examples of like length into batches.

    Args:
        lengths: One an example.
        batch_size: Examples a batch; the last, incomplete one is left out unless it is the only.
        rng: Shuffles examples of like length, and the batches.

    Returns:
        Numbers of examples, a batch each.

    Example:
        >>> lengths = np.array([9, 1, 8, 2])
        >>> groups = length_groups(lengths, 2, np.random.default_rng(0))
        >>> sorted(sorted(group.tolist()) for group in groups)
        [[0, 2], [1, 3]]
    """
    # Noise of a tenth of the length: other neighbours in each epoch, still of like length.
    noisy = lengths * (1 + 0.1 * (rng.random(len(lengths)) - 0.5))
    order = np.argsort(noisy, kind="stable")
    complete = max(len(order) // batch_size, 1) * batch_size
    left_out = max(len(order) - complete, 0)
    if left_out:
        order = np.delete(order, rng.choice(len(order), left_out, replace=False))
    groups = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    return [groups[i] for i in rng.permutation(len(groups))]


class TrainingBatches(torch.utils.data.Dataset[dict[str, Any]]):
    """Ready batches of all epochs, in order: item ``step * processes + process``.

    An item depends on the seed and its number alone, so that training can go on at any step.

    Args:
        examples: With the keys of ``data.KEYS``.
        tokenizer: The model's.
        options: How to form batches.
    """

    def __init__(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, options: BatchOptions
    ) -> None:
        self.examples, self.tokenizer, self.options = examples, tokenizer, options
        if len(examples) == 0:
            raise TrainingDataError("no examples to train on")
        rows = (examples[i] for i in range(len(examples)))
        self._lengths = np.array(
            [len(row["query"]) + sum(map(len, row["pos"])) / len(row["pos"]) for row in rows]
        ).astype(np.int64)
        sources = [row.get(SOURCE, 0) if options.same_file else 0 for row in examples]
        self._files = [np.flatnonzero(np.array(sources) == s) for s in sorted(set(sources))]
        smallest = min(map(len, self._files))
        if smallest < options.processes:
            raise TrainingDataError(
                f"a file of {smallest} examples cannot be shared by {options.processes} processes"
            )
        self._size = min(options.batch_size, smallest // options.processes)
        whole = self._size * options.processes
        self.steps_per_epoch = sum(len(rows) // whole for rows in self._files)
        self._epoch: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def __len__(self) -> int:
        return self.steps_per_epoch * self.options.epochs * self.options.processes

    def __getitem__(self, index: int) -> dict[str, Any]:
        step, process = divmod(index, self.options.processes)
        epoch, at = divmod(step, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            rng = np.random.default_rng((self.options.seed, epoch))
            whole = self._size * self.options.processes
            groups = [
                rows[group]
                for rows in self._files
                for group in length_groups(self._lengths[rows], whole, rng)
            ]
            self._epoch = (epoch, [groups[i] for i in rng.permutation(len(groups))])
        rows = self._epoch[1][at][process * self._size : (process + 1) * self._size]
        return self._batch([self.examples[int(i)] for i in rows], (epoch, step, process))

    def _batch(self, rows: list[Mapping[str, Any]], key: tuple[int, ...]) -> dict[str, Any]:
        rng = np.random.default_rng((self.options.seed, *key))
        queries, documents, scores = [], [], []
        for row in rows:
            prompt = self.options.query_instruction if row["prompt"] is None else row["prompt"]
            queries.append(prompt + row["query"])
            texts, values = self._documents(row, rng)
            documents += texts
            scores.append(values)
        if self.options.keep_texts:
            texts_kept = {"queries": [row["query"] for row in rows], "documents": documents}
        else:
            texts_kept = {}
        documents = [self.options.document_instruction + text for text in documents]
        batch = self._tokens("query", queries, self.options.query_max_length)
        batch |= self._tokens("document", documents, self.options.document_max_length)
        if self.options.teacher_scores:
            batch["teacher_scores"] = torch.tensor(scores, dtype=torch.float32)
        return batch | texts_kept

    def _documents(
        self, row: Mapping[str, Any], rng: np.random.Generator
    ) -> tuple[list[str], list[float]]:
        """A positive and the negatives, drawn without repetition as long as there are enough."""
        positive = int(rng.integers(len(row["pos"])))
        wanted, found = self.options.group_size - 1, len(row["neg"])
        if wanted and not found:
            raise TrainingDataError(
                f"the example with the query {row['query'][:60]!r} has no 'neg'; group_size="
                f"{self.options.group_size} needs some: mine them, or use group_size=1"
            )
        repeats = -(-wanted // found) if wanted else 0
        chosen = rng.permutation(np.tile(np.arange(found), max(repeats, 1)))[:wanted]
        texts = [row["pos"][positive], *(row["neg"][int(i)] for i in chosen)]
        if not self.options.teacher_scores:
            return texts, []
        if row["pos_scores"] is None or (wanted and row["neg_scores"] is None):
            raise TrainingDataError(
                f"the example with the query {row['query'][:60]!r} has no 'pos_scores' or "
                "'neg_scores', which teacher_scores=True needs"
            )
        values = [row["pos_scores"][positive], *(row["neg_scores"][int(i)] for i in chosen)]
        return texts, values

    def _tokens(self, side: str, texts: list[str], limit: int) -> dict[str, torch.Tensor]:
        padding = self.tokenizer.special_ids.get("pad_token", 0)
        ids, mask = pad(self.tokenizer.encode(texts, limit), padding)
        return {f"{side}_ids": ids, f"{side}_mask": mask}

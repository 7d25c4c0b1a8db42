"""What the student learns: the teacher's vectors, token vectors and scores, and to retrieve."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from m3_core.training.distillation import (
    Projection,
    score_distillation,
    spread_vectors,
    vector_distillation,
)
from m3_core.training.loss import LossOptions, Scores, m3_loss, maxsim

if TYPE_CHECKING:
    from pathlib import Path

    from m3_core.training.modeling import TrainableM3


class Teacher:
    """The large encoder, in half precision on a GPU.

    Args:
        model: It, loaded for training; it is frozen.
        device: Where it runs.
        dtype: Of its network.
    """

    def __init__(self, model: TrainableM3, device: torch.device, dtype: torch.dtype) -> None:
        self.model = model.to(device).eval()
        self.model.requires_grad_(requires_grad=False)
        self.model.network.to(dtype)

    @torch.no_grad()
    def encode(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Dense vectors and normalised token vectors, the first token's included."""
        with torch.autocast(ids.device.type, enabled=False):
            hidden = self.model.network(input_ids=ids, attention_mask=mask)[0].float()
            real = mask[:, :, None].float()
            dense = functional.normalize((hidden * real).sum(1) / real.sum(1), dim=-1)
            tokens = functional.normalize(self.model.colbert_linear(hidden), dim=-1) * real
        return dense, tokens


def information(
    tokenizer: Path, groups: list[list[str]], scale: float, sample: int
) -> torch.Tensor:
    """A weight for each piece before any training: the root of its mean inverse frequency.

    Half is counted on the texts, language by language, half is what the vocabulary itself says:
    a Unigram piece's score is the logarithm of its frequency in web text.
    """
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(tokenizer))
    pieces = json.loads(tokenizer.read_text("utf-8"))["model"]["vocab"]
    scores = np.array([score for _, score in pieces] + [0.0] * (raw.get_vocab_size() - len(pieces)))
    general = np.clip(-scores - 2.5, 0.2, 12.0)
    frequency: Counter[int] = Counter()
    total = 0
    for group in groups:
        for start in range(0, min(len(group), sample * 4), 4):
            for e in raw.encode_batch([" ".join(group[start : start + 4])]):
                frequency.update(set(e.ids))
                total += 1
    counted = np.full(len(scores), math.log(total + 1.0))
    for piece, n in frequency.items():
        counted[piece] = math.log(1 + (total - n + 0.5) / (n + 0.5))
    counted = np.clip(counted, 0.2, 10.0)
    return torch.from_numpy(scale * np.sqrt(0.35 * counted + 0.65 * general)).float()


class Objective:
    """The losses of a batch, weighed by how far training is.

    Args:
        teacher: The large encoder.
        dense: Turns its dense vectors into the student's width.
        colbert: Turns its token vectors into the student's width.
        weights: Where lexical weights begin. Shape: (ids,).
        switch: Share of the training after which the unified loss begins.
        temperature: Of contrastive losses and of score distillation.
    """

    def __init__(
        self,
        teacher: Teacher,
        dense: Projection,
        colbert: Projection,
        weights: torch.Tensor,
        *,
        switch: float,
        temperature: float,
    ) -> None:
        self.teacher, self.dense, self.colbert, self.weights = teacher, dense, colbert, weights
        self.switch = switch
        self.options = LossOptions(temperature=temperature)

    def _target(self, batch: dict, side: str) -> tuple[torch.Tensor, torch.Tensor]:
        dense, tokens = self.teacher.encode(
            batch[f"{side}_teacher_ids"], batch[f"{side}_teacher_mask"]
        )
        return functional.normalize(self.dense(dense), dim=-1), tokens

    def __call__(self, model: TrainableM3, batch: dict, progress: float) -> dict[str, torch.Tensor]:
        """Compute the loss of a batch and its parts."""
        unified = progress >= self.switch
        encoded, targets, parts = {}, {}, {}
        for side in ("query", "document"):
            ids, mask = batch[f"{side}_ids"], batch[f"{side}_mask"]
            hidden = model.hidden_states(ids, mask).float()
            got = encoded[side] = model.represent(hidden, ids, mask, unified=unified)
            dense, tokens = targets[side] = self._target(batch, side)
            parts[f"{side}_dense"] = vector_distillation(got.dense, dense)
            spread, covered = spread_vectors(
                tokens, batch[f"{side}_first"][:, 1:], batch[f"{side}_last"][:, 1:]
            )
            vectors = (
                got.colbert if got.colbert is not None else model.colbert_linear(hidden[:, 1:])
            )
            known = covered & (mask[:, 1:] > 0)
            parts[f"{side}_tokens"] = vector_distillation(vectors, self.colbert(spread), known)
            weights = functional.linear(
                hidden, model.sparse_linear.weight, model.sparse_linear.bias
            ).squeeze(-1)
            real = (mask > 0) & ~model.unweighted[ids]
            errors = (weights - self.weights[ids]).square() * real
            parts[f"{side}_weights"] = errors.sum() / real.sum()
        loss = parts["query_dense"] + 2 * parts["document_dense"]
        loss = loss + parts["query_tokens"] + 2 * parts["document_tokens"]
        anchor = 0.3 if unified else 3.0
        loss = loss + anchor * (parts["query_weights"] + parts["document_weights"])
        if unified:
            parts |= self._unified(encoded, targets, batch)
            loss = loss + 0.5 * parts["unified"] + parts["dense_kl"] + parts["colbert_kl"]
        return parts | {"loss": loss}

    def _unified(self, encoded: dict, targets: dict, batch: dict) -> dict[str, torch.Tensor]:
        q, d = encoded["query"], encoded["document"]
        t = self.options.temperature
        dense = q.dense @ d.dense.T
        colbert = maxsim(q.colbert, d.colbert, q.mask)
        (q_dense, q_tokens), (d_dense, d_tokens) = targets["query"], targets["document"]
        taught = q_dense @ d_dense.T
        own = batch["query_teacher_mask"][:, 1:]
        taught_colbert = maxsim(q_tokens[:, 1:], d_tokens[:, 1:], own)
        # Documents that say the same are no negatives of each other.
        same = d_dense @ d_dense.T > 0.95
        same.fill_diagonal_(fill_value=False)
        hidden = same * -20.0
        sparse = q.sparse @ d.sparse.T
        scores = Scores((dense + hidden) / t, (sparse + hidden) / t, (colbert + hidden) / t)
        rows = torch.arange(len(dense), device=dense.device)
        if batch["lexical"]:
            # The paper's weight of the lexical loss suits a head that has been trained before.
            extra = {"sparse": functional.cross_entropy(scores.sparse, rows)}
            total = m3_loss(scores, 1, self.options)["loss"] + 0.3 * extra["sparse"]
        else:
            total = (
                sum(functional.cross_entropy(s, rows) for s in (scores.dense, scores.colbert)) / 2
            )
            extra = {}
        return extra | {
            "unified": total,
            "dense_kl": score_distillation(dense, taught + taught_colbert, 2 * t) / 2,
            "colbert_kl": score_distillation(colbert, taught + taught_colbert, 2 * t) / 2,
        }


def fit_projections(
    teacher: Teacher, batches: list[dict], width: int, device: torch.device
) -> tuple[Projection, Projection]:
    """Fit the projections of dense and token vectors on some batches."""
    dense, tokens = [], []
    for batch in batches:
        for side in ("query", "document"):
            mask = batch[f"{side}_teacher_mask"].to(device)
            d, t = teacher.encode(batch[f"{side}_teacher_ids"].to(device), mask)
            dense.append(d)
            some = t[mask > 0]
            tokens.append(some[torch.linspace(0, len(some) - 1, min(len(some), 4000)).long()])
    return Projection.fit(torch.cat(dense), width), Projection.fit(torch.cat(tokens), width)

"""Training with a larger encoder as teacher, its representations computed as texts come up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from m3_core.encoder import Encoder
from m3_core.training.distillation import (
    Projection,
    check_same_tokenizer,
    score_distillation,
    vector_distillation,
)
from m3_core.training.evaluation import score_matrix
from m3_core.training.trainer import M3Trainer, score_batch

if TYPE_CHECKING:
    from m3_core.representations import Representations
    from m3_core.training.finetune import Distillation
    from m3_core.training.modeling import TrainableM3
    from m3_core.training.padded import Encoded

KINDS = ("dense", "sparse", "colbert")


class DistillationTrainer(M3Trainer):
    """Teaches the scores of a larger encoder, and its vectors where asked for.

    Args:
        model: The student.
        distillation: The teacher and the weights.
        **options: As of ``M3Trainer``; batches must hold their texts.

    Raises:
        ValueError: Token vectors are asked for of a teacher with another tokenizer or width, or
            scores that the teacher does not have.
    """

    def __init__(self, model: TrainableM3, *, distillation: Distillation, **options: Any) -> None:
        super().__init__(model, **options)
        self.distillation = distillation
        self.teacher = Encoder.from_pretrained(
            distillation.teacher, device=self.args.device, token_budget=16384
        )
        self._projection: Projection | None = None
        wanted = {k for k, w in zip(KINDS, distillation.weights, strict=True) if w}
        wanted |= {"colbert"} if distillation.token_vectors else set()
        lacking = sorted(wanted - self.teacher.representations)
        if lacking:
            raise ValueError(
                f"the teacher {distillation.teacher!r} gives no {' and no '.join(lacking)} scores: "
                "set their weights to 0, or name a teacher with M3's heads"
            )
        if distillation.token_vectors:
            self._check_token_vectors(model)

    def batch_loss(
        self, queries: Encoded, documents: Encoded, inputs: dict[str, Any]
    ) -> dict[str, torch.Tensor]:
        """Form the loss of encoded texts against the teacher's view of them.

        Args:
            queries: The student's.
            documents: The student's.
            inputs: The batch with its texts.

        Returns:
            ``"loss"`` to minimise, and its parts.
        """
        plan = self.distillation
        own = score_batch(queries, documents, self.loss_options)
        q, d = self._taught(inputs)
        parts: dict[str, torch.Tensor] = {}
        loss = queries.dense.new_zeros(())
        for kind, weight in zip(KINDS, plan.weights, strict=True):
            student = getattr(own, kind)
            if not weight or student is None:
                continue
            teacher = torch.from_numpy(score_matrix(kind, q, d)).to(student.device)
            student = student * self.loss_options.temperature
            parts[f"kl_{kind}"] = score_distillation(student, teacher, plan.temperature)
            loss = loss + weight * parts[f"kl_{kind}"]
        if plan.dense_vectors:
            target = self._project(np.concatenate([q.dense_vecs, d.dense_vecs]), queries.dense)
            student = torch.cat([queries.dense, documents.dense])
            parts["dense_vectors"] = vector_distillation(student, target)
            loss = loss + plan.dense_vectors * parts["dense_vectors"]
        if plan.token_vectors:
            parts["token_vectors"] = (_token_loss(queries, q) + _token_loss(documents, d)) / 2
            loss = loss + plan.token_vectors * parts["token_vectors"]
        if plan.contrast:
            unified = super().batch_loss(queries, documents, inputs)
            loss = loss + plan.contrast * unified.pop("loss")
            parts |= unified
        return {name: value.detach() for name, value in parts.items()} | {"loss": loss}

    def _taught(self, inputs: dict[str, Any]) -> tuple[Representations, Representations]:
        plan = self.distillation
        options = {
            "return_sparse": bool(plan.weights[1]),
            "return_colbert_vecs": bool(plan.weights[2] or plan.token_vectors),
        }
        limits = self.batch_options
        assert limits is not None
        top = self.teacher.max_length
        return (
            self.teacher.encode_queries(
                inputs["queries"], max_length=min(limits.query_max_length, top), **options
            ),
            self.teacher.encode_documents(
                inputs["documents"], max_length=min(limits.document_max_length, top), **options
            ),
        )

    def _project(self, vectors: np.ndarray[Any, Any], like: torch.Tensor) -> torch.Tensor:
        """The teacher's dense vectors in the student's width."""
        wide = torch.from_numpy(vectors).to(like.device)
        if wide.shape[1] == like.shape[1]:
            return wide
        if self._projection is None:
            self._projection = self._fit_projection(like.shape[1], like.device)
        return self._projection(wide)

    def _fit_projection(self, width: int, device: torch.device) -> Projection:
        """From the first batches, also after an interruption, so that targets stay the same."""
        data: Any = self.train_dataset
        found: list[np.ndarray[Any, Any]] = []
        for i in range(len(data)):
            reps = self._taught(data[i])
            found += [rep.dense_vecs for rep in reps if rep.dense_vecs is not None]
            if sum(map(len, found)) >= 4 * width:
                break
        return Projection.fit(torch.from_numpy(np.concatenate(found)).to(device), width)

    def _check_token_vectors(self, model: TrainableM3) -> None:
        check_same_tokenizer(model.tokenizer, self.teacher.model.tokenizer)
        widths = model.colbert_linear.out_features, self.teacher.colbert_dimension
        if widths[0] != widths[1]:
            raise ValueError(
                f"the student's multi-vectors have {widths[0]} values, the teacher's {widths[1]}: "
                "token vectors can only be learnt at the same width; distil scores instead"
            )
        settings, options = self.batch_options, self.teacher.options
        own = settings and (settings.query_instruction, settings.document_instruction)
        if own != (options.query_instruction, options.document_instruction):
            raise ValueError(
                f"the student's instructions are {own}, the teacher's "
                f"{(options.query_instruction, options.document_instruction)}: token vectors can "
                "only be learnt from the same tokens; set query_instruction and "
                "document_instruction"
            )


def _token_loss(student: Encoded, teacher: Representations) -> torch.Tensor:
    vectors = teacher.colbert_vecs
    if vectors is None or student.colbert is None:
        raise ValueError("token vectors need the unified loss and a teacher with multi-vectors")
    own = student.colbert[student.mask > 0]
    wide = torch.from_numpy(np.asarray(vectors.vectors, np.float32)).to(own.device)
    return vector_distillation(own, wide)

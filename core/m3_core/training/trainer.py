"""Hugging Face's ``Trainer`` with our batches, loss, checkpoints and metrics."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch.utils.data import SequentialSampler
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from m3_core.errors import SavingError
from m3_core.saved_folders import exchange, remove, tidy_all
from m3_core.training.evaluation import retrieval_metrics
from m3_core.training.loss import LossOptions, Scores, gather, m3_loss, maxsim
from m3_core.training.padded import Encoded, pad
from m3_core.training.saving import load_weights, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m3_core.training.batching import BatchOptions
    from m3_core.training.modeling import TrainableM3

# Where a checkpoint is written, among the others; all processes of a run write into it.
STAGING = ".saving"


class M3Trainer(Trainer):
    """Trains a ``TrainableM3`` on ``TrainingBatches``; one item of the data set is one batch.

    Args:
        model: The model.
        loss_options: How the loss is formed.
        unified: Whether to train lexical weights and multi-vectors too.
        evaluation: Examples whose queries shall find their positives among all positives.
        batch_options: How the evaluation's texts are tokenised.
        **options: As of ``transformers.Trainer``.
    """

    def __init__(
        self,
        model: TrainableM3,
        *,
        loss_options: LossOptions,
        unified: bool = True,
        evaluation: Sequence[Mapping[str, Any]] | None = None,
        batch_options: BatchOptions | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, data_collator=_only, **options)
        self.loss_options, self.unified = loss_options, unified
        self.evaluation, self.batch_options = evaluation, batch_options
        self._staging: Path | None = None
        self._parts: dict[str, list[torch.Tensor]] = {}

    @property
    def plain(self) -> TrainableM3:
        """The model without the wrappers of distributed training."""
        model: TrainableM3 = self.accelerator.unwrap_model(self.model)
        return model

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        # Batches are shuffled already, in the same way in every process.
        data: Any = self.train_dataset if train_dataset is None else train_dataset
        return SequentialSampler(data)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - the Trainer's signature
        num_items_in_batch: Any = None,
    ) -> Any:
        """Encode a batch and form the loss; its parts are kept for the log.

        Args:
            model: The model, perhaps wrapped.
            inputs: A batch.
            return_outputs: Whether to give the representations too.
            num_items_in_batch: Not used.

        Returns:
            The loss, or the loss and the representations.
        """
        queries, documents = model(
            inputs["query_ids"],
            inputs["query_mask"],
            inputs["document_ids"],
            inputs["document_mask"],
            unified=self.unified,
        )
        parts = self.batch_loss(queries, documents, inputs)
        for name, value in parts.items():
            self._parts.setdefault(name, []).append(value.detach())
        return (parts["loss"], (queries, documents)) if return_outputs else parts["loss"]

    def batch_loss(
        self, queries: Encoded, documents: Encoded, inputs: dict[str, Any]
    ) -> dict[str, torch.Tensor]:
        """Form the loss of encoded texts.

        Args:
            queries: Of this process.
            documents: Each query's positive and negatives, query after query.
            inputs: The batch, for the teacher's scores.

        Returns:
            As of ``m3_loss``.
        """
        group_size = len(documents.dense) // len(queries.dense)
        scores = score_batch(queries, documents, self.loss_options)
        return m3_loss(
            scores,
            group_size,
            self.loss_options,
            teacher_scores=inputs.get("teacher_scores"),
            step=self.state.global_step,
        )

    def log(self, logs: dict[str, float], *rest: Any, **options: Any) -> None:
        """Log the means of the loss's parts too.

        Args:
            logs: What the Trainer logs.
            *rest: As of the Trainer.
            **options: As of the Trainer.
        """
        if "loss" in logs:
            means = {f"loss_{n}": torch.stack(v).mean().item() for n, v in self._parts.items()}
            means.pop("loss_loss", None)
            logs = logs | means
            self._parts.clear()
        super().log(logs, *rest, **options)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: Any = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Rank all positives for each query of the evaluation's examples.

        Args:
            eval_dataset: Not used.
            ignore_keys: Not used.
            metric_key_prefix: Put before the metrics' names.

        Returns:
            Recall at 1 and 10 and MRR at 10 of each representation.
        """
        if not self.evaluation or self.batch_options is None:
            return {}
        model, options = self.plain, self.batch_options
        documents = list(dict.fromkeys(row["pos"][0] for row in self.evaluation))
        gold = np.array([documents.index(row["pos"][0]) for row in self.evaluation])
        queries = [
            (options.query_instruction if row["prompt"] is None else row["prompt"]) + row["query"]
            for row in self.evaluation
        ]
        documents = [options.document_instruction + text for text in documents]
        model.eval()
        q = _encode_texts(model, queries, options.query_max_length)
        d = _encode_texts(model, documents, options.document_max_length)
        model.train()
        scores = {"dense": q.dense @ d.dense.T}
        if q.sparse is not None and d.sparse is not None:
            scores["sparse"] = q.sparse @ d.sparse.T
        if q.colbert is not None and d.colbert is not None:
            rows = [
                maxsim(v[None], d.colbert, m[None]) for v, m in zip(q.colbert, q.mask, strict=True)
            ]
            scores["colbert"] = torch.cat(rows)
        metrics = {
            f"{metric_key_prefix}_{kind}_{name}": value
            for kind, matrix in scores.items()
            for name, value in retrieval_metrics(matrix.float().numpy(), gold).items()
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(self.plain, folder)

    def _get_output_dir(self, trial: Any = None) -> str:
        return str(self._staging or self.args.output_dir)

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        """Write a checkpoint beside the others and give it its name when it is complete."""
        runs = Path(str(self.args.output_dir)).absolute()
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        staging = runs / STAGING
        try:
            if self.args.should_save:
                # What a run that was killed has left would become part of this checkpoint.
                shutil.rmtree(staging, ignore_errors=True)
                tidy_all(runs)
            self.accelerator.wait_for_everyone()
            self._staging = staging
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                exchange(staging / name, runs / name)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise SavingError(
                f"the checkpoint {runs / name} could not be written ({error}): earlier checkpoints "
                "are untouched. Make room, then go on from the last one"
            ) from error
        finally:
            self._staging = None
            if self.args.should_save:
                shutil.rmtree(staging, ignore_errors=True)
        if self.args.should_save and self.args.save_total_limit:
            steps = {int(p.name.rpartition("-")[2]): p for p in runs.glob("checkpoint-*")}
            for step in sorted(steps)[: -self.args.save_total_limit]:
                remove(steps[step])

    def remove_leftovers(self, output: Path) -> None:
        """Remove what runs that were killed have left, and put back what they had set aside.

        Args:
            output: The folder of the run.
        """
        runs = Path(str(self.args.output_dir)).absolute()
        if self.args.should_save:
            shutil.rmtree(runs / STAGING, ignore_errors=True)
            tidy_all(runs)
            tidy_all(output)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(self.plain, Path(resume_from_checkpoint))


def score_batch(queries: Encoded, documents: Encoded, options: LossOptions) -> Scores:
    """Score every query with every document.

    Args:
        queries: Of this process.
        documents: Of this process.
        options: The temperature, and whether dense scores reach across devices.

    Returns:
        The scores, divided by the temperature.
    """
    q, d, first = queries.dense, documents.dense, 0
    if options.cross_device:
        q, d = gather(q), gather(d)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            first = torch.distributed.get_rank() * len(queries.dense)
    t = options.temperature
    dense = q @ d.T / t
    if queries.sparse is None or documents.sparse is None:
        return Scores(dense, first_query=first)
    assert queries.colbert is not None
    assert documents.colbert is not None
    colbert = maxsim(queries.colbert, documents.colbert, queries.mask) / t
    return Scores(dense, queries.sparse @ documents.sparse.T / t, colbert, first)


def _only(batches: list[dict[str, Any]]) -> dict[str, Any]:
    return batches[0]


@torch.no_grad()
def _encode_texts(model: TrainableM3, texts: list[str], limit: int, size: int = 32) -> Encoded:
    parts = []
    for at in range(0, len(texts), size):
        tokens = model.tokenizer.encode(texts[at : at + size], limit)
        ids, mask = pad(tokens, model.tokenizer.special_ids.get("pad_token", 0))
        e = model.encode(ids.to(model.device), mask.to(model.device))
        on_host = [v if v is None else v.cpu() for v in (e.dense, e.sparse, e.colbert, e.mask)]
        parts.append(Encoded(*on_host))  # type: ignore[arg-type]
    return Encoded.join(parts)

"""Fine-tuning and distillation as one call: data in, a checkpoint in the M3 layout out."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3_core.errors import M3Error, SavingError
from m3_core.extras import needs_extra
from m3_core.network import choose_instructions, find_known, read_checkpoint
from m3_core.saved_folders import finish, ready
from m3_core.training.options import Distillation, TrainOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from m3_core.training.modeling import TrainableM3

__all__ = ["Distillation", "TrainOptions", "TrainResult", "prepare", "train"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class TrainResult:
    """A finished run.

    Attributes:
        folder: The model.
        steps: Steps done, those before an interruption counted.
        history: What was logged.
    """

    folder: Path
    steps: int
    history: list[dict[str, float]] = field(default_factory=list)


def train(options: TrainOptions, distillation: Distillation | None = None) -> TrainResult:
    """Fine-tune a model, or distil a teacher into it.

    Args:
        options: The run.
        distillation: The teacher; ``None`` for the unified loss of the M3 paper.

    Returns:
        Where the model is, and the log.

    Raises:
        MissingPackageError: The extra ``train`` is not installed.
        M3Error: There is nothing to resume.
        ValueError: As of ``prepare``.
        TrainingDataError: The data cannot be used.
        CheckpointError: The model cannot be loaded, or the result cannot be saved.
    """
    trainer, model = prepare(options, distillation)
    output = Path(options.output)
    trainer.remove_leftovers(output)
    last = _last_checkpoint(output / "checkpoints") if options.resume else None
    if options.resume and last is None:
        raise M3Error(f"nothing to resume: {output / 'checkpoints'} holds no checkpoint")
    outcome = trainer.train(resume_from_checkpoint=None if last is None else str(last))
    trainer.evaluate()
    if trainer.args.should_save:
        _save(model, output, options)
    return TrainResult(output, outcome.global_step, list(trainer.state.log_history))


def prepare(
    options: TrainOptions, distillation: Distillation | None = None
) -> tuple[Any, TrainableM3]:
    """Load everything of a run without starting it.

    Args:
        options: The run.
        distillation: The teacher, or ``None``.

    Returns:
        The trainer and the model.

    Raises:
        MissingPackageError: The extra ``train`` is not installed.
        ValueError: The device cannot compute in the precision that was asked for.
    """
    with needs_extra("training", "train", "accelerate", "transformers"):
        import accelerate  # noqa: F401
        from transformers import TrainingArguments, set_seed

    from m3_core.training.batching import TrainingBatches
    from m3_core.training.data import load_examples
    from m3_core.training.loss import LossOptions
    from m3_core.training.modeling import TrainableM3
    from m3_core.training.trainer import M3Trainer

    examples = load_examples(*options.data)
    evaluation = load_examples(*options.evaluation) if options.evaluation else None
    set_seed(options.seed)
    model = TrainableM3.from_pretrained(options.model, pooling=options.pooling, seed=options.seed)
    model.freeze(*options.freeze)
    model.sub_batch_tokens = options.sub_batch_tokens
    arguments = TrainingArguments(
        output_dir=str(Path(options.output) / "checkpoints"),
        per_device_train_batch_size=1,
        max_steps=options.max_steps,
        num_train_epochs=1,
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup,
        weight_decay=options.weight_decay,
        bf16=options.precision == "bfloat16",
        fp16=options.precision == "float16",
        use_cpu=options.cpu,
        seed=options.seed,
        save_strategy="steps" if options.save_steps else "no",
        save_steps=options.save_steps or 500,
        save_total_limit=options.keep_checkpoints,
        eval_strategy="steps" if evaluation is not None and options.save_steps else "no",
        eval_steps=options.save_steps or None,
        logging_steps=options.log_steps,
        report_to=[],
        remove_unused_columns=False,
        dataloader_num_workers=0,
        ddp_find_unused_parameters=not options.unified,
    )
    if options.precision == "float16" and arguments.device.type == "cpu":
        raise ValueError(
            "precision is 'float16', and there is no GPU: the CPU trains in 'float32' or 'bfloat16'"
        )
    batch_options = _batch_options(options, model, arguments.world_size, distillation)
    data = TrainingBatches(examples, model.tokenizer, batch_options)
    loss = LossOptions(
        temperature=options.temperature,
        in_batch_negatives=options.in_batch_negatives,
        cross_device=options.cross_device,
        self_distill=options.self_distill,
        self_distill_start_step=options.self_distill_start_step,
        teacher_loss=options.teacher_loss,
    )
    make: Callable[..., M3Trainer] = M3Trainer
    extra: dict[str, Any] = {}
    if distillation is not None:
        from m3_core.training.teaching import DistillationTrainer

        make, extra = DistillationTrainer, {"distillation": distillation}
    trainer = make(
        model,
        args=arguments,
        train_dataset=data,
        eval_dataset=evaluation,
        evaluation=evaluation,
        batch_options=batch_options,
        loss_options=loss,
        unified=options.unified,
        **extra,
    )
    return trainer, model


def _batch_options(
    options: TrainOptions, model: TrainableM3, processes: int, distillation: Distillation | None
) -> Any:
    from m3_core.training.batching import BatchOptions

    checkpoint = read_checkpoint(model.source, options.model)
    known = find_known(options.model, checkpoint.config.get("_name_or_path"))
    query, document = choose_instructions(
        known, checkpoint.prompts, options.query_instruction, options.document_instruction, None
    )
    limits = {
        "query_max_length": min(options.query_max_length, checkpoint.positions),
        "document_max_length": min(options.document_max_length, checkpoint.positions),
    }
    return BatchOptions(
        batch_size=options.batch_size,
        group_size=options.group_size,
        query_instruction=query,
        document_instruction=document,
        teacher_scores=options.teacher_scores,
        keep_texts=distillation is not None,
        same_file=options.same_file_batches,
        epochs=options.epochs,
        seed=options.seed,
        processes=processes,
        **limits,
    )


def _save(model: TrainableM3, output: Path, options: TrainOptions) -> None:
    """Write the finished model beside its checkpoints, whole before a file is in its place."""
    from m3_core.training.saving import saved_whole, write_checkpoint

    with saved_whole(ready(output)) as partial:
        write_checkpoint(model, partial)
        described = json.dumps(asdict(options), indent=2) + "\n"
        (partial / "training.json").write_text(described, "utf-8")
    try:
        finish(output)
    except OSError as error:
        raise SavingError(
            f"the finished model is whole in {ready(output)} and could not be moved up ({error}): "
            "loading it from the folder above does that"
        ) from error
    log.info("saved %s", output)


def _last_checkpoint(folder: Path) -> Path | None:
    found = {}
    for path in folder.glob("checkpoint-*"):
        step = path.name.rpartition("-")[2]
        if path.is_dir() and step.isdecimal():
            found[int(step)] = path
    return found[max(found)] if found else None

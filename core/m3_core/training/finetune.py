"""Fine-tuning and distillation as one call: data in, a checkpoint in the M3 layout out."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3_core.errors import M3Error
from m3_core.network.checkpoint import read_checkpoint
from m3_core.network.known_models import choose_instructions, find_known

if TYPE_CHECKING:
    from collections.abc import Callable

    from m3_core.network.checkpoint import Pooling
    from m3_core.training.modeling import TrainableM3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """A training run.

    Attributes:
        model: Base model: a folder or a hub repository.
        data: Files of examples, or folders of them.
        output: Folder of the finished model; ``output/checkpoints`` holds unfinished ones.
        evaluation: Files of examples to measure retrieval on; none if empty.
        epochs: How often each example is seen.
        max_steps: Stop after so many steps, learning rate at 0; -1 for all epochs.
        batch_size: Queries a batch and process.
        group_size: Documents a query, the positive counted.
        query_max_length: Tokens a query at most.
        document_max_length: Tokens a document at most.
        learning_rate: Highest learning rate.
        warmup: Share of the steps over which it rises.
        weight_decay: Of AdamW.
        freeze: Parts that keep their weights: ``network`` (to train the heads alone),
            ``sparse``, ``colbert``.
        same_file_batches: Fill each batch from one file, so that negatives are of its language or
            kind.
        unified: Train lexical weights and multi-vectors too, not the dense vector alone.
        temperature: Scores are divided by it.
        self_distill: Whether the ensemble teaches the three scores.
        in_batch_negatives: Whether other queries' documents are negatives.
        cross_device: Whether those of other processes are, for the dense score.
        teacher_scores: Use the examples' scores of an outside teacher.
        query_instruction: Put before queries; as the model says if ``None``.
        document_instruction: Put before documents; as the model says if ``None``.
        pooling: How the dense vector is taken; as the model says if ``None``.
        sub_batch_tokens: Run the network over so many tokens at a time and recompute
            activations, for long texts.
        seed: Of everything random.
        precision: ``"float32"``, ``"bfloat16"`` or ``"float16"`` for the network's arithmetic;
            weights stay float32.
        cpu: Stay on the CPU.
        save_steps: Save every so many steps; 0 for the end only.
        keep_checkpoints: Keep the last so many.
        log_steps: Log every so many steps.
        resume: Go on from the last checkpoint in ``output``.
    """

    model: str
    data: tuple[str, ...]
    output: str
    evaluation: tuple[str, ...] = ()
    epochs: int = 1
    max_steps: int = -1
    batch_size: int = 8
    group_size: int = 2
    query_max_length: int = 64
    document_max_length: int = 256
    learning_rate: float = 1e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    freeze: tuple[str, ...] = ()
    same_file_batches: bool = False
    unified: bool = True
    temperature: float = 0.02
    self_distill: bool = True
    in_batch_negatives: bool = True
    cross_device: bool = False
    teacher_scores: bool = False
    query_instruction: str | None = None
    document_instruction: str | None = None
    pooling: Pooling | None = None
    sub_batch_tokens: int | None = None
    seed: int = 42
    precision: str = "float32"
    cpu: bool = False
    save_steps: int = 0
    keep_checkpoints: int = 2
    log_steps: int = 10
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Distillation:
    """What a teacher teaches.

    Attributes:
        teacher: A folder or a hub repository.
        weights: Of dense, lexical and multi-vector scores; 0 leaves one out.
        temperature: Of both softmaxes.
        contrast: Weight of the unified loss beside them.
        dense_vectors: Weight of learning the teacher's dense vectors, projected to the student's
            width.
        token_vectors: Weight of learning its multi-vectors, token by token; both then need the
            same tokenizer and width.
    """

    teacher: str
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    temperature: float = 0.05
    contrast: float = 0.0
    dense_vectors: float = 0.0
    token_vectors: float = 0.0


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
        M3Error: The extra ``train`` is not installed, or there is nothing to resume.
        TrainingDataError: The data cannot be used.
        CheckpointError: The model cannot be loaded, or the result cannot be saved.
    """
    trainer, model = prepare(options, distillation)
    output = Path(options.output)
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
        M3Error: The extra ``train`` is not installed.
    """
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise M3Error(
            f"training needs the package {error.name!r}: pip install 'm3-retrieval[train]'"
        ) from error
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
    batch_options = _batch_options(options, model, arguments.world_size, distillation)
    data = TrainingBatches(examples, model.tokenizer, batch_options)
    loss = LossOptions(
        temperature=options.temperature,
        in_batch_negatives=options.in_batch_negatives,
        cross_device=options.cross_device,
        self_distill=options.self_distill,
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
    """Write the finished model beside its checkpoints, each file under its name when whole."""
    from m3_core.training.saving import save_checkpoint

    ready = save_checkpoint(model, output / ".finished")
    (ready / "training.json").write_text(json.dumps(asdict(options), indent=2) + "\n", "utf-8")
    for path in sorted(ready.rglob("*")):
        target = output / path.relative_to(ready)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            path.replace(target)
    for path in sorted(ready.rglob("*"), reverse=True):
        path.rmdir()
    ready.rmdir()
    log.info("saved %s", output)


def _last_checkpoint(folder: Path) -> Path | None:
    steps = {int(p.name.rpartition("-")[2]): p for p in folder.glob("checkpoint-*") if p.is_dir()}
    return steps[max(steps)] if steps else None

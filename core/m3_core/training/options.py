"""The options of a training run, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

# The command line reads these types at run time, to offer their values.
from m3_core.network.checkpoint import Pooling  # noqa: TC001

Precision = Literal["float32", "bfloat16", "float16"]
Part = Literal["network", "sparse", "colbert"]
TeacherLoss = Literal["kl_div", "m3_kd_loss"]


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
        self_distill_start_step: First step, counted from 0, after which it does; -1 for at once.
        in_batch_negatives: Whether other queries' documents are negatives.
        cross_device: Whether those of other processes are, for the dense score.
        teacher_scores: Use the examples' scores of an outside teacher.
        teacher_loss: ``"kl_div"`` adds that teacher's loss to the contrastive one;
            ``"m3_kd_loss"`` takes its place.
        query_instruction: Put before queries; as the model says if ``None``.
        document_instruction: Put before documents; as the model says if ``None``.
        pooling: How the dense vector is taken; as the model says if ``None``.
        sub_batch_tokens: Run the network over so many tokens at a time and recompute
            activations, for long texts.
        seed: Of everything random.
        precision: ``"float32"``, ``"bfloat16"`` or ``"float16"`` for the network's arithmetic;
            weights stay float32. float16 needs a GPU.
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
    freeze: tuple[Part, ...] = ()
    same_file_batches: bool = False
    unified: bool = True
    temperature: float = 0.02
    self_distill: bool = True
    self_distill_start_step: int = -1
    in_batch_negatives: bool = True
    cross_device: bool = False
    teacher_scores: bool = False
    teacher_loss: TeacherLoss = "kl_div"
    query_instruction: str | None = None
    document_instruction: str | None = None
    pooling: Pooling | None = None
    sub_batch_tokens: int | None = None
    seed: int = 42
    precision: Precision = "float32"
    cpu: bool = False
    save_steps: int = 0
    keep_checkpoints: int = 2
    log_steps: int = 10
    resume: bool = False

    def __post_init__(self) -> None:
        check_choices(self)
        check_positive(self, "temperature", "learning_rate")
        check_at_least(self, 0, "warmup", "weight_decay", "save_steps")
        check_at_least(self, 1, "epochs", "batch_size", "group_size", "keep_checkpoints")
        check_at_least(self, 1, "sub_batch_tokens", "log_steps")
        check_at_least(self, 3, "query_max_length", "document_max_length")
        if len(set(self.freeze)) == len(get_args(Part)):
            raise ValueError(f"freeze is {', '.join(self.freeze)}: one part must be left to train")
        if self.max_steps < 1 and self.max_steps != -1:
            raise ValueError(f"max_steps is {self.max_steps}; it must be 1 or more, or -1 for all")
        if self.teacher_loss != "kl_div" and not self.teacher_scores:
            raise ValueError(
                f"teacher_loss is {self.teacher_loss!r}, but no teacher's scores are used: set "
                "teacher_scores"
            )
        if self.self_distill_start_step > -1 and not (self.self_distill and self.unified):
            raise ValueError(
                f"self_distill_start_step is {self.self_distill_start_step}, but self_distill or "
                "unified is off: nothing would start"
            )
        if self.precision == "float16" and self.cpu:
            raise ValueError(
                "precision is 'float16' on the CPU, which trains in 'float32' or 'bfloat16' only"
            )


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

    def __post_init__(self) -> None:
        check_positive(self, "temperature")
        check_at_least(self, 0, "contrast", "dense_vectors", "token_vectors")
        if len(self.weights) != 3 or not min(self.weights) >= 0:
            raise ValueError(
                f"weights is {self.weights}; it must be three numbers of 0 or more: of dense, "
                "lexical and multi-vector scores"
            )
        if not any((*self.weights, self.contrast, self.dense_vectors, self.token_vectors)):
            raise ValueError("weights, contrast, dense_vectors and token_vectors are all 0")


def choices(hint: Any) -> tuple[Any, ...]:
    """Say which values a type allows, if it lists them.

    Args:
        hint: A type, or one within a tuple or beside ``None``.

    Returns:
        The values; none if the type lists none.

    Example:
        >>> choices(Literal["a", "b"] | None), choices(tuple[Literal["a"], ...]), choices(int)
        (('a', 'b'), ('a',), ())
    """
    if get_origin(hint) is Literal:
        return get_args(hint)
    found = [values for part in get_args(hint) if (values := choices(part))]
    return found[0] if found else ()


def check_choices(options: Any) -> None:
    """Refuse values that the types of a dataclass's fields do not list.

    Args:
        options: The dataclass.

    Raises:
        ValueError: A value is not among those of its field.
    """
    for name, hint in get_type_hints(type(options)).items():
        allowed, value = choices(hint), getattr(options, name)
        given = value if isinstance(value, tuple) else () if value is None else (value,)
        wrong = [one for one in given if allowed and one not in allowed]
        if wrong:
            raise ValueError(
                f"{name} is {wrong[0]!r}; it must be one of {', '.join(map(repr, allowed))}"
            )


def check_at_least(options: Any, least: float, *names: str) -> None:
    """Refuse numbers that are too small.

    Args:
        options: A dataclass.
        least: The smallest number allowed.
        *names: Of its fields; ``None`` is passed over.

    Raises:
        ValueError: A number is below.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and not value >= least:
            raise ValueError(f"{name} is {value}; it must be {least} or more")


def check_positive(options: Any, *names: str) -> None:
    """Refuse numbers that are not above 0.

    Args:
        options: A dataclass.
        *names: Of its fields.

    Raises:
        ValueError: A number is 0 or below.
    """
    for name in names:
        if not getattr(options, name) > 0:
            raise ValueError(f"{name} is {getattr(options, name)}; it must be above 0")

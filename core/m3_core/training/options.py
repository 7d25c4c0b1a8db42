"""The options of a training run, checked when they are made.

Each field's ``Doc`` says what it is; the command line shows the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typing_extensions import Doc

# The command line reads these types at run time, to offer their values.
from m3_core.network import Pooling  # noqa: TC001

Precision = Literal["float32", "bfloat16", "float16"]
Part = Literal["network", "sparse", "colbert"]
TeacherLoss = Literal["kl_div", "m3_kd_loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """A training run."""

    model: Annotated[str, Doc("Base model: a folder or a hub repository.")]
    data: Annotated[tuple[str, ...], Doc("Files of examples, or folders of them.")]
    output: Annotated[
        str,
        Doc("Folder of the finished model; output/checkpoints holds unfinished ones."),
    ]
    evaluation: Annotated[
        tuple[str, ...],
        Doc("Files of examples to measure retrieval on; none if empty."),
    ] = ()
    epochs: Annotated[int, Doc("How often each example is seen.")] = 1
    max_steps: Annotated[
        int,
        Doc("Stop after so many steps, learning rate at 0; -1 for all epochs."),
    ] = -1
    batch_size: Annotated[int, Doc("Queries a batch and process.")] = 8
    group_size: Annotated[int, Doc("Documents a query, the positive counted.")] = 2
    query_max_length: Annotated[int, Doc("Tokens a query at most.")] = 64
    document_max_length: Annotated[int, Doc("Tokens a document at most.")] = 256
    learning_rate: Annotated[float, Doc("Highest learning rate.")] = 1e-5
    warmup: Annotated[float, Doc("Share of the steps over which it rises.")] = 0.1
    weight_decay: Annotated[float, Doc("Of AdamW.")] = 0.01
    freeze: Annotated[
        tuple[Part, ...],
        Doc("Parts that keep their weights: network (to train the heads alone), sparse, colbert."),
    ] = ()
    same_file_batches: Annotated[
        bool,
        Doc("Fill each batch from one file, so that negatives are of its language or kind."),
    ] = False
    unified: Annotated[
        bool,
        Doc("Train lexical weights and multi-vectors too, not the dense vector alone."),
    ] = True
    temperature: Annotated[float, Doc("Scores are divided by it.")] = 0.02
    self_distill: Annotated[bool, Doc("Whether the ensemble teaches the three scores.")] = True
    self_distill_start_step: Annotated[
        int,
        Doc("First step, counted from 0, after which it does; -1 for at once."),
    ] = -1
    in_batch_negatives: Annotated[
        bool,
        Doc("Whether other queries' documents are negatives."),
    ] = True
    cross_device: Annotated[
        bool,
        Doc("Whether those of other processes are, for the dense score."),
    ] = False
    teacher_scores: Annotated[bool, Doc("Use the examples' scores of an outside teacher.")] = False
    teacher_loss: Annotated[
        TeacherLoss,
        Doc("kl_div adds that teacher's loss to the contrastive one; m3_kd_loss takes its place."),
    ] = "kl_div"
    query_instruction: Annotated[
        str | None,
        Doc("Put before queries; as the model says if None."),
    ] = None
    document_instruction: Annotated[
        str | None,
        Doc("Put before documents; as the model says if None."),
    ] = None
    pooling: Annotated[
        Pooling | None,
        Doc("How the dense vector is taken; as the model says if None."),
    ] = None
    sub_batch_tokens: Annotated[
        int | None,
        Doc(
            "Run the network over so many tokens at a time and recompute activations, for "
            "long texts."
        ),
    ] = None
    seed: Annotated[int, Doc("Of everything random.")] = 42
    precision: Annotated[
        Precision,
        Doc(
            "float32, bfloat16 or float16 for the network's arithmetic; weights stay "
            "float32. float16 needs a GPU."
        ),
    ] = "float32"
    cpu: Annotated[bool, Doc("Stay on the CPU.")] = False
    save_steps: Annotated[int, Doc("Save every so many steps; 0 for the end only.")] = 0
    keep_checkpoints: Annotated[int, Doc("Keep the last so many.")] = 2
    log_steps: Annotated[int, Doc("Log every so many steps.")] = 10
    resume: Annotated[bool, Doc("Go on from the last checkpoint in output.")] = False

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
    """What a teacher teaches."""

    teacher: Annotated[str, Doc("A folder or a hub repository.")]
    weights: Annotated[
        tuple[float, float, float],
        Doc("Of dense, lexical and multi-vector scores; 0 leaves one out."),
    ] = (1.0, 1.0, 1.0)
    temperature: Annotated[float, Doc("Of both softmaxes.")] = 0.05
    contrast: Annotated[float, Doc("Weight of the unified loss beside them.")] = 0.0
    dense_vectors: Annotated[
        float,
        Doc("Weight of learning the teacher's dense vectors, projected to the student's width."),
    ] = 0.0
    token_vectors: Annotated[
        float,
        Doc(
            "Weight of learning its multi-vectors, token by token; both then need the same "
            "tokenizer and width."
        ),
    ] = 0.0

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


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningOptions:
    """Which documents become negatives."""

    method: Annotated[
        Literal["dense", "sparse", "hybrid"],
        Doc("Score by dense, sparse or their sum hybrid (1 and 0.3)."),
    ] = "dense"
    first: Annotated[
        int,
        Doc(
            "Rank, counted from 0, of the first candidate: the very best may be unmarked positives."
        ),
    ] = 10
    last: Annotated[int, Doc("Rank after the last candidate.")] = 210
    negatives: Annotated[int, Doc("How many to draw from the candidates.")] = 15
    seed: Annotated[int, Doc("Of the draw.")] = 42
    keep: Annotated[bool, Doc("Keep the negatives that examples have already.")] = False

    def __post_init__(self) -> None:
        check_choices(self)
        if not 0 <= self.first < self.last:
            raise ValueError(f"candidates from rank {self.first} to {self.last}: there are none")
        check_at_least(self, 1, "negatives")


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

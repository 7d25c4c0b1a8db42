"""Teaching a small network with a larger encoder: scores, vectors and token vectors.

Scores and dense vectors can be learnt from a teacher of any tokenizer, token vectors from one with
the student's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from m3_core.network import Tokenizer


@dataclass(frozen=True, slots=True)
class Projection:
    """Centres vectors and turns them into fewer dimensions, keeping their inner products.

    Attributes:
        mean: Shape: (wide,).
        matrix: Orthonormal columns. Shape: (wide, narrow).
    """

    mean: torch.Tensor
    matrix: torch.Tensor

    @classmethod
    def fit(cls, vectors: torch.Tensor, width: int) -> Projection:
        """Find the directions along which vectors differ most (PCA).

        Args:
            vectors: Shape: (vectors, wide).
            width: Dimensions to keep; at most ``wide``.

        Returns:
            The projection, in float32 on the vectors' device.

        Raises:
            ValueError: ``width`` is more than the vectors have.

        Example:
            >>> points = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
            >>> Projection.fit(points, 1)(points).abs().tolist()
            [[1.0], [1.0]]
        """
        if width > vectors.shape[1]:
            raise ValueError(f"width is {width}; the vectors have only {vectors.shape[1]} values")
        wide = vectors.double()
        mean = wide.mean(0)
        centred = wide - mean
        _, directions = torch.linalg.eigh(centred.T @ centred)
        return cls(mean.float(), directions.flip(1)[:, :width].float().contiguous())

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """Project.

        Args:
            vectors: Shape: (..., wide).

        Returns:
            Shape: (..., narrow). Dtype: float32.
        """
        return (vectors.float() - self.mean) @ self.matrix


def score_distillation(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float = 0.05
) -> torch.Tensor:
    """Kullback-Leibler divergence of two score matrices' softmaxes over documents.

    Args:
        student: Shape: (queries, documents).
        teacher: As the student's.
        temperature: Both are divided by it.

    Returns:
        The mean over queries, a scalar; 0 where the two agree up to a constant a row.

    Example:
        >>> scores = torch.tensor([[0.3, 0.1]])
        >>> round(abs(score_distillation(scores + 1, scores).item()), 6)
        0.0
    """
    targets = torch.log_softmax(teacher.detach().float() / temperature, -1)
    logs = torch.log_softmax(student / temperature, -1)
    return functional.kl_div(logs, targets, reduction="batchmean", log_target=True)


def vector_distillation(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean of 1 minus the cosine of vectors and their targets.

    Args:
        student: Shape: (..., dim).
        teacher: As the student's.
        mask: 1 for vectors that count, shape (...,); all if ``None``.

    Returns:
        A scalar.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> vector_distillation(x, torch.tensor([[3.0, 0.0], [1.0, 0.0]])).item()
        0.5
    """
    losses = 1 - functional.cosine_similarity(student.float(), teacher.detach().float(), dim=-1)
    if mask is None:
        return losses.mean()
    return (losses * mask).sum() / mask.sum().clamp(min=1)


def check_same_tokenizer(student: Tokenizer, teacher: Tokenizer) -> None:
    """Make sure that a token means the same to both, for distillation token by token.

    Args:
        student: Its tokenizer.
        teacher: Its tokenizer.

    Raises:
        ValueError: The vocabularies differ.
    """
    own, wide = student.ids_of_tokens(), teacher.ids_of_tokens()
    if own == wide:
        return
    how = f"{len(own)} and {len(wide)} tokens"
    moved = next((token for token in own if token in wide and own[token] != wide[token]), None)
    if moved is not None:
        how += f"; {moved!r} is {own[moved]} and {wide[moved]}"
    raise ValueError(
        f"the student and the teacher have other tokenizers ({how}): token vectors cannot be "
        "learnt id by id. Set token_vectors to 0 and distil scores and dense vectors"
    )

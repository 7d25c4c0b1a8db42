"""Teaching a small network with a larger encoder: scores, vectors and token vectors.

Scores can be learnt from a teacher of any tokenizer. Token vectors need to know which of the
teacher's tokens cover a token of the student: either both have the same tokenizer, or the texts'
character offsets tell (``align_tokens``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from m3_core.network.tokens import Tokenizer


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


def align_tokens(
    student: NDArray[np.int64], teacher: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the teacher's tokens that share characters with each of the student's.

    Args:
        student: First and last-plus-one character of tokens. Shape: (tokens, 2).
        teacher: As the student's; ascending.

    Returns:
        Number of the first and of the last such token, both of shape (student's tokens,); the
        first is greater than the last where there is none.

    Example:
        >>> first, last = align_tokens(
        ...     np.array([[0, 2], [2, 7], [9, 9]]), np.array([[0, 4], [4, 7]])
        ... )
        >>> first.tolist(), last.tolist()
        ([0, 0, 2], [0, 1, 1])
    """
    first = np.searchsorted(teacher[:, 1], student[:, 0], side="right")
    last = np.searchsorted(teacher[:, 0], student[:, 1], side="left") - 1
    return first.astype(np.int64), last.astype(np.int64)


def spread_vectors(
    vectors: torch.Tensor, first: torch.Tensor, last: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Average the teacher's token vectors over each of the student's tokens.

    Args:
        vectors: Shape: (texts, teacher's tokens, dim).
        first: As of ``align_tokens``. Shape: (texts, student's tokens). Dtype: int64.
        last: As ``first``.

    Returns:
        Vectors of shape (texts, student's tokens, dim), and which of them have any token of the
        teacher's, of shape (texts, student's tokens).
    """
    sums = functional.pad(vectors.float().cumsum(1), (0, 0, 1, 0))
    covered = (first <= last) & (last < vectors.shape[1])
    begin = torch.where(covered, first, 0)
    end = torch.where(covered, last + 1, 1)
    width = vectors.shape[2]

    def at(index: torch.Tensor) -> torch.Tensor:
        return sums.gather(1, index[:, :, None].expand(-1, -1, width))

    return (at(end) - at(begin)) / (end - begin)[:, :, None], covered


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
        "learnt id by id. Distil scores only, or align tokens by characters (align_tokens)"
    )


def shrink_embeddings(
    wide: torch.Tensor, kept: NDArray[np.int64], width: int
) -> tuple[torch.Tensor, Projection]:
    """Start a student's word embeddings from the teacher's: rows left out, columns projected.

    Args:
        wide: The teacher's. Shape: (ids, wide).
        kept: The teacher's id of each of the student's. Shape: (student's ids,).
        width: The student's.

    Returns:
        Shape: (student's ids, width), and the projection, for other embeddings of the teacher.
    """
    rows = wide.float()[torch.from_numpy(kept)]
    projection = Projection.fit(rows, width)
    return projection(rows), projection

"""The unified loss of M3-Embedding: contrast and self-distillation of all three scores.

Source: arXiv 2402.03216, section 3.3, as FlagEmbedding's training code computes it
(``finetune/embedder/encoder_only/m3/modeling.py``). Where the two differ, this follows the code:

- the mean of the three contrastive losses and the ensemble's weighs the lexical one 0.1;
- scores are divided by the temperature before the ensemble is formed;
- a query vector meets the zero vectors of a document's padding too, so its best similarity is
  never negative for a document shorter than the batch's longest.

One thing differs from the code: with ``in_batch_negatives=False`` the ensemble is formed of each
query's own documents, where FlagEmbedding takes a diagonal of them and fails for larger batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

# At run time, since the options' types are read to check their values.
from m3_core.training.options import TeacherLoss, check_choices, check_positive

SPARSE_IN_ENSEMBLE = 0.3
SPARSE_IN_LOSS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOptions:
    """How the loss is formed.

    Attributes:
        temperature: Scores are divided by it.
        in_batch_negatives: Whether the other queries' documents count as negatives.
        cross_device: Whether those of other processes do too, for the dense score.
        self_distill: Whether the ensemble teaches the three scores.
        self_distill_start_step: First step, counted from 0, after which it does; -1 for at once.
        teacher_loss: ``"kl_div"`` adds the outside teacher's to the contrastive loss;
            ``"m3_kd_loss"`` takes its place.
    """

    temperature: float = 0.02
    in_batch_negatives: bool = True
    cross_device: bool = False
    self_distill: bool = True
    self_distill_start_step: int = -1
    teacher_loss: TeacherLoss = "kl_div"

    def __post_init__(self) -> None:
        check_choices(self)
        check_positive(self, "temperature")


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of every query with every document, divided by the temperature.

    Attributes:
        dense: Shape: (queries, documents); (all queries, all documents) across devices.
        sparse: Shape: (queries, documents); ``None`` to train the dense vector alone.
        colbert: As ``sparse``.
        first_query: Row of this process's first query in ``dense``.
    """

    dense: torch.Tensor
    sparse: torch.Tensor | None = None
    colbert: torch.Tensor | None = None
    first_query: int = 0


def maxsim(
    queries: torch.Tensor, documents: torch.Tensor, query_mask: torch.Tensor
) -> torch.Tensor:
    """Mean over query vectors of the best similarity with a document's vectors.

    Args:
        queries: Zero where padded. Shape: (queries, tokens, dim).
        documents: Zero where padded. Shape: (documents, tokens, dim).
        query_mask: 1 for real vectors. Shape: (queries, tokens).

    Returns:
        Shape: (queries, documents).

    Example:
        >>> q = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
        >>> d = torch.tensor([[[1.0, 0.0]], [[0.0, 0.5]]])
        >>> maxsim(q, d, torch.ones(1, 2)).tolist()
        [[0.5, 0.25]]
    """
    products = torch.einsum("qin,pjn->qipj", queries, documents)
    return products.amax(-1).sum(1) / query_mask.sum(-1, keepdim=True)


def own_documents(scores: torch.Tensor, group_size: int) -> torch.Tensor:
    """Keep each query's scores with its own documents.

    Args:
        scores: Shape: (queries, queries * group_size).
        group_size: Documents a query.

    Returns:
        Shape: (queries, group_size).

    Example:
        >>> own_documents(torch.arange(8.0).view(2, 4), 2).tolist()
        [[0.0, 1.0], [6.0, 7.0]]
    """
    rows = torch.arange(scores.shape[0], device=scores.device)[:, None]
    columns = rows * group_size + torch.arange(group_size, device=scores.device)
    return scores[rows, columns]


def distillation_loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy of a softmax of scores against a teacher's distribution.

    Args:
        scores: The student's. Shape: (queries, documents).
        targets: The teacher's probabilities, of the same shape.

    Returns:
        The mean over queries, a scalar.
    """
    return -(torch.log_softmax(scores, -1) * targets).sum(-1).mean()


def m3_distillation_loss(
    scores: torch.Tensor, targets: torch.Tensor, group_size: int
) -> torch.Tensor:
    """Contrast each of a query's documents, weighed by its probability, with those not yet seen.

    Args:
        scores: Shape: (queries, queries * group_size).
        targets: The teacher's probabilities of each query's documents, best first by
            convention. Shape: (queries, group_size).
        group_size: Documents a query.

    Returns:
        A scalar.
    """
    first = torch.arange(scores.shape[0], device=scores.device) * group_size
    hidden = torch.zeros_like(scores)
    total = scores.new_zeros(())
    for i in range(group_size):
        losses = functional.cross_entropy(scores + hidden, first + i, reduction="none")
        total = total + (targets[:, i] * losses).mean()
        hidden = hidden.scatter(1, (first + i)[:, None], torch.finfo(scores.dtype).min)
    return total


def _contrast(
    scores: torch.Tensor, targets: torch.Tensor | None, group_size: int, options: LossOptions
) -> torch.Tensor:
    """InfoNCE of one kind of score, with the outside teacher's targets if there are any."""
    local = scores.shape[1] == group_size and not options.in_batch_negatives
    first = torch.arange(scores.shape[0], device=scores.device) * (0 if local else group_size)
    if targets is None:
        return functional.cross_entropy(scores, first)
    if options.teacher_loss == "m3_kd_loss":
        if local:
            raise ValueError("teacher_loss='m3_kd_loss' needs in_batch_negatives=True")
        return m3_distillation_loss(scores, targets, group_size)
    own = scores if local else own_documents(scores, group_size)
    return distillation_loss(own, targets) + functional.cross_entropy(scores, first)


def m3_loss(
    scores: Scores,
    group_size: int,
    options: LossOptions | None = None,
    *,
    teacher_scores: torch.Tensor | None = None,
    step: int = 0,
) -> dict[str, torch.Tensor]:
    """Combine the losses of the three scores and of their ensemble.

    Args:
        scores: Of this process's queries and documents; a query's first document is its positive.
        group_size: Documents a query.
        options: How to combine; the defaults if ``None``.
        teacher_scores: An outside teacher's, of each query's own documents.
            Shape: (queries, group_size).
        step: Steps done, for ``self_distill_start_step``.

    Returns:
        ``"loss"`` to minimise, and its parts, detached.

    Example:
        >>> identity = torch.eye(2)
        >>> parts = m3_loss(Scores(identity, identity, identity), 1)
        >>> sorted(parts)  # doctest: +NORMALIZE_WHITESPACE
        ['colbert', 'dense', 'ensemble', 'loss', 'self_colbert', 'self_dense', 'self_sparse',
         'sparse']
    """
    options = options or LossOptions()
    targets = None if teacher_scores is None else torch.softmax(teacher_scores.detach().float(), -1)
    dense, sparse, colbert = scores.dense, scores.sparse, scores.colbert
    if not options.in_batch_negatives:
        dense = own_documents(dense, group_size)
    parts = {"dense": _contrast(dense, _gathered(targets, options), group_size, options)}
    if sparse is None or colbert is None:
        return {"dense": parts["dense"].detach(), "loss": parts["dense"]}
    if options.in_batch_negatives:
        queries, documents = sparse.shape
        start = scores.first_query
        dense = dense[start : start + queries, start * group_size :][:, :documents]
    else:
        sparse, colbert = own_documents(sparse, group_size), own_documents(colbert, group_size)
    ensemble = dense + SPARSE_IN_ENSEMBLE * sparse + colbert
    named = {"sparse": sparse, "colbert": colbert, "ensemble": ensemble}
    parts |= {name: _contrast(s, targets, group_size, options) for name, s in named.items()}
    loss = (
        parts["dense"] + parts["ensemble"] + SPARSE_IN_LOSS * parts["sparse"] + parts["colbert"]
    ) / 4
    if options.self_distill and step > options.self_distill_start_step:
        taught = torch.softmax(ensemble.detach(), -1)
        own = {"dense": dense, "sparse": sparse, "colbert": colbert}
        selves = {name: distillation_loss(s, taught) for name, s in own.items()}
        distilled = selves["dense"] + SPARSE_IN_LOSS * selves["sparse"] + selves["colbert"]
        loss = (loss + distilled / 3) / 2
        parts |= {f"self_{name}": value for name, value in selves.items()}
    return {name: value.detach() for name, value in parts.items()} | {"loss": loss}


def _gathered(targets: torch.Tensor | None, options: LossOptions) -> torch.Tensor | None:
    if targets is None or not options.cross_device:
        return targets
    return gather(targets)


def gather(values: torch.Tensor) -> torch.Tensor:
    """Join the rows of all processes, in their order; gradients flow to this process's own.

    Args:
        values: This process's rows, of the same shape in each.

    Returns:
        All rows; ``values`` itself without distribution.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    parts[dist.get_rank()] = values
    return torch.cat(parts)

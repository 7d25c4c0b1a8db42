import numpy as np
import torch

from m3_core.training.distillation import (
    Projection,
    align_tokens,
    score_distillation,
    shrink_embeddings,
    spread_vectors,
    vector_distillation,
)


def test_aligned_tokens_share_characters():
    rng = np.random.default_rng(0)
    for _ in range(50):
        cuts = [np.unique([0, 30, *rng.integers(1, 30, 6)]) for _ in range(2)]
        student, teacher = (np.stack([c[:-1], c[1:]], 1) for c in cuts)
        first, last = align_tokens(student, teacher)
        for (a, b), low, high in zip(student, first, last, strict=True):
            sharing = [i for i, (c, d) in enumerate(teacher) if max(a, c) < min(b, d)]
            assert sharing == list(range(low, high + 1))


def test_spread_vectors_are_means():
    vectors = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    first, last = torch.tensor([[0, 1, 3], [2, 4, 1]]), torch.tensor([[0, 2, 2], [4, 4, 9]])
    spread, covered = spread_vectors(vectors, first, last)
    assert covered.tolist() == [[True, True, False], [True, True, False]]
    torch.testing.assert_close(spread[0, 1], vectors[0, 1:3].mean(0))
    torch.testing.assert_close(spread[1, 0], vectors[1, 2:5].mean(0))


def test_a_projection_to_the_full_width_keeps_inner_products():
    points = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    projected = Projection.fit(points, 8)(points)
    centred = points - points.mean(0)
    torch.testing.assert_close(projected @ projected.T, centred @ centred.T, atol=1e-4, rtol=0)


def test_shrunk_embeddings_keep_the_right_rows():
    wide = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    kept = np.array([3, 17, 5])
    rows, projection = shrink_embeddings(wide, kept, 2)
    torch.testing.assert_close(rows, (wide[kept] - wide[kept].mean(0)) @ projection.matrix)


def test_score_distillation_is_the_divergence_in_float64():
    rng = np.random.default_rng(0)
    student, teacher = rng.standard_normal((2, 4, 6))

    def softmax(x):
        e = np.exp(x / 0.1 - (x / 0.1).max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    p, q = softmax(teacher), softmax(student)
    expected = (p * (np.log(p) - np.log(q))).sum(1).mean()
    found = score_distillation(torch.tensor(student), torch.tensor(teacher), 0.1)
    np.testing.assert_allclose(found.item(), expected, rtol=1e-4)


def test_vector_distillation_counts_masked_vectors_only():
    student, teacher = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert vector_distillation(student, teacher, torch.tensor([1.0, 0.0])).item() == 1.0

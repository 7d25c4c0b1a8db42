import numpy as np
import torch

from m3_core.training.distillation import (
    Projection,
    score_distillation,
    vector_distillation,
)


def test_a_projection_to_the_full_width_keeps_inner_products():
    points = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    projected = Projection.fit(points, 8)(points)
    centred = points - points.mean(0)
    torch.testing.assert_close(projected @ projected.T, centred @ centred.T, atol=1e-4, rtol=0)


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

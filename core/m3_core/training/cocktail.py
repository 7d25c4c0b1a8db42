"""LM-Cocktail: one checkpoint out of several of the same architecture, by weighted averages.

Source: LM-Cocktail (arXiv 2311.13534). FlagEmbedding's mixes the network alone; here the heads
are mixed with the same weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from m3_core.errors import CorruptCheckpointError
from m3_core.network import locate
from m3_core.training.modeling import TrainableM3
from m3_core.training.saving import save_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def mix_states(
    states: Sequence[Mapping[str, torch.Tensor]], weights: Sequence[float]
) -> dict[str, torch.Tensor]:
    """Average tensors of the same names and shapes.

    Args:
        states: Tensors by name, floating ones.
        weights: One a state; they must add up to 1.

    Returns:
        The weighted sums, in float32.

    Raises:
        ValueError: Weights do not add up to 1, or names or shapes differ.

    Example:
        >>> ones, fives = {"w": torch.ones(1)}, {"w": 5 * torch.ones(1)}
        >>> mix_states([ones, fives], [0.75, 0.25])["w"].tolist()
        [2.0]
    """
    if len(states) != len(weights) or not states:
        raise ValueError(
            f"{len(states)} checkpoints and {len(weights)} weights; one each is needed"
        )
    if not math.isclose(sum(weights), 1, abs_tol=1e-4):
        raise ValueError(f"the weights {list(weights)} add up to {sum(weights):g}; it must be 1")
    first = states[0]
    for number, state in enumerate(states[1:], 2):
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        wanted = {name: tuple(value.shape) for name, value in first.items()}
        if shapes != wanted:
            name = sorted(set(shapes.items()) ^ set(wanted.items()))[0][0]
            raise ValueError(
                f"checkpoint {number} is of another architecture than the first: {name} is "
                f"{shapes.get(name, 'absent')}, there {wanted.get(name, 'absent')}"
            )
    return {
        name: sum(
            (weight * state[name].float() for weight, state in zip(weights, states, strict=True)),
            start=torch.zeros(()),
        )
        for name in first
    }


def mix_checkpoints(
    checkpoints: Sequence[str | Path],
    weights: Sequence[float],
    output: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Mix checkpoints, heads included, and save the result in the M3 layout.

    Args:
        checkpoints: Folders or hub repositories with heads and one tokenizer; the first one's
            tokenizer, pooling and prompts are kept.
        weights: One each; they must add up to 1.
        output: Where to.
        dtype: Data type of the stored weights.

    Returns:
        The folder.

    Raises:
        CorruptCheckpointError: Tokenizers differ.
        ValueError: Weights or architectures do not fit.
    """
    models = [TrainableM3.from_pretrained(name) for name in checkpoints]
    files = [(locate(name) / "tokenizer.json").read_bytes() for name in checkpoints]
    for name, file in zip(checkpoints, files, strict=True):
        if file != files[0]:
            raise CorruptCheckpointError(
                f"{str(name)!r} has another tokenizer.json than {str(checkpoints[0])!r}: their "
                "weights mean other tokens and cannot be mixed"
            )
    mixed = mix_states([model.state_dict() for model in models], weights)
    models[0].load_state_dict(mixed)
    return save_checkpoint(models[0], Path(output), dtype=dtype)

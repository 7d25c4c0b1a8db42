"""Writing checkpoints in the M3 file layout, whole or not at all."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from m3_core.errors import SavingError
from m3_core.saved_folders import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from m3_core.training.modeling import TrainableM3

COPIED_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
)
# As sentence-transformers reads them: without them it passes over the prompts.
_MODULES = [
    {
        "idx": number,
        "name": str(number),
        "path": "" if kind == "Transformer" else f"{number}_{kind}",
        "type": f"sentence_transformers.models.{kind}",
    }
    for number, kind in enumerate(("Transformer", "Pooling", "Normalize"))
]
_POOLING_FLAGS = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}


@contextmanager
def saved_whole(folder: Path) -> Iterator[Path]:
    """Fill a hidden folder that takes the place of a checkpoint when all went well.

    Args:
        folder: Where the files shall be; it may exist.

    Yields:
        The hidden folder, empty.

    Raises:
        SavingError: The files cannot be written, because the disk is full, say.
    """
    try:
        with replacing(folder) as partial:
            yield partial
    except (OSError, RuntimeError, SafetensorError) as error:
        # safetensors and torch report a full disk as errors of their own.
        raise SavingError(
            f"the checkpoint {folder} could not be written ({error}; {_free(folder)} MiB are free "
            "there): earlier checkpoints are untouched. Make room or choose another folder"
        ) from error


def save_checkpoint(
    model: TrainableM3,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    prompts: Mapping[str, str] | None = None,
) -> Path:
    """Write a model so that our ``Encoder`` and FlagEmbedding load it.

    Args:
        model: The model.
        folder: Where to; an existing checkpoint there is replaced at the end.
        dtype: Data type of the stored weights.
        prompts: ``{"query": ..., "document": ...}``; the source's own if ``None``.

    Returns:
        The folder.

    Raises:
        SavingError: The files cannot be written.
    """
    folder = Path(folder)
    with saved_whole(folder) as partial:
        write_checkpoint(model, partial, dtype=dtype, prompts=prompts)
    return folder


def write_checkpoint(
    model: TrainableM3,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    prompts: Mapping[str, str] | None = None,
) -> None:
    """Write the files of a checkpoint into an existing folder.

    Args:
        model: The model.
        folder: Where to.
        dtype: Data type of the stored weights.
        prompts: As of ``save_checkpoint``.
    """
    from safetensors.torch import save_file

    def stored(module: torch.nn.Module) -> dict[str, torch.Tensor]:
        state = module.state_dict()
        return {name: value.detach().cpu().to(dtype).contiguous() for name, value in state.items()}

    save_file(stored(model.network), folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors writes files that only their owner reads.
    (folder / "model.safetensors").chmod(0o644)
    torch.save(stored(model.sparse_linear), folder / "sparse_linear.pt")
    torch.save(stored(model.colbert_linear), folder / "colbert_linear.pt")
    config = model.network.config.to_dict()
    config |= {"dtype": str(dtype).removeprefix("torch.")}
    config["architectures"] = [type(model.network).__name__]
    _write_json(folder / "config.json", config)
    modes = {f"pooling_mode_{flag}": mode == model.pooling for mode, flag in _POOLING_FLAGS.items()}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    width = model.network.config.hidden_size
    _write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width} | modes)
    _write_json(folder / "modules.json", _MODULES)
    (folder / "2_Normalize").mkdir(exist_ok=True)
    for name in COPIED_FILES:
        if (model.source / name).is_file():
            shutil.copyfile(model.source / name, folder / name)
    if prompts is not None:
        _write_json(folder / "config_sentence_transformers.json", {"prompts": dict(prompts)})


def load_weights(model: TrainableM3, folder: Path) -> None:
    """Read back what ``write_checkpoint`` wrote.

    Args:
        model: Of the same architecture.
        folder: The checkpoint.
    """
    from safetensors.torch import load_file

    model.network.load_state_dict(load_file(folder / "model.safetensors"))
    for name in ("sparse_linear", "colbert_linear"):
        state = torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True)
        getattr(model, name).load_state_dict(state)


def _free(folder: Path) -> int:
    """MiB that are free where a folder is or would be."""
    there = next((one for one in (folder, *folder.absolute().parents) if one.is_dir()), Path())
    return shutil.disk_usage(there).free >> 20


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

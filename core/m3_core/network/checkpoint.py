"""Finding and reading a checkpoint's files, from a local folder or the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from m3_core.errors import CheckpointNotFoundError, CorruptCheckpointError, MissingHeadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

Pooling = Literal["cls", "mean", "last"]

PACKAGED: Mapping[str, Path] = {
    name: Path(__file__).parent.parent / "models" / name for name in ("m3-small", "m3-tiny")
}

_CONFIG_FILES = ["*.json", "*.model", "*.txt", "1_Pooling/*", "*_linear.*"]
_WEIGHT_FILES = {"safetensors": ["*.safetensors"], "bin": ["pytorch_model*.bin*"]}
_OTHER_RUNTIMES = ["onnx/*", "openvino/*", "*.onnx", "*.gguf", "flax*", "tf_*", "rust_*", "imgs/*"]


@dataclass(frozen=True, slots=True)
class Head:
    """One linear layer over hidden states.

    Attributes:
        weight: Shape: (outputs, hidden). Dtype: as stored.
        bias: Shape: (outputs,).
    """

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with a model, and what its small files say.

    Attributes:
        folder: Where the files lie.
        name: What the user asked for.
        config: ``config.json``.
        pooling: As ``1_Pooling/config.json`` says, or ``None`` without that file.
        prompts: As ``config_sentence_transformers.json`` says.
        positions: Longest text that the position embeddings allow, in tokens.
        default_length: Longest text that the checkpoint's makers set, in tokens.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    pooling: Pooling | None
    prompts: Mapping[str, str]
    positions: int
    default_length: int


def locate(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the local folder of a checkpoint, downloading it if it is a hub repository.

    Args:
        name: A local folder, a repository such as ``"BAAI/bge-m3"``, or ``"m3-small"``
            or ``"m3-tiny"``, which come with this package.
        revision: Branch, tag or commit of the repository.
        cache_folder: Where downloads are kept; the hub's own default if ``None``.
        token: Access token, or ``False`` to send none.
        local_files_only: Use what the cache holds and ask no server.

    Returns:
        The folder; a download holds only what torch needs.

    Raises:
        CheckpointNotFoundError: There is no such folder and the repository cannot be had.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    text = str(name)
    if text in PACKAGED:
        return PACKAGED[text]
    if path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1:
        raise CheckpointNotFoundError(
            f"checkpoint {text!r} looks like a path, but there is no such folder: "
            "correct it, or name a hub repository such as 'BAAI/bge-m3'"
        )
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def download(patterns: list[str]) -> Path:
        return Path(
            snapshot_download(
                text,
                revision=revision,
                cache_dir=cache_folder,
                token=token,
                local_files_only=local_files_only,
                allow_patterns=patterns,
                ignore_patterns=_OTHER_RUNTIMES,
            )
        )

    try:
        folder = download(_CONFIG_FILES + _WEIGHT_FILES["safetensors"])
        # The heads may be safetensors while the network is not: look for the network's own files.
        if not any(folder.glob("model*.safetensors")):
            folder = download(_CONFIG_FILES + _WEIGHT_FILES["bin"])
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, httpx.HTTPError) as error:
        how = "the local cache (local_files_only=True)" if local_files_only else "the hub"
        at = f" at revision {revision!r}" if revision else ""
        raise CheckpointNotFoundError(
            f"checkpoint {text!r}{at} is no local folder and could not be had from {how}: "
            f"{_first_line(error)}. Name a local folder, or check the name, token and network"
        ) from error
    return folder


def read_json(path: Path) -> Any:
    """Read a JSON file of a checkpoint.

    Args:
        path: The file.

    Returns:
        Its content, or ``None`` if there is no such file.

    Raises:
        CorruptCheckpointError: The file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CorruptCheckpointError(f"{path} is not readable as JSON: {error}") from error


def read_checkpoint(folder: Path, name: str) -> Checkpoint:
    """Read the small files of a checkpoint: configuration, pooling, prompts, lengths.

    Args:
        folder: Where the files lie.
        name: What the user asked for.

    Returns:
        What they say.

    Raises:
        CorruptCheckpointError: ``config.json`` is absent or does not describe a network.
    """
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or "model_type" not in config:
        raise CorruptCheckpointError(
            f"{folder} has no config.json with a model_type: it is not a transformers checkpoint"
        )
    positions = _usable_positions(config)
    lengths = [
        (read_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length"),
        (read_json(folder / "tokenizer_config.json") or {}).get("model_max_length"),
    ]
    stated = [int(length) for length in lengths if isinstance(length, (int, float)) and length > 0]
    prompts = (read_json(folder / "config_sentence_transformers.json") or {}).get("prompts") or {}
    return Checkpoint(
        folder=folder,
        name=name,
        config=config,
        pooling=_read_pooling(folder),
        prompts={key: text for key, text in prompts.items() if isinstance(text, str)},
        positions=positions,
        default_length=min([positions, *stated]),
    )


def read_heads(folder: Path, hidden_size: int, *, required: bool) -> tuple[Head, Head] | None:
    """Read ``sparse_linear`` and ``colbert_linear``, both or neither.

    Args:
        folder: The checkpoint.
        hidden_size: Width of the network's hidden states.
        required: The model is known to have heads, so that their absence is an error.

    Returns:
        The lexical head, weight of shape (1, hidden), and the multi-vector head, weight of shape
        (dim, hidden); ``None`` if there are neither.

    Raises:
        MissingHeadError: One of the two is missing, or both are and ``required`` is set.
        CorruptCheckpointError: A file cannot be read or has other shapes.
    """
    sparse, colbert = (_read_head(folder, name) for name in ("sparse_linear", "colbert_linear"))
    if sparse is None and colbert is None and not required:
        return None
    if sparse is None or colbert is None:
        pairs = (("sparse_linear.pt", sparse), ("colbert_linear.pt", colbert))
        missing = " and ".join(name for name, head in pairs if head is None)
        raise MissingHeadError(
            f"{folder} lacks {missing} (or .safetensors): without trained heads there are no "
            "lexical weights and multi-vectors. Copy the missing files from the model's repository"
        )
    for name, head, outputs in (("sparse_linear", sparse, 1), ("colbert_linear", colbert, None)):
        rows = head.weight.shape[0] if outputs is None else outputs
        if tuple(head.weight.shape) != (rows, hidden_size) or tuple(head.bias.shape) != (rows,):
            raise CorruptCheckpointError(
                f"{name} of {folder} has weight {tuple(head.weight.shape)} and bias "
                f"{tuple(head.bias.shape)}; the network needs ({rows}, {hidden_size}) and "
                f"({rows},): the head belongs to another model"
            )
    return sparse, colbert


def _read_head(folder: Path, name: str) -> Head | None:
    for path in (folder / f"{name}.safetensors", folder / f"{name}.pt"):
        if not path.is_file():
            continue
        try:
            if path.suffix == ".pt":
                import torch

                state = torch.load(path, map_location="cpu", weights_only=True)
            else:
                from safetensors.torch import load_file

                state = load_file(path)
            return Head(state["weight"], state["bias"])
        except Exception as error:
            raise CorruptCheckpointError(
                f"{path} cannot be read as a linear layer: {_first_line(error)}. "
                "It may be cut: copy it again"
            ) from error
    return None


def _read_pooling(folder: Path) -> Pooling | None:
    config = read_json(folder / "1_Pooling" / "config.json")
    if config is None:
        return None
    modes: dict[str, Pooling] = {
        "pooling_mode_cls_token": "cls",
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_lasttoken": "last",
    }
    # sentence-transformers 6 writes one word instead of a flag for each.
    words: dict[str, Pooling] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
    chosen = {modes[key] for key, on in config.items() if on is True and key in modes}
    others = {key for key, on in config.items() if on is True and "mode" in key} - modes.keys()
    word = config.get("pooling_mode")
    if isinstance(word, str):
        chosen, others = {words[word]} if word in words else set(), set()
    if len(chosen) != 1 or others:
        raise CorruptCheckpointError(
            f"{folder / '1_Pooling/config.json'} asks for {sorted(others) or word or 'no'} pooling;"
            " known are cls, mean and lasttoken, one of them"
        )
    return chosen.pop()


def _usable_positions(config: Mapping[str, Any]) -> int:
    positions = int(config.get("max_position_embeddings", 512))
    if config["model_type"] in ("xlm-roberta", "roberta"):
        # RoBERTa counts positions from pad_token_id + 1 on.
        return positions - int(config.get("pad_token_id", 1)) - 1
    return positions


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__

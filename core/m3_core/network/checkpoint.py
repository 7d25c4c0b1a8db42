"""Finding and reading a checkpoint's files, from a local folder or the hub."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from m3_core.errors import CheckpointNotFoundError, CorruptCheckpointError, MissingHeadError
from m3_core.json_text import parse_json
from m3_core.network.configuration import check_config, padding_id
from m3_core.saved_folders import tidy

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

Pooling = Literal["cls", "mean", "last"]

PACKAGED: Mapping[str, Path] = {"m3-small": Path(__file__).parent.parent / "models" / "m3-small"}

_CONFIG_FILES = ["*.json", "*.model", "*.txt", "1_Pooling/*", "*_linear.*"]
_WEIGHT_FILES = {"safetensors": ["*.safetensors"], "bin": ["pytorch_model*.bin*"]}
# Fewer tokens hold no text beside the special tokens.
_SHORTEST = 3
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
        name: A local folder, a repository such as ``"BAAI/bge-m3"``, or
            ``"m3-small"``, which comes with this package.
        revision: Branch, tag or commit of the repository.
        cache_folder: Where downloads are kept; the hub's own default if ``None``.
        token: Access token, or ``False`` to send none.
        local_files_only: Use what the cache holds and ask no server.

    Returns:
        The folder; a download holds only what torch needs.

    Raises:
        CheckpointNotFoundError: There is no such folder and the repository cannot be had.
    """
    path, text = Path(name).expanduser(), str(name)
    if text not in PACKAGED:
        tidy(path)
    if path.is_dir():
        return path
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


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON file of a checkpoint.

    Args:
        path: The file.

    Returns:
        The object in it, or ``None`` if there is no such file.

    Raises:
        CorruptCheckpointError: The file cannot be read, or holds no JSON object.
    """
    try:
        found = parse_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise CorruptCheckpointError(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(found, dict):
        raise CorruptCheckpointError(f"{path} holds a {type(found).__name__}, not a JSON object")
    return found


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
    config = check_config(read_json(folder / "config.json"), folder)
    positions = _usable_positions(config)
    lengths: list[Any] = [
        (read_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length"),
        (read_json(folder / "tokenizer_config.json") or {}).get("model_max_length"),
    ]
    length = min([positions, *(one for one in lengths if _is_length(one))])
    if length < _SHORTEST:
        raise CorruptCheckpointError(
            f"{folder} allows texts of {length} tokens only, by max_position_embeddings and "
            "pad_token_id of config.json, max_seq_length of sentence_bert_config.json or "
            "model_max_length of tokenizer_config.json: one of them is damaged"
        )
    return Checkpoint(
        folder=folder,
        name=name,
        config=config,
        pooling=_read_pooling(folder),
        prompts=_read_prompts(folder),
        positions=positions,
        default_length=int(length),
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
        rows = len(head.bias) if outputs is None else outputs
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
            return Head(_numbers(state["weight"], 2), _numbers(state["bias"], 1))
        except Exception as error:
            raise CorruptCheckpointError(
                f"{path} cannot be read as a linear layer: {_first_line(error)}. "
                "It may be cut: copy it again"
            ) from error
    return None


def _numbers(tensor: Any, dimensions: int) -> torch.Tensor:
    """Check that something is an ordinary tensor of numbers, all of which are stored."""
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
        raise ValueError(f"it holds a {type(tensor).__name__} where a tensor must be")
    if not tensor.is_floating_point() or tensor.dim() != dimensions or not tensor.numel():
        raise ValueError(f"it holds {tensor.dtype} of shape {tuple(tensor.shape)}")
    # A view may repeat one number without end.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"it holds fewer numbers than its shape {tuple(tensor.shape)} has")
    return tensor


def _read_prompts(folder: Path) -> dict[str, str]:
    path = folder / "config_sentence_transformers.json"
    prompts = (read_json(path) or {}).get("prompts") or {}
    try:
        kept = {key: text for key, text in prompts.items() if isinstance(text, str)}
        "".join(kept.values()).encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise CorruptCheckpointError(
            f"{path} has no object of texts as its prompts: {error}"
        ) from error
    return kept


def _is_length(value: Any) -> bool:
    """Whether a file states a length; -1, 0 and infinity stand for none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return value > 0 and (isinstance(value, int) or math.isfinite(value))


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
        return positions - padding_id(config) - 1
    return positions


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__

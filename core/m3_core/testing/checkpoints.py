"""Small seeded checkpoints for tests, of this package and of those who use it: no download.

The networks are random, so results mean nothing, but every code path is the real one: files,
tokenizer, backbone, heads. The tokenizer knows the characters of many scripts and some words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from m3_core.network import Pooling

WORDS = (
    "the of and to in is was for that with on as are by this be from at which not have an they "
    "has one what how who where when why does it or but all can more about time year city river "
    "world people water first new model search query document vector token text language hello "
    "panda bear retrieval dense sparse embedding multi lexical "
    "der die das und ist nicht ein eine mit auf für wie was wer wo warum stadt fluss jahr "
    "el la los las de que y en un una por con para como qué quién dónde ciudad año río "
    "и в не на что с по это как для из он город год река мир"
)
_RANGES = (
    (0x21, 0x7F),  # ASCII
    (0xA1, 0x180),  # Latin with marks
    (0x370, 0x460),  # Greek, Cyrillic
    (0x5D0, 0x5EB),  # Hebrew
    (0x600, 0x700),  # Arabic
    (0x900, 0x970),  # Devanagari
    (0xE00, 0xE5C),  # Thai
    (0x3001, 0x3100),  # CJK punctuation, kana
    (0x4E00, 0x9FA6),  # CJK
)


def tiny_checkpoint(
    path: str | Path,
    *,
    kind: Literal["m3", "dense", "bge"] = "m3",
    seed: int = 0,
    hidden_size: int = 32,
    layers: int = 2,
    positions: int | None = None,
    pooling: Pooling = "cls",
    colbert_dim: int | None = None,
) -> Path:
    """Write a random checkpoint in the file layout of a BGE model.

    Args:
        path: The folder; made if need be.
        kind: ``"m3"``: XLM-R network, Unigram tokenizer, both heads. ``"dense"``: the same
            without heads. ``"bge"``: BERT network and WordPiece tokenizer, as v1 and v1.5.
        seed: Of the random weights; the same seed gives the same weights.
        hidden_size: Width of the hidden states; a multiple of 4.
        layers: Number of layers.
        positions: Longest text in tokens; 8192, for ``"bge"`` 512, if ``None``.
        pooling: As ``1_Pooling/config.json`` shall say.
        colbert_dim: Width of the multi-vectors; ``hidden_size`` if ``None``.

    Returns:
        The folder.
    """
    import torch
    from safetensors.torch import save_file

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    is_bert = kind == "bge"
    length = positions or (512 if is_bert else 8192)
    specials = write_tokenizer(folder, wordpiece=is_bert, model_max_length=length)
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    config: dict[str, Any] = {
        "model_type": "bert" if is_bert else "xlm-roberta",
        "architectures": ["BertModel" if is_bert else "XLMRobertaModel"],
        "vocab_size": len(vocabulary["vocab"]) + (0 if is_bert else 1),
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * hidden_size,
        "max_position_embeddings": length if is_bert else length + 2,
        "type_vocab_size": 2 if is_bert else 1,
        "pad_token_id": specials.index("[PAD]" if is_bert else "<pad>"),
    }
    generator = torch.Generator().manual_seed(seed)

    def random(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if "LayerNorm.weight" in name:
            return torch.ones(shape)
        # Wide enough that attention and activations are far from linear.
        scale = 0.5 if "embeddings" in name else 1.5 * hidden_size**-0.5
        return torch.randn(shape, generator=generator) * (0.1 if "bias" in name else scale)

    state = {name: random(name, shape) for name, shape in sorted(encoder_tensors(config).items())}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", config)
    if kind == "m3":
        for name, outputs in (("sparse", 1), ("colbert", colbert_dim or hidden_size)):
            weight = torch.randn(outputs, hidden_size, generator=generator) * hidden_size**-0.5
            bias = torch.randn(outputs, generator=generator) * 0.1
            if name == "sparse":
                # Most tokens shall have a weight, some none, whatever the seed.
                weight, bias = 0.4 * weight, bias + 0.5
            torch.save({"weight": weight, "bias": bias}, folder / f"{name}_linear.pt")
    flags = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}
    modes = {f"pooling_mode_{flag}": mode == pooling for mode, flag in flags.items()}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    _write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden_size} | modes
    )
    return folder


def encoder_tensors(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Say what the weight file of an encoder holds.

    Args:
        config: ``config.json`` of an XLM-R, RoBERTa or BERT.

    Returns:
        Its tensors' shapes by name.
    """
    from m3_core.network import AskedShapes, PackedBackbone

    asked = AskedShapes()
    PackedBackbone(config, asked)
    return asked.shapes


def write_tokenizer(folder: Path, *, wordpiece: bool, model_max_length: int) -> list[str]:
    """Write ``tokenizer.json`` and the files that name its special tokens.

    Args:
        folder: The checkpoint.
        wordpiece: WordPiece as BERT's, else Unigram as XLM-R's.
        model_max_length: As ``tokenizer_config.json`` shall say.

    Returns:
        The special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    characters = [chr(code) for first, last in _RANGES for code in range(first, last)]
    if wordpiece:
        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        pieces = characters + [f"##{c}" for c in characters] + WORDS.split()
        vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(specials + pieces))}
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        first, last, names = "[CLS]", "[SEP]", ["pad", "unk", "cls", "sep", "mask"]
    else:
        specials = ["<s>", "<pad>", "</s>", "<unk>"]
        words = [piece for word in WORDS.split() for piece in (f"▁{word}", word) if len(piece) > 1]
        pieces = list(dict.fromkeys([*words, "▁", *characters]))
        scored = [(special, 0.0) for special in specials]
        # As a trained model: whole words are likelier than their letters.
        scored += [(piece, -2.0 - 1e-4 * rank) for rank, piece in enumerate(pieces)]
        tokenizer = Tokenizer(models.Unigram(scored, unk_id=3, byte_fallback=False))
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Replace("\n", " "), normalizers.Replace("\t", " ")]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        specials = [*specials, "<mask>"]
        first, last, names = "<s>", "</s>", ["cls", "pad", "eos", "unk", "mask"]
    tokenizer.add_special_tokens(specials)
    ids = [(token, tokenizer.token_to_id(token)) for token in (first, last)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} {'' if wordpiece else last + ' '}$B {last}",
        special_tokens=ids,
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    special_map = {f"{name}_token": token for name, token in zip(names, specials, strict=True)}
    if not wordpiece:
        special_map |= {"bos_token": "<s>", "sep_token": "</s>"}
    _write_json(folder / "special_tokens_map.json", special_map)
    kind = "BertTokenizer" if wordpiece else "XLMRobertaTokenizer"
    _write_json(
        folder / "tokenizer_config.json",
        special_map | {"tokenizer_class": kind, "model_max_length": model_max_length},
    )
    return specials


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

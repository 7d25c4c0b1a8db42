"""Small seeded rerankers for tests, of every kind: no download.

As in ``testing``: the scores mean nothing, but files, tokenizer and network are the real ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from m3_core.extras import needs_extra
from m3_core.testing.checkpoints import WORDS, encoder_tensors, write_tokenizer

if TYPE_CHECKING:
    import torch

_SPECIALS = {
    "llm": {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"},
    "layerwise": {"unk": "<unk>", "bos": "<s>", "eos": "</s>"},
}


def tiny_reranker(
    path: str | Path,
    *,
    kind: Literal["cross-encoder", "bert", "llm", "layerwise", "lightweight"] = "cross-encoder",
    seed: int = 0,
    hidden_size: int = 32,
    layers: int | None = None,
    positions: int | None = None,
) -> Path:
    """Write a random checkpoint in the file layout of a BGE reranker.

    Args:
        path: The folder; made if need be.
        kind: ``"cross-encoder"``: XLM-R as base, large and v2-m3. ``"bert"``: a BERT classifier.
            ``"llm"``: Gemma as v2-gemma. ``"layerwise"``: MiniCPM as v2-minicpm-layerwise.
            ``"lightweight"``: Gemma 2 as v2.5-gemma2-lightweight.
        seed: Of the random weights; the same seed gives the same weights.
        hidden_size: Width of the hidden states; a multiple of 8.
        layers: Number of layers; 2, for the last two kinds 4, if ``None``. Heads of those begin
            after layer 2.
        positions: Longest pair in tokens; 8192, for ``"bert"`` 512, if ``None``.

    Returns:
        The folder.
    """
    import torch
    from safetensors.torch import save_file

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    length = positions or (512 if kind == "bert" else 8192)
    encoder = kind in ("cross-encoder", "bert")
    if encoder:
        write_tokenizer(folder, wordpiece=kind == "bert", model_max_length=length)
    else:
        _write_bpe(folder, _SPECIALS.get(kind, _SPECIALS["llm"]), prepend=kind == "layerwise")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = len({*tokenizer["model"]["vocab"]} if kind != "cross-encoder" else ())
    config: dict[str, Any] = {
        "vocab_size": vocabulary or len(tokenizer["model"]["vocab"]) + 1,
        "hidden_size": hidden_size,
        "num_hidden_layers": layers or (2 if encoder or kind == "llm" else 4),
        "num_attention_heads": 4,
        "intermediate_size": 2 * hidden_size,
        "max_position_embeddings": length + 2 * (kind == "cross-encoder"),
        **_architecture(kind, hidden_size),
    }
    shapes = _shapes(config, kind)
    generator = torch.Generator().manual_seed(seed)

    def random(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        noise = torch.randn(shape, generator=generator)
        if name.endswith(("LayerNorm.weight", "norm.weight", "layernorm.weight")):
            # Gemma's norms add 1 to their weight.
            return 0.1 * noise + (0.0 if kind in ("llm", "lightweight") else 1.0)
        # Wide enough that attention and activations are far from linear.
        scale = 0.5 if "embed" in name else 1.5 * hidden_size**-0.5
        return noise * (0.1 if "bias" in name else scale)

    state = {
        name: random(name, shape)
        for name, shape in sorted(shapes.items())
        if name != "lm_head.weight"
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def _architecture(kind: str, hidden_size: int) -> dict[str, Any]:
    """What sets a kind's ``config.json`` apart."""
    one_label = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    gemma: dict[str, Any] = {
        "num_key_value_heads": 2,
        "head_dim": hidden_size // 4,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }
    gemma["hidden_activation"] = gemma["hidden_act"] = "gelu_pytorch_tanh"
    return {
        "cross-encoder": {
            "model_type": "xlm-roberta",
            "architectures": ["XLMRobertaForSequenceClassification"],
            "type_vocab_size": 1,
            "pad_token_id": 1,
            **one_label,
        },
        "bert": {
            "model_type": "bert",
            "architectures": ["BertForSequenceClassification"],
            "type_vocab_size": 2,
            "pad_token_id": 0,
            **one_label,
        },
        "llm": {"model_type": "gemma", "architectures": ["GemmaForCausalLM"], **gemma},
        "layerwise": {
            "model_type": "minicpm",
            "architectures": ["LayerWiseMiniCPMForCausalLM"],
            "num_key_value_heads": 4,
            "scale_emb": 12,
            "scale_depth": 1.4,
            "dim_model_base": hidden_size // 2,
            "rope_scaling": None,
            "start_layer": 2,
            "head_multi": True,
            "head_type": "simple",
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "lightweight": {
            "model_type": "cost_wise_gemma",
            "architectures": ["CostWiseGemmaForCausalLM"],
            **gemma,
            "query_pre_attn_scalar": 16,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "sliding_window": 64,
            "start_layer": 2,
            "layer_sep": 1,
            "layer_wise": True,
        },
    }[kind]


def _shapes(config: dict[str, Any], kind: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the network's tensors by name."""
    if kind in ("cross-encoder", "bert"):
        return _classifier_shapes(config)
    with needs_extra(f"a reranker of kind {kind!r}", "transformers", "transformers"):
        return {
            name: tuple(like.shape) for name, like in _decoder(config, kind).state_dict().items()
        }


def _classifier_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    is_bert, width = config["model_type"] == "bert", config["hidden_size"]
    prefix = "bert" if is_bert else "roberta"
    shapes = {f"{prefix}.{name}": shape for name, shape in encoder_tensors(config).items()}
    dense, output = ("classifier.dense", "classifier.out_proj")
    if is_bert:
        dense, output = ("bert.pooler.dense", "classifier")
    for name, outputs in ((dense, width), (output, 1)):
        shapes |= {f"{name}.weight": (outputs, width), f"{name}.bias": (outputs,)}
    return shapes


def _decoder(config: dict[str, Any], kind: str) -> torch.nn.Module:
    """The network, without content."""
    import torch
    from transformers import GemmaConfig, GemmaForCausalLM

    from m3_core.rerankers import LayerwiseMiniCPM, LightweightGemma2, gemma2_config, llama_config

    with torch.device("meta"):
        if kind == "layerwise":
            return LayerwiseMiniCPM(llama_config(config, "tiny"))
        if kind == "lightweight":
            return LightweightGemma2(gemma2_config(config, "tiny"))
        kept = {key: config[key] for key in config.keys() - {"model_type", "architectures"}}
        return GemmaForCausalLM(GemmaConfig(**kept))


def _write_bpe(folder: Path, specials: dict[str, str], *, prepend: bool) -> None:
    """A byte-pair tokenizer that marks spaces and falls back to bytes, as Gemma's and Llama's."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors

    characters = [
        "▁",
        "\n",
        *(chr(code) for code in range(0x21, 0x7F)),
        *"äöüßéñабвгдежзи中文是什么",
    ]
    pieces = [*specials.values(), *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    merges: list[tuple[str, str]] = []
    for word in ("Yes", "No", "A:", "B:", *WORDS.split()):
        for text in (f"▁{word}", word):
            merges += [(text[:i], text[i]) for i in range(1, len(text)) if text.isascii() or i]
    known = dict.fromkeys(pieces)
    kept = []
    for left, right in dict.fromkeys(merges):
        if left in known and right in known:
            known[left + right] = None
            kept.append((left, right))
    tokenizer = Tokenizer(
        models.BPE(
            {piece: i for i, piece in enumerate(known)},
            kept,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    steps: list[normalizers.Normalizer] = [normalizers.Prepend("▁")] if prepend else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(list(specials.values()))
    bos = specials["bos"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos}:1 $B:1",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name}_token": token for name, token in {"pad": specials["eos"], **specials}.items()}
    for file, more in (
        ("special_tokens_map.json", {}),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ):
        (folder / file).write_text(json.dumps(names | more, indent=2) + "\n", encoding="utf-8")

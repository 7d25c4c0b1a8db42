"""Record vectors of FlagEmbedding's decoders on random checkpoints.

Run by hand where FlagEmbedding 1.4.2 is installed beside this package's core, on a CPU::

    python -m tests.parity.record_decoders
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from m3_core.testing.rerankers import _SPECIALS, _write_bpe

STORED = Path(__file__).parent / "decoders.npz"
KINDS = ("gemma2", "mistral")
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "sliding_window": 16,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
TEXTS = [
    "what is a panda?",
    "The giant panda (Ailuropoda melanoleuca) is a bear.",
    "Die Stadt und der Fluss: 北京是什么 город река\n\nneue Zeile\ttab",
    "",
    "  spaces  at the ends ",
    "naïve ½ 😀 <bos> text <eos>",
    "the river of the city has more water in this year than all the world can model " * 4,
]
EXAMPLES = [
    {"instruct": "Find the river.", "query": "what is water", "response": "a river"},
    {"query": "город", "response": "река {}"},
]
# Class, constructor's keywords, method, call's keywords.
CASES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("FlagLLMModel", {}, "encode", {}),
    ("FlagLLMModel", {"normalize_embeddings": False}, "encode", {"max_length": 24}),
    ("FlagLLMModel", {"query_instruction_for_retrieval": "Find it."}, "encode_queries", {}),
    (
        "FlagLLMModel",
        {
            "query_instruction_for_retrieval": "Find it.",
            "query_instruction_format": "<instruct>{}\\n<query>{}",
            "passage_instruction_for_retrieval": "p: ",
            "truncate_dim": 8,
        },
        "encode_corpus",
        {"pad_to_multiple_of": 8},
    ),
    ("FlagICLModel", {}, "encode_queries", {}),
    ("FlagICLModel", {}, "encode_corpus", {"max_length": 24}),
    ("FlagICLModel", {"query_max_length": 40}, "encode_queries", {}),
    (
        "FlagICLModel",
        {"query_instruction_for_retrieval": "Find it.", "examples_for_task": EXAMPLES},
        "encode_queries",
        {"max_length": 64},
    ),
]


def write_checkpoint(folder: Path, kind: str) -> Path:
    """A decoder with random weights, whose tokenizer ends texts with ``<eos>``."""
    import torch
    from tokenizers import Tokenizer, processors
    from transformers import Gemma2Config, Gemma2Model, MistralConfig, MistralModel

    folder.mkdir(parents=True)
    _write_bpe(folder, _SPECIALS["llm"], prepend=False)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    marks = [(mark, tokenizer.token_to_id(mark)) for mark in ("<bos>", "<eos>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <eos> <bos>:1 $B:1 <eos>:1", special_tokens=marks
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes = {**SHAPE, "vocab_size": tokenizer.get_vocab_size()}
    with torch.random.fork_rng(devices=[]):
        network: Any = (
            Gemma2Model(Gemma2Config(**sizes, attn_logit_softcapping=5.0, query_pre_attn_scalar=16))
            if kind == "gemma2"
            else MistralModel(MistralConfig(**sizes))
        )
    generator = torch.Generator().manual_seed(KINDS.index(kind))
    with torch.no_grad():
        for name, tensor in sorted(network.state_dict().items()):
            noise = torch.randn(tensor.shape, generator=generator)
            if "norm" in name:
                tensor.copy_(0.1 * noise + (0.0 if kind == "gemma2" else 1.0))
            else:
                tensor.copy_(noise * (0.5 if "embed" in name else 1.5 * 32**-0.5))
    network.save_pretrained(folder)
    return folder


def vectors(module: Any, folder: Path, case: int) -> np.ndarray[Any, Any]:
    """What the classes of a module give."""
    name, options, method, call = CASES[case]
    model = getattr(module, name)(str(folder), use_fp16=False, devices="cpu", **options)
    found: np.ndarray[Any, Any] = getattr(model, method)(TEXTS, **call)
    return found


def record() -> None:
    module = importlib.import_module("FlagEmbedding")
    stored = {}
    with tempfile.TemporaryDirectory() as parent:
        for kind in KINDS:
            folder = write_checkpoint(Path(parent) / kind, kind)
            for case in range(len(CASES)):
                stored[f"{kind}-{case}"] = vectors(module, folder, case).astype(np.float32)
    np.savez_compressed(STORED, **stored)


if __name__ == "__main__":
    record()

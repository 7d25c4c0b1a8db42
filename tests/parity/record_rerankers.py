"""Record what FlagEmbedding's rerankers give on random checkpoints, ids and scores.

Run by hand; the tests read what it wrote. Two steps, since FlagEmbedding's decoders need
transformers 4.46.0 and the checkpoints are written with transformers 5:

    python tests/parity/record_rerankers.py checkpoints FOLDER    # with this package
    python tests/parity/record_rerankers.py scores FOLDER         # with FlagEmbedding 1.4.2,
                                                                  # transformers 4.46.0
"""

from __future__ import annotations

import importlib
import json
import lzma
import sys
from pathlib import Path

KINDS = ("cross-encoder", "bert", "llm", "layerwise", "lightweight")
STORED = Path(__file__).parent.parent / "data" / "rerankers.json"

_LONG = "the river of the city has more water in this year than all the world can model "
PAIRS = [
    ("what is panda?", "hi"),
    ("what is panda?", "The giant panda (Ailuropoda melanoleuca) is a bear."),
    ("was ist eine Stadt", "Die Stadt und der Fluss: 北京是什么 город река\n\nneue Zeile\ttab"),
    ("", ""),
    ("what is a panda", ""),
    ("", "a bear"),
    ("  spaces  ", " before and  behind "),
    ("<unk> odd </s> marks ▁", "naïve ½ 😀 text <s>"),
    (_LONG * 40, "a short document"),
    (_LONG * 40, _LONG * 40),
    ("how many people", _LONG * 40),
    *(("what is a river", " ".join(["water"] * count)) for count in range(32, 52)),
]
SHORT = {"max_length": 48}
SETTINGS: dict[str, list[dict[str, object]]] = {
    "cross-encoder": [
        {},
        SHORT,
        {**SHORT, "query_max_length": 10},
        {**SHORT, "query_instruction": "query: ", "document_instruction": "passage: "},
    ],
    "bert": [{}, SHORT],
    "llm": [
        {},
        SHORT,
        {**SHORT, "query_max_length": 10, "prompt": "Are these about one thing? Say 'Yes'."},
        {**SHORT, "query_instruction": "query: ", "document_instruction": ""},
    ],
    "layerwise": [
        {},
        SHORT,
        {**SHORT, "cutoff_layers": [2]},
        {**SHORT, "cutoff_layers": [2, 3, 4]},
    ],
    "lightweight": [
        {},
        SHORT,
        {**SHORT, "cutoff_layers": [3], "compress_layers": [1, 2], "compress_ratio": 2},
        {**SHORT, "cutoff_layers": [2, 4], "compress_layers": [3], "compress_ratio": 4},
        {"max_length": 160, "compress_layers": [0, 1], "compress_ratio": 8},
    ],
}
_CLASSES = {
    "cross-encoder": ("FlagReranker", "encoder_only.base"),
    "bert": ("FlagReranker", "encoder_only.base"),
    "llm": ("FlagLLMReranker", "decoder_only.base"),
    "layerwise": ("LayerWiseFlagLLMReranker", "decoder_only.layerwise"),
    "lightweight": ("LightWeightFlagLLMReranker", "decoder_only.lightweight"),
}
_NAMES = {
    "query_instruction": "query_instruction_for_rerank",
    "document_instruction": "passage_instruction_for_rerank",
}


# With bge-m3's own tokenizer, which bge-reranker-v2-m3 has too.
REAL_PAIRS = [
    *PAIRS,
    ("Wie heißt der Fluss?", "Der Fluss heißt Weser.  Zwei Leerzeichen, ½ und ﬁn."),
    ("这条河叫什么？", "这条河叫长江，全长六千三百公里。" * 8),
    ("كم عدد السكان", "हिन्दी पाठ परीक्षण के लिए " * 12),
    ("𠀀 unknown 🫠", "<s> </s> <mask> \u200b zero\nwidth\ttab " * 6),
]


def real_tokenizer(folder: Path) -> Path:
    target = folder / "real-tokenizer"
    target.mkdir(parents=True, exist_ok=True)
    packed = STORED.parent / "bge-m3-tokenizer.json.xz"
    (target / "tokenizer.json").write_bytes(lzma.decompress(packed.read_bytes()))
    names = (STORED.parent / "bge-m3-special_tokens_map.json").read_bytes()
    (target / "special_tokens_map.json").write_bytes(names)
    config = {"tokenizer_class": "XLMRobertaTokenizer"}
    (target / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return target


def record_real_ids(folder: Path) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_tokenizer(folder))
    limit = SHORT["max_length"]
    found = []
    for query, document in REAL_PAIRS:
        ids = [
            tokenizer(text, add_special_tokens=False, max_length=length, truncation=True).input_ids
            for text, length in ((query, limit * 3 // 4), (document, limit))
        ]
        joined = tokenizer.prepare_for_model(*ids, truncation="only_second", max_length=limit)
        found.append(joined["input_ids"])
    return found


def write_checkpoints(folder: Path) -> None:
    from m3_core.testing.rerankers import tiny_reranker

    for kind in KINDS:
        tiny_reranker(folder / kind, kind=kind)


def record(folder: Path) -> None:
    stored = {}
    for kind in KINDS:
        name, module_name = _CLASSES[kind]
        module = importlib.import_module(f"FlagEmbedding.inference.reranker.{module_name}")
        # Layerwise and lightweight collate with what they imported from base.
        base = importlib.import_module("FlagEmbedding.inference.reranker.decoder_only.base")
        seen = []
        for where in {m for m in (module, base) if hasattr(m, "pad_with_compat")}:
            where.pad_with_compat = _spy(where.pad_with_compat, seen)
        reranker_class = getattr(importlib.import_module("FlagEmbedding"), name)
        stored[kind] = []
        for setting in SETTINGS[kind]:
            given = {_NAMES.get(key, key): value for key, value in setting.items()}
            reranker = reranker_class(str(folder / kind), devices="cpu", **given)
            scores = reranker.compute_score(PAIRS)
            ids = []
            for pair in PAIRS:
                reranker.compute_score([pair])
                ids.append(list(seen[-1][0]["input_ids"]))
            stored[kind].append({"setting": setting, "scores": scores, "ids": ids})
    stored["real-tokenizer"] = record_real_ids(folder)
    STORED.write_text(json.dumps(stored, separators=(",", ":")) + "\n", encoding="utf-8")


def _spy(pad, seen):
    def spied(tokenizer, encoded, **options):
        seen.append(encoded)
        return pad(tokenizer, encoded, **options)

    return spied


if __name__ == "__main__":
    step, target = sys.argv[1:]
    {"checkpoints": write_checkpoints, "scores": record}[step](Path(target))

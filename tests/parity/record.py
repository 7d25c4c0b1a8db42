"""Record what FlagEmbedding computes on seeded random checkpoints.

Run by hand where FlagEmbedding 1.4.2 is installed beside this package, on a CPU::

    python tests/parity/record.py

It writes ``flagembedding.json`` and ``flagembedding.npz`` beside itself. The checkpoints are not
stored: ``m3_core.testing.tiny_checkpoint`` writes them again from their seeds, and a summary of
their tensors tells whether torch's generator still gives the same weights.

The tokenizer that transformers 5 builds for FlagEmbedding differs from ``tokenizer.json`` in some
texts; only texts on which both agree are recorded, and the script stops at others.
"""

from __future__ import annotations

import json
import random
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
MOST_ROWS = 48
WEIGHTS = ([1.0, 1.0, 1.0], [0.4, 0.2, 0.4], [1.0, 0.3, 1.0], [0.2, 0.5, 0.0])

# name -> arguments of tiny_checkpoint. Not every seed will do: with some the random sparse head
# gives no token a weight above 0.
CHECKPOINTS = {
    "m3-cls": {"kind": "m3", "seed": 2, "pooling": "cls"},
    "m3-mean": {"kind": "m3", "seed": 8, "pooling": "mean"},
    "bge-cls": {"kind": "bge", "seed": 13, "pooling": "cls"},
    "bge-mean": {"kind": "bge", "seed": 14, "pooling": "mean"},
}

# Words that are one token each; long texts are drawn from them.
FREQUENT = (
    "the of and to in is was for that with on as are by this be from at which not have an they has "
    "one what how who where when why does it or but all can more about time year city river world "
    "people water first new model search query document vector token text language hello panda "
    "bear retrieval dense sparse embedding multi lexical der die das und ist ein eine mit auf wie"
)
WORDS = FREQUENT.split()
SHORT_TEXTS = (
    "",
    "a",
    "panda",
    "panda panda panda the panda",
    "What is dense retrieval, and how does it search?",
    "Hello, world! Hello; world? (hello: world)",
    "numbers 3.14159 and 1,000,000",
    "der Fluss und die Stadt, wie ein Jahr für ein Jahr",
    "¿Quién y dónde? El río de la ciudad, un año en España.",
    "это город и река, как мир в год",
    "模型检索文档",
    "これはテキストです",
    "नमस्ते दुनिया",
    "שלום עולם",
    "مرحبا بالعالم",
    "สวัสดีชาวโลก",
    "mixed 中文 English русский text",
)
WORD_COUNTS = {"m3": (1, 61, 62, 254, 510, 511, 1500, 4094, 8190), "bge": (1, 61, 62, 254, 510)}
# Texts of more tokens are recorded once more, cut to so many.
CUT = 64
# Pairs by number of text: short and long, queries with documents.
PAIRS = ((4, 5), (2, 3), (3, 3), (0, 5), (5, 0), (4, 20), (8, 16), (9, 19), (4, 23), (22, 4))


def texts_of(kind: str) -> list[str]:
    """Texts to encode with a checkpoint of a kind."""
    drawn = [" ".join(random.Random(count).choices(WORDS, k=count)) for count in WORD_COUNTS[kind]]
    return [*SHORT_TEXTS, *drawn]


def kept_rows(num_rows: int) -> np.ndarray:
    """Rows of a text's multi-vectors that are stored: all, or some and always the last."""
    if num_rows <= MOST_ROWS:
        return np.arange(num_rows)
    return np.unique(np.linspace(0, num_rows - 1, MOST_ROWS).astype(int))


def summary(folder: Path) -> dict[str, list[float]]:
    """Sum, sum of squares, first and last value of every tensor of a checkpoint."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    for head in sorted(folder.glob("*_linear.pt")):
        state = torch.load(head, weights_only=True)
        tensors |= {f"{head.stem}.{name}": tensor for name, tensor in state.items()}
    found = {}
    for name, tensor in sorted(tensors.items()):
        values = tensor.double().flatten()
        numbers = (values.sum(), values.square().sum(), values[0], values[-1])
        found[name] = [round(float(number), 7) for number in numbers]
    return found


def checked_ids(model, folder: Path, texts: list[str], max_length: int) -> list[list[int]]:
    """Token ids that FlagEmbedding uses; stops where ``tokenizer.json`` gives others."""
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = model.tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    for text, row in zip(texts, rows, strict=True):
        own = raw.encode(text).ids
        if own != list(row):
            raise SystemExit(f"{text[:60]!r}: tokenizer.json gives {own[:20]}, it gives {row[:20]}")
    return [list(row) for row in rows]


def record_m3(folder: Path, options: dict, arrays: dict, name: str) -> dict:
    """Record dense vectors, lexical weights, multi-vectors and scores."""
    from FlagEmbedding import BGEM3FlagModel

    model = BGEM3FlagModel(
        str(folder), use_fp16=False, devices="cpu", pooling_method=options["pooling"]
    )
    texts = texts_of("m3")
    ids = checked_ids(model, folder, texts, 8192)
    found = model.encode(
        texts,
        batch_size=1,
        max_length=8192,
        return_dense=True,
        return_sparse=True,
        return_colbert_vecs=True,
    )
    lexical = found["lexical_weights"]
    colbert = found["colbert_vecs"]
    arrays[f"{name}/dense"] = found["dense_vecs"]
    arrays[f"{name}/token_ids"] = np.array([int(k) for row in lexical for k in row], np.int32)
    arrays[f"{name}/weights"] = np.array([w for row in lexical for w in row.values()], np.float32)
    arrays[f"{name}/weight_counts"] = np.array([len(row) for row in lexical])
    arrays[f"{name}/colbert"] = np.concatenate([v[kept_rows(len(v))] for v in colbert])
    longer = [text for text, row in zip(texts, ids, strict=True) if len(row) > CUT]
    arrays[f"{name}/cut"] = model.encode(longer, batch_size=1, max_length=CUT)["dense_vecs"]
    scores = [
        model.compute_score(
            [(texts[a], texts[b]) for a, b in PAIRS],
            batch_size=1,
            max_query_length=8192,
            max_passage_length=8192,
            weights_for_different_modes=list(weights),
        )
        for weights in WEIGHTS
    ]
    return {"lengths": [len(row) for row in ids], "scores": scores} | digest(ids)


def record_bge(folder: Path, options: dict, arrays: dict, name: str) -> dict:
    """Record the dense vectors of queries with an instruction and of documents without."""
    from FlagEmbedding import FlagModel

    model = FlagModel(
        str(folder),
        use_fp16=False,
        devices="cpu",
        pooling_method=options["pooling"],
        query_instruction_for_retrieval="search the text: ",
    )
    texts = texts_of("bge")
    ids = checked_ids(model, folder, texts, 512)
    queries = [i for i, row in enumerate(ids) if len(row) < 500]
    arrays[f"{name}/dense"] = model.encode_corpus(texts, batch_size=1)
    arrays[f"{name}/queries"] = model.encode_queries([texts[i] for i in queries], batch_size=1)
    longer = [text for text, row in zip(texts, ids, strict=True) if len(row) > CUT]
    arrays[f"{name}/cut"] = model.encode(longer, batch_size=1, max_length=CUT)
    return {"lengths": [len(row) for row in ids], "queries": queries} | digest(ids)


def digest(ids: list[list[int]]) -> dict:
    """A checksum of token ids, by which a change of the tokenizer is seen."""
    import zlib

    return {"ids_crc32": [zlib.crc32(np.array(row, "<i4").tobytes()) for row in ids]}


def main() -> None:
    """Write the two files."""
    arrays: dict[str, np.ndarray] = {}
    meta: dict = {
        "versions": {p: version(p) for p in ("FlagEmbedding", "transformers", "torch")},
        "checkpoints": {},
    }
    from m3_core.testing import tiny_checkpoint

    for name, options in CHECKPOINTS.items():
        with tempfile.TemporaryDirectory() as path:
            folder = tiny_checkpoint(path, **options)
            record = record_m3 if options["kind"] == "m3" else record_bge
            entry = record(folder, options, arrays, name)
            meta["checkpoints"][name] = entry | {"tensors": summary(folder)}
    text = json.dumps(meta, ensure_ascii=False)
    (HERE / "flagembedding.json").write_text(text + "\n", encoding="utf-8")
    np.savez_compressed(HERE / "flagembedding.npz", **arrays)


if __name__ == "__main__":
    main()

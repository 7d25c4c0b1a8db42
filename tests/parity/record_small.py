"""Record what FlagEmbedding and sentence-transformers compute with m3-small's exported folder.

Needs FlagEmbedding 1.4.2 and sentence-transformers beside this package; run it when m3-small
changes::

    python tests/parity/record_small.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from m3_core.cli.main import main as command

HERE = Path(__file__).parent
TEXTS = [
    "What do pandas eat?",
    "The giant panda lives in bamboo forests, of which 1,864 pandas were counted in 2014.",
    "Der Fluss fließt durch die Stadt, die der Krieg zerstörte.",
    "¿Cuántas ciudades tiene el país?",
    "大熊猫主要以竹子为食。",
    "Почему небо голубое?",
    "दुनिया का सबसे ऊँचा पर्वत कौन सा है?",
    "أين تقع أكبر مكتبة في العالم؟",
    "ภาษาไทย, ქართული და հայերեն 鱻",
]
# FlagEmbedding has no list of prompts: it gets the prefixes as part of the text.
PROMPTS = {"query": "query: ", "document": "passage: "}


def main() -> None:
    """Write ``small.npz`` and ``small.json`` beside this file."""
    from FlagEmbedding import BGEM3FlagModel
    from sentence_transformers import SentenceTransformer

    arrays: dict[str, np.ndarray] = {}
    weights: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            command(["export", "m3-small", folder + "/plain"])
        except SystemExit as ended:
            if ended.code:
                raise
        theirs = BGEM3FlagModel(
            folder + "/plain", use_fp16=False, devices="cpu", pooling_method="mean"
        )
        plain = SentenceTransformer(folder + "/plain", device="cpu")
        for role, prompt in PROMPTS.items():
            found = theirs.encode(
                [prompt + text for text in TEXTS],
                max_length=512,
                return_sparse=True,
                return_colbert_vecs=True,
            )
            arrays[f"{role}.dense"] = found["dense_vecs"]
            # All tokens of one text, and the first two of the others, which say as much.
            for i, vectors in enumerate(found["colbert_vecs"]):
                arrays[f"{role}.colbert.{i}"] = vectors if i == 1 else vectors[:2]
            weights[role] = [
                {token: float(weight) for token, weight in one.items()}
                for one in found["lexical_weights"]
            ]
            arrays[f"{role}.sentence_transformers"] = plain.encode(
                TEXTS, prompt_name=role, normalize_embeddings=True
            )
    np.savez_compressed(HERE / "small.npz", **arrays)
    (HERE / "small.json").write_text(json.dumps(weights, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

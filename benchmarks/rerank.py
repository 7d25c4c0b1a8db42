"""Reranking against FlagEmbedding and sentence-transformers, in one process, in turn.

    python benchmarks/rerank.py --tokenizer FOLDER [--device cuda] [--shape large]

One query with 100 documents of mixed length. Every contender gets the same random reranker of
XLM-R's shape with bge-m3's tokenizer. Rounds alternate between the contenders, the first warms up;
figures are ratios to FlagReranker of medians. Contenders that are not installed are left out. On a
busy machine use ``OMP_NUM_THREADS=1`` and ``--cpu-time``; ``--layers 2`` measures a part of the
network, whose layers all cost the same.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from shapes import SHAPES, sample_texts
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

from m3_core import Reranker

Pairs = list[tuple[str, str]]
Call = Callable[[Pairs], list[float]]


def write_reranker(folder: Path, shape: str, tokenizer: Path, layers: int | None) -> Path:
    """Write a random reranker of XLM-R's base or large shape with a real tokenizer."""
    sizes = SHAPES[shape] | ({"num_hidden_layers": layers} if layers else {})
    config = XLMRobertaConfig(
        **sizes,
        vocab_size=250002,
        intermediate_size=4 * SHAPES[shape]["hidden_size"],
        max_position_embeddings=8194,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        layer_norm_eps=1e-5,
        num_labels=1,
    )
    torch.manual_seed(0)
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    for name in ("tokenizer.json", "special_tokens_map.json"):
        shutil.copy(tokenizer / name, folder / name)
    kind = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 8192}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    return folder


def contenders(folder: Path, args: argparse.Namespace) -> dict[str, Call]:
    found: dict[str, Call] = {}
    half = args.peer_dtype == "float16"
    try:
        from FlagEmbedding import FlagReranker
    except ImportError:
        pass
    else:
        flag = FlagReranker(str(folder), use_fp16=half, devices=args.device)
        found["FlagReranker"] = flag.compute_score
    try:
        from sentence_transformers import CrossEncoder
    except ImportError:
        pass
    else:
        dtype = {"dtype": getattr(torch, args.peer_dtype)}
        cross = CrossEncoder(
            str(folder), device=args.device, max_length=512, model_kwargs=dtype, num_labels=1
        )
        linear = torch.nn.Identity()
        found["CrossEncoder"] = lambda pairs: cross.predict(pairs, activation_fn=linear).tolist()
    for dtype in args.dtypes:
        ours = Reranker.from_pretrained(folder, device=args.device, dtype=dtype)
        name = str(ours.dtype)[6:]
        found[f"m3 {dtype}" if name == dtype else f"m3 {dtype} ({name})"] = ours.compute_score
    return found


def in_turn(
    calls: dict[str, Call], pairs: Pairs, args: argparse.Namespace
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Scores and median seconds of each contender, taking turns after one warm-up round."""
    clock = time.process_time if args.cpu_time else time.perf_counter
    scores: dict[str, torch.Tensor] = {}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(args.rounds + 1):
        for name, call in calls.items():
            start = clock()
            with contextlib.redirect_stderr(io.StringIO()):
                scores[name] = torch.tensor(call(pairs))
            if number:
                taken[name].append(clock() - start)
    return scores, {name: statistics.median(seconds) for name, seconds in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "auto"], help="ours")
    parser.add_argument("--peer-dtype", default="float32", help="the peers'")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, help="fewer than the shape's")
    parser.add_argument("--cpu-time", action="store_true", help="of the process, not the clock's")
    parser.add_argument("--documents", type=int, default=100)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    (query,) = sample_texts(args.tokenizer, 12, 0.1, 1, 4)
    documents = sample_texts(args.tokenizer, 120, 0.8, args.documents, 7)
    # Stripped: the tokenizer that transformers 5 rebuilds drops a space at the end.
    pairs = [(query, document.strip()) for document in documents]
    device = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor()
    facts = {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({**facts, "shape": args.shape, "peers": args.peer_dtype}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        written = write_reranker(Path(folder), args.shape, args.tokenizer, args.layers)
        calls = contenders(written, args)
        scores, times = in_turn(calls, pairs, args)
        reference = next(iter(scores))
        for name, taken in times.items():
            apart = (scores[name] - scores[reference]).abs().max()
            print(
                f"  {name:24} {times[reference] / taken:6.2f} x  {len(pairs) / taken:8.1f} pairs/s"
                f"  scores within {apart:.0e} of {reference}'s"
            )


if __name__ == "__main__":
    main()

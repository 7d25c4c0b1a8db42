"""Encoding against FlagEmbedding and sentence-transformers, in one process, in turn.

    python benchmarks/encode.py --tokenizer FOLDER [--device cuda] [--shape large] [--dtype float16]

Every contender gets the same random checkpoint of XLM-R's shape with bge-m3's tokenizer and the
same texts. Rounds alternate between the contenders; figures are medians of the rounds, given as
ratios to FlagEmbedding. Contenders that are not installed are left out. The matrix-product ceiling
is measured in the same process.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from shapes import SHAPES, sample_texts, write_checkpoint

from m3_core import Encoder

Call = Callable[[list[str], bool], object]


def seconds(call: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(
    calls: dict[str, Callable[[list[str]], object]], texts: list[str], rounds: int, device: str
) -> dict[str, float]:
    """Median seconds of each call, the calls taking turns after a warm-up on few texts."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            # On a GPU kernels are chosen and memory is taken for the full size.
            chosen = texts if number or device == "cuda" else texts[:4]
            with contextlib.redirect_stderr(io.StringIO()):
                taken = seconds(lambda call=call, chosen=chosen: call(chosen), device)
            if number:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def ceiling(shape: str, dtype: torch.dtype, device: str, tokens: int = 2048) -> float:
    """Matrix-product operations a second that this machine reaches in the network's shape."""
    width = SHAPES[shape]["hidden_size"]
    left = torch.randn(tokens, width, device=device).to(dtype)
    right = torch.randn(4 * width, width, device=device).to(dtype)
    best = min(
        seconds(lambda: [torch.nn.functional.linear(left, right) for _ in range(5)], device)
        for _ in range(8)
    )
    return 5 * 2 * tokens * width * 4 * width / best


def operations(shape: str, lengths: list[int]) -> float:
    """Matrix-product operations of one pass over texts of these lengths."""
    width, layers = SHAPES[shape]["hidden_size"], SHAPES[shape]["num_hidden_layers"]
    each = sum(24 * width * width * n + 4 * n * n * width for n in lengths)
    return layers * each + sum(2 * width * width * n for n in lengths)


def flag_embedding(
    folder: Path, device: str, dtype: str, limit: int, batch_size: int
) -> tuple[Call, Call] | None:
    try:
        from FlagEmbedding import BGEM3FlagModel
    except ImportError:
        return None
    model = BGEM3FlagModel(
        str(folder),
        use_fp16=dtype == "float16",
        use_bf16=dtype == "bfloat16",
        devices=device,
        batch_size=batch_size,
        query_max_length=limit,
        passage_max_length=limit,
    )

    def encode(texts: list[str], heads: bool) -> object:
        return model.encode(texts, return_sparse=heads, return_colbert_vecs=heads)

    def score(texts: list[str], _: bool) -> object:
        return model.compute_score([(texts[0], text) for text in texts[1:]])

    return encode, score


def sentence_transformers(folder: Path, device: str, dtype: str) -> Call | None:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return None
    model = SentenceTransformer(
        str(folder), device=device, model_kwargs={"dtype": getattr(torch, dtype)}
    )
    return lambda texts, _: model.encode(texts, batch_size=32)


def ours(folder: Path, device: str, dtype: str, limit: int) -> tuple[Call, Call]:
    encoder = Encoder.from_pretrained(folder, device=device, dtype=dtype, max_length=limit)

    def encode(texts: list[str], heads: bool) -> object:
        return encoder.encode_documents(texts, return_sparse=heads, return_colbert_vecs=heads)

    def score(texts: list[str], _: bool) -> object:
        return encoder.compute_score([(texts[0], text) for text in texts[1:]])

    return encode, score


def report(
    folder: Path, texts: dict[str, list[str]], args: argparse.Namespace, dtypes: list[str]
) -> None:
    device = args.device
    encoders: dict[str, Call] = {}
    scorers: dict[str, Call] = {}
    peers = flag_embedding(folder, device, args.peer_dtype, args.max_length, args.peer_batch_size)
    if peers:
        encoders["FlagEmbedding"], scorers["FlagEmbedding"] = peers
    other = sentence_transformers(folder, device, args.peer_dtype)
    if other:
        encoders["sentence-transformers (dense)"] = other
    for dtype in dtypes:
        encoders[f"m3 {dtype}"], scorers[f"m3 {dtype}"] = ours(
            folder, device, dtype, args.max_length
        )
    counter = Encoder.from_pretrained(folder, device="cpu", dtype="float32").model.tokenizer
    for name, chosen in texts.items():
        scoring = name == "compute_score"
        lengths = counter.encode(chosen, args.max_length).lengths.tolist()
        calls = {
            who: (lambda given, call=call: call(given, True))
            for who, call in (scorers if scoring else encoders).items()
        }
        if not scoring:
            calls |= {
                f"{who}, dense only": (lambda given, call=call: call(given, False))
                for who, call in encoders.items()
                if who.startswith("m3")
            }
        times = in_turn(calls, chosen, args.rounds, device)
        base = times.get("FlagEmbedding", next(iter(times.values())))
        mean = sum(lengths) / len(lengths)
        print(f"\n{name}: {len(chosen)} texts, mean {mean:.0f} tokens", flush=True)
        for who, taken in times.items():
            line = f"  {who:34} {base / taken:6.2f} x  {sum(lengths) / taken:10.0f} tokens/s"
            dtype = getattr(torch, who.split()[1].rstrip(","), None) if who[:2] == "m3" else None
            # Of int8 torch has no product whose speed would be a ceiling.
            if dtype is not None and dtype.is_floating_point and not scoring:
                rate = operations(args.shape, lengths) / taken
                top = ceiling(args.shape, dtype, device, 2048 if device == "cpu" else 16384)
                line += f"  {rate / top:5.2f} of the {top / 1e9:.0f} GFLOP/s ceiling"
            print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32"], help="ours: float32, auto, int8, …"
    )
    parser.add_argument("--peer-dtype", default="float32", help="the peers'")
    parser.add_argument("--peer-batch-size", type=int, default=256, help="FlagEmbedding's own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="times as many texts")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--only", nargs="+")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sample = {
        "paragraphs": sample_texts(args.tokenizer, 91, 0.5, int(192 * args.scale), 1),
        "mix": sample_texts(args.tokenizer, 120, 0.5, int(24 * args.scale), 2)
        + sample_texts(args.tokenizer, 12, 0.4, int(120 * args.scale), 3),
        "compute_score": sample_texts(args.tokenizer, 12, 0.1, 1, 4)
        + sample_texts(args.tokenizer, 91, 0.5, 32, 5),
    }
    if args.device == "cuda":
        sample["long"] = sample_texts(args.tokenizer, 400, 0.3, int(96 * args.scale), 6)
    texts = {name: chosen for name, chosen in sample.items() if name in (args.only or sample)}
    name = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor()
    facts = {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({**facts, "shape": args.shape, "peers": args.peer_dtype}))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(Path(folder), args.shape, args.tokenizer)
        report(checkpoint, texts, args, args.dtypes)
        gc.collect()


if __name__ == "__main__":
    main()

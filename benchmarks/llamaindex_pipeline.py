"""Embedding nodes in LlamaIndex's ``IngestionPipeline`` against the core alone, in turn.

    python benchmarks/llamaindex_pipeline.py [--model FOLDER] [--nodes 1000] [--cpu-time]

Figures are throughputs as ratios to ``Encoder.encode_documents(...).dense_lists()``, medians of the
rounds; the first warms up. The smaller the network, the more what the framework does shows, so
without ``--model`` it is a random one of two narrow layers. ``HuggingFaceEmbedding`` takes part
where it is installed. On a busy machine use ``OMP_NUM_THREADS=1`` and ``--cpu-time``.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from shapes import sample_texts

from llamaindex_m3 import M3Embedding
from m3_core import Encoder
from m3_core.network import locate
from m3_core.testing import tiny_checkpoint

Call = Callable[[list[str]], object]


def contenders(encoder: Encoder, folder: str, device: str) -> dict[str, Call]:
    def ingest(embedding: object, *, in_loop: bool = False) -> Call:
        def run(texts: list[str]) -> object:
            nodes = [TextNode(text=text) for text in texts]
            pipeline = IngestionPipeline(transformations=[embedding], disable_cache=True)
            return asyncio.run(pipeline.arun(nodes=nodes)) if in_loop else pipeline.run(nodes=nodes)

        return run

    ours = M3Embedding(encoder=encoder)
    found: dict[str, Call] = {
        "core": lambda texts: encoder.encode_documents(texts).dense_lists(),
        "pipeline": ingest(ours),
        "pipeline, async": ingest(ours, in_loop=True),
        "pipeline, batches of 10": ingest(M3Embedding(encoder=encoder, embed_batch_size=10)),
    }
    try:
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding
    except ImportError:
        return found
    found["HuggingFaceEmbedding"] = ingest(HuggingFaceEmbedding(folder, device=device))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="default: m3_core.testing.tiny_checkpoint")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true")
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    made = tempfile.TemporaryDirectory()
    folder = locate(args.model) if args.model else tiny_checkpoint(Path(made.name) / "tiny")
    encoder = Encoder.from_pretrained(folder, device=args.device, dtype=args.dtype)
    texts = sample_texts(folder, args.tokens, 0.6, args.nodes, seed=0)
    calls = contenders(encoder, str(folder), args.device)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for step in range(args.rounds + 1):
        for turn, (name, call) in enumerate(calls.items()):
            # Other texts of the same lengths, since recent encodings are remembered.
            own = [f"{step}{turn} {text}" for text in texts]
            started = clock()
            call(own)
            if step:
                seconds[name].append(clock() - started)
    print(f"{args.nodes} nodes of {args.tokens} tokens on average, {folder.name}, {args.dtype}")
    print(f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads")
    for name, times in seconds.items():
        ratios = [core / own for core, own in zip(seconds["core"], times, strict=True)]
        rate = args.nodes / statistics.median(times)
        print(f"{name:24} {statistics.median(ratios):.3f} x   {rate:.0f} nodes/s   {ratios}")


if __name__ == "__main__":
    main()

"""What the teacher says: hidden states of pieces in texts, of pieces alone, and dense vectors.

    python teacher.py --teacher m3-e5 --vocabulary vocab36k --work material --seconds 300

Writes teacher.npz into the work folder, and the texts that were encoded. Float32 on one thread
encodes about 1,600 tokens a second; each of the two passes ends after the given time.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
from pathlib import Path

import numpy as np
import torch
from common import read_records, read_vocabulary
from tokenizers import Tokenizer
from vocabulary import CORE

log = logging.getLogger("teacher")
DENSE_CHARACTERS = ("zh", "ja")


def choose_texts(path: Path, draw: random.Random) -> list[str]:
    """Short texts, English most, the core languages next, all sources of a language alike."""
    groups: dict[tuple[str, str], list[str]] = {}
    for record in read_records(path):
        size = len(record["text"]) * (2.4 if record["lang"] in DENSE_CHARACTERS else 1)
        if 25 <= size <= 260:
            groups.setdefault((record["lang"], record["source"]), []).append(record["text"])
    chosen: list[str] = []
    for lang in sorted({lang for lang, _ in groups}):
        wanted = 9000 if lang == "en" else 6500 if lang in CORE else 700
        own = [group for (other, _), group in groups.items() if other == lang]
        level = wanted // len(own) + 1
        most = max(map(len, own))
        while sum(min(len(group), level) for group in own) < wanted and level < most:
            level = int(level * 1.3) + 1
        for group in own:
            draw.shuffle(group)
            chosen += group[:level]
    draw.shuffle(chosen)
    return chosen


def stands_alone(piece: str) -> bool:
    """Whether a piece means something without its neighbours."""
    is_hangul = "\uac00" <= piece[:1] <= "\ud7af"
    return (
        (piece.startswith("▁") and len(piece) > 3)
        or (piece[:1] > "\u0900" and not is_hangul)
        or len(piece) > 5
    )


@torch.inference_mode()
def encode_texts(
    network: torch.nn.Module, tokenizer: Tokenizer, texts: list[str], seconds: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dense vectors while there is time; sums of hidden states and counts by id."""
    size, width = tokenizer.get_vocab_size(), network.config.hidden_size
    sums, counts = torch.zeros(size, width), torch.zeros(size)
    dense: list[torch.Tensor] = []
    start = time.monotonic()
    for at in range(0, len(texts), 512):
        rows = [tokenizer.encode("passage: " + text).ids[:192] for text in texts[at : at + 512]]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        made = torch.zeros(len(rows), width)
        for first in range(0, len(order), 32):
            batch = order[first : first + 32]
            ids = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(rows[i]) for i in batch], batch_first=True, padding_value=1
            )
            mask = ids != 1
            hidden = network(ids, attention_mask=mask.long())[0]
            mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
            made[batch] = torch.nn.functional.normalize(mean, dim=-1)
            sums.index_add_(0, ids[mask], hidden[mask])
            counts.index_add_(0, ids[mask], torch.ones(int(mask.sum())))
        dense.append(made)
        log.info("%d texts, %.0f s", at + len(rows), time.monotonic() - start)
        if time.monotonic() - start > seconds:
            break
    return torch.cat(dense).numpy(), sums.numpy(), counts.numpy()


@torch.inference_mode()
def encode_pieces(
    network: torch.nn.Module, ids: np.ndarray, seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean hidden states of pieces alone, and of which of them there was time for."""
    vectors = np.zeros((len(ids), network.config.hidden_size), np.float32)
    done = np.zeros(len(ids), bool)
    start = time.monotonic()
    for at in range(0, len(ids), 512):
        middle = torch.from_numpy(ids[at : at + 512])
        first, last = torch.zeros_like(middle), torch.full_like(middle, 2)
        vectors[at : at + 512] = network(torch.stack([first, middle, last], 1))[0].mean(1).numpy()
        done[at : at + 512] = True
        if time.monotonic() - start > seconds:
            break
    return vectors, done


def main() -> None:
    """Run both passes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", type=Path, required=True, help="multilingual-e5-small")
    parser.add_argument("--vocabulary", type=Path, required=True, help="of vocabulary.py")
    parser.add_argument("--work", type=Path, required=True, help="folder with texts.jsonl.gz")
    parser.add_argument("--seconds", type=float, default=300.0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    from transformers import AutoModel

    network = AutoModel.from_pretrained(
        arguments.teacher, dtype=torch.float32, add_pooling_layer=False
    ).eval()
    wide = Tokenizer.from_file(str(arguments.teacher / "tokenizer.json"))
    tokenizer, kept = read_vocabulary(arguments.vocabulary)
    texts = choose_texts(arguments.work / "texts.jsonl.gz", random.Random(0))
    dense, sums, counts = encode_texts(network, wide, texts, arguments.seconds)
    pieces = [tokenizer.id_to_token(i) for i in range(len(kept))]
    wanted = np.array([i for i, piece in enumerate(pieces) if stands_alone(piece)])
    wanted = np.random.default_rng(0).permutation(wanted)
    vectors, done = encode_pieces(network, kept[wanted], arguments.seconds)
    alone = np.zeros((len(kept), dense.shape[1]), np.float32)
    alone[wanted[done]] = vectors[done]
    have = np.zeros(len(kept), bool)
    have[wanted[done]] = True
    rows = network.get_input_embeddings().weight.detach()[torch.from_numpy(kept)].numpy()
    np.savez(
        arguments.work / "teacher.npz",
        dense=dense,
        sums=sums[kept],
        counts=counts[kept],
        alone=alone,
        have=have,
        input=rows,
    )
    (arguments.work / "teacher_texts.json").write_text(
        json.dumps(texts[: len(dense)], ensure_ascii=False), encoding="utf-8"
    )


if __name__ == "__main__":
    main()

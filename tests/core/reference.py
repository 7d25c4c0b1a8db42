"""An independent reference: transformers' own padded forward and the definitions in plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModel


class Reference:
    def __init__(self, folder: Path, pooling: str) -> None:
        self.model = AutoModel.from_pretrained(
            folder, add_pooling_layer=False, attn_implementation="eager"
        ).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.pooling = pooling
        self.heads = {
            name: torch.load(folder / f"{name}_linear.pt", weights_only=True)
            for name in ("sparse", "colbert")
            if (folder / f"{name}_linear.pt").is_file()
        }

    @torch.inference_mode()
    def encode(
        self, texts: list[str], limit: int
    ) -> tuple[np.ndarray, list[dict[int, float]], list[np.ndarray]]:
        rows = [self.tokenizer.encode(text).ids for text in texts]
        rows = [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in rows]
        width = max(map(len, rows))
        pad = self.model.config.pad_token_id
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        dense, weights, colbert = [], [], []
        for row, state in zip(rows, states, strict=True):
            state = state[: len(row)]
            pooled = {"cls": state[0], "mean": state.mean(0), "last": state[-1]}[self.pooling]
            dense.append((pooled / pooled.norm()).numpy())
            if not self.heads:
                continue
            head = self.heads["sparse"]
            scores = (state @ head["weight"].T + head["bias"]).relu()[:, 0].tolist()
            best: dict[int, float] = {}
            for token, score in zip(row, scores, strict=True):
                if score > 0 and token not in (0, 1, 2, 3):
                    best[token] = max(score, best.get(token, 0.0))
            weights.append(best)
            head = self.heads["colbert"]
            vectors = state[1:] @ head["weight"].T + head["bias"]
            colbert.append((vectors / vectors.norm(dim=-1, keepdim=True)).numpy())
        return np.stack(dense), weights, colbert

"""Record FlagEmbedding's training losses and gradients on a small seeded checkpoint.

    PYTHONPATH=core python tests/parity/record_m3_loss.py    # FlagEmbedding 1.4.2 installed

The checkpoint is ``tiny_checkpoint(seed=7, pooling=...)`` without dropout; ids and masks of the
batch are stored, so that no tokenizer takes part.
"""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from FlagEmbedding.finetune.embedder.encoder_only.m3.modeling import EncoderOnlyEmbedderM3Model
from transformers import AutoModel

from m3_core.network.tokens import Tokenizer
from m3_core.testing import tiny_checkpoint

QUERIES = ["what is a panda bear", "hello world", "the city by the river", "новый мир"]
DOCUMENTS = [
    "the panda bear is a bear of china",
    "water in the river",
    "hello world, hello people of the world and everywhere",
    "der Fluss und die Stadt",
    "a city on the river: the first city",
    "time",
    "мир и новый год, он и город",
    "qué es una ciudad",
]
TEACHER = [0.9, 0.2, 0.7, 0.1, 0.8, 0.3, 0.6, 0.5]
CASES = {
    "plain": {},
    "self_distill": {"use_self_distill": True},
    "late_self_distill": {"use_self_distill": True, "self_distill_start_step": 5},
    "warm": {"temperature": 1.0, "use_self_distill": True},
    "mean": {"sentence_pooling_method": "mean", "use_self_distill": True},
    "last": {"sentence_pooling_method": "last_token"},
    "dense_only": {"unified_finetuning": False},
    "teacher": {"use_self_distill": True, "teacher": True, "kd_loss_type": "kl_div"},
    "m3_teacher": {"teacher": True, "kd_loss_type": "m3_kd_loss", "temperature": 0.1},
    "own_documents": {"unified_finetuning": False, "own": True},
    "own_teacher": {"unified_finetuning": False, "own": True, "teacher": True},
}


def signature(gradient: torch.Tensor) -> list[float]:
    """Norm of a gradient and its products with three fixed vectors."""
    flat = gradient.double().flatten()
    probes = np.random.default_rng(3).standard_normal((3, len(flat))) / len(flat) ** 0.5
    return [float(flat.norm()), *(torch.from_numpy(probes) @ flat).tolist()]


def record(folder: Path, case: dict, batch: dict[str, dict[str, torch.Tensor]]) -> dict:
    """Loss and gradients of one case."""
    options = dict(case)
    teacher = TEACHER if options.pop("teacher", False) else None
    own = options.pop("own", False)
    options.setdefault("kd_loss_type", "kl_div")
    options.setdefault("temperature", 0.02)
    network = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
    base = {"model": network}
    for name, outputs in (("sparse_linear", 1), ("colbert_linear", 32)):
        base[name] = torch.nn.Linear(32, outputs)
        base[name].load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
    special = Tokenizer.from_folder(folder).special_ids
    tokenizer = SimpleNamespace(**{f"{name}_id": i for name, i in special.items()})
    tokenizer.padding_side = "right"
    model = EncoderOnlyEmbedderM3Model(
        base, tokenizer=tokenizer, normalize_embeddings=True, **options
    )
    model.train()
    loss = model(
        queries=batch["query"],
        passages=batch["document"],
        teacher_scores=teacher,
        no_in_batch_neg_flag=own,
    ).loss
    loss.backward()
    gradients = {
        name.replace("model.", "network.", 1): signature(parameter.grad)
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return {"options": case, "loss": float(loss), "gradients": gradients}


def main() -> None:
    """Write m3_loss.json beside this file."""
    from m3_core.training.padded import pad

    packages = ("FlagEmbedding", "torch", "transformers")
    out: dict = {"recorded_with": {name: version(name) for name in packages}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = tiny_checkpoint(temporary, seed=7, positions=64)
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        tokenizer = Tokenizer.from_folder(folder)
        batch = {}
        for side, texts in (("query", QUERIES), ("document", DOCUMENTS)):
            ids, mask = pad(tokenizer.encode(texts, 32), tokenizer.special_ids["pad_token"])
            batch[side] = {"input_ids": ids, "attention_mask": mask}
        out["batch"] = {
            f"{side}_{short}": parts[name].tolist()
            for side, parts in batch.items()
            for short, name in (("ids", "input_ids"), ("mask", "attention_mask"))
        }
        out["teacher_scores"] = TEACHER
        out["cases"] = {name: record(folder, case, batch) for name, case in CASES.items()}
    path = Path(__file__).with_name("m3_loss.json")
    path.write_text(json.dumps(out, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

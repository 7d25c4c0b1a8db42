"""Train m3-tiny: a small M3 model distilled from a larger encoder.

    python recipes/m3_tiny/train.py --teacher m3-e5 --vocabulary vocab32k --texts material \
        --out m3-tiny --minutes 9

The teacher is a checkpoint in the M3 layout, the vocabulary what vocabulary.py writes, the texts
what collect.py writes. Runs on a GPU in bfloat16, else on the CPU.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from pathlib import Path

import torch
from material import BatchDataset, Material
from objective import Objective, Teacher, fit_projections, information
from student import add_arguments, build_student, round_mantissas, wheel_bytes, write_shape
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from m3_core.training.modeling import TrainableM3
from m3_core.training.saving import save_checkpoint

log = logging.getLogger("m3-tiny")


class Clock:
    """How much of the training is done: by steps, or by time if that ends first."""

    def __init__(self, steps: int, minutes: float | None) -> None:
        self.steps, self.minutes, self.step, self.start = steps, minutes, 0, time.monotonic()

    def progress(self) -> float:
        """From 0 to 1."""
        done = self.step / self.steps
        if self.minutes is not None:
            done = max(done, (time.monotonic() - self.start) / (60 * self.minutes))
        return min(done, 1.0)


class ClockCallback(TrainerCallback):
    """Keeps the clock and stops when time is up."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_begin(self, args, state, control, **_) -> None:  # noqa: ANN001, ANN003
        """Start the time."""
        self.clock.start = time.monotonic()

    def on_step_end(self, args, state, control, **_) -> None:  # noqa: ANN001, ANN003
        """Count, and stop in the end."""
        self.clock.step = state.global_step
        control.should_training_stop |= self.clock.progress() >= 1


class TinyTrainer(Trainer):
    """The Trainer with our objective, one ready-made batch a step."""

    def __init__(self, *args, objective: Objective, clock: Clock, **options) -> None:  # noqa: ANN002, ANN003
        super().__init__(*args, **options)
        self.objective, self.clock = objective, clock
        self.tokens, self.sums, self.since = 0, {}, time.monotonic()

    def _get_train_sampler(self, *_) -> torch.utils.data.Sampler:  # noqa: ANN002
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def create_optimizer(self, *_) -> torch.optim.Optimizer:  # noqa: ANN002
        """AdamW, without decay of embeddings, biases and norms."""
        decayed = [p for n, p in self.model.named_parameters() if p.dim() > 1 and "embed" not in n]
        ids = {id(p) for p in decayed}
        others = [p for p in self.model.parameters() if id(p) not in ids]
        fused = self.args.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
            lr=self.args.learning_rate,
            betas=(0.9, 0.98),
            fused=fused,
        )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> object:  # noqa: ANN001
        """Warm up over 2 % of the training, then fall to zero as a cosine does."""

        def factor(_: int) -> float:
            done = self.clock.progress()
            fall = 0.5 * (1 + torch.cos(torch.tensor(done * torch.pi)).item())
            return min(1.0, (done + 1e-4) / 0.02) * max(fall, 0.005)

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler

    def compute_loss(self, model, inputs, return_outputs=False, **_):  # noqa: ANN001, ANN003, ANN201, FBT002
        """The objective's loss; its parts are logged."""
        plain = self.accelerator.unwrap_model(model)
        # The objective calls parts of the model, so the Trainer's own autocast does not apply.
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16):
            parts = self.objective(plain, inputs, self.clock.progress())
        self.tokens += inputs["document_ids"].numel() + inputs["query_ids"].numel()
        for name, value in parts.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value.detach(), count + 1)
        return (parts["loss"], None) if return_outputs else parts["loss"]

    def log(self, logs: dict, *rest, **options) -> None:  # noqa: ANN002, ANN003
        """Log parts of the loss and tokens a second too."""
        now = time.monotonic()
        means = {name: round(float(total / count), 4) for name, (total, count) in self.sums.items()}
        rate = round(self.tokens / max(now - self.since, 1e-9))
        self.tokens, self.sums, self.since = 0, {}, now
        logs = means | {"step": self.state.global_step, "tokens_per_second": rate} | logs
        log.info("%.3f %s", self.clock.progress(), json.dumps(logs))
        super().log(logs, *rest, **options)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", type=Path, required=True, help="checkpoint in the M3 layout")
    parser.add_argument(
        "--vocabulary", type=Path, required=True, help="tokenizer.json, old_to_new.npy"
    )
    parser.add_argument("--texts", type=Path, required=True, help="texts.jsonl.gz, pairs.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="stop, learning rate at 0, after so long")
    parser.add_argument("--steps", type=int, default=60_000, help="or after so many steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=24_576, help="of a batch's documents")
    parser.add_argument("--documents", type=int, default=384, help="a batch at most")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--switch", type=float, default=0.4, help="when the unified loss begins")
    parser.add_argument("--temperature", type=float, default=0.05)
    parser.add_argument("--weight-scale", type=float, default=0.09, help="of lexical weights")
    parser.add_argument("--fitting", type=int, default=24, help="batches for the projections")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--limit", type=int, help="read so many records only")
    parser.add_argument("--mantissa-bits", type=int, default=6, help="kept in the saved float16")
    parser.add_argument("--log-steps", type=int, default=100)
    add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Build, train, save."""
    a = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if a.workers else "true"
    set_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = torch.bfloat16 if device.type == "cuda" else torch.float32
    source = TrainableM3.from_pretrained(a.teacher)
    student = build_student(source, a.vocabulary, a.out.with_name(a.out.name + "-start"), a)
    teacher = Teacher(source, device, half)
    prompts = json.loads((a.teacher / "config_sentence_transformers.json").read_text("utf-8"))[
        "prompts"
    ]
    log.info("student: %d parameters", sum(p.numel() for p in student.parameters()))
    material = Material(a.texts, a.limit)
    log.info(
        "%d groups, %s pairs", len(material.groups), {k: len(v) for k, v in material.pairs.items()}
    )
    data = BatchDataset(
        material,
        a.vocabulary / "tokenizer.json",
        a.teacher / "tokenizer.json",
        (prompts["query"], prompts["document"]),
        seed=a.seed,
        tokens=a.tokens,
        most=a.documents,
        steps=a.steps,
    )
    fitting = BatchDataset(
        material,
        *data.paths,
        data.prompts,
        seed=a.seed + 1,
        tokens=min(a.tokens, 8192),
        most=128,
        steps=a.fitting,
    )
    dense, colbert = fit_projections(
        teacher, [fitting[i] for i in range(a.fitting)], a.hidden, device
    )
    weights = information(a.vocabulary / "tokenizer.json", material.groups, a.weight_scale, 300)
    log.info("projections and weights are ready")
    objective = Objective(
        teacher, dense, colbert, weights.to(device), switch=a.switch, temperature=a.temperature
    )
    clock = Clock(a.steps, a.minutes)
    trainer = TinyTrainer(
        student,
        TrainingArguments(
            output_dir=str(a.out.with_name(a.out.name + "-run")),
            per_device_train_batch_size=1,
            max_steps=a.steps,
            learning_rate=a.learning_rate,
            max_grad_norm=1.0,
            bf16=half == torch.bfloat16,
            use_cpu=device.type == "cpu",
            dataloader_num_workers=a.workers,
            dataloader_prefetch_factor=8 if a.workers else None,
            dataloader_pin_memory=device.type == "cuda",
            logging_steps=a.log_steps,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to=[],
            remove_unused_columns=False,
            disable_tqdm=True,
            seed=a.seed,
        ),
        train_dataset=data,
        data_collator=lambda batches: batches[0],
        callbacks=[ClockCallback(clock)],
        objective=objective,
        clock=clock,
    )
    trainer.train()
    student = student.cpu()
    round_mantissas(student, a.mantissa_bits)
    save_checkpoint(student, a.out, dtype=torch.float16, prompts={})
    write_shape(a.out, vars(a) | {"steps_done": clock.step})
    log.info("saved %s: %s", a.out, wheel_bytes(a.out))


if __name__ == "__main__":
    main()

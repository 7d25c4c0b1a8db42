"""Savings of checkpoints that are killed: what can be loaded afterwards, and what is left over.

    python tests/faults/killed_checkpoints.py --kills 300

Every file of a checkpoint holds the number of its save. After each kill the folder must load as one
save, the last or the one before it; at the end nothing hidden may be left. Ends with 1 otherwise.
"""

from __future__ import annotations

import argparse
import collections
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.killing import kill_at, moments, seconds_of

from m3_core.errors import CheckpointError
from m3_core.network import locate, read_checkpoint
from m3_core.testing import tiny_checkpoint
from m3_core.training import TrainOptions
from m3_core.training.finetune import _save
from m3_core.training.modeling import TrainableM3
from m3_core.training.saving import save_checkpoint


class Saves:
    """Saves of a model whose weights are all the number of the save."""

    def __init__(self, place: Path, kind: str) -> None:
        self.place, self.kind = place, kind
        self.folder = place / "run"
        tiny_checkpoint(place / "source", hidden_size=96)
        self.model = TrainableM3.from_pretrained(place / "source")
        self.options = TrainOptions(model="m", data=["d"], output=str(self.folder))

    def save(self, number: int) -> None:
        with torch.no_grad():
            for one in self.model.parameters():
                one.fill_(number)
        self.model.network.config.initializer_range = float(number)
        if self.kind == "checkpoint":
            save_checkpoint(self.model, self.folder)
        else:
            _save(self.model, self.folder, self.options)

    def found(self) -> set[float]:
        """The numbers of the saves that the files in the folder are of."""
        folder = read_checkpoint(locate(self.folder), "run").folder
        tensors = list(load_file(folder / "model.safetensors").values())
        for name in ("sparse_linear", "colbert_linear"):
            tensors += torch.load(folder / f"{name}.pt", weights_only=True).values()
        numbers = {value for tensor in tensors for value in tensor.unique().tolist()}
        return numbers | {json.loads((folder / "config.json").read_text())["initializer_range"]}

    def hidden(self) -> list[Path]:
        folders = [self.place, self.folder]
        return [one for place in folders if place.is_dir() for one in place.glob(".*")]


def attack(kind: str, kills: int, seed: int) -> collections.Counter[str]:
    results: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        saves = Saves(Path(name), kind)
        turn = seconds_of(saves.save)
        first = 10
        for kill, moment in enumerate(moments(kills, turn, seed)):
            base = first + 1000 * kill
            saves.save(base - 1)
            if kill % 10 == 9:
                # A save into a place where nothing is.
                shutil.rmtree(saves.folder)
            kill_at(lambda number, base=base: saves.save(base + number), moment)
            try:
                results["whole" if len(saves.found()) == 1 else "MIXED"] += 1
            except CheckpointError:
                results["none yet" if kill % 10 == 9 else "LOST"] += 1
            except Exception as error:  # noqa: BLE001
                results[f"RAW {type(error).__name__}"] += 1
            results["most hidden"] = max(results["most hidden"], len(saves.hidden()))
        saves.save(1)
        locate(saves.folder)
        results["HIDDEN AT THE END"] = len(saves.hidden())
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    bad = 0
    for kind in ("checkpoint", "output"):
        results = attack(kind, asked.kills, asked.seed)
        print(f"{kind}: {asked.kills} kills: {dict(results)}")
        bad += sum(number for name, number in results.items() if name.isupper() or "RAW" in name)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

"""Turn published questions about passages of Wikipedia into training pairs, a file a language.

Reads what ``make.sh`` downloads: QED (English; CC BY-SA 3.0), CMRC 2018 and DRCD (Chinese,
simplified and traditional; CC BY-SA 4.0 and 3.0) and ARCD (Arabic; MIT). Whatever shares words in
a row with XQuAD is refused. Beside those asked by people each passage gets cloze questions, as
``make_pairs.py`` makes them; for other languages there are those of its own texts alone.

    python questions.py --data QUESTIONS --xquad XQUAD --out PAIRS
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("texts", "lexical_head")]

from cleaning import EvaluationGuard
from make_pairs import question, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("questions")

# And how many passages of each are taken at most.
FILES = {
    "en": {"qed-dev.jsonlines": 1_400},
    "zh": {"cmrc2018_dev.json": 500, "DRCD_dev.json": 200},
    "ar": {"arcd.json": 500},
}
# QED sets marks apart by spaces.
BEFORE = re.compile(r" (?=[,.;:!?%)\]]|'s\b|n't\b)")
AFTER = re.compile(r"(?<=[(\[$]) ")


def read_qed(path: Path) -> Iterator[tuple[str, str]]:
    """Questions as people typed them, and their passages."""
    for line in path.read_text("utf-8").splitlines():
        record = json.loads(line)
        passage = AFTER.sub("", BEFORE.sub("", record["paragraph_text"]))
        passage = passage.replace("`` ", '"').replace(" ''", '"').replace(" - ", "-")
        asked = record["question_text"]
        yield asked[0].upper() + asked[1:] + "?", passage


def read_squad(path: Path) -> Iterator[tuple[str, str]]:
    """Questions and passages of a file in SQuAD's form."""
    for article in json.loads(path.read_text("utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                yield asked["question"].strip(), paragraph["context"].strip()


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--xquad", type=Path, required=True, help="folder of xquad.*.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=2, help="a passage, at most")
    parser.add_argument("--cloze", type=int, default=2, help="cloze questions a passage")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    guard = EvaluationGuard(arguments.xquad)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number, (lang, files) in enumerate(FILES.items()):
        asked: dict[str, list[str]] = {}
        for file, most in files.items():
            read = read_qed if file.endswith("lines") else read_squad
            refused, before = 0, len(asked)
            for query, passage in read(arguments.data / file):
                if guard.shares(passage) or guard.shares(query):
                    refused += 1
                elif passage in asked or len(asked) - before < most:
                    asked.setdefault(passage, []).append(query)
            log.info("%s: %d passages, %d questions refused", file, len(asked) - before, refused)
        rng = np.random.default_rng((0, number))
        words = [words_of(passage, lang, rng) for passage in asked]
        others = [word for some in words[::10] for word in some]
        order = rng.permutation(len(asked))
        passages = list(asked)
        with (arguments.out / f"{lang}-asked.jsonl").open("w", encoding="utf-8") as lines:
            for i in order:
                queries = asked[passages[i]][: arguments.queries]
                queries += [question(rng, words[i], others, lang) for _ in range(arguments.cloze)]
                for query in queries:
                    row = {"query": query, "pos": [passages[i]], "neg": []}
                    lines.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

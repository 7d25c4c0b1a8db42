"""XQuAD as BEIR folders, for ``m3-retrieval evaluate``.

    python benchmarks/xquad_beir.py --data XQUAD_FOLDER --output FOLDER [--languages en de]
    m3-retrieval evaluate --data FOLDER/en --model MODEL --dtype float32

Every fourth question against all 240 paragraphs of a language (https://github.com/google-deepmind/
xquad, ``xquad.<language>.json``), as everywhere here; ``--every 1`` takes all 1,190.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "de", "es", "zh", "ru", "hi")


def convert(source: Path, folder: Path, every: int) -> None:
    articles = json.loads(source.read_text(encoding="utf-8"))["data"]
    paragraphs = [one for article in articles for one in article["paragraphs"]]
    questions = [
        (qa["id"], qa["question"], f"p{number}")
        for number, paragraph in enumerate(paragraphs)
        for qa in paragraph["qas"]
    ][::every]
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    write_lines(
        folder / "corpus.jsonl",
        ({"_id": f"p{n}", "title": "", "text": p["context"]} for n, p in enumerate(paragraphs)),
    )
    write_lines(
        folder / "queries.jsonl", ({"_id": key, "text": text} for key, text, _ in questions)
    )
    rows = "".join(f"{key}\t{paragraph}\t1\n" for key, _, paragraph in questions)
    qrels = folder / "qrels" / "test.tsv"
    qrels.write_text(f"query-id\tcorpus-id\tscore\n{rows}", encoding="utf-8")


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--languages", nargs="+", default=LANGUAGES)
    parser.add_argument("--every", type=int, default=4)
    options = parser.parse_args()
    for language in options.languages:
        source = options.data / f"xquad.{language}.json"
        convert(source, options.output / language, options.every)
        print(options.output / language)


if __name__ == "__main__":
    main()

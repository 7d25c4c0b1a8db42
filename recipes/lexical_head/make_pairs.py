"""Make lexical training pairs out of plain texts: cloze questions about a sentence of a passage.

    python recipes/lexical_head/make_pairs.py --texts material --out pairs --languages en zh de

Reads ``texts.jsonl.gz`` (``lang``, ``source``, ``text``, as recipes/texts/collect.py writes it)
and writes one file of examples a language, so that ``m3-retrieval train --same-file-batches``
contrasts passages of one language.

A question is a sentence with a span asked for and other words left out or swapped for words of
other passages (the noisy cloze questions of Lewis, Denoyer and Riedel, arXiv 1906.04980). A head
that finds the passage by them has learnt which words tell passages apart, and that the words of
questions do not.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from pathlib import Path

import numpy as np

UNSPACED = ("zh", "ja", "th")
# Short entries of programs' menus and messages: no prose, no questions about it.
UNUSED = re.compile("messages|l10n")
PLAIN = re.compile(r"[^\W_]+|[\s.,;:!?'’\"“”()\-–%،؛؟。，、；：！？「」《》（）।\u0900-\u097f]+")
SENTENCE_ENDS = (".", "!", "?", "؟", '"', ")", "'", "”", "。", "！", "？", "।")
ASKED = {
    "en": (
        "What,What is,What was,What did,What does,What are,What type of,What kind of,Who,Who was,"
        "Whose,When,When did,When was,Where,Where is,Where did,Which,Which of the,In which,Why,"
        "Why did,How,How many,How much,How long,How did,How does,In what year,What is the name of,"
        "About how many,On what,According to,By what,To whom"
    ),
    "de": (
        "Was,Was ist,Was war,Was sind,Wer,Wer war,Wessen,Wann,Wann wurde,Wo,Wo ist,Welche,Welcher,"
        "Welches,In welchem,Warum,Wie,Wie viele,Wie viel,Wie lange,In welchem Jahr,Wie heißt,"
        "Welche Art von,Wofür,Woher"
    ),
    "es": (
        "Qué,Qué es,Qué era,Quién,Quién fue,Cuándo,Cuándo se,Dónde,Dónde está,Cuál,Cuál es,"
        "Cuáles son,Por qué,Cómo,Cómo se llama,Cuántos,Cuántas,Cuánto,En qué año,Qué tipo de,"
        "A quién,De qué,En qué"
    ),
    "ru": (
        "Что,Что такое,Кто,Кто был,Чей,Когда,Когда был,Где,Где находится,Какой,Какая,Какие,"
        "В каком,Почему,Как,Как называется,Сколько,В каком году,Какой тип,Кому,О чём"
    ),
    "hi": (
        "क्या,क्या है,कौन,कौन था,किसका,कब,कब हुआ,कहाँ,कौन सा,कौन सी,किस,किस वर्ष में,क्यों,कैसे,कितने,"
        "कितना,किसने,किस प्रकार"
    ),
    "ar": (
        "ما,ما هو,ما هي,ماذا,من,من هو,متى,أين,أي,في أي,لماذا,كيف,كم,كم عدد,في أي عام,ما اسم,ما نوع,"
        "لمن,بماذا,منذ متى"
    ),
    "zh": (
        "什么,是什么,谁,谁是,什么时候,何时,哪里,在哪里,哪个,哪一个,哪些,为什么,如何,怎样,多少,"
        "有多少,哪一年,在哪一年,哪种,什么类型的,什么名字"
    ),
}


def read_groups(path: Path, languages: list[str], without: list[str]) -> dict[str, list[list[str]]]:
    """Prose of each language, source by source, in the file's order."""
    groups: dict[str, dict[str, list[str]]] = {lang: {} for lang in languages}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            source = record["source"]
            if record["lang"] not in groups or source in without or UNUSED.search(source):
                continue
            if is_prose(record["text"]):
                groups[record["lang"]].setdefault(source, []).append(record["text"])
    return {lang: list(sources.values()) for lang, sources in groups.items()}


def is_prose(text: str) -> bool:
    """Whether a text is sentences rather than code, options, tables or markup."""
    plain = sum(map(len, PLAIN.findall(text)))
    return plain >= 0.985 * len(text) and text[-1:] in SENTENCE_ENDS


def passage(rng: np.random.Generator, source: list[str], least: int) -> str:
    """Consecutive texts of a source."""
    start = int(rng.integers(len(source)))
    joined = ""
    for text in source[start : start + 40]:
        joined = f"{joined} {text}".strip()
        if len(joined) >= least:
            break
    return joined[: 2 * least]


def words_of(text: str, lang: str, rng: np.random.Generator) -> list[str]:
    """Words; in scripts without spaces runs of one to three characters."""
    if lang not in UNSPACED:
        return text.split()
    kept = text.replace(" ", "")
    cuts, at = [], 0
    while at < len(kept):
        size = int(rng.integers(1, 4))
        cuts.append(kept[at : at + size])
        at += size
    return cuts


def question(rng: np.random.Generator, words: list[str], others: list[str], lang: str) -> str:
    """A stretch of words with a span asked for, words left out, and words of other passages."""
    size = int(rng.integers(6, 22))
    start = int(rng.integers(max(len(words) - size, 1)))
    stretch = words[start : start + size]
    gap = int(rng.integers(1, 5))
    at = int(rng.integers(max(len(stretch) - gap, 1)))
    before, after = stretch[:at], stretch[at + gap :]
    # From questions that repeat the sentence to questions that share few words with it.
    keep, swap = rng.uniform(0.25, 0.9), rng.uniform(0, 0.4)

    def thinned(part: list[str]) -> list[str]:
        kept = [word for word in part if rng.random() < keep]
        drawn = rng.integers(0, len(others), len(kept))
        swapped = rng.random(len(kept)) < swap
        return [
            others[int(i)] if other else word
            for word, i, other in zip(kept, drawn, swapped, strict=True)
        ]

    frames = ASKED[lang].split(",")
    frame = frames[int(rng.integers(len(frames)))]
    if lang in UNSPACED:
        return "".join([*thinned(before), frame, *thinned(after)]) + "？"
    mark = "؟" if lang == "ar" else "?"
    return " ".join([frame, *thinned(before), *thinned(after)]).rstrip(".,;:") + mark


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=Path, required=True, help="folder with texts.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--languages", nargs="+", default=list(ASKED), choices=list(ASKED))
    parser.add_argument("--without", nargs="*", default=[], help="sources to leave out")
    parser.add_argument("--count", type=int, default=2_000, help="passages a language")
    parser.add_argument("--queries", type=int, default=3, help="a passage")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = read_groups(arguments.texts / "texts.jsonl.gz", arguments.languages, arguments.without)
    for number, (lang, sources) in enumerate(found.items()):
        rng = np.random.default_rng((arguments.seed, number))
        least = 220 if lang in UNSPACED else 500
        # Larger sources come up more often, but not as much more often as they are larger.
        sizes = np.array([sum(map(len, source)) for source in sources], float) ** 0.5
        drawn = rng.choice(len(sources), arguments.count, p=sizes / sizes.sum())
        passages = [passage(rng, sources[int(i)], least) for i in drawn]
        passages = [text for text in dict.fromkeys(passages) if len(text) > least // 3]
        words = [words_of(text, lang, rng) for text in passages]
        others = [word for some in words[:: max(len(words) // 2000, 1)] for word in some]
        with (arguments.out / f"{lang}.jsonl").open("w", encoding="utf-8") as lines:
            for text, own in zip(passages, words, strict=True):
                for _ in range(arguments.queries):
                    asked = question(rng, own, others, lang)
                    row = {"query": asked, "pos": [text], "neg": []}
                    lines.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

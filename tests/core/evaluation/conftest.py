import json

import pytest

PANDAS = {
    "d1": "The giant panda eats bamboo in the mountains of China.",
    "d2": "A bear catches fish in a cold river.",
    "d3": "The city lies at the river and has a bridge.",
    "d4": "Bamboo grows quickly and is eaten by pandas.",
    "d5": "Wo liegt die Stadt am Fluss?",
    "d6": "Fish swim in the river below the bridge of the city.",
}
QUERIES = {
    "q1": "what does the panda eat",
    "q2": "where is the city",
    "q3": "bear and fish",
    "q4": "a bridge over the river",
}
QRELS = {
    "q1": {"d1": 2, "d4": 1, "d2": 0},
    "q2": {"d3": 1},
    "q3": {"d2": 1},
    "q4": {"d3": 1, "d6": 2},
}


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def beir(tmp_path):
    """A folder of BEIR: titles, grades, a query without judgements."""
    folder = tmp_path / "pandas"
    rows = [{"_id": key, "title": "", "text": text} for key, text in PANDAS.items()]
    rows[0] |= {"title": "The giant panda", "text": "eats bamboo in the mountains of China."}
    write_lines(folder / "corpus.jsonl", rows)
    queries = QUERIES | {"q9": "nobody judged this"}
    write_lines(
        folder / "queries.jsonl", ({"_id": key, "text": text} for key, text in queries.items())
    )
    (folder / "qrels").mkdir()
    lines = [f"{q}\t{d}\t{grade}" for q, own in QRELS.items() for d, grade in own.items()]
    (folder / "qrels" / "test.tsv").write_text(
        "\n".join(["query-id\tcorpus-id\tscore", *lines, ""]), "utf-8"
    )
    return folder

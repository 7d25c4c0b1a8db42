import json

import pytest

from m3_core.errors import TrainingDataError
from m3_core.training.data import (
    find_files,
    load_examples,
    parse_example,
    read_lines,
)
from m3_core.training.mining import _read_pool

GOOD = {"query": "q", "pos": ["d"], "neg": ["n"]}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[1]", "list where an object"),
        ('"text"', "str where an object"),
        ({"pos": ["d"]}, "no 'query'"),
        ({"query": "q", "neg": []}, "no 'pos'"),
        ({"query": 3, "pos": ["d"]}, "'query' is int"),
        ({"query": "q", "pos": "d"}, "'pos' is str"),
        ({"query": "q", "pos": []}, "'pos' is empty"),
        ({"query": "q", "pos": [None]}, r"pos\[0\] is NoneType"),
        ({**GOOD, "neg": ["n", 7]}, r"neg\[1\] is int"),
        ({**GOOD, "prompt": []}, "'prompt' is list"),
        ({**GOOD, "pos_scores": [1, 2]}, "'pos_scores' is 2"),
        ({**GOOD, "neg_scores": 0.5}, "'neg_scores' is float"),
        ({**GOOD, "neg_scores": ["high"]}, r"neg_scores\[0\] is 'high'"),
        ({**GOOD, "pos_scores": [True]}, r"pos_scores\[0\] is True"),
        ({**GOOD, "pos_scores": [float("nan")]}, r"pos_scores\[0\] is nan"),
    ],
)
def test_an_error_names_the_line(tmp_path, line, says):
    file = tmp_path / "data.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    file.write_text(f"{json.dumps(GOOD)}\n\n{text}\n", "utf-8")
    with pytest.raises(TrainingDataError, match=rf"data\.jsonl:3: .*{says}"):
        load_examples(file)


def test_bytes_that_are_not_utf8_are_an_error(tmp_path):
    file = tmp_path / "data.jsonl"
    file.write_bytes(b'{"query": "\xff"}\n')
    with pytest.raises(TrainingDataError, match="not UTF-8"):
        list(read_lines([file]))


def test_an_empty_set_is_an_error(tmp_path):
    (tmp_path / "data.jsonl").write_text("\n\n", "utf-8")
    with pytest.raises(TrainingDataError, match="no examples"):
        load_examples(tmp_path / "data.jsonl")


def test_files_that_are_not_there_are_an_error(tmp_path):
    with pytest.raises(TrainingDataError, match="does not exist"):
        find_files([tmp_path / "none.jsonl"])
    with pytest.raises(TrainingDataError, match="holds no"):
        find_files([tmp_path])


def test_a_folder_is_read_file_by_file(tmp_path):
    for number, name in enumerate(["b.jsonl", "a.json"]):
        (tmp_path / name).write_text(json.dumps({**GOOD, "query": str(number)}) + "\n", "utf-8")
    rows = load_examples(tmp_path)
    assert [(row["query"], row["source"]) for row in rows] == [("1", 0), ("0", 1)]
    assert rows[0]["pos"] == ["d"]
    assert rows[0]["neg_scores"] is None


def test_scores_and_prompt_are_kept():
    row = parse_example(
        json.dumps({**GOOD, "pos_scores": [1], "neg_scores": [0.5], "prompt": "find: "}), "here"
    )
    assert (row["pos_scores"], row["neg_scores"], row["prompt"]) == ([1], [0.5], "find: ")


def test_texts_that_are_empty_or_no_utf8_are_errors():
    for wrong, says in (
        ({**GOOD, "query": " \n"}, "'query' is empty"),
        ({**GOOD, "pos": ["d", ""]}, r"pos\[1\] is empty"),
        ({**GOOD, "neg": ["\t"]}, r"neg\[0\] is empty"),
        ({**GOOD, "query": "\ud800"}, "'query' holds the lone surrogate"),
    ):
        with pytest.raises(TrainingDataError, match=f"here: {says}"):
            parse_example(json.dumps(wrong), "here")
    assert parse_example(json.dumps({**GOOD, "prompt": ""}), "here")["prompt"] == ""


def test_nesting_without_end_is_an_error(tmp_path):
    for text in ("[" * 100_000, '{"query":' * 100_000):
        with pytest.raises(TrainingDataError, match="here: not JSON: it is nested too deeply"):
            parse_example(text, "here")


def test_a_pool_is_checked_like_examples(tmp_path):
    pool = tmp_path / "pool.jsonl"
    pool.write_text('{"text": "a\u2028b"}\n\n{"text": "c"}\n', "utf-8")
    assert _read_pool(pool) == ["a\u2028b", "c"]
    for text, says in (
        ("[" * 100_000, ":2: no JSON object with 'text'"),
        ('{"text": ""}', ":2: 'text' is empty"),
        ('{"text": 5}', ":2: 'text' is int"),
        ("[1]", ":2: no JSON object"),
    ):
        pool.write_text('{"text": "a"}\n' + text, "utf-8")
        with pytest.raises(TrainingDataError, match=says):
            _read_pool(pool)
    with pytest.raises(TrainingDataError, match="cannot be read"):
        _read_pool(tmp_path / "none")

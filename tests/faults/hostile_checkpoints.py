"""Checkpoints that say what no checkpoint should, and checkpoints with damaged small files.

Each is loaded and used. It must load and work, or be refused by the documented error, at once:

    python tests/faults/hostile_checkpoints.py --damages 1000

prints what came of each and ends with 1 if there was anything else.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

from m3_core import Encoder, Reranker
from m3_core.errors import CheckpointError, M3Error
from m3_core.testing import tiny_checkpoint
from m3_core.testing.rerankers import tiny_reranker

Kind = Literal["m3", "bge", "cross-encoder", "bert", "llm", "layerwise", "lightweight"]

# Seconds after which a load counts as not ended; refusing takes hundredths.
PATIENCE = 20


@dataclass(frozen=True)
class Case:
    """A checkpoint that somebody has changed.

    Attributes:
        name: What was done to it.
        change: Does it, to the folder.
        kind: Which checkpoint it was.
        loads: Whether it is still one; ``None``: either will do.
    """

    name: str
    change: Callable[[Path], object]
    kind: Kind = "m3"
    loads: bool | None = False


def make(kind: Kind, folder: Path) -> Path:
    if kind in ("m3", "bge"):
        return tiny_checkpoint(folder, kind=kind)
    return tiny_reranker(folder, kind=kind)


def use(kind: Kind, folder: Path) -> None:
    if kind in ("m3", "bge"):
        with Encoder.from_pretrained(folder, device="cpu", dtype="float32") as encoder:
            all_of_it = {"return_sparse": kind == "m3", "return_colbert_vecs": kind == "m3"}
            encoder.encode_documents(["a panda", "Fluss 大熊猫 x y z"], **all_of_it)
            encoder.encode_queries(["panda"])
            _ = encoder.model.fingerprint
        return
    with Reranker.from_pretrained(folder, device="cpu", dtype="float32") as reranker:
        reranker.compute_score([("a panda", "the river 大熊猫"), ("b", "")])


def outcome(kind: Kind, folder: Path) -> str:
    """What came of using a checkpoint: ``"loads"`` or the name of the error."""
    try:
        with _patience(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use(kind, folder)
    except CheckpointError as error:
        return type(error).__name__
    except M3Error as error:
        # Numbers that are no numbers are found when something is computed.
        return type(error).__name__
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"RAW {type(error).__name__}: {str(error)[:100]}"
    return "loads"


class _TooSlowError(BaseException):
    pass


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    def late(*_: object) -> None:
        raise _TooSlowError(f"not ended after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def config(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: edit(folder / "config.json", **changes)


def without(*names: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in content.items() if k not in names}))

    return change


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | changes), encoding="utf-8")


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(raw)


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def changed(folder: Path) -> None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return changed


def head(weight: Any, bias: Any, name: str = "colbert_linear") -> Callable[[Path], object]:
    return lambda folder: torch.save({"weight": weight, "bias": bias}, folder / f"{name}.pt")


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def changed(folder: Path) -> None:
        path = folder / "model.safetensors"
        raw = path.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        content = json.loads(raw[8 : 8 + length])
        change(content)
        made = json.dumps(content).encode()
        path.write_bytes(struct.pack("<Q", len(made)) + made + raw[8 + length :])

    return changed


def _directory(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return change


def _repeated(folder: Path) -> None:
    """Weights whose shapes are huge and whose numbers are one."""
    state = load_file(folder / "model.safetensors")
    wide = {name: torch.zeros(1).expand(tensor.shape) for name, tensor in state.items()}
    words = next(name for name in wide if "word_embeddings" in name)
    wide[words] = torch.zeros(1).expand(2**31 - 1, wide[words].shape[1])
    torch.save(wide, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    edit(folder / "config.json", vocab_size=2**31 - 1)


def _fewer_layers_stored(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if ".1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def _index_outside(folder: Path) -> None:
    target = folder.parent / "elsewhere.safetensors"
    (folder / "model.safetensors").rename(target)
    state = load_file(target)
    index = {"weight_map": dict.fromkeys(state, "../elsewhere.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _other_dtype(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({k: v.half() for k, v in state.items()}, folder / "model.safetensors")


def _post_processor(content: dict[str, Any]) -> None:
    for token in content["post_processor"]["special_tokens"].values():
        token["ids"] = [4_000_000_000]


DEEP = "[" * 100_000
NESTED: Any = []
for _ in range(300):
    NESTED = [NESTED]

CASES = [
    Case("unchanged", lambda _: None, loads=True),
    Case("hidden_size missing", without("hidden_size")),
    Case("num_hidden_layers missing", without("num_hidden_layers")),
    Case("num_attention_heads missing", without("num_attention_heads")),
    Case("vocab_size missing", without("vocab_size")),
    Case("intermediate_size missing, llm", without("intermediate_size"), "llm"),
    Case("hidden_size missing, llm", without("hidden_size"), "llm"),
    Case("hidden_size missing, layerwise", without("hidden_size"), "layerwise"),
    Case("hidden_size missing, lightweight", without("hidden_size"), "lightweight"),
    Case("layer_norm_eps missing", without("layer_norm_eps"), loads=True),
    Case("model_type a list", config(model_type=["xlm-roberta"])),
    Case("model_type nested", config(model_type={"a": "xlm-roberta"})),
    Case("hidden_size a string", config(hidden_size="many")),
    Case("hidden_size null", config(hidden_size=None)),
    Case("hidden_size true", config(hidden_size=True)),
    Case("hidden_size 0", config(hidden_size=0)),
    Case("hidden_size negative", config(hidden_size=-24)),
    Case("hidden_size a float", config(hidden_size=24.5)),
    Case("hidden_size 2**31 - 4", config(hidden_size=2**31 - 4)),
    Case("hidden_size 1e300", config(hidden_size=1e300)),
    Case(
        "hidden_size infinite", text("config.json", '{"model_type": "bert", "hidden_size": 1e999}')
    ),
    Case("intermediate_size 10**9", config(intermediate_size=10**9)),
    Case("intermediate_size 10**9, llm", config(intermediate_size=10**9), "llm"),
    Case("intermediate_size 10**9, layerwise", config(intermediate_size=10**9), "layerwise"),
    Case("vocab_size 2**31 - 1", config(vocab_size=2**31 - 1)),
    Case("vocab_size 2**31 - 1, llm", config(vocab_size=2**31 - 1), "llm"),
    Case("vocab_size 5", config(vocab_size=5)),
    Case("num_hidden_layers 100,000", config(num_hidden_layers=100_000)),
    Case("num_hidden_layers 100,000, bge", config(num_hidden_layers=100_000), "bge"),
    Case(
        "num_hidden_layers 100,000, transformers'",
        config(num_hidden_layers=100_000, hidden_act="mish"),
    ),
    Case("num_hidden_layers 100,000, llm", config(num_hidden_layers=100_000), "llm"),
    Case("num_hidden_layers 100,000, layerwise", config(num_hidden_layers=100_000), "layerwise"),
    Case(
        "num_hidden_layers 100,000, lightweight", config(num_hidden_layers=100_000), "lightweight"
    ),
    Case("num_hidden_layers 10**12, lightweight", config(num_hidden_layers=10**12), "lightweight"),
    Case("num_hidden_layers 5,000, llm", config(num_hidden_layers=5_000), "llm"),
    Case("num_hidden_layers 0", config(num_hidden_layers=0)),
    Case("num_hidden_layers 1 of 2", config(num_hidden_layers=1), loads=None),
    Case("num_attention_heads 0", config(num_attention_heads=0)),
    Case("num_attention_heads -4", config(num_attention_heads=-4)),
    Case("num_attention_heads 7", config(num_attention_heads=7)),
    Case("num_attention_heads 7, llm", config(num_attention_heads=7), "llm"),
    Case("num_key_value_heads 0", config(num_key_value_heads=0), "llm"),
    Case("head_dim 10**9", config(head_dim=10**9), "llm"),
    Case("max_position_embeddings 1", config(max_position_embeddings=1)),
    Case("max_position_embeddings 10**9", config(max_position_embeddings=10**9)),
    Case("max_position_embeddings a list", config(max_position_embeddings=[512])),
    Case("type_vocab_size 0", config(type_vocab_size=0)),
    Case("type_vocab_size 1 of 2, bert", config(type_vocab_size=1), "bert"),
    Case("pad_token_id beyond the vocabulary", config(pad_token_id=10**6)),
    Case("pad_token_id negative", config(pad_token_id=-5)),
    Case("pad_token_id null", config(pad_token_id=None)),
    Case("pad_token_id a string", config(pad_token_id="<pad>")),
    Case("bos_token_id beyond the vocabulary", lambda f: _bos(f, 10**7), "llm"),
    Case("bos_token_id a list", lambda f: _bos(f, [1, 2]), "llm"),
    Case("layer_norm_eps a string", config(layer_norm_eps="small")),
    Case("layer_norm_eps not a number", config(layer_norm_eps=float("nan"))),
    Case("layer_norm_eps negative", config(layer_norm_eps=-1)),
    Case("hidden_act a list", config(hidden_act=["gelu"])),
    Case("hidden_act nested", config(hidden_act={"a": 1})),
    Case("hidden_act unknown", config(hidden_act="no-such")),
    Case("architectures a number", config(architectures=5), "cross-encoder"),
    Case("architectures of numbers", config(architectures=[5, None]), "cross-encoder"),
    Case("id2label a list", config(id2label=["a"]), "cross-encoder"),
    Case("id2label a number", config(id2label=3), "cross-encoder"),
    Case("_name_or_path a number", config(_name_or_path=3)),
    Case("auto_map a list", config(auto_map=["x"]), loads=None),
    Case("quantization_config a string", config(quantization_config="4bit")),
    Case("quantization_config nested", config(quantization_config={"quant_method": {"a": 1}})),
    Case("quantization_config of kernels", config(quantization_config={"quant_method": "mxfp4"})),
    Case(
        "nested configuration",
        config(text_config={"hidden_size": 4, "text_config": {}}),
        loads=True,
    ),
    Case("300 lists in one another", config(extra=NESTED), loads=True),
    Case("100,000 lists in one another", text("config.json", DEEP)),
    Case("100,000 objects in one another", text("config.json", '{"a":' * 100_000)),
    Case("config.json a list", text("config.json", "[]")),
    Case("config.json a number", text("config.json", "5")),
    Case("config.json null", text("config.json", "null")),
    Case("config.json empty", text("config.json", "")),
    Case("config.json in UTF-16", text("config.json", '{"model_type": "bert"}'.encode("utf-16"))),
    Case("config.json binary", text("config.json", bytes(range(256)))),
    Case("config.json a folder", _directory("config.json")),
    Case("pooling a list", text("1_Pooling/config.json", "[1]")),
    Case("pooling a number", text("1_Pooling/config.json", "5")),
    Case("pooling_mode a list", text("1_Pooling/config.json", '{"pooling_mode": ["cls"]}')),
    Case("pooling 100,000 deep", text("1_Pooling/config.json", DEEP)),
    Case("prompts a list", text("config_sentence_transformers.json", '{"prompts": ["a"]}')),
    Case(
        "prompts of surrogates",
        text("config_sentence_transformers.json", '{"prompts": {"query": "\\ud800"}}'),
    ),
    Case(
        "prompts of numbers",
        text("config_sentence_transformers.json", '{"prompts": {"query": 5}}'),
        loads=None,
    ),
    Case(
        "config_sentence_transformers.json a list",
        text("config_sentence_transformers.json", "[]"),
        loads=None,
    ),
    Case("max_seq_length 1", text("sentence_bert_config.json", '{"max_seq_length": 1}')),
    Case(
        "max_seq_length infinite",
        text("sentence_bert_config.json", '{"max_seq_length": Infinity}'),
        loads=True,
    ),
    Case(
        "max_seq_length true",
        text("sentence_bert_config.json", '{"max_seq_length": true}'),
        loads=True,
    ),
    Case(
        "sentence_bert_config.json a list", text("sentence_bert_config.json", "[512]"), loads=None
    ),
    Case(
        "model_max_length 1e30",
        lambda f: edit(f / "tokenizer_config.json", model_max_length=1e30),
        loads=True,
    ),
    Case("tokenizer_config.json a list", text("tokenizer_config.json", "[]")),
    Case("special_tokens_map.json a string", text("special_tokens_map.json", '"x"')),
    Case(
        "special token of surrogates",
        lambda f: edit(f / "special_tokens_map.json", unk_token="\ud800"),
        loads=None,
    ),
    Case("tokenizer.json a list", text("tokenizer.json", "[]")),
    Case("tokenizer.json 100,000 deep", text("tokenizer.json", DEEP)),
    Case("tokenizer.json a folder", _directory("tokenizer.json")),
    Case(
        "a token id beyond the vocabulary",
        tokenizer(lambda c: c["model"]["vocab"].append(["new", -1.0])),
    ),
    Case(
        "a token id beyond the vocabulary, bge",
        tokenizer(lambda c: c["model"]["vocab"].update(new=10**6)),
        "bge",
    ),
    Case(
        "an added token beyond the vocabulary",
        tokenizer(
            lambda c: c["added_tokens"].append(
                c["added_tokens"][0] | {"id": 10**6, "content": "<new>"}
            )
        ),
    ),
    Case("special ids of 4,000,000,000", tokenizer(_post_processor)),
    Case(
        "no special tokens around texts",
        tokenizer(lambda c: c.update(post_processor=None)),
        loads=None,
    ),
    Case(
        "a tokenizer that removes everything",
        tokenizer(
            lambda c: c.update(
                normalizer={"type": "Replace", "pattern": {"Regex": "."}, "content": ""}
            )
        ),
    ),
    Case(
        "a tokenizer without unknown token",
        tokenizer(lambda c: c["model"].update(unk_id=None)),
        loads=None,
    ),
    Case("unk_id beyond the vocabulary", tokenizer(lambda c: c["model"].update(unk_id=10**6))),
    Case(
        "an empty vocabulary",
        tokenizer(lambda c: c["model"].update(vocab=[], unk_id=None)),
        loads=None,
    ),
    Case("a head of three dimensions", head(torch.zeros(2, 3, 24), torch.zeros(2))),
    Case("a head without dimensions", head(torch.tensor(1.0), torch.tensor(1.0))),
    Case("a head of whole numbers", head(torch.zeros(24, 24, dtype=torch.int64), torch.zeros(24))),
    Case("a head that is a list", head([1.0], [2.0])),
    Case("a head without rows", head(torch.zeros(0, 24), torch.zeros(0))),
    Case(
        "a head of one repeated number",
        head(torch.zeros(1).expand(10**9, 24), torch.zeros(1).expand(10**9)),
    ),
    Case("a sparse head", head(torch.eye(24).to_sparse(), torch.zeros(24))),
    Case(
        "a head that is not a number",
        head(torch.full((24, 24), torch.nan), torch.zeros(24)),
        loads=None,
    ),
    Case("weights of one repeated number", _repeated),
    Case("weights with fewer layers", _fewer_layers_stored),
    Case("weights with fewer layers, llm", _fewer_layers_stored, "llm"),
    Case("weights in half precision", _other_dtype, loads=True),
    Case("weights named by an index outside of the folder", _index_outside),
    Case(
        "an index that is a list",
        lambda f: (
            (f / "model.safetensors").unlink(),
            (f / "model.safetensors.index.json").write_text("[]"),
        ),
    ),
    Case(
        "an index of numbers",
        lambda f: (
            (f / "model.safetensors").unlink(),
            (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": 5}}'),
        ),
    ),
    Case(
        "a header longer than the file",
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}"),
    ),
    Case(
        "a header of a huge shape",
        header(lambda h: next(v for v in h.values() if "shape" in v).update(shape=[2**40, 2**40])),
    ),
    Case(
        "a header of other shapes",
        header(lambda h: [v["shape"].reverse() for v in h.values() if "shape" in v]),
        loads=None,
    ),
    Case(
        "a header of strings",
        header(lambda h: [v.update(shape="no") for v in h.values() if "shape" in v]),
    ),
    Case(
        "_attn_implementation of a kernel",
        config(_attn_implementation="evil/kernel", hidden_act="mish"),
        loads=True,
    ),
    Case(
        "attn_implementation of a kernel, llm",
        config(
            attn_implementation="evil/kernel",
            _attn_implementation="evil/kernel",
            _attn_implementation_internal="evil/kernel",
        ),
        "llm",
        loads=True,
    ),
    Case(
        "attn_implementation of a kernel, lightweight",
        config(attn_implementation="evil/kernel", _attn_implementation={"": "evil/kernel"}),
        "lightweight",
        loads=True,
    ),
    Case(
        "weights elsewhere by transformers_weights",
        config(transformers_weights="../elsewhere.safetensors", hidden_act="mish"),
        loads=True,
    ),
    Case(
        "return_dict false",
        config(return_dict=False, output_attentions=True, hidden_act="mish"),
        loads=True,
    ),
    Case("start_layer -10**9", config(start_layer=-(10**9)), "layerwise"),
    Case("start_layer 99", config(start_layer=99), "layerwise"),
    Case("start_layer missing", without("start_layer"), "lightweight"),
    Case("layer_sep 0", config(layer_sep=0), "lightweight"),
    Case("layer_types of nonsense", config(layer_types=["a"]), "lightweight"),
    Case("rope_theta a string", config(rope_theta="x"), "llm"),
    Case("final_logit_softcapping 0", config(final_logit_softcapping=0), "lightweight"),
    Case("query_pre_attn_scalar 0", config(query_pre_attn_scalar=0), "lightweight"),
]


def _bos(folder: Path, value: Any) -> None:
    edit(folder / "config.json", bos_token_id=value)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            content.pop("bos_token", None)
            path.write_text(json.dumps(content), encoding="utf-8")


def is_right(case: Case, result: str) -> bool:
    if result.startswith("RAW"):
        return False
    if case.loads is None:
        return True
    return (result == "loads") == case.loads


SMALL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "1_Pooling/config.json",
    "sparse_linear.pt",
    "model.safetensors",
)


def damage(folder: Path, rng: random.Random) -> str:
    """Flip a bit or a byte of a small file, or of a large one's header, or cut it."""
    name = rng.choice([one for one in SMALL_FILES if (folder / one).exists()])
    path = folder / name
    raw = bytearray(path.read_bytes())
    reach = len(raw)
    if name == "model.safetensors":
        reach = 8 + struct.unpack("<Q", raw[:8])[0]
    at = rng.randrange(reach)
    how = rng.choice(("bit", "byte", "cut", "digit"))
    if how == "cut":
        del raw[at:]
    elif how == "bit":
        raw[at] ^= 1 << rng.randrange(8)
    elif how == "byte":
        raw[at] = rng.randrange(256)
    else:
        digits = [i for i in range(reach) if chr(raw[i]).isdigit()] or [at]
        at = rng.choice(digits)
        raw[at : at + 1] = rng.choice((b"9", b"99999", b"-1", b"1e9", b"null", b"[]", b'"x"'))
    path.write_bytes(raw)
    return f"{how} at {at} of {name}"


def damaged(
    originals: dict[Kind, Path], number: int, seed: int = 0
) -> Iterator[tuple[Kind, str, str]]:
    """Damage checkpoints one after another; gives kind, damage and what came of it."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "m"
        for _ in range(number):
            kind = rng.choice(list(originals))
            shutil.copytree(originals[kind], copy)
            yield kind, damage(copy, rng), outcome(kind, copy)
            shutil.rmtree(copy)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--damages", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    wrong, results, slow = [], collections.Counter(), []
    with tempfile.TemporaryDirectory() as place:
        for case in CASES:
            folder = make(case.kind, Path(place) / "case" / "m")
            case.change(folder)
            began = time.perf_counter()
            result = outcome(case.kind, folder)
            taken = time.perf_counter() - began
            if taken > 2:
                slow.append(f"{case.name}: {taken:.1f} s")
            if not is_right(case, result):
                wrong.append(f"{case.name}: {result}")
            results[result.partition(":")[0]] += 1
            shutil.rmtree(Path(place) / "case")
        print(f"{len(CASES)} crafted checkpoints: {dict(results)}")
        print(*(f"  WRONG {one}" for one in wrong), *(f"  slow {one}" for one in slow), sep="\n")
        originals = {kind: make(kind, Path(place) / kind) for kind in ("m3", "bge")}
        counts, raw = collections.Counter(), []
        for kind, done, result in damaged(originals, asked.damages, asked.seed):
            counts[result.partition(":")[0]] += 1
            if result.startswith("RAW"):
                raw.append(f"{kind}, {done}: {result}")
        print(f"{asked.damages} damages: {dict(counts)}")
        print(*(f"  {one}" for one in raw[:40]), sep="\n")
    return 1 if wrong or raw else 0


if __name__ == "__main__":
    sys.exit(main())

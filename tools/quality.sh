#!/usr/bin/env bash
# Converts a model to every type and prints what each loses: size, weight error, perplexity, KL divergence (docs/quality.md).
#
#   tools/quality.sh [MODEL [TEXT [OPTIONS OF phi4flash quality ...]]]
#
# MODEL is a folder, the bundled model by default; TEXT is plain, or .jsonl with a "text" in each line, the bundled model's held-out
# problems by default. PHI4FLASH names the program; without it the preset `release` builds one.
set -euo pipefail
case ${1:-} in
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
model=${1:-$root/models/tiny-arithmetic}
text=${2:-$root/tests/data/arithmetic_held_out.jsonl}
for path in "$model" "$text"; do [ -e "$path" ] || { echo "quality: $path: there is no such folder or file (see --help)" >&2; exit 2; }; done
shift $(($# < 2 ? $# : 2))

if [ -z "${PHI4FLASH:-}" ]; then
    (cd "$root" && cmake --preset release && cmake --build --preset release --target phi4flash_cli) > /dev/null
    PHI4FLASH=$root/build/release/bin/phi4flash
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

judged=()
convert() { # NAME OPTIONS OF phi4flash convert...
    local file=$folder/$1.gguf
    shift
    "$PHI4FLASH" convert --model "$model" --output "$file" "$@" > /dev/null
    judged+=(--model "$file")
}
convert bf16 --type bf16
convert q8 --type q8
convert q4_dense-embedding_q8 --type q4_dense --embedding q8
convert q4_dense --type q4_dense
convert q4-embedding_q8 --type q4 --embedding q8
convert q4 --type q4
"$PHI4FLASH" quality --reference "$model" "${judged[@]}" --text "$text" --activations both "$@"

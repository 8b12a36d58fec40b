#!/usr/bin/env bash
# Configures and builds a preset, and shows how far it is: a line that changes on a terminal, a line for every tenth elsewhere.
#
#   tools/build.sh PRESET [TARGET...]
#
# The whole log is build/PRESET.build.log; of a build that fails, the errors are printed. tools/setup.sh must have run before.
set -euo pipefail
case ${1:-} in
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    "" | -*) echo "build: want the name of a preset, have '${1:-}' (see --help)" >&2; exit 2 ;;
esac
preset=$1
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. build/deps/environment.sh
log=build/$preset.build.log

show_progress() { # reads ninja's lines, "[done/all] what"; on a terminal the seconds go on while nothing comes
    local line part='' done=0 all=0 what='' tenth=0 columns=80 code
    [ -t 1 ] && columns=$(tput cols 2> /dev/null || echo 80)
    while true; do
        code=0
        IFS= read -r -t 1 line || code=$?
        part+=$line
        if [ $code = 0 ]; then
            [[ $part =~ ^\[([0-9]+)/([0-9]+)\]\ (.*) ]] && done=${BASH_REMATCH[1]} all=${BASH_REMATCH[2]} what=${BASH_REMATCH[3]##*/}
            part=''
        elif [ $code -le 128 ]; then
            break # the end; more than 128 is a second without a line
        fi
        if [ -t 1 ]; then
            line="build: $preset $done of $all, $((SECONDS - started)) s  ${what:+last: }$what"
            printf '\r\033[K%s' "${line:0:columns-1}"
        elif [ "$all" -gt 2 ] && [ $((done * 10 / all)) -gt "$tenth" ]; then # up to 2: ninja looks for new files
            tenth=$((done * 10 / all))
            echo "build: $preset $done of $all, $((SECONDS - started)) s"
        fi
    done
    [ -t 1 ] && printf '\r\033[K'
    return 0
}

started=$SECONDS
if ! cmake --preset "$preset" > "$log" 2>&1; then
    cat "$log" >&2
    echo "build: $preset cannot be configured" >&2
    exit 1
fi
grep -A 8 "CMake Warning" "$log" >&2 || true
targets=()
[ $# = 0 ] || targets=(--target "$@")
if ! cmake --build --preset "$preset" "${targets[@]}" 2>&1 | tee -a "$log" | show_progress; then
    grep -B 1 -A 12 -E "error|FAILED" "$log" | head -n 120 >&2 || tail -n 40 "$log" >&2
    echo "build: $preset does not build; the whole log is in $log" >&2
    exit 1
fi
echo "build: $preset built in $((SECONDS - started)) s"

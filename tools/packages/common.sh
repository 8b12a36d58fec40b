# What the proofs of tools/packages.sh share: a clean copy of the checkout, stand-ins' headers, hiding, running and looking at what was printed.
# Expects $root, the checkout.
. "$root/tools/headers.sh"

packages_dir=${PHI4FLASH_PACKAGES_DIR:-/tmp/phi4flash_packages}
version=$(python3 "$root/tools/print_version.py")
question="What is 347 + 285?"
answer='\boxed{632}'

say() { echo "packages: $*"; }
fail() { echo "packages: $*" >&2; exit 1; }

# prepare NAME: an empty folder $work with the clean copy $work/source in it, and the bundled model beside.
prepare() {
    case $packages_dir in
        "$root" | "$root"/*) fail "PHI4FLASH_PACKAGES_DIR must be outside of the checkout, have $packages_dir" ;;
        /*) ;;
        *) fail "PHI4FLASH_PACKAGES_DIR must begin with a slash, have $packages_dir" ;;
    esac
    if [ -d "$packages_dir" ] && [ ! -f "$packages_dir/.ours" ] && [ -n "$(ls -A "$packages_dir")" ]; then
        fail "$packages_dir has files that are not of this script: name an empty folder, or none, in PHI4FLASH_PACKAGES_DIR"
    fi
    mkdir -p "$packages_dir"
    touch "$packages_dir/.ours"
    work=$packages_dir/$1
    log=$packages_dir/$1.log
    rm -rf "$work"
    mkdir -p "$work/source"
    : > "$log"
    (cd "$root" && git ls-files -z | tar -c --null -T -) | tar -x -C "$work/source"
    cp -R "$root/models/tiny-arithmetic" "$work/model"
}

highway_version() { sed -n 's/^#define HWY_\(MAJOR\|MINOR\|PATCH\) \([0-9]*\)$/\2/p' "$(headers_of hwy)/hwy/base.h" | paste -s -d. -; }
json_version() {
    sed -n 's/^#define NLOHMANN_JSON_VERSION_\(MAJOR\|MINOR\|PATCH\) \([0-9]*\).*/\2/p' \
        "$(headers_of nlohmann)/nlohmann/detail/abi_macros.hpp" | paste -s -d. -
}

# run COMMAND...: with its output in the log, which is shown if it fails; $output is what it printed.
run() {
    local code=0
    echo "\$ $*" >> "$log"
    output=$("$@" 2>&1) || code=$?
    printf '%s\n' "$output" >> "$log"
    if [ $code != 0 ]; then
        printf '%s\n' "$output" | tail -n 40 >&2
        fail "failed ($code): $* (see $log)"
    fi
}
run_failing() {
    echo "\$ $*" >> "$log"
    if output=$("$@" 2>&1); then
        printf '%s\n' "$output" >> "$log"
        fail "should have failed: $* (see $log)"
    fi
    printf '%s\n' "$output" >> "$log"
}
expect() {
    local text
    for text in "$@"; do
        [[ $output == *"$text"* ]] || fail "not printed: $text (see $log)"
    done
}

# away COMMAND...: where this checkout, with its build tree, is an empty folder; nothing else changes, and nothing outside notices.
away() { unshare --mount sh -c 'mount -t tmpfs none "$0" && exec "$@"' "$root" "$@"; }
if ! away true 2> /dev/null; then
    say "namespaces are not to be had (they need root): this checkout stays visible to the consumers"
    away() { "$@"; }
fi

# new_consumer: an empty folder $app with examples/consumer in it; to be called while there is a source.
new_consumer() {
    app=$work/app
    rm -rf "$app"
    cp -R "$work/source/examples/consumer" "$app"
}

# in_app COMMAND...: in the consumer's folder, without the checkout and what might point at it.
in_app() { run away env -C "$app" -u PHI4FLASH_SHARED -u CPLUS_INCLUDE_PATH -u PKG_CONFIG_PATH "$@"; }

# check_consumer PROGRAM: Highway is in use (a target of Highway's that is not the portable one), JSON is in, and the model answers.
check_consumer() {
    in_app "$1" "$work/model" "$question"
    expect "phi4flash $version, back end highway, target " "json 1" "$answer"
    [[ $output != *"target scalar"* && $output != *"target emu128"* ]] || fail "the consumer runs without vectors (see $log)"
    say "  $(printf '%s\n' "$output" | head -n 1)"
}

# Sourced: where the headers of dependencies are, and a folder of links to some of them alone, so that a compiler for another system does not
# see the rest of this one's. Expects $root, the checkout.

# headers_of FOLDER: the include folder that has it, where tools/setup.sh looks too.
headers_of() {
    local from
    for from in "$root/build/deps/usr/include" /usr/local/include /usr/include; do
        [ -d "$from/$1" ] && echo "$from" && return
    done
    echo "$(basename "$0" .sh): no headers of $1: run tools/setup.sh" >&2
    return 1
}

# link_headers PLACE FOLDER...: PLACE/hwy is a link to .../hwy.
link_headers() {
    local place=$1 folder
    mkdir -p "$place"
    for folder in "${@:2}"; do ln -sfn "$folder" "$place/${folder##*/}" || return; done
}

# cpack: Debian packages, installed by dpkg into a copy of this system that is thrown away, and the .tar.gz, unpacked into a folder.

# Headers that the archive of this release has too old are brought by tools/setup.sh, and then part of libphi4flash-dev.
[ ! -d "$root/build/deps/usr" ] || { mkdir -p "$work/source/build/deps" && cp -R "$root/build/deps/usr" "$work/source/build/deps/"; }
run cmake -S "$work/source" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPHI4FLASH_BUILD_TESTS=OFF -DPHI4FLASH_BUILD_BENCHMARKS=OFF
run cmake --build "$work/build"
run env -C "$work/build" cpack -B "$work/packages"
new_consumer
rm -rf "$work/source" "$work/build"
(cd "$work/packages" && rm -rf _CPack_Packages && ls -1s --block-size=K *.deb *.tar.gz | sed 's/^/packages:   /')
if command -v lintian > /dev/null; then
    # A first upload closes a bug of its own, and the address of who packages is not ours to know.
    run lintian --allow-root --suppress-tags initial-upload-closes-no-bugs,bogus-mail-host,bogus-mail-host-in-debian-changelog "$work"/packages/*.deb
    [ -z "$output" ] || { printf '%s\n' "$output" >&2; fail "lintian complains"; }
    say "  lintian has nothing to say"
fi

# fresh_system SCRIPT: runs it in a copy of this machine's files, where the checkout is hidden. What it changes is gone afterwards.
fresh_system() {
    unshare --mount sh -e -c '
        mount -t tmpfs none /mnt
        mkdir /mnt/changes /mnt/work /mnt/system
        mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/changes,workdir=/mnt/work /mnt/system
        mount --rbind /dev /mnt/system/dev
        mount --rbind /proc /mnt/system/proc
        mount -t tmpfs none "/mnt/system$0"
        cp -R "$1" /mnt/system/proof
        exec chroot /mnt/system sh -e -c "$2"' "$root" "$work" "$1"
}
if fresh_system true 2> /dev/null; then
    run fresh_system 'cd /proof/app
        dpkg -i /proof/packages/*.deb
        cmake --preset system
        cmake --build --preset system
        build/system/consumer /usr/share/phi4flash/models/tiny-arithmetic "What is 347 + 285?"
        c++ main.cpp $(pkg-config --cflags --libs phi4flash) -O1 -o by_pkg_config
        ./by_pkg_config
        cd / && echo "What is 347 + 285?" | phi4flash chat
        man -l /usr/share/man/man1/phi4flash.1.gz | head -n 3 || true
        dpkg -r phi4flash libphi4flash-dev && [ ! -e /usr/share/phi4flash ]'
    expect "phi4flash $version, back end highway, target " "json 1" "$answer"
    [ "$(printf '%s\n' "$output" | grep "back end highway" | grep -cv "target scalar\|target emu128")" = 2 ] ||
        fail "find_package and pkg-config do not both use Highway (see $log)"
    [ "$(printf '%s\n' "$output" | grep -cF "$answer")" = 2 ] || fail "consumer and installed program do not both answer (see $log)"
    say "  installed by dpkg: find_package, pkg-config and the program answer; removed without a trace"
else
    say "  dpkg -i is left out: a throw-away copy of the system needs root and overlayfs"
fi

mkdir "$work/a folder"
tar -xzf "$work"/packages/*.tar.gz -C "$work/a folder" --strip-components 1
in_app env "PHI4FLASH_PREFIX=$work/a folder" cmake --preset system
in_app cmake --build --preset system
check_consumer build/system/consumer
in_app sh -c 'echo "$1" | "$0" chat' "$work/a folder/bin/phi4flash" "$question"
expect "$answer"
say "  unpacked from .tar.gz: find_package and the program answer"

# meson: a project with subprojects/phi4flash.wrap, as registry_forms.py writes it; its archive is taken from subprojects/packagefiles instead of
# the network. Highway and JSON are found by pkg-config, as where a distribution has them.

have_meson=$(command -v meson) || fail "meson is not installed: tools/setup.sh --meson"
new_consumer
mkdir -p "$app/subprojects/packagefiles" "$work/pkgconfig"
archive=$app/subprojects/packagefiles/phi4flash-$version.tar.gz
tar -C "$work" --transform "s,^source,phi4flash-$version," -czf "$archive" source
run python3 "$work/source/packaging/registry_forms.py" --repository someone/phi4flash --archive "$archive" --output "$work/registry"
grep -v '^source_url' "$work/registry/phi4flash.wrap" > "$app/subprojects/phi4flash.wrap"
for pair in "libhwy hwy $(highway_version)" "nlohmann_json nlohmann $(json_version)"; do
    read -r module folder number <<< "$pair"
    cp -R --parents -L -t "$work/pkgconfig" "$(headers_of "$folder")/$folder"
    printf 'Name: %s\nDescription: a stand-in\nVersion: %s\nCflags: -I%s\n' "$module" "$number" "$work/pkgconfig$(headers_of "$folder")" \
        > "$work/pkgconfig/$module.pc"
done
rm -rf "$work/source"
in_app env "PKG_CONFIG_LIBDIR=$work/pkgconfig" "$have_meson" setup build
[[ $output != *"WARNING: phi4flash"* ]] || fail "the subproject found no Highway or JSON (see $log)"
in_app "$have_meson" compile -C build
check_consumer build/consumer

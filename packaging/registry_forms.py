#!/usr/bin/env python3
"""Writes what registries take when a version has been published: the vcpkg port with vcpkg_from_github, and the meson wrap.

    packaging/registry_forms.py --repository OWNER/NAME --archive v0.2.0.tar.gz --output FOLDER

The archive is what GitHub offers for the tag v<version>, as downloaded: its hashes are written. FOLDER gets ports/phi4flash and phi4flash.wrap.
"""
import argparse
import hashlib
import json
import pathlib
import re
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT_SOURCE = re.compile(r"# This checkout:\nget_filename_component\(SOURCE_PATH [^\n]*\)\n")


def fail(sentence):
    sys.exit(f"registry_forms: {sentence}")


def look_into(archive):
    """The archive's one folder, and the version of the library in it."""
    with tarfile.open(archive) as files:
        headers = [m for m in files.getmembers() if m.name.endswith("include/phi4flash/config/version.hpp")]
        if len(headers) != 1 or headers[0].name.count("/") != 4:
            fail(f"{archive} is no archive of this library: no */include/phi4flash/config/version.hpp in it")
        text = files.extractfile(headers[0]).read().decode("utf-8")
    return headers[0].name.split("/")[0], re.search(r'VERSION_STRING "([^"]+)"', text).group(1)


def vcpkg_port(repository, version, sha512, folder):
    folder.mkdir(parents=True, exist_ok=True)
    overlay = HERE / "vcpkg" / "ports" / "phi4flash"
    manifest = {}
    for key, value in json.loads((overlay / "vcpkg.json").read_text(encoding="utf-8")).items():
        manifest[key] = value
        if key == "version" and value != version:
            fail(f"vcpkg.json says version {value}, the archive {version}")
        if key == "description":
            manifest["homepage"] = f"https://github.com/{repository}"
    (folder / "vcpkg.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    source = (f'vcpkg_from_github(\n    OUT_SOURCE_PATH SOURCE_PATH\n    REPO {repository}\n    REF "v${{VERSION}}"\n    SHA512 {sha512}\n'
              "    HEAD_REF main\n)\n")
    portfile, replaced = CHECKOUT_SOURCE.subn(source, (overlay / "portfile.cmake").read_text(encoding="utf-8"))
    if replaced != 1:
        fail("portfile.cmake does not begin with the checkout's SOURCE_PATH")
    (folder / "portfile.cmake").write_text(portfile, encoding="utf-8")
    (folder / "usage").write_text((overlay / "usage").read_text(encoding="utf-8"), encoding="utf-8")


def meson_wrap(repository, version, directory, sha256, path):
    path.write_text(f"""[wrap-file]
directory = {directory}
source_url = https://github.com/{repository}/archive/refs/tags/v{version}.tar.gz
source_filename = phi4flash-{version}.tar.gz
source_hash = {sha256}

[provide]
dependency_names = phi4flash
""", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", required=True, metavar="OWNER/NAME")
    parser.add_argument("--archive", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    options = parser.parse_args()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", options.repository):
        fail(f"want OWNER/NAME, have '{options.repository}'")
    try:
        data = options.archive.read_bytes()
        directory, version = look_into(options.archive)
    except (OSError, tarfile.TarError) as problem:
        fail(f"{options.archive}: {problem}")
    vcpkg_port(options.repository, version, hashlib.sha512(data).hexdigest(), options.output / "ports" / "phi4flash")
    meson_wrap(options.repository, version, directory, hashlib.sha256(data).hexdigest(), options.output / "phi4flash.wrap")
    print(f"registry_forms: {options.repository} {version} in {options.output}")


if __name__ == "__main__":
    main()

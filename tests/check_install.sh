#!/bin/bash
# check_install.sh BUILD_DIR - `cmake --install` into a prefix puts the programs and the texts in their places, and the
# installed programs tell the version of the build.
set -euo pipefail
build=$1
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
cmake --install "$build" --prefix "$prefix" >/dev/null

version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' "$build/CMakeCache.txt")
bad=0
expected=(share/doc/baton/README.md share/doc/baton/LICENSE bin/baton)
for program in "$build"/bin/baton-{router,prefilld,decoded}; do
    if [ -x "$program" ]; then expected+=("bin/$(basename "$program")"); fi
done
if [ -f ops/model/config.json ]; then
    for file in ops/model/*.safetensors ops/model/{config,tokenizer}.json; do
        expected+=("share/baton/model/$(basename "$file")")
    done
fi
for file in "${expected[@]}"; do
    if ! [ -f "$prefix/$file" ]; then
        echo "not installed: $file"
        bad=1
    fi
    case $file in
        bin/*)
            said=$("$prefix/$file" --version)
            if [ "$said" != "$(basename "$file") $version" ]; then
                echo "$file --version says '$said'"
                bad=1
            fi
            ;;
    esac
done
exit $bad

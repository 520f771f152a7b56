#!/bin/bash
# check_setup.sh - what ops/setup does as root, as a user with sudo and as a user without, with packages present and absent;
# with nvcc and without.
# It runs in a folder of its own with stand-ins for dpkg-query, apt-get, id and sudo that note how they were called.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{ops/gpu,tests,tools,.venv/bin}
cp ops/setup "$work/ops/"
cp ops/gpu/requirements.txt "$work/ops/gpu/"
cp tests/requirements.txt "$work/tests/"
# An environment that is up to date: making one needs the network.
printf '#!/bin/sh\n' >"$work/.venv/bin/python"
chmod +x "$work/.venv/bin/python"
sha256sum <tests/requirements.txt >"$work/.venv/requirements.sha256"

stand_in() {
    { echo '#!/bin/bash'; cat; } >"$work/tools/$1"
    chmod +x "$work/tools/$1"
}
stand_in dpkg-query <<'TEXT'
for package in "$@"; do
    case $package in -*) continue ;; esac
    grep -qxF "$package" "$WORK/absent" || echo "$package installed"
done
TEXT
stand_in apt-get <<'TEXT'
echo "apt-get $*" >>"$WORK/calls"
[ ! -e "$WORK/no-network" ] || exit 100
TEXT
stand_in id <<'TEXT'
cat "$WORK/uid"
TEXT

bad=0
# expect NAME EXIT-CODE APT-CALLS [ARGUMENT...]: runs ops/setup and compares.
expect() {
    local code=0 calls
    : >"$work/calls"
    (cd "$work" && WORK=$work PATH=$work/tools:/usr/bin:/bin ops/setup "${@:4}" >"$work/stdout" 2>"$work/stderr" </dev/null) || code=$?
    calls=$(paste -sd '|' "$work/calls")
    if [ "$code" != "$2" ] || [ "$calls" != "$3" ] || [ -s "$work/stdout" ]; then
        echo "$1: exit $code, apt: '$calls', stdout: '$(cat "$work/stdout")'"
        cat "$work/stderr"
        bad=1
    fi
}
told() {
    grep -qF -- "$1" "$work/stderr" || { echo "not told: $1"; bad=1; }
}
both='apt-get update -qq|apt-get install -y -qq --no-install-recommends libuv1-dev libucx-dev'

# Debian's own sudo must not be found by the users without one.
stand_in sudo <<<'exit 1'
echo 0 >"$work/uid"
: >"$work/absent"
expect 'root, nothing absent' 0 ''
printf 'libuv1-dev\nlibucx-dev\n' >"$work/absent"
expect 'root, two absent' 0 "$both"
touch "$work/no-network"
expect 'root, no network' 1 'apt-get update -qq'
told 'apt-get install -y --no-install-recommends libuv1-dev libucx-dev'
rm "$work/no-network"

echo 1000 >"$work/uid"
expect 'user whose sudo refuses' 1 ''
told 'apt-get install -y --no-install-recommends libuv1-dev libucx-dev'
# shellcheck disable=SC2016  # it expands in the stand-in
stand_in sudo <<<'[ "$1" = -n ] || exit 1; shift; exec "$@"'
expect 'user with sudo' 0 "$both"
: >"$work/absent"
expect 'user, nothing absent' 0 ''

# Without nvcc the lanes want no UCX, and a build with CUDA cannot be.
ucx() {
    if [ "$([ -e "$work/.ucx" ] && echo yes || echo no)" != "$2" ]; then echo "$1: .ucx is there: not '$2'"; bad=1; fi
}
expect 'lanes without nvcc' 0 '' --lanes
ucx 'lanes without nvcc' no
expect 'an unknown UCX' 2 '' --ucx 1.13
# The stand-in for Python downloads nothing: setup says so, and leaves nothing that looks finished.
stand_in nvcc <<<'echo "Cuda compilation tools, release 12.9, V12.9.1"'
expect 'lanes with nvcc, no network' 1 '' --lanes
told 'ops/gpu/requirements.txt'
# One that is up to date is left alone.
mkdir -p "$work/.ucx/lib"
touch "$work/.ucx/lib/libucp.so"
{ cat ops/gpu/requirements.txt; sed -n '/^make_ucx() {/,/^}/p' ops/setup >"$work/recipe"; bash -c '. "$1"; declare -f make_ucx' - "$work/recipe"; } |
    sha256sum >"$work/.ucx/requirements.sha256"
expect 'lanes with nvcc, nothing absent' 0 '' --lanes
expect 'nvcc is too old and alone' 1 '' --cuda
told 'CUDA 13'
told 'libcublas-dev-13-0'
rm "$work/tools/nvcc"
expect 'no nvcc' 1 '' --cuda
told 'nvcc'
exit $bad

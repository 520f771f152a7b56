#!/bin/sh
# planted.sh BUILD_DIR [SECONDS] - exits 0 only if libFuzzer finds the overflow planted in fuzz_planted.c.
# BUILD_DIR is a build with BATON_SANITIZE=fuzzer.
set -u
build=${1:?usage: planted.sh BUILD_DIR [SECONDS]}
seconds=${2:-30}
target=$build/fuzz/fuzz_planted
[ -x "$target" ] || { echo "planted.sh: $target is not built (BATON_SANITIZE=fuzzer)" >&2; exit 1; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
"$target" -max_total_time="$seconds" -max_len=64 -artifact_prefix="$work/" "$work" >"$work/log" 2>&1
if grep -q 'heap-buffer-overflow' "$work/log" && ls "$work"/crash-* >/dev/null 2>&1; then
    echo "planted overflow found"
    exit 0
fi
echo "planted.sh: the planted overflow was not found within $seconds s" >&2
tail -n 5 "$work/log" >&2
exit 1

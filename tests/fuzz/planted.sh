#!/bin/sh
# planted.sh BUILD_DIR [SECONDS] - exits 0 only if libFuzzer finds the overflow planted in fuzz_planted.c and keeps an
# input that shows it again. BUILD_DIR is a build with BATON_SANITIZE=fuzzer.
# Which sanitizer speaks first, and what it calls the overflow, depends on its length and on the heap around it.
set -u
build=${1:?usage: planted.sh BUILD_DIR [SECONDS]}
seconds=${2:-30}
target=$build/fuzz/fuzz_planted
[ -x "$target" ] || { echo "planted.sh: $target is not built (BATON_SANITIZE=fuzzer)" >&2; exit 1; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
mkdir "$work/corpus" || exit 1
"$target" -max_total_time="$seconds" -max_len=64 -artifact_prefix="$work/" "$work/corpus" >"$work/log" 2>&1
for kept in "$work"/crash-*; do
    [ -f "$kept" ] || break
    "$target" "$kept" >"$work/again" 2>&1
    if grep -q 'ERROR: AddressSanitizer: \|fuzz_planted\.c:.*: runtime error: ' "$work/again"; then
        echo "planted overflow found"
        exit 0
    fi
done
echo "planted.sh: the planted overflow was not found within $seconds s" >&2
grep -h -m 1 -A 12 'ERROR: \|runtime error: ' "$work/log" >&2 || tail -n 5 "$work/log" >&2
exit 1

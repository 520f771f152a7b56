#!/bin/bash
# check_scripts.sh - every shell script parses (and pleases shellcheck where that is installed), and the commands of ops/
# that the README names exist.
set -euo pipefail
bad=0

mapfile -t scripts < <(grep -rIlE --exclude-dir='.*venv' -m 1 '^#!/bin/(ba)?sh' ops tests .ci)
for script in "${scripts[@]}"; do
    if ! bash -n "$script"; then bad=1; fi
done
if command -v shellcheck >/dev/null && ! shellcheck --severity=warning "${scripts[@]}"; then bad=1; fi

mapfile -t commands < <(grep -oE '\bops/[a-z][a-z-]*( |`|$)' README.md | tr -d ' `' | sort -u)
for command in "${commands[@]}"; do
    if ! [ -x "$command" ]; then
        echo "README.md names $command, which is not an executable file"
        bad=1
    fi
done
echo "${#scripts[@]} scripts"
exit $bad

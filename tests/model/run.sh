#!/bin/bash
# run.sh - checks handoff.pml with spin: every row of `holds` must have no error, every row of `violated` (a guard taken out)
# must have one. Prints a line for each; exit 1 if any is not as it must be.
#
#     tests/model/run.sh [NAME...]    all rows, or those named
#
# Needs spin and gcc. SECONDS_MAX and MEMORY_MB below bound each row; a row that reaches them has no verdict, which counts
# as a failure. Not optimised: gcc -O2 takes longer to build a row than the row takes to run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

SECONDS_MAX=120
MEMORY_MB=3000

# NAME FLAGS: budgets of faults (LOSS, DUP, CRP and CRD = crash of P and D, DIG = a bad digest, FULL, CAN = client cancels, EOS
# at the first token, EARLY = a timer fires too soon, DRAIN), NP = prefill daemons. 2 attempts, 2 frames, 3 tokens.
holds=(
    "none        -DNP=1 -DNOFAULT"
    "loss        -DNP=1 -DLOSS=1"
    "dup         -DNP=1 -DDUP=1"
    "crp         -DNP=1 -DCRP=1"
    "early       -DNP=1 -DEARLY=1"
    "eos         -DNP=1 -DEOS=1"
    "drain       -DNP=2 -DDRAIN=1"
    "crd         -DNP=2 -DCRD=1"
    "dig         -DNP=2 -DDIG=1"
    "full        -DNP=2 -DFULL=1"
    "can         -DNP=2 -DCAN=1"
    "loss-loss   -DNP=1 -DLOSS=2"
    "dup-dup     -DNP=1 -DDUP=2"
    "dig-dup     -DNP=1 -DDIG=1 -DDUP=1"
    "dig-loss    -DNP=1 -DDIG=1 -DLOSS=1"
    "can-dup     -DNP=1 -DCAN=1 -DDUP=1"
    "can-loss    -DNP=1 -DCAN=1 -DLOSS=1"
    "can-crp     -DNP=1 -DCAN=1 -DCRP=1"
    "early-dig   -DNP=1 -DEARLY=1 -DDIG=1"
    "early-can   -DNP=1 -DEARLY=1 -DCAN=1"
    "crp-dig     -DNP=1 -DCRP=1 -DDIG=1"
    "crp-loss    -DNP=1 -DCRP=1 -DLOSS=1"
    "crp-crd     -DNP=1 -DCRP=1 -DCRD=1"
    "crd-dig     -DNP=1 -DCRD=1 -DDIG=1"
    "crd-can     -DNP=1 -DCRD=1 -DCAN=1"
    "eos-crp     -DNP=1 -DEOS=1 -DCRP=1"
)
violated=(
    "P_incarnation_of_ticket_unchecked  -DNP=1 -DCRP=1 -DB_PINC"
    "new_ticket_before_quiesced         -DNP=1 -DDIG=1 -DB_REPUSH"
    "ticket_accepted_twice              -DNP=1 -DDUP=1 -DB_DUPT"
    "ticket_of_a_dead_D                 -DNP=1 -DCRD=1 -DB_OLDD"
    "quiesced_said_at_once              -DNP=1 -DCAN=1 -DB_QR"
    "manifest_is_no_quiesced            -DNP=1 -DB_MANQ"
    "end_only_at_finished               -DNP=1 -DCRD=1 -DB_FINLOST"
    "tokens_beyond_a_gap_kept           -DNP=1 -DLOSS=1 -DB_BUFKEEP"
    "no_progress_timer                  -DNP=1 -DLOSS=1 -DB_NOTIMER"
)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$PWD/handoff.pml
failed=0

# check NAME holds|violated FLAGS...
check() {
    local name=$1 wanted=$2 errors states verdict start=${EPOCHREALTIME/./} seconds
    shift 2
    mkdir "$work/$name"
    cd "$work/$name"
    spin "$@" -a "$model" >spin.log 2>&1 || { tail -5 spin.log >&2; exit 1; }
    gcc -O0 -w -DCOLLAPSE -DMEMLIM=$MEMORY_MB -DSAFETY -DNOFAIR -o pan pan.c
    timeout $SECONDS_MAX ./pan -m200000 -n >out.log 2>&1 || true
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' out.log)
    states=$(sed -n 's/ *\([0-9]*\) states, stored.*/\1/p' out.log)
    verdict="no verdict"
    if grep -q "max search depth too small\|memory limit\|reached -DMEMLIM" out.log; then errors=; fi
    if [ "$errors" = 0 ]; then verdict=holds; elif [ -n "$errors" ]; then verdict=violated; fi
    seconds=$(((${EPOCHREALTIME/./} - start) / 1000000))
    printf '%-36s %-11s %9s states %4d s  %s\n' "$name" "$verdict" "${states:-?}" "$seconds" "$*"
    if [ "$verdict" != "$wanted" ]; then
        echo "  must be: $wanted. $(grep -m 1 '^pan:' out.log || true)"
        failed=1
    fi
    cd "$OLDPWD"
    rm -rf "${work:?}/$name"
}

chosen() {
    local name=$1
    shift
    (($# == 0)) || [[ " $* " == *" $name "* ]]
}

for row in "${holds[@]/%/ :holds}" "${violated[@]/%/ :violated}"; do
    read -r -a fields <<<"${row% :*}"
    if chosen "${fields[0]}" "$@"; then check "${fields[0]}" "${row##* :}" "${fields[@]:1}"; fi
done
exit $failed

#!/bin/sh
# mutations.sh BUILD_DIR - each guard of the handoff, taken out, must make a simulator seed fail.
build=$1
status=0
for mutation in no_fence_check no_quiesce_wait no_lease_renew no_generation_check early_publish failed_is_quiet committed_is_prompt local_publish; do
    output=$("$build/tests/baton-sim-$mutation" --seeds 1-300)
    if [ $? -eq 0 ]; then
        echo "$mutation: no seed of 1-300 fails, so nothing guards it"
        status=1
    else
        echo "$mutation: found. $(echo "$output" | grep -m1 'failed at')"
    fi
done
exit $status

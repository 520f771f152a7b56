#!/bin/bash
# check_purity.sh BUILD_DIR - the sources of tests/pure.list must not reach the world outside: their objects may not refer to
# the heap, clocks, randomness, threads, files, sockets or event loops. That is what lets the simulator run them.
set -euo pipefail
build=$1
list=tests/pure.list

impure='malloc|calloc|realloc|reallocarray|free|aligned_alloc|posix_memalign|strdup|mmap|munmap|brk'
impure+='|clock|clock_.*|gettimeofday|time|nanosleep|usleep|sleep|timer_.*|localtime.*|gmtime.*'
impure+='|rand|srand|random|srandom|drand48|getrandom|getentropy|getenv|secure_getenv'
impure+='|socket|bind|listen|accept4?|connect|send|sendto|sendmsg|recv|recvfrom|recvmsg|poll|select|epoll_.*'
impure+='|open(64|at)?|close|p?read(64)?|p?write(64)?|f(open|close|read|write|puts|putc|flush|printf)(64)?'
impure+='|v?f?printf|vprintf|dprintf|puts|putchar|perror|stdout|stderr|stdin'
impure+='|fork|vfork|exec.*|system|kill|signal|sigaction|exit|_exit'
impure+='|pthread_.*|thrd_.*|mtx_.*|sem_.*|uv_.*|zmq_.*|ucp_.*|ucs_.*|uct_.*'
impure+='|bt_monotonic_ns|bt_wall_.*|bt_clock_real|bt_random_bytes|bt_crypto_start|bt_log_.*'

bad=0
while read -r pattern; do
    case $pattern in '' | '#'*) continue ;; esac
    mapfile -t sources < <(compgen -G "$pattern")
    if ((${#sources[@]} == 0)); then
        echo "$list: there is no $pattern"
        bad=1
    fi
    for source in "${sources[@]}"; do
        mapfile -t objects < <(find "$build/CMakeFiles" -path "*/bt_*.dir/$source.o")
        if ((${#objects[@]} != 1)); then
            echo "$source: ${#objects[@]} objects in $build, expected one"
            bad=1
            continue
        fi
        found=$(nm -u "${objects[0]}" | awk '{ sub(/@.*/, "", $2); print $2 }' | grep -xE "$impure" || true)
        if [ -n "$found" ]; then
            echo "$source refers to: $(tr '\n' ' ' <<<"$found")"
            bad=1
        fi
    done
done <$list
exit $bad

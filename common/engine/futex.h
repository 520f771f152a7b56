/* futex.h - sleep until a 32-bit word changes. Linux only, private to the process. */
#ifndef BT_COMMON_ENGINE_FUTEX_H
#define BT_COMMON_ENGINE_FUTEX_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Returns when *word is not `seen`, on a wake, or for no reason: the caller looks again. */
static inline void bt_futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static inline void bt_futex_wake(_Atomic uint32_t *word, int threads)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
}

#endif

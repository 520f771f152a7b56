/* mutate.h - the guards that a mutation build takes out, to prove that the simulator would notice.
 *
 * Each answers false in every build but the one that defines its macro; only tests/sim builds such
 * copies of the cores. Nothing else may depend on these macros. */
#ifndef BT_COMMON_KV_MUTATE_H
#define BT_COMMON_KV_MUTATE_H

#include <stdbool.h>

#ifdef BT_MUTATE_NO_FENCE_CHECK
#define BT_MUTATE_FENCE true
#else
#define BT_MUTATE_FENCE false
#endif
#ifdef BT_MUTATE_NO_QUIESCE_WAIT
#define BT_MUTATE_QUIESCE true
#else
#define BT_MUTATE_QUIESCE false
#endif
#ifdef BT_MUTATE_NO_LEASE_RENEW
#define BT_MUTATE_LEASE true
#else
#define BT_MUTATE_LEASE false
#endif

/* True: a message is taken for the grant in its slot without comparing fences. */
static inline bool bt_mutate_no_fence_check(void)
{
    return BT_MUTATE_FENCE;
}

/* True: a landing slot is reused, and Quiesced is said, while puts may be in flight (H1). */
static inline bool bt_mutate_no_quiesce_wait(void)
{
    return BT_MUTATE_QUIESCE;
}

/* True: leases are neither renewed by their holder nor extended by their owner (H3). */
static inline bool bt_mutate_no_lease_renew(void)
{
    return BT_MUTATE_LEASE;
}

#endif

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
#ifdef BT_MUTATE_NO_GENERATION_CHECK
#define BT_MUTATE_GENERATION true
#else
#define BT_MUTATE_GENERATION false
#endif
#ifdef BT_MUTATE_EARLY_PUBLISH
#define BT_MUTATE_PUBLISH true
#else
#define BT_MUTATE_PUBLISH false
#endif
#ifdef BT_MUTATE_FAILED_IS_QUIET
#define BT_MUTATE_FAILED true
#else
#define BT_MUTATE_FAILED false
#endif
#ifdef BT_MUTATE_COMMITTED_IS_PROMPT
#define BT_MUTATE_COMMITTED true
#else
#define BT_MUTATE_COMMITTED false
#endif

#ifdef BT_MUTATE_LOCAL_PUBLISH
#define BT_MUTATE_LOCAL true
#else
#define BT_MUTATE_LOCAL false
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

/* True: P accepts a generation of a landing slot again, also one that a Cancel burnt. */
static inline bool bt_mutate_no_generation_check(void)
{
    return BT_MUTATE_GENERATION;
}

/* True: D lets other prompts find the blocks of a grant before its frames are verified (H1, H2). */
static inline bool bt_mutate_early_publish(void)
{
    return BT_MUTATE_PUBLISH;
}

/* True: D lets other prompts find the blocks of a local prompt before it has computed them (H2). */
static inline bool bt_mutate_local_publish(void)
{
    return BT_MUTATE_LOCAL;
}

/* True: a put that failed counts as one that cannot land any more (H1). */
static inline bool bt_mutate_failed_is_quiet(void)
{
    return BT_MUTATE_FAILED;
}

/* True: the sampler takes the tokens of earlier attempts for prompt (H5). */
static inline bool bt_mutate_committed_is_prompt(void)
{
    return BT_MUTATE_COMMITTED;
}

#endif

/* limits.h - the maxima that more than one module must agree on. What only one module knows is in
 * its own header. */
#ifndef BT_COMMON_BASE_LIMITS_H
#define BT_COMMON_BASE_LIMITS_H

#define BT_RUN_TOKENS 64u             /* a run of the wire form; every block size divides it */
#define BT_CONTEXT_TOKENS_MAX 131072u /* prompt + output of one sequence */
#define BT_LAYERS_MAX 256u
#define BT_KV_HEADS_MAX 256u
#define BT_HEAD_DIM_MAX 256u
#define BT_VOCAB_MAX 1048576u
#define BT_EOS_IDS_MAX 8u
#define BT_NAME_BYTES_MAX 64u    /* daemon, model and pool names, with the NUL */
#define BT_PEERS_MAX 64u         /* daemons of the other role that one daemon is paired with */
#define BT_DAEMONS_MAX 128u      /* daemons one router knows */
#define BT_SLOTS_MAX 128u        /* landing slots of one decode daemon */
#define BT_CELLS_MAX 16u         /* landing cells of one slot */
#define BT_REASON_BYTES_MAX 192u /* text that says why, with the NUL */

#endif

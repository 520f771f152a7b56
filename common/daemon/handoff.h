/* handoff.h - how long the phases of a handoff take, as histograms: baton_handoff_seconds{phase}.
 *
 * Each phase begins and ends on the clock of one daemon, so that no two clocks are compared. What
 * happened to a request before is kept in a small table until its next step; a request that is
 * pushed out of it by later ones is not observed, which changes counts and no times.
 *
 *   prefill  pack      a frame: out of the pool, into the wire form, digested
 *            put       a frame: from the put to its completion
 *            engine    KV of the last layer is final -> end of the batch
 *            wake      -> FirstToken sent
 *            manifest  -> Manifest sent: everything is packed, put and sealed
 *            confirm   -> Accepted heard: arrival, the last unpacking, and the way back
 *            total     KV of the last layer is final -> Accepted heard
 *   decode   unpack    a frame: verified, converted, in the pool
 *            accept    Manifest arrived -> Accepted sent
 *            wait      -> end of the step that ran then; 0 if none did
 *            step      -> first step with the sequence submitted
 *
 * A request whose Ticket came after its first token has no engine, wake, manifest and total: its KV
 * waited for room elsewhere. THREAD  The loop's. ADD ONE: a row in handoff.c. */
#ifndef BT_COMMON_DAEMON_HANDOFF_H
#define BT_COMMON_DAEMON_HANDOFF_H

#include "common/base/metrics.h"
#include "proto/msg.h"

#include <stdbool.h>

typedef enum {
    BT_HANDOFF_PACK,
    BT_HANDOFF_PUT,
    BT_HANDOFF_ENGINE,
    BT_HANDOFF_WAKE,
    BT_HANDOFF_MANIFEST,
    BT_HANDOFF_CONFIRM,
    BT_HANDOFF_TOTAL,
    BT_HANDOFF_UNPACK,
    BT_HANDOFF_ACCEPT,
    BT_HANDOFF_WAIT,
    BT_HANDOFF_STEP,
    BT_HANDOFF_PHASES
} bt_handoff_phase;

#define BT_HANDOFF_SETS 64u /* a request has its place in one of them, */
#define BT_HANDOFF_WAYS 8u  /* which holds the latest so many */

/* What a daemon knows of a request that is being handed off. 0 = has not happened. */
typedef struct {
    bt_request_id request;
    uint64_t last_layer_ns, first_token_ns, manifest_ns, accepted_ns;
    bool step_running; /* when it was accepted */
} bt_handoff_entry;

typedef struct {
    bt_histogram *phases[BT_HANDOFF_PHASES]; /* NULL: of the other role */
    bt_handoff_entry open[BT_HANDOFF_SETS][BT_HANDOFF_WAYS];
    uint32_t turn[BT_HANDOFF_SETS]; /* the way that is taken next */
} bt_handoff;

void bt_handoff_open(bt_handoff *handoff, bt_metrics *metrics, bt_role role);

/* An interval that is over. end before begin counts as 0. */
void bt_handoff_observe(bt_handoff *handoff, bt_handoff_phase phase, uint64_t begin_ns,
                        uint64_t end_ns);

/* The entry of a request, taken over from the oldest of its set if it is not there. */
bt_handoff_entry *bt_handoff_begin(bt_handoff *handoff, const bt_request_id *request);
/* The entry of a request, or NULL. */
bt_handoff_entry *bt_handoff_find(bt_handoff *handoff, const bt_request_id *request);

#endif

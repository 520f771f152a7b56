/* pairing.h - side P of a pair's life: dial, compare, connect, measure, probe; watch the other process; let go.
 *
 *     R: PAIR -> dial D's pair endpoint -> PAIR_HELLO -> PAIR_ACCEPT | PAIR_REFUSE
 *        -> UCX endpoint and rkey, lane checked -> puts into D's scratch slot, timed -> PAIR_STATUS to D (start the probe)
 *        -> core: peer_up, probe -> PAIR_STATUS to R
 *
 * The scratch slot is the one behind D's last landing slot: measuring never touches what a grant could own. */
#ifndef BT_PREFILLD_PAIRING_H
#define BT_PREFILLD_PAIRING_H

#include "common/daemon/worker.h"
#include "prefilld/core.h"
#include "proto/seal.h"

typedef enum {
    BT_PAIRING_NONE,
    BT_PAIRING_DIAL,
    BT_PAIRING_MEASURE,
    BT_PAIRING_PROBE,
    BT_PAIRING_READY,
    BT_PAIRING_REFUSED
} bt_pairing_state;

typedef struct bt_pairings bt_pairings;

typedef struct {
    bt_pairings *owner;
    uint32_t index; /* the core's name for this peer */
    bt_pairing_state state;
    uint64_t d_incarnation;
    char name[BT_NAME_BYTES_MAX];
    bt_link *link;
    uint32_t link_refusals; /* while dialling */
    bt_xfer_peer *peer;
    bt_process_watch *watch;
    bt_seal seal;
    bt_dtype wire;
    uint32_t slot_count, cell_count, cell_bytes;
    uint32_t measure_sent, measure_done;
    uint64_t measure_start_ns;
    uint32_t mb_per_s;
    char transport[64];
    char reason[BT_REASON_BYTES_MAX];
    bt_gauge *mb_gauge;
} bt_pairing;

struct bt_pairings {
    bt_worker *worker;
    bt_prefill_core *core;
    const uint8_t *staging;
    size_t staging_bytes;
    bt_dtype wire_wanted;
    bt_pairing list[BT_PEERS_MAX];
};

void bt_pairings_init(bt_pairings *pairings, bt_worker *worker, bt_prefill_core *core,
                      bt_dtype wire_wanted);
void bt_pairings_finish(bt_pairings *pairings);

/* PAIR and UNPAIR from R. */
void bt_pairings_pair(bt_pairings *pairings, const bt_msg *msg);
void bt_pairings_unpair(bt_pairings *pairings, uint64_t d_incarnation);
/* A put of the measurement completed: true if it was one. */
bool bt_pairings_put_done(bt_pairings *pairings, bt_xfer_peer *peer, uint64_t tag,
                          bt_status status);
/* UCX calls the endpoint broken: the pair ends, R hears of it and asks for it anew. */
void bt_pairings_peer_error(bt_pairings *pairings, const bt_xfer_peer *peer, const char *why);
/* NULL if that incarnation is no peer that the core knows. */
bt_pairing *bt_pairings_find(bt_pairings *pairings, uint64_t d_incarnation);
bt_pairing *bt_pairings_at(bt_pairings *pairings, uint32_t index);
/* After every core event: tells R of probes that were decided. */
void bt_pairings_report(bt_pairings *pairings);

#endif

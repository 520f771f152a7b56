/* pairing.h - side D of a pair's life: answer PAIR_HELLO, open the endpoint, grant the probe, watch the process.
 *
 *     PAIR_HELLO  -> compared (proto/fingerprint.h) -> PAIR_ACCEPT with arena, rkey and a fresh secret | PAIR_REFUSE
 *     PAIR_STATUS -> P's endpoint stands: core: peer_up, which grants the probe
 * A P is proven dead by its process (pidfd): core: peer_dead. A new hello of a living incarnation replaces its endpoint:
 * core: peer_lost, then peer_up again under the same index. */
#ifndef BT_DECODED_PAIRING_H
#define BT_DECODED_PAIRING_H

#include "common/daemon/worker.h"
#include "decoded/core.h"
#include "proto/seal.h"

typedef struct bt_pairings bt_pairings;

typedef struct {
    bt_pairings *owner;
    uint32_t index; /* the core's name for this peer */
    bool used, up;  /* up: the core knows it */
    uint32_t link;  /* where its control messages come from */
    bt_hello hello; /* of P */
    bt_xfer_peer *peer;
    bt_process_watch *watch;
    bt_seal seal;
    bt_dtype wire;
} bt_pairing;

struct bt_pairings {
    bt_worker *worker;
    bt_decode_core *core;
    bt_link_server *server;
    uint32_t slot_count, cell_count, cell_bytes;
    uint8_t *arena;
    bt_pairing list[BT_PEERS_MAX];
};

/* Opens the pair endpoint and names it in the worker's hello. */
bt_status bt_pairings_open(bt_pairings *pairings, bt_worker *worker, const char *endpoint,
                           bt_err *err);
void bt_pairings_finish(bt_pairings *pairings);

/* UCX calls the endpoint broken: grants end, P is told. Whether P is dead only its process can tell. */
void bt_pairings_peer_error(bt_pairings *pairings, const bt_xfer_peer *peer, const char *why);
/* NULL if that incarnation has no endpoint here. */
bt_pairing *bt_pairings_find(bt_pairings *pairings, uint64_t p_incarnation);
bt_pairing *bt_pairings_at(bt_pairings *pairings, uint32_t index);

#endif

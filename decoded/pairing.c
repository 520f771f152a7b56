#include "decoded/pairing.h"

#include "common/base/log.h"
#include "proto/fingerprint.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

bt_pairing *bt_pairings_at(bt_pairings *pairings, uint32_t index)
{
    assert(index < BT_PEERS_MAX);
    return &pairings->list[index];
}

bt_pairing *bt_pairings_find(bt_pairings *pairings, uint64_t p_incarnation)
{
    for (uint32_t i = 0; i < BT_PEERS_MAX; i++) {
        bt_pairing *pairing = &pairings->list[i];
        if (pairing->used && pairing->hello.incarnation == p_incarnation) return pairing;
    }
    return NULL;
}

/* The process is watched on: its death frees what is in quarantine. */
static void close_endpoint(bt_pairing *pairing)
{
    bt_xfer_peer *peer = pairing->peer;
    pairing->peer = NULL;
    pairing->up = false;
    bt_xfer_disconnect(peer);
}

static void forget(bt_pairing *pairing)
{
    close_endpoint(pairing);
    bt_process_watch_close(pairing->watch);
    pairing->watch = NULL;
    pairing->used = false;
}

static void on_death(void *arg)
{
    bt_pairing *pairing = arg;
    bt_log_warning(NULL, "prefill daemon %s (process %u) is dead", pairing->hello.name,
                   pairing->hello.process_pid);
    /* Also while not up: slots of a pair lost before wait in quarantine for just this. */
    bt_decode_core_peer_dead(pairing->owner->core, pairing->index, bt_loop_now_ns());
    forget(pairing);
    bt_worker_arm(pairing->owner->worker);
}

static void refuse(bt_pairings *pairings, uint32_t link, const bt_hello *hello, const char *reason)
{
    bt_log_error(NULL, "pair with %s refused: %s", hello->name, reason);
    bt_msg msg = {.kind = BT_MSG_PAIR_REFUSE};
    snprintf(msg.pair_refuse.reason, sizeof(msg.pair_refuse.reason), "%s", reason);
    bt_link_server_send(pairings->server, link, &msg, NULL);
}

/* With keys, a daemon has one index of the link for all its connections. */
static bool is_impostor(const bt_pairings *pairings, const bt_pairing *pairing, uint32_t link)
{
    return pairings->worker->control.table != NULL && pairing->link != link;
}

/* The pairing of this incarnation; else that of one before it under the same key, whose death nobody can prove from
 * here, or each restart of a daemon on another host would leave one behind; else a free one. */
static bt_pairing *pairing_for(bt_pairings *pairings, uint32_t link, const bt_hello *hello)
{
    bt_pairing *pairing = bt_pairings_find(pairings, hello->incarnation);
    for (uint32_t i = 0; i < BT_PEERS_MAX && pairing == NULL; i++) {
        bt_pairing *old = &pairings->list[i];
        if (old->used && old->watch == NULL && old->link == link) pairing = old;
    }
    for (uint32_t i = 0; i < BT_PEERS_MAX && pairing == NULL; i++) {
        if (!pairings->list[i].used) pairing = &pairings->list[i];
    }
    if (pairing == NULL) return NULL;
    if (pairing->up) bt_decode_core_peer_lost(pairings->core, pairing->index, bt_loop_now_ns());
    close_endpoint(pairing);
    return pairing;
}

static void accept_pair(bt_pairings *pairings, bt_pairing *pairing,
                        const uint8_t secret[BT_KEY_BYTES])
{
    bt_worker *worker = pairings->worker;
    bt_msg msg = {.kind = BT_MSG_PAIR_ACCEPT};
    msg.pair_accept.hello = worker->hello;
    msg.pair_accept.wire = pairing->wire;
    msg.pair_accept.slot_count = pairings->slot_count;
    msg.pair_accept.cell_count = pairings->cell_count;
    msg.pair_accept.cell_bytes = pairings->cell_bytes;
    msg.pair_accept.arena_address = (uint64_t)(uintptr_t)pairings->arena;
    memcpy(msg.pair_accept.secret, secret, BT_KEY_BYTES);
    bt_xfer_worker_address(worker->xfer, &msg.pair_accept.worker_address,
                           &msg.pair_accept.worker_address_bytes);
    bt_xfer_arena_rkey(worker->xfer, &msg.pair_accept.rkey, &msg.pair_accept.rkey_bytes);
    bt_err err;
    if (bt_link_server_send(pairings->server, pairing->link, &msg, &err) != BT_OK)
        bt_log_warning(NULL, "PAIR_ACCEPT to %s was not sent: %s", pairing->hello.name,
                       err.message);
}

static void watch_process(bt_pairing *pairing)
{
    const bt_hello *hello = &pairing->hello;
    bt_process process = {
        .host = hello->process_host, .start = hello->process_start, .pid = hello->process_pid};
    bt_err err;
    if (pairing->watch != NULL) return; /* of this incarnation: another has another pairing */
    if (bt_process_watch_open(pairing->owner->worker->loop, &process, on_death, pairing,
                              &pairing->watch, &err) != BT_OK)
        bt_log_info(NULL, "the death of %s cannot be proven from here: %s", hello->name,
                    err.message);
}

static bt_status connect_peer(bt_pairing *pairing, const bt_msg *msg, bt_err *err)
{
    bt_worker *worker = pairing->owner->worker;
    pairing->used = true;
    pairing->hello = msg->pair_hello.hello;
    watch_process(pairing);
    return bt_xfer_connect(worker->xfer, msg->pair_hello.worker_address,
                           msg->pair_hello.worker_address_bytes, worker->hello.incarnation,
                           &pairing->peer, err);
}

static void on_pair_hello(bt_pairings *pairings, uint32_t link, const bt_msg *msg)
{
    bt_worker *worker = pairings->worker;
    const bt_hello *hello = &msg->pair_hello.hello;
    bt_dtype wire;
    bt_err err;
    if (bt_fingerprint_agree(hello, &worker->hello, msg->pair_hello.wire_wanted, &wire, &err) !=
        BT_OK) {
        refuse(pairings, link, hello, err.message);
        return;
    }
    const bt_pairing *known = bt_pairings_find(pairings, hello->incarnation);
    if (known != NULL && is_impostor(pairings, known, link)) {
        refuse(pairings, link, hello, "that incarnation is another daemon's");
        return;
    }
    bt_pairing *pairing = pairing_for(pairings, link, hello);
    if (pairing == NULL) {
        refuse(pairings, link, hello, "no room for another pair");
        return;
    }
    pairing->wire = wire;
    pairing->link = link;
    if (connect_peer(pairing, msg, &err) != BT_OK) {
        refuse(pairings, link, hello, err.message);
        return;
    }
    uint8_t secret[BT_KEY_BYTES];
    bt_random_bytes(secret, sizeof(secret));
    bt_seal_init(&pairing->seal, secret, BT_ROLE_DECODE);
    accept_pair(pairings, pairing, secret);
    explicit_bzero(secret, sizeof(secret));
}

static void on_pair_status(bt_pairings *pairings, uint32_t link, const bt_msg *msg)
{
    for (uint32_t i = 0; i < BT_PEERS_MAX; i++) {
        bt_pairing *pairing = &pairings->list[i];
        if (!pairing->used || pairing->up || pairing->link != link || pairing->peer == NULL)
            continue;
        if (msg->pair_status.d_incarnation != pairings->worker->hello.incarnation) continue;
        pairing->up = true;
        bt_decode_peer info = {.p_incarnation = pairing->hello.incarnation,
                               .weights_digest = pairing->hello.weights_digest,
                               .wire = pairing->wire,
                               .kv_dtype = pairing->hello.kv_dtype};
        bt_log_info(NULL, "pair with %s: %s, %.2f GB/s, wire %s", pairing->hello.name,
                    msg->pair_status.transport, msg->pair_status.mb_per_s / 1000.0,
                    bt_dtype_name(pairing->wire));
        bt_decode_core_peer_up(pairings->core, i, &info, bt_loop_now_ns());
    }
}

static void on_message(void *arg, uint32_t link, const bt_msg *msg)
{
    bt_pairings *pairings = arg;
    /* Without keys, which is on the loopback only, nobody vouches for a role. */
    if (pairings->worker->control.table != NULL &&
        bt_link_server_role(pairings->server, link) != BT_ROLE_PREFILL)
        return;
    if (msg->kind == BT_MSG_PAIR_HELLO) on_pair_hello(pairings, link, msg);
    if (msg->kind == BT_MSG_PAIR_STATUS && msg->pair_status.ready)
        on_pair_status(pairings, link, msg);
    bt_worker_arm(pairings->worker);
}

void bt_pairings_peer_error(bt_pairings *pairings, const bt_xfer_peer *peer, const char *why)
{
    for (uint32_t i = 0; i < BT_PEERS_MAX; i++) {
        bt_pairing *pairing = &pairings->list[i];
        if (!pairing->used || pairing->peer != peer) continue;
        bt_log_warning(NULL, "the endpoint to %s broke: %s", pairing->hello.name, why);
        if (pairing->up) bt_decode_core_peer_lost(pairings->core, i, bt_loop_now_ns());
        close_endpoint(pairing);
        bt_msg msg = {.kind = BT_MSG_PAIR_REFUSE}; /* if it lives, it pairs anew */
        snprintf(msg.pair_refuse.reason, sizeof(msg.pair_refuse.reason),
                 "the decode daemon's endpoint broke: %s", why);
        bt_link_server_send(pairings->server, pairing->link, &msg, NULL);
    }
}

bt_status bt_pairings_open(bt_pairings *pairings, bt_worker *worker, const char *endpoint,
                           bt_err *err)
{
    pairings->worker = worker;
    for (uint32_t i = 0; i < BT_PEERS_MAX; i++) {
        pairings->list[i].owner = pairings;
        pairings->list[i].index = i;
    }
    bt_link_server_handler handler = {.arg = pairings, .on_message = on_message};
    bt_status status = bt_link_server_open(worker->control.zctx, worker->loop, endpoint, &handler,
                                           &pairings->server, err);
    if (status != BT_OK) return status;
    snprintf(worker->hello.pair_endpoint, sizeof(worker->hello.pair_endpoint), "%s",
             bt_link_server_endpoint(pairings->server));
    if (worker->control.keys.public_key[0] != '\0')
        bt_link_key_bytes(worker->control.keys.public_key, worker->hello.curve_public);
    return BT_OK;
}

void bt_pairings_finish(bt_pairings *pairings)
{
    for (uint32_t i = 0; i < BT_PEERS_MAX; i++) {
        if (pairings->list[i].used) forget(&pairings->list[i]);
    }
    bt_link_server_close(pairings->server);
}

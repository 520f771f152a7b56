#include "prefilld/pairing.h"

#include "common/base/log.h"
#include "proto/fingerprint.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#define LINK_REFUSALS_MAX 3u
#define MEASURE_PUTS 64u         /* of one cell each */
#define MEASURE_TAG (1ull << 63) /* the core's tags never have this bit */

static const char *const state_names[] = {"none",    "dialling", "measuring",
                                          "probing", "ready",    "refused"};

void bt_pairings_init(bt_pairings *pairings, bt_worker *worker, bt_prefill_core *core,
                      bt_dtype wire_wanted)
{
    pairings->worker = worker;
    pairings->core = core;
    pairings->wire_wanted = wire_wanted;
    for (uint32_t i = 0; i < BT_PEERS_MAX; i++) {
        pairings->list[i].owner = pairings;
        pairings->list[i].index = i;
    }
}

bt_pairing *bt_pairings_at(bt_pairings *pairings, uint32_t index)
{
    assert(index < BT_PEERS_MAX);
    return &pairings->list[index];
}

static bt_pairing *find_any(bt_pairings *pairings, uint64_t d_incarnation)
{
    for (uint32_t i = 0; i < BT_PEERS_MAX; i++) {
        bt_pairing *pairing = &pairings->list[i];
        if (pairing->state != BT_PAIRING_NONE && pairing->d_incarnation == d_incarnation)
            return pairing;
    }
    return NULL;
}

static bool known_to_core(const bt_pairing *pairing)
{
    return pairing->state == BT_PAIRING_PROBE || pairing->state == BT_PAIRING_READY;
}

bt_pairing *bt_pairings_find(bt_pairings *pairings, uint64_t d_incarnation)
{
    bt_pairing *pairing = find_any(pairings, d_incarnation);
    return pairing != NULL && known_to_core(pairing) ? pairing : NULL;
}

static void status_msg(const bt_pairing *pairing, bt_msg *ret_msg)
{
    *ret_msg = (bt_msg){.kind = BT_MSG_PAIR_STATUS};
    ret_msg->pair_status.d_incarnation = pairing->d_incarnation;
    ret_msg->pair_status.ready = pairing->state != BT_PAIRING_REFUSED;
    ret_msg->pair_status.mb_per_s = pairing->mb_per_s;
    ret_msg->pair_status.wire = pairing->wire;
    memcpy(ret_msg->pair_status.transport, pairing->transport, sizeof(pairing->transport));
    memcpy(ret_msg->pair_status.reason, pairing->reason, sizeof(pairing->reason));
}

static void report(const bt_pairing *pairing)
{
    bt_msg msg;
    status_msg(pairing, &msg);
    bt_worker_send_router(pairing->owner->worker, &msg);
}

/* Lets go of endpoint, link and watch; what the core has to know it was told before. They are taken out of the pairing
 * first: disconnecting completes puts in flight, and those callbacks come back to this pairing. */
static void release(bt_pairing *pairing)
{
    bt_link *link = pairing->link;
    bt_process_watch *watch = pairing->watch;
    bt_xfer_peer *peer = pairing->peer;
    pairing->link = NULL;
    pairing->watch = NULL;
    pairing->peer = NULL;
    if (pairing->mb_gauge != NULL) bt_gauge_set(pairing->mb_gauge, 0);
    bt_link_close(link);
    bt_process_watch_close(watch);
    bt_xfer_disconnect(peer);
}

/* Into a state in which the core does not know it. The state comes first, for the callbacks of release. */
static void leave(bt_pairing *pairing, bt_pairing_state state)
{
    bool known = known_to_core(pairing);
    pairing->state = state;
    if (known) bt_prefill_core_peer_down(pairing->owner->core, pairing->index, bt_loop_now_ns());
    release(pairing);
}

static void refuse(bt_pairing *pairing, const char *reason)
{
    if (pairing->state == BT_PAIRING_REFUSED || pairing->state == BT_PAIRING_NONE) return;
    bt_log_error(NULL, "pair with %s refused: %s", pairing->name, reason);
    /* Before the core hears of it: the reason may be the core's own text. */
    snprintf(pairing->reason, sizeof(pairing->reason), "%s", reason);
    leave(pairing, BT_PAIRING_REFUSED);
    report(pairing);
}

static void end(bt_pairing *pairing, const char *why)
{
    if (pairing->state == BT_PAIRING_NONE) return;
    bt_log_warning(NULL, "pair with %s ends (was %s): %s", pairing->name,
                   state_names[pairing->state], why);
    leave(pairing, BT_PAIRING_NONE);
}

/* Pairing came to no verdict. R has had no answer, so it asks again, ever later. */
static void fail(bt_pairing *pairing, const char *why)
{
    char reason[BT_REASON_BYTES_MAX]; /* it may be the core's own text, which ends with the pair */
    snprintf(reason, sizeof(reason), "%s", why);
    end(pairing, reason);
}

/* The endpoint broke although both live. R fails what was on it and asks for the pair anew. */
static void broken(bt_pairing *pairing, const char *why)
{
    if (pairing->state == BT_PAIRING_REFUSED) return;
    snprintf(pairing->reason, sizeof(pairing->reason), "%s", why);
    bt_msg msg;
    status_msg(pairing, &msg);
    msg.pair_status.ready = false;
    bool was_ready = pairing->state == BT_PAIRING_READY;
    end(pairing, why);
    if (was_ready) bt_worker_send_router(pairing->owner->worker, &msg);
}

static void on_death(void *arg)
{
    end(arg, "its process is dead");
}

static void say_hello(bt_pairing *pairing)
{
    bt_worker *worker = pairing->owner->worker;
    bt_msg msg = {.kind = BT_MSG_PAIR_HELLO};
    msg.pair_hello.hello = worker->hello;
    msg.pair_hello.wire_wanted = pairing->owner->wire_wanted;
    bt_xfer_worker_address(worker->xfer, &msg.pair_hello.worker_address,
                           &msg.pair_hello.worker_address_bytes);
    bt_err err;
    if (bt_link_send(pairing->link, &msg, &err) != BT_OK)
        bt_log_warning(NULL, "PAIR_HELLO to %s was not sent: %s", pairing->name, err.message);
}

/* Keeps as many measuring puts in flight as the endpoint takes. */
static void measure(bt_pairing *pairing)
{
    bt_pairings *pairings = pairing->owner;
    size_t bytes = pairing->cell_bytes < pairings->staging_bytes ? pairing->cell_bytes
                                                                 : pairings->staging_bytes;
    uint64_t scratch = (uint64_t)pairing->slot_count * pairing->cell_count * pairing->cell_bytes;
    bt_err err;
    while (pairing->measure_sent < MEASURE_PUTS) {
        uint32_t cell = pairing->measure_sent % pairing->cell_count;
        bt_status status = bt_xfer_put(pairing->peer, pairings->staging, bytes,
                                       scratch + (uint64_t)cell * pairing->cell_bytes,
                                       MEASURE_TAG | pairing->measure_sent, &err);
        if (status == BT_AGAIN) return;
        if (status < BT_OK) {
            refuse(pairing, err.message);
            return;
        }
        pairing->measure_sent++;
    }
}

/* D may grant its probe now. */
static void start_probe(bt_pairing *pairing)
{
    bt_msg msg;
    status_msg(pairing, &msg);
    bt_err err;
    if (bt_link_send(pairing->link, &msg, &err) != BT_OK) end(pairing, err.message);
}

static void measured(bt_pairing *pairing)
{
    size_t cell = pairing->cell_bytes < pairing->owner->staging_bytes
                      ? pairing->cell_bytes
                      : pairing->owner->staging_bytes;
    uint64_t ns = bt_loop_now_ns() - pairing->measure_start_ns;
    pairing->mb_per_s =
        (uint32_t)((double)cell * MEASURE_PUTS * 1000.0 / (double)(ns > 0 ? ns : 1));
    const bt_label labels[] = {{"peer", pairing->name},
                               {"transport", pairing->transport},
                               {"wire", bt_dtype_name(pairing->wire)}};
    bt_metrics *metrics = pairing->owner->worker->metrics;
    if (bt_metrics_room(metrics) > 0) { /* names of peers are not ours to bound */
        pairing->mb_gauge =
            bt_metrics_gauge(metrics, "baton_pair_megabytes_per_second",
                             "Rate of puts to this decode daemon, measured at pairing.", labels, 3);
        bt_gauge_set(pairing->mb_gauge, pairing->mb_per_s);
    }
    bt_log_info(NULL, "pair with %s: %s, %.2f GB/s, wire %s", pairing->name, pairing->transport,
                pairing->mb_per_s / 1000.0, bt_dtype_name(pairing->wire));
    pairing->state = BT_PAIRING_PROBE;
    bt_prefill_peer info = {.d_incarnation = pairing->d_incarnation,
                            .wire = pairing->wire,
                            .slot_count = pairing->slot_count,
                            .cell_count = pairing->cell_count,
                            .cell_bytes = pairing->cell_bytes};
    bt_prefill_core_peer_up(pairing->owner->core, pairing->index, &info, bt_loop_now_ns());
    start_probe(pairing);
}

bool bt_pairings_put_done(bt_pairings *pairings, bt_xfer_peer *peer, uint64_t tag, bt_status status)
{
    if ((tag & MEASURE_TAG) == 0) return false;
    for (uint32_t i = 0; i < BT_PEERS_MAX; i++) {
        bt_pairing *pairing = &pairings->list[i];
        if (pairing->state != BT_PAIRING_MEASURE || pairing->peer != peer) continue;
        if (status != BT_OK)
            fail(pairing, "a put of the measurement failed");
        else if (++pairing->measure_done == MEASURE_PUTS)
            measured(pairing);
        else
            measure(pairing);
    }
    return true;
}

/* A frame is one run of one layer at least: without room for it no handoff could ever begin. */
static bt_status check_frame_fits(const bt_pairing *pairing, bt_err *err)
{
    const bt_hello *me = &pairing->owner->worker->hello;
    bt_wire_shape wire = {.dtype = pairing->wire, .head_dim = me->head_dim};
    size_t bytes = bt_wire_frame_bytes(&wire, 1, me->kv_heads);
    if (bytes > pairing->cell_bytes)
        return BT_FAIL(err, BT_ERR_LIMIT, "a run of %zu bytes does not fit decode.cell_bytes=%u",
                       bytes, pairing->cell_bytes);
    if (bytes > pairing->owner->staging_bytes)
        return BT_FAIL(err, BT_ERR_LIMIT,
                       "a run of %zu bytes does not fit prefill.staging_bytes=%zu", bytes,
                       pairing->owner->staging_bytes);
    return BT_OK;
}

static bt_status connect_peer(bt_pairing *pairing, const bt_msg *msg, bt_err *err)
{
    bt_worker *worker = pairing->owner->worker;
    const bt_hello *hello = &msg->pair_accept.hello;
    if (hello->incarnation != pairing->d_incarnation)
        return BT_FAIL(err, BT_ERR_VERSION,
                       "%s answers as incarnation %016" PRIx64 ", not %016" PRIx64, pairing->name,
                       hello->incarnation, pairing->d_incarnation);
    bt_dtype wire;
    bt_status status =
        bt_fingerprint_agree(&worker->hello, hello, pairing->owner->wire_wanted, &wire, err);
    if (status != BT_OK) return status;
    if (wire != msg->pair_accept.wire)
        return BT_FAIL(err, BT_ERR_VERSION, "%s wants wire %s, we come to %s", pairing->name,
                       bt_dtype_name(msg->pair_accept.wire), bt_dtype_name(wire));
    pairing->wire = wire;
    pairing->slot_count = msg->pair_accept.slot_count;
    pairing->cell_count = msg->pair_accept.cell_count;
    pairing->cell_bytes = msg->pair_accept.cell_bytes;
    status = check_frame_fits(pairing, err);
    if (status != BT_OK) return status;
    bt_seal_init(&pairing->seal, msg->pair_accept.secret, BT_ROLE_PREFILL);
    status = bt_xfer_connect(worker->xfer, msg->pair_accept.worker_address,
                             msg->pair_accept.worker_address_bytes, worker->hello.incarnation,
                             &pairing->peer, err);
    if (status != BT_OK) return status;
    uint64_t arena =
        ((uint64_t)pairing->slot_count + 1) * pairing->cell_count * pairing->cell_bytes;
    status = bt_xfer_remote_open(pairing->peer, msg->pair_accept.arena_address, arena,
                                 msg->pair_accept.rkey, msg->pair_accept.rkey_bytes, err);
    if (status != BT_OK) return status;
    snprintf(pairing->transport, sizeof(pairing->transport), "%s",
             bt_xfer_transport(pairing->peer));
    if (strncmp(pairing->transport, "tcp", 3) == 0 && !worker->options->allow_tcp)
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "only TCP (%s) connects the two; allow_tcp=yes accepts that",
                       pairing->transport);
    return BT_OK;
}

static void on_accept(bt_pairing *pairing, const bt_msg *msg)
{
    bt_err err;
    if (pairing->state != BT_PAIRING_DIAL) return;
    if (connect_peer(pairing, msg, &err) != BT_OK) {
        refuse(pairing, err.message);
        return;
    }
    const bt_hello *hello = &msg->pair_accept.hello;
    bt_process process = {
        .host = hello->process_host, .start = hello->process_start, .pid = hello->process_pid};
    if (bt_process_watch_open(pairing->owner->worker->loop, &process, on_death, pairing,
                              &pairing->watch, &err) != BT_OK)
        bt_log_info(NULL, "the death of %s will show by heartbeats only: %s", pairing->name,
                    err.message);
    pairing->state = BT_PAIRING_MEASURE;
    pairing->measure_sent = pairing->measure_done = 0;
    pairing->measure_start_ns = bt_loop_now_ns();
    measure(pairing);
}

static void on_pair_message(void *arg, const bt_msg *msg)
{
    bt_pairing *pairing = arg;
    if (msg->kind == BT_MSG_PAIR_ACCEPT) on_accept(pairing, msg);
    if (msg->kind == BT_MSG_PAIR_REFUSE) {
        if (pairing->state == BT_PAIRING_DIAL)
            refuse(pairing, msg->pair_refuse.reason);
        else /* what it accepted before broke */
            broken(pairing, msg->pair_refuse.reason);
    }
    bt_worker_arm(pairing->owner->worker);
}

static void on_pair_link(void *arg, bt_zlink link)
{
    bt_pairing *pairing = arg;
    if (link == BT_ZLINK_UP && pairing->state == BT_PAIRING_DIAL) say_hello(pairing);
    if (link == BT_ZLINK_UP && pairing->state == BT_PAIRING_PROBE)
        start_probe(
            pairing); /* the one before may be lost with the connection; D heeds the first */
    /* A handshake that took too long looks the same, but does not do so again at once. */
    if (link == BT_ZLINK_REFUSED && pairing->state == BT_PAIRING_DIAL &&
        ++pairing->link_refusals == LINK_REFUSALS_MAX)
        refuse(pairing, "it does not know our key");
}

static void dial(bt_pairing *pairing, const bt_msg *msg)
{
    bt_worker *worker = pairing->owner->worker;
    pairing->d_incarnation = msg->pair.d_incarnation;
    snprintf(pairing->name, sizeof(pairing->name), "%s", msg->pair.name);
    pairing->transport[0] = pairing->reason[0] = '\0';
    pairing->state = BT_PAIRING_DIAL;
    pairing->mb_per_s = 0;
    pairing->mb_gauge = NULL;
    pairing->link_refusals = 0;
    bt_link_handler handler = {
        .arg = pairing, .on_message = on_pair_message, .on_link = on_pair_link};
    static const uint8_t no_key[32];
    char key[BT_ZKEY_CHARS + 1];
    bool curve = memcmp(msg->pair.curve_public, no_key, sizeof(no_key)) != 0;
    if (curve) bt_link_key_text(msg->pair.curve_public, key);
    bt_err err;
    if (bt_link_dial(worker->control.zctx, worker->loop, msg->pair.endpoint, curve ? key : NULL,
                     &handler, &pairing->link, &err) != BT_OK)
        refuse(pairing, err.message);
}

/* R asks again when it restarted, and while no answer has come. */
static void asked_again(bt_pairing *pairing, const bt_msg *msg)
{
    if (pairing->state == BT_PAIRING_READY || pairing->state == BT_PAIRING_REFUSED) report(pairing);
    if (pairing->state != BT_PAIRING_DIAL) return;
    /* Hello or answer may be lost. A new connection, since an answer to the old Hello would bring a secret that D has
     * replaced by then. */
    release(pairing);
    dial(pairing, msg);
}

void bt_pairings_pair(bt_pairings *pairings, const bt_msg *msg)
{
    bt_pairing *pairing = find_any(pairings, msg->pair.d_incarnation);
    if (pairing != NULL) {
        asked_again(pairing, msg);
        return;
    }
    for (uint32_t i = 0; i < BT_PEERS_MAX && pairing == NULL; i++) {
        if (pairings->list[i].state == BT_PAIRING_NONE) pairing = &pairings->list[i];
    }
    if (pairing == NULL)
        bt_log_error(NULL, "no room to pair with %s: %u pairs is the most", msg->pair.name,
                     BT_PEERS_MAX);
    else
        dial(pairing, msg);
}

void bt_pairings_unpair(bt_pairings *pairings, uint64_t d_incarnation)
{
    bt_pairing *pairing = find_any(pairings, d_incarnation);
    if (pairing != NULL) end(pairing, "the router says it is gone");
}

void bt_pairings_peer_error(bt_pairings *pairings, const bt_xfer_peer *peer, const char *why)
{
    for (uint32_t i = 0; i < BT_PEERS_MAX; i++) {
        bt_pairing *pairing = &pairings->list[i];
        if (pairing->state == BT_PAIRING_NONE || pairing->peer != peer) continue;
        char reason[BT_REASON_BYTES_MAX];
        snprintf(reason, sizeof(reason), "UCX: %s", why);
        broken(pairing, reason);
    }
}

void bt_pairings_report(bt_pairings *pairings)
{
    for (uint32_t i = 0; i < BT_PEERS_MAX; i++) {
        bt_pairing *pairing = &pairings->list[i];
        if (pairing->state != BT_PAIRING_PROBE) continue;
        const char *reason = "";
        bt_probe_state probe = bt_prefill_core_probe(pairings->core, i, &reason);
        if (probe == BT_PROBE_REFUSED) refuse(pairing, reason);
        if (probe == BT_PROBE_FAILED) fail(pairing, reason);
        if (probe != BT_PROBE_READY) continue;
        pairing->state = BT_PAIRING_READY;
        bt_log_info(NULL, "pair with %s is ready", pairing->name);
        report(pairing);
    }
}

void bt_pairings_finish(bt_pairings *pairings)
{
    for (uint32_t i = 0; i < BT_PEERS_MAX; i++) {
        if (pairings->list[i].state == BT_PAIRING_NONE) continue;
        pairings->list[i].state = BT_PAIRING_NONE;
        release(&pairings->list[i]);
    }
}

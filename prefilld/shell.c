#include "prefilld/shell.h"

#include "common/base/log.h"
#include "common/daemon/handoff.h"
#include "prefilld/core.h"
#include "prefilld/metrics.h"
#include "prefilld/pairing.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct bt_prefilld {
    const bt_prefilld_config *config;
    bt_worker worker;
    void *core_memory;
    bt_prefill_core *core;
    bt_pairings pairings;
    bt_codec *codec; /* of messages from peers */
    uint8_t *staging;
    bt_prefill_metrics metrics;
    bt_handoff handoff;
    uint64_t put_ns[BT_PREFILL_STAGING_MAX]; /* when the put from each piece of staging began */
    /* The end of the last layer's KV and of the whole batch, of the latest one. */
    uint64_t last_layer_ns, batch_done_ns;
    bool batch_ending; /* its BATCH_DONE is with the core */
};

/* ---- what the core asks for ---- */

/* A FirstToken that waited for its Ticket comes after other batches: then the times of its own are
 * not known any more. */
static void note_first_token(bt_prefilld *daemon, const bt_msg *msg, uint64_t now_ns)
{
    bt_handoff_entry *entry = bt_handoff_begin(&daemon->handoff, &msg->fence.request);
    entry->last_layer_ns = entry->first_token_ns = entry->manifest_ns = 0;
    if (!daemon->batch_ending) {
        bt_worker_trace(&daemon->worker, &msg->fence.request, "\"ticket_late\": true");
        return;
    }
    bt_worker_trace(&daemon->worker, &msg->fence.request,
                    "\"last_layer_ns\": %" PRIu64 ", \"batch_done_ns\": %" PRIu64
                    ", \"first_token_ns\": %" PRIu64,
                    daemon->last_layer_ns, daemon->batch_done_ns, now_ns);
    entry->last_layer_ns = daemon->last_layer_ns;
    entry->first_token_ns = now_ns;
    bt_handoff *handoff = &daemon->handoff;
    bt_handoff_observe(handoff, BT_HANDOFF_ENGINE, daemon->last_layer_ns, daemon->batch_done_ns);
    bt_handoff_observe(handoff, BT_HANDOFF_WAKE, daemon->batch_done_ns, now_ns);
}

static void note_manifest(bt_prefilld *daemon, const bt_msg *msg, uint64_t now_ns)
{
    bt_handoff_entry *entry = bt_handoff_begin(&daemon->handoff, &msg->fence.request);
    entry->manifest_ns = now_ns;
    if (entry->first_token_ns != 0)
        bt_handoff_observe(&daemon->handoff, BT_HANDOFF_MANIFEST, entry->first_token_ns, now_ns);
}

static void note_accepted(bt_prefilld *daemon, const bt_msg *msg, uint64_t now_ns)
{
    bt_handoff_entry *entry = bt_handoff_find(&daemon->handoff, &msg->fence.request);
    if (entry == NULL || entry->manifest_ns == 0) return;
    bt_handoff_observe(&daemon->handoff, BT_HANDOFF_CONFIRM, entry->manifest_ns, now_ns);
    if (entry->last_layer_ns != 0)
        bt_handoff_observe(&daemon->handoff, BT_HANDOFF_TOTAL, entry->last_layer_ns, now_ns);
    entry->manifest_ns = 0; /* Accepted may come again */
}

static void note_peer_message(bt_prefilld *daemon, const bt_msg *msg, uint64_t now_ns)
{
    if (msg->kind == BT_MSG_MANIFEST) note_manifest(daemon, msg, now_ns);
    if (msg->kind == BT_MSG_SEALED)
        bt_worker_trace(&daemon->worker, &msg->fence.request,
                        "\"sealed_layer\": %" PRIu32 ", \"sealed_ns\": %" PRIu64,
                        msg->sealed.frame.layer, now_ns);
    if (msg->kind == BT_MSG_MANIFEST)
        bt_worker_trace(&daemon->worker, &msg->fence.request, "\"manifest_ns\": %" PRIu64, now_ns);
}

static void io_send_router(void *ctx, const bt_msg *msg)
{
    bt_prefilld *daemon = ctx;
    uint64_t now_ns = bt_loop_now_ns();
    bt_worker_send_router(&daemon->worker, msg);
    if (msg->kind == BT_MSG_FIRST_TOKEN) note_first_token(daemon, msg, now_ns);
}

static void io_send_peer(void *ctx, uint32_t peer, const bt_msg *msg)
{
    bt_prefilld *daemon = ctx;
    bt_pairing *pairing = bt_pairings_at(&daemon->pairings, peer);
    if (pairing->peer == NULL) return;
    uint64_t now_ns = bt_loop_now_ns();
    bt_worker_send_peer(pairing->peer, &pairing->seal, pairing->name, msg);
    note_peer_message(daemon, msg, now_ns);
}

static bt_status io_submit(void *ctx, const bt_engine_batch *batch)
{
    bt_prefilld *daemon = ctx;
    bt_err err;
    bt_status status = bt_engine_submit(daemon->worker.engine, batch, &err);
    if (status < BT_OK) bt_log_error(NULL, "the engine refused a batch: %s", err.message);
    return status;
}

static bt_status io_put(void *ctx, const bt_prefill_put *put, bt_kv_digest *ret_digest)
{
    bt_prefilld *daemon = ctx;
    bt_pairing *pairing = bt_pairings_at(&daemon->pairings, put->peer);
    if (pairing->peer == NULL) return BT_ERR_PEER_LOST;
    assert(put->staging < daemon->config->staging_count);
    uint8_t *piece = daemon->staging + (size_t)put->staging * daemon->config->staging_bytes;
    size_t bytes = bt_wire_frame_bytes(&put->wire, put->frame.run_count, put->frame.head_count);
    assert(bytes > 0 && bytes <= daemon->config->staging_bytes && bytes <= pairing->cell_bytes);
    assert(put->slot < pairing->slot_count && put->frame.cell < pairing->cell_count);
    bt_err err;
    uint64_t pack_ns = bt_loop_now_ns();
    bt_status status = bt_engine_pack(daemon->worker.engine, &put->wire, &put->frame, put->blocks,
                                      pairing->seal.digest_key, piece, ret_digest, &err);
    uint64_t offset =
        ((uint64_t)put->slot * pairing->cell_count + put->frame.cell) * pairing->cell_bytes;
    uint64_t put_ns = bt_loop_now_ns();
    bt_handoff_observe(&daemon->handoff, BT_HANDOFF_PACK, pack_ns, put_ns);
    daemon->put_ns[put->staging] = put_ns;
    if (status == BT_OK) status = bt_xfer_put(pairing->peer, piece, bytes, offset, put->tag, &err);
    bt_worker_trace(&daemon->worker, &put->request,
                    "\"put_layer\": %" PRIu32 ", \"bytes\": %zu, \"pack_ns\": %" PRIu64
                    ", \"put_ns\": %" PRIu64,
                    put->frame.layer, bytes, pack_ns, put_ns);
    if (status < BT_OK) bt_log_warning(NULL, "a put to %s failed: %s", pairing->name, err.message);
    return status == BT_IN_PROGRESS ? BT_OK : status;
}

/* ---- what happens ---- */

static void after_event(bt_prefilld *daemon)
{
    bt_pairings_report(&daemon->pairings);
}

static void on_router_message(void *shell, const bt_msg *msg)
{
    bt_prefilld *daemon = shell;
    if (msg->kind == BT_MSG_PAIR)
        bt_pairings_pair(&daemon->pairings, msg);
    else if (msg->kind == BT_MSG_UNPAIR)
        bt_pairings_unpair(&daemon->pairings, msg->pair.d_incarnation);
    else
        bt_prefill_core_router_message(daemon->core, msg, bt_loop_now_ns());
    after_event(daemon);
}

static void on_engine_event(void *shell, const bt_engine_event *event)
{
    bt_prefilld *daemon = shell;
    if (event->kind == BT_ENGINE_LAYER_DONE && event->layer + 1 == daemon->worker.hello.layers)
        daemon->last_layer_ns = event->time_ns;
    if (event->kind == BT_ENGINE_BATCH_DONE) daemon->batch_done_ns = event->time_ns;
    daemon->batch_ending = event->kind == BT_ENGINE_BATCH_DONE;
    bt_prefill_core_engine_event(daemon->core, event, bt_loop_now_ns());
    daemon->batch_ending = false;
    after_event(daemon);
}

static void on_peer_message(void *shell, uint64_t sender, const void *data, size_t bytes)
{
    bt_prefilld *daemon = shell;
    bt_pairing *pairing = bt_pairings_find(&daemon->pairings, sender);
    if (pairing == NULL) {
        bt_counter_add(daemon->metrics.foreign_messages, 1);
        return;
    }
    bt_msg msg;
    bt_err err;
    if (bt_seal_open(&pairing->seal, data, bytes, daemon->codec, &msg, &err) != BT_OK) {
        bt_counter_add(daemon->metrics.foreign_messages, 1);
        bt_log_warning(NULL, "a message from %s was dropped: %s", pairing->name, err.message);
        return;
    }
    uint64_t now_ns = bt_loop_now_ns();
    if (msg.kind == BT_MSG_ACCEPTED) note_accepted(daemon, &msg, now_ns);
    bt_prefill_core_peer_message(daemon->core, pairing->index, &msg, now_ns);
    after_event(daemon);
}

static void on_put(void *shell, bt_xfer_peer *peer, uint64_t tag, bt_status status)
{
    bt_prefilld *daemon = shell;
    if (!bt_pairings_put_done(&daemon->pairings, peer, tag, status)) {
        uint64_t now_ns = bt_loop_now_ns();
        uint32_t staging = bt_prefill_put_staging(tag);
        if (status == BT_OK && staging < daemon->config->staging_count)
            bt_handoff_observe(&daemon->handoff, BT_HANDOFF_PUT, daemon->put_ns[staging], now_ns);
        bt_prefill_core_put_done(daemon->core, tag, status, now_ns);
    }
    after_event(daemon);
}

static void on_peer_error(void *shell, bt_xfer_peer *peer, const char *why)
{
    bt_prefilld *daemon = shell;
    bt_pairings_peer_error(&daemon->pairings, peer, why);
    after_event(daemon);
}

static void on_tick(void *shell)
{
    bt_prefilld *daemon = shell;
    bt_prefill_core_tick(daemon->core, bt_loop_now_ns());
    after_event(daemon);
}

static uint64_t next_deadline(void *shell)
{
    const bt_prefilld *daemon = shell;
    return bt_prefill_core_next_deadline(daemon->core);
}

static void fill_heartbeat(void *shell, bt_msg *msg)
{
    const bt_prefilld *daemon = shell;
    bt_prefill_core_heartbeat(daemon->core, msg);
}

static void update_metrics(void *shell)
{
    bt_prefilld *daemon = shell;
    bt_prefill_stats stats;
    bt_prefill_core_stats(daemon->core, &stats);
    bt_prefill_metrics_update(&daemon->metrics, &stats);
}

static void on_drain(void *shell)
{
    bt_prefilld *daemon = shell;
    bt_prefill_core_drain(daemon->core, bt_loop_now_ns());
}

static bool idle(void *shell)
{
    const bt_prefilld *daemon = shell;
    return bt_prefill_core_idle(daemon->core);
}

static bool joinable(void *shell)
{
    (void)shell;
    return true;
}

static const bt_worker_ops ops = {.on_router_message = on_router_message,
                                  .on_engine_event = on_engine_event,
                                  .on_peer_message = on_peer_message,
                                  .on_put = on_put,
                                  .on_peer_error = on_peer_error,
                                  .on_tick = on_tick,
                                  .next_deadline = next_deadline,
                                  .fill_heartbeat = fill_heartbeat,
                                  .update_metrics = update_metrics,
                                  .on_drain = on_drain,
                                  .idle = idle,
                                  .joinable = joinable};

/* ---- life ---- */

static bt_status create_core(bt_prefilld *daemon, bt_err *err)
{
    const bt_model_config *model = bt_model_config_of(daemon->worker.model);
    const bt_hello *hello = &daemon->worker.hello;
    static uint32_t probe_tokens[BT_RUN_TOKENS];
    bt_probe_tokens(model->vocab, probe_tokens);
    bt_prefill_config core = {.incarnation = hello->incarnation,
                              .weights_digest = hello->weights_digest,
                              .kv = bt_engine_kv(daemon->worker.engine)->shape,
                              .vocab = model->vocab,
                              .context_tokens_max = hello->context_tokens_max,
                              .eos_count = model->eos_count,
                              .requests_max = daemon->config->requests_max,
                              .batch_tokens_max = daemon->config->worker.batch_tokens,
                              .batch_seqs_max = daemon->config->worker.batch_seqs,
                              .staging_bytes = (uint32_t)daemon->config->staging_bytes,
                              .staging_count = daemon->config->staging_count,
                              .pin_lease_ns = daemon->config->pin_lease_ns,
                              .tombstone_ns = daemon->config->pin_lease_ns,
                              .router_timeout_ns = daemon->config->worker.router_timeout_ns,
                              .probe_tokens = probe_tokens};
    memcpy(core.eos_ids, model->eos_ids, sizeof(core.eos_ids));
    bt_prefill_io io = {daemon, io_send_router, io_send_peer, io_submit, io_put};
    size_t bytes = (bt_prefill_core_bytes(&core) + 63) & ~(size_t)63;
    daemon->core_memory = aligned_alloc(64, bytes);
    if (daemon->core_memory == NULL)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "core state, %zu bytes", bytes);
    daemon->core = bt_prefill_core_init(daemon->core_memory, &core, &io, bt_loop_now_ns());
    return BT_OK;
}

bt_status bt_prefilld_create(const bt_prefilld_config *config, const bt_reload *reload,
                             bt_prefilld **ret_daemon, bt_err *err)
{
    bt_prefilld *daemon = calloc(1, sizeof(*daemon));
    if (daemon == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "prefill daemon");
    *ret_daemon = daemon;
    daemon->config = config;
    daemon->worker.reload = reload;
    bt_status status =
        bt_worker_open(&daemon->worker, &config->worker, BT_ROLE_PREFILL, &ops, daemon, err);
    if (status != BT_OK) return status;
    daemon->worker.hello.chunk_tokens = config->worker.batch_tokens;
    void *codec_memory = aligned_alloc(64, (bt_codec_bytes() + 63) & ~(size_t)63);
    if (codec_memory == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "codec");
    daemon->codec = bt_codec_init(codec_memory);
    size_t staging_bytes = (size_t)config->staging_bytes * config->staging_count;
    status = bt_xfer_source_open(daemon->worker.xfer, staging_bytes, &daemon->staging, err);
    if (status == BT_OK) status = create_core(daemon, err);
    if (status != BT_OK) return status;
    memset(daemon->staging, 0xa5,
           staging_bytes); /* touched before the first put, which is measured */
    daemon->pairings.staging = daemon->staging;
    daemon->pairings.staging_bytes = config->staging_bytes;
    const char *wire = bt_wire_dtype_choices[config->wire];
    bt_dtype wanted =
        strcmp(wire, "raw") == 0 ? daemon->worker.hello.kv_dtype : bt_dtype_find(wire);
    bt_pairings_init(&daemon->pairings, &daemon->worker, daemon->core, wanted);
    bt_prefill_metrics_open(&daemon->metrics, daemon->worker.metrics,
                            &bt_engine_kv(daemon->worker.engine)->shape);
    bt_handoff_open(&daemon->handoff, daemon->worker.metrics, BT_ROLE_PREFILL);
    return BT_OK;
}

bt_status bt_prefilld_run(bt_prefilld *daemon, bt_err *err)
{
    return bt_worker_run(&daemon->worker, err);
}

void bt_prefilld_destroy(bt_prefilld *daemon)
{
    if (daemon == NULL) return;
    bt_pairings_finish(&daemon->pairings);
    bt_worker_close(&daemon->worker);
    free(daemon->codec);
    free(daemon->core_memory);
    free(daemon);
}

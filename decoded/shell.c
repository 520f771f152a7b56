#include "decoded/shell.h"

#include "common/base/log.h"
#include "common/daemon/handoff.h"
#include "decoded/core.h"
#include "decoded/metrics.h"
#include "decoded/pairing.h"
#include "decoded/probe_bounds.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define UNPACKED_MAX 64u /* unpacks of one core event; the arena's cells bound them */

struct bt_decoded {
    const bt_decoded_config *config;
    bt_worker worker;
    void *core_memory;
    bt_decode_core *core;
    bt_pairings pairings;
    bt_codec *codec;
    bt_decode_metrics metrics;
    struct {
        uint64_t tag;
        bt_kv_digest digest;
    } unpacked[UNPACKED_MAX]; /* done, not yet told to the core */
    uint32_t unpacked_count;
    bt_handoff handoff;
    bool step_running;         /* a batch is with the engine … */
    uint64_t step_started_ns;  /* … since; of the last one if none is */
    uint64_t step_waited_from; /* the end of the batch before that one */
    bool step_ending;          /* its BATCH_DONE is with the core, which has not begun the next */
};

/* ---- what the core asks for ---- */

static void note_accepted(bt_decoded *daemon, const bt_msg *msg, uint64_t now_ns)
{
    bt_handoff_entry *entry = bt_handoff_find(&daemon->handoff, &msg->fence.request);
    if (entry == NULL || entry->manifest_ns == 0) return;
    bt_handoff_observe(&daemon->handoff, BT_HANDOFF_ACCEPT, entry->manifest_ns, now_ns);
    entry->manifest_ns = 0;
    entry->accepted_ns = now_ns;
    entry->step_running = daemon->step_running;
}

/* The end of the first step with the sequence, which began at step_started_ns. A step that ran when it
 * was accepted is waited for, whatever a handoff does. */
static void note_first_step(bt_decoded *daemon, const bt_msg *msg)
{
    bt_handoff_entry *entry = bt_handoff_find(&daemon->handoff, &msg->fence.request);
    if (entry == NULL || entry->accepted_ns == 0) return;
    uint64_t accepted_ns = entry->accepted_ns, waited_ns = accepted_ns;
    if (entry->step_running && daemon->step_waited_from > accepted_ns)
        waited_ns = daemon->step_waited_from;
    bt_handoff_observe(&daemon->handoff, BT_HANDOFF_WAIT, accepted_ns, waited_ns);
    bt_handoff_observe(&daemon->handoff, BT_HANDOFF_STEP, waited_ns, daemon->step_started_ns);
    entry->accepted_ns = 0;
}

static void note_to_router(bt_decoded *daemon, const bt_msg *msg, uint64_t now_ns)
{
    if (msg->kind == BT_MSG_ACCEPTED) note_accepted(daemon, msg, now_ns);
    if (msg->kind == BT_MSG_TOKENS && daemon->step_ending) note_first_step(daemon, msg);
    if (msg->kind == BT_MSG_ACCEPTED)
        bt_worker_trace(&daemon->worker, &msg->fence.request,
                        "\"accepted_ns\": %" PRIu64 ", \"step_running\": %s", now_ns,
                        daemon->step_running ? "true" : "false");
    /* At the end of a step that made this token; the first one comes from P instead. */
    if (msg->kind == BT_MSG_TOKENS && daemon->step_ending)
        bt_worker_trace(&daemon->worker, &msg->fence.request,
                        "\"token_index\": %" PRIu32 ", \"step_ns\": %" PRIu64
                        ", \"step_before_ended_ns\": %" PRIu64,
                        msg->tokens.index, daemon->step_started_ns, daemon->step_waited_from);
}

static void io_send_router(void *ctx, const bt_msg *msg)
{
    bt_decoded *daemon = ctx;
    uint64_t now_ns = bt_loop_now_ns();
    bt_worker_send_router(&daemon->worker, msg);
    note_to_router(daemon, msg, now_ns);
}

static void io_send_peer(void *ctx, uint32_t peer, const bt_msg *msg)
{
    bt_decoded *daemon = ctx;
    bt_pairing *pairing = bt_pairings_at(&daemon->pairings, peer);
    if (pairing->peer == NULL) return;
    bt_worker_send_peer(pairing->peer, &pairing->seal, pairing->hello.name, msg);
}

/* Tokens that a batch computes as a prompt: more than one at a time, or one that is not sampled. */
static uint64_t prefill_tokens(const bt_engine_batch *batch)
{
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < batch->seq_count; i++) {
        if (batch->seqs[i].token_count > 1 || !batch->seqs[i].sample)
            tokens += batch->seqs[i].token_count;
    }
    return tokens;
}

static bt_status io_submit(void *ctx, const bt_engine_batch *batch)
{
    bt_decoded *daemon = ctx;
    uint64_t prefill =
        bt_decode_core_ready(daemon->core) ? prefill_tokens(batch) : 0; /* before: the probe */
    if (prefill > 0 && daemon->config->refuse_prefill) {
        bt_log_error(NULL, "refuse_prefill: a batch with %" PRIu64 " prompt tokens is refused",
                     prefill);
        return BT_ERR_ARGUMENT;
    }
    bt_err err;
    uint64_t now_ns = bt_loop_now_ns();
    bt_status status = bt_engine_submit(daemon->worker.engine, batch, &err);
    if (status < BT_OK) bt_log_error(NULL, "the engine refused a batch: %s", err.message);
    if (status != BT_OK) return status;
    daemon->step_running = true;
    daemon->step_started_ns = now_ns;
    return BT_OK;
}

/* The CPU engine unpacks at once; the core hears of it when it has returned (tell_unpacked). */
static void io_unpack(void *ctx, const bt_decode_unpack *unpack)
{
    bt_decoded *daemon = ctx;
    const bt_pairing *pairing = bt_pairings_at(&daemon->pairings, unpack->peer);
    assert(daemon->unpacked_count < UNPACKED_MAX && unpack->slot < daemon->pairings.slot_count);
    size_t cell = (size_t)unpack->slot * daemon->pairings.cell_count + unpack->frame.cell;
    const uint8_t *source = daemon->pairings.arena + cell * daemon->pairings.cell_bytes;
    bt_kv_digest digest = {{0, 0}};
    bt_err err;
    uint64_t begin_ns = bt_loop_now_ns();
    bt_status status =
        bt_engine_unpack(daemon->worker.engine, &unpack->wire, &unpack->frame, unpack->blocks,
                         pairing->seal.digest_key, source, &digest, &err);
    bt_handoff_observe(&daemon->handoff, BT_HANDOFF_UNPACK, begin_ns, bt_loop_now_ns());
    if (status != BT_OK)
        bt_log_error(NULL, "unpack: %s", err.message); /* the digest then disagrees */
    daemon->unpacked[daemon->unpacked_count].tag = unpack->tag;
    daemon->unpacked[daemon->unpacked_count++].digest = digest;
}

static void io_probe_distance(void *ctx, uint32_t peer, const uint32_t *own_blocks,
                              const uint32_t *pushed_blocks, double *ret_error, double *ret_bound,
                              char ret_where[BT_REASON_BYTES_MAX])
{
    bt_decoded *daemon = ctx;
    const bt_pairing *pairing = bt_pairings_at(&daemon->pairings, peer);
    bt_kv_part part;
    uint32_t layer, head;
    bt_engine_kv_distance(daemon->worker.engine, own_blocks, pushed_blocks, BT_RUN_TOKENS, &part,
                          &layer, &head, ret_error);
    *ret_bound =
        bt_probe_bound(pairing->hello.kv_dtype, pairing->wire, daemon->worker.hello.kv_dtype);
    snprintf(ret_where, BT_REASON_BYTES_MAX, "layer %u head %u %s", layer, head,
             part == BT_KV_K ? "K" : "V");
    bt_log_info(NULL, "probe of %s: worst error %.3g at %s, bound %.3g", pairing->hello.name,
                *ret_error, ret_where, *ret_bound);
}

/* ---- what happens ---- */

static void trace_from_peer(bt_decoded *daemon, const bt_msg *msg, uint64_t now_ns)
{
    if (msg->kind == BT_MSG_SEALED)
        bt_worker_trace(&daemon->worker, &msg->fence.request,
                        "\"arrived_layer\": %" PRIu32 ", \"arrived_ns\": %" PRIu64
                        ", \"unpacked_ns\": %" PRIu64,
                        msg->sealed.frame.layer, now_ns, bt_loop_now_ns());
    if (msg->kind == BT_MSG_MANIFEST)
        bt_worker_trace(&daemon->worker, &msg->fence.request, "\"manifest_arrived_ns\": %" PRIu64,
                        now_ns);
}

static void tell_unpacked(bt_decoded *daemon)
{
    for (uint32_t i = 0; i < daemon->unpacked_count;
         i++) { /* telling one may add others behind it */
        bt_kv_digest digest = daemon->unpacked[i].digest;
        bt_decode_core_unpack_done(daemon->core, daemon->unpacked[i].tag, &digest,
                                   bt_loop_now_ns());
    }
    daemon->unpacked_count = 0;
}

static void on_router_message(void *shell, const bt_msg *msg)
{
    bt_decoded *daemon = shell;
    bt_decode_core_router_message(daemon->core, msg, bt_loop_now_ns());
    tell_unpacked(daemon);
}

static void on_engine_event(void *shell, const bt_engine_event *event)
{
    bt_decoded *daemon = shell;
    if (event->kind == BT_ENGINE_BATCH_DONE) daemon->step_running = false;
    daemon->step_ending = event->kind == BT_ENGINE_BATCH_DONE;
    bool was_ready = bt_decode_core_ready(daemon->core);
    bt_decode_core_engine_event(daemon->core, event, bt_loop_now_ns());
    daemon->step_ending = false;
    if (event->kind == BT_ENGINE_BATCH_DONE) daemon->step_waited_from = event->time_ns;
    if (!was_ready && bt_decode_core_ready(daemon->core))
        bt_log_info(NULL, "probe computed, ready to pair");
    tell_unpacked(daemon);
}

static void on_peer_message(void *shell, uint64_t sender, const void *data, size_t bytes)
{
    bt_decoded *daemon = shell;
    bt_pairing *pairing = bt_pairings_find(&daemon->pairings, sender);
    if (pairing == NULL || !pairing->up) {
        bt_counter_add(daemon->metrics.foreign_messages, 1);
        return;
    }
    bt_msg msg;
    bt_err err;
    if (bt_seal_open(&pairing->seal, data, bytes, daemon->codec, &msg, &err) != BT_OK) {
        bt_counter_add(daemon->metrics.foreign_messages, 1);
        bt_log_warning(NULL, "a message from %s was dropped: %s", pairing->hello.name, err.message);
        return;
    }
    uint64_t now_ns = bt_loop_now_ns();
    if (msg.kind == BT_MSG_MANIFEST)
        bt_handoff_begin(&daemon->handoff, &msg.fence.request)->manifest_ns = now_ns;
    bt_decode_core_peer_message(daemon->core, pairing->index, &msg, now_ns);
    tell_unpacked(daemon);
    trace_from_peer(daemon, &msg, now_ns);
}

static void on_peer_error(void *shell, bt_xfer_peer *peer, const char *why)
{
    bt_decoded *daemon = shell;
    bt_pairings_peer_error(&daemon->pairings, peer, why);
    tell_unpacked(daemon);
}

static void on_tick(void *shell)
{
    bt_decoded *daemon = shell;
    bt_decode_core_tick(daemon->core, bt_loop_now_ns());
    tell_unpacked(daemon);
}

static uint64_t next_deadline(void *shell)
{
    const bt_decoded *daemon = shell;
    return bt_decode_core_next_deadline(daemon->core);
}

static void fill_heartbeat(void *shell, bt_msg *msg)
{
    const bt_decoded *daemon = shell;
    bt_decode_core_heartbeat(daemon->core, msg);
}

static void update_metrics(void *shell)
{
    bt_decoded *daemon = shell;
    bt_decode_stats stats;
    bt_decode_core_stats(daemon->core, &stats);
    bt_decode_metrics_update(&daemon->metrics, &stats);
}

static void on_drain(void *shell)
{
    bt_decoded *daemon = shell;
    bt_decode_core_drain(daemon->core, bt_loop_now_ns());
}

static bool idle(void *shell)
{
    const bt_decoded *daemon = shell;
    return bt_decode_core_idle(daemon->core);
}

/* Once our own probe is computed: pairing compares with it. */
static bool joinable(void *shell)
{
    const bt_decoded *daemon = shell;
    return bt_decode_core_ready(daemon->core);
}

static const bt_worker_ops ops = {.on_router_message = on_router_message,
                                  .on_engine_event = on_engine_event,
                                  .on_peer_message = on_peer_message,
                                  .on_peer_error = on_peer_error,
                                  .on_tick = on_tick,
                                  .next_deadline = next_deadline,
                                  .fill_heartbeat = fill_heartbeat,
                                  .update_metrics = update_metrics,
                                  .on_drain = on_drain,
                                  .idle = idle,
                                  .joinable = joinable};

/* ---- life ---- */

/* 0: no prompt is computed here. */
static uint32_t local_chunk(const bt_decoded_config *config)
{
    return config->refuse_prefill ? 0 : config->local_chunk;
}

static bt_status create_core(bt_decoded *daemon, bt_err *err)
{
    const bt_decoded_config *config = daemon->config;
    const bt_model_config *model = bt_model_config_of(daemon->worker.model);
    static uint32_t probe_tokens[BT_RUN_TOKENS];
    bt_probe_tokens(model->vocab, probe_tokens);
    bt_decode_config core = {.incarnation = daemon->worker.hello.incarnation,
                             .weights_digest = daemon->worker.hello.weights_digest,
                             .kv = bt_engine_kv(daemon->worker.engine)->shape,
                             .vocab = model->vocab,
                             .context_tokens_max = daemon->worker.hello.context_tokens_max,
                             .eos_count = model->eos_count,
                             .seqs_max = config->seqs_max,
                             .batch_seqs_max = config->worker.batch_seqs,
                             .batch_tokens_max = config->worker.batch_tokens,
                             .local_chunk = local_chunk(config),
                             .slot_count = config->slots,
                             .cell_count = config->cells,
                             .cell_bytes = (uint32_t)config->cell_bytes,
                             .quarantine_max = config->quarantine_max,
                             .reserve_tokens = config->reserve_tokens,
                             .lease_ns = config->lease_ns,
                             .cancel_repeat_ns = 500000000,
                             .router_timeout_ns = config->worker.router_timeout_ns,
                             .probe_tokens = probe_tokens};
    memcpy(core.eos_ids, model->eos_ids, sizeof(core.eos_ids));
    bt_decode_io io = {daemon,    io_send_router, io_send_peer,
                       io_submit, io_unpack,      io_probe_distance};
    size_t bytes = (bt_decode_core_bytes(&core) + 63) & ~(size_t)63;
    daemon->core_memory = aligned_alloc(64, bytes);
    if (daemon->core_memory == NULL)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "core state, %zu bytes", bytes);
    daemon->core = bt_decode_core_init(daemon->core_memory, &core, &io, bt_loop_now_ns());
    daemon->pairings.core = daemon->core;
    return BT_OK;
}

/* One slot more than the core knows: the scratch that prefill daemons measure with. */
static bt_status open_arena(bt_decoded *daemon, bt_err *err)
{
    const bt_decoded_config *config = daemon->config;
    bt_pairings *pairings = &daemon->pairings;
    pairings->slot_count = config->slots;
    pairings->cell_count = config->cells;
    pairings->cell_bytes = (uint32_t)config->cell_bytes;
    size_t bytes = ((size_t)config->slots + 1) * config->cells * config->cell_bytes;
    bt_log_info(NULL, "landing arena: %u slots of %u cells, %zu bytes", config->slots,
                config->cells, bytes);
    return bt_xfer_arena_open(daemon->worker.xfer, bytes, &pairings->arena, err);
}

bt_status bt_decoded_create(const bt_decoded_config *config, const bt_reload *reload,
                            bt_decoded **ret_daemon, bt_err *err)
{
    bt_decoded *daemon = calloc(1, sizeof(*daemon));
    if (daemon == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "decode daemon");
    *ret_daemon = daemon;
    daemon->config = config;
    daemon->worker.reload = reload;
    bt_status status =
        bt_worker_open(&daemon->worker, &config->worker, BT_ROLE_DECODE, &ops, daemon, err);
    if (status != BT_OK) return status;
    daemon->worker.hello.chunk_tokens = local_chunk(config);
    void *codec_memory = aligned_alloc(64, (bt_codec_bytes() + 63) & ~(size_t)63);
    if (codec_memory == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "codec");
    daemon->codec = bt_codec_init(codec_memory);
    status = open_arena(daemon, err);
    if (status == BT_OK) status = create_core(daemon, err);
    if (status == BT_OK)
        status = bt_pairings_open(&daemon->pairings, &daemon->worker, config->pair_listen, err);
    if (status != BT_OK) return status;
    bt_decode_metrics_open(&daemon->metrics, daemon->worker.metrics,
                           &bt_engine_kv(daemon->worker.engine)->shape,
                           ((uint64_t)config->slots + 1) * config->cells * config->cell_bytes);
    bt_handoff_open(&daemon->handoff, daemon->worker.metrics, BT_ROLE_DECODE);
    bt_decode_core_start(daemon->core, bt_loop_now_ns());
    return BT_OK;
}

bt_status bt_decoded_run(bt_decoded *daemon, bt_err *err)
{
    return bt_worker_run(&daemon->worker, err);
}

void bt_decoded_destroy(bt_decoded *daemon)
{
    if (daemon == NULL) return;
    bt_pairings_finish(&daemon->pairings);
    bt_worker_close(&daemon->worker);
    free(daemon->codec);
    free(daemon->core_memory);
    free(daemon);
}

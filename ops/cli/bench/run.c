#include "ops/cli/bench/run.h"

#include "common/base/clock.h"
#include "common/base/parse.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READY_MAX 32u
#define WARMUP_CONCURRENCY 4u /* of an open loop */
#define SENT_PER_TURN 4u
#define PROGRESS_NS (200 * BT_NS_PER_MS)

typedef struct lane lane;

/* One request: its body and what is read of its answer. Ready, in flight, or idle. */
typedef struct slot {
    struct slot *next;
    lane *lane;
    bt_json_out body;
    bt_stream stream;
    bt_record record;
    bt_err err;
    char text[512]; /* the beginning of an answer that is no stream */
    size_t text_bytes;
} slot;

/* One server and the block that it works on. */
struct lane {
    bt_run *run;
    bt_server *server;
    bt_result *result;
    bool warmup;
    uint32_t block, next, end; /* requests [next, end) are still to be sent */
    uint64_t begin_ns, base_ns, stop_ns;
    uint32_t in_flight;
    slot *idle, *ready, *ready_last;
    uint32_t ready_count, ready_index; /* the first index that is not ready */
    uint64_t *free_ns;                 /* ring: when places became free, of a closed loop */
    uint32_t free_first, free_count;
    bt_status status; /* what a callback met that ends the run */
    bt_err err;
};

struct bt_run {
    bt_run_options options;
    bt_client *http;
    lane lanes[BT_RUN_SERVERS_MAX];
    bt_result results[BT_RUN_SERVERS_MAX];
    uint32_t ring;
    uint64_t progress_ns;
};

const char *bt_outcome_name(bt_outcome outcome)
{
    static const char *const names[] = {"ok",   "connect",      "timeout",  "disconnect",
                                        "http", "stream_error", "malformed"};
    return names[outcome];
}

/* ---- life ---- */

bt_status bt_run_create(const bt_run_options *options, bt_client *http, bt_run **ret_run,
                        bt_err *err)
{
    assert(options->server_count >= 1 && options->server_count <= BT_RUN_SERVERS_MAX);
    assert(options->open_loop || options->concurrency > 0);
    bt_run *run = calloc(1, sizeof(*run));
    if (!run) return BT_FAIL(err, BT_ERR_NO_MEMORY, "the run");
    run->options = *options;
    run->http = http;
    run->ring = options->open_loop ? 1 : options->concurrency;
    for (unsigned i = 0; i < options->server_count; i++) {
        lane *l = &run->lanes[i];
        l->run = run;
        l->server = &options->servers[i];
        l->result = &run->results[i];
        l->result->counted = BT_COUNTED_IDS;
        l->free_ns = calloc(run->ring, sizeof(*l->free_ns));
        if (!l->free_ns) {
            bt_run_destroy(run);
            return BT_FAIL(err, BT_ERR_NO_MEMORY, "the run");
        }
    }
    *ret_run = run;
    return BT_OK;
}

static void free_slots(slot *first)
{
    for (slot *s = first; s;) {
        slot *next = s->next;
        bt_json_finish(&s->body);
        bt_stream_finish(&s->stream);
        free(s);
        s = next;
    }
}

void bt_run_destroy(bt_run *run)
{
    if (!run) return;
    for (unsigned i = 0; i < BT_RUN_SERVERS_MAX; i++) {
        free_slots(run->lanes[i].idle);
        free_slots(run->lanes[i].ready);
        free(run->lanes[i].free_ns);
        free(run->results[i].records);
        bt_samples_finish(&run->results[i].gaps);
    }
    free(run);
}

const bt_result *bt_run_result(const bt_run *run, unsigned server)
{
    return &run->results[server];
}

/* ---- results ---- */

static void note_error(bt_result *result, const slot *s)
{
    const bt_record *record = &s->record;
    result->failed++;
    for (uint32_t i = 0; i < result->error_kinds; i++) {
        bt_run_error *known = &result->errors[i];
        if (known->outcome != record->outcome || known->http_status != record->http_status)
            continue;
        known->count++;
        return;
    }
    if (result->error_kinds == BT_RUN_ERRORS_MAX) {
        result->errors[BT_RUN_ERRORS_MAX - 1].count++; /* a seventeenth kind is counted there */
        return;
    }
    bt_run_error *error = &result->errors[result->error_kinds++];
    *error =
        (bt_run_error){.outcome = record->outcome, .http_status = record->http_status, .count = 1};
    snprintf(error->message, sizeof(error->message), "%.159s", s->err.message);
}

static bt_status keep_record(bt_result *result, const bt_record *record, bt_err *err)
{
    if (result->record_count == result->record_capacity) {
        uint32_t capacity = result->record_capacity > 0 ? 2 * result->record_capacity : 1024;
        bt_record *grown = realloc(result->records, capacity * sizeof(*grown));
        if (!grown) return BT_FAIL(err, BT_ERR_NO_MEMORY, "%u records", capacity);
        result->records = grown;
        result->record_capacity = capacity;
    }
    result->records[result->record_count++] = *record;
    return BT_OK;
}

static bt_status keep_success(bt_result *result, slot *s, bt_err *err)
{
    const bt_stream *stream = &s->stream;
    bt_record *record = &s->record;
    record->first_ns = stream->first_ns;
    record->last_ns = stream->last_ns;
    record->output_tokens = stream->output_tokens;
    record->input_tokens = stream->usage_seen ? stream->prompt_tokens : 0;
    record->cached_tokens = stream->cached_tokens;
    record->token_events = stream->token_events;
    record->gaps_inexact = stream->gaps_inexact;
    record->first_gap = result->gaps.count;
    record->gap_count = (uint32_t)stream->gaps.count;
    if (stream->counted < result->counted) result->counted = stream->counted;
    for (size_t i = 0; i < stream->gaps.count; i++) {
        bt_status status = bt_samples_add(&result->gaps, stream->gaps.values[i], err);
        if (status != BT_OK) return status;
    }
    return BT_OK;
}

/* Which outcome a finished transfer is, with s->err for what is none. */
static bt_outcome judge(slot *s, const bt_client_end *end)
{
    if (end->outcome == BT_CLIENT_CONNECT || end->outcome == BT_CLIENT_TIMEOUT ||
        end->outcome == BT_CLIENT_DISCONNECT) {
        BT_FAIL(&s->err, BT_ERR_PEER_LOST, "%s", end->message);
        return end->outcome == BT_CLIENT_CONNECT   ? BT_OUTCOME_CONNECT
               : end->outcome == BT_CLIENT_TIMEOUT ? BT_OUTCOME_TIMEOUT
                                                   : BT_OUTCOME_DISCONNECT;
    }
    if (end->status != 200) {
        char text[160];
        bt_openai_error_text(s->text, s->text_bytes, text, sizeof(text));
        BT_FAIL(&s->err, BT_ERR_PEER_LOST, "%s", text);
        return BT_OUTCOME_HTTP;
    }
    if (end->outcome == BT_CLIENT_ABORTED)
        return s->stream.refused ? BT_OUTCOME_STREAM_ERROR : BT_OUTCOME_MALFORMED;
    return bt_stream_end(&s->stream, &s->err) == BT_OK ? BT_OUTCOME_OK : BT_OUTCOME_MALFORMED;
}

static void fail_lane(lane *l, bt_status status, const bt_err *err)
{
    if (l->status != BT_OK) return;
    l->status = status;
    l->err = *err;
}

static void take_end(lane *l, slot *s, const bt_client_end *end)
{
    bt_result *result = l->result;
    bt_err err = {0};
    s->record.outcome = judge(s, end);
    s->record.http_status = (int)end->status;
    s->record.end_ns = end->now_ns;
    if (l->warmup) {
        if (s->record.outcome != BT_OUTCOME_OK)
            fail_lane(l, BT_ERR_PEER_LOST,
                      (BT_FAIL(&err, BT_ERR_PEER_LOST, "a warm-up request failed: %.150s",
                               s->err.message),
                       &err));
        return;
    }
    bt_status status = BT_OK;
    if (s->record.outcome == BT_OUTCOME_OK)
        status = keep_success(result, s, &err);
    else
        note_error(result, s);
    if (status == BT_OK) status = keep_record(result, &s->record, &err);
    if (status != BT_OK) fail_lane(l, status, &err);
}

/* ---- one request ---- */

static bool on_data(void *user, long status, const char *bytes, size_t count, uint64_t now_ns)
{
    slot *s = user;
    if (status == 200) return bt_stream_feed(&s->stream, bytes, count, now_ns, &s->err) == BT_OK;
    size_t room = sizeof(s->text) - s->text_bytes;
    if (count > room) count = room;
    memcpy(s->text + s->text_bytes, bytes, count);
    s->text_bytes += count;
    return true;
}

static void on_done(void *user, const bt_client_end *end)
{
    slot *s = user;
    lane *l = s->lane;
    l->in_flight--;
    l->result->fresh_connections += end->fresh && !l->warmup;
    if (end->outcome == BT_CLIENT_CANCELLED)
        l->result->cancelled += !l->warmup;
    else
        take_end(l, s, end);
    if (!l->run->options.open_loop && l->free_count < l->run->ring)
        l->free_ns[(l->free_first + l->free_count++) % l->run->ring] = end->now_ns;
    s->next = l->idle;
    l->idle = s;
}

static slot *take_slot(lane *l, bt_err *err)
{
    slot *s = l->idle;
    if (s) {
        l->idle = s->next;
        return s;
    }
    s = calloc(1, sizeof(*s));
    if (!s) {
        BT_FAIL(err, BT_ERR_NO_MEMORY, "a request");
        return NULL;
    }
    s->lane = l;
    bt_json_init(&s->body, BT_LOAD_BODY_MAX);
    bt_stream_init(&s->stream);
    return s;
}

/* Writes the body of the next request that is not ready. */
static bt_status make_ready(lane *l, bt_err *err)
{
    const bt_run_options *o = &l->run->options;
    slot *s = take_slot(l, err);
    if (!s) return BT_ERR_NO_MEMORY;
    uint32_t index = l->ready_index;
    bt_status status = bt_load_write(o->load, l->warmup, index, o->vocab, &l->server->body,
                                     o->servers[0].text_overhead, &s->body, err);
    if (status != BT_OK) {
        s->next = l->idle;
        l->idle = s;
        return status;
    }
    const bt_load_item item = bt_load_item_of(o->load, l->warmup, index);
    s->record = (bt_record){.index = index,
                            .block = l->block,
                            .input_asked = item.input_tokens,
                            .output_asked = item.output_tokens};
    s->next = NULL;
    if (l->ready)
        l->ready_last->next = s;
    else
        l->ready = s;
    l->ready_last = s;
    l->ready_count++;
    l->ready_index++;
    return BT_OK;
}

static bt_status send_next(lane *l, uint64_t due_ns, bt_err *err)
{
    if (!l->ready) {
        bt_status status = make_ready(l, err);
        if (status != BT_OK) return status;
    }
    slot *s = l->ready;
    l->ready = s->next;
    l->ready_count--;
    bt_stream_begin(&s->stream);
    s->text_bytes = 0;
    s->err = (bt_err){0};
    const bt_client_request request = {
        .url = l->server->endpoint,
        .body = s->body.data,
        .body_bytes = s->body.bytes,
        .timeout_ms = l->run->options.timeout_ms,
        .on_data = on_data,
        .on_done = on_done,
        .user = s,
    };
    s->record.sent_ns = bt_monotonic_ns();
    s->record.due_ns = due_ns < s->record.sent_ns ? due_ns : s->record.sent_ns;
    l->next++;
    l->in_flight++;
    bt_status status = bt_client_start(l->run->http, &request, err);
    if (status != BT_OK) {
        l->in_flight--;
        s->next = l->idle;
        l->idle = s;
    }
    return status;
}

/* ---- lanes ---- */

/* Nothing more is to be sent, be it because a closed loop's time is up. */
static bool lane_sent_all(const lane *l, uint64_t now_ns)
{
    return l->next >= l->end || (l->stop_ns != 0 && now_ns >= l->stop_ns);
}

static uint64_t open_due_ns(const lane *l)
{
    return l->begin_ns + l->run->options.load->at_ns[l->next] - l->base_ns;
}

/* Sends what is due; *ret_wake_ns is lowered to when the next one is. Not all of many at once: while
 * requests are begun, those before them wait for their sockets to be served, which would count as
 * the server's time. */
static bt_status lane_turn(lane *l, uint64_t *ret_wake_ns, bt_err *err)
{
    bool open = l->run->options.open_loop && !l->warmup;
    uint32_t most = l->run->options.concurrency;
    if (l->run->options.open_loop && l->warmup) most = WARMUP_CONCURRENCY;
    if (most == 0) most = BT_RUN_CONCURRENCY_MAX;
    for (unsigned sent = 0; l->in_flight < most; sent++) {
        if (sent == SENT_PER_TURN) {
            *ret_wake_ns = 0;
            break;
        }
        uint64_t now_ns = bt_monotonic_ns(), due_ns = l->begin_ns;
        if (lane_sent_all(l, now_ns)) break;
        if (open) {
            due_ns = open_due_ns(l);
            if (due_ns > now_ns) {
                if (due_ns < *ret_wake_ns) *ret_wake_ns = due_ns;
                break;
            }
        } else if (l->free_count > 0) {
            due_ns = l->free_ns[l->free_first];
            l->free_first = (l->free_first + 1) % l->run->ring;
            l->free_count--;
        }
        bt_status status = send_next(l, due_ns, err);
        if (status != BT_OK) return status;
    }
    return l->status == BT_OK ? BT_OK : (*err = l->err, l->status);
}

static void begin_lane(lane *l, bool warmup, uint32_t first, uint32_t end, uint64_t stop_after_ns)
{
    const bt_load *load = l->run->options.load;
    /* Bodies that a block by time left over belong to the next block of this server. */
    if (l->ready && (l->warmup != warmup || l->ready->record.index != first)) {
        slot *last = l->ready_last;
        last->next = l->idle;
        l->idle = l->ready;
        l->ready = NULL;
        l->ready_count = 0;
    }
    l->warmup = warmup;
    l->next = first;
    l->end = end;
    l->ready_index = first + l->ready_count;
    for (slot *s = l->ready; s; s = s->next) s->record.block = l->block;
    l->free_first = l->free_count = 0;
    l->base_ns = load->at_ns && first > 0 && !warmup ? load->at_ns[first - 1] : 0;
    l->begin_ns = bt_monotonic_ns();
    l->stop_ns = stop_after_ns > 0 ? l->begin_ns + stop_after_ns : 0;
}

static void progress(bt_run *run, bool warmup, bool always)
{
    const bt_run_options *o = &run->options;
    uint64_t now_ns = bt_monotonic_ns();
    if (!o->on_progress || (!always && now_ns < run->progress_ns)) return;
    run->progress_ns = now_ns + PROGRESS_NS;
    o->on_progress(o->arg, run->results, bt_client_in_flight(run->http), warmup);
}

/* Runs the lanes [first, first + count) to their ends, all at once. */
static bt_status run_lanes(bt_run *run, unsigned first, unsigned count, bt_err *err)
{
    bool warmup = run->lanes[first].warmup;
    while (!bt_client_interrupted(run->http)) {
        uint64_t wake_ns = bt_monotonic_ns() + PROGRESS_NS, now_ns = bt_monotonic_ns();
        bool working = false, more_to_make = false;
        for (unsigned i = first; i < first + count; i++) {
            lane *l = &run->lanes[i];
            bt_status status = lane_turn(l, &wake_ns, err);
            if (status != BT_OK) return status;
            bool sent_all = lane_sent_all(l, now_ns);
            working = working || !sent_all || l->in_flight > 0;
            if (sent_all || l->ready_count >= READY_MAX || l->ready_index >= l->end) continue;
            status = make_ready(l, err);
            if (status != BT_OK) return status;
            more_to_make = true;
        }
        if (!working) break;
        bt_status status = bt_client_wait(run->http, more_to_make ? 0 : wake_ns, err);
        if (status != BT_OK) return status;
        progress(run, warmup, false);
    }
    bt_client_cancel_all(run->http); /* of an interrupted run */
    return BT_OK;
}

static void open_block(bt_run *run, unsigned i)
{
    bt_result *result = &run->results[i];
    assert(result->block_count < BT_RUN_BLOCKS_MAX);
    result->blocks[result->block_count++] =
        (bt_run_block){.begin_ns = run->lanes[i].begin_ns, .first_record = result->record_count};
}

static void close_block(bt_run *run, unsigned i)
{
    bt_result *result = &run->results[i];
    bt_run_block *block = &result->blocks[result->block_count - 1];
    block->record_count = result->record_count - block->first_record;
    block->end_ns = block->begin_ns;
    for (uint32_t r = block->first_record; r < result->record_count; r++)
        if (result->records[r].end_ns > block->end_ns) block->end_ns = result->records[r].end_ns;
}

/* One block on the servers [first, first + count). */
static bt_status run_block(bt_run *run, uint32_t number, unsigned first, unsigned count,
                           bt_err *err)
{
    const bt_run_options *o = &run->options;
    bool by_time = o->requests == UINT32_MAX && !o->open_loop;
    uint64_t total = o->open_loop ? o->load->arrival_count : o->requests;
    for (unsigned i = first; i < first + count; i++) {
        lane *l = &run->lanes[i];
        l->block = number;
        uint32_t from = (uint32_t)(total * number / o->blocks);
        uint32_t to = (uint32_t)(total * (number + 1) / o->blocks);
        if (by_time) {
            from = number == 0 ? 0 : l->next;
            to = UINT32_MAX;
        }
        begin_lane(l, false, from, to, by_time ? o->duration_ns / o->blocks : 0);
        open_block(run, i);
    }
    bt_status status = run_lanes(run, first, count, err);
    for (unsigned i = first; i < first + count; i++) close_block(run, i);
    progress(run, false, true);
    return status;
}

bt_status bt_run_warm(bt_run *run, bt_err *err)
{
    const bt_run_options *o = &run->options;
    for (unsigned i = 0; i < o->server_count && o->warmup > 0; i++) {
        begin_lane(&run->lanes[i], true, 0, o->warmup, 0);
        bt_status status = run_lanes(run, i, 1, err);
        if (status != BT_OK) {
            bt_client_cancel_all(run->http);
            return status;
        }
    }
    return BT_OK;
}

bt_status bt_run_measure(bt_run *run, bt_err *err)
{
    const bt_run_options *o = &run->options;
    bt_status status = BT_OK;
    for (uint32_t b = 0; b < o->blocks && status == BT_OK; b++) {
        if (o->together || o->server_count == 1) {
            status = run_block(run, b, 0, o->server_count, err);
        } else {
            for (unsigned turn = 0; turn < 2 && status == BT_OK; turn++)
                if (!bt_client_interrupted(run->http))
                    status = run_block(run, b, (b + turn) % 2, 1, err);
        }
        if (bt_client_interrupted(run->http)) break;
    }
    if (status != BT_OK) bt_client_cancel_all(run->http);
    return status;
}

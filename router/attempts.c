/* attempts.c - requests of the router: table R of docs/handoff.md, rules H4, H5, H6, H8.
 *
 * An entry is in one of three states: free, waiting (between attempts), running (an attempt is with
 * a P and a D). finish() is the only way out of the last two and calls io.ended once. */
#include "router/state.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define RETRY_NS UINT64_C(50000000) /* first wait between attempts; doubles */
#define WAITS_DOUBLED 4u

typedef enum { RETARGET_NO, RETARGET_ALLOWED } retarget_rule;

/* -- finding ----------------------------------------------------------------------------------- */

static uint32_t id_bucket(const bt_router_core *core, const bt_request_id *id)
{
    uint64_t word; /* ids are random: any word of them is a hash */
    memcpy(&word, id->bytes, sizeof(word));
    return (uint32_t)word & core->bucket_mask;
}

static uint32_t user_bucket(const bt_router_core *core, uint64_t user)
{
    return (uint32_t)((user * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & core->bucket_mask;
}

static bt_router_entry *find_id(bt_router_core *core, const bt_request_id *id)
{
    for (uint32_t i = core->id_buckets[id_bucket(core, id)]; i != BT_ROUTER_NONE;
         i = core->entries[i].id_next)
        if (bt_request_id_equal(&core->entries[i].id, id)) return &core->entries[i];
    return NULL;
}

static bt_router_entry *find_user(bt_router_core *core, uint64_t user)
{
    for (uint32_t i = core->user_buckets[user_bucket(core, user)]; i != BT_ROUTER_NONE;
         i = core->entries[i].user_next)
        if (core->entries[i].user == user) return &core->entries[i];
    return NULL;
}

static void link_entry(bt_router_core *core, bt_router_entry *r)
{
    uint32_t index = (uint32_t)(r - core->entries);
    uint32_t *id_head = &core->id_buckets[id_bucket(core, &r->id)];
    uint32_t *user_head = &core->user_buckets[user_bucket(core, r->user)];
    r->id_next = *id_head;
    r->user_next = *user_head;
    *id_head = *user_head = index;
    core->stats.requests++;
}

static void unlink_entry(bt_router_core *core, bt_router_entry *r)
{
    uint32_t index = (uint32_t)(r - core->entries);
    uint32_t *at = &core->id_buckets[id_bucket(core, &r->id)];
    while (*at != index) at = &core->entries[*at].id_next;
    *at = r->id_next;
    at = &core->user_buckets[user_bucket(core, r->user)];
    while (*at != index) at = &core->entries[*at].user_next;
    *at = r->user_next;
    r->used = false;
    r->id_next = core->free_head;
    core->free_head = index;
    core->stats.requests--;
}

void bt_router_requests_init(bt_router_core *core)
{
    for (uint32_t i = 0; i <= core->bucket_mask; i++)
        core->id_buckets[i] = core->user_buckets[i] = BT_ROUTER_NONE;
    core->free_head = BT_ROUTER_NONE;
    for (uint32_t i = core->config.requests_max; i-- > 0;) {
        core->entries[i].id_next = core->free_head;
        core->free_head = i;
    }
}

/* -- timers and daemons of an attempt ---------------------------------------------------------- */

static void set_deadline(bt_router_core *core, bt_router_entry *r, uint64_t deadline_ns)
{
    r->deadline_ns = deadline_ns;
    if (deadline_ns < core->deadline_ns) core->deadline_ns = deadline_ns;
}

/* The prompt is computed: it no longer weighs on P, or on the D that computed it. */
static void leave_prefill(bt_router_core *core, bt_router_entry *r, uint64_t now_ns)
{
    if (r->p_tokens == 0) return;
    bt_router_daemon *by = &core->daemons[r->local ? r->decode : r->prefill];
    by->assigned_tokens -= r->p_tokens;
    by->work_ns =
        by->assigned_tokens > 0 && by->work_ns > r->work_ns ? by->work_ns - r->work_ns : 0;
    by->work_since_ns = now_ns;
    r->p_tokens = 0;
}

static void enter_prefill(bt_router_core *core, bt_router_entry *r, const bt_router_plan *plan,
                          uint64_t now_ns)
{
    uint32_t tokens = r->prompt_count + r->base;
    uint32_t cached = r->local ? plan->choice.d_cached : plan->choice.p_cached;
    r->p_tokens = cached < tokens ? tokens - cached : 1;
    r->work_ns = plan->work_ns;
    bt_router_daemon *by = &core->daemons[r->local ? r->decode : r->prefill];
    if (by->assigned_tokens == 0) by->work_since_ns = now_ns;
    by->assigned_tokens += r->p_tokens;
    by->work_ns += r->work_ns;
}

/* P works on it no longer; it is still named, since every end cancels both sides. */
static void release_prefill(bt_router_core *core, bt_router_entry *r, uint64_t now_ns)
{
    leave_prefill(core, r, now_ns);
    if (r->p_counted) core->daemons[r->prefill].assigned--;
    r->p_counted = false;
}

static void count_prefill(bt_router_core *core, bt_router_entry *r)
{
    if (!r->p_counted) core->daemons[r->prefill].assigned++;
    r->p_counted = true;
}

static void release_decode(bt_router_core *core, bt_router_entry *r)
{
    if (r->decode == BT_ROUTER_NONE) return;
    core->daemons[r->decode].assigned--;
    r->decode = BT_ROUTER_NONE;
}

static void avoid(bt_router_entry *r, uint32_t daemon)
{
    if (daemon != BT_ROUTER_NONE) r->avoid[daemon / 64] |= UINT64_C(1) << daemon % 64;
}

/* Why the attempt failed, for the client if it was the last. Cut between characters. */
static void note(bt_router_entry *r, bt_refuse_reason refused, const char *who, const char *why)
{
    r->refused = refused;
    r->patient = false;
    size_t used = (size_t)snprintf(r->text, sizeof(r->text), "%s: ", who);
    size_t room = sizeof(r->text) - 1 - used, bytes = strlen(why);
    if (bytes > room) {
        bytes = room;
        while (bytes > 0 && ((uint8_t)why[bytes] & 0xc0) == 0x80) bytes--;
    }
    memcpy(r->text + used, why, bytes);
    r->text[used + bytes] = 0;
}

/* -- sending ----------------------------------------------------------------------------------- */

static bt_fence fence_of(const bt_router_entry *r)
{
    return (bt_fence){.request = r->id,
                      .attempt = r->attempt,
                      .p_incarnation = r->p_incarnation,
                      .d_incarnation = r->d_incarnation};
}

static void send_cancel(bt_router_core *core, bt_router_entry *r, uint32_t daemon,
                        uint64_t incarnation)
{
    if (daemon == BT_ROUTER_NONE) return;
    const bt_router_daemon *to = &core->daemons[daemon];
    if (!to->up || to->hello.incarnation != incarnation) return;
    bt_msg msg = {.kind = BT_MSG_CANCEL, .fence = fence_of(r)};
    core->io.send(core->io.ctx, daemon, &msg);
}

/* P too after Accepted: had that message to P been lost, its KV would stay pinned. */
static void cancel_both(bt_router_core *core, bt_router_entry *r)
{
    send_cancel(core, r, r->prefill, r->p_incarnation);
    send_cancel(core, r, r->decode, r->d_incarnation);
}

static void drop_daemons(bt_router_core *core, bt_router_entry *r, uint64_t now_ns)
{
    cancel_both(core, r);
    release_prefill(core, r, now_ns);
    release_decode(core, r);
    r->prefill = BT_ROUTER_NONE;
}

static bt_msg_work work_of(const bt_router_entry *r)
{
    bt_msg_work work = {.tokens = r->tokens,
                        .token_count = r->prompt_count + r->base,
                        .base = r->base,
                        .max_tokens = r->max_tokens,
                        .priority = r->priority,
                        .ignore_eos = r->ignore_eos,
                        .prompt_logprobs = !bt_router_scores_complete(r),
                        .sampling = r->sampling};
    memcpy(work.tenant_salt, r->tenant_salt, sizeof(work.tenant_salt));
    return work;
}

static void send_prefill(bt_router_core *core, const bt_router_entry *r)
{
    bt_msg msg = {.kind = BT_MSG_PREFILL, .fence = fence_of(r), .prefill = work_of(r)};
    /* H3: work that still waits for blocks when our own timer has failed it, ends at P too. */
    msg.prefill.deadline_ms = core->config.progress_ns / 1000000;
    msg.prefill.no_reserve = r->no_reserve;
    core->io.send(core->io.ctx, r->prefill, &msg);
}

static void send_reserve(bt_router_core *core, const bt_router_entry *r)
{
    bt_msg msg = {.kind = BT_MSG_RESERVE, .fence = fence_of(r), .reserve = work_of(r)};
    msg.reserve.local = r->local;
    core->io.send(core->io.ctx, r->decode, &msg);
}

/* -- the one ending (H4) ----------------------------------------------------------------------- */

static void finish(bt_router_core *core, bt_router_entry *r, bt_finish_reason reason,
                   uint64_t now_ns)
{
    assert(r->used);
    drop_daemons(core, r, now_ns);
    bt_router_end end = {.reason = reason,
                         .prompt_tokens = r->prompt_count,
                         .output_tokens = r->committed,
                         .cached_tokens = r->cached_tokens,
                         .attempts = r->attempt};
    switch (reason) {
    case BT_FINISH_FAILED:
        end.refused = r->refused;
        memcpy(end.text, r->text, sizeof(end.text));
        core->stats.failed_total++;
        break;
    case BT_FINISH_CANCELLED: core->stats.cancelled_total++; break;
    default: core->stats.finished_total++; break;
    }
    uint64_t user = r->user;
    unlink_entry(core, r);
    core->io.ended(core->io.ctx, user, &end);
}

/* Prefers daemons that have not failed this request; takes any before none. */
static bool choose_for(bt_router_core *core, bt_router_entry *r, uint32_t fixed_prefill,
                       uint64_t now_ns, bt_router_plan *ret_plan)
{
    bt_router_names_update(core, r);
    bt_router_terms strict = {0}, any = {.any_daemon = true};
    return bt_router_choose(core, r, fixed_prefill, strict, now_ns, ret_plan) ||
           bt_router_choose(core, r, fixed_prefill, any, now_ns, ret_plan);
}

/* -- attempts ---------------------------------------------------------------------------------- */

static void take_daemons(bt_router_core *core, bt_router_entry *r, bt_router_choice choice)
{
    r->prefill = choice.prefill;
    r->local = choice.prefill == BT_ROUTER_NONE;
    release_decode(core, r);
    r->p_incarnation = 0;
    r->d_incarnation = 0;
    if (!r->local) {
        count_prefill(core, r);
        r->p_incarnation = core->daemons[choice.prefill].hello.incarnation;
    }
    if (r->no_reserve) return;
    r->decode = choice.decode;
    r->d_incarnation = core->daemons[choice.decode].hello.incarnation;
    core->daemons[choice.decode].assigned++;
}

static void reset_attempt(bt_router_core *core, bt_router_entry *r, uint64_t now_ns)
{
    r->attempt++;
    if (r->attempt > 1) core->stats.retries_total++;
    r->waiting = r->accepted = r->pinned = r->first_seen = r->learnt = false;
    r->gap_set = 0;
    set_deadline(core, r, now_ns + core->config.progress_ns);
}

/* A fresh attempt: prompt + committed tokens are computed again, by P or by D. Only one token left
 * and a P: no D. */
static void begin(bt_router_core *core, bt_router_entry *r, const bt_router_plan *plan,
                  uint64_t now_ns)
{
    reset_attempt(core, r, now_ns);
    core->stats.decided_total[plan->kind]++;
    r->base = r->committed;
    bool local = plan->choice.prefill == BT_ROUTER_NONE;
    r->no_reserve = r->max_tokens - r->committed == 1 && !local;
    if (r->attempt == 1) r->predicted_ns = plan->ttft_ns;
    take_daemons(core, r, plan->choice);
    bt_router_believe(core, r, &plan->choice);
    enter_prefill(core, r, plan, now_ns);
    if (!local) send_prefill(core, r);
    if (!r->no_reserve) send_reserve(core, r);
}

/* P keeps its KV and sends it to another D. */
static void retarget(bt_router_core *core, bt_router_entry *r, const bt_router_plan *plan,
                     uint64_t now_ns)
{
    send_cancel(core, r, r->decode, r->d_incarnation);
    reset_attempt(core, r, now_ns);
    core->stats.decided_total[BT_DECIDED_RETARGET]++;
    take_daemons(core, r, plan->choice);
    r->d_believed = plan->choice.d_cached / BT_RUN_TOKENS;
    bt_msg msg = {.kind = BT_MSG_RETARGET, .fence = fence_of(r)};
    core->io.send(core->io.ctx, r->prefill, &msg);
    send_reserve(core, r);
}

static bool can_retarget(const bt_router_core *core, const bt_router_entry *r)
{
    if (r->prefill == BT_ROUTER_NONE || r->accepted || r->no_reserve) return false;
    const bt_router_daemon *p = &core->daemons[r->prefill];
    return p->up && p->hello.incarnation == r->p_incarnation && r->committed <= r->base + 1;
}

/* No pair now, or every one is full: try again later, within give_up_ns. */
static void wait_or_fail(bt_router_core *core, bt_router_entry *r, uint64_t now_ns)
{
    if (r->waits == 0) r->give_up_ns = now_ns + core->config.retry_wait_ns;
    if (now_ns >= r->give_up_ns) {
        finish(core, r, BT_FINISH_FAILED, now_ns);
        return;
    }
    uint64_t at = now_ns + (RETRY_NS << (r->waits < WAITS_DOUBLED ? r->waits : WAITS_DOUBLED));
    r->waits++;
    r->waiting = true;
    set_deadline(core, r, at < r->give_up_ns ? at : r->give_up_ns);
}

/* What passes by itself, so that the same daemon is worth asking again, but not at once. */
static bool passes(bt_refuse_reason reason)
{
    switch (reason) {
    case BT_REFUSE_FULL:
    case BT_REFUSE_DRAINING:  /* its heartbeat is about to say so */
    case BT_REFUSE_PEER_LOST: /* D knows of a death, or not yet of a pairing, and we will */
    case BT_REFUSE_INCOMPATIBLE: /* the pair is being probed again; else P tells us */ return true;
    default: return false;
    }
}

/* Nobody is left but daemons that have just said no. */
static bool must_wait(const bt_router_core *core, const bt_router_entry *r,
                      const bt_router_plan *plan)
{
    const bt_router_choice *c = &plan->choice;
    bool again = (c->prefill != BT_ROUTER_NONE && bt_router_avoided(r, c->prefill)) ||
                 bt_router_avoided(r, c->decode);
    if (!again || !r->patient) return false;
    return core->config.retry_wait_ns > 0 || r->refused == BT_REFUSE_FULL;
}

/* NEXT of table R. The entry may be gone afterwards. */
static void next_attempt(bt_router_core *core, bt_router_entry *r, retarget_rule rule,
                         uint64_t now_ns)
{
    bt_router_plan plan;
    r->no_local |= r->local;
    r->gap_set = 0; /* H5: tokens beyond a gap die with their attempt */
    /* What passes is bounded by time instead, where the operator gave it some. */
    if (!r->patient || core->config.retry_wait_ns == 0) r->failures++;
    if (r->failures >= core->config.attempts_max) {
        finish(core, r, BT_FINISH_FAILED, now_ns);
        return;
    }
    if (rule == RETARGET_ALLOWED && can_retarget(core, r) &&
        choose_for(core, r, r->prefill, now_ns, &plan) && !must_wait(core, r, &plan)) {
        retarget(core, r, &plan, now_ns);
        return;
    }
    drop_daemons(core, r, now_ns);
    if (choose_for(core, r, BT_ROUTER_NONE, now_ns, &plan) && !must_wait(core, r, &plan))
        begin(core, r, &plan, now_ns);
    else
        wait_or_fail(core, r, now_ns);
}

static void end_wait(bt_router_core *core, bt_router_entry *r, uint64_t now_ns)
{
    bt_router_plan plan;
    if (choose_for(core, r, BT_ROUTER_NONE, now_ns, &plan))
        begin(core, r, &plan, now_ns);
    else
        wait_or_fail(core, r, now_ns);
}

/* -- commits (H5) ------------------------------------------------------------------------------ */

static bool is_eos(const bt_router_core *core, uint32_t id)
{
    for (uint32_t i = 0; i < core->config.eos_count; i++)
        if (core->config.eos_ids[i] == id) return true;
    return false;
}

static void count_prediction(bt_router_core *core, const bt_router_entry *r, uint64_t now_ns)
{
    if (r->attempt != 1 || r->predicted_ns <= 0) return;
    double actual = (double)(now_ns - r->started_ns), error = actual - r->predicted_ns;
    core->stats.predictions_total++;
    core->stats.predicted_ns_total += (uint64_t)r->predicted_ns;
    core->stats.actual_ns_total += (uint64_t)actual;
    core->stats.error_ns_total += (uint64_t)(error < 0 ? -error : error);
}

/* True if the request ended with this token; io.token may end it too, by stop or cancel. */
static bool commit(bt_router_core *core, bt_router_entry *r, const bt_token *token, uint64_t now_ns)
{
    assert(r->committed < r->max_tokens);
    bool eos = is_eos(core, token->id);
    uint32_t index = r->committed++;
    if (index == 0) count_prediction(core, r, now_ns);
    r->tokens[r->prompt_count + index] = token->id;
    core->stats.tokens_total++;
    r->waits = 0;
    core->io.token(core->io.ctx, r->user, index, token, eos);
    if (!r->used) return true;
    if ((eos && !r->ignore_eos) || bt_sampling_stops(&r->sampling, token->id)) {
        finish(core, r, BT_FINISH_STOP, now_ns);
        return true;
    }
    if (r->committed == r->max_tokens) {
        finish(core, r, BT_FINISH_LENGTH, now_ns);
        return true;
    }
    return false;
}

/* Commits what is here without a gap. True if the request ended. */
static bool commit_ready(bt_router_core *core, bt_router_entry *r, uint64_t now_ns)
{
    while (bt_router_scores_complete(r) && r->gap_set >> (r->committed % BT_ROUTER_GAP_MAX) & 1) {
        uint32_t cell = r->committed % BT_ROUTER_GAP_MAX;
        r->gap_set &= ~(1u << cell);
        bt_token ready = r->gap[cell];
        if (commit(core, r, &ready, now_ns)) return true;
    }
    return false;
}

/* True if the request ended or its attempt failed: r is no longer this attempt's. */
static bool receive(bt_router_core *core, bt_router_entry *r, uint32_t index, const bt_token *token,
                    uint64_t now_ns)
{
    if (index < r->committed) {
        core->stats.duplicate_tokens_total++;
        if (r->tokens[r->prompt_count + index] == token->id) return false;
        note(r, BT_REFUSE_NONE, "decode", "a committed token came again with another value");
        avoid(r, r->decode);
        next_attempt(core, r, RETARGET_NO, now_ns);
        return true;
    }
    if (index >= r->max_tokens) { /* more than was asked for: never committed */
        core->stats.stale_total++;
        return false;
    }
    if (index - r->committed >= BT_ROUTER_GAP_MAX) {
        note(r, BT_REFUSE_NONE, "decode", "too many tokens beyond a missing one");
        next_attempt(core, r, RETARGET_NO, now_ns);
        return true;
    }
    r->gap[index % BT_ROUTER_GAP_MAX] = *token;
    r->gap_set |= 1u << index % BT_ROUTER_GAP_MAX;
    return commit_ready(core, r, now_ns);
}

/* -- messages ---------------------------------------------------------------------------------- */

/* D has the whole sequence: P may die, drain or free (H6). */
static void accept(bt_router_core *core, bt_router_entry *r, uint64_t now_ns)
{
    r->accepted = true;
    bt_router_learn_prefill_done(core, r);
    release_prefill(core, r, now_ns);
}

static void use_cached(bt_router_entry *r, uint32_t cached_tokens)
{
    if (r->usage_seen) return;
    r->cached_tokens = cached_tokens < r->prompt_count ? cached_tokens : r->prompt_count;
    r->usage_seen = true;
}

static void on_accepted(bt_router_core *core, bt_router_entry *r, const bt_msg *msg,
                        uint64_t now_ns)
{
    uint32_t cached = msg->accepted.cached_tokens;
    if (r->accepted) return; /* again */
    if (r->local) use_cached(r, cached);
    bt_router_learn_decode(core, r, cached);
    accept(core, r, now_ns);
}

static void on_first_token(bt_router_core *core, bt_router_entry *r, const bt_msg *msg,
                           uint64_t now_ns)
{
    uint32_t base = r->base;
    if (msg->first_token.index != base) {
        core->stats.stale_total++;
        return;
    }
    if (!bt_router_scores_complete(r)) { /* they went before it on the same link */
        note(r, BT_REFUSE_NONE, "prefill", "logprobs of the prompt are missing");
        next_attempt(core, r, RETARGET_NO, now_ns);
        return;
    }
    leave_prefill(core, r, now_ns);
    use_cached(r, msg->first_token.cached_tokens);
    bt_router_learn_prefill(core, r, msg->first_token.cached_tokens);
    r->first_seen = true;
    if (receive(core, r, base, &msg->first_token.token, now_ns)) return;
    if (msg->first_token.final && r->committed == base + 1) {
        bt_finish_reason reason = msg->first_token.finish;
        finish(core, r, reason == BT_FINISH_LENGTH ? BT_FINISH_LENGTH : BT_FINISH_STOP, now_ns);
    }
}

/* What an earlier attempt told already is left out. */
static void on_scores(bt_router_core *core, bt_router_entry *r, const bt_msg *msg, uint64_t now_ns)
{
    uint32_t index = msg->tokens.index, count = msg->tokens.token_count;
    bool sane = index + count <= r->prompt_count;
    for (uint32_t i = 0; i < count && sane; i++)
        sane = msg->tokens.tokens[i].id == r->tokens[index + i];
    if (!r->score || !sane || index > r->scored + 1) {
        note(r, BT_REFUSE_NONE, "prefill", "logprobs of the prompt are wrong or missing");
        next_attempt(core, r, RETARGET_NO, now_ns);
        return;
    }
    uint32_t known = r->scored + 1 - index;
    if (known >= count) return;
    r->scored = index + count - 1;
    if (core->io.prompt_logprobs != NULL)
        core->io.prompt_logprobs(core->io.ctx, r->user, index + known, msg->tokens.tokens + known,
                                 count - known);
    if (r->used) commit_ready(core, r, now_ns);
}

static void on_tokens(bt_router_core *core, bt_router_entry *r, const bt_msg *msg, uint64_t now_ns)
{
    accept(core, r, now_ns); /* Tokens imply Accepted */
    r->first_seen = true;
    for (uint32_t i = 0; i < msg->tokens.token_count; i++)
        if (receive(core, r, msg->tokens.index + i, &msg->tokens.tokens[i], now_ns)) return;
}

/* Output tokens that are here, committed or not. */
static uint32_t tokens_here(const bt_router_entry *r)
{
    uint32_t here = r->committed;
    while (here - r->committed < BT_ROUTER_GAP_MAX && r->gap_set >> (here % BT_ROUTER_GAP_MAX) & 1)
        here++;
    return here;
}

static void on_finished(bt_router_core *core, bt_router_entry *r, const bt_msg *msg,
                        uint64_t now_ns)
{
    bt_finish_reason reason = msg->finished.reason;
    bool ended = reason == BT_FINISH_STOP || reason == BT_FINISH_LENGTH;
    if (ended && msg->finished.token_count == r->committed) {
        finish(core, r, reason, now_ns);
        return;
    }
    /* All are here and wait for the prompt's logprobs; the last of them will end it. */
    if (ended && !bt_router_scores_complete(r) && msg->finished.token_count == tokens_here(r))
        return;
    note(r, BT_REFUSE_NONE, "decode", ended ? "finished with tokens missing" : "gave up");
    avoid(r, r->decode);
    next_attempt(core, r, RETARGET_NO, now_ns);
}

static void on_refused(bt_router_core *core, bt_router_entry *r, uint32_t daemon, const bt_msg *msg,
                       uint64_t now_ns)
{
    bool by_prefill = daemon == r->prefill;
    bt_refuse_reason reason = msg->refused.reason;
    note(r, reason, by_prefill ? "prefill" : "decode",
         msg->refused.text[0] != 0 ? msg->refused.text : bt_refuse_name(reason));
    r->patient = passes(reason);
    /* KV that is gone says nothing against its daemon. */
    if (reason != BT_REFUSE_UNKNOWN) avoid(r, daemon);
    retarget_rule rule = by_prefill ? RETARGET_NO : RETARGET_ALLOWED;
    if (!by_prefill && reason == BT_REFUSE_PEER_LOST) {
        avoid(r, r->prefill);
        rule = RETARGET_NO;
    }
    next_attempt(core, r, rule, now_ns);
}

/* From the daemon and for the attempt that the entry is about, incarnations included. */
static bool current(const bt_router_entry *r, uint32_t daemon, const bt_msg *msg)
{
    if (r->waiting || msg->fence.attempt != r->attempt) return false;
    if (msg->fence.p_incarnation != r->p_incarnation ||
        msg->fence.d_incarnation != r->d_incarnation)
        return false;
    switch (msg->kind) {
    case BT_MSG_FIRST_TOKEN:
    case BT_MSG_PROMPT_LOGPROBS:
    case BT_MSG_PINNED: return daemon == r->prefill;
    case BT_MSG_REFUSED: return daemon == r->decode || (daemon == r->prefill && !r->accepted);
    default: return daemon == r->decode;
    }
}

void bt_router_request_message(bt_router_core *core, uint32_t daemon, const bt_msg *msg,
                               uint64_t now_ns)
{
    bt_router_entry *r = find_id(core, &msg->fence.request);
    if (r == NULL || !current(r, daemon, msg)) {
        core->stats.stale_total++;
        return;
    }
    set_deadline(core, r, now_ns + core->config.progress_ns);
    switch (msg->kind) {
    case BT_MSG_FIRST_TOKEN: on_first_token(core, r, msg, now_ns); break;
    case BT_MSG_PINNED:
        leave_prefill(core, r, now_ns);
        r->pinned = true;
        break;
    case BT_MSG_ACCEPTED: on_accepted(core, r, msg, now_ns); break;
    case BT_MSG_PROMPT_LOGPROBS: on_scores(core, r, msg, now_ns); break;
    case BT_MSG_TOKENS: on_tokens(core, r, msg, now_ns); break;
    case BT_MSG_FINISHED: on_finished(core, r, msg, now_ns); break;
    case BT_MSG_REFUSED: on_refused(core, r, daemon, msg, now_ns); break;
    case BT_MSG_EVICTED:
        note(r, BT_REFUSE_FULL, "decode", "evicted: the pool is full");
        r->patient = true;
        avoid(r, r->decode);
        next_attempt(core, r, RETARGET_NO, now_ns);
        break;
    default: core->stats.stale_total++; break;
    }
}

/* -- deaths and time --------------------------------------------------------------------------- */

void bt_router_requests_daemon_down(bt_router_core *core, uint32_t daemon, uint64_t now_ns)
{
    for (uint32_t i = 0; i < core->config.requests_max; i++) {
        bt_router_entry *r = &core->entries[i];
        if (!r->used || r->waiting) continue;
        bool was_prefill = r->prefill == daemon && !r->accepted; /* H6 */
        if (!was_prefill && r->decode != daemon) continue;
        note(r, BT_REFUSE_PEER_LOST, was_prefill ? "prefill" : "decode", "the daemon is gone");
        next_attempt(core, r, was_prefill ? RETARGET_NO : RETARGET_ALLOWED, now_ns);
    }
}

void bt_router_requests_pair_down(bt_router_core *core, uint32_t prefill, uint32_t decode,
                                  uint64_t now_ns)
{
    for (uint32_t i = 0; i < core->config.requests_max; i++) {
        bt_router_entry *r = &core->entries[i];
        if (!r->used || r->waiting || r->accepted) continue;
        if (r->prefill != prefill || r->decode != decode) continue;
        note(r, BT_REFUSE_PEER_LOST, "prefill", "the endpoint to the decode daemon broke");
        next_attempt(core, r, RETARGET_ALLOWED, now_ns);
    }
}

void bt_router_requests_expire(bt_router_core *core, bool all_waiting, uint64_t now_ns)
{
    for (uint32_t i = 0; i < core->config.requests_max; i++) {
        bt_router_entry *r = &core->entries[i];
        if (!r->used) continue;
        if (r->waiting && (all_waiting || now_ns >= r->deadline_ns)) {
            end_wait(core, r, now_ns);
        } else if (!r->waiting && now_ns >= r->deadline_ns) {
            bool blame_prefill = !r->local && !r->first_seen && !r->pinned && !r->accepted;
            note(r, BT_REFUSE_NONE, blame_prefill ? "prefill" : "decode", "no progress in time");
            avoid(r, blame_prefill ? r->prefill : r->decode);
            next_attempt(core, r, RETARGET_ALLOWED, now_ns);
        }
    }
}

/* -- clients ----------------------------------------------------------------------------------- */

/* Entries that are neither used nor promised. */
static uint32_t free_places(const bt_router_core *core)
{
    return core->config.requests_max - core->stats.requests - core->reserved;
}

static bt_status full(const bt_router_core *core, bt_err *err)
{
    return BT_FAIL(err, BT_AGAIN, "%u requests are in flight, the most allowed",
                   core->config.requests_max);
}

/* Into an entry that stays on the list of free ones until the request is accepted. */
static void fill(bt_router_core *core, bt_router_entry *r, const bt_router_request *request,
                 uint64_t now_ns)
{
    *r = (bt_router_entry){.id = request->id,
                           .user = request->user,
                           .id_next = r->id_next,
                           .tokens = r->tokens,
                           .bias = r->bias,
                           .names = r->names,
                           .prompt_count = request->token_count,
                           .max_tokens = request->max_tokens,
                           .ignore_eos = request->ignore_eos,
                           .priority = request->priority,
                           .score = request->prompt_logprobs,
                           .started_ns = now_ns,
                           .prefill = BT_ROUTER_NONE,
                           .decode = BT_ROUTER_NONE};
    r->sampling = bt_sampling_copy(&request->sampling, r->bias);
    memcpy(r->tenant_salt, request->tenant_salt, sizeof(r->tenant_salt));
    memcpy(r->tokens, request->tokens, (size_t)request->token_count * sizeof(*r->tokens));
    bt_router_names_update(core, r);
}

/* Why nobody may take it, although a pair is ready. */
static bt_status not_choosable(bt_router_core *core, const bt_router_entry *r, bt_err *err)
{
    uint32_t minor = bt_router_minor(r);
    bt_router_terms terms = {.any_minor = true};
    if (minor > 0 && bt_router_choosable(core, r, terms))
        return BT_FAIL(err, BT_ERR_PEER_LOST,
                       "this needs protocol %u.%u, and no pair of daemons that speaks it is ready",
                       BT_PROTO_MAJOR, minor);
    terms.any_size = true;
    if (!bt_router_choosable(core, r, terms))
        return BT_FAIL(err, BT_ERR_PEER_LOST, "every ready pair of daemons is draining");
    return BT_FAIL(err, BT_ERR_LIMIT, "%u tokens are more than any pair of daemons can hold",
                   r->prompt_count + r->max_tokens);
}

/* OK: the first free entry is filled and *ret_plan says where it goes. */
static bt_status admit(bt_router_core *core, const bt_router_request *request, uint64_t now_ns,
                       bt_router_plan *ret_plan, bt_err *err)
{
    if (request->token_count == 0 || request->max_tokens == 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "an empty prompt or no token to make");
    const char *fault = bt_sampling_fault(&request->sampling, BT_VOCAB_MAX);
    if (fault != NULL) return BT_FAIL(err, BT_ERR_ARGUMENT, "%s is out of range", fault);
    uint64_t total = (uint64_t)request->token_count + request->max_tokens;
    if (total > core->config.tokens_max)
        return BT_FAIL(err, BT_ERR_LIMIT, "%llu tokens, at most %u are allowed",
                       (unsigned long long)total, core->config.tokens_max);
    if (!bt_router_core_serving(core))
        return BT_FAIL(err, BT_ERR_PEER_LOST, "no pair of daemons is ready");
    if (free_places(core) + request->reserved == 0) return full(core, err);
    bt_router_entry *r = &core->entries[core->free_head];
    fill(core, r, request, now_ns);
    bt_router_terms strict = {0};
    if (bt_router_choose(core, r, BT_ROUTER_NONE, strict, now_ns, ret_plan)) return BT_OK;
    return not_choosable(core, r, err);
}

bt_status bt_router_core_reserve(bt_router_core *core, uint32_t count, bt_err *err)
{
    if (free_places(core) < count) {
        core->stats.refused_total++;
        return full(core, err);
    }
    core->reserved += count;
    return BT_OK;
}

void bt_router_core_unreserve(bt_router_core *core, uint32_t count)
{
    assert(count <= core->reserved);
    core->reserved -= count;
}

bt_status bt_router_core_submit(bt_router_core *core, const bt_router_request *request,
                                uint64_t now_ns, bt_err *err)
{
    bt_router_plan plan;
    bt_status status = admit(core, request, now_ns, &plan, err);
    if (status != BT_OK) {
        core->stats.refused_total++;
        return status;
    }
    assert(find_id(core, &request->id) == NULL && find_user(core, request->user) == NULL);
    if (request->reserved) bt_router_core_unreserve(core, 1);
    bt_router_entry *r = &core->entries[core->free_head];
    core->free_head = r->id_next;
    r->used = true;
    link_entry(core, r);
    core->stats.accepted_total++;
    begin(core, r, &plan, now_ns);
    return BT_OK;
}

void bt_router_core_cancel(bt_router_core *core, uint64_t user, uint64_t now_ns)
{
    bt_router_entry *r = find_user(core, user);
    if (r != NULL) finish(core, r, BT_FINISH_CANCELLED, now_ns);
}

void bt_router_core_stop(bt_router_core *core, uint64_t user, uint64_t now_ns)
{
    bt_router_entry *r = find_user(core, user);
    if (r != NULL) finish(core, r, BT_FINISH_STOP, now_ns);
}

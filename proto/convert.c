#include "proto/convert.h"

#include <string.h>

/* -- bt_msg to protobuf ------------------------------------------------------------------------ */

static ProtobufCBinaryData bytes_of(const void *data, size_t bytes)
{
    return (ProtobufCBinaryData){.len = bytes, .data = (uint8_t *)data};
}

static ProtobufCBinaryData text_of(const char *text)
{
    return bytes_of(text, strlen(text));
}

#define BYTES_OF(array) bytes_of((array), sizeof(array))

static void put_fence(const bt_fence *f, bt_pb *pb)
{
    baton__v1__fence__init(&pb->fence);
    pb->fence.request = BYTES_OF(f->request.bytes);
    pb->fence.attempt = f->attempt;
    pb->fence.branch = f->branch;
    pb->fence.tp_rank = f->tp_rank;
    pb->fence.slot = f->slot;
    pb->fence.generation = f->generation;
    pb->fence.p_incarnation = f->p_incarnation;
    pb->fence.d_incarnation = f->d_incarnation;
    pb->envelope.fence = &pb->fence;
}

static void put_hello(const bt_hello *h, bt_pb *pb)
{
    Baton__V1__Hello *to = &pb->hello;
    baton__v1__hello__init(to);
    to->proto_major = h->proto_major;
    to->proto_minor = h->proto_minor;
    to->role = h->role;
    to->name = text_of(h->name);
    to->model = text_of(h->model);
    to->incarnation = h->incarnation;
    to->fingerprint = BYTES_OF(h->fingerprint.bytes);
    to->weights_digest = BYTES_OF(h->weights_digest.bytes);
    to->kv_dtype = h->kv_dtype;
    to->wire_formats = h->wire_formats;
    to->block_tokens = h->block_tokens;
    to->pool_blocks = h->pool_blocks;
    to->context_tokens_max = h->context_tokens_max;
    to->layers = h->layers;
    to->kv_heads = h->kv_heads;
    to->head_dim = h->head_dim;
    to->vocab = h->vocab;
    to->tp_size = h->tp_size;
    to->ucx_major = h->ucx_major;
    to->ucx_minor = h->ucx_minor;
    to->pair_endpoint = text_of(h->pair_endpoint);
    to->curve_public = BYTES_OF(h->curve_public);
    to->metrics_url = text_of(h->metrics_url);
    to->process_host = h->process_host;
    to->process_start = h->process_start;
    to->process_pid = h->process_pid;
    to->chunk_tokens = h->chunk_tokens;
}

static void put_heartbeat(const bt_msg *m, bt_pb *pb)
{
    Baton__V1__Heartbeat *to = &pb->body.heartbeat;
    baton__v1__heartbeat__init(to);
    to->incarnation = m->heartbeat.incarnation;
    to->running = m->heartbeat.running;
    to->waiting = m->heartbeat.waiting;
    to->blocks_free = m->heartbeat.blocks_free;
    to->slots_free = m->heartbeat.slots_free;
    to->draining = m->heartbeat.draining;
    to->queued_tokens = m->heartbeat.queued_tokens;
    to->context_tokens = m->heartbeat.context_tokens;
    to->batch_ns = m->heartbeat.cost.batch_ns;
    to->token_ns = m->heartbeat.cost.token_ns;
    to->pair_ns = m->heartbeat.cost.pair_ns;
}

static void put_token(const bt_token *token, uint32_t i, bt_pb *pb)
{
    Baton__V1__Token *to = &pb->token[i];
    baton__v1__token__init(to);
    to->id = token->id;
    to->logprob = token->logprob;
    for (uint32_t k = 0; k < token->top_count; k++) {
        pb->top_ids[i][k] = token->top[k].id;
        pb->top_logprobs[i][k] = token->top[k].logprob;
    }
    to->n_top_ids = to->n_top_logprobs = token->top_count;
    to->top_ids = pb->top_ids[i];
    to->top_logprobs = pb->top_logprobs[i];
}

static void put_digest(const bt_kv_digest *digest, bt_pb *pb)
{
    baton__v1__digest__init(&pb->digest);
    pb->digest.lane0 = digest->lane[0];
    pb->digest.lane1 = digest->lane[1];
}

static void put_sampling(const bt_sampling *s, bt_pb *pb)
{
    Baton__V1__Sampling *to = &pb->sampling;
    baton__v1__sampling__init(to);
    to->temperature = s->temperature;
    to->top_p = s->top_p;
    to->top_k = s->top_k;
    to->top_logprobs = s->top_logprobs;
    to->seed = s->seed;
    to->min_p = s->min_p;
    to->repetition_penalty = s->repetition_penalty;
    to->presence_penalty = s->presence_penalty;
    to->frequency_penalty = s->frequency_penalty;
    to->min_tokens = s->min_tokens;
    to->logprobs = s->logprobs;
    to->stop_ids = (uint32_t *)s->stop_ids;
    to->n_stop_ids = s->stop_count;
    for (uint32_t i = 0; i < s->bias_count; i++) {
        pb->bias_ids[i] = s->bias[i].id;
        pb->bias[i] = s->bias[i].bias;
    }
    to->bias_ids = pb->bias_ids;
    to->bias = pb->bias;
    to->n_bias_ids = to->n_bias = s->bias_count;
}

static void put_work(const bt_msg_work *w, bt_pb *pb)
{
    Baton__V1__Work *to = &pb->body.work;
    baton__v1__work__init(to);
    put_sampling(&w->sampling, pb);
    to->tokens = (uint32_t *)w->tokens;
    to->n_tokens = w->token_count;
    to->base_tokens = w->base;
    to->max_tokens = w->max_tokens;
    to->priority = w->priority;
    to->ignore_eos = w->ignore_eos;
    to->no_reserve = w->no_reserve;
    to->prompt_logprobs = w->prompt_logprobs;
    to->local = w->local;
    to->deadline_ms = w->deadline_ms;
    to->sampling = &pb->sampling;
    to->tenant_salt = BYTES_OF(w->tenant_salt);
}

static void put_pairing(const bt_msg *m, bt_pb *pb)
{
    switch (m->kind) {
    case BT_MSG_PAIR:
    case BT_MSG_UNPAIR:
        baton__v1__pair__init(&pb->body.pair);
        pb->body.pair.d_incarnation = m->pair.d_incarnation;
        pb->body.pair.name = text_of(m->pair.name);
        pb->body.pair.endpoint = text_of(m->pair.endpoint);
        pb->body.pair.curve_public = BYTES_OF(m->pair.curve_public);
        break;
    case BT_MSG_PAIR_STATUS:
        baton__v1__pair_status__init(&pb->body.pair_status);
        pb->body.pair_status.d_incarnation = m->pair_status.d_incarnation;
        pb->body.pair_status.ready = m->pair_status.ready;
        pb->body.pair_status.transport = text_of(m->pair_status.transport);
        pb->body.pair_status.mb_per_s = m->pair_status.mb_per_s;
        pb->body.pair_status.wire = m->pair_status.wire;
        pb->body.pair_status.reason = text_of(m->pair_status.reason);
        break;
    case BT_MSG_PAIR_HELLO:
        baton__v1__pair_hello__init(&pb->body.pair_hello);
        put_hello(&m->pair_hello.hello, pb);
        pb->body.pair_hello.hello = &pb->hello;
        pb->body.pair_hello.wire_wanted = m->pair_hello.wire_wanted;
        pb->body.pair_hello.worker_address =
            bytes_of(m->pair_hello.worker_address, m->pair_hello.worker_address_bytes);
        break;
    case BT_MSG_PAIR_ACCEPT:
        baton__v1__pair_accept__init(&pb->body.pair_accept);
        put_hello(&m->pair_accept.hello, pb);
        pb->body.pair_accept.hello = &pb->hello;
        pb->body.pair_accept.wire = m->pair_accept.wire;
        pb->body.pair_accept.slot_count = m->pair_accept.slot_count;
        pb->body.pair_accept.cell_count = m->pair_accept.cell_count;
        pb->body.pair_accept.cell_bytes = m->pair_accept.cell_bytes;
        pb->body.pair_accept.arena_address = m->pair_accept.arena_address;
        pb->body.pair_accept.secret = BYTES_OF(m->pair_accept.secret);
        pb->body.pair_accept.worker_address =
            bytes_of(m->pair_accept.worker_address, m->pair_accept.worker_address_bytes);
        pb->body.pair_accept.rkey = bytes_of(m->pair_accept.rkey, m->pair_accept.rkey_bytes);
        break;
    default:
        baton__v1__pair_refuse__init(&pb->body.pair_refuse);
        pb->body.pair_refuse.reason = text_of(m->pair_refuse.reason);
        break;
    }
}

static void put_tokens(const bt_msg *m, bt_pb *pb)
{
    Baton__V1__Tokens *to = &pb->body.tokens;
    baton__v1__tokens__init(to);
    for (uint32_t i = 0; i < m->tokens.token_count; i++) {
        put_token(&m->tokens.tokens[i], i, pb);
        pb->token_list[i] = &pb->token[i];
    }
    to->tokens = pb->token_list;
    to->n_tokens = m->tokens.token_count;
    to->index = m->tokens.index;
}

static void put_frame(const bt_frame *f, bt_pb *pb)
{
    baton__v1__frame__init(&pb->frame);
    pb->frame.frame = f->frame;
    pb->frame.cell = f->cell;
    pb->frame.layer = f->layer;
    pb->frame.run_first = f->run_first;
    pb->frame.run_count = f->run_count;
    pb->frame.head_first = f->head_first;
    pb->frame.head_count = f->head_count;
    pb->frame.token_end = f->token_end;
}

static void put_handoff(const bt_msg *m, bt_pb *pb)
{
    switch (m->kind) {
    case BT_MSG_TICKET:
        baton__v1__ticket__init(&pb->body.ticket);
        pb->body.ticket.wire = m->ticket.wire;
        pb->body.ticket.run_first = m->ticket.run_first;
        pb->body.ticket.cell_count = m->ticket.cell_count;
        pb->body.ticket.lease_ms = m->ticket.lease_ms;
        pb->body.ticket.probe = m->ticket.probe;
        break;
    case BT_MSG_SEALED:
        baton__v1__sealed__init(&pb->body.sealed);
        put_frame(&m->sealed.frame, pb);
        put_digest(&m->sealed.digest, pb);
        pb->body.sealed.frame = &pb->frame;
        pb->body.sealed.digest = &pb->digest;
        break;
    case BT_MSG_CREDIT:
        baton__v1__credit__init(&pb->body.credit);
        pb->body.credit.cell = m->credit.cell;
        break;
    default:
        baton__v1__manifest__init(&pb->body.manifest);
        pb->body.manifest.token_count = m->manifest.token_count;
        pb->body.manifest.frame_count = m->manifest.frame_count;
        put_digest(&m->manifest.digest_sum, pb);
        pb->body.manifest.digest_sum = &pb->digest;
        pb->body.manifest.prefix_hash = BYTES_OF(m->manifest.prefix_hash.bytes);
        pb->body.manifest.base_tokens = m->manifest.base;
        put_token(&m->manifest.first_token, 0, pb);
        pb->body.manifest.first_token = &pb->token[0];
        break;
    }
}

static void put_answer(const bt_msg *m, bt_pb *pb)
{
    switch (m->kind) {
    case BT_MSG_FIRST_TOKEN:
        baton__v1__first_token__init(&pb->body.first_token);
        put_token(&m->first_token.token, 0, pb);
        pb->body.first_token.token = &pb->token[0];
        pb->body.first_token.index = m->first_token.index;
        pb->body.first_token.final = m->first_token.final;
        pb->body.first_token.finish = m->first_token.finish;
        pb->body.first_token.cached_tokens = m->first_token.cached_tokens;
        break;
    case BT_MSG_ACCEPTED:
        baton__v1__accepted__init(&pb->body.accepted);
        pb->body.accepted.cached_tokens = m->accepted.cached_tokens;
        break;
    case BT_MSG_REFUSED:
        baton__v1__refused__init(&pb->body.refused);
        pb->body.refused.reason = m->refused.reason;
        pb->body.refused.retry = m->refused.retry;
        pb->body.refused.text = text_of(m->refused.text);
        break;
    case BT_MSG_FINISHED:
        baton__v1__finished__init(&pb->body.finished);
        pb->body.finished.reason = m->finished.reason;
        pb->body.finished.token_count = m->finished.token_count;
        break;
    case BT_MSG_EVICTED:
        baton__v1__evicted__init(&pb->body.evicted);
        pb->body.evicted.token_count = m->evicted.token_count;
        break;
    case BT_MSG_RENEW:
        baton__v1__renew__init(&pb->body.renew);
        pb->body.renew.requests =
            bytes_of(m->renew.requests, m->renew.request_count * sizeof(bt_request_id));
        break;
    default: baton__v1__empty__init(&pb->body.empty); break;
    }
}

void bt_pb_from_msg(const bt_msg *msg, bt_pb *ret_pb)
{
    static const bt_fence none;
    bt_pb *pb = ret_pb;
    baton__v1__envelope__init(&pb->envelope);
    pb->envelope.major = BT_PROTO_MAJOR;
    pb->envelope.minor = BT_PROTO_MINOR;
    pb->envelope.body_case = (Baton__V1__Envelope__BodyCase)(BT_PB_TAG_OF_KIND + msg->kind);
    if (!bt_fence_equal(&msg->fence, &none)) put_fence(&msg->fence, pb);
    /* Every member of the oneof is a pointer to a message. */
    pb->envelope.retarget = &pb->body.empty;
    switch (msg->kind) {
    case BT_MSG_HELLO:
        put_hello(&msg->hello, pb);
        pb->envelope.hello = &pb->hello;
        break;
    case BT_MSG_WELCOME:
        baton__v1__welcome__init(&pb->body.welcome);
        pb->body.welcome.router_incarnation = msg->welcome.router_incarnation;
        pb->body.welcome.heartbeat_ms = msg->welcome.heartbeat_ms;
        break;
    case BT_MSG_HEARTBEAT: put_heartbeat(msg, pb); break;
    case BT_MSG_PAIR:
    case BT_MSG_UNPAIR:
    case BT_MSG_PAIR_STATUS:
    case BT_MSG_PAIR_HELLO:
    case BT_MSG_PAIR_ACCEPT:
    case BT_MSG_PAIR_REFUSE: put_pairing(msg, pb); break;
    case BT_MSG_PREFILL: put_work(&msg->prefill, pb); break;
    case BT_MSG_RESERVE: put_work(&msg->reserve, pb); break;
    case BT_MSG_TOKENS:
    case BT_MSG_PROMPT_LOGPROBS: put_tokens(msg, pb); break;
    case BT_MSG_TICKET:
    case BT_MSG_SEALED:
    case BT_MSG_CREDIT:
    case BT_MSG_MANIFEST: put_handoff(msg, pb); break;
    default: put_answer(msg, pb); break;
    }
}

/* -- protobuf to bt_msg; each returns the wrong field or NULL ---------------------------------- */

#define TAKE_BYTES(from, to)                                                                       \
    do {                                                                                           \
        if ((from).len != sizeof(to)) return #from;                                                \
        memcpy((to), (from).data, sizeof(to));                                                     \
    } while (0)

/* Room for the NUL, and no NUL inside: a text that would be shortened is refused. */
#define TAKE_TEXT(from, to)                                                                        \
    do {                                                                                           \
        if ((from).len >= sizeof(to)) return #from;                                                \
        if ((from).len > 0 && memchr((from).data, 0, (from).len) != NULL) return #from;            \
        if ((from).len > 0) memcpy((to), (from).data, (from).len);                                 \
        (to)[(from).len] = 0;                                                                      \
    } while (0)

static const char *take_fence(const Baton__V1__Fence *from, bt_fence *f)
{
    TAKE_BYTES(from->request, f->request.bytes);
    f->attempt = from->attempt;
    f->branch = from->branch;
    f->tp_rank = from->tp_rank;
    f->slot = from->slot;
    f->generation = from->generation;
    f->p_incarnation = from->p_incarnation;
    f->d_incarnation = from->d_incarnation;
    return NULL;
}

static const char *take_hello(const Baton__V1__Hello *from, bt_hello *h)
{
    if (from == NULL) return "hello";
    h->proto_major = from->proto_major;
    h->proto_minor = from->proto_minor;
    h->role = (bt_role)from->role;
    TAKE_TEXT(from->name, h->name);
    TAKE_TEXT(from->model, h->model);
    h->incarnation = from->incarnation;
    TAKE_BYTES(from->fingerprint, h->fingerprint.bytes);
    TAKE_BYTES(from->weights_digest, h->weights_digest.bytes);
    h->kv_dtype = (bt_dtype)from->kv_dtype;
    h->wire_formats = from->wire_formats;
    h->block_tokens = from->block_tokens;
    h->pool_blocks = from->pool_blocks;
    h->context_tokens_max = from->context_tokens_max;
    h->layers = from->layers;
    h->kv_heads = from->kv_heads;
    h->head_dim = from->head_dim;
    h->vocab = from->vocab;
    h->tp_size = from->tp_size;
    h->ucx_major = from->ucx_major;
    h->ucx_minor = from->ucx_minor;
    TAKE_TEXT(from->pair_endpoint, h->pair_endpoint);
    TAKE_BYTES(from->curve_public, h->curve_public);
    TAKE_TEXT(from->metrics_url, h->metrics_url);
    h->process_host = from->process_host;
    h->process_start = from->process_start;
    h->process_pid = from->process_pid;
    h->chunk_tokens = from->chunk_tokens;
    return NULL;
}

static void take_heartbeat(const Baton__V1__Heartbeat *from, bt_msg *m)
{
    m->heartbeat.incarnation = from->incarnation;
    m->heartbeat.running = from->running;
    m->heartbeat.waiting = from->waiting;
    m->heartbeat.blocks_free = from->blocks_free;
    m->heartbeat.slots_free = from->slots_free;
    m->heartbeat.draining = from->draining;
    m->heartbeat.queued_tokens = from->queued_tokens;
    m->heartbeat.context_tokens = from->context_tokens;
    m->heartbeat.cost = (bt_cost){from->batch_ns, from->token_ns, from->pair_ns};
}

static const char *take_token(const Baton__V1__Token *from, bt_token *token)
{
    if (from == NULL) return "token";
    if (from->n_top_ids > BT_TOP_LOGPROBS_MAX || from->n_top_ids != from->n_top_logprobs)
        return "top_ids";
    token->id = from->id;
    token->logprob = from->logprob;
    token->top_count = (uint32_t)from->n_top_ids;
    for (uint32_t k = 0; k < token->top_count; k++)
        token->top[k] = (bt_token_alternative){from->top_ids[k], from->top_logprobs[k]};
    return NULL;
}

static const char *take_digest(const Baton__V1__Digest *from, bt_kv_digest *digest)
{
    if (from == NULL) return "digest";
    digest->lane[0] = from->lane0;
    digest->lane[1] = from->lane1;
    return NULL;
}

static const char *take_sampling(const Baton__V1__Sampling *from, bt_logit_bias *bias,
                                 bt_sampling *s)
{
    if (from->n_stop_ids > BT_STOP_IDS_MAX) return "stop_ids";
    if (from->n_bias_ids > BT_LOGIT_BIAS_MAX || from->n_bias_ids != from->n_bias) return "bias";
    s->temperature = from->temperature;
    s->top_p = from->top_p;
    s->top_k = from->top_k;
    s->top_logprobs = from->top_logprobs;
    s->seed = from->seed;
    s->min_p = from->min_p;
    s->repetition_penalty = from->repetition_penalty;
    s->presence_penalty = from->presence_penalty;
    s->frequency_penalty = from->frequency_penalty;
    s->min_tokens = from->min_tokens;
    s->logprobs = from->logprobs;
    s->stop_count = (uint32_t)from->n_stop_ids;
    for (uint32_t i = 0; i < s->stop_count; i++) s->stop_ids[i] = from->stop_ids[i];
    s->bias_count = (uint32_t)from->n_bias_ids;
    for (uint32_t i = 0; i < s->bias_count; i++)
        bias[i] = (bt_logit_bias){from->bias_ids[i], from->bias[i]};
    s->bias = s->bias_count > 0 ? bias : NULL;
    return NULL;
}

static const char *take_work(const Baton__V1__Work *from, bt_logit_bias *bias, bt_msg_work *w)
{
    if (from->sampling == NULL) return "sampling";
    if (from->n_tokens > BT_CONTEXT_TOKENS_MAX) return "tokens";
    w->tokens = from->tokens;
    w->token_count = (uint32_t)from->n_tokens;
    w->base = from->base_tokens;
    w->max_tokens = from->max_tokens;
    w->priority = from->priority;
    w->ignore_eos = from->ignore_eos;
    w->no_reserve = from->no_reserve;
    w->prompt_logprobs = from->prompt_logprobs;
    w->local = from->local;
    w->deadline_ms = from->deadline_ms;
    TAKE_BYTES(from->tenant_salt, w->tenant_salt);
    return take_sampling(from->sampling, bias, &w->sampling);
}

static const char *take_address(const ProtobufCBinaryData *from, const uint8_t **ret_data,
                                uint32_t *ret_bytes)
{
    if (from->len > BT_MSG_ADDRESS_BYTES_MAX) return "address";
    *ret_data = from->len > 0 ? from->data : NULL;
    *ret_bytes = (uint32_t)from->len;
    return NULL;
}

static const char *take_pair(const Baton__V1__Pair *from, bt_msg *m)
{
    m->pair.d_incarnation = from->d_incarnation;
    TAKE_TEXT(from->name, m->pair.name);
    TAKE_TEXT(from->endpoint, m->pair.endpoint);
    TAKE_BYTES(from->curve_public, m->pair.curve_public);
    return NULL;
}

static const char *take_pair_status(const Baton__V1__PairStatus *from, bt_msg *m)
{
    m->pair_status.d_incarnation = from->d_incarnation;
    m->pair_status.ready = from->ready;
    m->pair_status.mb_per_s = from->mb_per_s;
    m->pair_status.wire = (bt_dtype)from->wire;
    TAKE_TEXT(from->transport, m->pair_status.transport);
    TAKE_TEXT(from->reason, m->pair_status.reason);
    return NULL;
}

static const char *take_pair_accept(const Baton__V1__PairAccept *from, bt_msg *m)
{
    m->pair_accept.wire = (bt_dtype)from->wire;
    m->pair_accept.slot_count = from->slot_count;
    m->pair_accept.cell_count = from->cell_count;
    m->pair_accept.cell_bytes = from->cell_bytes;
    m->pair_accept.arena_address = from->arena_address;
    TAKE_BYTES(from->secret, m->pair_accept.secret);
    const char *wrong = take_address(&from->worker_address, &m->pair_accept.worker_address,
                                     &m->pair_accept.worker_address_bytes);
    if (wrong == NULL)
        wrong = take_address(&from->rkey, &m->pair_accept.rkey, &m->pair_accept.rkey_bytes);
    return wrong != NULL ? wrong : take_hello(from->hello, &m->pair_accept.hello);
}

static const char *take_pairing(const Baton__V1__Envelope *from, bt_msg *m)
{
    const char *wrong = NULL;
    switch (m->kind) {
    case BT_MSG_PAIR: return take_pair(from->pair, m);
    case BT_MSG_UNPAIR: return take_pair(from->unpair, m);
    case BT_MSG_PAIR_STATUS: return take_pair_status(from->pair_status, m);
    case BT_MSG_PAIR_HELLO:
        m->pair_hello.wire_wanted = (bt_dtype)from->pair_hello->wire_wanted;
        wrong = take_address(&from->pair_hello->worker_address, &m->pair_hello.worker_address,
                             &m->pair_hello.worker_address_bytes);
        return wrong != NULL ? wrong : take_hello(from->pair_hello->hello, &m->pair_hello.hello);
    case BT_MSG_PAIR_ACCEPT: return take_pair_accept(from->pair_accept, m);
    default: TAKE_TEXT(from->pair_refuse->reason, m->pair_refuse.reason); return NULL;
    }
}

static const char *take_tokens(const Baton__V1__Tokens *from, bt_token *tokens, bt_msg *m)
{
    if (from->n_tokens > BT_MSG_TOKENS_MAX) return "tokens";
    for (size_t i = 0; i < from->n_tokens; i++) {
        const char *wrong = take_token(from->tokens[i], &tokens[i]);
        if (wrong != NULL) return wrong;
    }
    m->tokens.tokens = tokens;
    m->tokens.token_count = (uint32_t)from->n_tokens;
    m->tokens.index = from->index;
    return NULL;
}

static const char *take_renew(const Baton__V1__Renew *from, bt_msg *m)
{
    size_t count = from->requests.len / sizeof(bt_request_id);
    if (from->requests.len % sizeof(bt_request_id) != 0 || count > BT_MSG_RENEW_MAX)
        return "requests";
    m->renew.requests = count > 0 ? (const bt_request_id *)from->requests.data : NULL;
    m->renew.request_count = (uint32_t)count;
    return NULL;
}

static const char *take_sealed(const Baton__V1__Sealed *from, bt_msg *m)
{
    const Baton__V1__Frame *f = from->frame;
    if (f == NULL) return "frame";
    m->sealed.frame = (bt_frame){
        .frame = f->frame,
        .cell = f->cell,
        .layer = f->layer,
        .run_first = f->run_first,
        .run_count = f->run_count,
        .head_first = f->head_first,
        .head_count = f->head_count,
        .token_end = f->token_end,
    };
    return take_digest(from->digest, &m->sealed.digest);
}

static const char *take_manifest(const Baton__V1__Manifest *from, bt_msg *m)
{
    m->manifest.token_count = from->token_count;
    m->manifest.frame_count = from->frame_count;
    m->manifest.base = from->base_tokens;
    TAKE_BYTES(from->prefix_hash, m->manifest.prefix_hash.bytes);
    const char *wrong = take_digest(from->digest_sum, &m->manifest.digest_sum);
    return wrong != NULL ? wrong : take_token(from->first_token, &m->manifest.first_token);
}

static const char *take_answer(const Baton__V1__Envelope *from, bt_msg *m)
{
    switch (m->kind) {
    case BT_MSG_FIRST_TOKEN:
        m->first_token.index = from->first_token->index;
        m->first_token.final = from->first_token->final;
        m->first_token.finish = (bt_finish_reason)from->first_token->finish;
        m->first_token.cached_tokens = from->first_token->cached_tokens;
        return take_token(from->first_token->token, &m->first_token.token);
    case BT_MSG_ACCEPTED: m->accepted.cached_tokens = from->accepted->cached_tokens; return NULL;
    case BT_MSG_REFUSED:
        m->refused.reason = (bt_refuse_reason)from->refused->reason;
        m->refused.retry = from->refused->retry;
        TAKE_TEXT(from->refused->text, m->refused.text);
        return NULL;
    case BT_MSG_FINISHED:
        m->finished.reason = (bt_finish_reason)from->finished->reason;
        m->finished.token_count = from->finished->token_count;
        return NULL;
    case BT_MSG_EVICTED: m->evicted.token_count = from->evicted->token_count; return NULL;
    case BT_MSG_RENEW: return take_renew(from->renew, m);
    case BT_MSG_TICKET:
        m->ticket.wire = (bt_dtype)from->ticket->wire;
        m->ticket.run_first = from->ticket->run_first;
        m->ticket.cell_count = from->ticket->cell_count;
        m->ticket.lease_ms = from->ticket->lease_ms;
        m->ticket.probe = from->ticket->probe;
        return NULL;
    case BT_MSG_SEALED: return take_sealed(from->sealed, m);
    case BT_MSG_CREDIT: m->credit.cell = from->credit->cell; return NULL;
    case BT_MSG_MANIFEST: return take_manifest(from->manifest, m);
    default: return NULL; /* no body */
    }
}

const char *bt_pb_to_msg(const Baton__V1__Envelope *envelope, bt_pb_room *room, bt_msg *ret_msg)
{
    bt_msg *m = ret_msg;
    memset(m, 0, sizeof(*m));
    if (envelope->body_case == BATON__V1__ENVELOPE__BODY__NOT_SET) return "body";
    m->kind = (bt_msg_kind)(envelope->body_case - BT_PB_TAG_OF_KIND);
    if (envelope->fence != NULL) {
        const char *wrong = take_fence(envelope->fence, &m->fence);
        if (wrong != NULL) return wrong;
    }
    switch (m->kind) {
    case BT_MSG_HELLO: return take_hello(envelope->hello, &m->hello);
    case BT_MSG_WELCOME:
        m->welcome.router_incarnation = envelope->welcome->router_incarnation;
        m->welcome.heartbeat_ms = envelope->welcome->heartbeat_ms;
        return NULL;
    case BT_MSG_HEARTBEAT: take_heartbeat(envelope->heartbeat, m); return NULL;
    case BT_MSG_PAIR:
    case BT_MSG_UNPAIR:
    case BT_MSG_PAIR_STATUS:
    case BT_MSG_PAIR_HELLO:
    case BT_MSG_PAIR_ACCEPT:
    case BT_MSG_PAIR_REFUSE: return take_pairing(envelope, m);
    case BT_MSG_PREFILL: return take_work(envelope->prefill, room->bias, &m->prefill);
    case BT_MSG_RESERVE: return take_work(envelope->reserve, room->bias, &m->reserve);
    case BT_MSG_TOKENS: return take_tokens(envelope->tokens, room->tokens, m);
    case BT_MSG_PROMPT_LOGPROBS: return take_tokens(envelope->prompt_logprobs, room->tokens, m);
    default: return take_answer(envelope, m);
    }
}

/* Round trips, truncation, caps, hostile bytes and versions of the message codec. */
#include "proto/codec.h"
#include "tests/fuzz/msg_random.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
/* After the above: cmocka.h needs them. */
#include <cmocka.h>

typedef struct {
    bt_codec *codec;
    bt_random_msg random;
    uint8_t bytes[BT_CODEC_BYTES_MAX];
    uint8_t again[BT_CODEC_BYTES_MAX];
} fixture;

static int start(void **state)
{
    fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->codec = bt_codec_init(aligned_alloc(64, (bt_codec_bytes() + 63) & ~(size_t)63));
    f->random.state = (uint64_t)time(NULL);
    f->random.tokens_max = 300;
    printf("seed %llu\n", (unsigned long long)f->random.state);
    *state = f;
    return 0;
}

static int finish(void **state)
{
    fixture *f = *state;
    free(f->codec);
    free(f);
    return 0;
}

static size_t encode(fixture *f, const bt_msg *msg)
{
    bt_err err;
    size_t bytes = 0;
    if (bt_codec_encode(msg, f->bytes, sizeof(f->bytes), &bytes, &err) != BT_OK)
        fail_msg("%s: %s", bt_msg_name(msg->kind), err.message);
    return bytes;
}

static bt_status decode(fixture *f, const void *data, size_t bytes, bt_msg *ret_msg, bt_err *err)
{
    /* An exact heap copy, so that a sanitizer sees a read past the end. */
    uint8_t *copy = malloc(bytes > 0 ? bytes : 1);
    memcpy(copy, data, bytes);
    bt_status status = bt_codec_decode(copy, bytes, f->codec, ret_msg, err);
    free(copy);
    return status;
}

static void round_trip(void **state)
{
    fixture *f = *state;
    for (int kind = 1; kind < BT_MSG_KIND_END; kind++) {
        for (int i = 0; i < 40; i++) {
            const bt_msg *msg = random_msg(&f->random, (bt_msg_kind)kind);
            size_t bytes = encode(f, msg);
            assert_true(bytes <= bt_codec_cap(msg->kind));
            bt_msg back;
            bt_err err;
            if (decode(f, f->bytes, bytes, &back, &err) != BT_OK)
                fail_msg("%s: %s", bt_msg_name(msg->kind), err.message);
            if (!bt_msg_equal(msg, &back)) fail_msg("%s differs", bt_msg_name(msg->kind));
            size_t again = 0;
            assert_int_equal(bt_codec_encode(&back, f->again, sizeof(f->again), &again, &err),
                             BT_OK);
            assert_int_equal(again, bytes);
            assert_memory_equal(f->again, f->bytes, bytes);
        }
    }
}

static void longest_prompt_fits(void **state)
{
    fixture *f = *state;
    bt_msg *msg = &f->random.msg, back;
    bt_err err;
    random_msg(&f->random, BT_MSG_PREFILL);
    for (uint32_t i = 0; i < BT_CONTEXT_TOKENS_MAX; i++) f->random.tokens[i] = BT_VOCAB_MAX - 1;
    msg->prefill.token_count = BT_CONTEXT_TOKENS_MAX;
    msg->prefill.base = 1;
    msg->prefill.max_tokens = 2;
    assert_int_equal(bt_msg_check(msg, &err), BT_ERR_FORMAT);
    msg->prefill.max_tokens = 1;
    msg->prefill.base = 0;
    bt_sampling *s = &msg->prefill.sampling;
    s->min_tokens = 1;
    s->stop_count = BT_STOP_IDS_MAX;
    s->bias_count = BT_LOGIT_BIAS_MAX;
    s->bias = f->random.bias;
    for (uint32_t i = 0; i < BT_STOP_IDS_MAX; i++) s->stop_ids[i] = BT_VOCAB_MAX - 1;
    for (uint32_t i = 0; i < BT_LOGIT_BIAS_MAX; i++)
        f->random.bias[i] = (bt_logit_bias){BT_VOCAB_MAX - BT_LOGIT_BIAS_MAX + i, 99.5f};
    msg->prefill.token_count = BT_CONTEXT_TOKENS_MAX - 1;
    size_t bytes = encode(f, msg);
    assert_int_equal(decode(f, f->bytes, bytes, &back, &err), BT_OK);
    assert_true(bt_msg_equal(msg, &back));
}

/* Each cut either fails or gives a message that is valid in itself. */
static void truncation(void **state)
{
    fixture *f = *state;
    f->random.tokens_max = 20;
    for (int kind = 1; kind < BT_MSG_KIND_END; kind++) {
        size_t bytes = encode(f, random_msg(&f->random, (bt_msg_kind)kind));
        for (size_t cut = 0; cut < bytes; cut++) {
            bt_msg back;
            bt_err err = {0};
            bt_status status = decode(f, f->bytes, cut, &back, &err);
            if (status == BT_OK) {
                assert_int_equal(bt_msg_check(&back, NULL), BT_OK);
            } else {
                assert_int_equal(err.status, status);
                assert_true(status == BT_ERR_FORMAT || status == BT_ERR_LIMIT ||
                            status == BT_ERR_VERSION);
            }
        }
    }
}

static void one_flipped_byte(void **state)
{
    fixture *f = *state;
    f->random.tokens_max = 20;
    for (int i = 0; i < 20000; i++) {
        bt_msg_kind kind = (bt_msg_kind)(1 + random_below(&f->random, BT_MSG_KIND_END - 1));
        size_t bytes = encode(f, random_msg(&f->random, kind));
        f->bytes[random_below(&f->random, (uint32_t)bytes)] ^=
            (uint8_t)(1 + random_below(&f->random, 255));
        bt_msg back;
        if (decode(f, f->bytes, bytes, &back, NULL) == BT_OK)
            assert_int_equal(bt_msg_check(&back, NULL), BT_OK);
    }
}

/* -- hostile bytes, by hand ---------------------------------------------------------------------
 */

typedef struct {
    uint8_t *data;
    size_t bytes;
} writer;

static void put_varint(writer *w, uint64_t value)
{
    while (value >= 0x80) {
        w->data[w->bytes++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    w->data[w->bytes++] = (uint8_t)value;
}

static void put_u32(writer *w, uint32_t field, uint64_t value)
{
    put_varint(w, field << 3);
    put_varint(w, value);
}

static void put_bytes(writer *w, uint32_t field, const void *data, size_t bytes)
{
    put_varint(w, field << 3 | 2);
    put_varint(w, bytes);
    if (bytes > 0) memmove(w->data + w->bytes, data, bytes);
    w->bytes += bytes;
}

static void expect(fixture *f, const writer *w, bt_status expected, const char *text)
{
    bt_msg back;
    bt_err err = {0};
    bt_status status = decode(f, w->data, w->bytes, &back, &err);
    if (status != expected || strstr(err.message, text) == NULL)
        fail_msg("%s: %s; expected %s: …%s…", bt_status_name(status), err.message,
                 bt_status_name(expected), text);
}

static void wrong_version(void **state)
{
    fixture *f = *state;
    writer w = {f->bytes, 0};
    put_u32(&w, 1, 7);
    put_u32(&w, 2, 3);
    put_bytes(&w, 99, "what a later protocol says", 26);
    expect(f, &w, BT_ERR_VERSION, "7.3, we speak 1.1");
    w.bytes = 0;
    put_bytes(&w, 17, NULL, 0);
    expect(f, &w, BT_ERR_VERSION, "0.0");
}

static void newer_minor(void **state)
{
    fixture *f = *state;
    bt_msg back;
    writer w = {f->bytes, encode(f, random_msg(&f->random, BT_MSG_TOKENS))};
    put_u32(&w, 9, 5); /* a field we do not know */
    assert_int_equal(decode(f, w.data, w.bytes, &back, NULL), BT_OK);
    assert_true(bt_msg_equal(&f->random.msg, &back));
    for (int i = 0; i < 40; i++) put_u32(&w, 10, 5);
    expect(f, &w, BT_ERR_LIMIT, "unknown fields");
    w.bytes = 0;
    put_u32(&w, 1, 1);
    put_bytes(&w, 16 + BT_MSG_KIND_END, NULL, 0);
    expect(f, &w, BT_ERR_FORMAT, "unknown kind");
}

static void fields_twice(void **state)
{
    fixture *f = *state;
    writer w = {f->bytes, encode(f, random_msg(&f->random, BT_MSG_CREDIT))};
    put_u32(&w, 1, 1);
    expect(f, &w, BT_ERR_FORMAT, "twice");
    w.bytes = encode(f, random_msg(&f->random, BT_MSG_CANCEL));
    put_bytes(&w, 16 + BT_MSG_QUIESCED, NULL, 0);
    expect(f, &w, BT_ERR_FORMAT, "twice");
    w.bytes = encode(f, random_msg(&f->random, BT_MSG_CANCEL));
    put_varint(&w, 5 << 3 | 3); /* a group */
    expect(f, &w, BT_ERR_FORMAT, "malformed");
    w.bytes = encode(f, random_msg(&f->random, BT_MSG_CANCEL));
    put_bytes(&w, 1, "\1", 1);
    expect(f, &w, BT_ERR_FORMAT, "wire type");
}

static void hostile_counts(void **state)
{
    fixture *f = *state;
    static uint8_t inner[BT_CODEC_BYTES_MAX];
    writer in = {inner, 0}, w = {f->bytes, 0};
    for (uint32_t i = 0; i < 60000; i++) put_bytes(&in, 1, NULL, 0); /* 120 KB of empty tokens */
    put_u32(&w, 1, 1);
    put_bytes(&w, 16 + BT_MSG_TOKENS, inner, in.bytes);
    expect(f, &w, BT_ERR_LIMIT, "bytes, at most");
    in.bytes = 0;
    for (uint32_t i = 0; i < 2000; i++) put_bytes(&in, 1, NULL, 0);
    w.bytes = 0;
    put_u32(&w, 1, 1);
    put_bytes(&w, 16 + BT_MSG_TOKENS, inner, in.bytes);
    expect(f, &w, BT_ERR_LIMIT, "more than");
    in.bytes = 0;
    for (uint32_t i = 0; i < 100000; i++) put_u32(&in, 1, 5); /* a prompt that is not packed */
    w.bytes = 0;
    put_u32(&w, 1, 1);
    put_bytes(&w, 16 + BT_MSG_PREFILL, inner, in.bytes);
    expect(f, &w, BT_ERR_LIMIT, "fields");
    memset(inner, 0, 200000); /* packed zeros */
    in.bytes = 0;
    put_bytes(&in, 1, inner, 200000);
    w.bytes = 0;
    put_u32(&w, 1, 1);
    put_bytes(&w, 16 + BT_MSG_PREFILL, inner, in.bytes);
    expect(f, &w, BT_ERR_LIMIT, "elements");
}

/* Every cap holds, yet unpacked it takes more than the arena: one-byte tokens grow fourfold. */
static void budget(void **state)
{
    fixture *f = *state;
    static uint8_t inner[BT_CODEC_BYTES_MAX], zeros[300000];
    writer in = {inner, 0}, w = {f->bytes, 0};
    put_bytes(&in, 1, zeros, BT_CONTEXT_TOKENS_MAX);
    put_u32(&w, 1, 1);
    put_bytes(&w, 16 + BT_MSG_PREFILL, inner, in.bytes);
    put_bytes(&w, 9, zeros, sizeof(zeros)); /* unknown fields are copied */
    expect(f, &w, BT_ERR_LIMIT, "to unpack");
    bt_msg back;
    w.bytes = encode(f, random_msg(&f->random, BT_MSG_TICKET));
    assert_int_equal(decode(f, w.data, w.bytes, &back, NULL), BT_OK);
}

/* The schema is not recursive, so nesting can only hide in unknown bytes, which nobody enters. */
static void nesting(void **state)
{
    fixture *f = *state;
    static uint8_t nested[BT_CODEC_BYTES_MAX], next[BT_CODEC_BYTES_MAX];
    size_t bytes = 0;
    for (uint32_t depth = 0; depth < 20000; depth++) {
        writer w = {next, 0};
        put_varint(&w, 3 << 3 | 2);
        put_varint(&w, bytes);
        if (bytes + w.bytes > 60000) break;
        memmove(nested + w.bytes, nested, bytes);
        memcpy(nested, next, w.bytes);
        bytes += w.bytes;
    }
    writer w = {f->bytes, 0};
    put_u32(&w, 1, 1);
    put_bytes(&w, 16 + BT_MSG_RENEW, nested, bytes);
    bt_msg back;
    assert_int_equal(decode(f, w.data, w.bytes, &back, NULL), BT_OK);
    assert_int_equal(back.renew.request_count, 0);
    memset(f->bytes, 0, sizeof(f->bytes));
    assert_int_equal(decode(f, f->bytes, sizeof(f->bytes), &back, NULL), BT_ERR_FORMAT);
    assert_int_equal(decode(f, f->bytes, 0, &back, NULL), BT_ERR_FORMAT);
    bt_err err;
    uint8_t *huge = calloc(1, BT_CODEC_BYTES_MAX + 1);
    assert_int_equal(bt_codec_decode(huge, BT_CODEC_BYTES_MAX + 1, f->codec, &back, &err),
                     BT_ERR_LIMIT);
    free(huge);
}

static void bad_texts(void **state)
{
    fixture *f = *state;
    static const char *const texts[] = {"\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                        "\xe2\x82", "\x80",         "\xff"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        writer w = {f->bytes, 0};
        uint8_t inner[64];
        writer in = {inner, 0};
        put_bytes(&in, 1, texts[i], strlen(texts[i]));
        put_u32(&w, 1, 1);
        put_bytes(&w, 16 + BT_MSG_PAIR_REFUSE, inner, in.bytes);
        expect(f, &w, BT_ERR_FORMAT, "reason");
    }
    uint8_t inner[256];
    writer in = {inner, 0}, w = {f->bytes, 0};
    put_bytes(&in, 1, "a\0b", 3);
    put_u32(&w, 1, 1);
    put_bytes(&w, 16 + BT_MSG_PAIR_REFUSE, inner, in.bytes);
    expect(f, &w, BT_ERR_FORMAT, "reason");
    char text[BT_REASON_BYTES_MAX];
    memset(text, 'x', sizeof(text));
    in.bytes = w.bytes = 0;
    put_bytes(&in, 1, text, sizeof(text));
    put_u32(&w, 1, 1);
    put_bytes(&w, 16 + BT_MSG_PAIR_REFUSE, inner, in.bytes);
    expect(f, &w, BT_ERR_FORMAT, "reason");
}

static void refuses(bt_msg *msg, const char *field)
{
    bt_err err = {0};
    uint8_t buf[8192];
    size_t bytes;
    assert_int_equal(bt_codec_encode(msg, buf, sizeof(buf), &bytes, &err), BT_ERR_FORMAT);
    if (strstr(err.message, field) == NULL) fail_msg("%s; expected %s", err.message, field);
}

static void ranges(void **state)
{
    fixture *f = *state;
    bt_random_msg *r = &f->random;
    bt_msg *m = &r->msg;
#define BAD(msg_kind, change, field)                                                               \
    do {                                                                                           \
        random_msg(r, BT_MSG_##msg_kind);                                                          \
        change;                                                                                    \
        refuses(m, field);                                                                         \
    } while (0)
    r->tokens_max = 50;
    BAD(PREFILL, m->prefill.token_count = 0, "tokens");
    BAD(PREFILL, r->tokens[0] = BT_VOCAB_MAX, "tokens");
    BAD(PREFILL, m->prefill.base = m->prefill.token_count, "base");
    BAD(PREFILL, m->prefill.max_tokens = m->prefill.base, "max_tokens");
    BAD(PREFILL, m->prefill.max_tokens = BT_CONTEXT_TOKENS_MAX, "max_tokens");
    BAD(PREFILL, m->prefill.sampling.temperature = NAN, "temperature");
    BAD(PREFILL, m->prefill.sampling.temperature = -1, "temperature");
    BAD(PREFILL, m->prefill.sampling.top_p = 0, "top_p");
    BAD(PREFILL, m->prefill.sampling.top_p = 1.5f, "top_p");
    BAD(PREFILL, m->prefill.sampling.top_logprobs = 21, "top_logprobs");
    bt_sampling *s = &m->prefill.sampling;
    bt_logit_bias rows[3] = {{1, 1}, {2, -1}, {3, 0}};
    BAD(PREFILL, s->temperature = 101, "temperature");
    BAD(PREFILL, s->min_p = NAN, "min_p");
    BAD(PREFILL, s->min_p = 1.5f, "min_p");
    BAD(PREFILL, s->repetition_penalty = -1, "repetition_penalty");
    BAD(PREFILL, s->repetition_penalty = 1e-9f, "repetition_penalty");
    BAD(PREFILL, s->repetition_penalty = INFINITY, "repetition_penalty");
    BAD(PREFILL, s->presence_penalty = NAN, "presence_penalty");
    BAD(RESERVE, s->presence_penalty = 2.5f, "presence_penalty");
    BAD(PREFILL, s->frequency_penalty = -INFINITY, "frequency_penalty");
    BAD(PREFILL, s->min_tokens = m->prefill.max_tokens + 1, "min_tokens");
    BAD(PREFILL, (s->stop_count = 1, s->stop_ids[0] = BT_VOCAB_MAX), "stop_ids");
    BAD(PREFILL, s->stop_count = BT_STOP_IDS_MAX + 1, "stop_ids");
    BAD(PREFILL, s->bias_count = BT_LOGIT_BIAS_MAX + 1, "logit_bias");
#define BAD_BIAS(change)                                                                           \
    BAD(PREFILL, (s->bias = rows, s->bias_count = 3, change), "logit_bias");                       \
    memcpy(rows, ((bt_logit_bias[3]){{1, 1}, {2, -1}, {3, 0}}), sizeof(rows))
    BAD_BIAS(rows[2].id = BT_VOCAB_MAX);
    BAD_BIAS(rows[1].id = 1); /* twice */
    BAD_BIAS(rows[0].id = 9); /* not ascending */
    BAD_BIAS(rows[0].bias = 100.5f);
    BAD_BIAS(rows[1].bias = NAN);
#undef BAD_BIAS
    BAD(PREFILL, m->fence.attempt = 0, "attempt");
    BAD(PREFILL, m->fence.p_incarnation = 0, "p_incarnation");
    BAD(RESERVE, m->fence.d_incarnation = 0, "d_incarnation");
    BAD(RESERVE, m->reserve.no_reserve = true, "no_reserve");
    BAD(PREFILL, m->prefill.local = true, "local");
    BAD(RESERVE, (m->reserve.local = true, m->fence.p_incarnation = 1), "fence.p_incarnation");
    BAD(RESERVE, (m->reserve.local = false, m->fence.p_incarnation = 0), "fence.p_incarnation");
    BAD(ACCEPTED, m->accepted.cached_tokens = BT_CONTEXT_TOKENS_MAX + 1, "cached_tokens");
    BAD(HEARTBEAT, m->heartbeat.cost.token_ns = -1, "cost");
    BAD(HEARTBEAT, m->heartbeat.context_tokens = UINT64_MAX, "context_tokens");
    BAD(HELLO, m->hello.chunk_tokens = BT_CONTEXT_TOKENS_MAX + 1, "chunk_tokens");
    BAD(TOKENS, m->tokens.token_count = 0, "tokens");
    BAD(TOKENS, r->outputs[0].logprob = INFINITY, "tokens");
    BAD(TOKENS, r->outputs[0].logprob = 1, "tokens");
    BAD(TOKENS, r->outputs[0].top_count = 21, "tokens");
    BAD(TOKENS, m->tokens.index = UINT32_MAX, "index");
    BAD(PROMPT_LOGPROBS, m->tokens.index = 0, "index");
    BAD(PROMPT_LOGPROBS, r->outputs[0].logprob = NAN, "tokens");
    BAD(FINISHED, m->finished.reason = BT_FINISH_NONE, "reason");
    BAD(REFUSED, m->refused.reason = BT_REFUSE_COUNT, "reason");
    BAD(REFUSED, memset(m->refused.text, 'x', BT_REASON_BYTES_MAX), "text");
    BAD(RENEW, m->renew.request_count = BT_MSG_RENEW_MAX + 1, "requests");
    BAD(TICKET, m->ticket.wire = BT_DTYPE_COUNT, "wire");
    BAD(TICKET, m->ticket.cell_count = BT_CELLS_MAX + 1, "cell_count");
    BAD(TICKET, m->fence.generation = 0, "generation");
    BAD(SEALED, m->sealed.frame.cell = BT_CELLS_MAX, "cell");
    BAD(SEALED, m->sealed.frame.layer = BT_LAYERS_MAX, "layer");
    BAD(SEALED, m->sealed.frame.run_first = UINT32_MAX, "run_first");
    BAD(SEALED, m->sealed.frame.run_count = UINT32_MAX, "run_count");
    BAD(SEALED, m->sealed.frame.head_first = UINT32_MAX, "head_first");
    BAD(SEALED, m->sealed.frame.token_end += BT_RUN_TOKENS, "token_end");
    BAD(CREDIT, m->credit.cell = BT_CELLS_MAX, "cell");
    BAD(MANIFEST, m->manifest.token_count = 0, "token_count");
    BAD(MANIFEST, m->manifest.first_token.id = BT_VOCAB_MAX, "first_token");
    BAD(HELLO, m->hello.role = BT_ROLE_ROUTER, "role");
    BAD(HELLO, m->hello.layers = 0, "layers");
    BAD(HELLO, m->hello.wire_formats = UINT32_MAX, "wire_formats");
    BAD(HELLO, m->fence.attempt = 1, "fence");
    BAD(PAIR_ACCEPT, m->pair_accept.worker_address_bytes = 1u << 20, "worker_address");
    BAD(PAIR_STATUS, m->pair_status.wire = BT_DTYPE_COUNT, "wire");
    BAD(TICKET, m->kind = BT_MSG_KIND_END, "kind");
#undef BAD
}

static void no_room(void **state)
{
    fixture *f = *state;
    bt_err err;
    size_t bytes = encode(f, random_msg(&f->random, BT_MSG_MANIFEST)), got;
    assert_int_equal(bt_codec_encode(&f->random.msg, f->again, bytes - 1, &got, &err),
                     BT_ERR_LIMIT);
    assert_int_equal(bt_codec_encode(&f->random.msg, f->again, bytes, &got, &err), BT_OK);
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(bt_msg_name(BT_MSG_TICKET), "TICKET");
    assert_string_equal(bt_msg_name((bt_msg_kind)77), "?");
    assert_string_equal(bt_refuse_name(BT_REFUSE_FULL), "full");
    assert_string_equal(bt_refuse_name(BT_REFUSE_COUNT), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(round_trip, start, finish),
        cmocka_unit_test_setup_teardown(longest_prompt_fits, start, finish),
        cmocka_unit_test_setup_teardown(truncation, start, finish),
        cmocka_unit_test_setup_teardown(one_flipped_byte, start, finish),
        cmocka_unit_test_setup_teardown(wrong_version, start, finish),
        cmocka_unit_test_setup_teardown(newer_minor, start, finish),
        cmocka_unit_test_setup_teardown(fields_twice, start, finish),
        cmocka_unit_test_setup_teardown(hostile_counts, start, finish),
        cmocka_unit_test_setup_teardown(budget, start, finish),
        cmocka_unit_test_setup_teardown(nesting, start, finish),
        cmocka_unit_test_setup_teardown(bad_texts, start, finish),
        cmocka_unit_test_setup_teardown(ranges, start, finish),
        cmocka_unit_test_setup_teardown(no_room, start, finish),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}

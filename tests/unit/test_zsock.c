/* common/loop/zsock.h: nothing lost over libuv, roles by key, limits. */
#include "common/loop/zsock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <zmq.h>

#define BURST_MESSAGES 200000u
#define SENDERS 2u
#define GIVE_UP_MS 60000u

/* What both sides of a test share: keys of a server and of clients with roles. */
static bt_zkeypair server_keys, prefill_keys, decode_keys, stranger_keys;
static bt_zap_table *table;

static int make_keys(void **state)
{
    (void)state;
    assert_int_equal(bt_zkeypair_generate(&server_keys, NULL), BT_OK);
    assert_int_equal(bt_zkeypair_generate(&prefill_keys, NULL), BT_OK);
    assert_int_equal(bt_zkeypair_generate(&decode_keys, NULL), BT_OK);
    assert_int_equal(bt_zkeypair_generate(&stranger_keys, NULL), BT_OK);
    assert_int_equal(bt_zap_table_create(&table, NULL), BT_OK);
    assert_int_equal(bt_zap_table_add(table, prefill_keys.public_key, "prefill", "p0", NULL),
                     BT_OK);
    assert_int_equal(bt_zap_table_add(table, decode_keys.public_key, "decode", "d0", NULL), BT_OK);
    return 0;
}

static int drop_keys(void **state)
{
    (void)state;
    bt_zap_table_destroy(table);
    return 0;
}

/* ---- 200,000 messages in bursts into the loop of another process ---- */

typedef struct {
    uint32_t sender;
    uint32_t sequence;
    bool wants_reply;
    bool is_last; /* see finish_if_done */
    uint8_t padding[100];
} burst_message;

typedef struct {
    bt_loop *loop;
    bt_zctx *ctx;
    bt_zsock *server;
    bt_loop_timer *tick, *give_up;
    uint64_t ticks, received, out_of_order, refused_replies;
    uint32_t next[SENDERS];
    uint32_t finished;
    bool gave_up;
} receiver;

typedef struct {
    bt_loop *loop;
    bt_zctx *ctx;
    bt_zsock *socket[SENDERS];
    bt_loop_timer *tick, *give_up;
    uint32_t next[SENDERS];
    uint64_t again, asked, replies;
    uint32_t finished; /* senders whose last message is out */
    unsigned seed;
    bool gave_up;
} sender;

static void receiver_takes(void *arg, const bt_zsock_message *m)
{
    receiver *r = arg;
    burst_message message;
    assert_int_equal(m->bytes, sizeof(message));
    memcpy(&message, m->data, sizeof(message));
    assert_true(message.sender < SENDERS);
    if (message.is_last) {
        if (++r->finished == SENDERS) bt_loop_stop(r->loop);
        return;
    }
    assert_string_equal(m->peer->name, message.sender == 0 ? "p0" : "d0");
    if (message.sequence != r->next[message.sender]++) r->out_of_order++;
    r->received++;
    if (message.wants_reply &&
        bt_zsock_send(r->server, m->address, &message, sizeof(message), NULL) != BT_OK) {
        r->refused_replies++;
    }
}

static void receiver_tick(void *arg)
{
    receiver *r = arg;
    r->ticks++;
}

static void receiver_gives_up(void *arg)
{
    receiver *r = arg;
    r->gave_up = true;
    bt_loop_stop(r->loop);
}

/* A DEALER whose connection breaks forgets what it has not read, so the senders leave first: the
 * last message of each says that it has all its replies. */
static void finish_if_done(sender *s)
{
    if (s->next[0] + s->next[1] < BURST_MESSAGES || s->replies < s->asked) return;
    burst_message message = {.is_last = true};
    while (s->finished < SENDERS) {
        bt_zsock *socket = s->socket[s->finished];
        if (bt_zsock_send(socket, NULL, &message, sizeof(message), NULL) != BT_OK) return;
        s->finished++;
    }
    bt_loop_stop(s->loop);
}

static void sender_takes(void *arg, const bt_zsock_message *m)
{
    sender *s = arg;
    burst_message message;
    if (m->bytes != sizeof(message)) return;
    memcpy(&message, m->data, sizeof(message));
    if (message.wants_reply) s->replies++;
    finish_if_done(s);
}

static void send_burst(void *arg)
{
    sender *s = arg;
    for (uint32_t i = 0; i < SENDERS; i++) {
        uint32_t burst = (uint32_t)rand_r(&s->seed) % 2000u;
        for (; burst > 0 && s->next[i] < BURST_MESSAGES / SENDERS; burst--) {
            burst_message message = {
                .sender = i, .sequence = s->next[i], .wants_reply = s->next[i] % 97 == 0};
            bt_status status = bt_zsock_send(s->socket[i], NULL, &message, sizeof(message), NULL);
            if (status == BT_AGAIN) s->again++;
            if (status != BT_OK) break;
            s->asked += message.wants_reply;
            s->next[i]++;
        }
    }
    finish_if_done(s);
}

static void sender_gives_up(void *arg)
{
    sender *s = arg;
    s->gave_up = true;
    bt_loop_stop(s->loop);
}

/* The whole life of the sending process; its exit code. */
static int run_sender(const char *endpoint, unsigned seed)
{
    sender s = {.seed = seed};
    bt_zsock_config config;
    bt_zsock_config_default(&config);
    config.linger_ms = 2000;
    bt_zsock_handler handler = {.arg = &s, .on_message = sender_takes};
    const bt_zkeypair *keys[SENDERS] = {&prefill_keys, &decode_keys};
    bt_zctx *ctx[SENDERS];
    if (bt_loop_create(&s.loop, NULL) != BT_OK) return 2;
    for (uint32_t i = 0; i < SENDERS; i++) {
        if (bt_zctx_create(keys[i], NULL, &ctx[i], NULL) != BT_OK) return 2;
        if (bt_zsock_dealer_open(ctx[i], s.loop, endpoint, server_keys.public_key, &config,
                                 &handler, &s.socket[i], NULL) != BT_OK) {
            return 2;
        }
    }
    bt_loop_timer_open(s.loop, 1, 1, send_burst, &s, &s.tick, NULL);
    bt_loop_timer_open(s.loop, GIVE_UP_MS, 0, sender_gives_up, &s, &s.give_up, NULL);
    bt_loop_run(s.loop);
    bt_loop_timer_close(s.tick);
    bt_loop_timer_close(s.give_up);
    for (uint32_t i = 0; i < SENDERS; i++) bt_zsock_close(s.socket[i]);
    bt_loop_destroy(s.loop);
    for (uint32_t i = 0; i < SENDERS; i++) bt_zctx_destroy(ctx[i]);
    if (s.gave_up) {
        fprintf(stderr, "sender gave up: sent %u + %u, asked %llu, replies %llu\n", s.next[0],
                s.next[1], (unsigned long long)s.asked, (unsigned long long)s.replies);
    }
    return s.gave_up ? 1 : 0;
}

static void lose_nothing(uint64_t tick_ms)
{
    unsigned seed = (unsigned)bt_loop_now_ns();
    printf("seed %u\n", seed);
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    /* The fork comes before any libzmq context: its threads would not follow. */
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char endpoint[BT_ZENDPOINT_BYTES_MAX];
        ssize_t bytes = read(pipe_fds[0], endpoint, sizeof(endpoint));
        _exit(bytes > 0 ? run_sender(endpoint, seed) : 3);
    }
    receiver r = {0};
    bt_zsock_config config;
    bt_zsock_config_default(&config);
    bt_zsock_handler handler = {.arg = &r, .on_message = receiver_takes};
    assert_int_equal(bt_loop_create(&r.loop, NULL), BT_OK);
    assert_int_equal(bt_zctx_create(&server_keys, table, &r.ctx, NULL), BT_OK);
    assert_int_equal(bt_zsock_router_open(r.ctx, r.loop, "tcp://127.0.0.1:0", &config, &handler,
                                          &r.server, NULL),
                     BT_OK);
    const char *endpoint = bt_zsock_endpoint(r.server);
    assert_true(write(pipe_fds[1], endpoint, strlen(endpoint) + 1) > 0);
    bt_loop_timer_open(r.loop, tick_ms, tick_ms, receiver_tick, &r, &r.tick, NULL);
    bt_loop_timer_open(r.loop, GIVE_UP_MS, 0, receiver_gives_up, &r, &r.give_up, NULL);
    uint64_t begin_ns = bt_loop_now_ns();
    bt_loop_run(r.loop);
    uint64_t took_ms = (bt_loop_now_ns() - begin_ns) / 1000000u;
    printf("received %llu of %u in %llu ms with %llu timer ticks\n", (unsigned long long)r.received,
           BURST_MESSAGES, (unsigned long long)took_ms, (unsigned long long)r.ticks);
    bt_loop_timer_close(r.tick);
    bt_loop_timer_close(r.give_up);
    bt_zsock_close(r.server);
    bt_loop_destroy(r.loop);
    bt_zctx_destroy(r.ctx);
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    assert_false(r.gave_up);
    assert_int_equal(r.received, BURST_MESSAGES);
    assert_int_equal(r.out_of_order, 0);
    assert_int_equal(r.refused_replies, 0);
    if (tick_ms == 1) assert_true(r.ticks > 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void bursts_from_another_process_lose_nothing(void **state)
{
    (void)state;
    lose_nothing(1);
}

/* No timer ends the sleep for us: only ZMQ_FD does. */
static void bursts_into_a_loop_that_sleeps_lose_nothing(void **state)
{
    (void)state;
    lose_nothing(1000);
}

/* ---- one process, a server and clients on one loop ---- */

typedef struct {
    bt_loop *loop;
    bt_zctx *server_ctx, *client_ctx;
    bt_zsock *server, *client;
    bt_loop_timer *poll, *give_up;
    bool (*done)(void *fixture);
    bool gave_up, echo;
    unsigned at_server, at_client, up, down, refused;
    bt_zaddr last_address;
    bt_zpeer last_peer;
    char last_text[64];
} fixture;

static void server_takes(void *arg, const bt_zsock_message *m)
{
    fixture *f = arg;
    f->at_server++;
    f->last_address = *m->address;
    f->last_peer = *m->peer;
    snprintf(f->last_text, sizeof(f->last_text), "%.*s", (int)m->bytes, (const char *)m->data);
    if (f->echo) {
        assert_int_equal(bt_zsock_send(f->server, m->address, m->data, m->bytes, NULL), BT_OK);
    }
}

static void client_takes(void *arg, const bt_zsock_message *m)
{
    fixture *f = arg;
    assert_null(m->address);
    assert_null(m->peer);
    f->at_client++;
}

static void client_link(void *arg, bt_zlink link)
{
    fixture *f = arg;
    if (link == BT_ZLINK_UP) f->up++;
    if (link == BT_ZLINK_DOWN) f->down++;
    if (link == BT_ZLINK_REFUSED) f->refused++;
}

static void open_server(fixture *f, const bt_zkeypair *keys)
{
    bt_zsock_config config;
    bt_zsock_config_default(&config);
    config.message_bytes_max = 1000;
    bt_zsock_handler handler = {.arg = f, .on_message = server_takes};
    assert_int_equal(bt_loop_create(&f->loop, NULL), BT_OK);
    assert_int_equal(bt_zctx_create(keys, keys != NULL ? table : NULL, &f->server_ctx, NULL),
                     BT_OK);
    assert_int_equal(bt_zsock_router_open(f->server_ctx, f->loop, "tcp://127.0.0.1:0", &config,
                                          &handler, &f->server, NULL),
                     BT_OK);
}

static void open_client(fixture *f, const bt_zkeypair *keys, uint32_t hwm)
{
    bt_zsock_config config;
    bt_zsock_config_default(&config);
    config.hwm = hwm;
    config.linger_ms = 0;
    bt_zsock_handler handler = {.arg = f, .on_message = client_takes, .on_link = client_link};
    assert_int_equal(bt_zctx_create(keys, NULL, &f->client_ctx, NULL), BT_OK);
    assert_int_equal(bt_zsock_dealer_open(f->client_ctx, f->loop, bt_zsock_endpoint(f->server),
                                          keys != NULL ? server_keys.public_key : NULL, &config,
                                          &handler, &f->client, NULL),
                     BT_OK);
}

static void close_client(fixture *f)
{
    bt_zsock_close(f->client);
    f->client = NULL;
}

static void close_all(fixture *f)
{
    bt_zsock_close(f->client);
    bt_zsock_close(f->server);
    bt_loop_destroy(f->loop);
    bt_zctx_destroy(f->client_ctx);
    bt_zctx_destroy(f->server_ctx);
}

static void look(void *arg)
{
    fixture *f = arg;
    if (f->done(f)) bt_loop_stop(f->loop);
}

static void give_up(void *arg)
{
    fixture *f = arg;
    f->gave_up = true;
    bt_loop_stop(f->loop);
}

/* Runs the loop until done; failing to get there within 20 s fails the test. */
static void run_until(fixture *f, bool (*done)(void *fixture))
{
    f->done = done;
    bt_loop_timer_open(f->loop, 0, 1, look, f, &f->poll, NULL);
    bt_loop_timer_open(f->loop, 20000, 0, give_up, f, &f->give_up, NULL);
    bt_loop_run(f->loop);
    bt_loop_timer_close(f->poll);
    bt_loop_timer_close(f->give_up);
    assert_false(f->gave_up);
}

static bool is_up(void *arg)
{
    return ((fixture *)arg)->up > 0;
}

static bool is_refused(void *arg)
{
    return ((fixture *)arg)->refused > 0;
}

static bool is_down(void *arg)
{
    return ((fixture *)arg)->down > 0;
}

static bool has_reply(void *arg)
{
    return ((fixture *)arg)->at_client > 0;
}

static bool has_message(void *arg)
{
    return ((fixture *)arg)->at_server > 0;
}

static void role_and_name_come_from_the_key(void **state)
{
    (void)state;
    fixture f = {.echo = true};
    open_server(&f, &server_keys);
    open_client(&f, &decode_keys, 100);
    run_until(&f, is_up);
    assert_int_equal(bt_zsock_send(f.client, NULL, "prefill p0", 10, NULL), BT_OK);
    run_until(&f, has_reply);
    assert_string_equal(f.last_peer.role, "decode");
    assert_string_equal(f.last_peer.name, "d0");
    assert_string_equal(f.last_peer.public_key, decode_keys.public_key);
    close_all(&f);
}

static void unknown_key_gets_nothing_through(void **state)
{
    (void)state;
    fixture f = {0};
    open_server(&f, &server_keys);
    open_client(&f, &stranger_keys, 100);
    assert_int_equal(bt_zsock_send(f.client, NULL, "let me in", 9, NULL), BT_AGAIN);
    run_until(&f, is_refused);
    assert_int_equal(bt_zsock_send(f.client, NULL, "let me in", 9, NULL), BT_AGAIN);
    assert_int_equal(f.up, 0);
    assert_int_equal(f.at_server, 0);
    assert_true(bt_zctx_refused_total(f.server_ctx) > 0);
    close_client(&f);
    /* The server still serves those it knows. */
    bt_zctx *stranger_ctx = f.client_ctx;
    f.echo = true;
    open_client(&f, &prefill_keys, 100);
    run_until(&f, is_up);
    assert_int_equal(bt_zsock_send(f.client, NULL, "hello", 5, NULL), BT_OK);
    run_until(&f, has_reply);
    assert_string_equal(f.last_peer.role, "prefill");
    close_all(&f);
    bt_zctx_destroy(stranger_ctx);
}

static void client_without_curve_gets_nothing_through(void **state)
{
    (void)state;
    fixture f = {0};
    open_server(&f, &server_keys);
    open_client(&f, NULL, 100);
    run_until(&f, is_refused);
    assert_int_equal(f.up, 0);
    assert_int_equal(f.at_server, 0);
    close_all(&f);
}

static void message_above_the_limit_closes_its_connection_only(void **state)
{
    (void)state;
    static char big[1001];
    fixture f = {.echo = true};
    open_server(&f, &server_keys);
    open_client(&f, &prefill_keys, 100);
    run_until(&f, is_up);
    /* The client's own limit is higher; the server's is 1,000 bytes. */
    assert_int_equal(bt_zsock_send(f.client, NULL, big, sizeof(big), NULL), BT_OK);
    run_until(&f, is_down);
    assert_int_equal(f.at_server, 0);
    f.up = 0;
    run_until(&f, is_up);
    assert_int_equal(bt_zsock_send(f.client, NULL, big, sizeof(big) - 1, NULL), BT_OK);
    run_until(&f, has_reply);
    assert_int_equal(f.at_server, 1);
    /* On the way out the limit is checked before libzmq sees the message. */
    assert_int_equal(bt_zsock_send(f.server, &f.last_address, big, sizeof(big), NULL),
                     BT_ERR_LIMIT);
    close_all(&f);
}

static void message_of_other_than_one_frame_is_dropped(void **state)
{
    (void)state;
    fixture f = {0};
    open_server(&f, NULL);
    void *ctx = zmq_ctx_new();
    void *raw = zmq_socket(ctx, ZMQ_DEALER);
    int linger = 0;
    zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof(linger));
    assert_int_equal(zmq_connect(raw, bt_zsock_endpoint(f.server)), 0);
    zmq_send(raw, "a", 1, ZMQ_SNDMORE);
    zmq_send(raw, "b", 1, ZMQ_SNDMORE);
    zmq_send(raw, "c", 1, 0);
    zmq_send(raw, "one", 3, 0);
    run_until(&f, has_message);
    assert_int_equal(f.at_server, 1);
    assert_string_equal(f.last_text, "one");
    assert_string_equal(f.last_peer.role, "");
    bt_zsock_stats stats;
    bt_zsock_stats_get(f.server, &stats);
    assert_int_equal(stats.malformed_total, 1);
    zmq_close(raw);
    zmq_ctx_term(ctx);
    close_all(&f);
}

static void address_that_is_too_long_is_dropped(void **state)
{
    (void)state;
    fixture f = {0};
    open_server(&f, NULL);
    void *ctx = zmq_ctx_new();
    void *raw[2];
    for (int i = 0; i < 2; i++) {
        raw[i] = zmq_socket(ctx, ZMQ_DEALER);
        int linger = 0;
        zmq_setsockopt(raw[i], ZMQ_LINGER, &linger, sizeof(linger));
    }
    zmq_setsockopt(raw[0], ZMQ_ROUTING_ID, "longer than sixteen bytes", 25);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(zmq_connect(raw[i], bt_zsock_endpoint(f.server)), 0);
        zmq_send(raw[i], i == 0 ? "long" : "short", i == 0 ? 4 : 5, 0);
    }
    bt_zsock_stats stats = {0};
    while (stats.malformed_total + stats.received_total < 2) {
        run_until(&f, has_message);
        bt_zsock_stats_get(f.server, &stats);
    }
    assert_int_equal(stats.malformed_total, 1);
    assert_string_equal(f.last_text, "short");
    for (int i = 0; i < 2; i++) zmq_close(raw[i]);
    zmq_ctx_term(ctx);
    close_all(&f);
}

static void full_and_gone_are_answers(void **state)
{
    (void)state;
    static char block[900];
    fixture f = {0};
    open_server(&f, &server_keys);
    open_client(&f, &prefill_keys, 4);
    assert_int_equal(bt_zsock_send(f.client, NULL, "x", 1, NULL), BT_AGAIN); /* not connected */
    run_until(&f, is_up);
    /* Nobody runs the server's loop, so sooner or later every queue between is full. */
    unsigned sent = 0;
    bt_status status = BT_OK;
    while (sent < 10000000 &&
           (status = bt_zsock_send(f.client, NULL, block, sizeof(block), NULL)) == BT_OK) {
        sent++;
    }
    assert_int_equal(status, BT_AGAIN);
    run_until(&f, has_message);
    bt_zaddr nobody = {.bytes = "\0zzzz", .length = 5};
    bt_err err;
    assert_int_equal(bt_zsock_send(f.server, &nobody, "x", 1, &err), BT_ERR_PEER_LOST);
    close_all(&f);
}

static void refuse_open(bt_zctx *ctx, bt_loop *loop, const char *endpoint, bool is_router,
                        bt_status expected)
{
    bt_zsock_config config;
    bt_zsock_config_default(&config);
    bt_zsock_handler handler = {.on_message = server_takes};
    bt_zsock *socket = NULL;
    bt_err err = {0};
    bt_status status =
        is_router
            ? bt_zsock_router_open(ctx, loop, endpoint, &config, &handler, &socket, &err)
            : bt_zsock_dealer_open(ctx, loop, endpoint, NULL, &config, &handler, &socket, &err);
    assert_int_equal(status, expected);
    assert_null(socket);
    assert_non_null(strstr(err.message, endpoint));
}

static void unsafe_or_impossible_endpoints_are_refused(void **state)
{
    (void)state;
    fixture f = {0};
    open_server(&f, NULL);
    bt_zctx *plain = f.server_ctx;
    refuse_open(plain, f.loop, "tcp://10.0.0.1:0", true, BT_ERR_ARGUMENT);
    refuse_open(plain, f.loop, "tcp://10.0.0.1:5555", false, BT_ERR_ARGUMENT);
    refuse_open(plain, f.loop, "tcp://*:0", true, BT_ERR_ARGUMENT);
    refuse_open(plain, f.loop, "tcp://0.0.0.0:0", true, BT_ERR_ARGUMENT);
    refuse_open(plain, f.loop, "tcp://[::]:0", true, BT_ERR_ARGUMENT);
    refuse_open(plain, f.loop, "tcp://[fe80::1]:0", true, BT_ERR_ARGUMENT);
    refuse_open(plain, f.loop, "tcp://localhost:0", true, BT_ERR_ARGUMENT);
    refuse_open(plain, f.loop, "tcp://:0", true, BT_ERR_ARGUMENT);
    refuse_open(plain, f.loop, "ipc:///tmp/x", true, BT_ERR_ARGUMENT);
    refuse_open(plain, f.loop, bt_zsock_endpoint(f.server), true, BT_ERR_OS); /* in use */
    /* Keys without a table would let in any key. */
    bt_zctx *no_table = NULL;
    assert_int_equal(bt_zctx_create(&server_keys, NULL, &no_table, NULL), BT_OK);
    refuse_open(no_table, f.loop, "tcp://127.0.0.1:0", true, BT_ERR_ARGUMENT);
    close_all(&f);
    bt_zctx_destroy(no_table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bursts_from_another_process_lose_nothing),
        cmocka_unit_test(bursts_into_a_loop_that_sleeps_lose_nothing),
        cmocka_unit_test(role_and_name_come_from_the_key),
        cmocka_unit_test(unknown_key_gets_nothing_through),
        cmocka_unit_test(client_without_curve_gets_nothing_through),
        cmocka_unit_test(message_above_the_limit_closes_its_connection_only),
        cmocka_unit_test(message_of_other_than_one_frame_is_dropped),
        cmocka_unit_test(address_that_is_too_long_is_dropped),
        cmocka_unit_test(full_and_gone_are_answers),
        cmocka_unit_test(unsafe_or_impossible_endpoints_are_refused),
    };
    return cmocka_run_group_tests(tests, make_keys, drop_keys);
}

/* common/net/link.h: peers by key, messages through the codec, rubbish dropped. */
#include "common/net/link.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CLIENTS 2u

typedef struct {
    bt_link *link;
    bt_zctx *ctx;
    unsigned up, heard;
    uint64_t last_value;
} client;

typedef struct {
    bt_loop *loop;
    bt_zctx *ctx;
    bt_link_server *server;
    bt_loop_timer *look, *give_up;
    bool gave_up;
    const unsigned *counter;
    unsigned awaited;
    unsigned heard;
    uint32_t last_index;
    uint64_t last_value;
    client clients[CLIENTS];
} fixture;

static bt_zkeypair server_keys, client_keys[CLIENTS];
static bt_zap_table *table;

static int make_keys(void **state)
{
    (void)state;
    assert_int_equal(bt_zkeypair_generate(&server_keys, NULL), BT_OK);
    assert_int_equal(bt_zap_table_create(&table, NULL), BT_OK);
    for (unsigned i = 0; i < CLIENTS; i++) {
        assert_int_equal(bt_zkeypair_generate(&client_keys[i], NULL), BT_OK);
        assert_int_equal(bt_zap_table_add(table, client_keys[i].public_key,
                                          i == 0 ? "prefill" : "decode", i == 0 ? "p0" : "d0",
                                          NULL),
                         BT_OK);
    }
    return 0;
}

static int drop_keys(void **state)
{
    (void)state;
    bt_zap_table_destroy(table);
    return 0;
}

static bt_msg heartbeat(uint64_t value)
{
    bt_msg msg = {.kind = BT_MSG_HEARTBEAT};
    msg.heartbeat.incarnation = value;
    return msg;
}

static void server_takes(void *arg, uint32_t index, const bt_msg *msg)
{
    fixture *f = arg;
    assert_int_equal(msg->kind, BT_MSG_HEARTBEAT);
    f->heard++;
    f->last_index = index;
    f->last_value = msg->heartbeat.incarnation;
}

static void client_takes(void *arg, const bt_msg *msg)
{
    client *c = arg;
    c->heard++;
    c->last_value = msg->heartbeat.incarnation;
}

static void client_link(void *arg, bt_zlink state)
{
    client *c = arg;
    if (state == BT_ZLINK_UP) c->up++;
}

static void look(void *arg)
{
    fixture *f = arg;
    if (*f->counter >= f->awaited) bt_loop_stop(f->loop);
}

static void give_up(void *arg)
{
    fixture *f = arg;
    f->gave_up = true;
    bt_loop_stop(f->loop);
}

static void await(fixture *f, const unsigned *counter, unsigned value)
{
    f->counter = counter;
    f->awaited = value;
    bt_loop_timer_open(f->loop, 0, 1, look, f, &f->look, NULL);
    bt_loop_timer_open(f->loop, 20000, 0, give_up, f, &f->give_up, NULL);
    bt_loop_run(f->loop);
    bt_loop_timer_close(f->look);
    bt_loop_timer_close(f->give_up);
    assert_false(f->gave_up);
}

static void start(fixture *f, bool with_keys)
{
    memset(f, 0, sizeof(*f));
    bt_link_server_handler handler = {.arg = f, .on_message = server_takes};
    assert_int_equal(bt_loop_create(&f->loop, NULL), BT_OK);
    assert_int_equal(
        bt_zctx_create(with_keys ? &server_keys : NULL, with_keys ? table : NULL, &f->ctx, NULL),
        BT_OK);
    assert_int_equal(
        bt_link_server_open(f->ctx, f->loop, "tcp://127.0.0.1:0", &handler, &f->server, NULL),
        BT_OK);
}

static void dial(fixture *f, unsigned i, const bt_zkeypair *keys)
{
    client *c = &f->clients[i];
    *c = (client){0};
    bt_link_handler handler = {.arg = c, .on_message = client_takes, .on_link = client_link};
    assert_int_equal(bt_zctx_create(keys, NULL, &c->ctx, NULL), BT_OK);
    assert_int_equal(bt_link_dial(c->ctx, f->loop, bt_link_server_endpoint(f->server),
                                  keys != NULL ? server_keys.public_key : NULL, &handler, &c->link,
                                  NULL),
                     BT_OK);
    await(f, &c->up, 1);
}

static void say(fixture *f, unsigned i, uint64_t value)
{
    bt_msg msg = heartbeat(value);
    unsigned heard = f->heard;
    assert_int_equal(bt_link_send(f->clients[i].link, &msg, NULL), BT_OK);
    await(f, &f->heard, heard + 1);
    assert_int_equal(f->last_value, value);
}

static void stop(fixture *f)
{
    for (unsigned i = 0; i < CLIENTS; i++) bt_link_close(f->clients[i].link);
    bt_link_server_close(f->server);
    bt_loop_destroy(f->loop);
    for (unsigned i = 0; i < CLIENTS; i++) bt_zctx_destroy(f->clients[i].ctx);
    bt_zctx_destroy(f->ctx);
}

static void peers_have_an_index_by_their_key(void **state)
{
    (void)state;
    fixture f;
    uint32_t index[CLIENTS];
    start(&f, true);
    for (unsigned i = 0; i < CLIENTS; i++) {
        dial(&f, i, &client_keys[i]);
        say(&f, i, 100 + i);
        index[i] = f.last_index;
    }
    assert_int_not_equal(index[0], index[1]);
    assert_int_equal(bt_link_server_role(f.server, index[0]), BT_ROLE_PREFILL);
    assert_string_equal(bt_link_server_name(f.server, index[0]), "p0");
    assert_int_equal(bt_link_server_role(f.server, index[1]), BT_ROLE_DECODE);
    assert_string_equal(bt_link_server_name(f.server, index[1]), "d0");
    for (unsigned i = 0; i < CLIENTS; i++) {
        bt_msg msg = heartbeat(200 + i);
        assert_int_equal(bt_link_server_send(f.server, index[i], &msg, NULL), BT_OK);
        await(&f, &f.clients[i].heard, 1);
        assert_int_equal(f.clients[i].last_value, 200 + i);
    }
    stop(&f);
}

static void daemon_that_comes_back_keeps_its_index(void **state)
{
    (void)state;
    fixture f;
    start(&f, true);
    dial(&f, 0, &client_keys[0]);
    say(&f, 0, 1);
    uint32_t index = f.last_index;
    /* The old process is still connected when the new one appears with the same key. */
    dial(&f, 1, &client_keys[0]);
    say(&f, 1, 2);
    assert_int_equal(f.last_index, index);
    bt_msg msg = heartbeat(3);
    assert_int_equal(bt_link_server_send(f.server, index, &msg, NULL), BT_OK);
    await(&f, &f.clients[1].heard, 1);
    assert_int_equal(f.clients[0].heard, 0);
    /* What the replaced one still says does not take the index back. */
    unsigned heard = f.heard;
    assert_int_equal(bt_link_send(f.clients[0].link, &msg, NULL), BT_OK);
    while (bt_link_server_unwelcome_total(f.server) == 0) await(&f, &f.heard, 0);
    assert_int_equal(f.heard, heard);
    assert_int_equal(bt_link_server_send(f.server, index, &msg, NULL), BT_OK);
    await(&f, &f.clients[1].heard, 2);
    stop(&f);
}

static void connections_without_keys_have_indices_of_their_own(void **state)
{
    (void)state;
    fixture f;
    start(&f, false);
    dial(&f, 0, NULL);
    say(&f, 0, 1);
    uint32_t first = f.last_index;
    dial(&f, 1, NULL);
    say(&f, 1, 2);
    assert_int_not_equal(f.last_index, first);
    assert_int_equal(bt_link_server_role(f.server, first), BT_ROLE_NONE);
    assert_string_equal(bt_link_server_name(f.server, first), "");
    stop(&f);
}

static void ignore(void *arg, const bt_zsock_message *message)
{
    (void)arg, (void)message;
}

/* A peer with a good key that speaks something else. */
static void rubbish_is_dropped_and_counted(void **state)
{
    (void)state;
    fixture f;
    client stranger = {0};
    bt_zsock *raw = NULL;
    bt_zsock_config config;
    bt_zsock_config_default(&config);
    bt_zsock_handler handler = {.arg = &stranger, .on_message = ignore, .on_link = client_link};
    start(&f, true);
    dial(&f, 1, &client_keys[1]);
    assert_int_equal(bt_zctx_create(&client_keys[0], NULL, &stranger.ctx, NULL), BT_OK);
    assert_int_equal(bt_zsock_dealer_open(stranger.ctx, f.loop, bt_link_server_endpoint(f.server),
                                          server_keys.public_key, &config, &handler, &raw, NULL),
                     BT_OK);
    await(&f, &stranger.up, 1);
    assert_int_equal(bt_zsock_send(raw, NULL, "", 0, NULL), BT_OK);
    assert_int_equal(bt_zsock_send(raw, NULL, "GET / HTTP/1.1", 14, NULL), BT_OK);
    while (bt_link_server_malformed_total(f.server) < 2) await(&f, &f.heard, 0);
    assert_int_equal(f.heard, 0);
    say(&f, 1, 7);
    bt_zsock_close(raw);
    stop(&f);
    bt_zctx_destroy(stranger.ctx);
}

static void send_says_what_is_wrong(void **state)
{
    (void)state;
    fixture f;
    bt_err err = {0};
    start(&f, true);
    bt_msg msg = heartbeat(1);
    assert_int_equal(bt_link_server_send(f.server, 5, &msg, &err), BT_ERR_PEER_LOST);
    assert_int_equal(bt_link_server_send(f.server, BT_DAEMONS_MAX, &msg, &err), BT_ERR_PEER_LOST);
    dial(&f, 0, &client_keys[0]);
    msg.kind = BT_MSG_KIND_END;
    assert_int_equal(bt_link_send(f.clients[0].link, &msg, &err), BT_ERR_FORMAT);
    say(&f, 0, 1);
    uint32_t index = f.last_index;
    bt_link_close(f.clients[0].link);
    f.clients[0].link = NULL;
    /* The server learns of it from the send; until TCP tells, the message goes nowhere. */
    msg = heartbeat(2);
    bt_status status;
    while ((status = bt_link_server_send(f.server, index, &msg, &err)) == BT_OK) {
        await(&f, &f.heard, 0);
    }
    assert_int_equal(status, BT_ERR_PEER_LOST);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peers_have_an_index_by_their_key),
        cmocka_unit_test(daemon_that_comes_back_keeps_its_index),
        cmocka_unit_test(connections_without_keys_have_indices_of_their_own),
        cmocka_unit_test(rubbish_is_dropped_and_counted),
        cmocka_unit_test(send_says_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, make_keys, drop_keys);
}

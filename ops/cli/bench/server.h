/* server.h - one server under load: where it is, what it said of itself, and what it understands,
 * found out before the run by asking it.
 *
 * ASKED    GET /v1/models (the model's name, its context), /version, /metrics (is it ours?), and
 *          short requests of the very form that the run will send: first with everything we would
 *          like (ids as prompt, return_token_ids, continuous_usage_stats, ignore_eos), then, while
 *          the answer is a 4xx, with less.
 * LENGTHS  The last of these says how many tokens the server adds to a text (BOS, chat template). */
#ifndef BT_OPS_CLI_BENCH_SERVER_H
#define BT_OPS_CLI_BENCH_SERVER_H

#include "ops/cli/bench/load.h"
#include "ops/cli/bench/vocab.h"
#include "ops/cli/http.h"

#define BT_SERVER_URL_BYTES 512u

typedef struct {
    char base[BT_SERVER_URL_BYTES]; /* without a slash at the end and without /v1 */
    char endpoint[BT_SERVER_URL_BYTES];
    char model[256];
    char owner[64];          /* owned_by of the model, or "" */
    char version[128];       /* or "" */
    uint32_t context_tokens; /* max_model_len; 0 = not said */
    bool baton;              /* its /metrics are a Baton router's */
    bool tokenizes;          /* it has /tokenize */
    bt_load_body body;       /* what to send; body.model points to model */
    uint32_t text_overhead;
} bt_server;

/* http://host:port with or without /v1; https too. Errors: ERR_ARGUMENT. */
bt_status bt_server_init(bt_server *server, const char *url, const char *model, bool chat,
                         bt_err *err);

/* Models, version, metrics. Errors: those of bt_client_fetch, ERR_PEER_LOST (no model list). */
bt_status bt_server_ask(bt_server *server, bt_client *http, bt_err *err);

/* A counter for bt_vocab_words: by /tokenize, or by the usage of short requests. */
typedef struct {
    bt_server *server;
    bt_client *http;
    bt_json_out *json;
} bt_server_counter;
bt_status bt_server_count(void *arg, const char *text, uint32_t *ret_tokens, uint32_t *ids,
                          uint32_t ids_max, uint32_t *ret_ids, bt_err *err);

/* Fills body and text_overhead: ids if want_ids and the server takes them, else text. vocab has the
 * one or the other; without either (a file of prompts) a fixed text is sent. Errors: ERR_PEER_LOST
 * with the server's own message if it refuses even the plainest request. */
bt_status bt_server_probe(bt_server *server, bt_client *http, const bt_vocab *vocab, bool want_ids,
                          bool ignore_eos, bt_json_out *json, bt_err *err);

#endif

/* load.h - which requests a run sends: when, how long, and with which prompt. The same options and
 * seed give the same requests, byte for byte, whatever server they go to and in whatever order they
 * are asked for.
 *
 * PROMPTS  are made of pieces: a shared prefix, blocks of a trace that have a hash, and the rest,
 *          which no other request has. Each piece draws its tokens from a vocabulary (vocab.h) by a
 *          seed of its own, so equal pieces are equal tokens.
 * WARM-UP  requests have the lengths of the first ones and other prompts.
 * FILE     --prompts gives the prompts instead, in order and again from the beginning. */
#ifndef BT_OPS_CLI_BENCH_LOAD_H
#define BT_OPS_CLI_BENCH_LOAD_H

#include "common/net/json_out.h"
#include "ops/cli/bench/draw.h"
#include "ops/cli/bench/prompts.h"
#include "ops/cli/bench/trace.h"
#include "ops/cli/bench/vocab.h"

#include <stdbool.h>

#define BT_LOAD_ARRIVALS_MAX 10000000u
#define BT_LOAD_BODY_MAX (64u << 20)

typedef struct {
    uint64_t seed;
    bt_length input, output;
    uint32_t prefix_tokens, prefixes; /* 0 tokens: none */
    double rate, burstiness;          /* rate 0: no arrival times but those of a trace */
    double speed;                     /* of a trace: 2 = twice as fast */
    const bt_trace *trace;            /* NULL = none */
    const bt_prompts *prompts;        /* NULL = none */
} bt_load_options;

typedef struct {
    bt_load_options options;
    uint64_t *at_ns; /* [arrival_count], ascending; NULL in a closed loop */
    uint32_t arrival_count;
} bt_load;

typedef struct {
    uint32_t input_tokens; /* 0 = not known: a prompt from a file */
    uint32_t output_tokens;
} bt_load_item;

/* count: requests wanted, UINT32_MAX = until duration_ns. With a rate or a trace that makes the
 * list of arrivals. Errors: ERR_LIMIT, ERR_NO_MEMORY. */
bt_status bt_load_open(const bt_load_options *options, bool open_loop, uint32_t count,
                       uint64_t duration_ns, bt_load *ret_load, bt_err *err);
void bt_load_close(bt_load *load);

bt_load_item bt_load_item_of(const bt_load *load, bool warmup, uint32_t index);

/* What the body of a request says beside the prompt. */
typedef struct {
    const char *model;
    bool chat;
    bool ids;                                                   /* prompts are token ids */
    bool stream_usage, continuous_usage, token_ids, ignore_eos; /* what the server understands */
    double temperature;
} bt_load_body;

/* The JSON of request index into json, which is reset. text_overhead: tokens that the server adds to
 * a text. Errors: ERR_LIMIT if it is longer than the writer takes. */
bt_status bt_load_write(const bt_load *load, bool warmup, uint32_t index, const bt_vocab *vocab,
                        const bt_load_body *body, uint32_t text_overhead, bt_json_out *json,
                        bt_err *err);

/* A body for a prompt that is given: text (chat: the user's message), or count ids. */
typedef struct {
    const char *text; /* NULL = ids */
    const uint32_t *ids;
    uint32_t count;
} bt_load_prompt;
void bt_load_write_prompt(const bt_load_prompt *prompt, const bt_load_body *body,
                          uint32_t output_tokens, bt_json_out *json);

#endif

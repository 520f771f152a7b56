/* ps.c - `baton ps`: the fleet of a router: daemons, pairs, and refused pairs with the reason. */
#include "ops/cli/command.h"
#include "ops/cli/fetch.h"
#include "ops/cli/options.h"
#include "ops/cli/table.h"

#include "common/base/parse.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: baton ps [options]\n\n"
    "Shows the fleet of a running router: its daemons with their pools and load, every pair of\n"
    "prefill and decode daemons with the transport KV takes and the GB/s measured when they "
    "paired,\n"
    "and why a pair was refused.\n\n"
    "  --url URL     of the router (default http://127.0.0.1:8000)\n"
    "  --json        print what GET /fleet answers\n"
    "  --watch S     again every S seconds, 1 to 3600, until Ctrl-C\n\n"
    "USED is the share of the pool that is taken, cached prefixes included. PROMPT is the prompt\n"
    "tokens of this router's requests that are still in prefill there. HEARD is the age of the "
    "last\n"
    "message.\n\n"
    "Exit codes: 0 shown, 1 there is no router at that URL or its answer is none of ours, 2 wrong "
    "usage.\n\n"
    "Example: baton ps --url http://127.0.0.1:8000\n";

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static unsigned long long number_of(const json_t *object, const char *key)
{
    json_int_t number = json_integer_value(json_object_get(object, key));
    return number > 0 ? (unsigned long long)number : 0;
}

static bool is_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* Prefill before decode, then by name; daemons and pairs are in the order they joined. */
static int by_name(const void *a, const void *b)
{
    static const char *const keys[] = {"name", "prefill", "decode"};
    const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
    int order = strcmp(text_of(y, "role"), text_of(x, "role"));
    for (size_t i = 0; order == 0 && i < sizeof(keys) / sizeof(keys[0]); i++)
        order = strcmp(text_of(x, keys[i]), text_of(y, keys[i]));
    return order;
}

/* The items of an array in that order, borrowed; NULL if there are none. */
static json_t **sorted(const json_t *array)
{
    size_t count = json_array_size(array);
    json_t **items = count > 0 ? malloc(count * sizeof(*items)) : NULL;
    if (items == NULL) return NULL;
    for (size_t i = 0; i < count; i++) items[i] = json_array_get(array, i);
    qsort(items, count, sizeof(*items), by_name);
    return items;
}

static void print_router(const json_t *router)
{
    char name[96], model[160];
    bt_escape(text_of(router, "name"), strlen(text_of(router, "name")), name, sizeof(name));
    bt_escape(text_of(router, "model"), strlen(text_of(router, "model")), model, sizeof(model));
    printf("%s %s at http://%s: model %s, context %llu tokens, policy %s%s\n", name,
           text_of(router, "version"), text_of(router, "http"), model,
           number_of(router, "context_tokens"), text_of(router, "policy"),
           is_true(router, "draining")  ? ", draining"
           : is_true(router, "serving") ? ""
                                        : ", NOT SERVING: no pair is ready");
    printf("%llu requests in flight; accepted %llu, failed %llu, refused %llu, retries %llu, "
           "tokens %llu\n",
           number_of(router, "requests"), number_of(router, "requests_total"),
           number_of(router, "failed_total"), number_of(router, "refused_total"),
           number_of(router, "retries_total"), number_of(router, "tokens_total"));
}

/* USED to PROMPT; nothing is known of one that is gone. */
static void put_load(bt_table *table, const json_t *daemon, bool up)
{
    static const char *const loads[] = {"running", "waiting", "assigned_tokens"};
    unsigned long long blocks = number_of(daemon, "pool_blocks"),
                       unused = number_of(daemon, "blocks_free");
    if (up && unused <= blocks)
        bt_table_cell(table, "%llu%%", blocks > 0 ? (blocks - unused) * 100 / blocks : 0);
    else
        bt_table_cell(table, "-");
    for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
        if (up)
            bt_table_cell(table, "%llu", number_of(daemon, loads[i]));
        else
            bt_table_cell(table, "-");
    }
}

static void print_daemons(const json_t *daemons)
{
    bt_table table;
    bt_table_init(&table,
                  "NAME|ROLE|STATE|PID|KV|BLOCK|POOL TOKENS|USED|RUNNING|WAITING|PROMPT|HEARD");
    json_t **items = sorted(daemons);
    for (size_t i = 0; items != NULL && i < json_array_size(daemons); i++) {
        const json_t *daemon = items[i];
        unsigned long long block = number_of(daemon, "block_tokens");
        bool up = is_true(daemon, "up");
        bt_table_cell(&table, "%s", text_of(daemon, "name"));
        bt_table_cell(&table, "%s", text_of(daemon, "role"));
        bt_table_cell(&table, "%s", !up ? "gone" : is_true(daemon, "draining") ? "draining" : "up");
        bt_table_cell(&table, "%llu", number_of(daemon, "pid"));
        bt_table_cell(&table, "%s", text_of(daemon, "kv_dtype"));
        bt_table_cell(&table, "%llu", block);
        bt_table_cell(&table, "%llu", number_of(daemon, "pool_blocks") * block);
        put_load(&table, daemon, up);
        bt_table_cell(&table, "%.1fs", (double)number_of(daemon, "heard_ms") / 1000);
    }
    putchar('\n');
    bt_table_print(&table, stdout);
    bt_table_finish(&table);
    free(items);
    if (json_array_size(daemons) == 0) puts("no daemon has joined");
}

static void print_pairs(const json_t *pairs)
{
    if (json_array_size(pairs) == 0) return;
    bt_table table;
    bt_table_init(&table, "PREFILL|DECODE|PAIR|WIRE|TRANSPORT|GB/s");
    json_t **items = sorted(pairs);
    for (size_t i = 0; items != NULL && i < json_array_size(pairs); i++) {
        const json_t *pair = items[i], *rate = json_object_get(pair, "gb_per_s");
        bt_table_cell(&table, "%s", text_of(pair, "prefill"));
        bt_table_cell(&table, "%s", text_of(pair, "decode"));
        bt_table_cell(&table, "%s", text_of(pair, "state"));
        bt_table_cell(&table, "%s", text_of(pair, "wire"));
        bt_table_cell(&table, "%s", text_of(pair, "transport"));
        if (json_is_number(rate))
            bt_table_cell(&table, "%.1f", json_number_value(rate));
        else
            bt_table_cell(&table, "%s", "");
    }
    putchar('\n');
    bt_table_print(&table, stdout);
    bt_table_finish(&table);
    for (size_t i = 0; items != NULL && i < json_array_size(pairs); i++) {
        const json_t *pair = items[i];
        if (text_of(pair, "reason")[0] == '\0') continue;
        char text[400], line[800];
        snprintf(text, sizeof(text), "%s and %s: %s", text_of(pair, "prefill"),
                 text_of(pair, "decode"), text_of(pair, "reason"));
        bt_escape(text, strlen(text), line, sizeof(line));
        printf("\nrefused: %s\n", line);
    }
    free(items);
}

static int show(const char *url, bool json)
{
    bt_err err;
    json_t *fleet;
    if (bt_fetch_fleet(url, &fleet, &err) != BT_OK) {
        fprintf(stderr, "baton ps: %s\n", err.message);
        return BT_EXIT_FAILURE;
    }
    if (json) {
        json_dumpf(fleet, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        print_router(json_object_get(fleet, "router"));
        print_daemons(json_object_get(fleet, "daemons"));
        print_pairs(json_object_get(fleet, "pairs"));
    }
    json_decref(fleet);
    return fflush(stdout) == 0 ? BT_EXIT_OK : BT_EXIT_FAILURE;
}

static int run_ps(int argc, char **argv)
{
    const char *url = "http://127.0.0.1:8000";
    bool json = false;
    uint32_t watch_s = 0;
    const bt_option options[] = {
        {.name = "--url", .kind = BT_OPTION_TEXT, .value = &url},
        {.name = "--json", .kind = BT_OPTION_FLAG, .value = &json},
        {.name = "--watch", .kind = BT_OPTION_U32, .value = &watch_s, .min = 1, .max = 3600},
    };
    int code = bt_options_parse(argc, argv, options, sizeof(options) / sizeof(options[0]));
    if (code != BT_EXIT_OK) return code;
    if (watch_s == 0) return show(url, json);
    for (;;) {
        if (isatty(STDOUT_FILENO)) fputs("\033[H\033[J", stdout);
        code = show(url, json); /* a router that restarts comes back */
        if (!isatty(STDOUT_FILENO)) putchar('\n');
        if (ferror(stdout)) return code;
        sleep(watch_s);
    }
}

const bt_cli_command bt_cli_ps = {
    .name = "ps",
    .summary = "show the fleet of a router: daemons, pairs, refusals",
    .help = help,
    .run = run_ps,
};

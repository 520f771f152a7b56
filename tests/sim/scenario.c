/* scenario.c - what a seed stands for: the fleet's shape, its requests and its faults.
 *
 * A fifth of the seeds is undisturbed (everything must then finish); the others draw one or several
 * kinds of fault. */
#include "router/policies/policy.h"
#include "tests/sim/world.h"

#include <stdio.h>
#include <string.h>

#define TIGHT_PROMPT_MAX 40u
#define TIGHT_BLOCKS 13u /* of 16 tokens: D's probe, a pushed probe, and little else */

static const uint32_t block_sizes[] = {16, 32, 64};

/* The prompt of the request before, in whole runs if it has any: what a cache may hold all of. */
static void draw_again(world *w, uint32_t i)
{
    sim_request *request = &w->requests[i], *before = &w->requests[i - 1];
    if (before->prompt_count >= BT_RUN_TOKENS)
        before->prompt_count -= before->prompt_count % BT_RUN_TOKENS;
    engine_expect(before);
    request->prompt_count = before->prompt_count;
    memcpy(request->prompt, before->prompt, sizeof(request->prompt));
}

static void draw_sampling(world *w, sim_request *request)
{
    bt_sampling *s = &request->sampling;
    *s = (bt_sampling){.temperature = 1, .top_p = 1, .seed = world_random(w, UINT64_MAX)};
    if (world_random(w, 3) == 0) s->presence_penalty = 1;
    if (world_random(w, 3) == 0) s->min_tokens = (uint32_t)world_random(w, request->max_tokens + 1);
    request->score = world_random(w, 4) == 0;
    if (world_random(w, 4) > 0) return;
    s->bias = request->bias;
    s->bias_count = 1 + (uint32_t)world_random(w, SIM_BIAS_MAX);
    for (uint32_t i = 0; i < s->bias_count; i++)
        request->bias[i] = (bt_logit_bias){i * 300 + (uint32_t)world_random(w, 300),
                                           world_random(w, 2) ? 1.0f : -1.0f};
}

/* Makes one of the tokens that are to come end the output. */
static void draw_stop(world *w, sim_request *request)
{
    bt_sampling *s = &request->sampling;
    s->stop_count = 1;
    uint64_t at = world_random(w, 2) ? 0 : world_random(w, request->expected_count);
    s->stop_ids[0] = request->expected[at];
    engine_expect(request);
}

static void draw_request(world *w, uint32_t i)
{
    sim_request *request = &w->requests[i];
    for (uint32_t b = 0; b < sizeof(request->id.bytes); b++)
        request->id.bytes[b] = (uint8_t)world_random(w, 256);
    uint32_t longest = w->sc.tight ? TIGHT_PROMPT_MAX : world_random(w, 2) ? SIM_PROMPT_MAX : 80;
    request->prompt_count = 1 + (uint32_t)world_random(w, longest);
    request->max_tokens = 1 + (uint32_t)world_random(w, SIM_OUTPUT_MAX);
    if (w->sc.tight) request->max_tokens = SIM_OUTPUT_MAX;
    request->ignore_eos = world_random(w, 2);
    draw_sampling(w, request);
    /* Half of the requests begin with the same tokens, so that the prefix caches of both sides are
     * used. */
    bool shared = world_random(w, 2);
    for (uint32_t t = 0; t < request->prompt_count; t++)
        request->prompt[t] =
            10 + (uint32_t)(shared ? sim_mix(w->seed, t) % 900 : world_random(w, 900));
    if (shared) request->prompt[request->prompt_count - 1] = 10 + (uint32_t)world_random(w, 900);
    if (i > 0 && !w->sc.tight && world_random(w, 4) == 0) draw_again(w, i);
    request->start_ns = 50 * MS + world_random(w, w->sc.tight ? 20 * MS : 2 * SEC);
    engine_expect(request);
    /* Some end with their first token. */
    bool soon = world_random(w, 3) == 0 && !request->ignore_eos;
    for (uint32_t tries = 0; soon && request->expected_count > 1 && tries < 60; tries++) {
        request->sampling.seed++;
        engine_expect(request);
    }
    if (world_random(w, 5) == 0) draw_stop(w, request);
    world_schedule(w, request->start_ns, EV_SUBMIT, SIM_ROUTER, 0)->arg = i;
}

static void draw_faults(world *w)
{
    scenario *s = &w->sc;
    s->calm_ns = 0;
    if (world_random(w, 5) == 0) return;
    s->calm_ns = 4 * SEC + world_random(w, 6 * SEC);
    uint64_t kinds = world_random(w, 16384);
    if (world_random(w, 2)) kinds &= world_random(w, 16384);
    if (kinds & 1) s->loss = 1 + (uint32_t)world_random(w, 300);
    if (kinds & 2) s->duplicate = 1 + (uint32_t)world_random(w, 500);
    if (kinds & 4) s->reorder = 1 + (uint32_t)world_random(w, 500);
    if (kinds & 8) s->corrupt = 1 + (uint32_t)world_random(w, 2000);
    if (kinds & 16) s->slow = 1 + (uint32_t)world_random(w, 700);
    if (kinds & 32) s->crashes = 1 + (uint32_t)world_random(w, 3);
    if (kinds & 64) s->freezes = 1 + (uint32_t)world_random(w, 3);
    if (kinds & 128) s->cancels = 1 + (uint32_t)world_random(w, s->requests);
    if (kinds & 256) s->late_puts = 1 + (uint32_t)world_random(w, 1500);
    if (kinds & 512) s->drains = 1 + (uint32_t)world_random(w, 3);
    if (kinds & 1024) s->router_restarts = 1 + (uint32_t)world_random(w, 2);
    if (kinds & 2048) s->broken_puts = 1 + (uint32_t)world_random(w, 500);
    if (kinds & 4096) {
        s->again = 1 + (uint32_t)world_random(w, 2000);
        s->engine_fail = (uint32_t)world_random(w, 200);
    }
    if (kinds & 8192) s->broken_logits = 1 + (uint32_t)world_random(w, 200);
}

static uint32_t draw_node(world *w)
{
    uint64_t i = world_random(w, w->sc.prefills + w->sc.decodes);
    return (uint32_t)(i < w->sc.prefills ? i : SIM_PREFILL_MAX + i - w->sc.prefills);
}

/* When the faults that are events happen. */
static void draw_events(world *w)
{
    const scenario *s = &w->sc;
    for (uint32_t i = 0; i < s->cancels; i++) {
        uint64_t request = world_random(w, s->requests);
        uint64_t delay = world_random(w, 400 * MS);
        world_schedule(w, w->requests[request].start_ns + delay, EV_CANCEL, SIM_ROUTER, 0)->arg =
            request;
    }
    for (uint32_t i = 0; i < s->crashes; i++)
        world_schedule(w, 100 * MS + world_random(w, s->calm_ns - 200 * MS), EV_CRASH, draw_node(w),
                       0);
    for (uint32_t i = 0; i < s->freezes; i++) {
        bool router = world_random(w, 5) == 0;
        sim_event *event = world_schedule(w, 100 * MS + world_random(w, s->calm_ns - 200 * MS),
                                          EV_FREEZE, router ? SIM_ROUTER : draw_node(w), 0);
        event->arg = 10 * MS + world_random(w, world_random(w, 2) ? 500 * MS : 6 * SEC);
        if (router && world_random(w, 2)) event->arg += 9 * SEC; /* beyond router_timeout */
    }
    /* Within the time in which requests come. */
    for (uint32_t i = 0; i < s->drains; i++)
        world_schedule(w, 100 * MS + world_random(w, 3 * SEC), EV_DRAIN, draw_node(w), 0);
    for (uint32_t i = 0; i < s->router_restarts; i++)
        world_schedule(w, 100 * MS + world_random(w, 3 * SEC), EV_ROUTER_RESTART, SIM_ROUTER, 0);
}

void scenario_draw(world *w, uint64_t seed)
{
    (void)seed;
    scenario *s = &w->sc;
    s->prefills = 1 + (uint32_t)world_random(w, SIM_PREFILL_MAX);
    s->decodes = 1 + (uint32_t)world_random(w, SIM_DECODE_MAX);
    s->requests = 2 + (uint32_t)world_random(w, SIM_REQUESTS_MAX - 1);
    s->p_block_tokens = block_sizes[world_random(w, 3)];
    s->d_block_tokens = block_sizes[world_random(w, 3)];
    /* Pools that hold between one and a few requests of the longest kind, beside D's probe. */
    s->p_blocks = (BT_RUN_TOKENS + (1 + (uint32_t)world_random(w, 3)) * (SIM_TOKENS_MAX + 40)) /
                  s->p_block_tokens;
    s->d_blocks = (2 * BT_RUN_TOKENS + (1 + (uint32_t)world_random(w, 3)) * (SIM_TOKENS_MAX + 40)) /
                  s->d_block_tokens;
    s->tight = world_random(w, 4) == 0;
    if (s->tight) {
        s->d_block_tokens = 16;
        s->d_blocks = TIGHT_BLOCKS;
        s->requests = SIM_REQUESTS_MAX;
    }
    if (s->p_blocks > SIM_POOL_MAX) s->p_blocks = SIM_POOL_MAX;
    if (s->d_blocks > SIM_POOL_MAX) s->d_blocks = SIM_POOL_MAX;
    s->cell_runs = 1 + (uint32_t)world_random(w, SIM_CELL_RUNS_MAX);
    s->batch_tokens = 64u << world_random(w, 3);
    s->policy = bt_router_policies[world_random(w, bt_router_policy_count)]->name;
    draw_faults(w);
    /* Prompts that take longer than a lease: only its renewal keeps the grant. */
    s->slow_engine = world_random(w, scenario_undisturbed(s) ? 3 : 8) == 0 && !s->tight;
    /* Half of the worlds let D compute prompts: of a part of them, or of any while no P is up. */
    s->local_chunk = world_random(w, 2) ? 16u << world_random(w, 3) : 0;
    if (s->local_chunk > s->batch_tokens) s->local_chunk = s->batch_tokens;
    s->local_max = world_random(w, 4) ? 40u << world_random(w, 4) : 0;
    s->local_alone = world_random(w, 2);
    for (uint32_t i = 0; i < s->requests; i++) draw_request(w, i);
    draw_events(w);
}

uint64_t sim_lease_ns(const scenario *s)
{
    return s->slow_engine ? 600 * MS : 5 * SEC;
}

bool scenario_undisturbed(const scenario *s)
{
    return !(s->loss | s->duplicate | s->reorder | s->corrupt | s->slow | s->crashes | s->freezes |
             s->cancels | s->late_puts | s->drains | s->router_restarts | s->broken_puts |
             s->again | s->engine_fail | s->broken_logits);
}

void scenario_print(const world *w)
{
    const scenario *s = &w->sc;
    printf("seed %llu: %uP %uD, %u requests, blocks %u x %u / %u x %u, cells of %u runs, %s, local "
           "%u of "
           "%u%s\n",
           (unsigned long long)w->seed, s->prefills, s->decodes, s->requests, s->p_blocks,
           s->p_block_tokens, s->d_blocks, s->d_block_tokens, s->cell_runs, s->policy,
           s->local_chunk, s->local_max, s->local_alone ? ", also alone" : "");
    printf("faults: loss %u duplicate %u reorder %u corrupt %u slow %u late puts %u broken puts %u "
           "again %u engine %u logits %u (per 10,000); crashes %u freezes %u cancels %u drains %u "
           "router "
           "restarts %u; calm at %.1f s\n",
           s->loss, s->duplicate, s->reorder, s->corrupt, s->slow, s->late_puts, s->broken_puts,
           s->again, s->engine_fail, s->broken_logits, s->crashes, s->freezes, s->cancels,
           s->drains, s->router_restarts, (double)s->calm_ns / 1e9);
}

/* world.c - time, the queue, the dice. */
#include "tests/sim/world.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS_MAX 3000000u /* one run; more is a livelock */

uint64_t sim_mix(uint64_t a, uint64_t b)
{
    uint64_t x = a * 0x9e3779b97f4a7c15ull ^ (b + 0xd1b54a32d192ed03ull);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

uint64_t world_random(world *w, uint64_t below)
{
    assert(below > 0);
    w->rng += 0x9e3779b97f4a7c15ull;
    return sim_mix(w->rng, 1) % below;
}

bool world_chance(world *w, uint32_t per_10000)
{
    uint64_t dice = world_random(w, 10000);
    return w->now_ns < w->sc.calm_ns && dice < per_10000;
}

void world_fail(world *w, const char *fmt, ...)
{
    if (w->failed) return;
    w->failed = true;
    va_list args;
    va_start(args, fmt);
    vsnprintf(w->failure, sizeof(w->failure), fmt, args);
    va_end(args);
    world_trace(w, "FAILED: %s", w->failure);
}

void world_trace(world *w, const char *fmt, ...)
{
    if (!w->trace) return;
    printf("%10.3f ms  ", (double)w->now_ns / 1e6);
    va_list args;
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
}

static bool earlier(const sim_event *a, const sim_event *b)
{
    return a->time_ns != b->time_ns ? a->time_ns < b->time_ns : a->order < b->order;
}

static void heap_push(world *w, sim_event *event)
{
    if (w->heap_count == w->heap_capacity) {
        w->heap_capacity = w->heap_capacity ? w->heap_capacity * 2 : 1024;
        w->heap = realloc(w->heap, w->heap_capacity * sizeof(*w->heap));
        assert(w->heap != NULL);
    }
    uint32_t i = w->heap_count++;
    while (i > 0 && earlier(event, w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = event;
}

static sim_event *heap_pop(world *w)
{
    sim_event *top = w->heap[0], *last = w->heap[--w->heap_count];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= w->heap_count) break;
        if (child + 1 < w->heap_count && earlier(w->heap[child + 1], w->heap[child])) child++;
        if (!earlier(w->heap[child], last)) break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

sim_event *world_schedule(world *w, uint64_t delay_ns, event_kind kind, uint32_t a, uint32_t b)
{
    sim_event *event = calloc(1, sizeof(*event));
    assert(event != NULL);
    event->time_ns = w->now_ns + delay_ns;
    event->order = w->order++;
    event->kind = kind;
    event->a = a;
    event->b = b;
    heap_push(w, event);
    return event;
}

void world_init(world *w, uint64_t seed, bool trace)
{
    memset(w, 0, sizeof(*w));
    w->seed = seed;
    w->rng = sim_mix(seed, 0x5eed);
    w->trace = trace;
    w->next_incarnation = 100;
    w->router_wake_ns = UINT64_MAX;
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++) w->node_wake_ns[i] = UINT64_MAX;
    w->codec = bt_codec_init(aligned_alloc(64, (bt_codec_bytes() + 63) & ~(size_t)63));
    scenario_draw(w, seed);
    router_start(w);
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++) {
        sim_node *node = &w->nodes[i];
        node->world = w;
        node->index = i;
        node->role = i < SIM_PREFILL_MAX ? BT_ROLE_PREFILL : BT_ROLE_DECODE;
        bool exists =
            i < SIM_PREFILL_MAX ? i < w->sc.prefills : i - SIM_PREFILL_MAX < w->sc.decodes;
        if (exists) node_start(node);
    }
}

/* A core that waits for time is woken at its deadline; a wake that was overtaken by an earlier one
 * does nothing. */
static void schedule_wakes(world *w)
{
    uint64_t deadline = bt_router_core_next_deadline(w->router);
    if (deadline < w->router_wake_ns) {
        w->router_wake_ns = deadline > w->now_ns ? deadline : w->now_ns + 1;
        world_schedule(w, w->router_wake_ns - w->now_ns, EV_WAKE, SIM_ROUTER, 0);
    }
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++) {
        sim_node *node = &w->nodes[i];
        if (!node->up) continue;
        deadline = node->role == BT_ROLE_PREFILL ? bt_prefill_core_next_deadline(node->prefill)
                                                 : bt_decode_core_next_deadline(node->decode);
        if (deadline >= w->node_wake_ns[i]) continue;
        w->node_wake_ns[i] = deadline > w->now_ns ? deadline : w->now_ns + 1;
        world_schedule(w, w->node_wake_ns[i] - w->now_ns, EV_WAKE, i, 0);
    }
}

static bool all_ended(const world *w)
{
    for (uint32_t i = 0; i < w->sc.requests; i++) {
        const sim_request *request = &w->requests[i];
        if (!request->submitted || (!request->refused && request->endings == 0)) return false;
    }
    return true;
}

void world_run(world *w)
{
    uint64_t end_ns =
        0; /* when all requests have ended: time for leases and quarantines to run out */
    schedule_wakes(w);
    while (!w->failed && w->heap_count > 0) {
        sim_event *event = heap_pop(w);
        assert(event->time_ns >= w->now_ns);
        w->now_ns = event->time_ns;
        w->events++;
        w->event = event->kind;
        bool router =
            event->kind == EV_SUBMIT || event->kind == EV_CANCEL ||
            event->kind == EV_ROUTER_RESTART ||
            ((event->kind == EV_WAKE || event->kind == EV_FREEZE) && event->a == SIM_ROUTER) ||
            (event->kind == EV_MESSAGE && event->b == SIM_ROUTER);
        if (router)
            router_event(w, event);
        else
            node_event(w, event);
        free(event->data);
        free(event);
        check_after_event(w);
        schedule_wakes(w);
        if (end_ns == 0 && all_ended(w) && w->now_ns >= w->sc.calm_ns)
            end_ns = w->now_ns + 90 * SEC;
        if (end_ns != 0 && w->now_ns >= end_ns) break;
        if (w->events > EVENTS_MAX) world_fail(w, "H4: %u events and no end", EVENTS_MAX);
        if (w->now_ns > w->sc.calm_ns + 600 * SEC)
            world_fail(w, "H4: a request has not ended 600 s after the last fault");
    }
    if (!w->failed) check_final(w);
}

void world_free(world *w)
{
    for (uint32_t i = 0; i < w->heap_count; i++) {
        free(w->heap[i]->data);
        free(w->heap[i]);
    }
    free(w->heap);
    free(w->codec);
    free(w->router_memory);
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++) free(w->nodes[i].memory);
}

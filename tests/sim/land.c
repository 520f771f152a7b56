/* land.c - puts into landing arenas on virtual time: slow, late, torn by a crash, corrupted; and
 * unpacking.
 *
 * H1 is checked where the bytes arrive: a put may only hit a slot granted to its own fence, or a
 * quarantined one. */
#include "tests/sim/world.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* What travels: the KV words of one frame, as packed. */
typedef struct {
    bt_fence fence; /* slot, generation and both incarnations */
    bt_frame frame;
    uint64_t tag;
    bool broken; /* its completion is a failure */
    uint32_t value_count;
    uint64_t value[SIM_CELL_RUNS_MAX * BT_RUN_TOKENS];
} parcel;

typedef struct {
    bt_decode_unpack unpack;
    uint32_t blocks[SIM_TOKENS_MAX];
} unpack_job;

static void digest_of(const bt_frame *frame, const uint64_t *value, uint32_t count,
                      bt_kv_digest *ret_digest)
{
    *ret_digest = (bt_kv_digest){{0, 0}};
    for (uint32_t i = 0; i < count; i++) {
        uint64_t place = sim_mix(frame->layer, frame->run_first * BT_RUN_TOKENS + i);
        ret_digest->lane[0] += sim_mix(value[i], place);
        ret_digest->lane[1] += sim_mix(place, value[i]);
    }
}

static uint32_t frame_tokens(const bt_frame *frame)
{
    assert(frame->token_end > frame->run_first * BT_RUN_TOKENS);
    return frame->token_end - frame->run_first * BT_RUN_TOKENS;
}

bt_status land_put(sim_node *node, const bt_prefill_put *put, bt_kv_digest *ret_digest)
{
    world *w = node->world;
    sim_node *d = &w->nodes[put->peer];
    assert(node->peer[put->peer].up);
    assert(put->slot < SIM_SLOTS && put->frame.cell < SIM_CELLS &&
           put->frame.run_count <= w->sc.cell_runs);
    if (world_chance(w, w->sc.again)) {
        tally_corner(w, CORNER_AGAIN);
        return BT_AGAIN;
    }
    parcel *p = calloc(1, sizeof(*p));
    assert(p != NULL);
    p->fence = (bt_fence){.slot = put->slot,
                          .generation = put->generation,
                          .p_incarnation = node->incarnation,
                          .d_incarnation = node->peer[put->peer].incarnation};
    p->frame = put->frame;
    p->tag = put->tag;
    p->value_count = frame_tokens(&put->frame);
    for (uint32_t i = 0; i < p->value_count; i++)
        p->value[i] = *engine_value(node, put->blocks, put->frame.layer,
                                    put->frame.run_first * BT_RUN_TOKENS + i);
    digest_of(&put->frame, p->value, p->value_count, ret_digest);

    uint64_t delay = 20000 + world_random(w, 200000);
    if (world_chance(w, w->sc.late_puts)) delay += world_random(w, 3 * SEC);
    uint64_t told = delay + 10000 + world_random(w, 50000);
    p->broken = world_chance(w, w->sc.broken_puts);
    if (p->broken) delay += 10 * MS + world_random(w, 3 * SEC);
    sim_event *land = world_schedule(w, delay, EV_LAND, node->index, d->index);
    land->data = (uint8_t *)p;
    land->a_incarnation = node->incarnation;
    land->b_incarnation = p->fence.d_incarnation;
    sim_event *done = world_schedule(w, told, EV_PUT_DONE, node->index, d->index);
    done->broken = p->broken;
    done->epoch = node->peer[put->peer].epoch;
    done->slot = put->slot;
    done->arg = put->tag;
    done->a_incarnation = node->incarnation;
    done->b_incarnation = p->fence.d_incarnation;
    return BT_OK;
}

void land_arrive(world *w, const sim_event *event)
{
    const parcel *p = (const parcel *)event->data;
    sim_node *from = &w->nodes[event->a], *d = &w->nodes[event->b];
    if (!d->up || d->incarnation != event->b_incarnation) return; /* its arena died with it */
    bool sender_lives = from->up && from->incarnation == event->a_incarnation;
    uint32_t count = p->value_count;
    if (!sender_lives) { /* the process died while its copy ran: nothing or a part of it arrived
                            before the death */
        return;
    }
    if (from->frozen_until_ns >
        w->now_ns) { /* a stopped process copies nothing; the put lands when it goes on */
        sim_event *later =
            world_schedule(w, from->frozen_until_ns - w->now_ns, EV_LAND, event->a, event->b);
        later->data = malloc(sizeof(*p));
        assert(later->data != NULL);
        memcpy(later->data, p, sizeof(*p));
        later->a_incarnation = event->a_incarnation;
        later->b_incarnation = event->b_incarnation;
        return;
    }
    check_landing(w, d, p->fence.slot, &p->fence);
    if (p->broken) tally_corner(w, CORNER_PUT_FAILED);
    w->landed++;
    sim_cell *cell = &d->cells[p->fence.slot][p->frame.cell];
    memcpy(cell->value, p->value, count * sizeof(p->value[0]));
    if (world_chance(w, w->sc.corrupt)) {
        cell->value[world_random(w, count)] ^= 1ull << world_random(w, 64);
        world_trace(w, "   a bit flips in slot %u cell %u of node %u", p->fence.slot, p->frame.cell,
                    d->index);
    }
}

void land_done(world *w, const sim_event *event)
{
    sim_node *node = &w->nodes[event->a];
    if (!node->up || node->incarnation != event->a_incarnation) return;
    if (node->frozen_until_ns > w->now_ns) {
        sim_event *later = world_schedule(w, node->frozen_until_ns - w->now_ns + 1, EV_PUT_DONE,
                                          event->a, event->b);
        later->arg = event->arg;
        later->broken = event->broken;
        later->epoch = event->epoch;
        later->slot = event->slot;
        later->a_incarnation = event->a_incarnation;
        later->b_incarnation = event->b_incarnation;
        return;
    }
    const sim_node *d = &w->nodes[event->b];
    bool alive = d->up && d->incarnation == event->b_incarnation;
    /* An endpoint that was torn down meanwhile reports failures, whatever became of the bytes. */
    bool ok = alive && !event->broken && node->peer[event->b].up &&
              node->peer[event->b].epoch == event->epoch;
    if (alive && !ok) w->doubt[d->index][event->slot] = node->incarnation;
    bt_prefill_core_put_done(node->prefill, event->arg, ok ? BT_OK : BT_ERR_PEER_LOST, w->now_ns);
}

void land_unpack(sim_node *node, const bt_decode_unpack *unpack)
{
    world *w = node->world;
    unpack_job *job = calloc(1, sizeof(*job));
    assert(job != NULL);
    job->unpack = *unpack;
    uint32_t blocks =
        (unpack->frame.token_end + node_block_tokens(node) - 1) / node_block_tokens(node);
    memcpy(job->blocks, unpack->blocks, blocks * sizeof(uint32_t));
    sim_event *event = world_schedule(w, 10000 + world_random(w, 60000), EV_UNPACK, node->index, 0);
    event->data = (uint8_t *)job;
    event->a_incarnation = node->incarnation;
}

void land_unpacked(world *w, const sim_event *event)
{
    sim_node *node = &w->nodes[event->a];
    const unpack_job *job = (const unpack_job *)event->data;
    const bt_frame *frame = &job->unpack.frame;
    const sim_cell *cell = &node->cells[job->unpack.slot][frame->cell];
    uint32_t count = frame_tokens(frame);
    for (uint32_t i = 0; i < count; i++)
        *engine_value(node, job->blocks, frame->layer, frame->run_first * BT_RUN_TOKENS + i) =
            cell->value[i];
    bt_kv_digest digest;
    digest_of(frame, cell->value, count, &digest);
    bt_decode_core_unpack_done(node->decode, job->unpack.tag, &digest, w->now_ns);
}

/* net.c - messages between nodes: through the real codec, over links that are ordered until a fault
 * says otherwise. */
#include "tests/sim/world.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void deliver(world *w, uint32_t from, uint32_t to, bool ucx, bt_msg_kind kind,
                    const uint8_t *data, size_t bytes)
{
    uint64_t delay = 20000 + world_random(w, ucx ? 50000 : 200000);
    if (world_chance(w, w->sc.slow)) {
        delay += world_random(w, 1500 * MS);
        tally_message(w, kind, FAULT_SLOW);
    }
    uint64_t *link = &w->link_clock_ns[from][to][ucx];
    uint64_t time = w->now_ns + delay;
    if (!world_chance(w, w->sc.reorder)) { /* not before what was sent earlier on this link */
        if (time <= *link) time = *link + 1;
        *link = time;
    } else { /* overtakes what is on its way, or is overtaken by what follows */
        if (world_random(w, 2)) time += world_random(w, 20 * MS);
        tally_message(w, kind, FAULT_REORDERED);
    }
    sim_event *event = world_schedule(w, time - w->now_ns, EV_MESSAGE, from, to);
    event->ucx = ucx;
    event->data = malloc(bytes);
    assert(event->data != NULL);
    memcpy(event->data, data, bytes);
    event->bytes = (uint32_t)bytes;
    event->msg_kind = kind;
    event->a_incarnation = from == SIM_ROUTER ? w->router_incarnation : w->nodes[from].incarnation;
    event->sent_to = to == SIM_ROUTER ? w->router_incarnation : w->nodes[to].incarnation;
    /* A UCX message reaches the endpoint's incarnation or nobody; a ZeroMQ message may meet a
     * successor. */
    event->b_incarnation = ucx ? w->nodes[to].incarnation : 0;
}

void net_send(world *w, uint32_t from, uint32_t to, bool ucx, const bt_msg *msg)
{
    static uint8_t buffer[SIM_MESSAGE_MAX];
    size_t bytes = 0;
    bt_err err;
    if (bt_codec_encode(msg, buffer, sizeof(buffer), &bytes, &err) != BT_OK) {
        world_fail(w, "node %u sent a %s that does not encode: %s", from, bt_msg_name(msg->kind),
                   err.message);
        return;
    }
    check_sent(w, from, to, msg);
    tally_sent(w, from, to, msg);
    if (msg->kind != BT_MSG_HEARTBEAT)
        world_trace(w, "%u -> %u %s %s  request %02x attempt %u slot %u gen %u", from, to,
                    ucx ? "ucx" : "zmq", bt_msg_name(msg->kind), msg->fence.request.bytes[0],
                    msg->fence.attempt, msg->fence.slot, msg->fence.generation);
    if (world_chance(w, w->sc.loss)) {
        tally_message(w, msg->kind, FAULT_LOST);
        world_trace(w, "   … lost");
        return;
    }
    deliver(w, from, to, ucx, msg->kind, buffer, bytes);
    if (!world_chance(w, w->sc.duplicate)) return;
    tally_message(w, msg->kind, FAULT_DOUBLED);
    deliver(w, from, to, ucx, msg->kind, buffer, bytes);
}

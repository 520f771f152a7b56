/* decode.cu - D: opens each Sealed, unpacks and compares where the row asks for it, gives the credit back. */
#include "tests/gpu/handoff/side.h"

#include <cstring>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace
{

struct decode final : side {
    uint32_t row = 0;
    bool pool_open = false;
    struct {
        bt_frame frame;
        bt_kv_digest digest;
        bool busy;
        uint32_t value;
    } cells[PIECES] = {};
    bt_loop_timer *timer = nullptr;

    void prepare()
    {
        row = page->row;
        awake = page->awake;
        engine->bell = awake ? nullptr : wake;
        if (pool_open) engine->pool_close();
        pool_open = page->verify;
        if (pool_open) engine->pool_open(page->wire, false);
        for (auto &cell : cells) cell = {};
        engine->reset();
    }

    void on_message(const bt_msg &msg) override
    {
        uint64_t now_ns = bt_loop_now_ns();
        must(msg.kind == BT_MSG_SEALED, "a Sealed");
        const bt_frame &frame = msg.sealed.frame;
        must(frame.frame < FRAMES_MAX && frame.cell < PIECES, "its frame");
        page->sealed_ns[frame.frame] = now_ns;
        if (awake) bt_loop_keep_awake(loop, now_ns + AWAKE_NS);
        if (!page->verify) {
            send(BT_MSG_CREDIT, frame, {});
            return;
        }
        auto &cell = cells[frame.cell];
        must(!cell.busy, "the cell being free");
        cell.frame = frame;
        cell.digest = msg.sealed.digest;
        cell.busy = true;
        cell.value++;
        engine->frame({false, frame, page->wire, arena + frame.cell * PIECE_BYTES, frame.cell,
                       cell.value, false});
    }

    void on_put(uint64_t, bt_status) override
    {
    }

    void turn() override
    {
        for (uint32_t i = 0; i < PIECES; i++) {
            auto &cell = cells[i];
            if (!cell.busy || engine->read(slot_of_piece(i)) != cell.value) continue;
            bt_kv_digest digest = engine->digest(i);
            if (memcmp(&digest, &cell.digest, sizeof(digest)) != 0) page->wrong++;
            cell.busy = false;
            send(BT_MSG_CREDIT, cell.frame, {});
        }
    }
};

/* P asks by a byte: 'r' prepare for the row, 's' sum the arena, 'e' end. The answer is the same byte. */
void on_timer(void *arg)
{
    decode *d = (decode *)arg;
    char byte;
    while (recv(d->socket, &byte, 1, MSG_DONTWAIT) == 1) {
        if (byte == 'r') d->prepare();
        if (byte == 's') d->page->sum = d->engine->sum(d->arena, SET_BYTES);
        must(send(d->socket, &byte, 1, MSG_NOSIGNAL) == 1, "answering");
        if (byte != 'e') continue;
        bt_loop_timer_close(d->timer);
        bt_loop_stop(d->loop);
    }
}

} // namespace

void run_decode(const options &o, int socket, shared_page *page)
{
    decode d;
    d.role = BT_ROLE_DECODE;
    d.socket = socket;
    d.page = page;
    d.open(o);
    bt_err err;
    must_ok(bt_loop_timer_open(d.loop, 1, 1, on_timer, &d, &d.timer, &err), &err, "timer");
    bt_loop_run(d.loop);
    if (d.pool_open) d.engine->pool_close();
    d.close();
}

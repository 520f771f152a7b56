/* death.cu - what happens to the one when the other is killed in the middle of puts, which CUDA does not say.
 *
 * P dies: rule H1 leans on it that nothing of a process is written any more once the kernel says that it is gone, though copies were
 * under way on the GPU. P puts two patterns in turn without an end; D kills it, waits for its pidfd, and the sum of the arena may then
 * not change.
 *
 * D dies: P's copies go into memory whose owner is gone. Puts may end well or fail, but P's GPU context must go on working: else one
 * dead decode daemon would take every prefill daemon with it. */
#include "tests/gpu/handoff/side.h"

#include <csignal>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace
{

constexpr size_t PUT_BYTES = 64 * MIB;
constexpr uint32_t IN_FLIGHT = 16;
constexpr uint64_t DONE_BEFORE_KILL = 64;
constexpr uint64_t LATE_US = 50000;
constexpr uint64_t WIDOW_NS = 500000000;

struct mute final : side {
    void on_message(const bt_msg &) override
    {
    }
    void on_put(uint64_t, bt_status status) override
    {
        if (status != BT_OK) page->puts_failed++;
        __atomic_add_fetch(&page->puts_done, 1, __ATOMIC_RELAXED);
    }
    void turn() override
    {
    }
};

} // namespace

static void put_until(mute *p, bool (*ends)(mute *p, bt_status status))
{
    p->engine->fill(p->staging, PUT_BYTES, 1);
    p->engine->fill(p->staging + PUT_BYTES, PUT_BYTES, 2);
    for (;;) {
        bt_err err;
        uint64_t begun = p->page->puts_begun;
        size_t offset = begun / 2 % (SET_BYTES / PUT_BYTES) * PUT_BYTES;
        bt_status status =
            bt_xfer_put(p->peer, p->staging + begun % 2 * PUT_BYTES, PUT_BYTES, offset, 0, &err);
        if (status == BT_OK) p->page->puts_begun++;
        do {
            bt_xfer_progress(p->xfer);
        } while (p->page->puts_begun - p->page->puts_done >= IN_FLIGHT);
        if (ends(p, status)) return;
    }
}

static void open_as(mute *m, bt_role role, const options &o, int socket, shared_page *page)
{
    m->role = role;
    m->socket = socket;
    m->page = page;
    m->open(o);
}

void run_doomed_prefill(const options &o, int socket, shared_page *page)
{
    static mute p;
    open_as(&p, BT_ROLE_PREFILL, o, socket, page);
    put_until(&p, [](mute *, bt_status status) {
        must(status == BT_OK, "put");
        return false;
    });
}

void run_doomed_decode(const options &o, int socket, shared_page *page)
{
    static mute d;
    open_as(&d, BT_ROLE_DECODE, o, socket, page);
    for (;;) bt_xfer_progress(d.xfer);
}

static int kill_other(shared_page *page)
{
    int process = (int)syscall(SYS_pidfd_open, page->doomed, 0);
    must(process >= 0 && kill(page->doomed, SIGKILL) == 0, "killing the other");
    return process;
}

void run_widow(const options &o, int socket, shared_page *page)
{
    static mute p;
    static uint64_t killed_ns;
    open_as(&p, BT_ROLE_PREFILL, o, socket, page);
    put_until(&p, [](mute *m, bt_status status) {
        shared_page *page = m->page;
        if (killed_ns == 0 && page->puts_done >= DONE_BEFORE_KILL) {
            close(kill_other(page));
            killed_ns = bt_loop_now_ns();
            page->in_flight = (uint32_t)(page->puts_begun - page->puts_done);
            page->puts_at_death = page->puts_done;
        }
        return killed_ns != 0 && (status != BT_OK || bt_loop_now_ns() - killed_ns > WIDOW_NS);
    });
    /* Each of these waits for the GPU, and ends the process with CUDA's words if the context is broken. */
    uint64_t before = p.engine->sum(p.staging, 2 * PUT_BYTES);
    p.engine->fill(p.staging, PUT_BYTES, 3);
    page->changed = p.engine->sum(p.staging, 2 * PUT_BYTES) == before;
    p.engine->reset();
}

void run_mourner(const options &o, int socket, shared_page *page)
{
    static mute d;
    open_as(&d, BT_ROLE_DECODE, o, socket, page);
    while (__atomic_load_n(&page->puts_done, __ATOMIC_RELAXED) < DONE_BEFORE_KILL)
        bt_xfer_progress(d.xfer);
    int process = kill_other(page);
    struct pollfd gone = {process, POLLIN, 0};
    must(poll(&gone, 1, 10000) == 1, "P's death");
    uint64_t at_once = d.engine->sum(d.arena, SET_BYTES);
    usleep(LATE_US);
    page->changed = d.engine->sum(d.arena, SET_BYTES) != at_once;
    page->in_flight = (uint32_t)(page->puts_begun - page->puts_done);
}

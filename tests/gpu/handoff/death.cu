/* death.cu - rule H1 leans on this: once the kernel says that P's process is gone, nothing of it is written any more, though copies
 * were under way on the GPU when it was killed. P puts two patterns in turn without an end; D kills it, waits for its pidfd, and the
 * sum of the arena may then not change. */
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

struct mute final : side {
    void on_message(const bt_msg &) override
    {
    }
    void on_put(uint64_t, bt_status status) override
    {
        must(status == BT_OK, "a put");
        __atomic_add_fetch(&page->puts_done, 1, __ATOMIC_RELAXED);
    }
    void turn() override
    {
    }
};

} // namespace

void run_doomed(const options &o, int socket, shared_page *page)
{
    mute p;
    p.role = BT_ROLE_PREFILL;
    p.socket = socket;
    p.page = page;
    p.open(o);
    p.engine->fill(p.staging, PUT_BYTES, 1);
    p.engine->fill(p.staging + PUT_BYTES, PUT_BYTES, 2);
    for (uint64_t begun = 0;; begun++) {
        bt_err err;
        size_t offset = begun / 2 % (SET_BYTES / PUT_BYTES) * PUT_BYTES;
        must_ok(bt_xfer_put(p.peer, p.staging + begun % 2 * PUT_BYTES, PUT_BYTES, offset, 0, &err),
                &err, "put");
        page->puts_begun = begun + 1;
        while (begun + 1 - page->puts_done >= IN_FLIGHT) bt_xfer_progress(p.xfer);
    }
}

void run_mourner(const options &o, int socket, shared_page *page)
{
    static mute d;
    d.role = BT_ROLE_DECODE;
    d.socket = socket;
    d.page = page;
    d.open(o);
    while (__atomic_load_n(&page->puts_done, __ATOMIC_RELAXED) < DONE_BEFORE_KILL)
        bt_xfer_progress(d.xfer);
    int process = (int)syscall(SYS_pidfd_open, page->doomed, 0);
    must(process >= 0 && kill(page->doomed, SIGKILL) == 0, "killing P");
    struct pollfd gone = {process, POLLIN, 0};
    must(poll(&gone, 1, 10000) == 1, "P's death");
    uint64_t at_once = d.engine->sum(d.arena, SET_BYTES);
    usleep(LATE_US);
    page->changed = d.engine->sum(d.arena, SET_BYTES) != at_once;
    page->in_flight = (uint32_t)(page->puts_begun - page->puts_done);
}

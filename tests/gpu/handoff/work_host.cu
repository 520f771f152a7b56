/* work_host.cu - the same on the CPU: two threads for the two queues, spinning layers, the CPU's pack and unpack. */
#include "tests/gpu/handoff/work.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace
{

/* A stream: what is put into it is done in order by a thread of its own. */
class queue
{
  public:
    queue() : thread([this] { run(); })
    {
    }
    ~queue()
    {
        put([this] { ending = true; });
        thread.join();
    }
    void put(std::function<void()> job)
    {
        std::lock_guard<std::mutex> lock(mutex);
        jobs.push_back(std::move(job));
        added++;
        changed.notify_all();
    }
    /* What was put so far. */
    uint64_t count()
    {
        std::lock_guard<std::mutex> lock(mutex);
        return added;
    }
    void wait(uint64_t jobs_done)
    {
        std::unique_lock<std::mutex> lock(mutex);
        changed.wait(lock, [&] { return done >= jobs_done; });
    }

  private:
    void run()
    {
        while (!ending) {
            std::unique_lock<std::mutex> lock(mutex);
            changed.wait(lock, [&] { return !jobs.empty(); });
            std::function<void()> job = std::move(jobs.front());
            jobs.pop_front();
            lock.unlock();
            job();
            lock.lock();
            done++;
            changed.notify_all();
        }
    }
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::function<void()>> jobs;
    uint64_t added = 0, done = 0;
    bool ending = false;
    std::thread thread; /* last: it uses the others */
};

struct work_host final : work {
    uint8_t key[BT_KEY_BYTES];
    bt_kv_view kv = {};
    std::vector<uint32_t> blocks;
    std::atomic<uint32_t> slots[1 + PIECES] = {};
    bt_kv_digest digests[PIECES] = {};
    uint64_t ends[LAYERS] = {};
    queue compute, pack;

    explicit work_host(const uint8_t key_bytes[BT_KEY_BYTES])
    {
        memcpy(key, key_bytes, sizeof(key));
    }

    void fill(uint8_t *bytes, size_t count, uint32_t seed) override
    {
        for (size_t i = 0; i < count; i++) bytes[i] = (uint8_t)((i * 2654435761u + seed) >> 16);
    }

    uint64_t sum(const uint8_t *bytes, size_t count) override
    {
        uint64_t sum = 0;
        const uint32_t *words = (const uint32_t *)bytes;
        for (size_t i = 0; i < count / 4; i++) sum += words[i] * (2 * i + 1);
        return sum;
    }

    void pool_open(bt_dtype dtype, bool random) override
    {
        kv.shape = {dtype, LAYERS, HEADS, HEAD_DIM, BLOCK_TOKENS, TOKENS_MAX / BLOCK_TOKENS};
        size_t bytes = bt_kv_pool_bytes(&kv.shape);
        kv.base = (uint8_t *)aligned_alloc(64, bytes);
        must(kv.base != nullptr, "memory for a pool");
        memset(kv.base, random ? 0x3f : 0xff, bytes);
        for (size_t i = 0; random && i < bytes; i += 61) kv.base[i] = (uint8_t)(i >> 3) & 0x3f;
        blocks.resize(kv.shape.pool_blocks);
        for (uint32_t i = 0; i < blocks.size(); i++) blocks[i] = i;
        for (uint32_t i = (uint32_t)blocks.size(); i > 1; i--)
            std::swap(blocks[i - 1], blocks[(i * 2654435761u) % i]);
    }

    void pool_close() override
    {
        reset();
        free(kv.base);
        kv.base = nullptr;
    }

    void raise(uint32_t slot, uint32_t value)
    {
        slots[slot].store(value, std::memory_order_release);
        if (bell) bt_loop_wake_send(bell);
    }

    void layer(uint64_t ns, uint32_t layer) override
    {
        compute.put([=] {
            uint64_t start_ns = bt_loop_now_ns();
            while (bt_loop_now_ns() - start_ns < ns) std::this_thread::yield();
            ends[layer] = bt_loop_now_ns();
            raise(SLOT_LAYERS, layer + 1);
        });
    }

    void frame(const frame_job &job) override
    {
        uint64_t layers_before = job.after_layers ? compute.count() : 0;
        pack.put([=] {
            compute.wait(layers_before);
            bt_wire_shape wire = {job.wire, HEAD_DIM};
            if (job.pack)
                bt_wire_pack(&kv, &wire, &job.frame, blocks.data(), key, job.records,
                             &digests[job.piece]);
            else
                bt_wire_unpack(&kv, &wire, &job.frame, blocks.data(), key, job.records,
                               &digests[job.piece]);
            raise(slot_of_piece(job.piece), job.value);
        });
    }

    uint64_t layer_ended_ns(uint32_t layer) override
    {
        return ends[layer];
    }

    uint32_t read(uint32_t slot) override
    {
        return slots[slot].load(std::memory_order_acquire);
    }

    bt_kv_digest digest(uint32_t piece) override
    {
        return digests[piece];
    }

    void reset() override
    {
        compute.wait(compute.count());
        pack.wait(pack.count());
        for (std::atomic<uint32_t> &slot : slots) slot = 0;
    }

    double copy_rate() override
    {
        std::vector<uint8_t> a(256 * MIB, 1), b(256 * MIB, 2);
        uint64_t start_ns = bt_loop_now_ns();
        memcpy(a.data(), b.data(), a.size());
        return 2.0 * (double)a.size() / (double)(bt_loop_now_ns() - start_ns) * 1e9;
    }

    const char *name() override
    {
        return "this CPU";
    }
};

} // namespace

work *work_host_open(const uint8_t key[BT_KEY_BYTES])
{
    return new work_host(key);
}

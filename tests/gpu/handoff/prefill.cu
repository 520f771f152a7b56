/* prefill.cu - P: layers become frames, frames become puts, puts become Sealed; and the table of how long that took. */
#include "tests/gpu/handoff/side.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <sys/socket.h>
#include <thread>

namespace
{

/* The time of a layer is that of a good prefill of the 8B shape on an H100 in bf16. */
struct prompt {
    uint32_t tokens;
    uint64_t layer_ns;
};
constexpr prompt PROMPTS[] = {{512, 400000}, {2048, 1500000}, {8192, 6200000}};
constexpr uint32_t CREDITS = 4; /* landing cells of a request, as the daemons' default */

struct row {
    /* Frames of a prompt … */
    uint32_t tokens = 0, layers = LAYERS;
    uint64_t layer_ns = 0;
    bt_dtype wire = BT_DTYPE_BF16;
    bool full = false;  /* layers fill the card */
    bool ahead = false; /* packs are queued with their layer; else when the layer was noticed */
    /* … or plain puts of so many bytes, all over staging and arena. */
    size_t put_bytes = 0;
    uint32_t put_count = 0;

    uint32_t credits = CREDITS;
    bool awake = true, d_awake = true, verify = true;
};

struct times {
    uint64_t layer_ns, noticed_ns, packed_ns, put_ns, sealed_ns, credit_ns;
};

enum piece_state { FREE, PACKING, PUTTING, LANDED };

struct prefill final : side {
    row now;
    bt_wire_shape wire;
    uint32_t frames_per_layer, runs_per_frame, runs, total;
    uint32_t begun, finished, in_flight, layers_seen;
    struct {
        piece_state state;
        uint32_t frame, value;
    } pieces[PIECES];
    uint32_t piece_of[FRAMES_MAX], frame_of[PIECES];
    times log[FRAMES_MAX];
    uint64_t started_ns;

    void ask(char byte)
    {
        must(::send(socket, &byte, 1, MSG_NOSIGNAL) == 1, "asking D");
        must(recv(socket, &byte, 1, MSG_WAITALL) == 1, "D's answer");
    }

    size_t frame_bytes(const bt_frame &frame) const
    {
        return now.put_bytes ? now.put_bytes
                             : bt_wire_frame_bytes(&wire, frame.run_count, frame.head_count);
    }

    bt_frame frame_at(uint32_t index) const
    {
        bt_frame frame = {};
        frame.frame = index;
        frame.head_count = frame.run_count = frame.token_end = 1;
        frame.cell = now.put_bytes ? index % PIECES : piece_of[index];
        if (now.put_bytes) return frame;
        frame.layer = index / frames_per_layer;
        frame.run_first = index % frames_per_layer * runs_per_frame;
        frame.run_count = std::min(runs_per_frame, runs - frame.run_first);
        frame.head_count = HEADS;
        frame.token_end = std::min(now.tokens, (frame.run_first + frame.run_count) * BT_RUN_TOKENS);
        return frame;
    }

    size_t offset_of(const bt_frame &frame) const
    {
        if (!now.put_bytes) return (size_t)frame.cell * PIECE_BYTES;
        return frame.frame * now.put_bytes % (SET_BYTES - now.put_bytes + 1);
    }

    void put(uint32_t index)
    {
        bt_frame frame = frame_at(index);
        size_t offset = offset_of(frame);
        bt_err err;
        must_ok(bt_xfer_put(peer, staging + offset, frame_bytes(frame), offset, index, &err), &err,
                "put");
    }

    frame_job job_of(uint32_t index)
    {
        uint32_t piece = piece_of[index];
        return {true,  frame_at(index),     now.wire, staging + (size_t)piece * PIECE_BYTES,
                piece, pieces[piece].value, now.ahead};
    }

    void begin_frame(uint32_t index)
    {
        in_flight++;
        if (now.put_bytes) {
            frame_of[index % PIECES] = index; /* they come back in order */
            put(index);
            return;
        }
        uint32_t piece = 0;
        while (pieces[piece].state != FREE) piece++;
        pieces[piece].state = PACKING;
        pieces[piece].frame = index;
        pieces[piece].value++;
        piece_of[index] = piece;
        frame_of[piece] = index;
        if (!now.ahead) engine->frame(job_of(index));
    }

    void pump()
    {
        while (begun < total && in_flight < now.credits &&
               (now.put_bytes || begun / frames_per_layer < layers_seen || now.ahead))
            begin_frame(begun++);
    }

    void turn() override
    {
        if (finished == total) return;
        uint32_t layers = now.put_bytes ? 0 : engine->read(SLOT_LAYERS);
        if (layers > layers_seen) {
            uint64_t now_ns = bt_loop_now_ns();
            for (uint32_t f = layers_seen * frames_per_layer; f < layers * frames_per_layer; f++)
                log[f].noticed_ns = now_ns;
            layers_seen = layers;
        }
        pump();
        for (uint32_t i = 0; i < PIECES; i++) {
            if (pieces[i].state != PACKING || engine->read(slot_of_piece(i)) != pieces[i].value)
                continue;
            pieces[i].state = PUTTING;
            log[pieces[i].frame].packed_ns = bt_loop_now_ns();
            put(pieces[i].frame);
        }
    }

    void on_put(uint64_t tag, bt_status status) override
    {
        must(status == BT_OK, "a put");
        uint32_t index = (uint32_t)tag;
        log[index].put_ns = bt_loop_now_ns();
        bt_kv_digest digest = {};
        if (!now.put_bytes) digest = engine->digest(piece_of[index]);
        send(BT_MSG_SEALED, frame_at(index), digest);
    }

    void on_message(const bt_msg &msg) override
    {
        must(msg.kind == BT_MSG_CREDIT && msg.credit.cell < PIECES, "a Credit");
        uint32_t index = frame_of[msg.credit.cell];
        log[index].credit_ns = bt_loop_now_ns();
        if (!now.put_bytes) pieces[piece_of[index]].state = FREE;
        in_flight--;
        if (++finished == total) {
            bt_loop_stop(loop);
            return;
        }
        pump();
    }

    /* D learns of a row once; run may follow often. */
    void prepare(const row &r)
    {
        now = r;
        wire = {r.wire, HEAD_DIM};
        page->row++;
        page->awake = r.d_awake;
        page->verify = r.verify && !r.put_bytes;
        page->wire = r.wire;
        ask('r');
        runs = (r.tokens + BT_RUN_TOKENS - 1) / BT_RUN_TOKENS;
        runs_per_frame = bt_wire_runs_per_cell(&wire, HEADS, PIECE_BYTES);
        frames_per_layer = r.put_bytes ? 1 : (runs + runs_per_frame - 1) / runs_per_frame;
        runs_per_frame = r.put_bytes ? 0 : (runs + frames_per_layer - 1) / frames_per_layer;
        total = r.put_bytes ? r.put_count : r.layers * frames_per_layer;
        must(total <= FRAMES_MAX && (!r.ahead || total <= std::min(r.credits, (uint32_t)PIECES)),
             "the row's size");
    }

    void launch()
    {
        for (uint32_t layer = 0; !now.put_bytes && layer < now.layers; layer++) {
            engine->layer(now.layer_ns, layer);
            for (uint32_t f = 0; now.ahead && f < frames_per_layer; f++)
                engine->frame(job_of(layer * frames_per_layer + f));
        }
    }

    void run()
    {
        begun = finished = in_flight = layers_seen = 0;
        for (auto &piece : pieces) piece = {};
        memset(log, 0, sizeof(log));
        engine->bell = nullptr;
        engine->reset();
        engine->bell = now.awake ? nullptr : wake;
        bt_loop_keep_awake(loop, now.awake ? UINT64_MAX : 0);
        if (now.ahead) pump();
        started_ns = bt_loop_now_ns();
        engine->full = now.full;
        /* One layer needs no thread, whose stack UCX would have to look at. */
        std::thread launcher;
        if (now.layers > 1)
            launcher = std::thread([this] { launch(); });
        else
            launch();
        if (now.put_bytes) pump();
        bt_loop_run(loop);
        if (now.layers > 1) launcher.join();
        for (uint32_t i = 0; i < total; i++) {
            log[i].layer_ns =
                now.put_bytes ? started_ns : engine->layer_ended_ns(i / frames_per_layer);
            log[i].sealed_ns = page->sealed_ns[i];
        }
    }

    uint64_t last_sealed_ns() const
    {
        uint64_t last_ns = 0;
        for (uint32_t i = 0; i < total; i++) last_ns = std::max(last_ns, log[i].sealed_ns);
        return last_ns;
    }
};

/* ---- rows ---- */

unsigned met, missed, passed, failed;

double quantile(std::vector<double> values, double q)
{
    std::sort(values.begin(), values.end());
    return values[(size_t)(q * (double)(values.size() - 1))];
}

const char *verdict(bool holds)
{
    (holds ? met : missed)++;
    return holds ? "met" : "MISSED";
}

void expect(const char *what, bool holds)
{
    (holds ? passed : failed)++;
    printf("%-4s handoff            %s\n", holds ? "ok" : "FAIL", what);
    fflush(stdout);
}

std::string size_text(size_t bytes)
{
    return bytes >= MIB ? std::to_string(bytes / MIB) + " MiB"
                        : std::to_string(bytes / 1024) + " KiB";
}

void row_rate(const std::string &what, double bytes_per_s, double most, double target)
{
    double percent = 100 * bytes_per_s / most;
    printf("%-18s %-62s %9.1f GB/s  %5.1f %% of half the copy rate", "handoff", what.c_str(),
           bytes_per_s * 1e-9, percent);
    if (target > 0) printf("  target %.0f %s", target, verdict(percent >= target));
    printf("\n");
    fflush(stdout);
}

/* Frames of plain bytes, each with its Sealed and its Credit. */
void bench_puts(prefill &p, double half_copy_rate)
{
    for (size_t bytes : {MIB, 4 * MIB, 16 * MIB, 32 * MIB, 64 * MIB}) {
        for (uint32_t credits : {1u, 4u}) {
            row r;
            r.put_bytes = bytes;
            r.put_count = (uint32_t)std::min((size_t)FRAMES_MAX, 4 * SET_BYTES / bytes);
            r.credits = credits;
            p.prepare(r);
            std::vector<double> rates;
            for (int i = 0; i < 4; i++) {
                p.run();
                double seconds = (double)(p.last_sealed_ns() - p.started_ns) * 1e-9;
                if (i > 0) rates.push_back((double)r.put_count * (double)bytes / seconds);
            }
            row_rate("put + Sealed, " + size_text(bytes) + ", " + std::to_string(credits) +
                         " in flight, set " + size_text(SET_BYTES),
                     quantile(rates, 0.5), half_copy_rate,
                     bytes == 16 * MIB && credits == 4 ? 80 : 0);
        }
    }
}

struct way {
    const char *what;
    bool awake, d_awake, ahead, verify, full;
    double bound;
};

/* The frame of layer `at` of so many, again and again. */
void latency_row(prefill &p, const way &way, uint32_t tokens, uint32_t layers, uint32_t at)
{
    row r;
    r.tokens = tokens;
    r.layers = layers;
    r.layer_ns = 200000;
    r.awake = way.awake;
    r.d_awake = way.d_awake;
    r.ahead = way.ahead;
    r.verify = way.verify;
    r.full = way.full;
    p.prepare(r);
    std::vector<double> noticed, packed, put, sealed;
    for (int i = 0; i < 220; i++) {
        p.run();
        if (i < 20) continue;
        const times &t = p.log[at];
        auto since_us = [&](uint64_t ns) { return (double)(int64_t)(ns - t.layer_ns) * 1e-3; };
        noticed.push_back(since_us(t.noticed_ns));
        packed.push_back(since_us(t.packed_ns));
        put.push_back(since_us(t.put_ns));
        sealed.push_back(since_us(t.sealed_ns));
    }
    double us = quantile(sealed, 0.5);
    printf("%-18s frame of %7s, layer's end to Sealed: %-44s p50 %7.1f us, p99 %7.1f; noticed "
           "%5.1f packed %5.1f flushed %5.1f",
           "handoff", size_text(p.frame_bytes(p.frame_at(0))).c_str(), way.what, us,
           quantile(sealed, 0.99), quantile(noticed, 0.5), quantile(packed, 0.5),
           quantile(put, 0.5));
    if (way.bound > 0) printf("  at most %.0f us: %s", way.bound, verdict(us <= way.bound));
    printf("\n");
    fflush(stdout);
}

void bench_latency(prefill &p)
{
    static const way ways[] = {
        {"awake, packed with its layer", true, true, true, false, false, 60},
        {"awake, packed when noticed", true, true, false, false, false, 60},
        {"awake, packed when noticed, D unpacks", true, true, false, true, false, 0},
        {"P awake, D asleep", true, false, false, false, false, 0},
        {"both asleep", false, false, false, false, false, 0}};
    for (const way &way : ways) latency_row(p, way, 256, 1, 0);
    const way larger = {"awake, packed when noticed", true, true, false, false, false, 0};
    latency_row(p, larger, 1024, 1, 0);
    const way full = {"awake, while layers fill the card", true, true, false, false, true, 0};
    latency_row(p, full, 256, 4, 1);
    const way full_ahead = {"the same, packed with its layer", true, true, true, false, true, 0};
    latency_row(p, full_ahead, 256, 4, 1);
}

void bench_prompts(prefill &p, double half_copy_rate)
{
    for (bool verify : {false, true}) {
        for (bt_dtype wire : {BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3}) {
            for (const prompt &prompt : PROMPTS) {
                row r;
                r.tokens = prompt.tokens;
                r.layer_ns = prompt.layer_ns;
                r.wire = wire;
                r.verify = verify;
                p.prepare(r);
                std::vector<double> sealed, first;
                for (int i = 0; i < 4; i++) {
                    p.run();
                    if (i == 0) continue;
                    sealed.push_back(
                        (double)(int64_t)(p.last_sealed_ns() - p.log[p.total - 1].layer_ns) * 1e-3);
                    first.push_back((double)(int64_t)(p.log[p.total / 2].sealed_ns -
                                                      p.log[p.total / 2].layer_ns) *
                                    1e-3);
                }
                printf("%-18s %5u tokens, wire %-8s %2u frames of %7s a layer, %s: last layer to "
                       "last Sealed %8.1f us (a middle frame %8.1f)\n",
                       "handoff", r.tokens, bt_dtype_name(wire), p.frames_per_layer,
                       size_text(p.frame_bytes(p.frame_at(0))).c_str(),
                       verify ? "D unpacks  " : "D takes all", quantile(sealed, 0.5),
                       quantile(first, 0.5));
                fflush(stdout);
            }
            row r;
            r.tokens = TOKENS_MAX;
            r.wire = wire;
            r.verify = verify;
            p.prepare(r);
            p.run();
            p.run();
            double bytes = 0;
            for (uint32_t i = 0; i < p.total; i++) bytes += (double)p.frame_bytes(p.frame_at(i));
            row_rate(std::string("pack + put + Sealed") + (verify ? " + unpack" : "") +
                         ", bf16 to " + bt_dtype_name(wire) + ", 8192 tokens, 4 cells",
                     bytes / ((double)(p.last_sealed_ns() - p.started_ns) * 1e-9), half_copy_rate,
                     0);
        }
    }
}

/* What D unpacked has the digests that P packed, in every wire form; and plain puts arrive whole. */
void check(prefill &p)
{
    for (bt_dtype wire : {BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3, BT_DTYPE_INT8}) {
        for (uint32_t tokens : {1u, 64u, 1000u}) {
            row r;
            r.tokens = tokens;
            r.wire = wire;
            p.page->wrong = 0;
            p.prepare(r);
            p.run();
            std::string what = std::to_string(tokens) + " tokens, wire " + bt_dtype_name(wire) +
                               ": " + std::to_string(p.page->wrong) + " of " +
                               std::to_string(p.total) + " frames differ";
            expect(what.c_str(), p.page->wrong == 0);
        }
    }
    for (uint32_t seed : {1u, 2u}) {
        p.engine->fill(p.staging, SET_BYTES, seed);
        row r;
        r.put_bytes = 4 * MIB;
        r.put_count = (uint32_t)(SET_BYTES / r.put_bytes);
        p.prepare(r);
        p.run();
        p.ask('s');
        expect("a set of plain puts is whole at D",
               p.page->sum == p.engine->sum(p.staging, SET_BYTES));
    }
}

} // namespace

void run_prefill(const options &o, int socket, shared_page *page)
{
    static prefill p;
    p.role = BT_ROLE_PREFILL;
    p.socket = socket;
    p.page = page;
    p.open(o);
    p.engine->pool_open(BT_DTYPE_BF16, true);
    uint32_t major, minor;
    bt_xfer_version(&major, &minor);
    printf("%s, UCX %u.%u, lane %s\n", p.engine->name(), major, minor, bt_xfer_transport(p.peer));
    if (o.check) check(p);
    if (o.bench) {
        p.engine->fill(p.staging, SET_BYTES, 5);
        double half = p.engine->copy_rate() / 2;
        printf("limits: copying %.0f GB/s (read and written bytes)\n", 2 * half * 1e-9);
        fflush(stdout);
        bench_latency(p);
        bench_prompts(p, half);
        bench_puts(p, half);
        printf("%u targets met, %u missed\n", met, missed);
    }
    if (o.check) printf("%u passed, %u failed\n", passed, failed);
    p.ask('e');
    p.engine->pool_close();
    p.close();
    if (failed > 0) must(false, "a check");
}

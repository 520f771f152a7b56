/* What moving KV costs on this machine, as two tables:
 *
 *   put     bandwidth and latency of puts between two processes, over a working set of 320 MiB
 *   pack    GB/s of wire bytes for each pair of dtypes, digest included, beside memcpy of as many
 *           bytes in the same run, over 256 MiB of the larger side
 *
 * Usage: bench_xfer [put|pack]
 *        bench_xfer put BYTES    one number: the p50 in us of one put of so many bytes, over the same
 *                                working set, which tests/bench/handoff.py compares with */
#include "common/base/crypto.h"
#include "common/kv/wire.h"
#include "common/xfer/xfer.h"
#include "kernels/kv_pack/kv_pack.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define PUT_SET_BYTES (320 * MIB)
#define PACK_SET_BYTES (256 * MIB)
#define LATENCY_SAMPLES 500

static void must(bool ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "bench_xfer: %s failed\n", what);
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct {
    uint8_t address[BT_XFER_ADDRESS_BYTES_MAX], rkey[BT_XFER_RKEY_BYTES_MAX];
    uint32_t address_bytes, rkey_bytes;
    uint64_t arena;
} card;

static uint64_t puts_done;

static void on_message(void *arg, uint64_t sender, const void *data, size_t bytes)
{
    (void)arg, (void)sender, (void)data, (void)bytes;
}

static void on_put(void *arg, bt_xfer_peer *peer, uint64_t tag, bt_status status)
{
    (void)arg, (void)peer, (void)tag;
    must(status == BT_OK, "put");
    puts_done++;
}

static bt_xfer_peer *pair_open(int socket, bool sends, bt_xfer **ret_xfer, uint8_t **ret_source)
{
    const bt_xfer_config config = {.net_devices = "lo"};
    const bt_xfer_handler handler = {.on_message = on_message, .on_put = on_put};
    bt_xfer *xfer;
    bt_xfer_peer *peer;
    card mine = {0}, other;
    const uint8_t *bytes;
    uint8_t *arena;
    must(bt_xfer_create(&config, &handler, &xfer, NULL) == BT_OK, "create");
    must(bt_xfer_arena_open(xfer, sends ? 4096 : PUT_SET_BYTES, &arena, NULL) == BT_OK, "arena");
    mine.arena = (uint64_t)(uintptr_t)arena;
    bt_xfer_worker_address(xfer, &bytes, &mine.address_bytes);
    memcpy(mine.address, bytes, mine.address_bytes);
    bt_xfer_arena_rkey(xfer, &bytes, &mine.rkey_bytes);
    memcpy(mine.rkey, bytes, mine.rkey_bytes);
    must(send(socket, &mine, sizeof(mine), 0) == sizeof(mine), "send");
    must(recv(socket, &other, sizeof(other), MSG_WAITALL) == sizeof(other), "recv");
    must(bt_xfer_connect(xfer, other.address, other.address_bytes, 1, &peer, NULL) == BT_OK,
         "connect");
    if (sends) {
        must(bt_xfer_source_open(xfer, PUT_SET_BYTES, ret_source, NULL) == BT_OK, "source");
        memset(*ret_source, 7, PUT_SET_BYTES);
        must(bt_xfer_remote_open(peer, other.arena, PUT_SET_BYTES, other.rkey, other.rkey_bytes,
                                 NULL) == BT_OK,
             "remote");
    }
    *ret_xfer = xfer;
    return peer;
}

static void put_wait(bt_xfer *xfer, bt_xfer_peer *peer, const uint8_t *source, size_t bytes,
                     size_t at)
{
    bt_status status;
    while ((status = bt_xfer_put(peer, source + at, bytes, at, 0, NULL)) == BT_AGAIN)
        bt_xfer_progress(xfer);
    must(status == BT_OK, "put");
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* us of LATENCY_SAMPLES single puts at places spread over the set, sorted. */
static void put_latency(bt_xfer *xfer, bt_xfer_peer *peer, const uint8_t *source, size_t bytes,
                        double samples[LATENCY_SAMPLES])
{
    size_t at = 0;
    for (size_t i = 0; i < LATENCY_SAMPLES; i++) {
        puts_done = 0;
        at = (at + bytes * 13) % (PUT_SET_BYTES - bytes);
        double start = now_s();
        put_wait(xfer, peer, source, bytes, at);
        while (puts_done == 0) bt_xfer_progress(xfer);
        samples[i] = (now_s() - start) * 1e6;
    }
    qsort(samples, LATENCY_SAMPLES, sizeof(samples[0]), by_value);
}

static void put_size(bt_xfer *xfer, bt_xfer_peer *peer, const uint8_t *source, size_t bytes)
{
    size_t count = PUT_SET_BYTES / bytes;
    puts_done = 0;
    double start = now_s();
    for (size_t i = 0; i < count; i++) put_wait(xfer, peer, source, bytes, i * bytes);
    while (puts_done < count) bt_xfer_progress(xfer);
    double rate = (double)(count * bytes) / (now_s() - start) * 1e-9;
    double samples[LATENCY_SAMPLES];
    put_latency(xfer, peer, source, bytes, samples);
    printf("%10zu %10.2f %12.1f %12.1f\n", bytes / 1024, rate, samples[LATENCY_SAMPLES / 2],
           samples[LATENCY_SAMPLES * 99 / 100]);
}

static void put_table(bt_xfer *xfer, bt_xfer_peer *peer, const uint8_t *source)
{
    printf("put over %s, working set %zu MiB\n%10s %10s %12s %12s\n", bt_xfer_transport(peer),
           PUT_SET_BYTES / MIB, "KiB", "GB/s", "p50 us", "p99 us");
    for (size_t bytes = 4096; bytes <= 16 * MIB; bytes *= 4) put_size(xfer, peer, source, bytes);
}

/* The table, or with `only_bytes` the p50 of a put of so many. */
static void put_bench(size_t only_bytes)
{
    int sockets[2];
    char byte = 0;
    bt_xfer *xfer;
    uint8_t *source = NULL;
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0, "socketpair");
    fflush(NULL);
    pid_t child = fork();
    must(child >= 0, "fork");
    bt_xfer_peer *peer = pair_open(sockets[child != 0], child != 0, &xfer, &source);
    if (child == 0) { /* the target: sleeps but for what UCX wants of it */
        struct pollfd pfd[2] = {{.fd = sockets[0], .events = POLLIN},
                                {.fd = bt_xfer_fd(xfer), .events = POLLIN}};
        while ((pfd[0].revents & POLLIN) == 0) {
            if (bt_xfer_progress(xfer) > 0 || bt_xfer_arm(xfer) == BT_AGAIN) continue;
            poll(pfd, 2, 100);
        }
        _exit(0);
    }
    for (size_t at = 0; at < PUT_SET_BYTES; at += MIB) put_wait(xfer, peer, source, MIB, at);
    while (puts_done < PUT_SET_BYTES / MIB) bt_xfer_progress(xfer);
    if (only_bytes > 0) {
        double samples[LATENCY_SAMPLES];
        put_latency(xfer, peer, source, only_bytes, samples);
        printf("%.1f\n", samples[LATENCY_SAMPLES / 2]);
    } else {
        put_table(xfer, peer, source);
    }
    must(send(sockets[1], &byte, 1, 0) == 1, "send");
    waitpid(child, NULL, 0);
    bt_xfer_disconnect(peer);
    bt_xfer_destroy(xfer);
}
/* A pool, its wire form, and a frame that visits all of it: one layer x 16 runs x all heads. */
typedef struct {
    bt_kv_view kv;
    bt_wire_shape wire;
    uint32_t *blocks;
    uint32_t tokens;
    size_t wire_bytes;
    uint8_t *wire_form;
} set;

enum { FRAME_RUNS = 16, LAYERS = 8, HEADS = 8, HEAD_DIM = 128, BLOCK = 16 };

static uint8_t *map_touched(size_t bytes)
{
    uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(memory != MAP_FAILED, "mmap");
    memset(memory, 1, bytes);
    return memory;
}

static set set_open(bt_dtype pool, bt_dtype wire)
{
    set s = {.wire = {wire, HEAD_DIM}};
    s.kv.shape = (bt_kv_shape){.dtype = pool,
                               .layers = LAYERS,
                               .kv_heads = HEADS,
                               .head_dim = HEAD_DIM,
                               .block_tokens = BLOCK};
    size_t frame_bytes = bt_wire_frame_bytes(&s.wire, FRAME_RUNS, HEADS) * LAYERS;
    size_t pool_bytes = bt_kv_block_bytes(&s.kv.shape) * (FRAME_RUNS * BT_RUN_TOKENS / BLOCK);
    size_t larger = frame_bytes > pool_bytes ? frame_bytes : pool_bytes;
    uint32_t frames = (uint32_t)((PACK_SET_BYTES + larger - 1) / larger);
    s.tokens = frames * FRAME_RUNS * BT_RUN_TOKENS;
    s.wire_bytes = frames * frame_bytes;
    s.kv.shape.pool_blocks = s.tokens / BLOCK;
    s.kv.base = map_touched(bt_kv_pool_bytes(&s.kv.shape));
    s.wire_form = map_touched(s.wire_bytes);
    s.blocks = malloc(s.kv.shape.pool_blocks * sizeof(*s.blocks));
    must(s.blocks != NULL, "malloc");
    for (uint32_t i = 0; i < s.kv.shape.pool_blocks; i++) s.blocks[i] = i;
    for (uint32_t i = s.kv.shape.pool_blocks - 1; i > 0; i--) {
        uint32_t j = (uint32_t)(i * 2654435761u) % (i + 1), block = s.blocks[i];
        s.blocks[i] = s.blocks[j];
        s.blocks[j] = block;
    }
    for (size_t i = 0; i < bt_kv_pool_bytes(&s.kv.shape); i++)
        s.kv.base[i] = (uint8_t)(i * 2654435761u >> 20) & 0x3f;
    return s;
}

static void set_close(set *s)
{
    munmap(s->kv.base, bt_kv_pool_bytes(&s->kv.shape));
    munmap(s->wire_form, s->wire_bytes);
    free(s->blocks);
}

/* Seconds to pack or unpack the whole set once. */
static double set_run(const set *s, bool pack)
{
    static const uint8_t key[BT_KEY_BYTES] = {9};
    size_t frame_bytes = bt_wire_frame_bytes(&s->wire, FRAME_RUNS, HEADS);
    uint8_t *at = s->wire_form;
    double start = now_s();
    for (uint32_t first = 0; first < s->tokens / BT_RUN_TOKENS; first += FRAME_RUNS) {
        for (uint32_t layer = 0; layer < LAYERS; layer++, at += frame_bytes) {
            const bt_frame frame = {.layer = layer,
                                    .run_first = first,
                                    .run_count = FRAME_RUNS,
                                    .head_count = HEADS,
                                    .token_end = (first + FRAME_RUNS) * BT_RUN_TOKENS};
            bt_kv_digest digest;
            if (pack)
                bt_wire_pack(&s->kv, &s->wire, &frame, s->blocks, key, at, &digest);
            else
                bt_wire_unpack(&s->kv, &s->wire, &frame, s->blocks, key, at, &digest);
        }
    }
    return now_s() - start;
}

static double best(double a, double b)
{
    return a == 0 || b < a ? b : a;
}

static void pack_bench(void)
{
    static const bt_dtype dtypes[] = {BT_DTYPE_F32, BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3,
                                      BT_DTYPE_INT8};
    printf("pack and unpack (%s), head_dim %d, block %d, GB/s of wire bytes, best of 3\n"
           "%6s %6s %8s %8s %8s\n",
           bt_kv_pack_best()->name, HEAD_DIM, BLOCK, "pool", "wire", "pack", "unpack", "memcpy");
    for (size_t p = 0; p < 4; p++) {
        for (size_t w = 0; w < 4; w++) {
            set s = set_open(dtypes[p], dtypes[w]);
            uint8_t *copy = map_touched(s.wire_bytes);
            double pack_s = 0, unpack_s = 0, copy_s = 0;
            for (int round = 0; round < 3; round++) {
                pack_s = best(pack_s, set_run(&s, true));
                unpack_s = best(unpack_s, set_run(&s, false));
                double start = now_s();
                memcpy(copy, s.wire_form, s.wire_bytes);
                copy_s = best(copy_s, now_s() - start);
            }
            double gigabytes = (double)s.wire_bytes * 1e-9;
            printf("%6s %6s %8.2f %8.2f %8.2f\n", bt_dtype_name(dtypes[p]),
                   bt_dtype_name(dtypes[w]), gigabytes / pack_s, gigabytes / unpack_s,
                   gigabytes / copy_s);
            munmap(copy, s.wire_bytes);
            set_close(&s);
        }
    }
}

int main(int argc, char **argv)
{
    must(bt_crypto_start(NULL) == BT_OK, "libsodium");
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *only = argc > 1 ? argv[1] : "";
    char *end = NULL;
    unsigned long long bytes = argc > 2 ? strtoull(argv[2], &end, 10) : 0;
    must(end == NULL || (*end == '\0' && bytes > 0 && bytes <= 16 * MIB), "reading BYTES");
    if (strcmp(only, "pack") != 0) put_bench((size_t)bytes);
    if (strcmp(only, "put") != 0) pack_bench();
    return 0;
}

/* Two real processes for each test: P puts and sends, D lands and listens. The test's own process
 * never touches UCX, as UCX does not survive a fork. */
#include "common/base/crypto.h"
#include "common/xfer/envelope.h"
#include "common/xfer/xfer.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <ucp/api/ucp.h>

#define ARENA_BYTES ((size_t)40 << 20)
#define P_TAG 0x1111u
#define D_TAG 0x2222u
#define WAIT_MS 20000 /* far beyond anything but a lost wake-up */

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, err.message);      \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static bt_err err; /* of this process */

typedef struct {
    uint8_t address[BT_XFER_ADDRESS_BYTES_MAX], rkey[BT_XFER_RKEY_BYTES_MAX];
    uint32_t address_bytes, rkey_bytes;
    uint64_t arena;
    pid_t pid;
} card;

typedef struct {
    int socket; /* to the other process */
    bt_xfer *xfer;
    bt_xfer_peer *peer;
    uint8_t *arena, *source;
    card other;
    uint8_t message[BT_XFER_MESSAGE_BYTES_MAX]; /* the last one */
    size_t message_bytes;
    uint64_t sender, messages;
    uint64_t puts_ok, puts_lost, put_tag;
    bool numbered; /* messages are {number, ends a burst} */
    uint64_t burst_ends;
    uint64_t sleeps; /* polls that wait_count did */
} side;

static void on_message(void *arg, uint64_t sender, const void *data, size_t bytes)
{
    side *s = arg;
    s->sender = sender;
    s->message_bytes = bytes;
    memcpy(s->message, data, bytes);
    if (s->numbered) {
        uint32_t number[2];
        CHECK(bytes == sizeof(number));
        memcpy(number, data, sizeof(number));
        CHECK(number[0] == s->messages);
        s->burst_ends += number[1];
    }
    s->messages++;
}

static void on_put(void *arg, bt_xfer_peer *peer, uint64_t tag, bt_status status)
{
    side *s = arg;
    (void)peer;
    s->put_tag = tag;
    if (status == BT_OK)
        s->puts_ok++;
    else
        s->puts_lost++;
}

static void on_peer_error(void *arg, bt_xfer_peer *peer, const char *why)
{
    (void)arg;
    (void)peer;
    (void)why;
}

static void side_open(side *s, int socket, const char *transports)
{
    const bt_xfer_config config = {.transports = transports, .net_devices = "lo"};
    const bt_xfer_handler handler = {s, on_message, on_put, on_peer_error};
    s->socket = socket;
    CHECK(bt_crypto_start(&err) == BT_OK);
    CHECK(bt_xfer_create(&config, &handler, &s->xfer, &err) == BT_OK);
    CHECK(bt_xfer_arena_open(s->xfer, ARENA_BYTES, &s->arena, &err) == BT_OK);
    CHECK(bt_xfer_source_open(s->xfer, ARENA_BYTES, &s->source, &err) == BT_OK);
    card mine = {.arena = (uint64_t)(uintptr_t)s->arena, .pid = getpid()};
    const uint8_t *bytes;
    bt_xfer_worker_address(s->xfer, &bytes, &mine.address_bytes);
    memcpy(mine.address, bytes, mine.address_bytes);
    bt_xfer_arena_rkey(s->xfer, &bytes, &mine.rkey_bytes);
    memcpy(mine.rkey, bytes, mine.rkey_bytes);
    CHECK(send(socket, &mine, sizeof(mine), 0) == sizeof(mine));
    CHECK(recv(socket, &s->other, sizeof(s->other), MSG_WAITALL) == sizeof(s->other));
}

static void side_connect(side *s, uint64_t me)
{
    CHECK(bt_xfer_connect(s->xfer, s->other.address, s->other.address_bytes, me, &s->peer, &err) ==
          BT_OK);
    CHECK(bt_xfer_remote_open(s->peer, s->other.arena, ARENA_BYTES, s->other.rkey,
                              s->other.rkey_bytes, &err) == BT_OK);
}

static void side_close(side *s)
{
    bt_xfer_disconnect(s->peer);
    bt_xfer_destroy(s->xfer);
}

/* Sleeps as the daemons' loop does, until *count reaches target. */
static void wait_count(side *s, const uint64_t *count, uint64_t target)
{
    while (*count < target) {
        if (bt_xfer_progress(s->xfer) > 0) continue;
        if (bt_xfer_arm(s->xfer) == BT_AGAIN) continue;
        struct pollfd pfd = {.fd = bt_xfer_fd(s->xfer), .events = POLLIN};
        s->sleeps++;
        if (poll(&pfd, 1, WAIT_MS) == 1) continue;
        fprintf(stderr, "no wake-up: %llu of %llu came\n", (unsigned long long)*count,
                (unsigned long long)target);
        _exit(1);
    }
}

static void send_retry(side *s, const void *data, size_t bytes)
{
    bt_status status;
    while ((status = bt_xfer_send(s->peer, data, bytes, &err)) == BT_AGAIN)
        bt_xfer_progress(s->xfer);
    CHECK(status == BT_OK);
}

/* A byte each way, so that neither leaves while the other still needs it. */
static void meet(side *s)
{
    char byte = 'm';
    CHECK(send(s->socket, &byte, 1, 0) == 1);
    struct pollfd pfd = {.fd = s->socket, .events = POLLIN};
    while (poll(&pfd, 1, 0) == 0) bt_xfer_progress(s->xfer);
    CHECK(recv(s->socket, &byte, 1, 0) == 1);
}

typedef void role(side *s);

static pid_t role_start(role *run, int sockets[2], int mine, const char *transports)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) return pid;
    alarm(60);
    close(sockets[1 - mine]);
    side *s = calloc(1, sizeof(*s));
    if (s == NULL) _exit(1);
    side_open(s, sockets[mine], transports);
    run(s);
    fflush(NULL);
    _exit(0);
}

/* Runs both roles and expects P to succeed, and D to succeed or to die of d_signal. */
static void run_pair(role *p, role *d, const char *transports, int d_signal)
{
    int sockets[2], p_status = -1, d_status = -1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    pid_t d_pid = role_start(d, sockets, 1, transports);
    pid_t p_pid = role_start(p, sockets, 0, transports);
    close(sockets[0]);
    close(sockets[1]);
    for (int i = 0; i < 2; i++) {
        int status;
        pid_t pid = wait(&status);
        *(pid == p_pid ? &p_status : &d_status) = status;
    }
    (void)d_pid;
    assert_true(WIFEXITED(p_status) && WEXITSTATUS(p_status) == 0);
    if (d_signal == 0)
        assert_true(WIFEXITED(d_status) && WEXITSTATUS(d_status) == 0);
    else
        assert_true(WIFSIGNALED(d_status) && WTERMSIG(d_status) == d_signal);
}

/* What a put wrote, told by message so that D can check it. */
typedef struct {
    uint64_t offset, bytes;
    uint32_t seed, last;
} note;

static uint8_t pattern(uint32_t seed, size_t i)
{
    return (uint8_t)((seed + i) * 2654435761u >> 13);
}

static const size_t put_sizes[] = {
    1, 8, 93, 4096, 8193, 65539, 1u << 20, (3u << 20) + 5, 16u << 20, ARENA_BYTES - 4096};

static void puts_p(side *s)
{
    side_connect(s, P_TAG);
    const size_t count = sizeof(put_sizes) / sizeof(put_sizes[0]);
    for (size_t i = 0; i < count; i++) {
        note n = {.offset = i * 311,
                  .bytes = put_sizes[i],
                  .seed = (uint32_t)i + 7,
                  .last = i + 1 == count};
        for (size_t b = 0; b < n.bytes; b++) s->source[i + b] = pattern(n.seed, b);
        CHECK(bt_xfer_put(s->peer, s->source + i, n.bytes, n.offset, 100 + i, &err) == BT_OK);
        CHECK(s->puts_ok == i); /* never from inside put */
        wait_count(s, &s->puts_ok, i + 1);
        CHECK(s->put_tag == 100 + i);
        send_retry(s, &n, sizeof(n));
        wait_count(s, &s->messages, i + 1);
        CHECK(s->sender == D_TAG && s->message[0] == 'y');
    }
    const char *lane = bt_xfer_transport(s->peer);
    printf("bulk lane: %s\n", lane);
    CHECK(strcmp(lane, "posix/memory") == 0 || strcmp(lane, "cma/memory") == 0);
    meet(s);
    side_close(s);
}

static void puts_d(side *s)
{
    side_connect(s, D_TAG);
    note n = {0};
    for (uint64_t i = 0; !n.last; i++) {
        wait_count(s, &s->messages, i + 1);
        CHECK(s->sender == P_TAG && s->message_bytes == sizeof(n));
        memcpy(&n, s->message, sizeof(n));
        bool same = true;
        for (size_t b = 0; b < n.bytes; b++) same &= s->arena[n.offset + b] == pattern(n.seed, b);
        send_retry(s, same ? "y" : "n", 1);
    }
    meet(s);
    side_close(s);
}

static void test_puts_land(void **state)
{
    (void)state;
    run_pair(puts_p, puts_d, NULL, 0);
}

#define WAKEUPS 20000u

static void wakeups_p(side *s)
{
    side_connect(s, P_TAG);
    uint32_t sent = 0, random = 99;
    uint64_t bursts = 0;
    while (sent < WAKEUPS) {
        random = random * 1664525u + 1013904223u;
        uint32_t burst = random >> 29 ? 1 : 1 + (random >> 16) % 40; /* mostly single ones */
        for (; burst > 0 && sent < WAKEUPS; burst--) {
            bool last = burst == 1 || sent + 1 == WAKEUPS;
            uint32_t message[2] = {sent++, last};
            send_retry(s, message, sizeof(message));
        }
        wait_count(s, &s->messages, ++bursts);
    }
    meet(s);
    side_close(s);
}

static void wakeups_d(side *s)
{
    s->numbered = true;
    side_connect(s, D_TAG);
    while (s->messages < WAKEUPS) {
        wait_count(s, &s->burst_ends, s->burst_ends + 1);
        send_retry(s, "y", 1);
    }
    printf("slept %llu times for %u messages\n", (unsigned long long)s->sleeps, WAKEUPS);
    CHECK(s->sleeps > 0);
    meet(s);
    side_close(s);
}

static void test_sleeper_wakes_for_every_message(void **state)
{
    (void)state;
    run_pair(wakeups_p, wakeups_d, NULL, 0);
}

static void limits_p(side *s)
{
    side_connect(s, P_TAG);
    /* Outside the arena, by one byte and by wrapping around. */
    CHECK(bt_xfer_put(s->peer, s->source, 2, ARENA_BYTES - 1, 0, NULL) == BT_ERR_ARGUMENT);
    CHECK(bt_xfer_put(s->peer, s->source, 1, ARENA_BYTES, 0, NULL) == BT_ERR_ARGUMENT);
    CHECK(bt_xfer_put(s->peer, s->source, 16, UINT64_MAX - 7, 0, NULL) == BT_ERR_ARGUMENT);
    CHECK(bt_xfer_put(s->peer, s->source, 0, 0, 0, NULL) == BT_ERR_ARGUMENT);

    for (uint32_t i = 0; i < BT_XFER_INFLIGHT_MAX; i++)
        CHECK(bt_xfer_put(s->peer, s->source, 64, i * 64, i, &err) == BT_OK);
    CHECK(bt_xfer_put(s->peer, s->source, 64, 0, 0, &err) == BT_AGAIN);
    wait_count(s, &s->puts_ok, BT_XFER_INFLIGHT_MAX);
    CHECK(bt_xfer_put(s->peer, s->source, 64, 0, 0, &err) == BT_OK);
    wait_count(s, &s->puts_ok, BT_XFER_INFLIGHT_MAX + 1);

    static uint8_t big[BT_XFER_MESSAGE_BYTES_MAX + 1];
    CHECK(bt_xfer_send(s->peer, big, sizeof(big), NULL) == BT_ERR_LIMIT);
    CHECK(bt_xfer_send(s->peer, big, sizeof(big) - 1, &err) == BT_OK);
    CHECK(bt_xfer_send(s->peer, big, 0, &err) == BT_OK);
    /* D does not look: what waits is bounded, and all that was taken arrives. */
    uint64_t taken = 2;
    bt_status status;
    while ((status = bt_xfer_send(s->peer, big, 100, &err)) == BT_OK && taken < 100000) taken++;
    CHECK(status == BT_AGAIN && taken >= BT_XFER_SENDS_MAX);
    CHECK(send(s->socket, &taken, sizeof(taken), 0) == sizeof(taken));
    wait_count(s, &s->messages, 1);
    meet(s);
    side_close(s);
}

static void limits_d(side *s)
{
    side_connect(s, D_TAG);
    uint64_t taken;
    CHECK(recv(s->socket, &taken, sizeof(taken), MSG_WAITALL) == sizeof(taken));
    wait_count(s, &s->messages, 1);
    wait_count(s, &s->messages, taken);
    CHECK(s->messages == taken && s->message_bytes == 100);
    send_retry(s, "y", 1);
    meet(s);
    side_close(s);
}

static void test_limits(void **state)
{
    (void)state;
    run_pair(limits_p, limits_d, NULL, 0);
}

/* D never progresses, so what P starts stays pending; then D dies, and P must not. */
static void death_p(side *s)
{
    side_connect(s, P_TAG);
    static const uint8_t message[1000];
    for (uint32_t i = 0; i < 500; i++) {
        bt_status status = bt_xfer_send(s->peer, message, sizeof(message), &err);
        CHECK(status == BT_OK || status == BT_AGAIN);
    }
    uint64_t started = 0;
    for (uint32_t i = 0; i < 8; i++) {
        CHECK(bt_xfer_put(s->peer, s->source, 4u << 20, i * (4u << 20), i, &err) == BT_OK);
        started++;
    }
    for (uint32_t i = 0; i < 100; i++) bt_xfer_progress(s->xfer);
    CHECK(s->puts_ok < started); /* else this test shows nothing */
    CHECK(kill(s->other.pid, SIGKILL) == 0);
    char byte;
    /* Its end closed, so it is dead. It may have died before it read our last byte. */
    CHECK(recv(s->socket, &byte, 1, 0) == 0 || errno == ECONNRESET);
    for (uint32_t i = 0; i < 100; i++) bt_xfer_progress(s->xfer);
    bt_xfer_disconnect(s->peer);
    s->peer = NULL;
    CHECK(s->puts_ok + s->puts_lost == started && s->puts_lost > 0);
    for (uint32_t i = 0; i < 1000; i++) bt_xfer_progress(s->xfer);
    CHECK(s->puts_ok + s->puts_lost == started);
    /* The endpoint is closed, and the survivor may sleep again. */
    uint32_t rounds = 0;
    while (bt_xfer_arm(s->xfer) == BT_AGAIN && rounds < 100000) {
        bt_xfer_progress(s->xfer);
        rounds++;
    }
    CHECK(rounds < 100000);
    side_close(s);
}

static void death_d(side *s)
{
    side_connect(s, D_TAG);
    for (;;) pause();
}

static void test_death_shared_memory(void **state)
{
    (void)state;
    run_pair(death_p, death_d, NULL, SIGKILL);
}

static void test_death_tcp(void **state)
{
    (void)state;
    run_pair(death_p, death_d, "tcp", SIGKILL);
}

/* Nothing that was cut or damaged reaches UCX, wherever the damage is. */
static void damage_p(side *s)
{
    bt_xfer_peer *peer;
    card *c = &s->other;
    for (uint32_t i = 0; i < c->address_bytes; i++) {
        c->address[i] ^= (uint8_t)(1u << i % 8);
        bt_status status = bt_xfer_connect(s->xfer, c->address, c->address_bytes, 1, &peer, NULL);
        CHECK(status == BT_ERR_FORMAT);
        c->address[i] ^= (uint8_t)(1u << i % 8);
        CHECK(bt_xfer_connect(s->xfer, c->address, i, 1, &peer, NULL) == BT_ERR_FORMAT);
    }
    CHECK(bt_xfer_connect(s->xfer, c->rkey, c->rkey_bytes, 1, &peer, NULL) == BT_ERR_FORMAT);
    CHECK(bt_xfer_connect(s->xfer, c->address, c->address_bytes, P_TAG, &s->peer, &err) == BT_OK);
    for (uint32_t i = 0; i < c->rkey_bytes; i++) {
        c->rkey[i] ^= (uint8_t)(1u << i % 8);
        bt_status status =
            bt_xfer_remote_open(s->peer, c->arena, ARENA_BYTES, c->rkey, c->rkey_bytes, NULL);
        CHECK(status == BT_ERR_FORMAT);
        c->rkey[i] ^= (uint8_t)(1u << i % 8);
    }
    /* Sealed properly, but by another UCX, or with content that is no rkey. */
    uint8_t sealed[256];
    uint32_t bytes, major, minor;
    bt_xfer_version(&major, &minor);
    bt_envelope other = {{'B', 'T', 'X', 'K'}, (uint16_t)major, (uint16_t)(minor + 1)};
    CHECK(bt_envelope_seal(&other, "rkey", 4, sealed, sizeof(sealed), &bytes, &err) == BT_OK);
    CHECK(bt_xfer_remote_open(s->peer, c->arena, ARENA_BYTES, sealed, bytes, NULL) ==
          BT_ERR_VERSION);
    if (major == 1 && minor == 13) {
        other.ucx_minor = (uint16_t)minor;
        static const uint8_t cut[] = {7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 1, 2, 3};
        CHECK(bt_envelope_seal(&other, cut, sizeof(cut), sealed, sizeof(sealed), &bytes, &err) ==
              BT_OK);
        CHECK(bt_xfer_remote_open(s->peer, c->arena, ARENA_BYTES, sealed, bytes, NULL) ==
              BT_ERR_FORMAT);
    }
    CHECK(bt_xfer_remote_open(s->peer, UINT64_MAX - 5, 10, c->rkey, c->rkey_bytes, NULL) ==
          BT_ERR_FORMAT);
    CHECK(bt_xfer_remote_open(s->peer, c->arena, ARENA_BYTES, c->rkey, c->rkey_bytes, &err) ==
          BT_OK);
    CHECK(bt_xfer_put(s->peer, s->source, 4096, 0, 0, &err) == BT_OK);
    wait_count(s, &s->puts_ok, 1);
    meet(s);
    side_close(s);
}

static void damage_d(side *s)
{
    side_connect(s, D_TAG);
    meet(s);
    side_close(s);
}

static void test_damaged_cards_are_refused(void **state)
{
    (void)state;
    run_pair(damage_p, damage_d, NULL, 0);
}

/* A sender that does not go by xfer.h: a bare UCX worker with the same address. */
static void oversize_p(side *s)
{
    ucp_config_t *config;
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_ep_h ep;
    CHECK(ucp_config_read(NULL, NULL, &config) == UCS_OK);
    CHECK(ucp_config_modify(config, "TLS", "posix,tcp") == UCS_OK);
    CHECK(ucp_config_modify(config, "NET_DEVICES", "lo") == UCS_OK);
    const ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES,
                                 .features = UCP_FEATURE_AM};
    CHECK(ucp_init(&params, config, &context) == UCS_OK);
    ucp_config_release(config);
    const ucp_worker_params_t worker_params = {0};
    CHECK(ucp_worker_create(context, &worker_params, &worker) == UCS_OK);
    const ucp_ep_params_t ep_params = {
        .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS,
        .address = (const ucp_address_t *)(s->other.address + BT_ENVELOPE_HEAD_BYTES)};
    CHECK(ucp_ep_create(worker, &ep_params, &ep) == UCS_OK);
    static uint8_t big[1 << 20];
    const uint64_t me = P_TAG;
    const struct {
        size_t header_bytes, bytes;
        uint32_t flags;
    } sends[] = {
        {8, BT_XFER_MESSAGE_BYTES_MAX + 1, UCP_AM_SEND_FLAG_EAGER}, /* too long */
        {8, sizeof(big), UCP_AM_SEND_FLAG_EAGER},
        {4, 100, UCP_AM_SEND_FLAG_EAGER}, /* no tag */
        {0, 100, UCP_AM_SEND_FLAG_EAGER},
        {8, BT_XFER_MESSAGE_BYTES_MAX, UCP_AM_SEND_FLAG_RNDV}, /* would wait for D */
        {8, 100, UCP_AM_SEND_FLAG_EAGER},                      /* good */
    };
    for (size_t i = 0; i < sizeof(sends) / sizeof(sends[0]); i++) {
        const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                           .flags = sends[i].flags};
        ucs_status_ptr_t request =
            ucp_am_send_nbx(ep, 1, &me, sends[i].header_bytes, big, sends[i].bytes, &param);
        CHECK(!UCS_PTR_IS_ERR(request));
        while (request != NULL && ucp_request_check_status(request) == UCS_INPROGRESS)
            ucp_worker_progress(worker);
        if (request != NULL) ucp_request_free(request);
    }
    char byte;
    struct pollfd pfd = {.fd = s->socket, .events = POLLIN};
    while (poll(&pfd, 1, 0) == 0) ucp_worker_progress(worker);
    CHECK(recv(s->socket, &byte, 1, 0) == 1);
}

static void oversize_d(side *s)
{
    wait_count(s, &s->messages, 1);
    CHECK(s->messages == 1 && s->sender == P_TAG && s->message_bytes == 100);
    CHECK(bt_xfer_dropped(s->xfer) == 5);
    CHECK(send(s->socket, "d", 1, 0) == 1);
}

static void test_oversize_messages_are_dropped(void **state)
{
    (void)state;
    run_pair(oversize_p, oversize_d, NULL, 0);
}

/* D has heard nothing of what P sent when it destroys: by then its owner may be gone, so it stays unheard. */
static void late_p(side *s)
{
    side_connect(s, P_TAG);
    meet(s);
    for (uint32_t i = 0; i < 100; i++) send_retry(s, "x", 1);
    for (uint32_t i = 0; i < 1000; i++) bt_xfer_progress(s->xfer);
    char byte = 's';
    CHECK(send(s->socket, &byte, 1, 0) == 1);
    CHECK(recv(s->socket, &byte, 1, 0) == 1);
    side_close(s);
}

static void late_d(side *s)
{
    side_connect(s, D_TAG);
    send_retry(s, "y", 1);
    meet(s);
    char byte;
    CHECK(recv(s->socket, &byte, 1, 0) == 1);
    uint64_t messages = s->messages;
    side_close(s);
    CHECK(s->messages == messages);
    CHECK(send(s->socket, &byte, 1, 0) == 1);
}

static void test_destroy_delivers_nothing(void **state)
{
    (void)state;
    run_pair(late_p, late_d, NULL, 0);
}

/* Builds without CUDA do not know the name; with it, a machine without a GPU is refused with the driver's
 * words, and never served by another transport. On a machine with a GPU tests/gpu has its turn. */
static void test_gpu_memory_needs_a_gpu(void **state)
{
    (void)state;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const bt_xfer_config config = {.backend = "ucx-cuda", .net_devices = "lo"};
        const bt_xfer_handler handler = {NULL, on_message, on_put, on_peer_error};
        bt_xfer *xfer = NULL;
        CHECK(bt_crypto_start(&err) == BT_OK);
        bt_status status = bt_xfer_create(&config, &handler, &xfer, &err);
        if (status == BT_OK) _exit(0);
        CHECK(xfer == NULL && (status == BT_ERR_ARGUMENT || status == BT_ERR_DEVICE));
        CHECK(strlen(err.message) > 10);
        const bt_xfer_config without = {.backend = "ucx-cuda", .transports = "posix,cma,tcp"};
        CHECK(bt_xfer_create(&without, &handler, &xfer, &err) == BT_ERR_ARGUMENT);
        CHECK(strstr(err.message, status == BT_ERR_DEVICE ? "cuda_ipc" : "ucx-cuda") != NULL);
        _exit(0);
    }
    int ended;
    assert_int_equal(waitpid(pid, &ended, 0), pid);
    assert_true(WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_puts_land),
        cmocka_unit_test(test_sleeper_wakes_for_every_message),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_death_shared_memory),
        cmocka_unit_test(test_death_tcp),
        cmocka_unit_test(test_damaged_cards_are_refused),
        cmocka_unit_test(test_oversize_messages_are_dropped),
        cmocka_unit_test(test_destroy_delivers_nothing),
        cmocka_unit_test(test_gpu_memory_needs_a_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

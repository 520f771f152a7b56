/* xfer.h - moves byte ranges into a peer's registered arena, and small messages beside them.
 *
 * WHAT    One worker for each daemon; one endpoint for each peer. It knows addresses, lengths and
 *         tags; nothing of tokens, layers or requests.
 *
 * FLOW    D: create -> arena_open -> (worker_address and rkey go to P by the control plane)
 *            -> connect -> messages
 *         P: create -> source_open -> connect -> remote_open -> put ... -> on_put -> send
 *
 * THREAD  Everything on the thread that created the worker; it is the daemon's loop thread. fd is
 *         polled by libuv: when readable, or when progress returned > 0, call progress; call arm
 *         before sleeping, and do not sleep if it says AGAIN. Callbacks run inside progress and
 *         disconnect only; they may put, send and disconnect, but not call progress or destroy.
 *
 * OWNS    Arena and source memory are mapped by the transport itself (UCP_MEM_MAP_ALLOCATE is twice
 *         as fast on shared memory) and live until destroy. With ucx-cuda they are device memory, which the
 *         CPU cannot touch; what kernels wrote to a source must be complete before its put is made.
 *
 * LIMITS  BT_XFER_INFLIGHT_MAX puts and BT_XFER_SENDS_MAX messages for each peer; one more is
 *         AGAIN. Everything is allocated in create, connect and *_open; put, send and progress call
 *         no allocator of ours (UCX grows its own pools at first use).
 *
 * DEATH   UCX tells late or never; the owner's heartbeats decide. disconnect completes every pending
 *         put with an error. It proves nothing about bytes already on their way (rule H1).
 *
 * SILENCE No transport falls back to a slower lane without saying so: create refuses what this host
 *         cannot do, naming what is missing; bt_xfer_transport names the lane; a put fails rather than being
 *         emulated. What the lane really moves is measured by pairing, which makes the first puts.
 *
 * TRUST   worker_address and rkey travel in an envelope with UCX's version and a checksum: what was
 *         cut, damaged or made by another UCX is refused before UCX looks at it. A peer that forges
 *         both payload and checksum can make UCX 1.13.1 abort or map a wrong file: their content
 *         cannot be checked, so they are taken from the authenticated control plane only. UCX does
 *         not authenticate messages either: the sender's tag is a claim, which the MAC must prove.
 *
 * ADD ONE transports/<name>.c with one `const bt_xfer_ops` (transport.h), one line in registry.c; if it
 *         needs CUDA, its name ends in _cuda.c. */
#ifndef BT_COMMON_XFER_XFER_H
#define BT_COMMON_XFER_XFER_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_XFER_INFLIGHT_MAX 1024u
#define BT_XFER_SENDS_MAX 1024u
#define BT_XFER_REGIONS_MAX 8u /* source_open calls */
#define BT_XFER_MESSAGE_BYTES_MAX 8192u
#define BT_XFER_ADDRESS_BYTES_MAX 4096u
#define BT_XFER_RKEY_BYTES_MAX 4096u

typedef struct bt_xfer bt_xfer;           /* a worker */
typedef struct bt_xfer_peer bt_xfer_peer; /* an endpoint */

typedef struct {
    const char *backend; /* NULL = "ucx"; "ucx-cuda": arena and sources in GPU memory */
    const char
        *transports; /* UCX TLS list; NULL = "posix,cma,tcp"; ucx-cuda: cuda_ipc, cuda_copy … */
    const char *net_devices; /* NULL = leave; "lo" on loopback */
    bool allow_tcp;  /* else a pair whose bulk lane is tcp is refused by connect's owner; ucx-cuda:
                                else puts that no lane makes fail instead of bouncing through messages */
    uint32_t device; /* ucx-cuda: number of the GPU */
} bt_xfer_config;

typedef struct {
    void *arg;
    /* One message that arrived; data is borrowed. sender is the tag that its connect named. */
    void (*on_message)(void *arg, uint64_t sender, const void *data, size_t bytes);
    /* A put finished: its bytes are visible at the target (flushed), or status says why not. */
    void (*on_put)(void *arg, bt_xfer_peer *peer, uint64_t tag, bt_status status);
    /* The transport believes the peer gone. A hint, given once: heartbeats decide. */
    void (*on_peer_error)(void *arg, bt_xfer_peer *peer, const char *why);
} bt_xfer_handler;

bt_status bt_xfer_create(const bt_xfer_config *config, const bt_xfer_handler *handler,
                         bt_xfer **ret_xfer, bt_err *err);
/* Peers still connected are disconnected first; no message is delivered any more. */
void bt_xfer_destroy(bt_xfer *xfer);

void bt_xfer_version(uint32_t *ret_major, uint32_t *ret_minor);
int bt_xfer_fd(const bt_xfer *xfer);
/* Messages dropped: too long, without a sender's tag, or by rendezvous. */
uint64_t bt_xfer_dropped(const bt_xfer *xfer);
/* Runs callbacks. Returns how much progressed; 0 = nothing to do now. */
unsigned bt_xfer_progress(bt_xfer *xfer);
/* OK: the fd will become readable on the next event. AGAIN: call progress instead. */
bt_status bt_xfer_arm(bt_xfer *xfer);
/* Owned by xfer. */
void bt_xfer_worker_address(const bt_xfer *xfer, const uint8_t **ret_address, uint32_t *ret_bytes);

/* The landing arena, one for each incarnation. */
bt_status bt_xfer_arena_open(bt_xfer *xfer, size_t bytes, uint8_t **ret_base, bt_err *err);
void bt_xfer_arena_rkey(const bt_xfer *xfer, const uint8_t **ret_rkey, uint32_t *ret_bytes);
/* Registers memory that puts are sent from, so that none registers on the fly. */
bt_status bt_xfer_source_open(bt_xfer *xfer, size_t bytes, uint8_t **ret_base, bt_err *err);

/* me: the tag the peer will see as `sender` of my messages. Both sides connect (1.13.1 loses
 * wake-ups else). */
bt_status bt_xfer_connect(bt_xfer *xfer, const uint8_t *worker_address, uint32_t address_bytes,
                          uint64_t me, bt_xfer_peer **ret_peer, bt_err *err);
/* Unpacks the peer's rkey; address is where its arena begins in its own memory. Once for each peer.
 * Errors: ERR_FORMAT, ERR_VERSION, ERR_PEER_LOST if no lane reaches the arena. */
bt_status bt_xfer_remote_open(bt_xfer_peer *peer, uint64_t address, size_t bytes,
                              const uint8_t *rkey, uint32_t rkey_bytes, bt_err *err);
/* Lane that bulk puts take, "posix/memory", "cma/memory", "tcp/lo" …; borrowed from peer. */
const char *bt_xfer_transport(bt_xfer_peer *peer);
/* Pending puts complete with ERR_PEER_LOST before this returns, and no callback names the peer
 * afterwards. The transport may still be reading source memory for a moment. NULL is allowed. */
void bt_xfer_disconnect(bt_xfer_peer *peer);

/* One contiguous put of source (inside source_open's memory) to offset of the remote arena, then a
 * flush of it; on_put follows unless the status is a failure. Puts are not ordered with each other. AGAIN at the in-flight limit.
 * ERR_ARGUMENT if outside the arena. */
bt_status bt_xfer_put(bt_xfer_peer *peer, const void *source, size_t bytes, uint64_t remote_offset,
                      uint64_t tag, bt_err *err);
/* Copies data. AGAIN at BT_XFER_SENDS_MAX, ERR_LIMIT beyond BT_XFER_MESSAGE_BYTES_MAX. Ordered among
 * messages of one peer; not ordered with puts. */
bt_status bt_xfer_send(bt_xfer_peer *peer, const void *data, size_t bytes, bt_err *err);

#endif

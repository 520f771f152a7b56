/* ucx.h - the state that ucx.c (worker, memory, progress), ucx_peer.c (endpoints, puts, messages) and
 * ucx_cuda.c (device memory) share.
 *
 * MEMORY  A ucx_memory says where arena and sources lie; everything else is the same for host and
 *         device. Every region is registered once, and a put names its region's registration, so that
 *         UCX looks nothing up.
 *
 * LANES   cuda_ipc copies to one peer by one stream for each worker, and between two copies on a stream
 *         the GPU does nothing for 5 us. With more workers one copies while another begins. Only who puts
 *         opens them; messages and the address are the first's.
 *
 * PUT     A slot lives from put until UCX has called back for both the put and its flush and on_put
 *         has been called, whichever comes last. `done` queues slots whose on_put is due; only
 *         progress and disconnect call on_put, so no callback runs inside put.
 *
 * CLOSE   disconnect reports every slot and moves the peer to `closing`; progress closes the
 *         endpoint outside of UCX's own callbacks, and frees the peer when UCX holds no slot. */
#ifndef BT_COMMON_XFER_TRANSPORTS_UCX_H
#define BT_COMMON_XFER_TRANSPORTS_UCX_H

#include "common/xfer/envelope.h"
#include "common/xfer/transport.h"

#include <ucp/api/ucp.h>

#define UCX_AM_ID 1u
#define UCX_LANES_MAX 3u

typedef struct ucx_peer ucx_peer;
typedef struct ucx_xfer ucx_xfer;

/* Where arena and sources lie. */
typedef struct {
    const char *transports; /* if the config names none */
    ucs_memory_type_t type;
    uint32_t lanes; /* workers that puts take in turn, 1 .. UCX_LANES_MAX */
    /* Before UCX is opened, and what it can do when it is; NULL = nothing to ask. */
    bt_status (*begin)(const bt_xfer_config *config, bt_err *err);
    bt_status (*check)(ucx_xfer *xfer, const bt_xfer_config *config, bt_err *err);
    /* NULL = UCX takes the memory itself. */
    bt_status (*take)(size_t bytes, uint8_t **ret_base, bt_err *err);
    void (*give)(uint8_t *base);
    /* What a put that UCX refuses at once may mean; NULL = UCX's own text is enough. */
    const char *put_refused;
} ucx_memory;

typedef struct {
    ucp_mem_h handle;
    uint8_t *base;
    size_t bytes;
} ucx_region;

typedef struct ucx_put {
    ucx_peer *peer;
    struct ucx_put *next; /* in the free list or in done */
    uint64_t tag;
    bt_status status;
    uint8_t ops_left; /* callbacks UCX owes: put, flush */
    bool used;
    bool reported; /* on_put was called */
} ucx_put;

typedef struct ucx_send {
    ucx_peer *peer;
    struct ucx_send *next;
    uint64_t me; /* header of the message */
    uint8_t data[BT_XFER_MESSAGE_BYTES_MAX];
} ucx_send;

struct ucx_xfer {
    bt_xfer base;
    const ucx_memory *memory;
    ucp_context_h context;
    ucp_worker_h workers[UCX_LANES_MAX]; /* the first has the address, and the messages */
    uint32_t lane_count;                 /* more than one after source_open, if memory has them */
    int fd;                              /* of the first, or an epoll of all */
    bool fd_is_ours;
    bool in_progress;
    bool is_ending;   /* destroy: what still comes has no reader */
    bt_envelope kind; /* with UCX's version */
    uint8_t address[BT_XFER_ADDRESS_BYTES_MAX];
    uint32_t address_bytes;
    uint8_t rkey[BT_XFER_RKEY_BYTES_MAX];
    uint32_t rkey_bytes;
    ucx_region regions[BT_XFER_REGIONS_MAX + 1];
    uint32_t region_count;
    ucx_peer *peers;   /* connected */
    ucx_peer *closing; /* disconnected, not yet freed */
    uint32_t closing_rounds;
    uint32_t errors_due; /* peers whose on_peer_error was not called yet */
    ucx_put *done_first, *done_last;
};

struct ucx_peer {
    bt_xfer_peer base;
    ucx_xfer *xfer;
    ucx_peer *next; /* in peers or closing */
    struct {
        ucp_ep_h ep;
        ucp_rkey_h rkey;
        void *close_request;
    } lanes[UCX_LANES_MAX]; /* one on each worker that xfer had at connect */
    uint32_t lane_count, lane_next;
    bool close_issued;
    bool failed, failure_reported;
    const char *why;
    uint64_t me;
    uint32_t puts_used, sends_used;
    uint32_t sends_touched; /* sends[0 .. sends_touched) were used at least once */
    ucx_put *puts_free;
    ucx_send *sends_free;
    char lane[64];
    ucx_put puts[BT_XFER_INFLIGHT_MAX];
    ucx_send *sends; /* [BT_XFER_SENDS_MAX]; untouched slots take no memory */
};

bt_status ucx_create_with(const ucx_memory *memory, const bt_xfer_config *config,
                          bt_xfer **ret_xfer, bt_err *err);
void ucx_destroy(bt_xfer *base);
int ucx_fd(const bt_xfer *base);
unsigned ucx_progress(bt_xfer *base);
bt_status ucx_arm(bt_xfer *base);
void ucx_worker_address(const bt_xfer *base, const uint8_t **ret_address, uint32_t *ret_bytes);
bt_status ucx_arena_open(bt_xfer *base, size_t bytes, uint8_t **ret_base, bt_err *err);
void ucx_arena_rkey(const bt_xfer *base, const uint8_t **ret_rkey, uint32_t *ret_bytes);
bt_status ucx_source_open(bt_xfer *base, size_t bytes, uint8_t **ret_base, bt_err *err);

bt_status ucx_connect(bt_xfer *base, const uint8_t *address, uint32_t address_bytes, uint64_t me,
                      bt_xfer_peer **ret_peer, bt_err *err);
bt_status ucx_remote_open(bt_xfer_peer *base, const uint8_t *rkey, uint32_t rkey_bytes,
                          bt_err *err);
const char *ucx_transport(bt_xfer_peer *base);
void ucx_disconnect(bt_xfer_peer *base);
bt_status ucx_put_start(bt_xfer_peer *base, const void *source, size_t bytes,
                        uint64_t remote_address, uint64_t tag, bt_err *err);
bt_status ucx_send_start(bt_xfer_peer *base, const void *data, size_t bytes, bt_err *err);

/* What UCX prints of the context or of an endpoint (context NULL); NULL if out of memory. The caller
 * frees it. */
char *ucx_text(ucp_context_h context, ucp_ep_h ep);

/* Calls on_put for one finished slot and gives it back. */
void ucx_put_report(ucx_put *put);
/* One step of every closing peer; frees those that UCX no longer holds. */
void ucx_closing_step(ucx_xfer *xfer);

#endif

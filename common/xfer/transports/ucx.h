/* ucx.h - the state that ucx.c (worker, memory, progress) and ucx_peer.c (endpoints, puts, messages)
 * share.
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

typedef struct ucx_peer ucx_peer;

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

typedef struct {
    bt_xfer base;
    ucp_context_h context;
    ucp_worker_h worker;
    int fd;
    bool in_progress;
    bool is_ending;   /* destroy: what still comes has no reader */
    bt_envelope kind; /* with UCX's version */
    uint8_t address[BT_XFER_ADDRESS_BYTES_MAX];
    uint32_t address_bytes;
    uint8_t rkey[BT_XFER_RKEY_BYTES_MAX];
    uint32_t rkey_bytes;
    ucp_mem_h memory[BT_XFER_REGIONS_MAX + 1];
    uint32_t memory_count;
    ucx_peer *peers;   /* connected */
    ucx_peer *closing; /* disconnected, not yet freed */
    uint32_t closing_rounds;
    uint32_t errors_due; /* peers whose on_peer_error was not called yet */
    ucx_put *done_first, *done_last;
} ucx_xfer;

struct ucx_peer {
    bt_xfer_peer base;
    ucx_xfer *xfer;
    ucx_peer *next; /* in peers or closing */
    ucp_ep_h ep;
    ucp_rkey_h rkey;
    void *close_request;
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

bt_status ucx_connect(bt_xfer *base, const uint8_t *address, uint32_t address_bytes, uint64_t me,
                      bt_xfer_peer **ret_peer, bt_err *err);
bt_status ucx_remote_open(bt_xfer_peer *base, const uint8_t *rkey, uint32_t rkey_bytes,
                          bt_err *err);
const char *ucx_transport(bt_xfer_peer *base);
void ucx_disconnect(bt_xfer_peer *base);
bt_status ucx_put_start(bt_xfer_peer *base, const void *source, size_t bytes,
                        uint64_t remote_address, uint64_t tag, bt_err *err);
bt_status ucx_send_start(bt_xfer_peer *base, const void *data, size_t bytes, bt_err *err);

/* Calls on_put for one finished slot and gives it back. */
void ucx_put_report(ucx_put *put);
/* One step of every closing peer; frees those that UCX no longer holds. */
void ucx_closing_step(ucx_xfer *xfer);

#endif

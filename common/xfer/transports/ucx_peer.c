/* UCX endpoints: connect, puts with their flush, messages, and the way out. */
#include "common/xfer/transports/ucx.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_ep_error(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    (void)ep;
    ucx_peer *peer = arg;
    if (peer->failed) return;
    peer->failed = true;
    peer->why = ucs_status_string(status);
    if (!peer->close_issued) peer->xfer->errors_due++;
}

static void peer_free(ucx_peer *peer)
{
    if (peer == NULL) return;
    for (uint32_t i = 0; i < UCX_LANES_MAX; i++) {
        if (peer->lanes[i].rkey != NULL) ucp_rkey_destroy(peer->lanes[i].rkey);
    }
    free(peer->sends);
    free(peer);
}

static ucx_peer *peer_new(ucx_xfer *xfer, uint64_t me)
{
    ucx_peer *peer = calloc(1, sizeof(*peer));
    if (peer == NULL) return NULL;
    peer->xfer = xfer;
    peer->me = me;
    peer->sends = calloc(BT_XFER_SENDS_MAX, sizeof(*peer->sends));
    if (peer->sends == NULL) {
        peer_free(peer);
        return NULL;
    }
    for (uint32_t i = BT_XFER_INFLIGHT_MAX; i-- > 0;) {
        peer->puts[i].peer = peer;
        peer->puts[i].next = peer->puts_free;
        peer->puts_free = &peer->puts[i];
    }
    return peer;
}

/* A free slot: one that was used before, else the next one that never was. */
static ucx_send *send_take(ucx_peer *peer)
{
    ucx_send *send = peer->sends_free;
    if (send != NULL) {
        peer->sends_free = send->next;
    } else {
        if (peer->sends_touched == BT_XFER_SENDS_MAX) return NULL;
        send = &peer->sends[peer->sends_touched++];
        send->peer = peer;
    }
    peer->sends_used++;
    return send;
}

static void send_give(ucx_send *send)
{
    ucx_peer *peer = send->peer;
    assert(peer->sends_used > 0);
    send->next = peer->sends_free;
    peer->sends_free = send;
    peer->sends_used--;
}

bt_status ucx_connect(bt_xfer *base, const uint8_t *address, uint32_t address_bytes, uint64_t me,
                      bt_xfer_peer **ret_peer, bt_err *err)
{
    ucx_xfer *xfer = (ucx_xfer *)base;
    memcpy(xfer->kind.kind, "BTXA", 4);
    const uint8_t *payload;
    uint32_t payload_bytes;
    bt_status status =
        bt_envelope_open(&xfer->kind, address, address_bytes, &payload, &payload_bytes, err);
    if (status != BT_OK) return status;
    ucx_peer *peer = peer_new(xfer, me);
    if (peer == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "peer");

    /* UCX reads addresses without a length: zeros follow ours. */
    uint8_t padded[2 * BT_XFER_ADDRESS_BYTES_MAX] = {0};
    memcpy(padded, payload, payload_bytes);
    const ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS |
                                                  UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                                                  UCP_EP_PARAM_FIELD_ERR_HANDLER,
                                    .address = (const ucp_address_t *)padded,
                                    .err_mode = UCP_ERR_HANDLING_MODE_PEER,
                                    .err_handler = {.cb = on_ep_error, .arg = peer}};
    ucs_status_t created = UCS_OK;
    for (; created == UCS_OK && peer->lane_count < xfer->lane_count; peer->lane_count++)
        created = ucp_ep_create(xfer->workers[peer->lane_count], &params,
                                &peer->lanes[peer->lane_count].ep);
    if (created != UCS_OK) {
        peer->lane_count--; /* of the one that failed */
        peer->why = ucs_status_string(created);
        peer->failed = peer->failure_reported = true;
        peer->next = xfer->closing; /* lanes that were made are closed as any other */
        xfer->closing = peer;
        xfer->closing_rounds = 0;
        return BT_FAIL(err, BT_ERR_PEER_LOST, "UCX endpoint: %s", peer->why);
    }
    peer->next = xfer->peers;
    xfer->peers = peer;
    *ret_peer = &peer->base;
    return BT_OK;
}

/* The form of a packed rkey in UCX 1.13: map of memory domains (8 bytes), memory type (1), and for
 * each domain a size (1) and that many bytes. */
static bool rkey_well_formed(const uint8_t *rkey, uint32_t bytes)
{
    if (bytes < 9) return false;
    uint64_t domains;
    memcpy(&domains, rkey, sizeof(domains));
    uint32_t at = 9;
    if (domains == 0 || rkey[8] != UCS_MEMORY_TYPE_HOST) return false;
    for (; domains != 0; domains &= domains - 1) {
        if (at >= bytes) return false;
        at += 1u + rkey[at];
    }
    return at <= bytes;
}

bt_status ucx_remote_open(bt_xfer_peer *base, const uint8_t *rkey, uint32_t rkey_bytes, bt_err *err)
{
    ucx_peer *peer = (ucx_peer *)base;
    ucx_xfer *xfer = peer->xfer;
    memcpy(xfer->kind.kind, "BTXK", 4);
    const uint8_t *payload;
    uint32_t payload_bytes;
    bt_status status =
        bt_envelope_open(&xfer->kind, rkey, rkey_bytes, &payload, &payload_bytes, err);
    if (status != BT_OK) return status;
    if (xfer->kind.ucx_major == 1 && xfer->kind.ucx_minor == 13 &&
        !rkey_well_formed(payload, payload_bytes))
        return BT_FAIL(err, BT_ERR_FORMAT, "rkey of %u bytes is not one", payload_bytes);
    uint8_t padded[2 * BT_XFER_RKEY_BYTES_MAX] = {0};
    memcpy(padded, payload, payload_bytes);
    for (uint32_t i = 0; i < peer->lane_count; i++) {
        ucs_status_t unpacked = ucp_ep_rkey_unpack(peer->lanes[i].ep, padded, &peer->lanes[i].rkey);
        if (unpacked == UCS_OK) continue;
        peer->lanes[i].rkey = NULL;
        return BT_FAIL(err, BT_ERR_PEER_LOST, "rkey: %s", ucs_status_string(unpacked));
    }
    return BT_OK;
}

/* The name of lane `lane` in the text of ucp_ep_print_info, from a line as
 *     #   lane[0]:  1:posix/memory.0 md[1]  ->  ... */
static bool lane_name(const char *text, unsigned lane, char *ret_name, size_t name_bytes)
{
    char key[16];
    snprintf(key, sizeof(key), "lane[%u]:", lane);
    const char *at = strstr(text, key);
    if (at == NULL) return false;
    at = strchr(at + strlen(key), ':');
    if (at == NULL) return false;
    size_t length = strcspn(++at, " \n");
    for (size_t i = length; i-- > 0;) { /* drop the path's index after the last dot */
        if (at[i] != '.') continue;
        length = i;
        break;
    }
    if (length >= name_bytes) length = name_bytes - 1;
    memcpy(ret_name, at, length);
    ret_name[length] = '\0';
    return true;
}

char *ucx_text(ucp_context_h context, ucp_ep_h ep)
{
    char *text = NULL;
    size_t bytes;
    FILE *stream = open_memstream(&text, &bytes);
    if (stream == NULL) return NULL;
    if (context != NULL)
        ucp_context_print_info(context, stream);
    else
        ucp_ep_print_info(ep, stream);
    fclose(stream);
    return text;
}

/* The lane whose line bears the mark. */
static bool lane_marked(const char *text, const char *mark, unsigned *ret_lane)
{
    const char *at = strstr(text, mark);
    if (at == NULL) return false;
    const char *line = at;
    while (line > text && line[-1] != '\n') line--;
    const char *number = strstr(line, "lane[");
    return number != NULL && number < at && sscanf(number, "lane[%u]", ret_lane) == 1;
}

/* UCX 1.13 says "put[N]:" for the lane of remote writes. Later ones mark lanes that move bulk, best
 * first; without one, writes are emulated by messages, which take the lane marked "am". */
const char *ucx_transport(bt_xfer_peer *base)
{
    ucx_peer *peer = (ucx_peer *)base;
    snprintf(peer->lane, sizeof(peer->lane), "none");
    char *text = ucx_text(NULL, peer->lanes[0].ep);
    if (text == NULL) return peer->lane;
    unsigned lane = 0; /* the last resort */
    const char *put = strstr(text, "put[");
    if (put != NULL)
        sscanf(put, "put[%u]", &lane);
    else if (!lane_marked(text, " rma_bw#0", &lane))
        lane_marked(text, " am ", &lane);
    lane_name(text, lane, peer->lane, sizeof(peer->lane));
    free(text);
    return peer->lane;
}

static void put_give(ucx_put *put)
{
    ucx_peer *peer = put->peer;
    assert(put->used && peer->puts_used > 0);
    put->used = false;
    put->next = peer->puts_free;
    peer->puts_free = put;
    peer->puts_used--;
}

static void put_finish(ucx_put *put)
{
    ucx_xfer *xfer = put->peer->xfer;
    if (put->reported) {
        put_give(put);
        return;
    }
    put->next = NULL;
    if (xfer->done_last != NULL)
        xfer->done_last->next = put;
    else
        xfer->done_first = put;
    xfer->done_last = put;
}

void ucx_put_report(ucx_put *put)
{
    ucx_peer *peer = put->peer;
    uint64_t tag = put->tag;
    bt_status status = put->status;
    bool told = put->reported;
    put_give(put);
    if (told) return;
    bt_xfer *base = &peer->xfer->base;
    base->handler.on_put(base->handler.arg, &peer->base, tag, status);
}

static void op_done(ucx_put *put, ucs_status_t status)
{
    if (status != UCS_OK) put->status = BT_ERR_PEER_LOST;
    assert(put->ops_left > 0);
    if (--put->ops_left == 0) put_finish(put);
}

static void on_op(void *request, ucs_status_t status, void *arg)
{
    ucp_request_free(request);
    op_done(arg, status);
}

/* xfer.c has checked that source lies in one. */
static const ucx_region *region_of(const ucx_xfer *xfer, const uint8_t *source)
{
    for (uint32_t i = 0; i < xfer->region_count; i++) {
        const ucx_region *region = &xfer->regions[i];
        if (source >= region->base && source < region->base + region->bytes) return region;
    }
    assert(false);
    return NULL;
}

static bt_status put_refused(const ucx_peer *peer, ucs_status_t status, bt_err *err)
{
    const char *meaning = peer->xfer->memory->put_refused;
    return BT_FAIL(err, BT_ERR_PEER_LOST, "put: %s%s%s", ucs_status_string(status),
                   meaning != NULL ? ": " : "", meaning != NULL ? meaning : "");
}

bt_status ucx_put_start(bt_xfer_peer *base, const void *source, size_t bytes,
                        uint64_t remote_address, uint64_t tag, bt_err *err)
{
    ucx_peer *peer = (ucx_peer *)base;
    uint32_t lane = peer->lane_next;
    ucp_ep_h ep = peer->lanes[lane].ep;
    assert(peer->lanes[lane].rkey != NULL && !peer->close_issued);
    if (peer->failed) return BT_FAIL(err, BT_ERR_PEER_LOST, "put: %s", peer->why);
    ucx_put *put = peer->puts_free;
    if (put == NULL) return BT_AGAIN;
    ucp_request_param_t param = {.op_attr_mask =
                                     UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                                     UCP_OP_ATTR_FIELD_MEMH | UCP_OP_ATTR_FIELD_MEMORY_TYPE,
                                 .cb = {.send = on_op},
                                 .user_data = put,
                                 .memh = region_of(peer->xfer, source)->handle,
                                 .memory_type = peer->xfer->memory->type};
    ucs_status_ptr_t request =
        ucp_put_nbx(ep, source, bytes, remote_address, peer->lanes[lane].rkey, &param);
    if (UCS_PTR_IS_ERR(request)) return put_refused(peer, UCS_PTR_STATUS(request), err);
    peer->lane_next = (lane + 1) % peer->lane_count;
    peer->puts_free = put->next;
    peer->puts_used++;
    *put = (ucx_put){.peer = peer, .tag = tag, .status = BT_OK, .ops_left = 2, .used = true};
    if (request == NULL) op_done(put, UCS_OK);
    param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
    request = ucp_ep_flush_nbx(ep, &param);
    if (!UCS_PTR_IS_PTR(request)) op_done(put, UCS_PTR_RAW_STATUS(request));
    return BT_OK;
}

static void on_sent(void *request, ucs_status_t status, void *arg)
{
    (void)status; /* a message that is lost is the protocol's to notice */
    ucp_request_free(request);
    send_give(arg);
}

bt_status ucx_send_start(bt_xfer_peer *base, const void *data, size_t bytes, bt_err *err)
{
    ucx_peer *peer = (ucx_peer *)base;
    assert(!peer->close_issued && bytes <= BT_XFER_MESSAGE_BYTES_MAX);
    if (peer->failed) return BT_FAIL(err, BT_ERR_PEER_LOST, "send: %s", peer->why);
    ucx_send *send = send_take(peer);
    if (send == NULL) return BT_AGAIN;
    send->me = peer->me;
    if (bytes > 0) memcpy(send->data, data, bytes);
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
                                                       UCP_OP_ATTR_FIELD_USER_DATA |
                                                       UCP_OP_ATTR_FIELD_FLAGS,
                                       .flags = UCP_AM_SEND_FLAG_EAGER,
                                       .cb = {.send = on_sent},
                                       .user_data = send};
    ucs_status_ptr_t request = ucp_am_send_nbx(peer->lanes[0].ep, UCX_AM_ID, &send->me,
                                               sizeof(send->me), send->data, bytes, &param);
    if (UCS_PTR_IS_PTR(request)) return BT_OK;
    send_give(send);
    if (UCS_PTR_IS_ERR(request))
        return BT_FAIL(err, BT_ERR_PEER_LOST, "send: %s",
                       ucs_status_string(UCS_PTR_STATUS(request)));
    return BT_OK;
}

void ucx_disconnect(bt_xfer_peer *base)
{
    ucx_peer *peer = (ucx_peer *)base;
    ucx_xfer *xfer = peer->xfer;
    ucx_peer **link = &xfer->peers;
    while (*link != NULL && *link != peer) link = &(*link)->next;
    assert(*link == peer);
    *link = peer->next;
    peer->next = xfer->closing;
    xfer->closing = peer;
    xfer->closing_rounds = 0;
    if (peer->failed && !peer->failure_reported) xfer->errors_due--;
    if (!peer->failed) peer->why = "disconnected";
    peer->failed = peer->failure_reported = true; /* a callback cannot put or send any more */

    for (uint32_t i = 0; i < BT_XFER_INFLIGHT_MAX; i++) {
        ucx_put *put = &peer->puts[i];
        if (!put->used || put->reported) continue;
        put->reported = true;
        bt_status status = put->ops_left == 0 ? put->status : BT_ERR_PEER_LOST;
        xfer->base.handler.on_put(xfer->base.handler.arg, base, put->tag, status);
    }
}

static void close_issue(ucx_peer *peer)
{
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                       .flags = UCP_EP_CLOSE_FLAG_FORCE};
    peer->close_issued = true;
    for (uint32_t i = 0; i < peer->lane_count; i++) {
        ucs_status_ptr_t request = ucp_ep_close_nbx(peer->lanes[i].ep, &param);
        peer->lanes[i].close_request = UCS_PTR_IS_PTR(request) ? request : NULL;
    }
}

static bool is_closed(ucx_peer *peer)
{
    bool closed = true;
    for (uint32_t i = 0; i < peer->lane_count; i++) {
        void *request = peer->lanes[i].close_request;
        if (request != NULL && ucp_request_check_status(request) != UCS_INPROGRESS) {
            ucp_request_free(request);
            request = peer->lanes[i].close_request = NULL;
        }
        closed &= request == NULL;
    }
    return closed;
}

void ucx_closing_step(ucx_xfer *xfer)
{
    if (xfer->closing == NULL) return;
    xfer->closing_rounds++;
    for (ucx_peer **link = &xfer->closing; *link != NULL;) {
        ucx_peer *peer = *link;
        if (!peer->close_issued) close_issue(peer);
        if (is_closed(peer) && peer->puts_used == 0 && peer->sends_used == 0) {
            *link = peer->next;
            peer_free(peer);
        } else {
            link = &peer->next;
        }
    }
}

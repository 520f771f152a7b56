/* The public functions: checks that hold for every transport, then the transport's own work. */
#include "common/xfer/transport.h"

#include <assert.h>

bt_status bt_xfer_create(const bt_xfer_config *config, const bt_xfer_handler *handler,
                         bt_xfer **ret_xfer, bt_err *err)
{
    assert(handler->on_message != NULL && handler->on_put != NULL);
    const char *name = config->backend != NULL ? config->backend : "ucx";
    const bt_xfer_ops *ops = bt_xfer_transport_find(name);
    if (ops == NULL) return BT_FAIL(err, BT_ERR_ARGUMENT, "no transport is named '%s'", name);
    bt_xfer *xfer;
    bt_status status = ops->create(config, &xfer, err);
    if (status != BT_OK) return status;
    xfer->ops = ops;
    xfer->handler = *handler;
    *ret_xfer = xfer;
    return BT_OK;
}

void bt_xfer_destroy(bt_xfer *xfer)
{
    if (xfer != NULL) xfer->ops->destroy(xfer);
}

int bt_xfer_fd(const bt_xfer *xfer)
{
    return xfer->ops->fd(xfer);
}

uint64_t bt_xfer_dropped(const bt_xfer *xfer)
{
    return xfer->dropped;
}

unsigned bt_xfer_progress(bt_xfer *xfer)
{
    return xfer->ops->progress(xfer);
}

bt_status bt_xfer_arm(bt_xfer *xfer)
{
    return xfer->ops->arm(xfer);
}

void bt_xfer_worker_address(const bt_xfer *xfer, const uint8_t **ret_address, uint32_t *ret_bytes)
{
    xfer->ops->worker_address(xfer, ret_address, ret_bytes);
}

bt_status bt_xfer_arena_open(bt_xfer *xfer, size_t bytes, uint8_t **ret_base, bt_err *err)
{
    assert(!xfer->has_arena && bytes > 0);
    bt_status status = xfer->ops->arena_open(xfer, bytes, ret_base, err);
    if (status == BT_OK) xfer->has_arena = true;
    return status;
}

void bt_xfer_arena_rkey(const bt_xfer *xfer, const uint8_t **ret_rkey, uint32_t *ret_bytes)
{
    assert(xfer->has_arena);
    xfer->ops->arena_rkey(xfer, ret_rkey, ret_bytes);
}

bt_status bt_xfer_source_open(bt_xfer *xfer, size_t bytes, uint8_t **ret_base, bt_err *err)
{
    assert(bytes > 0);
    if (xfer->source_count == BT_XFER_REGIONS_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "%u source regions are open", BT_XFER_REGIONS_MAX);
    bt_status status = xfer->ops->source_open(xfer, bytes, ret_base, err);
    if (status != BT_OK) return status;
    xfer->sources[xfer->source_count].base = *ret_base;
    xfer->sources[xfer->source_count].bytes = bytes;
    xfer->source_count++;
    return BT_OK;
}

bt_status bt_xfer_connect(bt_xfer *xfer, const uint8_t *worker_address, uint32_t address_bytes,
                          uint64_t me, bt_xfer_peer **ret_peer, bt_err *err)
{
    if (address_bytes > BT_XFER_ADDRESS_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "worker address of %u bytes", address_bytes);
    bt_xfer_peer *peer;
    bt_status status = xfer->ops->connect(xfer, worker_address, address_bytes, me, &peer, err);
    if (status != BT_OK) return status;
    peer->xfer = xfer;
    *ret_peer = peer;
    return BT_OK;
}

bt_status bt_xfer_remote_open(bt_xfer_peer *peer, uint64_t address, size_t bytes,
                              const uint8_t *rkey, uint32_t rkey_bytes, bt_err *err)
{
    assert(peer->remote_bytes == 0);
    uint64_t end;
    if (address == 0 || bytes == 0 || __builtin_add_overflow(address, (uint64_t)bytes, &end))
        return BT_FAIL(err, BT_ERR_FORMAT, "remote arena of %zu bytes at %#llx", bytes,
                       (unsigned long long)address);
    if (rkey_bytes > BT_XFER_RKEY_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "rkey of %u bytes", rkey_bytes);
    bt_status status = peer->xfer->ops->remote_open(peer, rkey, rkey_bytes, err);
    if (status != BT_OK) return status;
    peer->remote_address = address;
    peer->remote_bytes = bytes;
    return BT_OK;
}

const char *bt_xfer_transport(bt_xfer_peer *peer)
{
    return peer->xfer->ops->transport(peer);
}

void bt_xfer_disconnect(bt_xfer_peer *peer)
{
    if (peer != NULL) peer->xfer->ops->disconnect(peer);
}

static bool source_contains(const bt_xfer *xfer, const void *source, size_t bytes)
{
    for (uint32_t i = 0; i < xfer->source_count; i++) {
        uintptr_t base = (uintptr_t)xfer->sources[i].base, at = (uintptr_t)source;
        size_t size = xfer->sources[i].bytes;
        if (at >= base && at - base <= size && bytes <= size - (at - base)) return true;
    }
    return false;
}

bt_status bt_xfer_put(bt_xfer_peer *peer, const void *source, size_t bytes, uint64_t remote_offset,
                      uint64_t tag, bt_err *err)
{
    assert(source_contains(peer->xfer, source, bytes));
    if (bytes == 0 || remote_offset > peer->remote_bytes ||
        bytes > peer->remote_bytes - remote_offset)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "put of %zu bytes at %llu of an arena of %zu", bytes,
                       (unsigned long long)remote_offset, peer->remote_bytes);
    return peer->xfer->ops->put(peer, source, bytes, peer->remote_address + remote_offset, tag,
                                err);
}

bt_status bt_xfer_send(bt_xfer_peer *peer, const void *data, size_t bytes, bt_err *err)
{
    if (bytes > BT_XFER_MESSAGE_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "message of %zu bytes", bytes);
    return peer->xfer->ops->send(peer, data, bytes, err);
}

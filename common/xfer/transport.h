/* transport.h - what a transport implements; only common/xfer includes it.
 *
 * xfer.c checks ranges and sizes before it calls, so a transport sees no put outside the remote
 * arena or the source regions and no message beyond the limit. A transport's own structs begin with
 * these two. */
#ifndef BT_COMMON_XFER_TRANSPORT_H
#define BT_COMMON_XFER_TRANSPORT_H

#include "common/xfer/xfer.h"

typedef struct bt_xfer_ops {
    const char *name;
    bt_status (*create)(const bt_xfer_config *config, bt_xfer **ret_xfer, bt_err *err);
    void (*destroy)(bt_xfer *xfer);
    int (*fd)(const bt_xfer *xfer);
    unsigned (*progress)(bt_xfer *xfer);
    bt_status (*arm)(bt_xfer *xfer);
    void (*worker_address)(const bt_xfer *xfer, const uint8_t **ret_address, uint32_t *ret_bytes);
    bt_status (*arena_open)(bt_xfer *xfer, size_t bytes, uint8_t **ret_base, bt_err *err);
    void (*arena_rkey)(const bt_xfer *xfer, const uint8_t **ret_rkey, uint32_t *ret_bytes);
    bt_status (*source_open)(bt_xfer *xfer, size_t bytes, uint8_t **ret_base, bt_err *err);
    bt_status (*connect)(bt_xfer *xfer, const uint8_t *address, uint32_t address_bytes, uint64_t me,
                         bt_xfer_peer **ret_peer, bt_err *err);
    bt_status (*remote_open)(bt_xfer_peer *peer, const uint8_t *rkey, uint32_t rkey_bytes,
                             bt_err *err);
    const char *(*transport)(bt_xfer_peer *peer);
    void (*disconnect)(bt_xfer_peer *peer);
    bt_status (*put)(bt_xfer_peer *peer, const void *source, size_t bytes, uint64_t remote_address,
                     uint64_t tag, bt_err *err);
    bt_status (*send)(bt_xfer_peer *peer, const void *data, size_t bytes, bt_err *err);
} bt_xfer_ops;

struct bt_xfer {
    const bt_xfer_ops *ops;
    bt_xfer_handler handler;
    struct {
        const uint8_t *base;
        size_t bytes;
    } sources[BT_XFER_REGIONS_MAX];
    uint32_t source_count;
    bool has_arena;
    uint64_t dropped;
};

struct bt_xfer_peer {
    bt_xfer *xfer;
    uint64_t remote_address; /* of the peer's arena, in its own memory */
    size_t remote_bytes;     /* 0 until remote_open */
};

/* The transport of that name, or NULL. Static storage. */
const bt_xfer_ops *bt_xfer_transport_find(const char *name);

#endif

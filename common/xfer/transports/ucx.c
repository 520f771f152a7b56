/* UCX (1.13.1 and later): worker, registered memory, progress and wake-up.
 *
 * What is set here wins over the environment. MM_ERROR_HANDLING=y lets shared memory take part in
 * error handling mode PEER; without it UCX falls back to TCP, silently, at a tenth of the speed. */
#include "common/xfer/transports/ucx.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* Rounds in which a closing peer keeps the loop awake; after that its end waits for other events. */
#define CLOSING_ROUNDS_MAX 10000u

void bt_xfer_version(uint32_t *ret_major, uint32_t *ret_minor)
{
    unsigned major, minor, release;
    ucp_get_version(&major, &minor, &release);
    *ret_major = major;
    *ret_minor = minor;
}

/* Only device memory can be told to do without: host memory is always put by a lane of its own, tcp at
 * worst, while for device memory the last resort is a bounce through messages. UCX knows it since 1.21. */
static bt_status set_emulation(const ucx_memory *memory, const bt_xfer_config *config,
                               ucp_config_t *ucx_config, bt_err *err)
{
    if (memory->type == UCS_MEMORY_TYPE_HOST || config->allow_tcp) return BT_OK;
    if (ucp_config_modify(ucx_config, "PROTO_EMULATION_ENABLE", "n") == UCS_OK) return BT_OK;
    uint32_t major, minor;
    bt_xfer_version(&major, &minor);
    return BT_FAIL(
        err, BT_ERR_VERSION,
        "UCX %u.%u would bounce GPU memory through messages without a word; 1.21 can be told "
        "not to (allow_tcp=yes accepts it)",
        major, minor);
}

static bt_status context_open(const ucx_memory *memory, const bt_xfer_config *config,
                              ucp_context_h *ret_context, bt_err *err)
{
    const char *tls = config->transports != NULL ? config->transports : memory->transports;
    const struct {
        const char *name, *value;
    } settings[] = {
        {"TLS", tls},
        {"MM_ERROR_HANDLING", "y"},
        {"KEEPALIVE_INTERVAL", "200ms"},
        {"RNDV_THRESH", "inf"}, /* messages are small: none may wait for the receiver */
        {"LOG_LEVEL", "fatal"}, /* what goes wrong comes back as a status */
        {"NET_DEVICES", config->net_devices},
    };
    ucp_config_t *ucx_config;
    ucs_status_t status = ucp_config_read(NULL, NULL, &ucx_config);
    if (status != UCS_OK)
        return BT_FAIL(err, BT_ERR_OS, "UCX configuration: %s", ucs_status_string(status));
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        if (settings[i].value == NULL) continue;
        status = ucp_config_modify(ucx_config, settings[i].name, settings[i].value);
        if (status != UCS_OK) {
            ucp_config_release(ucx_config);
            return BT_FAIL(err, BT_ERR_ARGUMENT, "UCX setting %s=%s: %s", settings[i].name,
                           settings[i].value, ucs_status_string(status));
        }
    }
    if (set_emulation(memory, config, ucx_config, err) != BT_OK) {
        ucp_config_release(ucx_config);
        return BT_ERR_VERSION;
    }
    const ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES,
                                 .features = UCP_FEATURE_RMA | UCP_FEATURE_AM | UCP_FEATURE_WAKEUP};
    status = ucp_init(&params, ucx_config, ret_context);
    ucp_config_release(ucx_config);
    if (status != UCS_OK)
        return BT_FAIL(err, BT_ERR_OS, "UCX with transports %s: %s", tls,
                       ucs_status_string(status));
    return BT_OK;
}

static ucs_status_t on_am(void *arg, const void *header, size_t header_bytes, void *data,
                          size_t bytes, const ucp_am_recv_param_t *param)
{
    ucx_xfer *xfer = arg;
    if (xfer->is_ending) return UCS_OK;
    uint64_t sender;
    if (header_bytes != sizeof(sender) || bytes > BT_XFER_MESSAGE_BYTES_MAX ||
        (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0) {
        xfer->base.dropped++;
        return UCS_OK;
    }
    memcpy(&sender, header, sizeof(sender));
    xfer->base.handler.on_message(xfer->base.handler.arg, sender, data, bytes);
    return UCS_OK;
}

static ucs_status_t worker_create(ucx_xfer *xfer)
{
    const ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                        .thread_mode = UCS_THREAD_MODE_SINGLE};
    ucs_status_t status =
        ucp_worker_create(xfer->context, &params, &xfer->workers[xfer->lane_count]);
    if (status == UCS_OK) xfer->lane_count++;
    return status;
}

static bt_status worker_open(ucx_xfer *xfer, bt_err *err)
{
    ucs_status_t status = worker_create(xfer);
    if (status == UCS_OK) status = ucp_worker_get_efd(xfer->workers[0], &xfer->fd);
    const ucp_am_handler_param_t handler = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                      UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG,
        .id = UCX_AM_ID,
        .flags = UCP_AM_FLAG_WHOLE_MSG,
        .cb = on_am,
        .arg = xfer};
    if (status == UCS_OK) status = ucp_worker_set_am_recv_handler(xfer->workers[0], &handler);
    ucp_address_t *address = NULL;
    size_t bytes = 0;
    if (status == UCS_OK) status = ucp_worker_get_address(xfer->workers[0], &address, &bytes);
    if (status != UCS_OK)
        return BT_FAIL(err, BT_ERR_OS, "UCX worker: %s", ucs_status_string(status));
    memcpy(xfer->kind.kind, "BTXA", 4);
    bt_status sealed = BT_ERR_LIMIT;
    if (bytes <= UINT32_MAX)
        sealed = bt_envelope_seal(&xfer->kind, address, (uint32_t)bytes, xfer->address,
                                  sizeof(xfer->address), &xfer->address_bytes, err);
    ucp_worker_release_address(xfer->workers[0], address);
    return sealed;
}

bt_status ucx_create_with(const ucx_memory *memory, const bt_xfer_config *config,
                          bt_xfer **ret_xfer, bt_err *err)
{
    ucx_xfer *xfer = calloc(1, sizeof(*xfer));
    if (xfer == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "transport");
    uint32_t major, minor;
    bt_xfer_version(&major, &minor);
    xfer->kind = (bt_envelope){.ucx_major = (uint16_t)major, .ucx_minor = (uint16_t)minor};
    xfer->memory = memory;
    bt_status status = memory->begin != NULL ? memory->begin(config, err) : BT_OK;
    if (status == BT_OK) status = context_open(memory, config, &xfer->context, err);
    if (status == BT_OK && memory->check != NULL) status = memory->check(xfer, config, err);
    if (status == BT_OK) status = worker_open(xfer, err);
    if (status != BT_OK) {
        ucx_destroy(&xfer->base);
        return status;
    }
    *ret_xfer = &xfer->base;
    return BT_OK;
}

int ucx_fd(const bt_xfer *base)
{
    return ((const ucx_xfer *)base)->fd;
}

void ucx_worker_address(const bt_xfer *base, const uint8_t **ret_address, uint32_t *ret_bytes)
{
    const ucx_xfer *xfer = (const ucx_xfer *)base;
    *ret_address = xfer->address;
    *ret_bytes = xfer->address_bytes;
}

/* Takes memory, registers it, and keeps both for destroy. */
static bt_status memory_open(ucx_xfer *xfer, size_t bytes, ucx_region **ret_region, bt_err *err)
{
    assert(xfer->region_count <= BT_XFER_REGIONS_MAX);
    ucx_region *region = &xfer->regions[xfer->region_count];
    *region = (ucx_region){.bytes = bytes};
    ucp_mem_map_params_t params = {.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS |
                                                 UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                                                 UCP_MEM_MAP_PARAM_FIELD_FLAGS,
                                   .length = bytes,
                                   .flags = UCP_MEM_MAP_ALLOCATE};
    if (xfer->memory->take != NULL) {
        bt_status status = xfer->memory->take(bytes, &region->base, err);
        if (status != BT_OK) return status;
        params.address = region->base;
        params.flags = 0;
        params.field_mask |= UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE;
        params.memory_type = xfer->memory->type;
    }
    xfer->region_count++;
    ucs_status_t status = ucp_mem_map(xfer->context, &params, &region->handle);
    if (status != UCS_OK) {
        region->handle = NULL;
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "UCX cannot map %zu bytes: %s", bytes,
                       ucs_status_string(status));
    }
    ucp_mem_attr_t attr = {.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS};
    status = ucp_mem_query(region->handle, &attr);
    if (status != UCS_OK)
        return BT_FAIL(err, BT_ERR_OS, "UCX memory: %s", ucs_status_string(status));
    region->base = attr.address;
    *ret_region = region;
    return BT_OK;
}

static void memory_close(ucx_xfer *xfer)
{
    for (uint32_t i = 0; i < xfer->region_count; i++) {
        ucx_region *region = &xfer->regions[i];
        if (region->handle != NULL) ucp_mem_unmap(xfer->context, region->handle);
        if (xfer->memory->give != NULL && region->base != NULL) xfer->memory->give(region->base);
    }
}

bt_status ucx_arena_open(bt_xfer *base, size_t bytes, uint8_t **ret_base, bt_err *err)
{
    ucx_xfer *xfer = (ucx_xfer *)base;
    ucx_region *arena;
    bt_status status = memory_open(xfer, bytes, &arena, err);
    if (status != BT_OK) return status;
    void *rkey;
    size_t rkey_bytes;
    ucs_status_t packed = ucp_rkey_pack(xfer->context, arena->handle, &rkey, &rkey_bytes);
    if (packed != UCS_OK) return BT_FAIL(err, BT_ERR_OS, "UCX rkey: %s", ucs_status_string(packed));
    memcpy(xfer->kind.kind, "BTXK", 4);
    status = BT_ERR_LIMIT;
    if (rkey_bytes <= UINT32_MAX)
        status = bt_envelope_seal(&xfer->kind, rkey, (uint32_t)rkey_bytes, xfer->rkey,
                                  sizeof(xfer->rkey), &xfer->rkey_bytes, err);
    ucp_rkey_buffer_release(rkey);
    if (status == BT_OK) *ret_base = arena->base;
    return status;
}

void ucx_arena_rkey(const bt_xfer *base, const uint8_t **ret_rkey, uint32_t *ret_bytes)
{
    const ucx_xfer *xfer = (const ucx_xfer *)base;
    *ret_rkey = xfer->rkey;
    *ret_bytes = xfer->rkey_bytes;
}

/* The workers that only puts use, and a descriptor for all of them. The first worker keeps its own. */
static bt_status lanes_open(ucx_xfer *xfer, bt_err *err)
{
    if (xfer->lane_count == xfer->memory->lanes) return BT_OK;
    ucs_status_t status = UCS_OK;
    while (status == UCS_OK && xfer->lane_count < xfer->memory->lanes) status = worker_create(xfer);
    if (status != UCS_OK)
        return BT_FAIL(err, BT_ERR_OS, "UCX worker: %s", ucs_status_string(status));
    int all = epoll_create1(EPOLL_CLOEXEC);
    if (all < 0) return BT_FAIL(err, BT_ERR_OS, "epoll");
    xfer->fd = all;
    xfer->fd_is_ours = true;
    for (uint32_t i = 0; i < xfer->lane_count; i++) {
        int fd = -1;
        struct epoll_event event = {.events = EPOLLIN};
        status = ucp_worker_get_efd(xfer->workers[i], &fd);
        if (status != UCS_OK || epoll_ctl(all, EPOLL_CTL_ADD, fd, &event) != 0)
            return BT_FAIL(err, BT_ERR_OS, "UCX wake-up: %s", ucs_status_string(status));
    }
    return BT_OK;
}

bt_status ucx_source_open(bt_xfer *base, size_t bytes, uint8_t **ret_base, bt_err *err)
{
    ucx_region *region;
    ucx_xfer *xfer = (ucx_xfer *)base;
    bt_status status = memory_open(xfer, bytes, &region, err);
    if (status == BT_OK) status = lanes_open(xfer, err);
    if (status == BT_OK) *ret_base = region->base;
    return status;
}

/* Reports what was done when it began; a callback that puts again is served by the next round. */
static unsigned done_report(ucx_xfer *xfer)
{
    unsigned count = 0;
    ucx_put *last = xfer->done_last;
    while (xfer->done_first != NULL) {
        ucx_put *put = xfer->done_first;
        xfer->done_first = put->next;
        if (xfer->done_first == NULL) xfer->done_last = NULL;
        bool end = put == last;
        ucx_put_report(put);
        count++;
        if (end) break;
    }
    return count;
}

static unsigned workers_progress(ucx_xfer *xfer)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < xfer->lane_count; i++) count += ucp_worker_progress(xfer->workers[i]);
    return count;
}

void ucx_destroy(bt_xfer *base)
{
    ucx_xfer *xfer = (ucx_xfer *)base;
    assert(!xfer->in_progress);
    while (xfer->peers != NULL) ucx_disconnect(&xfer->peers->base);
    xfer->is_ending = true;
    for (uint32_t i = 0; i < CLOSING_ROUNDS_MAX && xfer->closing != NULL; i++) {
        ucx_closing_step(xfer);
        workers_progress(xfer);
        done_report(xfer);
    }
    /* A peer that UCX still holds now is left allocated, as it may yet call back. */
    memory_close(xfer);
    for (uint32_t i = 0; i < xfer->lane_count; i++) ucp_worker_destroy(xfer->workers[i]);
    if (xfer->fd_is_ours) close(xfer->fd);
    if (xfer->context != NULL) ucp_cleanup(xfer->context);
    free(xfer);
}

static unsigned errors_report(ucx_xfer *xfer)
{
    unsigned count = 0;
    while (xfer->errors_due > 0) {
        ucx_peer *peer = xfer->peers;
        while (peer != NULL && (!peer->failed || peer->failure_reported)) peer = peer->next;
        assert(peer != NULL);
        peer->failure_reported = true;
        xfer->errors_due--;
        count++;
        if (xfer->base.handler.on_peer_error != NULL)
            xfer->base.handler.on_peer_error(xfer->base.handler.arg, &peer->base, peer->why);
    }
    return count;
}

unsigned ucx_progress(bt_xfer *base)
{
    ucx_xfer *xfer = (ucx_xfer *)base;
    assert(!xfer->in_progress);
    xfer->in_progress = true;
    unsigned count = workers_progress(xfer);
    count += done_report(xfer);
    count += errors_report(xfer);
    ucx_closing_step(xfer);
    xfer->in_progress = false;
    return count;
}

bt_status ucx_arm(bt_xfer *base)
{
    ucx_xfer *xfer = (ucx_xfer *)base;
    if (xfer->done_first != NULL || xfer->errors_due > 0) return BT_AGAIN;
    if (xfer->closing != NULL && xfer->closing_rounds < CLOSING_ROUNDS_MAX) return BT_AGAIN;
    for (uint32_t i = 0; i < xfer->lane_count; i++) {
        ucs_status_t status = ucp_worker_arm(xfer->workers[i]);
        if (status != UCS_OK) return status == UCS_ERR_BUSY ? BT_AGAIN : BT_ERR_OS;
    }
    return BT_OK;
}

static const ucx_memory host_memory = {
    .transports = "posix,cma,tcp", .type = UCS_MEMORY_TYPE_HOST, .lanes = 1};

static bt_status ucx_create(const bt_xfer_config *config, bt_xfer **ret_xfer, bt_err *err)
{
    return ucx_create_with(&host_memory, config, ret_xfer, err);
}

const bt_xfer_ops bt_xfer_transport_ucx = {
    .name = "ucx",
    .create = ucx_create,
    .destroy = ucx_destroy,
    .fd = ucx_fd,
    .progress = ucx_progress,
    .arm = ucx_arm,
    .worker_address = ucx_worker_address,
    .arena_open = ucx_arena_open,
    .arena_rkey = ucx_arena_rkey,
    .source_open = ucx_source_open,
    .connect = ucx_connect,
    .remote_open = ucx_remote_open,
    .transport = ucx_transport,
    .disconnect = ucx_disconnect,
    .put = ucx_put_start,
    .send = ucx_send_start,
};

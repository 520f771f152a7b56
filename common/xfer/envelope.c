#include "common/xfer/envelope.h"

#include "common/base/crypto.h"

#include <string.h>

#define CHECKED_BYTES 12u /* of the head */
#define CHECKSUM_BYTES 8u

_Static_assert(CHECKED_BYTES + CHECKSUM_BYTES == BT_ENVELOPE_HEAD_BYTES, "layout");

static void checksum(const uint8_t *head, const void *payload, uint32_t bytes, bt_sha256 *ret_hash)
{
    bt_sha256_stream stream;
    bt_sha256_start(&stream);
    bt_sha256_add(&stream, head, CHECKED_BYTES);
    bt_sha256_add(&stream, payload, bytes);
    bt_sha256_end(&stream, ret_hash);
}

bt_status bt_envelope_seal(const bt_envelope *envelope, const void *payload, uint32_t payload_bytes,
                           uint8_t *ret_sealed, uint32_t capacity, uint32_t *ret_bytes, bt_err *err)
{
    if (capacity < BT_ENVELOPE_HEAD_BYTES || payload_bytes > capacity - BT_ENVELOPE_HEAD_BYTES)
        return BT_FAIL(err, BT_ERR_LIMIT, "%.4s of %u bytes", envelope->kind, payload_bytes);
    memcpy(ret_sealed, envelope->kind, 4);
    ret_sealed[4] = (uint8_t)envelope->ucx_major;
    ret_sealed[5] = (uint8_t)(envelope->ucx_major >> 8);
    ret_sealed[6] = (uint8_t)envelope->ucx_minor;
    ret_sealed[7] = (uint8_t)(envelope->ucx_minor >> 8);
    for (int i = 0; i < 4; i++) ret_sealed[8 + i] = (uint8_t)(payload_bytes >> (8 * i));
    bt_sha256 hash;
    checksum(ret_sealed, payload, payload_bytes, &hash);
    memcpy(ret_sealed + CHECKED_BYTES, hash.bytes, CHECKSUM_BYTES);
    memcpy(ret_sealed + BT_ENVELOPE_HEAD_BYTES, payload, payload_bytes);
    *ret_bytes = BT_ENVELOPE_HEAD_BYTES + payload_bytes;
    return BT_OK;
}

bt_status bt_envelope_open(const bt_envelope *expected, const uint8_t *sealed, uint32_t bytes,
                           const uint8_t **ret_payload, uint32_t *ret_payload_bytes, bt_err *err)
{
    if (bytes <= BT_ENVELOPE_HEAD_BYTES || memcmp(sealed, expected->kind, 4) != 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "%u bytes are no %.4s", bytes, expected->kind);
    uint32_t payload_bytes = 0;
    for (int i = 0; i < 4; i++) payload_bytes |= (uint32_t)sealed[8 + i] << (8 * i);
    if (payload_bytes != bytes - BT_ENVELOPE_HEAD_BYTES)
        return BT_FAIL(err, BT_ERR_FORMAT, "%.4s of %u bytes says %u", expected->kind, bytes,
                       payload_bytes);
    bt_sha256 hash;
    checksum(sealed, sealed + BT_ENVELOPE_HEAD_BYTES, payload_bytes, &hash);
    if (memcmp(sealed + CHECKED_BYTES, hash.bytes, CHECKSUM_BYTES) != 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "%.4s is damaged", expected->kind);
    unsigned major = sealed[4] | (unsigned)sealed[5] << 8,
             minor = sealed[6] | (unsigned)sealed[7] << 8;
    if (major != expected->ucx_major || minor != expected->ucx_minor)
        return BT_FAIL(err, BT_ERR_VERSION, "UCX is %u.%u there and %u.%u here", major, minor,
                       expected->ucx_major, expected->ucx_minor);
    *ret_payload = sealed + BT_ENVELOPE_HEAD_BYTES;
    *ret_payload_bytes = payload_bytes;
    return BT_OK;
}

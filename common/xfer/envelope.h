/* envelope.h - what a worker address and an rkey travel in, because UCX trusts both blindly.
 *
 *     0  4  kind: "BTXA" address, "BTXK" rkey
 *     4  2  UCX major, little-endian      6  2  UCX minor
 *     8  4  bytes of the payload, little-endian
 *    12  8  first bytes of SHA-256 over the 12 before and the payload
 *    20     payload
 *
 * The checksum finds damage, not forgery: see TRUST in xfer.h. */
#ifndef BT_COMMON_XFER_ENVELOPE_H
#define BT_COMMON_XFER_ENVELOPE_H

#include "common/base/status.h"

#include <stdint.h>

#define BT_ENVELOPE_HEAD_BYTES 20u

typedef struct {
    char kind[4];
    uint16_t ucx_major, ucx_minor;
} bt_envelope;

/* Errors: ERR_LIMIT if it does not fit in capacity. */
bt_status bt_envelope_seal(const bt_envelope *envelope, const void *payload, uint32_t payload_bytes,
                           uint8_t *ret_sealed, uint32_t capacity, uint32_t *ret_bytes,
                           bt_err *err);

/* ret_payload points into sealed. Errors: ERR_FORMAT; ERR_VERSION naming both versions. */
bt_status bt_envelope_open(const bt_envelope *expected, const uint8_t *sealed, uint32_t bytes,
                           const uint8_t **ret_payload, uint32_t *ret_payload_bytes, bt_err *err);

#endif

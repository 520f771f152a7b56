/* scan.h - a look over wire bytes before they are unpacked. Private to proto/.
 *
 * protobuf-c 1.4.1 has no limit on fields, elements or memory and keeps the last of two equal
 * fields. The scan follows the schema and refuses what our own encoder never writes: groups, a
 * field twice, two members of a oneof, a wire type that is not the field's. Unknown fields pass (a
 * newer minor may add them) up to a small count. */
#ifndef BT_PROTO_SCAN_H
#define BT_PROTO_SCAN_H

#include "common/base/status.h"

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t fields_max;   /* in the whole message, nested ones included */
    uint32_t elements_max; /* of all repeated fields together */
    uint32_t fields, elements, unknown;
} bt_scan;

/* Errors: ERR_FORMAT, ERR_LIMIT. */
bt_status bt_scan_message(bt_scan *scan, const ProtobufCMessageDescriptor *type,
                          const uint8_t *data, size_t bytes, uint32_t depth, bt_err *err);

/* The first top-level varint fields 1 and 2 and the first field number above 16 of an envelope,
 * whatever else it holds; 0 where there is none. Errors: ERR_FORMAT. */
bt_status bt_scan_envelope(const uint8_t *data, size_t bytes, uint64_t *ret_major,
                           uint64_t *ret_minor, uint32_t *ret_body, bt_err *err);

#endif

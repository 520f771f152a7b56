#include "proto/scan.h"

#include <stdbool.h>

#define DEPTH_MAX 4u
#define UNKNOWN_MAX 16u
#define FIELD_NUMBER_MAX 536870911u

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

typedef struct {
    uint32_t number, wire;
    uint64_t varint;     /* WIRE_VARINT */
    const uint8_t *data; /* WIRE_BYTES */
    size_t bytes;
} bt_field;

/* False at the end of the bytes or beyond ten bytes. */
static bool read_varint(const uint8_t **cursor, const uint8_t *end, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < 10 && *cursor < end; i++) {
        uint8_t byte = *(*cursor)++;
        if (i == 9 && byte > 1) return false;
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static bool read_field(const uint8_t **cursor, const uint8_t *end, bt_field *ret_field)
{
    uint64_t tag, length = 0;
    *ret_field = (bt_field){0};
    if (!read_varint(cursor, end, &tag)) return false;
    if (tag >> 3 == 0 || tag >> 3 > FIELD_NUMBER_MAX) return false;
    ret_field->number = (uint32_t)(tag >> 3);
    ret_field->wire = tag & 7;
    switch (ret_field->wire) {
    case WIRE_VARINT: return read_varint(cursor, end, &ret_field->varint);
    case WIRE_64: length = 8; break;
    case WIRE_32: length = 4; break;
    case WIRE_BYTES:
        if (!read_varint(cursor, end, &length)) return false;
        break;
    default: return false; /* groups, and what does not exist */
    }
    if (length > (size_t)(end - *cursor)) return false;
    ret_field->data = *cursor;
    ret_field->bytes = (size_t)length;
    *cursor += length;
    return true;
}

static uint32_t wire_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT: return WIRE_32;
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE: return WIRE_64;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE: return WIRE_BYTES;
    default: return WIRE_VARINT;
    }
}

/* Elements of a packed field; false if its bytes are not whole elements. */
static bool count_packed(const bt_field *field, uint32_t wire, uint64_t *ret_count)
{
    if (wire == WIRE_32 || wire == WIRE_64) {
        size_t each = wire == WIRE_32 ? 4 : 8;
        *ret_count = field->bytes / each;
        return field->bytes % each == 0;
    }
    const uint8_t *cursor = field->data, *end = cursor + field->bytes;
    uint64_t value;
    *ret_count = 0;
    while (cursor < end) {
        if (!read_varint(&cursor, end, &value)) return false;
        ++*ret_count;
    }
    return true;
}

/* A bit for each field and for each oneof (named by where its case lies). False if set before. */
static bool mark_seen(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *known,
                      uint64_t *seen)
{
    unsigned bit = (unsigned)(known - type->fields);
    if (known->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        for (bit = 0; bit < type->n_fields; bit++)
            if (type->fields[bit].quantifier_offset == known->quantifier_offset) break;
    }
    if (bit >= 64 || (*seen >> bit & 1)) return false;
    *seen |= UINT64_C(1) << bit;
    return true;
}

static bt_status scan_known(bt_scan *scan, const ProtobufCMessageDescriptor *type,
                            const ProtobufCFieldDescriptor *known, const bt_field *field,
                            uint32_t depth, uint64_t *seen, bt_err *err)
{
    uint32_t wire = wire_of(known->type);
    bool repeated = known->label == PROTOBUF_C_LABEL_REPEATED;
    bool packed = repeated && wire != WIRE_BYTES && field->wire == WIRE_BYTES;
    if (field->wire != wire && !packed)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s.%s has wire type %u, expected %u", type->short_name,
                       known->name, field->wire, wire);
    if (!repeated && !mark_seen(type, known, seen))
        return BT_FAIL(err, BT_ERR_FORMAT, "%s.%s comes twice", type->short_name, known->name);
    uint64_t elements = repeated ? 1 : 0;
    if (packed && !count_packed(field, wire, &elements))
        return BT_FAIL(err, BT_ERR_FORMAT, "%s.%s is not whole elements", type->short_name,
                       known->name);
    if (elements > scan->elements_max - scan->elements)
        return BT_FAIL(err, BT_ERR_LIMIT, "%s.%s: more than %u elements", type->short_name,
                       known->name, scan->elements_max);
    scan->elements += (uint32_t)elements;
    if (known->type == PROTOBUF_C_TYPE_MESSAGE)
        return bt_scan_message(scan, known->descriptor, field->data, field->bytes, depth + 1, err);
    return BT_OK;
}

bt_status bt_scan_message(bt_scan *scan, const ProtobufCMessageDescriptor *type,
                          const uint8_t *data, size_t bytes, uint32_t depth, bt_err *err)
{
    if (depth > DEPTH_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "%s is nested deeper than %u", type->short_name,
                       DEPTH_MAX);
    const uint8_t *cursor = data, *end = data + bytes;
    uint64_t seen = 0;
    while (cursor < end) {
        bt_field field;
        if (!read_field(&cursor, end, &field))
            return BT_FAIL(err, BT_ERR_FORMAT, "%s is cut off or malformed at byte %zu",
                           type->short_name, (size_t)(cursor - data));
        if (++scan->fields > scan->fields_max)
            return BT_FAIL(err, BT_ERR_LIMIT, "more than %u fields", scan->fields_max);
        const ProtobufCFieldDescriptor *known =
            protobuf_c_message_descriptor_get_field(type, field.number);
        if (known == NULL) {
            if (++scan->unknown > UNKNOWN_MAX)
                return BT_FAIL(err, BT_ERR_LIMIT, "more than %u unknown fields", UNKNOWN_MAX);
            continue;
        }
        bt_status status = scan_known(scan, type, known, &field, depth, &seen, err);
        if (status != BT_OK) return status;
    }
    return BT_OK;
}

bt_status bt_scan_envelope(const uint8_t *data, size_t bytes, uint64_t *ret_major,
                           uint64_t *ret_minor, uint32_t *ret_body, bt_err *err)
{
    const uint8_t *cursor = data, *end = data + bytes;
    uint64_t major = 0, minor = 0;
    uint32_t body = 0;
    for (uint32_t i = 0; cursor < end && i < 3 + UNKNOWN_MAX + 1; i++) {
        bt_field field;
        if (!read_field(&cursor, end, &field))
            return BT_FAIL(err, BT_ERR_FORMAT, "the envelope is cut off or malformed at byte %zu",
                           (size_t)(cursor - data));
        if (field.number == 1 && field.wire == WIRE_VARINT && major == 0) major = field.varint;
        if (field.number == 2 && field.wire == WIRE_VARINT && minor == 0) minor = field.varint;
        if (field.number > 16 && body == 0) body = field.number;
    }
    *ret_major = major;
    *ret_minor = minor;
    *ret_body = body;
    return BT_OK;
}

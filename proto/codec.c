#include "proto/codec.h"

#include "common/base/arena.h"
#include "proto/convert.h"
#include "proto/scan.h"

#include <assert.h>
#include <string.h>

/* A longest prompt unpacked, and a little; nothing valid needs more. */
#define SCRATCH_BYTES (640u * 1024u)
#define SMALL_BYTES 1024u
#define HELLO_BYTES 2048u
#define FIELDS_MAX 512u
#define WORK_ELEMENTS (BT_CONTEXT_TOKENS_MAX + BT_STOP_IDS_MAX + 2 * BT_LOGIT_BIAS_MAX)

struct bt_codec {
    ProtobufCAllocator allocator;
    bt_pb_room room;
    size_t used_bytes;
    bool exhausted;
    _Alignas(16) uint8_t scratch[SCRATCH_BYTES];
};

/* bytes: of the encoding. elements: of all repeated fields together. */
static const struct {
    uint32_t bytes, elements;
} caps[BT_MSG_KIND_END] = {
    [BT_MSG_HELLO] = {HELLO_BYTES, 0},
    [BT_MSG_WELCOME] = {SMALL_BYTES, 0},
    [BT_MSG_HEARTBEAT] = {SMALL_BYTES, 0},
    [BT_MSG_PAIR] = {SMALL_BYTES, 0},
    [BT_MSG_UNPAIR] = {SMALL_BYTES, 0},
    [BT_MSG_PAIR_STATUS] = {SMALL_BYTES, 0},
    [BT_MSG_PAIR_HELLO] = {HELLO_BYTES + BT_MSG_ADDRESS_BYTES_MAX, 0},
    [BT_MSG_PAIR_ACCEPT] = {HELLO_BYTES + 2 * BT_MSG_ADDRESS_BYTES_MAX, 0},
    [BT_MSG_PAIR_REFUSE] = {SMALL_BYTES, 0},
    [BT_MSG_PREFILL] = {BT_CODEC_BYTES_MAX, WORK_ELEMENTS},
    [BT_MSG_RESERVE] = {BT_CODEC_BYTES_MAX, WORK_ELEMENTS},
    [BT_MSG_RETARGET] = {SMALL_BYTES, 0},
    [BT_MSG_CANCEL] = {SMALL_BYTES, 0},
    [BT_MSG_FIRST_TOKEN] = {SMALL_BYTES, 2 * BT_TOP_LOGPROBS_MAX},
    [BT_MSG_PINNED] = {SMALL_BYTES, 0},
    [BT_MSG_ACCEPTED] = {SMALL_BYTES, 0},
    [BT_MSG_REFUSED] = {SMALL_BYTES, 0},
    [BT_MSG_TOKENS] = {16384, BT_MSG_TOKENS_MAX *(1 + 2 * BT_TOP_LOGPROBS_MAX)},
    [BT_MSG_FINISHED] = {SMALL_BYTES, 0},
    [BT_MSG_EVICTED] = {SMALL_BYTES, 0},
    [BT_MSG_RENEW] = {SMALL_BYTES + 16 * BT_MSG_RENEW_MAX, 0},
    [BT_MSG_TICKET] = {SMALL_BYTES, 0},
    [BT_MSG_SEALED] = {SMALL_BYTES, 0},
    [BT_MSG_CREDIT] = {SMALL_BYTES, 0},
    [BT_MSG_MANIFEST] = {SMALL_BYTES, 2 * BT_TOP_LOGPROBS_MAX},
    [BT_MSG_ABANDON] = {SMALL_BYTES, 0},
    [BT_MSG_QUIESCED] = {SMALL_BYTES, 0},
    [BT_MSG_LEASE_RENEW] = {SMALL_BYTES, 0},
    [BT_MSG_PROMPT_LOGPROBS] = {16384, BT_MSG_TOKENS_MAX *(1 + 2 * BT_TOP_LOGPROBS_MAX)},
};

/* protobuf-c's allocator: bump, nothing is given back before the next decode. */
static void *scratch_alloc(void *arg, size_t bytes)
{
    bt_codec *codec = arg;
    if (bytes > SCRATCH_BYTES) goto full;
    bytes = (bytes + 15) & ~(size_t)15;
    if (bytes > SCRATCH_BYTES - codec->used_bytes) goto full;
    void *memory = codec->scratch + codec->used_bytes;
    codec->used_bytes += bytes;
    return memory;
full:
    codec->exhausted = true;
    return NULL;
}

static void scratch_free(void *arg, void *memory)
{
    (void)arg;
    (void)memory;
}

size_t bt_codec_bytes(void)
{
    return sizeof(bt_codec);
}

bt_codec *bt_codec_init(void *memory)
{
    assert(memory != NULL && (uintptr_t)memory % BT_ARENA_ALIGN == 0);
    bt_codec *codec = memory;
    codec->allocator = (ProtobufCAllocator){scratch_alloc, scratch_free, codec};
    codec->used_bytes = 0;
    codec->exhausted = false;
    return codec;
}

size_t bt_codec_cap(bt_msg_kind kind)
{
    return (unsigned)kind < BT_MSG_KIND_END ? caps[kind].bytes : 0;
}

bt_status bt_codec_encode(const bt_msg *msg, uint8_t *buf, size_t capacity, size_t *ret_bytes,
                          bt_err *err)
{
    bt_status status = bt_msg_check(msg, err);
    if (status != BT_OK) return status;
    bt_pb pb;
    bt_pb_from_msg(msg, &pb);
    size_t bytes = protobuf_c_message_get_packed_size(&pb.envelope.base);
    if (bytes > capacity || bytes > bt_codec_cap(msg->kind))
        return BT_FAIL(err, BT_ERR_LIMIT, "%s takes %zu bytes, at most %zu fit here",
                       bt_msg_name(msg->kind), bytes,
                       capacity < bt_codec_cap(msg->kind) ? capacity : bt_codec_cap(msg->kind));
    size_t packed = protobuf_c_message_pack(&pb.envelope.base, buf);
    assert(packed == bytes);
    *ret_bytes = packed;
    return BT_OK;
}

/* Version, kind and caps, from the wire bytes alone. */
static bt_status admit(const uint8_t *data, size_t bytes, bt_err *err)
{
    uint64_t major, minor;
    uint32_t tag;
    if (bytes > BT_CODEC_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "a message of %zu bytes, at most %u are allowed", bytes,
                       BT_CODEC_BYTES_MAX);
    bt_status status = bt_scan_envelope(data, bytes, &major, &minor, &tag, err);
    if (status != BT_OK) return status;
    if (major != BT_PROTO_MAJOR)
        return BT_FAIL(err, BT_ERR_VERSION, "the peer speaks protocol %llu.%llu, we speak %u.%u",
                       (unsigned long long)major, (unsigned long long)minor, BT_PROTO_MAJOR,
                       BT_PROTO_MINOR);
    uint32_t kind = tag > BT_PB_TAG_OF_KIND ? tag - BT_PB_TAG_OF_KIND : 0;
    if (kind == BT_MSG_NONE || kind >= BT_MSG_KIND_END)
        return BT_FAIL(err, BT_ERR_FORMAT, "a message of unknown kind %u", kind);
    if (bytes > caps[kind].bytes)
        return BT_FAIL(err, BT_ERR_LIMIT, "%s of %zu bytes, at most %u are allowed",
                       bt_msg_name((bt_msg_kind)kind), bytes, caps[kind].bytes);
    bt_scan scan = {.fields_max = FIELDS_MAX, .elements_max = caps[kind].elements};
    return bt_scan_message(&scan, &baton__v1__envelope__descriptor, data, bytes, 0, err);
}

bt_status bt_codec_decode(const void *data, size_t bytes, bt_codec *codec, bt_msg *ret_msg,
                          bt_err *err)
{
    if (bytes == 0) return BT_FAIL(err, BT_ERR_FORMAT, "an empty message");
    bt_status status = admit(data, bytes, err);
    if (status != BT_OK) return status;
    codec->used_bytes = 0;
    codec->exhausted = false;
    const Baton__V1__Envelope *envelope =
        baton__v1__envelope__unpack(&codec->allocator, bytes, data);
    if (envelope == NULL && codec->exhausted)
        return BT_FAIL(err, BT_ERR_LIMIT, "a message of %zu bytes needs more than %u to unpack",
                       bytes, SCRATCH_BYTES);
    if (envelope == NULL) return BT_FAIL(err, BT_ERR_FORMAT, "protobuf refuses the message");
    bt_msg msg;
    const char *wrong = bt_pb_to_msg(envelope, &codec->room, &msg);
    if (wrong != NULL)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s is missing or of a wrong length",
                       bt_msg_name(msg.kind), wrong);
    status = bt_msg_check(&msg, err);
    if (status == BT_OK) *ret_msg = msg;
    return status;
}

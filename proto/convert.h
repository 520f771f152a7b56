/* convert.h - bt_msg <-> the structs that protoc-c makes of baton.proto. Private to proto/.
 *
 * OWNS    bt_pb holds every nested struct of one message to encode, so that building one allocates
 *         nothing; it points into itself and into the bt_msg. */
#ifndef BT_PROTO_CONVERT_H
#define BT_PROTO_CONVERT_H

#include "proto/baton.pb-c.h"
#include "proto/msg.h"

#define BT_PB_TAG_OF_KIND 16u /* tag of a body = this + its bt_msg_kind */

typedef struct {
    Baton__V1__Envelope envelope;
    Baton__V1__Fence fence;
    union {
        Baton__V1__Empty empty;
        Baton__V1__Accepted accepted;
        Baton__V1__Welcome welcome;
        Baton__V1__Heartbeat heartbeat;
        Baton__V1__Pair pair;
        Baton__V1__PairStatus pair_status;
        Baton__V1__PairHello pair_hello;
        Baton__V1__PairAccept pair_accept;
        Baton__V1__PairRefuse pair_refuse;
        Baton__V1__Work work;
        Baton__V1__FirstToken first_token;
        Baton__V1__Refused refused;
        Baton__V1__Tokens tokens;
        Baton__V1__Finished finished;
        Baton__V1__Evicted evicted;
        Baton__V1__Renew renew;
        Baton__V1__Ticket ticket;
        Baton__V1__Sealed sealed;
        Baton__V1__Credit credit;
        Baton__V1__Manifest manifest;
    } body;
    Baton__V1__Hello hello;
    Baton__V1__Sampling sampling;
    Baton__V1__Frame frame;
    Baton__V1__Digest digest;
    Baton__V1__Token token[BT_MSG_TOKENS_MAX];
    Baton__V1__Token *token_list[BT_MSG_TOKENS_MAX];
    uint32_t top_ids[BT_MSG_TOKENS_MAX][BT_TOP_LOGPROBS_MAX];
    float top_logprobs[BT_MSG_TOKENS_MAX][BT_TOP_LOGPROBS_MAX];
    uint32_t bias_ids[BT_LOGIT_BIAS_MAX];
    float bias[BT_LOGIT_BIAS_MAX];
} bt_pb;

/* Arrays of a decoded message that do not lie in the envelope as the cores want them. */
typedef struct {
    bt_token tokens[BT_MSG_TOKENS_MAX];
    bt_logit_bias bias[BT_LOGIT_BIAS_MAX];
} bt_pb_room;

/* msg has passed bt_msg_check. */
void bt_pb_from_msg(const bt_msg *msg, bt_pb *ret_pb);

/* ret_msg borrows from envelope and room. Returns NULL, or the name of the field whose length or
 * presence is wrong; ranges are bt_msg_check's. */
const char *bt_pb_to_msg(const Baton__V1__Envelope *envelope, bt_pb_room *room, bt_msg *ret_msg);

#endif

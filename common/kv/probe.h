/* probe.h - the name under which the pairing probe travels, on both sides of a pair. */
#ifndef BT_COMMON_KV_PROBE_H
#define BT_COMMON_KV_PROBE_H

#include "proto/msg.h"

#define BT_PROBE_TOKENS BT_RUN_TOKENS

/* Routers mint random ids and never this one; a router message with it is dropped. */
extern const bt_request_id bt_probe_request_id;

/* The probe's tokens: spread over the whole vocabulary, the same on every daemon of a model. */
void bt_probe_tokens(uint32_t vocab, uint32_t ret_tokens[BT_PROBE_TOKENS]);

#endif

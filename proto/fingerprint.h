/* fingerprint.h - may this P and this D pair, and in which wire format?
 *
 * WHAT    Compares two Hellos before any UCX address or rkey is unpacked: roles, protocol major,
 * UCX major.minor, fingerprint, shapes, wire formats. Weights may differ in precision and so are
 * not compared; the probe of real KV judges them. Asked by P (of D's Hello) and by D (of P's), and
 * both come to the same answer. */
#ifndef BT_PROTO_FINGERPRINT_H
#define BT_PROTO_FINGERPRINT_H

#include "common/base/status.h"
#include "proto/msg.h"

/* wanted: a format that P's operator asks for; NONE = the default, which is what D stores if P
 * packs it, else the first format of D's own dtype, bf16, f32, fp8, int8 that both have. "raw" is
 * P's own KV dtype. Errors, with both sides' values in the message: ERR_VERSION (protocol, UCX),
 * ERR_ARGUMENT (anything else). */
bt_status bt_fingerprint_agree(const bt_hello *prefill, const bt_hello *decode, bt_dtype wanted,
                               bt_dtype *ret_wire, bt_err *err);

#endif

#include "proto/fingerprint.h"

#include <stdio.h>
#include <string.h>

#define LIST_BYTES 48u
#define NAME_BYTES 41u

/* "f32,bf16" of a set of formats; "none" if empty. */
static const char *list_formats(uint32_t formats, char text[LIST_BYTES])
{
    size_t used = 0;
    snprintf(text, LIST_BYTES, "none");
    for (uint32_t d = BT_DTYPE_NONE + 1; d < BT_DTYPE_COUNT; d++) {
        if (!(formats >> d & 1)) continue;
        int n = snprintf(text + used, LIST_BYTES - used, "%s%s", used > 0 ? "," : "",
                         bt_dtype_name((bt_dtype)d));
        if (n < 0 || (size_t)n >= LIST_BYTES - used) break;
        used += (size_t)n;
    }
    return text;
}

/* The start of a name for an error text: ASCII, so that cutting it cannot break a character. */
static const char *short_name(const char *name, char text[NAME_BYTES])
{
    size_t i = 0;
    for (; i + 1 < NAME_BYTES && name[i] != 0; i++)
        text[i] = name[i] >= ' ' && name[i] <= '~' ? name[i] : '?';
    text[i] = 0;
    return text;
}

static bt_status choose_wire(const bt_hello *p, const bt_hello *d, bt_dtype wanted,
                             bt_dtype *ret_wire, bt_err *err)
{
    const bt_dtype order[] = {d->kv_dtype,       BT_DTYPE_BF16, BT_DTYPE_F32,
                              BT_DTYPE_FP8_E4M3, BT_DTYPE_INT8, BT_DTYPE_F16};
    char p_list[LIST_BYTES], d_list[LIST_BYTES];
    uint32_t common = p->wire_formats & d->wire_formats;
    if (wanted != BT_DTYPE_NONE) {
        if ((unsigned)wanted < BT_DTYPE_COUNT && (common >> wanted & 1)) {
            *ret_wire = wanted;
            return BT_OK;
        }
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "wire format %s is not common: prefill packs %s, decode unpacks %s",
                       bt_dtype_name(wanted), list_formats(p->wire_formats, p_list),
                       list_formats(d->wire_formats, d_list));
    }
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        if (!(common >> order[i] & 1)) continue;
        *ret_wire = order[i];
        return BT_OK;
    }
    return BT_FAIL(err, BT_ERR_ARGUMENT,
                   "no common wire format: prefill packs %s, decode unpacks %s",
                   list_formats(p->wire_formats, p_list), list_formats(d->wire_formats, d_list));
}

static bt_status compare_versions(const bt_hello *p, const bt_hello *d, bt_err *err)
{
    if (p->proto_major != d->proto_major)
        return BT_FAIL(err, BT_ERR_VERSION, "protocol: prefill speaks %u.%u, decode %u.%u",
                       p->proto_major, p->proto_minor, d->proto_major, d->proto_minor);
    if (p->ucx_major != d->ucx_major || p->ucx_minor != d->ucx_minor)
        return BT_FAIL(err, BT_ERR_VERSION,
                       "UCX versions do not mix: prefill has %u.%u, decode %u.%u", p->ucx_major,
                       p->ucx_minor, d->ucx_major, d->ucx_minor);
    return BT_OK;
}

static bt_status compare_shapes(const bt_hello *p, const bt_hello *d, bt_err *err)
{
    const struct {
        const char *name;
        uint32_t p, d;
    } shapes[] = {
        {"layers", p->layers, d->layers},
        {"KV heads", p->kv_heads, d->kv_heads},
        {"head_dim", p->head_dim, d->head_dim},
        {"vocabulary", p->vocab, d->vocab},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        if (shapes[i].p != shapes[i].d)
            return BT_FAIL(err, BT_ERR_ARGUMENT, "%s: prefill has %u, decode %u", shapes[i].name,
                           shapes[i].p, shapes[i].d);
    return BT_OK;
}

bt_status bt_fingerprint_agree(const bt_hello *prefill, const bt_hello *decode, bt_dtype wanted,
                               bt_dtype *ret_wire, bt_err *err)
{
    const bt_hello *p = prefill, *d = decode;
    if (p->role != BT_ROLE_PREFILL || d->role != BT_ROLE_DECODE)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "roles: %u and %u are not prefill and decode",
                       (unsigned)p->role, (unsigned)d->role);
    bt_status status = compare_versions(p, d, err);
    if (status == BT_OK) status = compare_shapes(p, d, err);
    if (status != BT_OK) return status;
    const uint8_t *a = p->fingerprint.bytes, *b = d->fingerprint.bytes;
    if (memcmp(a, b, BT_SHA256_BYTES) != 0) {
        char p_name[NAME_BYTES], d_name[NAME_BYTES];
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "fingerprint: prefill has %02x%02x%02x%02x (model %s), decode "
                       "%02x%02x%02x%02x (model %s)",
                       a[0], a[1], a[2], a[3], short_name(p->model, p_name), b[0], b[1], b[2], b[3],
                       short_name(d->model, d_name));
    }
    return choose_wire(p, d, wanted, ret_wire, err);
}

/* Which P and D may pair, the wire format they agree on, and what the refusals say. */
#include "proto/fingerprint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
/* After the above: cmocka.h needs them. */
#include <cmocka.h>

#define BIT(dtype) (1u << BT_DTYPE_##dtype)

static void make_pair(bt_hello *p, bt_hello *d)
{
    *p = (bt_hello){.proto_major = 1,
                    .role = BT_ROLE_PREFILL,
                    .name = "p0",
                    .model = "demo",
                    .incarnation = 1,
                    .kv_dtype = BT_DTYPE_BF16,
                    .wire_formats = BIT(BF16) | BIT(FP8_E4M3) | BIT(INT8),
                    .layers = 8,
                    .kv_heads = 2,
                    .head_dim = 64,
                    .vocab = 4096,
                    .ucx_major = 1,
                    .ucx_minor = 13};
    *d = *p;
    d->role = BT_ROLE_DECODE;
    d->kv_dtype = BT_DTYPE_FP8_E4M3;
    /* Weights may differ: they are the probe's to judge. */
    d->weights_digest.bytes[0] = 1;
}

static void refused(const bt_hello *p, const bt_hello *d, bt_dtype wanted, bt_status expected,
                    const char *first, const char *second)
{
    bt_dtype wire = BT_DTYPE_NONE;
    bt_err err;
    assert_int_equal(bt_fingerprint_agree(p, d, wanted, &wire, &err), expected);
    assert_int_equal(wire, BT_DTYPE_NONE);
    if (strstr(err.message, first) == NULL || strstr(err.message, second) == NULL)
        fail_msg("'%s' names not both '%s' and '%s'", err.message, first, second);
}

static bt_dtype agreed(const bt_hello *p, const bt_hello *d, bt_dtype wanted)
{
    bt_dtype wire = BT_DTYPE_NONE;
    bt_err err;
    if (bt_fingerprint_agree(p, d, wanted, &wire, &err) != BT_OK) fail_msg("%s", err.message);
    return wire;
}

static void formats(void **state)
{
    (void)state;
    bt_hello p, d;
    make_pair(&p, &d);
    assert_int_equal(agreed(&p, &d, BT_DTYPE_NONE), BT_DTYPE_FP8_E4M3);
    assert_int_equal(agreed(&p, &d, BT_DTYPE_INT8), BT_DTYPE_INT8);
    assert_int_equal(agreed(&p, &d, p.kv_dtype), BT_DTYPE_BF16); /* raw */
    p.wire_formats = BIT(BF16) | BIT(INT8);
    assert_int_equal(agreed(&p, &d, BT_DTYPE_NONE), BT_DTYPE_BF16);
    p.wire_formats = BIT(F32) | BIT(INT8);
    assert_int_equal(agreed(&p, &d, BT_DTYPE_NONE), BT_DTYPE_INT8);
    refused(&p, &d, BT_DTYPE_F32, BT_ERR_ARGUMENT, "packs f32,int8", "unpacks bf16,fp8,int8");
    p.wire_formats = BIT(F32);
    refused(&p, &d, BT_DTYPE_NONE, BT_ERR_ARGUMENT, "packs f32", "unpacks bf16,fp8,int8");
    p.wire_formats = 0;
    refused(&p, &d, BT_DTYPE_NONE, BT_ERR_ARGUMENT, "packs none", "unpacks bf16,fp8,int8");
}

static void differences(void **state)
{
    (void)state;
    bt_hello p, d;
    make_pair(&p, &d);
    refused(&d, &p, BT_DTYPE_NONE, BT_ERR_ARGUMENT, "roles: 3", "2");
    d.proto_major = 2;
    refused(&p, &d, BT_DTYPE_NONE, BT_ERR_VERSION, "1.0", "2.0");
    make_pair(&p, &d);
    d.ucx_minor = 22;
    refused(&p, &d, BT_DTYPE_NONE, BT_ERR_VERSION, "1.13", "1.22");
    make_pair(&p, &d);
    d.layers = 9;
    refused(&p, &d, BT_DTYPE_NONE, BT_ERR_ARGUMENT, "prefill has 8", "decode 9");
    make_pair(&p, &d);
    d.kv_heads = 4;
    refused(&p, &d, BT_DTYPE_NONE, BT_ERR_ARGUMENT, "prefill has 2", "decode 4");
    make_pair(&p, &d);
    d.head_dim = 96;
    refused(&p, &d, BT_DTYPE_NONE, BT_ERR_ARGUMENT, "prefill has 64", "decode 96");
    make_pair(&p, &d);
    d.vocab = 5000;
    refused(&p, &d, BT_DTYPE_NONE, BT_ERR_ARGUMENT, "prefill has 4096", "decode 5000");
    make_pair(&p, &d);
    d.fingerprint.bytes[0] = 0xab;
    snprintf(d.model, sizeof(d.model), "other");
    refused(&p, &d, BT_DTYPE_NONE, BT_ERR_ARGUMENT, "00000000 (model demo)",
            "ab000000 (model other)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats),
        cmocka_unit_test(differences),
    };
    return cmocka_run_group_tests_name("fingerprint", tests, NULL, NULL);
}

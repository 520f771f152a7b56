/* The walk over a record's tiles, shared by all variants, and the choice of the variant. */
#include "kernels/kv_pack/kv_pack.h"

#include <assert.h>
#include <string.h>

#define TILE_BYTES_MAX (BT_KV_TILE_ROWS * BT_HEAD_DIM_MAX * sizeof(float))
#define TILE_SCALES_BYTES (BT_KV_TILE_ROWS * sizeof(uint16_t))

/* In order of preference; the last one runs everywhere. */
static const bt_kv_pack_ops *const variants[] = {
#ifdef __x86_64__
    &bt_kv_pack_avx512,
    &bt_kv_pack_avx2,
#endif
    &bt_kv_pack_ref,
};

/* Where a tile of 16 rows lies on both sides. */
typedef struct {
    uint32_t rows;         /* valid ones, 0 .. 16 */
    size_t codes_at;       /* byte of the tile's codes in the record */
    size_t scales_at;      /* byte of the tile's scales in the record */
    size_t codes_bytes;    /* of the whole tile, wire dtype */
    uint8_t *pool_codes;   /* NULL if rows is 0 */
    uint16_t *pool_scales; /* NULL if the pool's dtype is not scaled */
    const uint32_t *codes_key;
    const uint32_t *scales_key;
} tile;

const bt_kv_pack_ops *bt_kv_pack_best(void)
{
    size_t i = 0;
    while (!variants[i]->runs_here()) i++;
    return variants[i];
}

size_t bt_kv_record_bytes(bt_dtype wire, uint32_t head_dim)
{
    size_t scales = bt_dtype_scaled(wire) ? BT_RUN_TOKENS * sizeof(uint16_t) : 0;
    return (size_t)BT_RUN_TOKENS * head_dim * bt_dtype_bytes(wire) + scales;
}

void bt_kv_digest_key_make(const uint8_t key[BT_KEY_BYTES], size_t record_bytes,
                           bt_kv_digest_key *ret_key)
{
    size_t words_bytes = record_bytes + 4 * sizeof(uint32_t);
    assert(record_bytes % 16 == 0 && words_bytes <= sizeof(ret_key->words));
    /* The pair's key also makes MACs: the digest takes keys of its own from it. */
    static const char names[2][16] = {"kv digest words", "kv digest place"};
    uint8_t words_key[2 * BT_MAC_BYTES];
    bt_mac(key, names[0], sizeof(names[0]), words_key);
    bt_mac(key, names, sizeof(names), words_key + BT_MAC_BYTES);
    bt_key_stream(words_key, ret_key->words, words_bytes);
    bt_mac(key, names[1], sizeof(names[1]), ret_key->prf);
    ret_key->bytes = (uint32_t)record_bytes;
}

static void record_check(const bt_kv_record *record, const bt_kv_digest_key *key)
{
    const bt_kv_shape *shape = &record->kv->shape;
    assert(shape->head_dim > 0 && shape->head_dim <= BT_HEAD_DIM_MAX);
    assert(shape->block_tokens % BT_KV_TILE_ROWS == 0 && BT_RUN_TOKENS % shape->block_tokens == 0);
    assert(record->rows > 0 && record->rows <= BT_RUN_TOKENS);
    assert(key->bytes == bt_kv_record_bytes(record->wire, shape->head_dim));
    (void)shape;
    (void)key;
}

static tile tile_at(const bt_kv_record *record, const bt_kv_digest_key *key, uint32_t row)
{
    const bt_kv_shape *shape = &record->kv->shape;
    size_t row_bytes = shape->head_dim * bt_dtype_bytes(record->wire);
    tile t = {
        .rows = record->rows > row ? record->rows - row : 0,
        .codes_at = row * row_bytes,
        .scales_at = BT_RUN_TOKENS * row_bytes + row * sizeof(uint16_t),
        .codes_bytes = BT_KV_TILE_ROWS * row_bytes,
    };
    if (t.rows > BT_KV_TILE_ROWS) t.rows = BT_KV_TILE_ROWS;
    t.codes_key = key->words + t.codes_at / sizeof(uint32_t);
    t.scales_key = key->words + t.scales_at / sizeof(uint32_t);
    if (t.rows == 0) return t;

    size_t token = (size_t)record->run * BT_RUN_TOKENS + row;
    size_t in_block = token % shape->block_tokens;
    uint8_t *head = bt_kv_at(record->kv, record->blocks[token / shape->block_tokens], record->layer,
                             record->part, record->head);
    t.pool_codes = head + in_block * shape->head_dim * bt_dtype_bytes(shape->dtype);
    if (bt_dtype_scaled(shape->dtype))
        t.pool_scales = (uint16_t *)(head + bt_kv_codes_bytes(shape)) + in_block;
    return t;
}

/* Ties the record's NH to its place and adds it. */
static void sum_add(const bt_kv_record *record, const bt_kv_digest_key *key, const uint64_t nh[2],
                    uint64_t sum[2])
{
    const struct {
        uint64_t nh[2];
        uint32_t bytes, layer, head, run, part, zero;
    } place = {.nh = {nh[0], nh[1]},
               .bytes = key->bytes,
               .layer = record->layer,
               .head = record->head,
               .run = record->run,
               .part = record->part};
    _Static_assert(sizeof(place) == 40, "no padding is hashed");
    uint64_t lanes[2];
    bt_prf128(key->prf, &place, sizeof(place), lanes);
    sum[0] += lanes[0];
    sum[1] += lanes[1];
}

/* Copies the first `valid` bytes, zeroes the rest, sums all of them. */
static void copy_padded(const bt_kv_pack_ops *ops, const uint8_t *src, size_t valid, size_t bytes,
                        const uint32_t *key, uint8_t *dst, uint64_t nh[2])
{
    if (valid == bytes) {
        ops->copy(src, bytes, key, dst, nh);
        return;
    }
    if (valid > 0) memcpy(dst, src, valid);
    memset(dst + valid, 0, bytes - valid);
    ops->sum(dst, bytes, key, nh);
}

static void pack_tile(const bt_kv_pack_ops *ops, const bt_kv_record *record, const tile *t,
                      uint8_t *dst, uint64_t nh[2])
{
    const bt_kv_shape *shape = &record->kv->shape;
    size_t valid = (size_t)t->rows * shape->head_dim * bt_dtype_bytes(record->wire);
    bool scaled = bt_dtype_scaled(record->wire);
    uint8_t *codes = dst + t->codes_at, *scales = dst + t->scales_at;
    if (shape->dtype == record->wire) {
        copy_padded(ops, t->pool_codes, valid, t->codes_bytes, t->codes_key, codes, nh);
        if (scaled)
            copy_padded(ops, (const uint8_t *)t->pool_scales, t->rows * sizeof(uint16_t),
                        TILE_SCALES_BYTES, t->scales_key, scales, nh);
        return;
    }
    if (t->rows > 0) {
        _Alignas(32) float values[BT_KV_TILE_ROWS * BT_HEAD_DIM_MAX];
        ops->decode(shape->dtype, t->pool_codes, t->pool_scales, t->rows, shape->head_dim, values);
        ops->encode(record->wire, values, t->rows, shape->head_dim, codes,
                    scaled ? (uint16_t *)scales : NULL);
    }
    memset(codes + valid, 0, t->codes_bytes - valid);
    ops->sum(codes, t->codes_bytes, t->codes_key, nh);
    if (!scaled) return;
    memset(scales + t->rows * sizeof(uint16_t), 0, TILE_SCALES_BYTES - t->rows * sizeof(uint16_t));
    ops->sum(scales, TILE_SCALES_BYTES, t->scales_key, nh);
}

void bt_kv_pack(const bt_kv_pack_ops *ops, const bt_kv_record *record, const bt_kv_digest_key *key,
                uint8_t *dst, uint64_t sum[2])
{
    record_check(record, key);
    uint64_t nh[2] = {0, 0};
    for (uint32_t row = 0; row < BT_RUN_TOKENS; row += BT_KV_TILE_ROWS) {
        tile t = tile_at(record, key, row);
        pack_tile(ops, record, &t, dst, nh);
    }
    sum_add(record, key, nh, sum);
}

/* Bytes of src straight into the pool if the whole tile is valid, by way of `bounce` if not. */
static void unpack_same(const bt_kv_pack_ops *ops, const uint8_t *src, size_t valid, size_t bytes,
                        const uint32_t *key, uint8_t *pool, uint8_t *bounce, uint64_t nh[2])
{
    if (valid == bytes) {
        ops->land(src, bytes, key, pool, nh);
        return;
    }
    ops->copy(src, bytes, key, bounce, nh);
    if (valid > 0) memcpy(pool, bounce, valid);
}

static void unpack_tile(const bt_kv_pack_ops *ops, const bt_kv_record *record, const tile *t,
                        const uint8_t *src, uint64_t nh[2])
{
    const bt_kv_shape *shape = &record->kv->shape;
    bool scaled = bt_dtype_scaled(record->wire);
    _Alignas(32) uint8_t bounce[TILE_BYTES_MAX];
    _Alignas(32) uint16_t scales[BT_KV_TILE_ROWS];
    if (shape->dtype == record->wire) {
        size_t valid = (size_t)t->rows * shape->head_dim * bt_dtype_bytes(record->wire);
        unpack_same(ops, src + t->codes_at, valid, t->codes_bytes, t->codes_key, t->pool_codes,
                    bounce, nh);
        if (scaled)
            unpack_same(ops, src + t->scales_at, t->rows * sizeof(uint16_t), TILE_SCALES_BYTES,
                        t->scales_key, (uint8_t *)t->pool_scales, (uint8_t *)scales, nh);
        return;
    }
    /* The tile is copied out once, and only the copy is looked at. */
    ops->copy(src + t->codes_at, t->codes_bytes, t->codes_key, bounce, nh);
    if (scaled)
        ops->copy(src + t->scales_at, TILE_SCALES_BYTES, t->scales_key, (uint8_t *)scales, nh);
    if (t->rows == 0) return;
    _Alignas(32) float values[BT_KV_TILE_ROWS * BT_HEAD_DIM_MAX];
    ops->decode(record->wire, bounce, scaled ? scales : NULL, t->rows, shape->head_dim, values);
    ops->encode(shape->dtype, values, t->rows, shape->head_dim, t->pool_codes, t->pool_scales);
}

void bt_kv_unpack(const bt_kv_pack_ops *ops, const bt_kv_record *record,
                  const bt_kv_digest_key *key, const uint8_t *src, uint64_t sum[2])
{
    record_check(record, key);
    uint64_t nh[2] = {0, 0};
    for (uint32_t row = 0; row < BT_RUN_TOKENS; row += BT_KV_TILE_ROWS) {
        tile t = tile_at(record, key, row);
        unpack_tile(ops, record, &t, src, nh);
    }
    sum_add(record, key, nh, sum);
}

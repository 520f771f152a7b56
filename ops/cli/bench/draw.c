#include "ops/cli/bench/draw.h"

#include "common/base/parse.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Two numbers with a mark between them. */
static bool parse_two(const char *text, char mark, double *ret_a, double *ret_b)
{
    char first[32];
    const char *at = strchr(text, mark);
    if (!at || (size_t)(at - text) >= sizeof(first)) return false;
    memcpy(first, text, (size_t)(at - text));
    first[at - text] = '\0';
    return bt_parse_double(first, ret_a, NULL) == BT_OK &&
           bt_parse_double(at + 1, ret_b, NULL) == BT_OK;
}

static bool whole_tokens(double value)
{
    return value >= 1 && value <= BT_DRAW_TOKENS_MAX && value == floor(value);
}

bt_status bt_length_parse(const char *text, bt_length *ret_length, bt_err *err)
{
    bt_length length = {0};
    bool ok = false;
    if (strncmp(text, "uniform:", 8) == 0) {
        length.kind = BT_LENGTH_UNIFORM;
        ok = parse_two(text + 8, '-', &length.a, &length.b) && whole_tokens(length.a) &&
             whole_tokens(length.b) && length.a <= length.b;
    } else if (strncmp(text, "lognormal:", 10) == 0) {
        length.kind = BT_LENGTH_LOGNORMAL;
        ok = parse_two(text + 10, ',', &length.a, &length.b) && length.a >= 1 &&
             length.a <= BT_DRAW_TOKENS_MAX && length.b >= 0 && length.b <= BT_DRAW_TOKENS_MAX;
    } else {
        uint32_t tokens = 0;
        ok = bt_parse_u32(text, BT_DRAW_TOKENS_MAX, &tokens, NULL) == BT_OK && tokens >= 1;
        length.a = length.b = tokens;
    }
    if (!ok) {
        char shown[48];
        bt_escape(text, strlen(text), shown, sizeof(shown));
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "'%s' is no length: N, uniform:A-B or lognormal:MEAN,SD, of 1 to %u tokens",
                       shown, BT_DRAW_TOKENS_MAX);
    }
    *ret_length = length;
    return BT_OK;
}

double bt_draw_normal(bt_rng *rng)
{
    double u = 1 - bt_rng_double(rng), v = bt_rng_double(rng); /* u is never 0 */
    return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

uint32_t bt_length_draw(const bt_length *length, bt_rng *rng)
{
    double tokens = length->a;
    if (length->kind == BT_LENGTH_UNIFORM) {
        tokens += (double)bt_rng_below(rng, (uint64_t)(length->b - length->a) + 1);
    } else if (length->kind == BT_LENGTH_LOGNORMAL) {
        double ratio = length->b / length->a, variance = log(1 + ratio * ratio);
        tokens = round(exp(log(length->a) - variance / 2 + sqrt(variance) * bt_draw_normal(rng)));
    }
    if (!(tokens >= 1)) return 1;
    return tokens > BT_DRAW_TOKENS_MAX ? BT_DRAW_TOKENS_MAX : (uint32_t)tokens;
}

uint32_t bt_length_likely_max(const bt_length *length)
{
    double tokens = length->b;
    if (length->kind == BT_LENGTH_LOGNORMAL) tokens = ceil(length->a + 6 * length->b);
    return tokens > BT_DRAW_TOKENS_MAX ? BT_DRAW_TOKENS_MAX : (uint32_t)tokens;
}

/* Gamma with this shape and scale 1 (Marsaglia and Tsang 2000). A shape below 1 is drawn with one
 * more and scaled by u^(1/shape). */
static double draw_gamma(bt_rng *rng, double shape)
{
    double scale = 1;
    if (shape < 1) {
        scale = pow(1 - bt_rng_double(rng), 1 / shape);
        shape += 1;
    }
    double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) { /* ends after 1.05 turns on average */
        double x = bt_draw_normal(rng), v = 1 + c * x;
        if (v <= 0) continue;
        v = v * v * v;
        double u = 1 - bt_rng_double(rng);
        if (log(u) < x * x / 2 + d - d * v + d * log(v)) return scale * d * v;
    }
}

void bt_arrivals_init(bt_arrivals *arrivals, double rate, double burstiness, uint64_t seed)
{
    *arrivals = (bt_arrivals){.rate = rate, .burstiness = burstiness};
    bt_rng_init(&arrivals->rng, seed);
}

uint64_t bt_arrivals_next_ns(bt_arrivals *arrivals)
{
    double gap = arrivals->burstiness == 1
                     ? -log(1 - bt_rng_double(&arrivals->rng))
                     : draw_gamma(&arrivals->rng, arrivals->burstiness) / arrivals->burstiness;
    arrivals->at_s += gap / arrivals->rate;
    double ns = arrivals->at_s * 1e9;
    return ns < 9e18 ? (uint64_t)ns : (uint64_t)9e18;
}

uint64_t bt_draw_seed(uint64_t seed, uint64_t stream, uint64_t index)
{
    bt_rng rng;
    bt_rng_init(&rng, seed);
    bt_rng_init(&rng, bt_rng_u64(&rng) + stream);
    bt_rng_init(&rng, bt_rng_u64(&rng) + index);
    return bt_rng_u64(&rng);
}

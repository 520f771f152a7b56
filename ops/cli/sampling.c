#include "ops/cli/sampling.h"

#include "common/base/parse.h"

#include <stdlib.h>
#include <string.h>

#define ITEM_BYTES 48u

/* Copies the item at *at, up to the next comma, and moves behind it. False if there is none or it is
 * too long for any number. */
static bool next_item(const char **at, char ret_item[ITEM_BYTES])
{
    if (*at == NULL) return false;
    size_t bytes = strcspn(*at, ",");
    if (bytes >= ITEM_BYTES) bytes = 0; /* reads as an empty item, which is no number */
    memcpy(ret_item, *at, bytes);
    ret_item[bytes] = '\0';
    const char *comma = strchr(*at, ',');
    *at = comma ? comma + 1 : NULL;
    return true;
}

static int by_id(const void *a, const void *b)
{
    const bt_logit_bias *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

bt_status bt_cli_bias_parse(const char *list, bt_logit_bias *rows, bt_sampling *sampling,
                            bt_err *err)
{
    char item[ITEM_BYTES];
    uint32_t count = 0;
    for (const char *at = list; next_item(&at, item); count++) {
        double bias;
        char *colon = strchr(item, ':');
        if (count == BT_LOGIT_BIAS_MAX)
            return BT_FAIL(err, BT_ERR_ARGUMENT, "more than %u biases", BT_LOGIT_BIAS_MAX);
        if (colon) *colon = '\0';
        if (!colon || bt_parse_u32(item, UINT32_MAX, &rows[count].id, NULL) != BT_OK ||
            bt_parse_double(colon + 1, &bias, NULL) != BT_OK)
            return BT_FAIL(err, BT_ERR_ARGUMENT, "biases are written as 5:-100,17:2.5");
        if (!(bias >= -(double)BT_BIAS_MAX && bias <= (double)BT_BIAS_MAX))
            return BT_FAIL(err, BT_ERR_ARGUMENT, "a bias of %g: allowed are -100 to 100", bias);
        rows[count].bias = (float)bias;
    }
    qsort(rows, count, sizeof(rows[0]), by_id);
    for (uint32_t i = 1; i < count; i++)
        if (rows[i].id == rows[i - 1].id)
            return BT_FAIL(err, BT_ERR_ARGUMENT, "token %u has two biases", rows[i].id);
    sampling->bias = rows;
    sampling->bias_count = count;
    return BT_OK;
}

bt_status bt_cli_stop_ids_parse(const char *list, bt_sampling *sampling, bt_err *err)
{
    char item[ITEM_BYTES];
    uint32_t count = 0;
    for (const char *at = list; next_item(&at, item); count++) {
        if (count == BT_STOP_IDS_MAX)
            return BT_FAIL(err, BT_ERR_ARGUMENT, "more than %u stop ids", BT_STOP_IDS_MAX);
        if (bt_parse_u32(item, UINT32_MAX, &sampling->stop_ids[count], NULL) != BT_OK)
            return BT_FAIL(err, BT_ERR_ARGUMENT, "token ids are numbers with commas between them");
    }
    sampling->stop_count = count;
    return BT_OK;
}

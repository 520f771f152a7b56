#include "ops/cli/fetch.h"

#include "ops/cli/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* /fleet asks no daemon: a router that lives answers at once. */
#define FLEET_TIMEOUT_MS 10000u

static bool objects_only(const json_t *array)
{
    size_t i;
    json_t *item;
    if (!json_is_array(array)) return false;
    json_array_foreach((json_t *)array, i, item)
    {
        if (!json_is_object(item)) return false;
    }
    return true;
}

static bt_status parse(const char *url, const bt_client_answer *answer, json_t **ret_fleet,
                       bt_err *err)
{
    json_t *fleet = answer->status == 200
                        ? json_loadb(answer->text, answer->bytes, JSON_REJECT_DUPLICATES, NULL)
                        : NULL;
    if (json_is_object(json_object_get(fleet, "router")) &&
        objects_only(json_object_get(fleet, "daemons")) &&
        objects_only(json_object_get(fleet, "pairs"))) {
        *ret_fleet = fleet;
        return BT_OK;
    }
    json_decref(fleet);
    return BT_FAIL(err, BT_ERR_FORMAT, "%.100s is not a Baton router: /fleet answers %ld", url,
                   answer->status);
}

bt_status bt_fetch_fleet(const char *url, json_t **ret_fleet, bt_err *err)
{
    char full[1024];
    size_t bytes = strlen(url);
    while (bytes > 0 && url[bytes - 1] == '/') bytes--;
    int length = snprintf(full, sizeof(full), "%.*s/fleet", (int)bytes, url);
    if (length < 0 || (size_t)length >= sizeof(full))
        return BT_FAIL(err, BT_ERR_LIMIT, "the URL is too long");
    bt_client *client = NULL;
    bt_client_answer answer = {0};
    bt_status status = bt_client_create(1, NULL, FLEET_TIMEOUT_MS, &client, err);
    if (status == BT_OK) status = bt_client_fetch(client, full, NULL, 0, &answer, err);
    bt_client_destroy(client);
    if (status != BT_OK) return status;
    status = parse(url, &answer, ret_fleet, err);
    free(answer.text);
    return status;
}

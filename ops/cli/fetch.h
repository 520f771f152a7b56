/* fetch.h - what a running router says of its fleet, for the commands that show or judge it. */
#ifndef BT_OPS_CLI_FETCH_H
#define BT_OPS_CLI_FETCH_H

#include "common/base/status.h"

#include <jansson.h>

/* GET url/fleet: an object with "router" (object), "daemons" and "pairs" (arrays of objects); the
 * caller decrefs it. Errors: ERR_PEER_LOST (nobody answers there), ERR_FORMAT (the answer is none
 * of a Baton router's), naming the URL. */
bt_status bt_fetch_fleet(const char *url, json_t **ret_fleet, bt_err *err);

#endif

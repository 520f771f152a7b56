/* listen.h - "ADDRESS:PORT" of a config key, taken apart. */
#ifndef BT_COMMON_DAEMON_LISTEN_H
#define BT_COMMON_DAEMON_LISTEN_H

#include "common/base/status.h"

#include <stdint.h>

typedef struct {
    char address[48]; /* literal IPv4, or IPv6 without its brackets */
    uint16_t port;
} bt_listen;

/* "127.0.0.1:8000", "[::1]:0". Errors: ERR_ARGUMENT quoting the text. */
bt_status bt_listen_parse(const char *text, bt_listen *ret_listen, bt_err *err);

#endif

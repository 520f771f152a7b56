/* control.h - the keys and the ZeroMQ context of a daemon's control sockets, from its two key files. */
#ifndef BT_COMMON_DAEMON_CONTROL_H
#define BT_COMMON_DAEMON_CONTROL_H

#include "common/loop/zsock.h"

typedef struct {
    bt_zkeypair keys;    /* ours; empty without a key file */
    bt_zap_table *table; /* who may talk to us; NULL without a keys file */
    bt_zctx *zctx;
} bt_control;

/* Either path may be "": plain sockets, loopback only. */
bt_status bt_control_open(bt_control *control, const char *key_file, const char *keys_file,
                          bt_err *err);
/* Half-opened is fine. The loop is destroyed before. */
void bt_control_close(bt_control *control);

#endif

#include "common/daemon/control.h"

bt_status bt_control_open(bt_control *control, const char *key_file, const char *keys_file,
                          bt_err *err)
{
    bt_status status = BT_OK;
    bool keys = key_file[0] != '\0';
    if (keys) status = bt_zkeypair_load(key_file, &control->keys, err);
    if (status == BT_OK && keys_file[0] != '\0')
        status = bt_zap_table_load(keys_file, &control->table, err);
    if (status == BT_OK)
        status = bt_zctx_create(keys ? &control->keys : NULL, control->table, &control->zctx, err);
    return status;
}

void bt_control_close(bt_control *control)
{
    bt_zctx_destroy(control->zctx);
    bt_zap_table_destroy(control->table);
}

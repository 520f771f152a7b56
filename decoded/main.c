/* main.c - baton-decoded. */
#include "common/daemon/reload.h"
#include "decoded/config.h"
#include "decoded/shell.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    static bt_decoded_config config;
    int exit_code;
    if (!bt_daemon_args(argc, argv, &bt_decoded_spec, &config, &exit_code)) return exit_code;
    const bt_reload reload = {argc, argv, &bt_decoded_spec, &config, &config.worker.log_level};
    bt_decoded *daemon = NULL;
    bt_err err = {0};
    bt_status status = bt_decoded_create(&config, &reload, &daemon, &err);
    if (status == BT_OK) status = bt_decoded_run(daemon, &err);
    bt_decoded_destroy(daemon);
    if (status == BT_OK) return 0;
    fprintf(stderr, "baton-decoded: %s\n", err.message);
    return 1;
}

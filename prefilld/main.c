/* main.c - baton-prefilld. */
#include "common/daemon/reload.h"
#include "prefilld/config.h"
#include "prefilld/shell.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    static bt_prefilld_config config;
    int exit_code;
    if (!bt_daemon_args(argc, argv, &bt_prefilld_spec, &config, &exit_code)) return exit_code;
    const bt_reload reload = {argc, argv, &bt_prefilld_spec, &config, &config.worker.log_level};
    bt_prefilld *daemon = NULL;
    bt_err err = {0};
    bt_status status = bt_prefilld_create(&config, &reload, &daemon, &err);
    if (status == BT_OK) status = bt_prefilld_run(daemon, &err);
    bt_prefilld_destroy(daemon);
    if (status == BT_OK) return 0;
    fprintf(stderr, "baton-prefilld: %s\n", err.message);
    return 1;
}

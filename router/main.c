/* main.c - baton-router. */
#include "common/daemon/reload.h"
#include "router/config.h"
#include "router/shell.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    static bt_router_options options;
    int exit_code;
    if (!bt_daemon_args(argc, argv, &bt_router_spec, &options, &exit_code)) return exit_code;
    const bt_reload reload = {argc, argv, &bt_router_spec, &options, &options.log_level};
    bt_router *router = NULL;
    bt_err err = {0};
    bt_status status = bt_router_create(&options, &reload, &router, &err);
    if (status == BT_OK) status = bt_router_run(router, &err);
    bt_router_destroy(router);
    if (status == BT_OK) return 0;
    fprintf(stderr, "baton-router: %s\n", err.message);
    return 1;
}

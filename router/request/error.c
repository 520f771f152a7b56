#include "router/request/error.h"

#include <stdarg.h>
#include <stdio.h>

bool bt_api_refuse(bt_api_error *error, const char *param, const char *fmt, ...)
{
    *error = (bt_api_error){.http_status = 400, .type = "invalid_request_error"};
    snprintf(error->param, sizeof(error->param), "%s", param);
    va_list args;
    va_start(args, fmt);
    vsnprintf(error->message, sizeof(error->message), fmt, args);
    va_end(args);
    return false;
}

bool bt_api_no_memory(bt_api_error *error)
{
    *error = (bt_api_error){.http_status = 503,
                            .type = "server_error",
                            .code = "no_memory",
                            .message = "out of memory"};
    return false;
}

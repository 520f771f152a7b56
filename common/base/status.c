#include "common/base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

const char *bt_status_name(bt_status status)
{
    switch (status) {
#define X(name, value, scope, text)                                                                \
    case BT_##name: return "BT_" #name;
        BT_STATUS_LIST(X)
#undef X
    }
    return "BT_?";
}

const char *bt_status_text(bt_status status)
{
    switch (status) {
#define X(name, value, scope, text)                                                                \
    case BT_##name: return text;
        BT_STATUS_LIST(X)
#undef X
    }
    return "unknown status";
}

bt_scope bt_status_scope(bt_status status)
{
    switch (status) {
#define X(name, value, scope, text)                                                                \
    case BT_##name: return BT_SCOPE_##scope;
        BT_STATUS_LIST(X)
#undef X
    }
    return BT_SCOPE_PROCESS;
}

bt_status bt_err_set(bt_err *err, bt_status status, const char *where, const char *fmt, ...)
{
    if (err == NULL) return status;
    err->status = status;
    err->os_errno = (status == BT_ERR_OS) ? errno : 0;
    err->cuda_error = 0;
    err->where = where;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message, sizeof(err->message), fmt, args);
    va_end(args);
    return status;
}

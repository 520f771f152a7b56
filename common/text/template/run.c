#include "common/text/template/run.h"

#include <stdarg.h>
#include <stdio.h>

bool bt_tpl_fail(bt_tpl_run *run, bt_status status, const char *fmt, ...)
{
    if (run->status != BT_OK) return false;
    run->status = status;
    char message[160];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    bt_err_set(run->err, status, "template", "%.60s:%u: %s", run->label, run->line, message);
    return false;
}

bool bt_tpl_steps(bt_tpl_run *run, uint64_t steps)
{
    if (steps <= run->steps_left) {
        run->steps_left -= steps;
        return true;
    }
    run->steps_left = 0;
    return bt_tpl_fail(run, BT_ERR_LIMIT, "the template takes more than %llu steps",
                       (unsigned long long)run->limits.steps);
}

bool bt_tpl_steps_bytes(bt_tpl_run *run, size_t bytes)
{
    return bytes < 64 || bt_tpl_steps(run, bytes / 64);
}

bool bt_tpl_steps_items(bt_tpl_run *run, size_t items)
{
    return items < 8 || bt_tpl_steps(run, items / 8);
}

bool bt_tpl_enter(bt_tpl_run *run)
{
    if (run->depth >= run->limits.depth)
        return bt_tpl_fail(run, BT_ERR_LIMIT, "more than %u levels deep", run->limits.depth);
    run->depth++;
    return true;
}

void bt_tpl_leave(bt_tpl_run *run)
{
    run->depth--;
}

bool bt_tpl_no_room(bt_tpl_run *run)
{
    if (run->budget.no_memory) return bt_tpl_fail(run, BT_ERR_NO_MEMORY, "out of memory");
    return bt_tpl_fail(run, BT_ERR_LIMIT, "the template takes more than %zu bytes of memory",
                       run->limits.memory_bytes);
}

void *bt_tpl_take(bt_tpl_run *run, size_t count, size_t size)
{
    void *piece = bt_tpl_arena_take(&run->objects, count, size);
    if (piece == NULL) bt_tpl_no_room(run);
    return piece;
}

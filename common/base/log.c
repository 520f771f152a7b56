#include "common/base/log.h"
#include "common/base/limits.h"
#include "common/base/parse.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CAP_PLACES 256u /* power of two; a place that finds no room is not capped */
#define CAP_PROBES 8u
#define REQUEST_BYTES_MAX 80u

/* How often one place in the source logged in its present second. */
typedef struct {
    const char *where;
    uint64_t since_ns;
    uint32_t lines;
    uint32_t left_out;
} cap_place;

static struct {
    _Atomic int level;
    int fd;
    bool priority;
    char name[BT_NAME_BYTES_MAX];
    pthread_mutex_t lock; /* of what follows */
    bt_clock clock;
    cap_place places[CAP_PLACES];
} logger = {
    .level = BT_LOG_WARNING,
    .fd = STDERR_FILENO,
    .name = "baton",
    .lock = PTHREAD_MUTEX_INITIALIZER,
};

const char *const bt_log_level_names[] = {"error", "warning", "info", "debug", NULL};

static const bt_log_level levels[] = {BT_LOG_ERROR, BT_LOG_WARNING, BT_LOG_INFO, BT_LOG_DEBUG};
#define LEVEL_COUNT (sizeof(levels) / sizeof(levels[0]))
_Static_assert(sizeof(bt_log_level_names) / sizeof(bt_log_level_names[0]) == LEVEL_COUNT + 1,
               "every level has a name");

bt_log_level bt_log_level_at(unsigned index)
{
    assert(index < LEVEL_COUNT);
    return levels[index];
}

static const char *level_name(bt_log_level level)
{
    for (unsigned i = 0; i < LEVEL_COUNT; i++) {
        if (levels[i] == level) return bt_log_level_names[i];
    }
    return "?";
}

static bool wants_priority(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode));
}

void bt_log_start(const bt_log_config *config)
{
    assert(config->fd >= 0);
    pthread_mutex_lock(&logger.lock);
    bt_escape(config->name, strlen(config->name), logger.name, sizeof(logger.name));
    logger.fd = config->fd;
    logger.priority = config->style == BT_LOG_PRIORITY ||
                      (config->style == BT_LOG_AUTO && wants_priority(config->fd));
    memset(logger.places, 0, sizeof(logger.places));
    pthread_mutex_unlock(&logger.lock);
    bt_log_set_level(config->level);
}

void bt_log_set_level(bt_log_level level)
{
    atomic_store_explicit(&logger.level, (int)level, memory_order_relaxed);
}

void bt_log_set_clock(const bt_clock *clock)
{
    pthread_mutex_lock(&logger.lock);
    logger.clock = clock != NULL ? *clock : (bt_clock){0};
    pthread_mutex_unlock(&logger.lock);
}

/* The cap's record of this place, or NULL if there is no room for it. Called with the lock. */
static cap_place *find_place(const char *where, uint64_t now_ns)
{
    uint32_t hash = (uint32_t)((uintptr_t)where * 0x9e3779b97f4a7c15u >> 32);
    cap_place *stale = NULL;
    for (uint32_t probe = 0; probe < CAP_PROBES; probe++) {
        cap_place *place = &logger.places[(hash + probe) & (CAP_PLACES - 1)];
        if (place->where == where) return place;
        bool over = now_ns - place->since_ns >= BT_NS_PER_S && place->left_out == 0;
        if (stale == NULL && (place->where == NULL || over)) stale = place;
    }
    if (stale != NULL) *stale = (cap_place){.where = where, .since_ns = now_ns};
    return stale;
}

/* May this place log now? Tells how many of its lines were left out before. Called with the lock.
 */
static bool allow(const char *where, uint32_t *ret_left_out)
{
    uint64_t now_ns = logger.clock.now != NULL ? bt_clock_now_ns(&logger.clock) : bt_monotonic_ns();
    *ret_left_out = 0;
    cap_place *place = find_place(where, now_ns);
    if (place == NULL) return true;
    if (now_ns - place->since_ns >= BT_NS_PER_S) {
        *ret_left_out = place->left_out;
        *place = (cap_place){.where = where, .since_ns = now_ns};
    }
    if (place->lines >= BT_LOG_BURST) {
        if (place->left_out < UINT32_MAX) place->left_out++;
        return false;
    }
    place->lines++;
    return true;
}

static size_t add(char *line, size_t used, size_t capacity, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Appends to line; the new length, never beyond capacity - 1. */
static size_t add(char *line, size_t used, size_t capacity, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int bytes = vsnprintf(line + used, capacity - used, fmt, args);
    va_end(args);
    if (bytes < 0) return used;
    size_t end = used + (size_t)bytes;
    return end < capacity ? end : capacity - 1;
}

/* Time, level, name and request: everything before the message. */
static size_t begin_line(char *line, size_t capacity, bt_log_level level, const char *request)
{
    uint64_t wall_ns = bt_wall_ns();
    time_t wall_s = (time_t)(wall_ns / BT_NS_PER_S);
    struct tm utc;
    gmtime_r(&wall_s, &utc);
    char date[32];
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc);
    size_t used = 0;
    if (logger.priority) used = add(line, used, capacity, "<%d>", (int)level);
    used = add(line, used, capacity, "%s.%06uZ %s %s ", date,
               (unsigned)(wall_ns % BT_NS_PER_S / 1000), level_name(level), logger.name);
    if (request == NULL) return used;
    char id[REQUEST_BYTES_MAX];
    return add(line, used, capacity, "[req %s] ",
               bt_escape(request, strlen(request), id, sizeof(id)));
}

static void write_all(const char *line, size_t bytes)
{
    while (bytes > 0) {
        ssize_t written = write(logger.fd, line, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return; /* nowhere left to say it */
        line += written;
        bytes -= (size_t)written;
    }
}

void bt_log_write(bt_log_level level, const char *where, const char *request, const char *fmt, ...)
{
    if ((int)level > atomic_load_explicit(&logger.level, memory_order_relaxed)) return;
    int saved_errno = errno;
    uint32_t left_out = 0;
    if (level != BT_LOG_DEBUG) {
        pthread_mutex_lock(&logger.lock);
        bool allowed = allow(where, &left_out);
        pthread_mutex_unlock(&logger.lock);
        if (!allowed) {
            errno = saved_errno;
            return;
        }
    }
    char message[BT_LOG_LINE_BYTES_MAX], line[BT_LOG_LINE_BYTES_MAX];
    va_list args;
    va_start(args, fmt);
    int bytes = vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    if (bytes < 0) message[0] = '\0';

    /* The tail is measured first, so that a long message is cut and not the tail. */
    char tail[64] = "\n";
    if (left_out > 0) snprintf(tail, sizeof(tail), " [%u more like this left out]\n", left_out);
    size_t room = sizeof(line) - strlen(tail);
    size_t used = begin_line(line, room, level, request);
    if (room - used > 4) {
        bt_escape(message, strlen(message), line + used, room - used);
        used += strlen(line + used);
    }
    memcpy(line + used, tail, strlen(tail));
    write_all(line, used + strlen(tail));
    errno = saved_errno;
}

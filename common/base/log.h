/* log.h - the log of a daemon: lines on stderr, where the journal, a file or a person reads them.
 *
 *     <6>2026-11-23T20:15:00.123456Z info decoded-0 [req 4f1d…] accepted, 512 tokens
 *
 * `<N>` is the syslog priority that the journal understands; it is left out on a terminal and in a
 * regular file. The request part is there when a request id is given. Whatever the message holds,
 * one call is one line: control characters and the like are written as \n or \xNN (bt_escape).
 *
 * WHO     Daemons log, once, where a failure stops. Libraries return bt_err and log at most debug.
 *         Prompts, outputs and secrets are never logged.
 * THREADS Any thread may log; a line is one write(2). The logger is the only mutable global of
 *         Baton. Until bt_log_start it writes warnings and errors under the name "baton".
 * BOUNDS  A line is at most BT_LOG_LINE_BYTES_MAX, the rest is cut. One place in the source may log
 *         BT_LOG_BURST lines a second; what is over is counted and told with its next line. Debug
 *         lines are not capped: who turned them on wants them. A stderr that nobody reads blocks
 *         the writer, as it does for every service. */
#ifndef BT_COMMON_BASE_LOG_H
#define BT_COMMON_BASE_LOG_H

#include "common/base/clock.h"
#include "common/base/status.h"

#define BT_LOG_LINE_BYTES_MAX 1024u
#define BT_LOG_BURST 20u

/* Values are the syslog priorities. */
typedef enum {
    BT_LOG_ERROR = 3,
    BT_LOG_WARNING = 4,
    BT_LOG_INFO = 6,
    BT_LOG_DEBUG = 7,
} bt_log_level;

typedef enum {
    BT_LOG_AUTO,     /* PRIORITY on a pipe or socket, PLAIN on a terminal or in a file */
    BT_LOG_PLAIN,    /* without <N> */
    BT_LOG_PRIORITY, /* with <N> */
} bt_log_style;

typedef struct {
    const char *name; /* of the daemon; copied, at most BT_NAME_BYTES_MAX */
    bt_log_level level;
    bt_log_style style;
    int fd; /* STDERR_FILENO; borrowed */
} bt_log_config;

/* Before the threads of the daemon start. May be called again (tests). */
void bt_log_start(const bt_log_config *config);

/* From any thread, at any time: a reload may change it. */
void bt_log_set_level(bt_log_level level);

/* The names of levels as config files use them: error, warning, info, debug; NULL at the end. */
extern const char *const bt_log_level_names[];

/* The level of bt_log_level_names[index]. */
bt_log_level bt_log_level_at(unsigned index);

/* request: id as text, or NULL for a line that is about no request. */
#define bt_log_error(request, ...)                                                                 \
    bt_log_write(BT_LOG_ERROR, __FILE__ ":" BT_STR(__LINE__), (request), __VA_ARGS__)
#define bt_log_warning(request, ...)                                                               \
    bt_log_write(BT_LOG_WARNING, __FILE__ ":" BT_STR(__LINE__), (request), __VA_ARGS__)
#define bt_log_info(request, ...)                                                                  \
    bt_log_write(BT_LOG_INFO, __FILE__ ":" BT_STR(__LINE__), (request), __VA_ARGS__)
#define bt_log_debug(request, ...)                                                                 \
    bt_log_write(BT_LOG_DEBUG, __FILE__ ":" BT_STR(__LINE__), (request), __VA_ARGS__)

/* where: static storage, the identity of the place for the cap. errno is preserved. */
void bt_log_write(bt_log_level level, const char *where, const char *request, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The clock of the cap, for tests; NULL is the real one. */
void bt_log_set_clock(const bt_clock *clock);

#endif

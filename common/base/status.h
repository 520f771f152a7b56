/* status.h - every outcome a function can report, and the detail behind a failure.
 *
 * Statuses > 0 are not failures: the call is pending or must be tried again.
 * Failures are grouped by the largest thing that is now unusable, so a caller
 * can pick its recovery from the group alone (see bt_status_scope). */
#ifndef BT_COMMON_BASE_STATUS_H
#define BT_COMMON_BASE_STATUS_H

#include <stdint.h>

/* name, value, scope, text.  Add a status here and nowhere else. */
/* clang-format off */
#define BT_STATUS_LIST(X)                                                   \
    X(IN_PROGRESS,      2, NONE,    "started, completion follows")          \
    X(AGAIN,            1, NONE,    "full or not ready, try again later")   \
    X(OK,               0, NONE,    "ok")                                   \
    X(ERR_ARGUMENT,    -1, REQUEST, "a value from outside is not valid")    \
    X(ERR_LIMIT,       -2, REQUEST, "a configured limit was exceeded")      \
    X(ERR_DEADLINE,    -3, REQUEST, "the deadline passed")                  \
    X(ERR_CANCELLED,   -4, REQUEST, "cancelled")                            \
    X(ERR_FORMAT,      -5, REQUEST, "bytes do not follow their format")     \
    X(ERR_PEER_LOST,  -20, PEER,    "the peer closed or stopped answering") \
    X(ERR_VERSION,    -21, PEER,    "the peer speaks another version")      \
    X(ERR_DEVICE,     -40, DEVICE,  "a GPU call failed")                    \
    X(ERR_NO_MEMORY,  -60, PROCESS, "out of memory")                        \
    X(ERR_OS,         -61, PROCESS, "a system call failed")

/* clang-format on */

typedef enum {
#define X(name, value, scope, text) BT_##name = (value),
    BT_STATUS_LIST(X)
#undef X
} bt_status;

typedef enum {
    BT_SCOPE_NONE,
    BT_SCOPE_REQUEST,
    BT_SCOPE_PEER,
    BT_SCOPE_DEVICE,
    BT_SCOPE_PROCESS
} bt_scope;

/* Filled once, by the function that first decides which failure it is.
 * Functions above it pass it through untouched. */
typedef struct {
    bt_status status;
    int os_errno;      /* errno, or 0 */
    int cuda_error;    /* cudaError_t, or 0 */
    const char *where; /* "file.c:123", static storage */
    char message[192];
} bt_err;

const char *bt_status_name(bt_status status);
const char *bt_status_text(bt_status status);
bt_scope bt_status_scope(bt_status status);

/* Fills *err (which may be NULL) and returns status, so failing is one line:
 *     return BT_FAIL(err, BT_ERR_FORMAT, "header is %u bytes", n); */
bt_status bt_err_set(bt_err *err, bt_status status, const char *where, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#define BT_STR_(x) #x
#define BT_STR(x) BT_STR_(x)
#define BT_FAIL(err, status, ...)                                                                  \
    bt_err_set((err), (status), __FILE__ ":" BT_STR(__LINE__), __VA_ARGS__)

#endif

/* error.h - what went wrong with a request, in OpenAI's terms. Pure. */
#ifndef BT_ROUTER_REQUEST_ERROR_H
#define BT_ROUTER_REQUEST_ERROR_H

#include <stdbool.h>
#include <stddef.h>

#define BT_API_PARAM_BYTES_MAX 96u

typedef struct {
    int http_status;                    /* 400, 404, 405, 413, 415, 429, 500, 503 */
    const char *allow;                  /* of 405: the method that the path has */
    const char *type;                   /* "invalid_request_error", … */
    const char *code;                   /* "context_length_exceeded", …, or NULL */
    char param[BT_API_PARAM_BYTES_MAX]; /* path of the field, "messages[1].content", or "" */
    char message[320];
} bt_api_error;

/* 400 about a field; later callers may change status and code. Returns false. What of the client's
 * text goes into the message is made printable by the caller (bt_escape). */
bool bt_api_refuse(bt_api_error *error, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* 503: we have no memory for it. Returns false. */
bool bt_api_no_memory(bt_api_error *error);

#endif

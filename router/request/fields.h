/* fields.h - the fields of a JSON object from a client, one at a time, with errors that name them.
 *
 * FLOW    bt_body_parse -> bt_fields of the root -> bt_take_… -> json_decref(root)
 * TAKE    A field that is absent or null leaves the value as it was: set the default before. One of
 *         the wrong type or out of range is an error whose param is the field's path.
 * BOUNDS  A body nests at most BT_BODY_DEPTH_MAX deep and has at most BT_BODY_CONTAINERS_MAX objects
 *         and arrays: what is parsed then takes memory in proportion to its bytes. Its bytes are the
 *         HTTP server's to bound. The same holds for JSON inside its texts that is parsed later: all
 *         of it together. */
#ifndef BT_ROUTER_REQUEST_FIELDS_H
#define BT_ROUTER_REQUEST_FIELDS_H

#include "router/request/error.h"

#include <jansson.h>
#include <stdint.h>

#define BT_BODY_DEPTH_MAX 64u
#define BT_BODY_CONTAINERS_MAX 65536u

/* The root of a body: a JSON object without a key twice, of valid UTF-8 without lone surrogates and
 * NUL. Owned by the caller. */
bool bt_body_parse(const char *body, size_t bytes, json_t **ret_root, bt_api_error *error);

/* What bt_body_parse checks first, of any JSON; *containers goes on counting. param is the field, or ""
 * for the body. */
bool bt_check_shape(const char *json, size_t bytes, const char *param, uint32_t *containers,
                    bt_api_error *error);

typedef struct {
    const json_t *object;
    const char *path; /* of the object: "" for the body, "stream_options", "messages[3]" */
    bt_api_error *error;
} bt_fields;

/* The path of a field, as errors have it: "stream_options.include_usage". */
typedef struct {
    char text[BT_API_PARAM_BYTES_MAX];
} bt_field_path;
bt_field_path bt_path_of(const bt_fields *fields, const char *name);
bt_field_path bt_path_at(const char *path, size_t index); /* "messages[3]" */

/* The value, or NULL if it is absent or null. */
const json_t *bt_field(const bt_fields *fields, const char *name);

bool bt_take_number(const bt_fields *fields, const char *name, double min, double max,
                    double *ret_value);
bool bt_take_integer(const bt_fields *fields, const char *name, int64_t min, int64_t max,
                     int64_t *ret_value);
bool bt_take_bool(const bt_fields *fields, const char *name, bool *ret_value);
/* Borrowed from the object. */
bool bt_take_text(const bt_fields *fields, const char *name, const char **ret_text,
                  size_t *ret_bytes);
/* *ret_value is NULL if there is none; else an object / an array. */
bool bt_take_object(const bt_fields *fields, const char *name, const json_t **ret_value);
bool bt_take_array(const bt_fields *fields, const char *name, const json_t **ret_value);

/* A field whose effect we do not have, and the value that asks for what happens anyway. */
typedef enum {
    BT_NEUTRAL_NULL,  /* none but null */
    BT_NEUTRAL_FALSE, /* false */
    BT_NEUTRAL_EMPTY_TEXT,
    BT_NEUTRAL_EMPTY_ARRAY,
    BT_NEUTRAL_EMPTY_OBJECT,
    BT_NEUTRAL_NUMBER /* `number` */
} bt_neutral_kind;
typedef struct {
    const char *name;
    bt_neutral_kind kind;
    double number;
} bt_neutral;
bool bt_refuse_unsupported(const bt_fields *fields, const bt_neutral *neutrals, size_t count);

#endif

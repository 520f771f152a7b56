/* value.h - one value of a config key: from text into its field, and back. Private to
 * common/config. */
#ifndef BT_COMMON_CONFIG_VALUE_H
#define BT_COMMON_CONFIG_VALUE_H

#include "common/config/config.h"

/* Sets the field of key in config. Errors: ERR_ARGUMENT, ERR_LIMIT with the reason only. */
bt_status bt_config_value_set(const bt_config_key *key, const char *text,
                              const char *credentials_dir, void *config, bt_err *err);

/* "duration, 1ms to 10s", "one of raw, fp8": what the key takes, for dumps. Returns ret_text. */
const char *bt_config_value_kind(const bt_config_key *key, char *ret_text, size_t capacity);

#endif

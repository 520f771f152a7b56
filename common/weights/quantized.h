/* quantized.h - the name of the format of quantized weights, for the message that refuses them: from
 * config.json's quantization_config, or from ModelOpt's hf_quant_config.json beside it. */
#ifndef BT_COMMON_WEIGHTS_QUANTIZED_H
#define BT_COMMON_WEIGHTS_QUANTIZED_H

#include "common/base/status.h"

#include <jansson.h>
#include <stddef.h>

typedef struct {
    char text[96]; /* "ModelOpt NVFP4", "FP8 in blocks of 128x128", "awq, 4 bits" */
} bt_quant_name;

/* Of a quantization_config. Anything is named, an unknown one by what it says of itself. */
bt_quant_name bt_quantized_name(const json_t *quantization);

/* hf_quant_config.json. OK: its weights are not quantized (quant_algo null: only KV scales are there).
 * ERR_ARGUMENT: they are, named; ERR_FORMAT. */
bt_status bt_quantized_check(const char *text, size_t bytes, bt_err *err);

#endif

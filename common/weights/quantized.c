#include "common/weights/quantized.h"

#include "common/weights/config.h"
#include "common/weights/file.h"
#include "common/weights/members.h"

#include <stdio.h>
#include <string.h>

#define SHOW(name) bt_show(name).text

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(bt_member(object, key));
}

static bt_quant_name named(const char *first, const char *second)
{
    bt_quant_name name;
    bool both = first[0] != '\0' && second[0] != '\0';
    snprintf(name.text, sizeof(name.text), "%.20s%s%s", SHOW(first), both ? " " : "", SHOW(second));
    return name;
}

/* "FP8 in blocks of 128x128" of DeepSeek and Qwen, or per tensor or channel. */
static bt_quant_name fp8(const json_t *quantization)
{
    bt_quant_name name = {"FP8"};
    const json_t *block = bt_member(quantization, "weight_block_size");
    const json_t *rows = json_array_get(block, 0), *columns = json_array_get(block, 1);
    if (json_is_integer(rows) && json_is_integer(columns))
        snprintf(name.text, sizeof(name.text), "FP8 in blocks of %lldx%lld",
                 (long long)json_integer_value(rows), (long long)json_integer_value(columns));
    return name;
}

static bt_quant_name with_bits(const char *method, const json_t *quantization)
{
    bt_quant_name name;
    const json_t *bits = bt_member(quantization, "bits");
    if (json_is_integer(bits))
        snprintf(name.text, sizeof(name.text), "%.12s, %lld bits", method,
                 (long long)json_integer_value(bits));
    else
        snprintf(name.text, sizeof(name.text), "%.12s", method);
    return name;
}

static bt_quant_name bitsandbytes(const json_t *quantization)
{
    const char *kind = text_of(quantization, "bnb_4bit_quant_type");
    if (json_is_true(bt_member(quantization, "load_in_8bit"))) kind = "int8";
    return named("bitsandbytes", kind != NULL ? kind : "int8");
}

bt_quant_name bt_quantized_name(const json_t *quantization)
{
    const char *method = text_of(quantization, "quant_method");
    const char *algo = text_of(quantization, "quant_algo");
    const char *producer = text_of(bt_member(quantization, "producer"), "name");
    bool modelopt = method != NULL ? strncmp(method, "modelopt", 8) == 0
                                   : producer != NULL && strcmp(producer, "modelopt") == 0;
    if (modelopt) return named("ModelOpt", algo != NULL ? algo : "without quant_algo");
    if (method == NULL) return named(algo != NULL ? algo : "no quant_method", "");
    if (strcmp(method, "fp8") == 0) return fp8(quantization);
    if (strcmp(method, "awq") == 0) return with_bits("AWQ", quantization);
    if (strcmp(method, "gptq") == 0) return with_bits("GPTQ", quantization);
    if (strcmp(method, "bitsandbytes") == 0) return bitsandbytes(quantization);
    if (strcmp(method, "compressed-tensors") == 0) {
        bt_quant_name name;
        const char *format = text_of(quantization, "format");
        snprintf(name.text, sizeof(name.text), "compressed-tensors %s",
                 SHOW(format != NULL ? format : "without format"));
        return name;
    }
    return named("", method);
}

bt_status bt_quantized_check(const char *text, size_t bytes, bt_err *err)
{
    const char *file = "hf_quant_config.json";
    if (bytes > BT_CONFIG_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: has %zu bytes, the limit is %u", file, bytes,
                       BT_CONFIG_BYTES_MAX);
    json_error_t problem;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &problem);
    if (root == NULL)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: line %d: %s", file, problem.line,
                       SHOW(problem.text));
    const json_t *quantization = bt_member(root, "quantization");
    const char *algo = text_of(quantization, "quant_algo");
    bt_status status = BT_OK;
    if (!json_is_object(quantization))
        status = BT_FAIL(err, BT_ERR_FORMAT, "%s: has no object quantization", file);
    else if (algo != NULL)
        status =
            BT_FAIL(err, BT_ERR_ARGUMENT,
                    "%s: quantized weights (ModelOpt %s) are not supported yet", file, SHOW(algo));
    json_decref(root);
    return status;
}

/* common/weights/model.h and config.h: folders opened, refused by name, hashed. */
#include "common/weights/model.h"

#include "common/weights/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <dirent.h>

#define BASE                                                                                       \
    "\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":172,"       \
    "\"num_hidden_layers\":2,\"num_attention_heads\":8,\"vocab_size\":512,"                        \
    "\"max_position_embeddings\":256"
#define CONFIG(rest) "{" BASE rest "}"

static bt_status parse(const char *config, const char *generation, bt_model_config *ret_config,
                       bt_err *err)
{
    return bt_config_parse(config, strlen(config), generation,
                           generation != NULL ? strlen(generation) : 0, ret_config, err);
}

static bt_model_config read_good(const char *config, const char *generation)
{
    bt_model_config read;
    bt_err err;
    if (parse(config, generation, &read, &err) != BT_OK) fail_msg("%s\n%s", err.message, config);
    return read;
}

static void test_defaults(void **state)
{
    (void)state;
    bt_model_config c = read_good(CONFIG(""), NULL);
    assert_string_equal(c.architecture, "LlamaForCausalLM");
    assert_int_equal(c.hidden, 64);
    assert_int_equal(c.mlp, 172);
    assert_int_equal(c.layers, 2);
    assert_int_equal(c.q_heads, 8);
    assert_int_equal(c.kv_heads, 8);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.vocab, 512);
    assert_int_equal(c.context_tokens_max, 256);
    assert_true(c.rms_eps == 1e-6f);
    assert_true(c.rope_theta == 10000.0);
    assert_false(c.tied_embeddings);
    assert_int_equal(c.bos_id, UINT32_MAX);
    assert_int_equal(c.eos_count, 0);
}

#define MISTRAL(rest)                                                                              \
    "{\"architectures\":[\"MistralForCausalLM\"],\"hidden_size\":128,"                             \
    "\"intermediate_size\":172,\"num_hidden_layers\":2,\"num_attention_heads\":16,"                \
    "\"vocab_size\":512,\"max_position_embeddings\":8192" rest "}"

/* Mistral's defaults are not Llama's, and null is not absent: a window of 4,096 and 8 KV heads. */
static void test_defaults_of_mistral(void **state)
{
    (void)state;
    bt_model_config config;
    bt_err err;
    assert_int_equal(parse(MISTRAL(""), NULL, &config, &err), BT_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "window of 4096"));
    config = read_good(MISTRAL(",\"sliding_window\":null"), NULL);
    assert_int_equal(config.kv_heads, 8);
    config = read_good(MISTRAL(",\"sliding_window\":null,\"num_key_value_heads\":null"), NULL);
    assert_int_equal(config.kv_heads, 16);
}

static void test_members(void **state)
{
    (void)state;
    bt_model_config c = read_good(
        CONFIG(
            ",\"num_key_value_heads\":2,\"head_dim\":16,\"rms_norm_eps\":1e-05,\"rope_theta\":5e5,"
            "\"tie_word_embeddings\":true,\"bos_token_id\":1,\"eos_token_id\":2"),
        NULL);
    assert_int_equal(c.kv_heads, 2);
    assert_int_equal(c.head_dim, 16);
    assert_true(c.rms_eps == 1e-5f);
    assert_true(c.rope_theta == 5e5);
    assert_true(c.tied_embeddings);
    assert_int_equal(c.bos_id, 1);
    assert_int_equal(c.eos_ids[0], 2);
    /* null is absent; the newer place of theta; a list of BOS ids has a first one. */
    c = read_good(
        CONFIG(",\"num_key_value_heads\":null,\"rope_scaling\":null,\"rope_parameters\":"
               "{\"rope_type\":\"default\",\"rope_theta\":1000000},\"bos_token_id\":[7,8]"),
        NULL);
    assert_int_equal(c.kv_heads, 8);
    assert_true(c.rope_theta == 1e6);
    assert_int_equal(c.bos_id, 7);
    /* A window that is not active, in each way of saying so. */
    read_good(CONFIG(",\"sliding_window\":null"), NULL);
    read_good(CONFIG(",\"sliding_window\":256"), NULL);
    read_good(CONFIG(",\"sliding_window\":16,\"use_sliding_window\":false"), NULL);
    read_good(CONFIG(",\"layer_types\":[\"full_attention\",\"full_attention\"]"), NULL);
}

static void test_eos_ids_are_joined(void **state)
{
    (void)state;
    bt_model_config c = read_good(CONFIG(",\"eos_token_id\":[2,5]"), "{\"eos_token_id\":[5,9,2]}");
    assert_int_equal(c.eos_count, 3);
    assert_int_equal(c.eos_ids[0], 2);
    assert_int_equal(c.eos_ids[1], 5);
    assert_int_equal(c.eos_ids[2], 9);
    c = read_good(CONFIG(""), "{\"eos_token_id\":3}");
    assert_int_equal(c.eos_count, 1);
    bt_err err;
    assert_int_equal(parse(CONFIG(""), "{\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}", &c, &err),
                     BT_ERR_ARGUMENT);
    assert_int_equal(parse(CONFIG(""), "{\"eos_token_id\":512}", &c, &err), BT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "generation_config.json"));
    assert_int_equal(parse(CONFIG(""), "[", &c, &err), BT_ERR_FORMAT);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *config, *message;
        bt_status status;
    } cases[] = {
        {"", "line 1", BT_ERR_FORMAT},
        {"[]", "not a JSON object", BT_ERR_FORMAT},
        {"{}", "architectures", BT_ERR_FORMAT},
        {"{\"architectures\":[\"LlamaForCausalLM\"]}", "hidden_size is missing", BT_ERR_FORMAT},
        {"{\"architectures\":\"LlamaForCausalLM\"}", "architectures", BT_ERR_FORMAT},
        {"{\"architectures\":[\"Qwen3ForCausalLM\"]}", "'Qwen3ForCausalLM'", BT_ERR_ARGUMENT},
        {CONFIG(",\"vocab_size\":1"), "duplicate", BT_ERR_FORMAT},
        {CONFIG(",\"num_key_value_heads\":3"), "do not divide", BT_ERR_FORMAT},
        {CONFIG(",\"num_key_value_heads\":16"), "do not divide", BT_ERR_FORMAT},
        {CONFIG(",\"num_key_value_heads\":0"), "num_key_value_heads", BT_ERR_FORMAT},
        {CONFIG(",\"num_key_value_heads\":-1"), "num_key_value_heads", BT_ERR_FORMAT},
        {CONFIG(",\"num_key_value_heads\":2.0"), "num_key_value_heads", BT_ERR_FORMAT},
        {CONFIG(",\"num_key_value_heads\":\"2\""), "num_key_value_heads", BT_ERR_FORMAT},
        {CONFIG(",\"head_dim\":512"), "the limit is 256", BT_ERR_ARGUMENT},
        {CONFIG(",\"head_dim\":7"), "odd", BT_ERR_FORMAT},
        {CONFIG(",\"head_dim\":9223372036854775807"), "head_dim", BT_ERR_ARGUMENT},
        {CONFIG(",\"head_dim\":9223372036854775808"), "line 1", BT_ERR_FORMAT},
        {CONFIG(",\"rms_norm_eps\":0"), "rms_norm_eps", BT_ERR_FORMAT},
        {CONFIG(",\"rms_norm_eps\":true"), "rms_norm_eps", BT_ERR_FORMAT},
        {CONFIG(",\"rope_theta\":-1"), "rope_theta", BT_ERR_FORMAT},
        {CONFIG(",\"rope_theta\":1e999"), "line 1", BT_ERR_FORMAT},
        {CONFIG(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}"), "'linear'",
         BT_ERR_ARGUMENT},
        {CONFIG(",\"rope_scaling\":{\"factor\":2}"), "factor", BT_ERR_ARGUMENT},
        {CONFIG(",\"rope_scaling\":7"), "rope_scaling", BT_ERR_FORMAT},
        {CONFIG(",\"rope_parameters\":{\"rope_type\":\"yarn\"}"), "'yarn'", BT_ERR_ARGUMENT},
        {CONFIG(",\"partial_rotary_factor\":0.5"), "partial", BT_ERR_ARGUMENT},
        {CONFIG(",\"sliding_window\":255"), "window of 255", BT_ERR_ARGUMENT},
        {CONFIG(",\"sliding_window\":\"x\""), "sliding_window", BT_ERR_FORMAT},
        {CONFIG(",\"layer_types\":[\"sliding_attention\"]"), "'sliding_attention'",
         BT_ERR_ARGUMENT},
        {CONFIG(",\"layer_types\":[1]"), "layer_types[0]", BT_ERR_FORMAT},
        {CONFIG(",\"attention_bias\":true"), "attention_bias", BT_ERR_ARGUMENT},
        {CONFIG(",\"mlp_bias\":true"), "mlp_bias", BT_ERR_ARGUMENT},
        {CONFIG(",\"mlp_bias\":1"), "mlp_bias", BT_ERR_FORMAT},
        {CONFIG(",\"hidden_act\":\"gelu\""), "'gelu'", BT_ERR_ARGUMENT},
        {CONFIG(",\"hidden_act\":\"\\u001b[2J\""), "'?[2J'", BT_ERR_ARGUMENT},
        {CONFIG(",\"quantization_config\":{\"quant_method\":\"fp8\"}"), "(fp8)", BT_ERR_ARGUMENT},
        {CONFIG(",\"quantization_config\":[]"), "quantized", BT_ERR_ARGUMENT},
        {CONFIG(",\"tie_word_embeddings\":\"yes\""), "tie_word_embeddings", BT_ERR_FORMAT},
        {CONFIG(",\"bos_token_id\":512"), "bos_token_id", BT_ERR_FORMAT},
        {CONFIG(",\"bos_token_id\":-1"), "bos_token_id", BT_ERR_FORMAT},
        {CONFIG(",\"eos_token_id\":[1,\"2\"]"), "eos_token_id", BT_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bt_model_config config;
        bt_err err = {0};
        bt_status status = parse(cases[i].config, NULL, &config, &err);
        if (status != cases[i].status || strstr(err.message, cases[i].message) == NULL)
            fail_msg("%s: status %d, '%s'", cases[i].config, status, err.message);
    }
}

static void test_a_truncated_config_is_an_error(void **state)
{
    (void)state;
    const char *config = CONFIG(",\"rope_scaling\":null,\"eos_token_id\":[1,2]");
    for (size_t bytes = 0; bytes < strlen(config); bytes++) {
        char *copy = malloc(bytes + 1);
        memcpy(copy, config, bytes);
        bt_model_config read;
        assert_int_equal(bt_config_parse(copy, bytes, NULL, 0, &read, NULL), BT_ERR_FORMAT);
        free(copy);
    }
    char *nested = malloc(1 << 20);
    memset(nested, '[', 1 << 20);
    bt_model_config read;
    assert_int_equal(bt_config_parse(nested, 1 << 20, NULL, 0, &read, NULL), BT_ERR_FORMAT);
    free(nested);
}

/* ---- folders ---- */

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/baton-test-XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

static void write_bytes(const char *name, const void *data, size_t bytes)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    fclose(file);
}

static void write_text(const char *name, const char *text)
{
    write_bytes(name, text, strlen(text));
}

static void write_weights(const char *name, const char *header, const void *data, size_t bytes)
{
    char file[1024] = {0};
    size_t header_bytes = strlen(header);
    assert_true(8 + header_bytes + bytes <= sizeof(file));
    file[0] = (char)header_bytes;
    file[1] = (char)(header_bytes >> 8);
    memcpy(file + 8, header, header_bytes);
    memcpy(file + 8 + header_bytes, data, bytes);
    write_bytes(name, file, 8 + header_bytes + bytes);
}

/* Padded so that the data is aligned. */
#define HEADER_A "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]}}    "
#define HEADER_B "{\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}} "
static const float values[2] = {1.5f, -2.0f};

static bt_model *open_good(void)
{
    bt_model *model;
    bt_err err;
    if (bt_model_open(dir, &model, &err) != BT_OK) fail_msg("%s", err.message);
    return model;
}

static void assert_open_fails(bt_status status, const char *message)
{
    bt_model *model = NULL;
    bt_err err = {0};
    assert_int_equal(bt_model_open(dir, &model, &err), status);
    assert_null(model);
    if (strstr(err.message, message) == NULL) fail_msg("'%s' is not in '%s'", message, err.message);
}

static void test_one_file(void **state)
{
    (void)state;
    assert_open_fails(BT_ERR_OS, "config.json");
    write_text("config.json", CONFIG(",\"eos_token_id\":2"));
    assert_open_fails(BT_ERR_OS, "model.safetensors");
    write_weights("model.safetensors", HEADER_A, values, sizeof(values));
    bt_model *model = open_good();
    assert_int_equal(bt_model_config_of(model)->dtype, BT_DTYPE_F32);
    assert_string_equal(bt_model_dir(model), dir);
    assert_string_equal(bt_model_name(model), strrchr(dir, '/') + 1);
    bt_tensor tensor;
    bt_err err;
    assert_int_equal(bt_model_tensor(model, "a", 2, (const uint64_t[4]){2, 0}, &tensor, &err),
                     BT_OK);
    assert_memory_equal(tensor.data, values, sizeof(values));
    assert_int_equal(tensor.shape[1], 1);
    assert_int_equal(bt_model_tensor(model, "b", 2, (const uint64_t[4]){0}, &tensor, &err),
                     BT_ERR_FORMAT);
    assert_int_equal(bt_model_tensor(model, "a", 1, (const uint64_t[4]){0}, &tensor, &err),
                     BT_ERR_FORMAT);
    assert_int_equal(bt_model_tensor(model, "a", 2, (const uint64_t[4]){2, 2}, &tensor, &err),
                     BT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "dimension 1 is 1, not 2"));
    bt_model_close(model);
    write_text("generation_config.json", "{\"eos_token_id\":[3]}");
    model = open_good();
    assert_int_equal(bt_model_config_of(model)->eos_count, 2);
    bt_model_close(model);
    write_text("generation_config.json", "{");
    assert_open_fails(BT_ERR_FORMAT, "generation_config.json");
}

static void test_dtypes_and_alignment(void **state)
{
    (void)state;
    write_text("config.json", CONFIG(""));
    write_weights("model.safetensors",
                  "{\"i\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[0,8]}}", values, 8);
    bt_model *model = open_good();
    bt_tensor tensor;
    bt_err err;
    assert_int_equal(bt_model_tensor(model, "i", 1, (const uint64_t[4]){0}, &tensor, &err),
                     BT_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "I32"));
    bt_model_close(model);
    write_weights("model.safetensors",
                  "{\"f\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", values, 8);
    model = open_good(); /* the header has an odd number of bytes */
    assert_int_equal(bt_model_tensor(model, "f", 1, (const uint64_t[4]){0}, &tensor, &err),
                     BT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "not aligned"));
    bt_model_close(model);
}

static void test_shards(void **state)
{
    (void)state;
    write_text("config.json", CONFIG(""));
    write_weights("m-1.safetensors", HEADER_A, values, 8);
    write_weights("m-2.safetensors", HEADER_B, "wxyz", 4);
    write_text("model.safetensors.index.json",
               "{\"weight_map\":{\"b\":\"m-2.safetensors\",\"a\":\"m-1.safetensors\"}}");
    bt_model *model = open_good();
    bt_tensor tensor;
    assert_int_equal(bt_model_tensor(model, "a", 2, (const uint64_t[4]){0}, &tensor, NULL), BT_OK);
    assert_int_equal(bt_model_tensor(model, "b", 1, (const uint64_t[4]){2}, &tensor, NULL), BT_OK);
    assert_memory_equal(tensor.data, "wxyz", 4);
    bt_model_close(model);

    static const struct {
        const char *index, *message;
        bt_status status;
    } cases[] = {
        {"{", "index.json", BT_ERR_FORMAT},
        {"[]", "weight_map", BT_ERR_FORMAT},
        {"{\"weight_map\":[]}", "weight_map", BT_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":7}}", "plain file name", BT_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"../m-1.safetensors\"}}", "plain file name", BT_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "plain file name", BT_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"..\"}}", "plain file name", BT_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"\"}}", "plain file name", BT_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"m-3.safetensors\"}}", "m-3.safetensors", BT_ERR_OS},
        {"{\"weight_map\":{\"a\":\"m-2.safetensors\"}}", "is not in shard", BT_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"config.json\"}}", "config.json", BT_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_text("model.safetensors.index.json", cases[i].index);
        assert_open_fails(cases[i].status, cases[i].message);
    }
}

/* ---- hashes ---- */

static bt_sha256 weights_digest(void)
{
    bt_model *model = open_good();
    bt_sha256 digest;
    assert_int_equal(bt_model_weights_digest(model, &digest, NULL), BT_OK);
    bt_model_close(model);
    return digest;
}

static bt_sha256 fingerprint(void)
{
    bt_model *model = open_good();
    bt_sha256 hash;
    assert_int_equal(bt_model_fingerprint(model, &hash, NULL), BT_OK);
    bt_model_close(model);
    return hash;
}

static bool same(bt_sha256 a, bt_sha256 b)
{
    return memcmp(a.bytes, b.bytes, sizeof(a.bytes)) == 0;
}

static void test_the_weights_digest(void **state)
{
    (void)state;
    write_text("config.json", CONFIG(""));
    write_weights("model.safetensors", HEADER_A, values, 8);
    bt_sha256 first = weights_digest();
    assert_true(same(first, weights_digest()));
    /* The same tensors by way of an index are the same weights. */
    write_weights("m-1.safetensors", HEADER_A, values, 8);
    write_text("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"m-1.safetensors\"}}");
    char path[128];
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    unlink(path);
    assert_true(same(first, weights_digest()));
    const float other[2] = {1.5f, 2.0f};
    write_weights("m-1.safetensors", HEADER_A, other, 8);
    assert_false(same(first, weights_digest()));
    write_weights("m-1.safetensors",
                  "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]}}", values, 8);
    assert_false(same(first, weights_digest()));
}

static void test_the_fingerprint(void **state)
{
    (void)state;
    write_text("config.json", CONFIG(""));
    write_weights("model.safetensors", HEADER_A, values, 8);
    bt_sha256 first = fingerprint();
    assert_true(same(first, fingerprint()));
    /* Weights, their dtype, and what ends a text may differ between a pair … */
    write_weights("model.safetensors", HEADER_B, "wxyz", 4);
    write_text("config.json", CONFIG(",\"eos_token_id\":2,\"rms_norm_eps\":1e-06"));
    assert_true(same(first, fingerprint()));
    /* … and nothing that KV depends on. */
    static const char *const others[] = {
        CONFIG(",\"rope_theta\":10001"),
        CONFIG(",\"rms_norm_eps\":1e-05"),
        CONFIG(",\"num_key_value_heads\":4"),
        CONFIG(",\"head_dim\":16"),
    };
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        write_text("config.json", others[i]);
        assert_false(same(first, fingerprint()));
    }
    write_text("config.json", CONFIG(""));
    write_text("tokenizer.json", "{}");
    bt_sha256 with_tokenizer = fingerprint();
    assert_false(same(first, with_tokenizer));
    write_text("tokenizer.json", "{ }");
    assert_false(same(with_tokenizer, fingerprint()));
}

/* ---- outside data ---- */

static const char *data_folder(void)
{
    const char *data = getenv("BATON_TEST_DATA");
    if (data == NULL) {
        printf("skipped: BATON_TEST_DATA is not set\n");
        skip();
    }
    return data;
}

static void test_stories260k(void **state)
{
    (void)state;
    char folder[1024];
    snprintf(folder, sizeof(folder), "%s/models/stories260K", data_folder());
    bt_model *model;
    assert_int_equal(bt_model_open(folder, &model, NULL), BT_OK);
    const bt_model_config *c = bt_model_config_of(model);
    assert_string_equal(bt_model_name(model), "stories260K");
    assert_int_equal(c->kv_heads, 4);
    assert_int_equal(c->head_dim, 8);
    assert_true(c->tied_embeddings);
    assert_int_equal(c->dtype, BT_DTYPE_F32);
    bt_tensor tensor;
    assert_int_equal(bt_model_tensor(model, "model.layers.4.self_attn.k_proj.weight", 2,
                                     (const uint64_t[4]){32, 64}, &tensor, NULL),
                     BT_OK);
    bt_model_close(model);
}

/* Each published file of configuration is accepted or refused with a reason, whole and cut short. */
static void test_published_configs(void **state)
{
    (void)state;
    char command[1200], path[400];
    snprintf(command, sizeof(command), "tar -xJf '%s/checkpoint-configs.tar.xz' -C %s",
             data_folder(), dir);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof(path), "%s/nvfp4-cfg", dir);
    DIR *folder = opendir(path);
    assert_non_null(folder);
    unsigned files = 0;
    for (struct dirent *item; (item = readdir(folder)) != NULL;) {
        if (strstr(item->d_name, ".json") == NULL) continue;
        static char text[BT_CONFIG_BYTES_MAX];
        snprintf(path, sizeof(path), "%s/nvfp4-cfg/%s", dir, item->d_name);
        FILE *file = fopen(path, "rb");
        size_t bytes = fread(text, 1, sizeof(text), file);
        fclose(file);
        bt_model_config config;
        bt_err err = {0};
        bt_status status = bt_config_parse(text, bytes, NULL, 0, &config, &err);
        printf("%s: %s\n", item->d_name, status == BT_OK ? "accepted" : err.message);
        assert_true(status == BT_OK || strncmp(err.message, "config.json: ", 13) == 0);
        for (size_t cut = 0; cut + 2 < bytes; cut += 1 + bytes / 40)
            assert_int_equal(bt_config_parse(text, cut, NULL, 0, &config, &err), BT_ERR_FORMAT);
        files++;
    }
    closedir(folder);
    assert_int_equal(files, 33);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_defaults_of_mistral),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_eos_ids_are_joined),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_a_truncated_config_is_an_error),
        cmocka_unit_test_setup_teardown(test_one_file, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_dtypes_and_alignment, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_shards, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_the_weights_digest, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_the_fingerprint, make_dir, remove_dir),
        cmocka_unit_test(test_stories260k),
        cmocka_unit_test_setup_teardown(test_published_configs, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

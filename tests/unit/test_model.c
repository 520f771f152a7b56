/* common/weights/model.h: folders opened, refused by name, hashed. (test_model_config.c: what a
 * config.json says.) */
#include "common/weights/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define BASE                                                                                       \
    "\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":172,"       \
    "\"num_hidden_layers\":2,\"num_attention_heads\":8,\"vocab_size\":512,"                        \
    "\"max_position_embeddings\":256"
#define CONFIG(rest) "{" BASE rest "}"

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

/* ModelOpt's file beside a config.json that says nothing of it. */
static void test_hf_quant_config(void **state)
{
    (void)state;
    write_text("config.json", CONFIG(""));
    write_weights("model.safetensors", HEADER_A, values, sizeof(values));
    write_text("hf_quant_config.json", "{\"quantization\":{\"quant_algo\":\"NVFP4\"}}");
    assert_open_fails(BT_ERR_ARGUMENT, "hf_quant_config.json: quantized weights (ModelOpt NVFP4)");
    write_text("hf_quant_config.json", "{\"quantization\":[]}");
    assert_open_fails(BT_ERR_FORMAT, "hf_quant_config.json: has no object quantization");
    write_text("hf_quant_config.json", "{");
    assert_open_fails(BT_ERR_FORMAT, "hf_quant_config.json: line 1");
    write_text("hf_quant_config.json",
               "{\"quantization\":{\"quant_algo\":null,\"kv_cache_quant_algo\":\"FP8\"}}");
    bt_model_close(open_good());
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

/* What an index claims of sizes is shown, never believed. */
static void test_claims_of_an_index(void **state)
{
    (void)state;
    static const struct {
        const char *metadata;
        uint64_t bytes;
    } cases[] = {
        {"{\"total_size\":8}", 8},
        {"{\"total_size\":1e9}", 1000000000},
        {"{\"total_size\":-1}", 0},
        {"{\"total_size\":1e300}", 0},
        {"{\"total_size\":\"8\"}", 0},
        {"{}", 0},
        {"[]", 0},
    };
    write_text("config.json", CONFIG(""));
    write_weights("m-1.safetensors", HEADER_A, values, 8);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char index[256];
        snprintf(index, sizeof(index),
                 "{\"metadata\":%s,\"weight_map\":{\"a\":\"m-1.safetensors\"}}", cases[i].metadata);
        write_text("model.safetensors.index.json", index);
        bt_model *model = open_good();
        const bt_checkpoint *checkpoint = bt_model_checkpoint(model);
        assert_int_equal(bt_checkpoint_claimed_bytes(checkpoint), cases[i].bytes);
        assert_int_equal(bt_checkpoint_shards(checkpoint), 1);
        assert_string_equal(bt_checkpoint_shard_name(checkpoint, 0), "m-1.safetensors");
        bt_model_close(model);
    }
}

static void test_folders_without_safetensors(void **state)
{
    (void)state;
    write_text("config.json", CONFIG(""));
    assert_open_fails(BT_ERR_OS, "neither model.safetensors nor model.safetensors.index.json");
    write_text("pytorch_model.bin", "x");
    assert_open_fails(BT_ERR_OS, "has pytorch_model.bin, but no model.safetensors");
}

static void test_names_of_folders(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"/data/Llama-3.2-1B", "Llama-3.2-1B"},
        {"/data/some model", "some_model"},
        {"/", "model"},
        {"/hub/models--Qwen--Qwen3-8B/snapshots/b968826d9c46dd6066d109eabc6255188de91218",
         "Qwen3-8B"},
        {"/hub/models--a--b--c/snapshots/1", "c"},
        {"/hub/models--gpt2/snapshots/1", "gpt2"},
        {"/hub/models--x--/snapshots/1", "model"},
        {"/hub/other/snapshots/1", "1"},
        {"/snapshots/1", "1"},
        {"models--x--y/snapshots/1", "y"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char name[BT_NAME_BYTES_MAX];
        bt_folder_name(cases[i][0], name);
        assert_string_equal(name, cases[i][1]);
    }
    char longest[200], name[BT_NAME_BYTES_MAX];
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    bt_folder_name(longest, name);
    assert_int_equal(strlen(name), BT_NAME_BYTES_MAX - 1);
}

/* The hub's cache: models--x--y/snapshots/<revision> of symbolic links into blobs. */
static void test_a_hub_folder(void **state)
{
    (void)state;
    char path[256], target[256], root[64];
    strcpy(root, dir);
    snprintf(path, sizeof(path), "mkdir -p %s/models--x--y/snapshots/r1 %s/models--x--y/refs", dir,
             dir);
    assert_int_equal(system(path), 0);
    write_text("config.json", CONFIG(""));
    write_weights("weights", HEADER_A, values, sizeof(values));
    write_text("models--x--y/refs/main", "r1");
    snprintf(path, sizeof(path), "%s/models--x--y/snapshots/r1/config.json", root);
    snprintf(target, sizeof(target), "%s/config.json", root);
    assert_int_equal(symlink(target, path), 0);
    snprintf(path, sizeof(path), "%s/models--x--y/snapshots/r1/model.safetensors", root);
    snprintf(target, sizeof(target), "%s/weights", root);
    assert_int_equal(symlink(target, path), 0);
    strcat(dir, "/models--x--y");
    assert_open_fails(BT_ERR_OS, "its model is in snapshots/r1");
    strcat(dir, "/snapshots/r1");
    bt_model *model = open_good();
    assert_string_equal(bt_model_name(model), "y");
    bt_model_close(model);
    strcpy(dir, root);
}

/* ---- hashes ---- */

#define LLAMA3(factor, low, high, original)                                                        \
    "{\"rope_type\":\"llama3\",\"factor\":" factor ",\"low_freq_factor\":" low                     \
    ",\"high_freq_factor\":" high ",\"original_max_position_embeddings\":" original "}"
#define YARN(rest) "{\"rope_type\":\"yarn\",\"factor\":4" rest "}"
#define WINDOWED ",\"use_sliding_window\":true,\"sliding_window\":16"
#define OTHER(name, rest)                                                                          \
    "{\"architectures\":[\"" name "ForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":172,"   \
    "\"num_hidden_layers\":2,\"num_attention_heads\":8,\"vocab_size\":512,"                        \
    "\"num_key_value_heads\":8,\"max_position_embeddings\":256" rest "}"
enum { LINEAR_2 = 7 }; /* of the others below */

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
        CONFIG(",\"attention_bias\":true"),
        CONFIG(",\"mlp_bias\":true"),
        CONFIG(",\"partial_rotary_factor\":0.5"),
        CONFIG(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}"),
        CONFIG(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":3}"),
        CONFIG(",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}"),
        CONFIG(",\"rope_scaling\":" LLAMA3("8", "1", "4", "64")),
        CONFIG(",\"rope_scaling\":" LLAMA3("4", "1", "4", "64")),
        CONFIG(",\"rope_scaling\":" LLAMA3("8", "2", "4", "64")),
        CONFIG(",\"rope_scaling\":" LLAMA3("8", "1", "5", "64")),
        CONFIG(",\"rope_scaling\":" LLAMA3("8", "1", "4", "65")),
        CONFIG(",\"rope_scaling\":" YARN("")),
        CONFIG(",\"rope_scaling\":" YARN(",\"beta_fast\":16")),
        CONFIG(",\"rope_scaling\":" YARN(",\"beta_slow\":2")),
        CONFIG(",\"rope_scaling\":" YARN(",\"truncate\":false")),
        CONFIG(",\"rope_scaling\":" YARN(",\"attention_factor\":1.5")),
        OTHER("Mistral", ",\"sliding_window\":null"),
        OTHER("Mistral", ",\"sliding_window\":16"),
        OTHER("Mistral", ",\"sliding_window\":17"),
        OTHER("Qwen2", ""),
        OTHER("Qwen2", WINDOWED ",\"max_window_layers\":0"),
        OTHER("Qwen2", WINDOWED ",\"max_window_layers\":1"),
        OTHER("Qwen3", ""),
        OTHER("SmolLM3", ""),
        OTHER("SmolLM3", ",\"no_rope_layers\":[0,1]"),
        OTHER("SmolLM3", ",\"no_rope_layers\":[1,0]"),
    };
    bt_sha256 seen[sizeof(others) / sizeof(others[0])];
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        write_text("config.json", others[i]);
        seen[i] = fingerprint();
        assert_false(same(first, seen[i]));
        for (size_t j = 0; j < i; j++)
            if (same(seen[j], seen[i])) fail_msg("%s\n%s", others[j], others[i]);
    }
    /* The same said in another way. */
    write_text("config.json",
               CONFIG(",\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":2.0}"));
    assert_true(same(seen[LINEAR_2], fingerprint()));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_file, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_hf_quant_config, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_dtypes_and_alignment, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_shards, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_claims_of_an_index, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_folders_without_safetensors, make_dir, remove_dir),
        cmocka_unit_test(test_names_of_folders),
        cmocka_unit_test_setup_teardown(test_a_hub_folder, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_the_weights_digest, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_the_fingerprint, make_dir, remove_dir),
        cmocka_unit_test(test_stories260k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

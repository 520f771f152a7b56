/* test_families.c - every family and option of the decoder against Hugging Face transformers: small
 * random checkpoints (families.py says how they are made, record_families.py what recorded them),
 * loaded as folders with the shards they were saved in, run by both backends.
 *
 * Logits at every recorded position, below, at and beyond each window and original context; greedy
 * tokens across them; prefill in chunks of 7; decode after a handoff that loses nothing. Each config
 * is read in the hub's old spelling too and must mean the same.
 * TOLERANCE  transformers computed in f64 but takes norms, softmax and the table of RoPE in f32; it
 *            is within 5.1e-6 of oracle.py, all in f64. Logits reach 10. The largest errors are
 *            printed: 7.8e-6 when this was written, and no two best logits were nearer than 1.7e-3. */
#include "tests/golden/checkpoint.h"
#include "tests/golden/reference.h"

#include <dirent.h>

#define LOGITS_TOLERANCE 5e-5
#define FAMILIES_DIR "tests/golden/families"
#define FAMILIES_MAX 128u
#define FAMILIES_MIN 29u

static char *families[FAMILIES_MAX];
static uint32_t family_count;

typedef struct {
    const char *family;
    json_t *reference;
    char dir[64]; /* of the checkpoint */
    bt_model *model;
} fixture;

static int find_families(void **state)
{
    (void)state;
    DIR *dir = opendir(FAMILIES_DIR);
    if (!dir) return -1;
    for (struct dirent *entry; (entry = readdir(dir)) && family_count < FAMILIES_MAX;) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%s/reference.json", FAMILIES_DIR, entry->d_name);
        if (access(path, R_OK) == 0) families[family_count++] = strdup(entry->d_name);
    }
    closedir(dir);
    qsort(families, family_count, sizeof(families[0]), compare_names);
    return 0;
}

static int free_families(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < family_count; i++) free(families[i]);
    return 0;
}

/* Copies a recorded config into the checkpoint's folder. */
static void put_config(const fixture *f, const char *name)
{
    char path[512];
    json_error_t problem;
    snprintf(path, sizeof(path), "%s/%s/%s", FAMILIES_DIR, f->family, name);
    json_t *config = json_load_file(path, 0, &problem);
    if (!config) fail_msg("%s: %s", path, problem.text);
    FILE *file = checkpoint_file(f->dir, "config.json");
    json_dumpf(config, file, 0);
    fclose(file);
    json_decref(config);
}

static void open_family(const char *family, fixture *f)
{
    char path[512];
    *f = (fixture){.family = family, .dir = "/tmp/baton-family-XXXXXX"};
    assert_non_null(mkdtemp(f->dir));
    snprintf(path, sizeof(path), "%s/%s", FAMILIES_DIR, family);
    f->reference = reference_load(path);
    checkpoint_write(f->dir, f->reference);
    put_config(f, "config.json");
    f->model = reference_model(f->dir);
}

static void close_family(fixture *f)
{
    char command[128];
    bt_model_close(f->model);
    json_decref(f->reference);
    snprintf(command, sizeof(command), "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
}

/* Weights are the bytes that transformers had. */
static void check_digest(const fixture *f)
{
    char digest[65];
    checkpoint_digest(f->reference, digest);
    assert_string_equal(digest, json_string_value(json_object_get(f->reference, "sha256")));
}

static void check_spellings(fixture *f)
{
    bt_sha256 newer, older;
    assert_int_equal(bt_model_fingerprint(f->model, &newer, NULL), BT_OK);
    bt_model_config config = *bt_model_config_of(f->model);
    put_config(f, "hub.json");
    bt_model *model = reference_model(f->dir);
    assert_int_equal(bt_model_fingerprint(model, &older, NULL), BT_OK);
    const bt_model_config *other = bt_model_config_of(model);
    assert_memory_equal(newer.bytes, older.bytes, BT_SHA256_BYTES);
    assert_int_equal(config.context_tokens_max, other->context_tokens_max);
    assert_int_equal(config.tied_embeddings, other->tied_embeddings);
    assert_int_equal(config.bos_id, 1);
    assert_int_equal(config.eos_count, 1);
    assert_int_equal(config.eos_ids[0], other->eos_ids[0]);
    bt_model_close(model);
}

static double logits_error(const fixture *f, const bt_generator_config *config)
{
    double worst = 0;
    size_t index;
    json_t *prompt, *expected;
    const char *position;
    bt_generator *generator = reference_generator(f->model, config);
    json_array_foreach(json_object_get(f->reference, "prompts"), index, prompt)
    {
        static uint32_t ids[REFERENCE_IDS_MAX];
        reference_ids(json_object_get(prompt, "ids"), ids);
        json_object_foreach(json_object_get(prompt, "logits"), position, expected)
        {
            assert_int_equal(json_array_size(expected), bt_model_config_of(f->model)->vocab);
            double error =
                reference_logits_error(generator, ids, (uint32_t)atoi(position) + 1, expected);
            if (!(error <= worst)) worst = error;
        }
    }
    bt_generator_destroy(generator);
    return worst;
}

static void check_greedy(const fixture *f, const bt_generator_config *config)
{
    size_t index;
    json_t *prompt;
    bt_generator *generator = reference_generator(f->model, config);
    json_array_foreach(json_object_get(f->reference, "prompts"), index, prompt)
    {
        static uint32_t ids[REFERENCE_IDS_MAX];
        uint32_t prompt_count = reference_ids(json_object_get(prompt, "ids"), ids);
        uint32_t made = reference_ids(json_object_get(prompt, "greedy"), ids + prompt_count);
        reference_check_greedy(generator, ids, prompt_count, prompt_count + made);
    }
    bt_generator_destroy(generator);
}

static const bt_generator_config whole = {
    .backend = "cpu", .kv_dtype = BT_DTYPE_F32, .block_tokens = 16, .threads = 2};
static const bt_generator_config chunked = {.backend = "cpu",
                                            .kv_dtype = BT_DTYPE_F32,
                                            .block_tokens = 32,
                                            .threads = 1,
                                            .chunk_tokens = 7};
static const bt_generator_config oracle = {.backend = "cpu-ref",
                                           .kv_dtype = BT_DTYPE_F32,
                                           .block_tokens = 64,
                                           .threads = 1,
                                           .chunk_tokens = 33};
static const bt_generator_config handoff = {.backend = "cpu",
                                            .kv_dtype = BT_DTYPE_F32,
                                            .block_tokens = 16,
                                            .threads = 1,
                                            .chunk_tokens = 24,
                                            .handoff = true,
                                            .prefill_block_tokens = 64};

static void test_every_family(void **state)
{
    (void)state;
    assert_in_range(family_count, FAMILIES_MIN, FAMILIES_MAX - 1);
    printf("%-20s %-48s %9s %9s %9s\n", "largest logit error", "options", "cpu", "chunks",
           "cpu-ref");
    for (uint32_t i = 0; i < family_count; i++) {
        fixture f;
        open_family(families[i], &f);
        check_digest(&f);
        double a = logits_error(&f, &whole), b = logits_error(&f, &chunked);
        double c = logits_error(&f, &oracle);
        printf("%-20s %-48s %9.1e %9.1e %9.1e\n", f.family,
               json_string_value(json_object_get(f.reference, "options")), a, b, c);
        assert_true(a <= LOGITS_TOLERANCE && b <= LOGITS_TOLERANCE && c <= LOGITS_TOLERANCE);
        check_greedy(&f, &whole);
        check_greedy(&f, &chunked);
        check_greedy(&f, &oracle);
        check_greedy(&f, &handoff);
        check_spellings(&f);
        close_family(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_family)};
    return cmocka_run_group_tests(tests, find_families, free_families);
}

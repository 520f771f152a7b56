/* doctor_models.c - the model folders: can Baton run them, do their tokenizers load, do the
 * daemons of one fleet have the same. */
#include "common/engine/arch.h"
#include "common/text/tokenizer.h"
#include "ops/cli/doctor/doctor.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GIB (1024.0 * 1024.0 * 1024.0)

typedef struct {
    const char *dir, *owner; /* owner: the first configuration that names it */
    bool opened;
    bt_sha256 fingerprint;
} model_seen;

static void check_tokenizer(bt_doctor *doctor, const char *dir)
{
    char path[PATH_MAX];
    bt_tokenizer *tokenizer = NULL;
    bt_err err;
    snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
    if (bt_tokenizer_open(path, &tokenizer, &err) == BT_OK)
        bt_doctor_say(doctor, BT_DOCTOR_OK, "tokenizer", NULL, "%s, %u ids", path,
                      bt_tokenizer_vocab(tokenizer));
    else
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, "tokenizer",
                      "the router needs a tokenizer.json in the folder (a model published with "
                      "tokenizer.model alone: save it once with Hugging Face's AutoTokenizer)",
                      "%s", err.message);
    bt_tokenizer_close(tokenizer);
}

/* Bytes of all tensors that the decoder binds. */
static uint64_t weight_bytes(const bt_weights *weights, uint32_t layers)
{
    uint64_t bytes = 0;
    const bt_tensor *one[] = {&weights->embedding, &weights->norm,
                              weights->head.data != weights->embedding.data ? &weights->head
                                                                            : NULL};
    for (size_t i = 0; i < sizeof(one) / sizeof(one[0]); i++) {
        if (one[i] == NULL) continue;
        uint64_t count = 1;
        for (uint32_t d = 0; d < one[i]->rank; d++) count *= one[i]->shape[d];
        bytes += count * bt_dtype_bytes(one[i]->dtype);
    }
    for (uint32_t layer = 0; layer < layers; layer++) {
        for (int t = 0; t < BT_LAYER_TENSORS; t++) {
            const bt_tensor *tensor = &weights->layers[layer].tensor[t];
            if (tensor->data == NULL) continue;
            uint64_t count = 1;
            for (uint32_t d = 0; d < tensor->rank; d++) count *= tensor->shape[d];
            bytes += count * bt_dtype_bytes(tensor->dtype);
        }
    }
    return bytes;
}

static void check_model(bt_doctor *doctor, model_seen *seen)
{
    bt_model *model = NULL;
    bt_weights weights;
    bt_err err = {0};
    bt_status status = bt_model_open(seen->dir, &model, &err);
    if (status == BT_OK) status = bt_weights_bind(model, &weights, &err);
    if (status != BT_OK) {
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, "model",
                      "docs/models.md lists what runs; a folder is config.json, tokenizer.json and "
                      "safetensors as on the hub",
                      "%s", err.message);
        bt_model_close(model);
        return;
    }
    const bt_model_config *config = bt_model_config_of(model);
    uint64_t bytes = weight_bytes(&weights, config->layers);
    bt_doctor_say(doctor, BT_DOCTOR_OK, "model", NULL, "%s: %s, %.2f GiB of weights in %s",
                  seen->dir, config->architecture, (double)bytes / GIB,
                  bt_dtype_name(config->dtype));
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (bytes > memory / 10 * 9)
        bt_doctor_say(doctor, BT_DOCTOR_WARNING, "model",
                      "a smaller model, or a machine with more memory",
                      "weights of %.1f GiB on a machine with %.1f GiB", (double)bytes / GIB,
                      (double)memory / GIB);
    seen->opened = bt_model_fingerprint(model, &seen->fingerprint, &err) == BT_OK;
    bt_weights_release(&weights);
    bt_model_close(model);
    check_tokenizer(doctor, seen->dir);
}

static void run(bt_doctor *doctor)
{
    model_seen seen[BT_DOCTOR_CONFIGS_MAX + 1];
    uint32_t count = 0;
    if (doctor->model != NULL)
        seen[count++] = (model_seen){.dir = doctor->model, .owner = "--model"};
    for (uint32_t i = 0; i < doctor->config_count; i++) {
        const bt_doctor_config *config = &doctor->configs[i];
        bool known = config->model[0] == '\0';
        for (uint32_t j = 0; j < count; j++) known |= strcmp(seen[j].dir, config->model) == 0;
        if (!known) seen[count++] = (model_seen){.dir = config->model, .owner = config->name};
    }
    const model_seen *first = NULL;
    for (uint32_t i = 0; i < count; i++) {
        check_model(doctor, &seen[i]);
        if (!seen[i].opened || doctor->config_count == 0) continue;
        if (first == NULL) first = &seen[i];
        if (memcmp(&first->fingerprint, &seen[i].fingerprint, sizeof(first->fingerprint)) != 0)
            bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, "model",
                          "give all daemons of a fleet the same model: architecture, tokenizer and "
                          "vocabulary must agree, precision may differ",
                          "%s of %s and %s of %s will not pair", first->dir, first->owner,
                          seen[i].dir, seen[i].owner);
    }
}

const bt_doctor_check bt_doctor_models = {"models", run};

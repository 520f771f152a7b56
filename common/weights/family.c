#include "common/weights/family.h"

#include <stddef.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const bt_family families[] = {
    {.architecture = "LlamaForCausalLM", /* Llama 2 to 3.3, SmolLM, SmolLM2 and many others */
     .model_type = "llama",
     .attention_bias = true,
     .mlp_bias = true,
     .rope_theta = 10000,
     .rms_eps = 1e-6},
    {.architecture = "MistralForCausalLM",
     .model_type = "mistral",
     .window_rule = BT_WINDOW_GIVEN,
     .window = 4096,
     .kv_heads = 8,
     .rope_theta = 10000,
     .rms_eps = 1e-6},
    {.architecture = "Qwen2ForCausalLM", /* and Qwen2.5 */
     .model_type = "qwen2",
     .qkv_bias = true,
     .window_rule = BT_WINDOW_SWITCHED,
     .window = 4096,
     .kv_heads = 32,
     .rope_theta = 10000,
     .rms_eps = 1e-6},
    {.architecture = "Qwen3ForCausalLM",
     .model_type = "qwen3",
     .attention_bias = true,
     .qk_norm = true,
     .window_rule = BT_WINDOW_SWITCHED,
     .window = 4096,
     .kv_heads = 32,
     .head_dim = 128,
     .rope_theta = 10000,
     .rms_eps = 1e-6},
    {.architecture = "Phi3ForCausalLM", /* Phi-3 mini and medium, Phi-4, Phi-4-mini */
     .model_type = "phi3",
     .window_rule = BT_WINDOW_GIVEN,
     .rope_theta = 10000,
     .rms_eps = 1e-5},
    {.architecture = "SmolLM3ForCausalLM",
     .model_type = "smollm3",
     .attention_bias = true,
     .mlp_bias = true,
     .no_rope_layers = true,
     .window_rule = BT_WINDOW_NO_ROPE,
     .kv_heads = 4,
     .rope_theta = 2000000,
     .rms_eps = 1e-6,
     .tied = true},
};

#define EXPERTS "a mixture of experts"
#define LATENT "multi-head latent attention and a mixture of experts"
#define VISION "vision or audio beside text"
#define RECURRENT "recurrent or state-space layers"
#define GEMMA "norms with 1 + weight, a scaled embedding and gelu"
#define OTHER_NORMS "LayerNorm or a parallel block instead of Llama's"

/* What an architecture or model type must contain, in the order they are tried. */
static const struct {
    const char *part, *reason;
} refusals[] = {
    {"ForConditionalGeneration", VISION},
    {"VLFor", VISION},
    {"Phi3V", VISION},
    {"Phi4M", VISION},
    {"Llava", VISION},
    {"mllama", VISION},
    {"Gemma", GEMMA},
    {"gemma", GEMMA},
    {"Mixtral", EXPERTS},
    {"mixtral", EXPERTS},
    {"Moe", EXPERTS},
    {"MoE", EXPERTS},
    {"moe", EXPERTS},
    {"Llama4", EXPERTS},
    {"llama4", EXPERTS},
    {"GptOss", EXPERTS},
    {"gpt_oss", EXPERTS},
    {"MiniMax", EXPERTS},
    {"minimax", EXPERTS},
    {"Deepseek", LATENT},
    {"deepseek", LATENT},
    {"Kimi", LATENT},
    {"kimi", LATENT},
    {"Glm", "another block than Llama's"},
    {"glm", "another block than Llama's"},
    {"Mamba", RECURRENT},
    {"mamba", RECURRENT},
    {"Nemotron", RECURRENT},
    {"nemotron", RECURRENT},
    {"Jamba", RECURRENT},
    {"Qwen3Next", RECURRENT},
    {"qwen3_next", RECURRENT},
    {"Qwen3_5", RECURRENT},
    {"qwen3_5", RECURRENT},
    {"Rwkv", RECURRENT},
    {"PhiFor", OTHER_NORMS},
    {"GPT", OTHER_NORMS},
    {"gpt", OTHER_NORMS},
    {"Falcon", OTHER_NORMS},
    {"Cohere", OTHER_NORMS},
    {"StableLm", OTHER_NORMS},
    {"Olmo", OTHER_NORMS},
    {"Granite", "multipliers of embedding, residual and logits"},
    {"Model", "no head that generates text"},
    {"ForSequenceClassification", "no head that generates text"},
};

const bt_family *bt_family_find(const char *architecture, const char *model_type)
{
    for (size_t i = 0; i < COUNT(families); i++) {
        const char *own = architecture ? families[i].architecture : families[i].model_type;
        const char *wanted = architecture ? architecture : model_type;
        if (wanted && strcmp(own, wanted) == 0) return &families[i];
    }
    return NULL;
}

const char *bt_family_refusal(const char *architecture, const char *model_type)
{
    for (size_t i = 0; i < COUNT(refusals); i++) {
        if (architecture && strstr(architecture, refusals[i].part)) return refusals[i].reason;
        if (model_type && strstr(model_type, refusals[i].part)) return refusals[i].reason;
    }
    return NULL;
}

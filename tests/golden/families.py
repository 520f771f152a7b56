"""Small random checkpoints of every family that Baton runs: which ones, their config.json, their weights, their prompts.

Nothing here needs torch. record_families.py records what transformers computes for them, oracle.py computes the same in
numpy, and test_families.c makes the same checkpoints in C and runs them.

WEIGHTS  come from counters, so that no checkpoint has to be stored. Element i of a tensor is
             seed  = FNV-1a 64 of "<family>/<tensor>"
             u     = (splitmix64 of the counter i, that is mix(seed + (i + 1) * 0x9e3779b97f4a7c15)) >> 40, 24 bits
             value = f32(base + scale * (u * 2^-23 - 1))          computed in f64
         with base 1 and scale 0.2 for a norm; base 0 and scale 0.5 for a bias; base 0 and scale 4 / sqrt(columns) for the
         embedding and the head; base 0 and scale 1.8 / sqrt(columns) for every other matrix. A bf16 checkpoint holds the f32
         value rounded to nearest even.
TOKENS   Token i of prompt p of a family is (the same generator, seed of "<family>/prompt <p>") modulo the vocabulary.
"""
import json
from pathlib import Path

import numpy as np

VOCAB = 96
GREEDY = 24
MASK = (1 << 64) - 1


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def draws(seed, count):
    """24 random bits for each counter from 0."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (z ^ (z >> np.uint64(31))) >> np.uint64(40)


def base_and_scale(tensor, shape):
    if tensor.endswith(".bias"):
        return 0.0, 0.5
    if len(shape) == 1:
        return 1.0, 0.2
    wide = 4.0 if "embed_tokens" in tensor or "lm_head" in tensor else 1.8
    return 0.0, wide / np.sqrt(float(shape[1]))


def weights(family, tensor, shape, dtype):
    """The tensor's values as f32; for bf16 rounded to what bf16 holds."""
    base, scale = base_and_scale(tensor, shape)
    u = draws(fnv1a(f"{family}/{tensor}"), int(np.prod(shape))).astype(np.float64)
    values = (base + scale * (u * 2.0**-23 - 1.0)).astype(np.float32)
    if dtype == "bfloat16":
        bits = values.view(np.uint32)
        values = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return values.reshape(shape)


def prompt(family, index, count):
    return [int(u) for u in draws(fnv1a(f"{family}/prompt {index}"), count) % np.uint64(VOCAB)]


def base_config(model_type, architecture, **members):
    config = {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }
    config.update(members)
    return config


def llama(**members):
    return base_config("llama", "LlamaForCausalLM", **members)


def mistral(**members):
    return base_config("mistral", "MistralForCausalLM", **{"sliding_window": None, **members})


def qwen2(**members):
    return base_config("qwen2", "Qwen2ForCausalLM", **{"use_sliding_window": False, **members})


def qwen3(**members):
    return base_config("qwen3", "Qwen3ForCausalLM", **{"use_sliding_window": False, "head_dim": 32, **members})


def phi3(**members):
    return base_config("phi3", "Phi3ForCausalLM", **{"original_max_position_embeddings": 256, **members})


def smollm3(**members):
    return base_config("smollm3", "SmolLM3ForCausalLM", **{"num_hidden_layers": 4, "rope_theta": 50000.0, **members})


def scaled(kind, **numbers):
    return {"rope_type": kind, **numbers}


LLAMA3 = scaled("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
YARN = scaled("yarn", factor=4.0, original_max_position_embeddings=32)
YARN_ALL = scaled("yarn", factor=8.0, original_max_position_embeddings=32, beta_fast=1.0, beta_slow=0.25, mscale=1.2,
                  mscale_all_dim=0.6)

# name -> (options in words, config.json as the hub has it before transformers 5, shards)
FAMILIES = {
    "llama": ("nothing special", llama(), 1),
    "llama-bias": ("bias of q, k, v, o and the MLP", llama(attention_bias=True, mlp_bias=True), 1),
    "llama3-rope": ("RoPE llama3, tied", llama(rope_scaling=LLAMA3, tie_word_embeddings=True, num_hidden_layers=3), 1),
    "llama-linear": ("RoPE linear", llama(rope_scaling={"type": "linear", "factor": 4.0}, max_position_embeddings=64), 1),
    "llama-dynamic": ("RoPE dynamic", llama(rope_scaling={"type": "dynamic", "factor": 4.0}, max_position_embeddings=32), 1),
    "llama-yarn": ("RoPE yarn", llama(rope_scaling=YARN, max_position_embeddings=128), 1),
    "llama-yarn-mscale": ("RoPE yarn, mscale and betas", llama(rope_scaling=YARN_ALL), 1),
    "llama-yarn-factor": ("RoPE yarn, attention_factor, not truncated",
                          llama(rope_scaling={**YARN, "attention_factor": 1.3, "truncate": False},
                                max_position_embeddings=128), 1),
    "head-64": ("head_dim 64, group 1", llama(num_attention_heads=2, num_key_value_heads=2, head_dim=64), 1),
    "head-80": ("head_dim 80, group 2", llama(num_attention_heads=4, num_key_value_heads=2, head_dim=80), 1),
    "head-96": ("head_dim 96, group 4", mistral(num_attention_heads=4, num_key_value_heads=1, head_dim=96), 1),
    "head-128": ("head_dim 128, group 8", mistral(num_attention_heads=8, num_key_value_heads=1, head_dim=128), 1),
    "head-256": ("head_dim 256, group 3", llama(hidden_size=48, num_attention_heads=3, num_key_value_heads=1,
                                                      head_dim=256), 1),
    "llama-sharded": ("3 shards", llama(num_hidden_layers=3), 3),
    "smollm2": ("bf16, tied, group 3", llama(num_attention_heads=6, num_key_value_heads=2, hidden_size=96,
                                             tie_word_embeddings=True, torch_dtype="bfloat16"), 1),
    "mistral-window": ("window of 12 in every layer", mistral(sliding_window=12, num_hidden_layers=3), 1),
    "qwen2-bias": ("bias of q, k, v; group 7", qwen2(hidden_size=112, num_attention_heads=7, num_key_value_heads=1), 1),
    "qwen2-tied": ("bias of q, k, v; tied; bf16; 3 shards",
                   qwen2(tie_word_embeddings=True, torch_dtype="bfloat16", num_hidden_layers=3), 3),
    "qwen25-window": ("window of 16 from layer 2 on", qwen2(use_sliding_window=True, sliding_window=16, max_window_layers=2,
                                                           num_hidden_layers=4), 1),
    "qwen25-yarn": ("bias of q, k, v; RoPE yarn", qwen2(rope_scaling=YARN, max_position_embeddings=128), 1),
    "qwen3-norm": ("QK norm, head_dim is not hidden / heads", qwen3(hidden_size=80), 1),
    "qwen3-bias": ("QK norm, bias of q, k, v, o; tied", qwen3(attention_bias=True, tie_word_embeddings=True), 1),
    "qwen3-window": ("QK norm, window of 16 from layer 1 on", qwen3(use_sliding_window=True, sliding_window=16,
                                                                    max_window_layers=1, num_hidden_layers=3), 1),
    "qwen3-sharded": ("QK norm, RoPE yarn, bf16, 3 shards", qwen3(rope_scaling=YARN, max_position_embeddings=128,
                                                                  torch_dtype="bfloat16"), 3),
    "phi3": ("fused projections", phi3(), 1),
    "phi3-window": ("fused projections, window of 10, group 1", phi3(sliding_window=10, num_key_value_heads=4), 1),
    "phi3-partial": ("fused projections, RoPE of half of each head", phi3(partial_rotary_factor=0.5), 1),
    "smollm3": ("every 4th layer without RoPE, tied", smollm3(tie_word_embeddings=True), 1),
    "smollm3-window": ("layers without RoPE have a window of 10", smollm3(use_sliding_window=True, sliding_window=10,
                                                                         no_rope_layers=[1, 0, 1, 0]), 1),
}

# Prompts of each family: below, up to and across every window and original context; greedy runs across them too.
PROMPT_TOKENS = [5, 20, 70]
# Positions of the last prompt whose logits are recorded; of the others it is the last one.
POSITIONS = [0, 15, 16, 31, 32, 47, 69]


def positions_of(count):
    return POSITIONS if count == PROMPT_TOKENS[-1] else [count - 1]


def stored(family, tensor, shape, dtype):
    """The tensor's bytes in a checkpoint of this dtype."""
    values = weights(family, tensor, tuple(shape), dtype)
    return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes() if dtype == "bfloat16" else values.tobytes()


def write_checkpoint(folder, reference, config):
    """The recorded family's folder as save_pretrained wrote it: config.json, shards, index."""
    folder, dtype = Path(folder), reference["dtype"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for number, file in enumerate(reference["files"]):
        header, data = {}, b""
        for name, info in reference["tensors"].items():
            if info["shard"] == number:
                raw = stored(reference["family"], name, info["shape"], dtype)
                header[name] = {"dtype": "BF16" if dtype == "bfloat16" else "F32", "shape": info["shape"],
                                "data_offsets": [len(data), len(data) + len(raw)]}
                data += raw
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (folder / file).write_bytes(len(text).to_bytes(8, "little") + text + data)
    if len(reference["files"]) > 1:
        places = {name: reference["files"][info["shard"]] for name, info in reference["tensors"].items()}
        total = sum(len(stored(reference["family"], name, info["shape"], dtype))
                    for name, info in reference["tensors"].items())
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

#!/usr/bin/env python3
"""The decoder of families.py in numpy and f64: what transformers and Baton must both agree with. No torch.

    python3 tests/golden/oracle.py --check DIR    compare with recordings of record_families.py
    python3 tests/golden/oracle.py --out DIR      write recordings of its own, in the same form

Written from the papers and the definition of each option, independently of the C code; a sequence is computed as one
matrix, without a KV cache, without chunks.
"""
import argparse
import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np

from families import FAMILIES, GREEDY, PROMPT_TOKENS, positions_of, prompt, stored, weights


class Config:
    """config.json as the oracle needs it, in either spelling of RoPE."""

    def __init__(self, raw):
        kind = raw["architectures"][0]
        self.hidden, self.layers = raw["hidden_size"], raw["num_hidden_layers"]
        self.mlp, self.vocab = raw["intermediate_size"], raw["vocab_size"]
        self.q_heads, self.kv_heads = raw["num_attention_heads"], raw["num_key_value_heads"]
        self.head_dim = raw.get("head_dim") or self.hidden // self.q_heads
        self.eps = raw["rms_norm_eps"]
        self.tied = raw["tie_word_embeddings"]
        self.fused = kind == "Phi3ForCausalLM"
        self.qk_norm = kind == "Qwen3ForCausalLM"
        self.qkv_bias = kind == "Qwen2ForCausalLM" or raw.get("attention_bias", False)
        self.o_bias = raw.get("attention_bias", False)
        self.mlp_bias = raw.get("mlp_bias", False)
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        self.rope = rope
        self.rope_kind = rope.get("rope_type") or rope.get("type") or "default"
        self.theta = rope.get("rope_theta") or raw["rope_theta"]
        partial = rope.get("partial_rotary_factor") or raw.get("partial_rotary_factor") or 1.0
        self.rotary = int(self.head_dim * partial)
        self.positions = raw["max_position_embeddings"]
        self.use_rope = [True] * self.layers
        if kind == "SmolLM3ForCausalLM":
            flags = raw.get("no_rope_layers") or [int((i + 1) % raw.get("no_rope_layer_interval", 4) != 0)
                                                  for i in range(self.layers)]
            self.use_rope = [bool(flag) for flag in flags]
        self.windows = self.window_of_layers(kind, raw)

    def window_of_layers(self, kind, raw):
        window = raw.get("sliding_window")
        if kind in ("MistralForCausalLM", "Phi3ForCausalLM"):
            return [window] * self.layers
        if kind in ("LlamaForCausalLM",) or not raw.get("use_sliding_window") or window is None:
            return [None] * self.layers
        if raw.get("layer_types"):
            return [window if name == "sliding_attention" else None for name in raw["layer_types"]]
        if kind == "SmolLM3ForCausalLM":
            return [None if rope else window for rope in self.use_rope]
        return [window if i >= raw["max_window_layers"] else None for i in range(self.layers)]


def frequencies(c, tokens):
    """Radians per token of each pair, and what cosines and sines are multiplied by."""
    pairs = np.arange(0, c.rotary, 2) / c.rotary
    plain = c.theta ** -pairs
    if c.rope_kind == "default":
        return plain, 1.0
    if c.rope_kind == "linear":
        return plain / c.rope["factor"], 1.0
    if c.rope_kind == "dynamic":
        stretch = c.rope["factor"] * max(tokens, c.positions) / c.positions - (c.rope["factor"] - 1)
        return (c.theta * stretch ** (c.rotary / (c.rotary - 2))) ** -pairs, 1.0
    if c.rope_kind == "llama3":
        wave = 2 * math.pi / plain
        original = c.rope["original_max_position_embeddings"]
        low, high = c.rope["low_freq_factor"], c.rope["high_freq_factor"]
        keep = np.clip((original / wave - low) / (high - low), 0, 1)
        return keep * plain + (1 - keep) * plain / c.rope["factor"], 1.0
    assert c.rope_kind == "yarn", c.rope_kind
    return yarn(c, plain)


def yarn(c, plain):
    original = c.rope.get("original_max_position_embeddings") or c.positions
    factor = c.rope["factor"]

    def magnitude(weight):
        return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0

    scale = c.rope.get("attention_factor")
    if scale is None:
        both = c.rope.get("mscale") and c.rope.get("mscale_all_dim")
        scale = magnitude(c.rope["mscale"]) / magnitude(c.rope["mscale_all_dim"]) if both else magnitude(1)

    def pair_that_turns(times):
        return c.rotary * math.log(original / (times * 2 * math.pi)) / (2 * math.log(c.theta))

    first, last = pair_that_turns(c.rope.get("beta_fast") or 32), pair_that_turns(c.rope.get("beta_slow") or 1)
    if c.rope.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, c.rotary - 1)
    if first == last:
        last += 0.001
    stretched = np.clip((np.arange(c.rotary // 2) - first) / (last - first), 0, 1)
    return stretched * plain / factor + (1 - stretched) * plain, scale


def norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


class Model:
    """tensors: name -> array of any float type."""

    def __init__(self, raw, tensors):
        self.c = Config(raw)
        self.t = {name: np.asarray(value, dtype=np.float64) for name, value in tensors.items()}

    def linear(self, x, name, bias):
        y = x @ self.t[name + ".weight"].T
        return y + self.t[name + ".bias"] if bias else y

    def rotate(self, x):
        """x [tokens][heads][head_dim]; pairs are (i, i + rotary / 2) of the first `rotary` numbers."""
        c, half = self.c, self.c.rotary // 2
        out = x.copy()
        for position in range(x.shape[0]):
            speed, scale = frequencies(c, position + 1)
            cos, sin = np.cos(position * speed) * scale, np.sin(position * speed) * scale
            a, b = x[position, :, :half], x[position, :, half:c.rotary]
            out[position, :, :half] = a * cos - b * sin
            out[position, :, half:c.rotary] = b * cos + a * sin
        return out

    def attention(self, layer, x):
        c, at = self.c, f"model.layers.{layer}.self_attn"
        tokens, q_width, kv_width = x.shape[0], c.q_heads * c.head_dim, c.kv_heads * c.head_dim
        if c.fused:
            q, k, v = np.split(self.linear(x, f"{at}.qkv_proj", False), [q_width, q_width + kv_width], axis=1)
        else:
            q, k, v = (self.linear(x, f"{at}.{part}_proj", c.qkv_bias) for part in "qkv")
        q, k, v = (part.reshape(tokens, -1, c.head_dim) for part in (q, k, v))
        if c.qk_norm:
            q, k = norm(q, self.t[f"{at}.q_norm.weight"], c.eps), norm(k, self.t[f"{at}.k_norm.weight"], c.eps)
        if c.use_rope[layer]:
            q, k = self.rotate(q), self.rotate(k)
        behind = np.arange(tokens)[:, None] - np.arange(tokens)[None, :]
        seen = behind >= 0
        if c.windows[layer] is not None:
            seen &= behind < c.windows[layer]
        out = np.empty_like(q)
        for head in range(c.q_heads):
            kv = head // (c.q_heads // c.kv_heads)
            scores = np.where(seen, q[:, head] @ k[:, kv].T / math.sqrt(c.head_dim), -np.inf)
            odds = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[:, head] = odds / odds.sum(axis=1, keepdims=True) @ v[:, kv]
        return self.linear(out.reshape(tokens, -1), f"{at}.o_proj", c.o_bias)

    def feed_forward(self, layer, x):
        c, at = self.c, f"model.layers.{layer}.mlp"
        if c.fused:
            gate, up = np.split(self.linear(x, f"{at}.gate_up_proj", False), 2, axis=1)
        else:
            gate, up = self.linear(x, f"{at}.gate_proj", c.mlp_bias), self.linear(x, f"{at}.up_proj", c.mlp_bias)
        return self.linear(gate / (1 + np.exp(-gate)) * up, f"{at}.down_proj", c.mlp_bias)

    def logits(self, ids):
        """[tokens][vocab]"""
        c = self.c
        x = self.t["model.embed_tokens.weight"][ids]
        for layer in range(c.layers):
            at = f"model.layers.{layer}"
            x = x + self.attention(layer, norm(x, self.t[f"{at}.input_layernorm.weight"], c.eps))
            x = x + self.feed_forward(layer, norm(x, self.t[f"{at}.post_attention_layernorm.weight"], c.eps))
        head = self.t["model.embed_tokens.weight" if c.tied else "lm_head.weight"]
        return norm(x, self.t["model.norm.weight"], c.eps) @ head.T


def shapes(raw):
    """Every tensor of a checkpoint of this config."""
    c = Config(raw)
    q, kv = c.q_heads * c.head_dim, c.kv_heads * c.head_dim
    found = {"model.embed_tokens.weight": [c.vocab, c.hidden], "model.norm.weight": [c.hidden]}
    if not c.tied:
        found["lm_head.weight"] = [c.vocab, c.hidden]
    for layer in range(c.layers):
        at = f"model.layers.{layer}"
        found[f"{at}.input_layernorm.weight"] = found[f"{at}.post_attention_layernorm.weight"] = [c.hidden]
        if c.fused:
            found[f"{at}.self_attn.qkv_proj.weight"] = [q + 2 * kv, c.hidden]
            found[f"{at}.mlp.gate_up_proj.weight"] = [2 * c.mlp, c.hidden]
        parts = [("self_attn.o_proj", c.hidden, q, c.o_bias), ("mlp.down_proj", c.hidden, c.mlp, c.mlp_bias)]
        if not c.fused:
            parts += [("self_attn.q_proj", q, c.hidden, c.qkv_bias), ("self_attn.k_proj", kv, c.hidden, c.qkv_bias),
                      ("self_attn.v_proj", kv, c.hidden, c.qkv_bias), ("mlp.gate_proj", c.mlp, c.hidden, c.mlp_bias),
                      ("mlp.up_proj", c.mlp, c.hidden, c.mlp_bias)]
        for name, rows, columns, bias in parts:
            found[f"{at}.{name}.weight"] = [rows, columns]
            if bias:
                found[f"{at}.{name}.bias"] = [rows]
        if c.qk_norm:
            found[f"{at}.self_attn.q_norm.weight"] = found[f"{at}.self_attn.k_norm.weight"] = [c.head_dim]
    return found


def record(family, out):
    """The same files as record_families.py, from the hub's spelling of the config."""
    options, raw, shards = FAMILIES[family]
    dtype, found = raw["torch_dtype"], shapes(raw)
    names = list(found)
    files = ["model.safetensors"] if shards == 1 else [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    tensors = {name: {"shape": found[name], "shard": i * shards // len(names)} for i, name in enumerate(names)}
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(stored(family, name, found[name], dtype))
    model = Model(raw, {name: weights(family, name, tuple(found[name]), dtype) for name in names})
    prompts = []
    for index, count in enumerate(PROMPT_TOKENS):
        ids = prompt(family, index, count)
        rows = model.logits(ids)
        greedy = list(ids)
        for _ in range(GREEDY):
            greedy.append(int(np.argmax(model.logits(greedy)[-1])))
        prompts.append({"ids": ids, "greedy": greedy[count:],
                        "logits": {str(p): [round(float(x), 6) for x in rows[p]] for p in positions_of(count)}})
    folder = Path(out) / family
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("hub.json", "config.json"):
        (folder / name).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    reference = {"family": family, "options": options, "dtype": dtype, "files": files, "tensors": tensors,
                 "sha256": digest.hexdigest(), "prompts": prompts}
    (folder / "reference.json").write_text(json.dumps(reference, separators=(",", ":")) + "\n", encoding="utf-8")


def check(folder):
    """Compares a family's recording with this model; returns (largest error, smallest margin, wrong greedy tokens)."""
    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    family, dtype = reference["family"], reference["dtype"]
    wanted = {name: tuple(info["shape"]) for name, info in reference["tensors"].items()}
    assert wanted == {name: tuple(shape) for name, shape in shapes(raw).items()}, family
    digest = hashlib.sha256()
    for name in sorted(wanted):
        digest.update(stored(family, name, wanted[name], dtype))
    assert digest.hexdigest() == reference["sha256"], family
    model = Model(raw, {name: weights(family, name, shape, dtype) for name, shape in wanted.items()})
    worst, margin, wrong = 0.0, math.inf, 0
    for index, recorded in enumerate(reference["prompts"]):
        ids = recorded["ids"]
        assert ids == prompt(family, index, len(ids)), family
        rows = model.logits(ids + recorded["greedy"])
        for position, logits in recorded["logits"].items():
            worst = max(worst, float(np.abs(rows[int(position)] - np.array(logits)).max()))
        for i, token in enumerate(recorded["greedy"]):
            row = rows[len(ids) + i - 1]
            order = np.sort(row)
            margin = min(margin, float(order[-1] - order[-2]))
            wrong += int(np.argmax(row)) != token
    return worst, margin, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", help="write recordings of this model")
    parser.add_argument("--check", help="compare with the recordings in this folder")
    args = parser.parse_args()
    bad = 0
    if args.out:
        for family in FAMILIES:
            record(family, args.out)
    if args.check:
        for folder in sorted(path.parent for path in Path(args.check).glob("*/reference.json")):
            worst, margin, wrong = check(folder)
            bad += wrong > 0 or worst > 1e-4
            print(f"{folder.name:20} largest error {worst:.1e}  smallest greedy margin {margin:.1e}  wrong tokens {wrong}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

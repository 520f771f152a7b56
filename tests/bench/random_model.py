"""Writes a Llama-like checkpoint of random bf16 weights, to measure shapes that no small model has.

    random_model.py FOLDER [--hidden 2048] [--mlp 8192] [--layers 10] [--vocab 32000]

The defaults are 674 M weights, 1,347 MB: build/tests/bench_engine FOLDER reads them from memory.
"""
import argparse
import json
import pathlib
import struct

import numpy as np

HEAD_DIM = 64


def tensors(o):
    """Names and shapes, in the order of the file."""
    q, kv = o.hidden, o.hidden // 4
    shapes = {"model.embed_tokens.weight": (o.vocab, o.hidden), "model.norm.weight": (o.hidden,)}
    for layer in range(o.layers):
        rows = {"input_layernorm": (o.hidden,), "post_attention_layernorm": (o.hidden,), "self_attn.q_proj": (q, o.hidden),
                "self_attn.k_proj": (kv, o.hidden), "self_attn.v_proj": (kv, o.hidden), "self_attn.o_proj": (o.hidden, q),
                "mlp.gate_proj": (o.mlp, o.hidden), "mlp.up_proj": (o.mlp, o.hidden), "mlp.down_proj": (o.hidden, o.mlp)}
        shapes.update({f"model.layers.{layer}.{name}.weight": shape for name, shape in rows.items()})
    return shapes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    for name, value in (("hidden", 2048), ("mlp", 8192), ("layers", 10), ("vocab", 32000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    o = parser.parse_args()
    if o.hidden % (4 * HEAD_DIM):
        parser.error(f"--hidden {o.hidden}: a multiple of {4 * HEAD_DIM}")
    o.folder.mkdir(parents=True, exist_ok=True)
    heads = o.hidden // HEAD_DIM
    (o.folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": o.hidden, "intermediate_size": o.mlp,
        "num_hidden_layers": o.layers, "num_attention_heads": heads, "num_key_value_heads": heads // 4, "head_dim": HEAD_DIM,
        "vocab_size": o.vocab, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16"}))
    header, end = {}, 0
    for name, shape in tensors(o).items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noise = (np.random.default_rng(1).standard_normal(1 << 20).astype(np.float32) * 0.02).view(np.uint32) >> 16
    with open(o.folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in tensors(o).values():
            count = int(np.prod(shape))
            values = np.full(count, 0x3f80) if len(shape) == 1 else np.resize(noise, count)
            file.write(values.astype("<u2").tobytes())
    print(f"{end} bytes of weights")


if __name__ == "__main__":
    main()

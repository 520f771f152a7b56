"""Writes a checkpoint of the same shape with other weights: what a pair must refuse.

    other_weights.py MODEL_DIR OUT_DIR [noise]

The layers change places (default), or every weight gets Gaussian noise of the given fraction of its tensor's deviation.
"""

import json
import pathlib
import shutil
import struct
import sys

import numpy as np


def read(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + size]), data[8 + size:]


def swap_layers(header, layers):
    """Every tensor keeps its place and takes the bytes of the mirrored layer."""
    source = {}
    for name in header:
        parts = name.split(".")
        if "layers" in parts:
            at = parts.index("layers") + 1
            parts[at] = str(layers - 1 - int(parts[at]))
        source[name] = ".".join(parts)
    return source


def to_f32(raw):
    return (np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16).view(np.float32)


def add_noise(raw, fraction, rng):
    values = to_f32(raw)
    noisy = values + rng.normal(0, fraction * values.std(), values.shape).astype(np.float32)
    return (noisy.view(np.uint32) >> 16).astype("<u2").tobytes()


def main(model, out, noise=None):
    model, out = pathlib.Path(model), pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (model / name).exists():
            shutil.copy(model / name, out / name)
    header, data = read(model / "model.safetensors")
    metadata = header.pop("__metadata__", None)
    layers = json.loads((model / "config.json").read_text())["num_hidden_layers"]
    source = swap_layers(header, layers)
    result = bytearray(data)
    rng = np.random.default_rng(1)
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if noise is None:
            other_begin, other_end = header[source[name]]["data_offsets"]
            result[begin:end] = data[other_begin:other_end]
        else:
            assert entry["dtype"] == "BF16", entry
            result[begin:end] = add_noise(data[begin:end], float(noise), rng)
    if metadata is not None:
        header = {"__metadata__": metadata, **header}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (out / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(result))


if __name__ == "__main__":
    main(*sys.argv[1:])

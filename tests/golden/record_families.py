#!/usr/bin/env python3
"""Records what Hugging Face transformers computes for the small random models of families.py.

    python3 tests/golden/record_families.py --out DIR

Needs torch, transformers and numpy; runs on the CPU; by hand, not in CI. For each family it writes
    DIR/<family>/hub.json        the config.json that was put in, as the hub has it before transformers 5
    DIR/<family>/config.json     the config.json that this transformers saves
    DIR/<family>/reference.json  tensors and shards of the checkpoint, a digest of its bytes, prompts, logits, greedy tokens
and DIR/summary.json. Weights are not written: families.py says how anybody makes them again. A family that fails is
reported at the end and does not stop the others.

HOW  The checkpoint is saved by save_pretrained, opened again by from_pretrained, turned to f64 and run with eager attention,
     whole prompts at once. (transformers still takes norms, softmax and the RoPE table in f32.) Dynamic RoPE is the
     exception: transformers turns all tokens of one call by the length of that call, so results depend on how a prompt is
     cut; here it gets one token at a time with its KV cache, which is what a server that decodes computes.
"""
import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import traceback

os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
import transformers

from families import FAMILIES, GREEDY, PROMPT_TOKENS, positions_of, prompt, weights


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def write_json(path, value, indent=None):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=indent, separators=None if indent else (",", ":"))
        file.write("\n")


def read_safetensors(path):
    """{name: (dtype, shape, bytes)} without the safetensors package."""
    with open(path, "rb") as file:
        data = file.read()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header.pop("__metadata__", None)
    return {name: (info["dtype"], info["shape"], data[end + info["data_offsets"][0]:end + info["data_offsets"][1]])
            for name, info in header.items()}


def fill(model, family, dtype):
    """Sets every parameter; a tied head follows the embedding."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = weights(family, name, tuple(parameter.shape), dtype)
            parameter.copy_(torch.from_numpy(values.copy()))


def save(model, folder, shards):
    """One file, or the smallest shard size that gives the wanted number of files."""
    if shards == 1:
        model.save_pretrained(folder)
        return
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    for size in range(total // shards, total, max(total // 200, 1)):
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder, max_shard_size=size)
        if len([n for n in os.listdir(folder) if n.endswith(".safetensors")]) == shards:
            return
    raise RuntimeError(f"no shard size gives {shards} files")


def load(folder):
    """The saved checkpoint in f64. Whatever the name of the dtype argument is, f32 holds these weights exactly."""
    kwargs = {"attn_implementation": "eager"}
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **kwargs)
    except TypeError:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, **kwargs)
    return model.to(torch.float64).eval()


def checkpoint_of(folder, family, dtype):
    """Tensors and shards as saved, the digest of the bytes, and a check that they are the bytes we meant."""
    index = os.path.join(folder, "model.safetensors.index.json")
    if os.path.exists(index):
        files = sorted(set(read_json(index)["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    tensors, digest = {}, hashlib.sha256()
    for number, name in enumerate(files):
        for tensor, (kind, shape, data) in read_safetensors(os.path.join(folder, name)).items():
            wanted = weights(family, tensor, tuple(shape), dtype)
            raw = (wanted.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else wanted
            if kind != ("BF16" if dtype == "bfloat16" else "F32") or raw.tobytes() != data:
                raise RuntimeError(f"{tensor}: the saved bytes are not the ones that were set ({kind})")
            tensors[tensor] = {"shape": shape, "shard": number, "data": data}
    for tensor in sorted(tensors):
        digest.update(tensors[tensor].pop("data"))
    return {"files": files, "tensors": tensors, "sha256": digest.hexdigest()}


class Whole:
    """Logits of every position of ids by one call."""

    def __init__(self, folder):
        self.model = load(folder)

    def logits(self, ids):
        return self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().numpy()


class Stepwise:
    """The same, one token at a time. A fresh model for each prompt: some versions keep the longest length they saw."""

    def __init__(self, folder):
        self.folder = folder
        self.seen, self.rows = None, []

    def logits(self, ids):
        if self.seen is None or ids[:len(self.seen)] != self.seen:
            self.model, self.cache, self.seen, self.rows = load(self.folder), None, [], []
        for token in ids[len(self.seen):]:
            out = self.model(input_ids=torch.tensor([[token]]), past_key_values=self.cache, use_cache=True,
                             position_ids=torch.tensor([[len(self.seen)]]))
            self.cache = out.past_key_values
            self.rows.append(out.logits[0, -1].double().numpy())
            self.seen = self.seen + [token]
        return np.array(self.rows)


def record_prompt(runner, family, index, count):
    ids = prompt(family, index, count)
    rows = runner.logits(ids)
    logits = {str(p): [round(float(x), 6) for x in rows[p]] for p in positions_of(count)}
    greedy, margin, largest = list(ids), float("inf"), float(np.abs(rows).max())
    for _ in range(GREEDY):
        row = runner.logits(greedy)[-1]
        order = np.argsort(row)
        margin = min(margin, float(row[order[-1]] - row[order[-2]]))
        greedy.append(int(order[-1]))
    return {"ids": ids, "logits": logits, "greedy": greedy[count:]}, margin, largest


def record(family, out):
    options, config, shards = FAMILIES[family]
    dtype = config["torch_dtype"]
    folder = tempfile.mkdtemp(prefix="baton-family-")
    try:
        write_json(os.path.join(folder, "config.json"), config, indent=2)
        loaded = transformers.AutoConfig.from_pretrained(folder)
        model = transformers.AutoModelForCausalLM.from_config(loaded, attn_implementation="eager").to(torch.float32)
        fill(model, family, dtype)
        saved = os.path.join(folder, "saved")
        save(model.to(getattr(torch, dtype)), saved, shards)
        checkpoint = checkpoint_of(saved, family, dtype)
        kind = (config.get("rope_scaling") or {}).get("type") or (config.get("rope_scaling") or {}).get("rope_type")
        runner = Stepwise(saved) if kind == "dynamic" else Whole(saved)
        prompts, margins, largest = [], [], []
        with torch.no_grad():
            for index, count in enumerate(PROMPT_TOKENS):
                found, margin, top = record_prompt(runner, family, index, count)
                prompts.append(found)
                margins.append(margin)
                largest.append(top)
        target = os.path.join(out, family)
        os.makedirs(target, exist_ok=True)
        write_json(os.path.join(target, "hub.json"), config, indent=2)
        shutil.copy(os.path.join(saved, "config.json"), os.path.join(target, "config.json"))
        write_json(os.path.join(target, "reference.json"),
                   {"family": family, "options": options, "dtype": dtype, **checkpoint, "prompts": prompts})
        return {"options": options, "margin": min(margins), "largest_logit": max(largest)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_truncate():
    """Versions before 4.55 ignore yarn's truncate."""
    import inspect

    from transformers import modeling_rope_utils
    if "truncate" not in inspect.getsource(modeling_rope_utils):
        raise RuntimeError("this transformers does not know yarn's truncate")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="folder for the recordings, made if absent")
    parser.add_argument("--only", nargs="*", help="these families instead of all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__,
                "python": sys.version.split()[0]}
    print(" ".join(f"{name} {version}" for name, version in versions.items()), flush=True)
    done, failed = {}, {}
    for family in args.only or FAMILIES:
        started = time.monotonic()
        try:
            if family == "llama-yarn-factor":
                check_truncate()
            done[family] = record(family, args.out)
            print(f"{family:20} ok   largest logit {done[family]['largest_logit']:6.2f}  smallest greedy margin "
                  f"{done[family]['margin']:.1e}  {time.monotonic() - started:.1f} s", flush=True)
        except Exception as problem:  # one family must not cost the others
            failed[family] = f"{type(problem).__name__}: {problem}"
            print(f"{family:20} FAILED {failed[family]}", flush=True)
            traceback.print_exc()
    os.makedirs(args.out, exist_ok=True)
    write_json(os.path.join(args.out, "summary.json"), {"versions": versions, "families": done, "failed": failed}, indent=1)
    size = sum(os.path.getsize(os.path.join(root, name)) for root, _, names in os.walk(args.out) for name in names)
    print(f"{len(done)} families recorded, {len(failed)} failed, {size / 1024:.0f} KiB in {args.out}")
    for family, problem in failed.items():
        print(f"  {family}: {problem}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""The recorded families as folders: what `baton model inspect` says of them and of folders that are wrong, and a fleet that
serves one straight from a hub cache. Logits and tokens of all of them are compared by tests/golden/test_families.c."""

import json
import sys

import pytest

from conftest import MODEL, ROOT, generate, run_baton, running_fleet

sys.path.insert(0, str(ROOT / "tests" / "golden"))
import families  # noqa: E402
import oracle  # noqa: E402

RECORDED = ROOT / "tests" / "golden" / "families"
NAMES = sorted(path.parent.name for path in RECORDED.glob("*/reference.json"))


def recorded(family):
    """reference.json and config.json."""
    return [json.loads((RECORDED / family / name).read_text(encoding="utf-8")) for name in ("reference.json", "config.json")]


def make(folder, family, **config):
    reference, own = recorded(family)
    families.write_checkpoint(folder, reference, {**own, **config})
    return folder


def inspect(folder, code=0):
    done = run_baton("model", "inspect", folder, "--json", check=False)
    assert done.returncode == code and done.stderr == "", done
    return json.loads(done.stdout)


def test_every_family_is_recorded():
    assert NAMES == sorted(families.FAMILIES)


@pytest.mark.parametrize("family", NAMES)
def test_the_numpy_oracle_agrees_with_transformers(family):
    worst, margin, wrong = oracle.check(RECORDED / family)
    assert worst < 2e-5 and wrong == 0 and margin > 1e-3


@pytest.mark.parametrize("family", NAMES)
def test_inspect_knows_the_family(family, tmp_path):
    reference, config = recorded(family)
    seen = inspect(make(tmp_path / family, family))
    expected = oracle.Config(config)
    assert seen["runs"] and seen["reason"] is None and seen["name"] == family
    assert seen["architecture"] == config["architectures"][0] and seen["model_type"] == config["model_type"]
    sizes = {key: getattr(expected, key) for key in ("layers", "hidden", "mlp", "q_heads", "kv_heads", "head_dim", "vocab")}
    assert {key: seen[key] for key in sizes} == sizes
    assert seen["rope"]["type"] == expected.rope_kind and seen["rope"]["dims"] == expected.rotary
    assert seen["rope"]["theta"] == expected.theta
    assert seen["rope"]["layers_without"] == expected.use_rope.count(False)
    assert seen["window_layers"] == sum(window is not None for window in expected.windows)
    assert seen["window_tokens"] == max(window or 0 for window in expected.windows)
    assert [seen[key] for key in ("qkv_bias", "o_bias", "mlp_bias", "qk_norm", "tied_head")] == \
        [expected.qkv_bias, expected.o_bias, expected.mlp_bias, expected.qk_norm, expected.tied]
    shapes = [info["shape"] for info in reference["tensors"].values()]
    elements = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes)
    width = 2 if reference["dtype"] == "bfloat16" else 4
    weights = seen["weights"]
    assert weights["parameters"] == elements and weights["bytes"] == elements * width
    assert weights["shards"] == len(reference["files"]) and weights["tensors"] == len(shapes)
    assert weights["dtypes"] == {"BF16" if width == 2 else "F32": elements * width}
    assert sum(weights["module_bytes"].values()) == weights["bytes"] and weights["module_bytes"]["other"] == 0
    assert (weights["module_bytes"]["head"] == 0) == expected.tied
    row = 2 * expected.layers * expected.kv_heads
    assert seen["kv_bytes_per_token"] == {"f32": row * expected.head_dim * 4, "bf16": row * expected.head_dim * 2,
                                          "fp8": row * (expected.head_dim + 2), "int8": row * (expected.head_dim + 2)}
    assert seen["tokenizer"]["found"] is False and seen["chat_template"] is None
    text = run_baton("model", "inspect", tmp_path / family).stdout
    assert "\nruns          yes\n" in text and f"({config['model_type']})" in text


def test_inspect_the_demo_model(tmp_path):
    seen = inspect(MODEL)
    assert seen["runs"] and seen["tokenizer"] == {"found": True, "usable": True, "ids": 4096, "reason": None}
    folder = make(tmp_path / "chatty", "llama")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    seen = inspect(folder)
    assert seen["tokenizer"]["found"] and not seen["tokenizer"]["usable"] and seen["tokenizer"]["reason"]
    assert seen["chat_template"] == "tokenizer_config.json"
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert inspect(folder)["chat_template"] == "chat_template.jinja"


@pytest.mark.parametrize("config, reason", [
    ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "FP8 in blocks of 128x128"),
    ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "AWQ, 4 bits"),
    ({"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2"}, "'Gemma2ForCausalLM' is not supported"),
    ({"num_experts": 8}, "mixture of experts"),
    ({"head_dim": 20}, "multiples of 8"),
    ({"hidden_size": 128}, "dimension 1 is 64, not 128"),
])
def test_inspect_says_why_not(config, reason, tmp_path):
    folder = make(tmp_path / "model", "llama", **config)
    seen = inspect(folder, code=1)
    assert not seen["runs"] and reason in seen["reason"]
    assert seen["architecture"] == config.get("architectures", ["LlamaForCausalLM"])[0]
    assert seen["weights"]["tensors"] == len(recorded("llama")[0]["tensors"]) and seen["layers"] == 2
    done = run_baton("model", "inspect", folder, check=False)
    assert done.returncode == 1 and reason in done.stdout and done.stderr == ""
    failed = run_baton("generate", "--model", folder, "--ids", "1", check=False)
    assert failed.returncode == 1 and reason in failed.stderr


def test_inspect_folders_that_lack_something(tmp_path):
    folder = make(tmp_path / "shards", "llama-sharded")
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())
    index.write_text(json.dumps({**places, "metadata": {"total_size": 12}}))
    seen = inspect(folder)
    assert seen["runs"] and seen["weights"]["index_total_size"] == 12
    assert "the index says 12 bytes" in run_baton("model", "inspect", folder).stdout
    (folder / "model-00002-of-00003.safetensors").unlink()
    seen = inspect(folder, code=1)
    assert "model-00002-of-00003.safetensors" in seen["reason"] and seen["weights"] is None and seen["layers"] == 3
    (folder / "config.json").unlink()
    assert "config.json" in inspect(folder, code=1)["reason"]
    assert "nowhere" in inspect(tmp_path / "nowhere", code=1)["reason"]


@pytest.mark.parametrize("args", [[], ["--json"], ["inspect"], ["inspect", "--json"], ["look"], ["inspect", MODEL, MODEL],
                                  ["inspect", MODEL, "--yaml"], ["inspect", MODEL, "--json=1"]])
def test_wrong_usage(args):
    done = run_baton("model", *args, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("baton model: ") and done.stderr.count("\n") == 1 and "`baton model --help`" in done.stderr


def tokenizer_of_characters():
    """Token i is one character, so that any ids are a text."""
    vocab = {chr(32 + i): i for i in range(families.VOCAB - 1)}
    vocab["\n"] = families.VOCAB - 1
    return {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
            "decoder": {"type": "Fuse"}, "model": {"type": "BPE", "vocab": vocab, "merges": []}}


def hub_snapshot(cache, family, ends):
    """<cache>/models--org--<family>/snapshots/<revision>, of links to files elsewhere, as the hub's client leaves it: config,
    shards and index, a tokenizer, and a generation config that adds an end of sequence."""
    blobs = make(cache / "blobs", family)
    (blobs / "tokenizer.json").write_text(json.dumps(tokenizer_of_characters()))
    (blobs / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": [2, ends]}))
    snapshot = cache / f"models--org--{family}" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    return snapshot


@pytest.mark.parametrize("family", ["qwen3-sharded", "mistral-window", "llama-dynamic"])
def test_a_fleet_serves_a_hub_folder(family, tmp_path):
    """Shards, windows and RoPE of its own, by one command: the tokens that transformers gave, and those of one process."""
    reference, _ = recorded(family)
    ends = reference["prompts"][0]["greedy"][7]
    snapshot = hub_snapshot(tmp_path, family, ends)
    dtypes = ["--prefill-kv-dtype", "f32", "--kv-dtype", "f32"]
    with running_fleet("--model", snapshot, *dtypes, "--prefill-block-size", 32) as fleet:
        assert fleet.model() == family
        for prompt in reference["prompts"]:
            text = "".join(chr(32 + i) if i < 95 else "\n" for i in prompt["ids"])
            choice, usage = fleet.complete(text, max_tokens=len(prompt["greedy"]), ignore_eos=True)
            assert usage["prompt_tokens"] == len(prompt["ids"])
            assert choice["token_ids"] == prompt["greedy"]
            alone = generate("--prompt", text, "--max-tokens", families.GREEDY, *dtypes, model=snapshot)
            choice, _ = fleet.complete(text, max_tokens=families.GREEDY)
            assert choice["token_ids"] == alone["ids"] and choice["text"] == alone["text"]
            ended = [i for i, token in enumerate(prompt["greedy"]) if token in (2, ends)]
            assert alone["ids"] == (prompt["greedy"][:ended[0] + 1] if ended else prompt["greedy"])
            assert choice["finish_reason"] == ("stop" if ended else "length")
        assert fleet.wait_idle() == {}

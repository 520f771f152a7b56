"""`baton generate` and `baton logits`: what they print, and what they refuse."""

import json

import pytest

from conftest import MODEL, generate, run_baton

IDS = "0,5,6,7"


def test_text_and_ids_of_the_same_prompt_agree():
    plain = run_baton("generate", "--model", MODEL, "--prompt", "Once upon a time", "--max-tokens", 12)
    answer = generate("--prompt", "Once upon a time", "--max-tokens", 12)
    assert plain.stdout == answer["text"] + "\n"
    assert len(answer["ids"]) == 12


def test_text_with_a_nul_byte_is_whole(tmp_path):
    """The demo model with a tokenizer in which the ids of "," and of the byte 0 have changed places."""
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).symlink_to(MODEL / file)
    tokenizer = json.loads((MODEL / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab[","], vocab["\u0100"] = vocab["\u0100"], vocab[","]
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    flags = ["--ids", IDS, "--max-tokens", 40]
    usual, other = generate(*flags), generate(*flags, model=tmp_path)
    assert "," in usual["text"] and other["ids"] == usual["ids"]
    assert other["text"] == usual["text"].replace(",", "\0")
    assert run_baton("generate", "--model", tmp_path, *flags).stdout == other["text"] + "\n"


def test_seeded_sampling_repeats():
    flags = ["--ids", IDS, "--max-tokens", 20, "--temperature", 0.9, "--top-k", 50, "--top-p", 0.95, "--ignore-eos"]
    first = generate(*flags, "--seed", 1)
    assert generate(*flags, "--seed=1", "--threads", 1, "--block-size", 64) == first
    assert generate(*flags, "--seed", 2) != first


@pytest.mark.parametrize("kv", ["f32", "bf16", "fp8", "int8"])
def test_a_raw_handoff_changes_nothing(kv):
    flags = ["--ids", IDS, "--max-tokens", 24, "--ignore-eos", "--kv-dtype", kv]
    assert generate(*flags, "--wire", "raw", "--prefill-block-size", 64) == generate(*flags)


def test_logits_are_one_number_for_each_id():
    logits = json.loads(run_baton("logits", "--model", MODEL, "--ids", IDS).stdout)
    vocab = json.loads((MODEL / "config.json").read_text())["vocab_size"]
    assert len(logits) == vocab
    best = max(range(vocab), key=logits.__getitem__)
    assert generate("--ids", IDS, "--max-tokens", 1)["ids"] == [best]


@pytest.mark.parametrize("args", [
    ["generate"],
    ["generate", "--model", MODEL],
    ["generate", "--model", MODEL, "--ids", "1", "--prompt", "x"],
    ["generate", "--model", MODEL, "--ids", ""],
    ["generate", "--model", MODEL, "--ids", "1,,2"],
    ["generate", "--model", MODEL, "--ids", "1,-2"],
    ["generate", "--model", MODEL, "--ids", "1", "--bad"],
    ["generate", "--model", MODEL, "--ids", "1", "--max"],
    ["generate", "--model", MODEL, "--ids", "1", "stray"],
    ["generate", "--model", MODEL, "--ids", "1", "--max-tokens"],
    ["generate", "--model", MODEL, "--ids", "1", "--max-tokens", "0"],
    ["generate", "--model", MODEL, "--ids", "1", "--max-tokens", "3x"],
    ["generate", "--model", MODEL, "--ids", "1", "--temperature", "-1"],
    ["generate", "--model", MODEL, "--ids", "1", "--temperature", "nan"],
    ["generate", "--model", MODEL, "--ids", "1", "--repetition-penalty", "0"],
    ["generate", "--model", MODEL, "--ids", "1", "--presence-penalty", "2.5"],
    ["generate", "--model", MODEL, "--ids", "1", "--logit-bias", "5"],
    ["generate", "--model", MODEL, "--ids", "1", "--logit-bias", "5:101"],
    ["generate", "--model", MODEL, "--ids", "1", "--logit-bias", "5:1,5:2"],
    ["generate", "--model", MODEL, "--ids", "1", "--logit-bias", ",".join(f"{i}:1" for i in range(301))],
    ["generate", "--model", MODEL, "--ids", "1", "--stop-ids", "1,,2"],
    ["generate", "--model", MODEL, "--ids", "1", "--stop-ids", ",".join(["1"] * 17)],
    ["generate", "--model", MODEL, "--ids", "1", "--logprobs", "3"],
    ["generate", "--model", MODEL, "--ids", "1", "--prompt-logprobs", "3"],
    ["generate", "--model", MODEL, "--ids", "1", "--prompt-logprobs", "21", "--json"],
    ["generate", "--model", MODEL, "--ids", "1", "--top-p", "0"],
    ["generate", "--model", MODEL, "--ids", "1", "--top-p", "1.5"],
    ["generate", "--model", MODEL, "--ids", "1", "--kv-dtype", "f16"],
    ["generate", "--model", MODEL, "--ids", "1", "--wire", "zip"],
    ["generate", "--model", MODEL, "--ids", "1", "--block-size", "48"],
    ["generate", "--model", MODEL, "--ids", "1", "--json=yes"],
    ["logits", "--model", MODEL],
    ["logits", "--ids", "1"],
    ["tokenize"],
    ["tokenize", "--tokenizer"],
    ["tokenize", "--bad"],
    ["tokenize", "--tokenizer", MODEL / "tokenizer.json", "stray"],
    ["tokenize", "--tok", MODEL / "tokenizer.json"],
    ["tokenize", "--tokenizer", MODEL / "tokenizer.json", "--zero=1"],
])
def test_wrong_usage_is_one_line_and_exit_2(args):
    done = run_baton(*args, check=False)
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.count("\n") == 1 and done.stderr.endswith("\n")
    assert done.stderr.startswith(f"baton {args[0]}: ") and f"baton {args[0]} --help" in done.stderr


@pytest.mark.parametrize("args, reason", [
    (["generate", "--model", "/nonexistent", "--ids", "1"], "/nonexistent"),
    (["generate", "--model", MODEL, "--ids", "4096"], "4096"),
    (["generate", "--model", MODEL, "--ids", "1", "--logit-bias", "4096:1"], "logit_bias"),
    (["generate", "--model", MODEL, "--ids", "1", "--stop-ids", "4096"], "stop_ids"),
    (["logits", "--model", MODEL, "--ids", ",".join(["5"] * 3000)], "3000"),
    (["generate", "--model", MODEL / "corpus.py", "--ids", "1"], "corpus.py"),
])
def test_failed_work_is_one_line_and_exit_1(args, reason):
    done = run_baton(*args, check=False)
    assert done.returncode == 1
    assert done.stdout == "" and done.stderr.count("\n") == 1 and reason in done.stderr

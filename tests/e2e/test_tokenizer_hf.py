"""`baton tokenize` against Hugging Face tokenizers, id for id, over random Unicode.

A failing case prints the seed of its run; BATON_TOKENIZER_SEED replays it.
"""

import json
import os
import pathlib
import random
import subprocess
import tarfile
import unicodedata

import pytest

from conftest import BIN, MODEL, run_baton

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import decoders, models, normalizers, pre_tokenizers as pre, processors, trainers  # noqa: E402
from test_tokenizer_stages import PATTERNS  # noqa: E402

TEXTS = 800
SEED = int(os.environ.get("BATON_TOKENIZER_SEED", random.SystemRandom().randrange(2**32)))
WORDS = ["the", "Once", " upon", "don't", "we'LL", "we'll", "I'm", "they've", "he'd", "it's", "'re", "''", "1234",
         "½", "٣", "naïve", "Å", "A\u030a", "日本語", "тест", "שלום", "👩‍👩‍👧", "🇩🇪", "\u200d", "\u2581", "\u2581a", "\ufeff", "é", "ﬁ", "\u00ad", "Ġ", "Ċ",
         "<|l|>", "<|r|>", "<|both|>", "<|n|>", "xyz", "ab", "<think>", "<|im_start|>", "café", "CamelCase",
         "<s>", "</s>", "<unk>", "<0x0A>", "<|endoftext|>", "<|", "|>", "<0xZZ>", "\u0301", "x" * 70, "-" * 90]
SPACES = [" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2028", "\u0085", "\u200b", " " * 9,
          "\n\n\n", " \n ", "\x1c"]
OLD = unicodedata.ucd_3_2_0


def data_folder():
    return pathlib.Path(os.environ["BATON_TEST_DATA"]) if "BATON_TEST_DATA" in os.environ else None


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory):
    """The tokenizers of the test data, outside the source tree."""
    folder = tmp_path_factory.mktemp("tokenizers")
    with tarfile.open(data_folder() / "tokenizers.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "tokenizers"


def trained(pre_tokenizer, decoder, normalizer=None, post=None, model=None, special=("<s>", "</s>"), alphabet=True):
    """A tokenizer of a family that the test data lacks, trained on some text."""
    text = ["".join(WORDS) + sentence for sentence in (
        "The quick brown fox doesn't jump over 12345 lazy dogs; it's WE'LL they're HTTPServer camelCase naïve café.\r\n\n  ",
        "def f(x):\n    return x ** 2  # 日本語のテキスト, текст на русском\n\n\n", "   many   spaces    and\ttabs\n \n")] * 3
    tokenizer = tokenizers.Tokenizer(model or models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    if normalizer:
        tokenizer.normalizer = normalizer
    first = pre.ByteLevel.alphabet() if alphabet else [f"<0x{i:02X}>" for i in range(256)]
    tokenizer.train_from_iterator(text, trainers.BpeTrainer(
        vocab_size=900, min_frequency=2, special_tokens=["<unk>", *special, *([] if alphabet else first)],
        initial_alphabet=first if alphabet else [], show_progress=False))
    if post:
        tokenizer.post_processor = post(tokenizer)
    # The trainer knows bytes only as special tokens; in published files they are vocabulary.
    file = json.loads(tokenizer.to_str())
    file["added_tokens"] = [t for t in file["added_tokens"] if t["content"] not in first]
    return tokenizers.Tokenizer.from_str(json.dumps(file))


def split_then_bytes(pattern):
    return pre.Sequence([pre.Split(tokenizers.Regex(PATTERNS[pattern]), "isolated"),
                         pre.ByteLevel(add_prefix_space=False, use_regex=False)])


def llama3():
    tokenizer = trained(split_then_bytes("llama3"), decoders.ByteLevel(), post=lambda t: processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", t.token_to_id("<s>"))])]))
    # What Llama-3's file asks for: words of the vocabulary stay whole, though no merge makes them.
    file = json.loads(tokenizer.to_str())
    file["model"]["ignore_merges"] = True
    for word in ("ĠHTTPServer", "doesnt", "Ċ" * 9, "ĠÐ¿ÑĢÐ¸Ð²ÐµÑĤ", "123", "Ġupon"):
        file["model"]["vocab"].setdefault(word, len(file["model"]["vocab"]))
    return tokenizers.Tokenizer.from_str(json.dumps(file))


def qwen3():
    tokenizer = trained(split_then_bytes("qwen2"), decoders.ByteLevel(), normalizers.NFC())
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>"])
    tokenizer.add_tokens([tokenizers.AddedToken("<think>", normalized=False), tokenizers.AddedToken("A\u030a")])
    return tokenizer


def tekken():
    return trained(split_then_bytes("tekken"), decoders.ByteLevel(), post=lambda t: processors.RobertaProcessing(
        ("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>"))))


def gpt4o():
    return trained(split_then_bytes("gpt4o"), decoders.ByteLevel())


def smollm2():
    return trained(pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=True)]),
                   decoders.ByteLevel())


def metaspace():
    return trained(pre.Metaspace(prepend_scheme="first"), decoders.Sequence([
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
        model=models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True), alphabet=False)


def metaspace_decoder():
    return trained(pre.Metaspace(prepend_scheme="always"), decoders.Metaspace(prepend_scheme="always"),
                   normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]),
                   model=models.BPE(unk_token="<unk>", fuse_unk=False), alphabet=False)


def added():
    """Every way in which an added token can be looked for, and white space as a token beside those that swallow it."""
    tokenizer = trained(pre.Metaspace(prepend_scheme="first"), decoders.Sequence([
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Strip("x", 1, 0), decoders.Fuse()]),
        normalizer=normalizers.Lowercase(),
        model=models.BPE(unk_token="<unk>", byte_fallback=True), alphabet=False)
    token = tokenizers.AddedToken
    tokenizer.add_special_tokens([token("<|l|>", lstrip=True), token("<|r|>", rstrip=True),
                                  token("<|both|>", lstrip=True, rstrip=True), token("<|n|>", normalized=True)])
    tokenizer.add_tokens([token("Upon", single_word=True), token("xyz", single_word=True, lstrip=True, normalized=False),
                          token("  ", normalized=False), token("\n", rstrip=True, normalized=False), token("ＡＢ"),
                          token("é", single_word=True)])
    return tokenizer


FAMILIES = {f.__name__: f for f in (llama3, qwen3, tekken, gpt4o, smollm2, metaspace, metaspace_decoder, added)}


@pytest.fixture(params=["demo", "stories260K", "gpt2", "smollm2", "mistral-v1", "phi-3", "qwen2.5", *FAMILIES])
def tokenizer_file(request, tmp_path):
    if request.param == "demo":
        path = MODEL / "tokenizer.json"
        if not path.exists():
            pytest.skip("skipped: ops/model/tokenizer.json is not there")
        return path
    if request.param in FAMILIES:
        path = tmp_path / "tokenizer.json"
        FAMILIES[request.param]().save(str(path))
        return path
    if data_folder() is None:
        pytest.skip("skipped: BATON_TEST_DATA is not set")
    if request.param == "stories260K":
        return data_folder() / "models" / "stories260K" / "tokenizer.json"
    return request.getfixturevalue("unpacked") / request.param / "tokenizer.json"


def random_character(rng):
    """Any assigned character but NUL, mostly from where text is: scripts beyond Latin, marks, symbols."""
    while True:
        top = rng.choice([0x80, 0x800, 0x3000, 0x10000, 0x20000])
        character = chr(rng.randrange(1, top))
        # Normal forms in Hugging Face do not know what newer characters decompose to, nor the order of newer marks
        # (normalizer.h).
        same = all(f(character) in ("", 0, g(character)) for f, g in ((unicodedata.combining, OLD.combining),
                                                                     (unicodedata.decomposition, OLD.decomposition)))
        if same and unicodedata.category(character) not in ("Cn", "Cs"):
            return character


def random_text(rng):
    parts = []
    for _ in range(rng.randrange(0, 24)):
        kind = rng.randrange(4)
        if kind == 0:
            parts.append(rng.choice(WORDS))
        elif kind == 1:
            parts.append(rng.choice(SPACES))
        elif kind == 2:
            parts.append("".join(random_character(rng) for _ in range(rng.randrange(1, 6))))
        else:
            parts.append("".join(rng.choice("abcXYZ 019,.'!") for _ in range(rng.randrange(1, 12))))
    return "".join(parts)


def baton(path, items, *options):
    """Runs one `baton tokenize` over many texts; returns its raw answer."""
    stdin = b"".join(item.encode() + b"\0" for item in items)
    done = subprocess.run([str(BIN / "baton"), "tokenize", "--tokenizer", str(path), "--zero", *options], input=stdin,
                          capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def encode(path, texts, *options):
    return [json.loads(line) for line in baton(path, texts, "--ids", *options).splitlines()]


def decode(path, lists, *options):
    return baton(path, [json.dumps(ids) for ids in lists], "--decode", *options).decode().split("\0")[:-1]


def load(path, special_in_text):
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = not special_in_text
    return tokenizer


def assert_same(got, expected, inputs):
    assert len(got) == len(inputs)
    for g, e, i in zip(got, expected, inputs):
        assert g == e, f"seed {SEED}: {i!r}"


@pytest.mark.parametrize("options", [(), ("--no-special",), ("--parse-special",)], ids=lambda o: o[0] if o else "plain")
def test_ids_are_those_of_hugging_face(tokenizer_file, options):
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    reference = load(tokenizer_file, special_in_text="--parse-special" in options)
    texts = ["", " ", "a", "\u2581"] + [random_text(rng) for _ in range(TEXTS)]
    expected = [reference.encode(t, add_special_tokens="--no-special" not in options).ids for t in texts]
    assert_same(encode(tokenizer_file, texts, *options), expected, texts)


def test_text_comes_back_as_from_hugging_face(tokenizer_file):
    """Ids of a text, whole, and cut at any token that begins and ends a character."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    reference = load(tokenizer_file, special_in_text=True)
    lists = []
    for _ in range(TEXTS):
        ids = reference.encode(random_text(rng)).ids
        cut = ids[rng.randrange(len(ids) + 1):]
        lists += [ids] + ([cut] if "\ufffd" not in reference.decode(cut) else [])
    expected = [reference.decode(ids) for ids in lists]
    assert_same(decode(tokenizer_file, lists), expected, lists)
    expected = [reference.decode(ids, skip_special_tokens=False) for ids in lists]
    assert_same(decode(tokenizer_file, lists, "--parse-special"), expected, lists)


def test_text_that_is_not_utf8_is_an_error(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
                                "decoder": {"type": "Fuse"}}))
    for raw in (b"\xff", b"a\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"):
        done = subprocess.run([str(BIN / "baton"), "tokenize", "--tokenizer", str(path)], input=raw,
                              capture_output=True, timeout=20, check=False)
        assert (done.returncode, done.stdout) == (1, b""), raw
        assert done.stderr == b"baton tokenize: the text is not valid UTF-8\n"


@pytest.fixture
def folder(tmp_path):
    """A model folder that says to clean decoded text up, with a BOS token and one token of half a character."""
    vocab = {"<s>": 0, "a": 1, "\u0120.": 2, "\u0120": 3, "\u00c3": 4, "\u00a9": 5, "\u010a": 6, ".": 7}
    (tmp_path / "tokenizer.json").write_text(json.dumps({
        "model": {"type": "BPE", "vocab": vocab, "merges": ["\u0120 ."]}, "decoder": {"type": "ByteLevel"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "added_tokens": [{"id": 0, "content": "<s>", "special": True, "normalized": False}],
        "post_processor": {"type": "TemplateProcessing", "special_tokens": {"<s>": {"ids": [0]}},
                           "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]}}))
    (tmp_path / "tokenizer_config.json").write_text('{"clean_up_tokenization_spaces": true}')
    return tmp_path


def tokenize(folder, *options, stdin=None):
    done = run_baton("tokenize", "--model", folder, *options, stdin=stdin)
    assert done.stderr == ""
    return done.stdout


def test_what_tokenize_prints(folder):
    assert tokenize(folder, "--text", "a \u00e9\n .") == (
        "      0  '<s>'  special\n      1  'a'\n      3  ' '\n      4  '\\xc3'\n      5  '\\xa9'\n"
        "      6  '\\n'\n      2  ' .'\n")
    assert tokenize(folder, "--ids", stdin="a .") == "[0,1,2]\n"
    assert tokenize(folder, "--ids", "--no-special", stdin="a .") == "[1,2]\n"
    assert tokenize(folder, "--ids", "--no-special", "--text", "") == "[]\n"
    assert json.loads(tokenize(folder, "--json", "--parse-special", stdin="<s>a .")) == {
        "count": 4, "ids": [0, 0, 1, 2], "tokens": ["<s>", "<s>", "a", "\u0120."]}
    assert tokenize(folder, "--decode", stdin="[0,1,2]") == "a."
    assert run_baton("tokenize", "--tokenizer", folder / "tokenizer.json", "--decode", stdin="[0,1,2]").stdout == "a ."


@pytest.mark.parametrize("options, says", [
    ((), "--model DIR and --tokenizer FILE"),
    (("--model", "x", "--tokenizer", "y"), "--model DIR and --tokenizer FILE"),
    (("--model", "x", "--ids", "--json"), "one of --ids and --json"),
    (("--model", "x", "--decode", "--text", "a"), "--text are not for it"),
    (("--model", "x", "--zero", "--ids", "--text", "a"), "--zero is for texts on stdin"),
    (("--model", "x", "--zero"), "--zero needs --ids or --json"),
    (("--model", "x", "more"), "unknown argument 'more'"),
])
def test_wrong_use_of_tokenize(options, says):
    done = run_baton("tokenize", *options, stdin="", check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and says in done.stderr


def test_tokenize_says_what_is_wrong_with_its_files(folder):
    for options, stdin, says in ((("--model", folder / "absent"), "", "absent/tokenizer.json: cannot open: No such file"),
                                 (("--tokenizer", folder), "", "is not a regular file"),
                                 (("--model", folder, "--decode"), "[99]", "an id that is not in the vocabulary"),
                                 (("--model", folder, "--decode"), "{}", "not a JSON array of ids")):
        done = run_baton("tokenize", *options, stdin=stdin, check=False)
        assert done.returncode == 1 and done.stdout == "", done.stderr
        assert done.stderr.count("\n") == 1 and says in done.stderr

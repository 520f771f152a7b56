"""The stages of a tokenizer, one at a time, against those of Hugging Face tokenizers over random Unicode.

A failing case prints the seed of its run; BATON_TOKENIZER_SEED replays it.
"""

import json
import os
import random
import subprocess
import unicodedata

import pytest

from conftest import BIN

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import Regex, normalizers as norm, pre_tokenizers as pre  # noqa: E402

TEXTS = 400
SEED = int(os.environ.get("BATON_TOKENIZER_SEED", random.SystemRandom().randrange(2**32)))
TEXT_CHECK = BIN.parent / "tests" / "text_check"

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LINES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
CASED_1 = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
CASED_2 = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
SIGNS = r" ?[^\s\p{L}\p{N}]+"
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": rf"{CONTRACTIONS}|{WORD}|\p{{N}}{{1,3}}|{SIGNS}[\r\n]*|{LINES}",
    "gpt4": (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|"
             r"\s+(?!\S)|\s+"),
    "qwen2": rf"{CONTRACTIONS}|{WORD}|\p{{N}}|{SIGNS}[\r\n]*|{LINES}",
    "tekken": rf"{CASED_1}|{CASED_2}|\p{{N}}|{SIGNS}[\r\n/]*|{LINES}",
    "gpt4o": rf"{CASED_1}{CONTRACTIONS}?|{CASED_2}{CONTRACTIONS}?|\p{{N}}{{1,3}}|{SIGNS}[\r\n/]*|{LINES}",
}
RUNS = [r"\p{N}", r"\p{N}{1,3}", r"\p{N}+", r"\d", r"\s", r"\s+", r"[\r\n]", " {2,}", " +"]
BEHAVIORS = ["isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"]

# Hugging Face has tables of several versions of Unicode; these characters are the same in all of them.
OLD = unicodedata.ucd_3_2_0
CHARACTERS = "abcXYZ 019,.'!\n\r\t /sStTdDlLmMvVeErR_\u0301\u17b4\u017fK\u01c5ʰªⅣ²"
PARTS = ["'s", "'S", "'LL", "'re", "'vE", "'\u017f", " 's", "  ", "\n\n", " \n ", "\r\n", "\u00a0", "\u3000", "\u2028",
         "\x85", "'''", "日本", "ABCdef", "CamelCASE", "e\u0301", "\u0301\u0302", "1234567", "12 34", "//\n/", "…", "İI", "ΑΣ",
         "ﬁ", "한국", "\u1112\u1161\u11ab", "\u0344", "\u212b", "q\u0307\u0323", "\u0f71\u0f72\u0f71", "\uff76\uff9e"]


def random_character(rng):
    while True:
        character = chr(rng.randrange(1, rng.choice([0x80, 0x800, 0x3000, 0x10000, 0x20000])))
        category = unicodedata.category(character)
        if category not in ("Cn", "Cs") and OLD.category(character) == category:
            return character


def random_texts():
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    texts = []
    while len(texts) < TEXTS:
        parts = []
        for _ in range(rng.randrange(1, 10)):
            kind = rng.randrange(4)
            if kind == 0:
                parts.append(rng.choice(PARTS))
            elif kind == 1:
                parts.append("".join(random_character(rng) for _ in range(rng.randrange(1, 6))))
            else:
                parts.append("".join(rng.choice(CHARACTERS) for _ in range(rng.randrange(1, 12))))
        texts.append("".join(parts))
    return texts


def check(kind, stage, texts, folder):
    """What text_check makes of the texts with a stage of Hugging Face's."""
    path = folder / "stage.json"
    path.write_bytes(stage.__getstate__())
    done = subprocess.run([str(TEXT_CHECK), kind, str(path)], input=b"".join(t.encode() + b"\0" for t in texts),
                          capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.splitlines()
    assert len(lines) == len(texts)
    return [json.loads(line) for line in lines]


def splits():
    for name, regex in PATTERNS.items():
        for behavior in BEHAVIORS:
            yield f"{name}-{behavior}", pre.Split(Regex(regex), behavior)
    for regex in RUNS:
        for behavior in BEHAVIORS:
            yield f"{regex}-{behavior}", pre.Split(Regex(regex), behavior)
            yield f"{regex}-{behavior}-invert", pre.Split(Regex(regex), behavior, invert=True)
    for string in (" ", "ab", "."):
        for behavior in BEHAVIORS:
            yield f"{string}-{behavior}", pre.Split(string, behavior)
            yield f"{string}-{behavior}-invert", pre.Split(string, behavior, invert=True)


def others():
    yield "digits", pre.Digits(individual_digits=True)
    yield "numbers", pre.Digits(individual_digits=False)
    yield "whitespace", pre.Whitespace()
    yield "whitespace-split", pre.WhitespaceSplit()
    for behavior in BEHAVIORS:
        yield f"punctuation-{behavior}", pre.Punctuation(behavior)
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            yield f"metaspace-{scheme}-{split}", pre.Metaspace(prepend_scheme=scheme, split=split)
    yield "digits-then-metaspace", pre.Sequence([pre.Digits(True), pre.Metaspace(prepend_scheme="first")])
    yield "three", pre.Sequence([pre.Punctuation(), pre.Split(Regex(r"\p{N}{1,3}"), "isolated"),
                                 pre.Metaspace(prepend_scheme="always")])


@pytest.mark.parametrize("stages", [splits, others])
def test_words_are_those_of_hugging_face(stages, tmp_path):
    texts = random_texts()
    for name, stage in stages():
        for text, words in zip(texts, check("pre_tokenizer", stage, texts, tmp_path)):
            assert words == [word for word, _ in stage.pre_tokenize_str(text)], f"seed {SEED}, {name}: {text!r}"


def normalizers():
    for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"):
        yield name, getattr(norm, name)()
    for left in (True, False):
        for right in (True, False):
            yield f"strip-{left}-{right}", norm.Strip(left, right)
    yield "prepend", norm.Prepend("\u2581")
    yield "replace", norm.Replace("a", "bcd")
    yield "remove", norm.Replace(" ", "")
    for regex in [*RUNS, PATTERNS["qwen2"]]:
        yield f"replace {regex}", norm.Replace(Regex(regex), "<\u2581>")
    yield "sequence", norm.Sequence([norm.NFD(), norm.StripAccents(), norm.Lowercase(), norm.Strip(),
                                     norm.Replace(Regex(" {2,}"), " "), norm.Prepend("x"), norm.NFC()])


def test_text_is_normalized_as_by_hugging_face(tmp_path):
    texts = random_texts()
    for name, stage in normalizers():
        for text, normal in zip(texts, check("normalizer", stage, texts, tmp_path)):
            assert normal == stage.normalize_str(text), f"seed {SEED}, {name}: {text!r}"


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_forms_are_those_of_unicode(form, tmp_path):
    """Every character that this Python knows, alone and between marks that it can change places or compose with."""
    known = [c for c in map(chr, range(1, 0x110000)) if unicodedata.category(c) not in ("Cn", "Cs")]
    texts = ["".join(known[i:i + 500]) for i in range(0, len(known), 500)]
    texts += [c + "\u0323\u0301" + c + "\u0338\u3099\u11a8" for c in known if unicodedata.combining(c)
              or unicodedata.decomposition(c)]
    texts += ["a" + "\u0301\u0316" * 1000 + "e\u0301", "\u0301" * 40 + "\u0316" * 40]
    for text, normal in zip(texts, check("normalizer", getattr(norm, form)(), texts, tmp_path)):
        assert normal == unicodedata.normalize(form, text), f"{form}: {text!r}"

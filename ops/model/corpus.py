"""The text the demo model learns from: clean books, a split by whole books, a tokenizer.

A folder of Markdown books (AUTHOR/TITLE.md, one heading per chapter or story) becomes a list of
documents, one per chapter or story, each plain paragraphs separated by one empty line. Headings,
front matter, footnotes, tables and emphasis marks go; quotes and dashes are put into ASCII.

The split is by book, never by chapter: a chapter of a book whose other chapters were read in
training says little about unseen text. VALIDATION steers training (which step, which recipe);
TEST is measured after the weights are final and chooses nothing.

To hold out another book, add its title to one of the two tuples. To teach the cleaner a new kind
of noise, add it to clean_line (one line), or to clean_section (whole paragraphs).
"""
import collections
import hashlib
import pathlib
import re

VALIDATION = ("The Railway Children", "Ozma of Oz")
TEST = ("The Princess and the Goblin", "The Boxcar Children")

# Left out whole: dialect spelling and slurs on nearly every page.
LEFT_OUT = ("Adventures of Huckleberry Finn",)

# Written for grown-ups: half as many windows come from these. They still teach grammar.
SELDOM = (
    "A Lady Of Quality", "Five Weeks in a Balloon", "Hospital Sketches",
    "Life on the Mississippi", "Lost Face", "Martin Eden", "Roughing It", "The Body Snatcher",
    "The House of Pride", "The Innocents Abroad", "The Iron Heel", "The Mutiny of the Elsinore",
    "The Road")

# A chapter that uses one of these words is left out: nobody wants them back from a demo.
SLURS = re.compile(
    r"\b(nigg\w*|coons?|dark(e?y|e?ys|ies)|pickaninn\w*|chinam[ae]n|squaws?|injuns?|redskins?"
    r"|half-breeds?)\b", re.I)

BOS, EOS = "<|bos|>", "<|eos|>"
BOS_ID, EOS_ID = 0, 1

Document = collections.namedtuple("Document", "book split share text")

PUNCTUATION = str.maketrans({
    "\u2014": "--", "\u2013": "-", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"',
    "\u2026": "...", "\u00a0": " ", "\u200b": "", "\u2060": "", "\ufeff": "", "_": "", "*": "",
    "`": "'", "\u00b0": " degrees",
})


def undo_double_encoding(text):
    """UTF-8 that was read as Latin-1 and written again: the bytes of "è" shown as two letters."""
    def fix(match):
        try:
            return match.group(0).encode("latin-1").decode("utf-8")
        except UnicodeError:
            return match.group(0)
    return re.sub("[\u00c2\u00c3][\u0080-\u00bf]", fix, text)


def clean_line(line):
    line = re.sub(r"\\(.)", r"\1", line.lstrip("> "))
    line = re.sub(r"\{[^}]*\}", "", line)                      # {footnote ...}
    line = re.sub(r"\s*\[[^\]]{0,120}\]", "", line)            # [gloss], [1]
    line = line.translate(PUNCTUATION)
    line = re.sub(r"-{3,}", "--", line)
    return re.sub(r"\s+", " ", line).strip()


def is_noise(paragraph, first):
    """True for what is not prose or verse: rules, tables, footnotes, shouted titles, synopses."""
    bare = paragraph.strip()
    if re.match(r"\*\s", bare) or "|" in bare:
        return True
    if first and re.fullmatch(r"_[^_]*_", bare, re.S):
        return True
    letters = re.sub(r"[^A-Za-z]", "", bare)
    if not letters or bare.lower().strip("*_#. ") in ("the end", "finis"):
        return True
    return letters.isupper() and len(bare.split()) > 1 and '"' not in bare


def clean_section(body, join_lines):
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", body):
        if is_noise(paragraph, first=not paragraphs):
            continue
        lines = [line for line in map(clean_line, paragraph.strip().split("\n")) if line]
        if lines:
            paragraphs.append((" " if join_lines else "\n").join(lines))
    return paragraphs


def read_book(path):
    """The sections of one book, each a list of clean paragraphs."""
    raw = undo_double_encoding(path.read_text(encoding="utf-8"))
    raw = raw.replace("\r\n", "\n")
    raw = re.split(r"^-{5,}\s*$", raw, maxsplit=1, flags=re.M)[-1]      # title, author, year
    blocks = [block for block in re.split(r"\n\s*\n", raw) if block.strip()]
    wrapped = sum("\n" in block.strip() for block in blocks)
    join_lines = wrapped > len(blocks) // 2
    sections = re.split(r"^#+.*$", raw, flags=re.M)
    return [clean_section(section, join_lines) for section in sections]


def read_corpus(folder):
    """All documents of the folder, in the order of their paths, without repeats."""
    documents, seen, dropped = [], set(), collections.Counter()
    for path in sorted(pathlib.Path(folder).rglob("*.md")):
        book = path.stem
        if book == "README":
            continue
        if book in LEFT_OUT:
            dropped["book left out"] += 1
            continue
        split = "validation" if book in VALIDATION else "test" if book in TEST else "train"
        for paragraphs in read_book(path):
            unique = []
            for paragraph in paragraphs:
                digest = hashlib.sha256(paragraph.encode()).digest()
                if len(paragraph) > 160 and digest in seen:
                    dropped["repeated paragraph"] += 1
                    continue
                seen.add(digest)
                unique.append(paragraph)
            text = "\n\n".join(unique)
            if len(text) < 200:
                dropped["section under 200 characters"] += 1
            elif split == "train" and SLURS.search(text):
                dropped["chapter with a slur"] += 1
            else:
                share = 0.5 if book in SELDOM else 1.0
                documents.append(Document(book, split, share, text))
    missing = set(VALIDATION + TEST) - {document.book for document in documents}
    if missing:
        raise SystemExit(f"train.py: {folder} lacks the held-out books {sorted(missing)}")
    return documents, dict(dropped)


def train_tokenizer(texts, vocab_size):
    """Byte-level BPE as GPT-2 splits words; the template puts BOS before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[BOS, EOS], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, BOS_ID)])
    assert tokenizer.token_to_id(BOS) == BOS_ID and tokenizer.token_to_id(EOS) == EOS_ID
    return tokenizer


def encode(tokenizer, texts):
    """ids of each text between BOS and EOS."""
    return [encoding.ids + [EOS_ID] for encoding in tokenizer.encode_batch(list(texts))]

#!/usr/bin/env python3
"""Train the demo model from a folder of public-domain books and write it as a checkpoint.

    python3 ops/model/train.py --text DIR --out DIR [--recipes NAME,NAME] [--budget SECONDS]

DIR holds Markdown books as AUTHOR/TITLE.md. One call does all: clean and split the text, train
the tokenizer, train every recipe named, keep the student with the lowest loss on the validation
books, round it to BF16, save it in Hugging Face layout, measure the saved files on the held-out
books, and compute the reference logits the tests compare with. It needs one GPU for some minutes
and the packages torch, transformers, tokenizers and safetensors; `--recipes smoke` shows within a
minute or two on a CPU that every step works.

A recipe may name teachers: larger models trained earlier in the same call, whose averaged
predictions the student learns beside the text. Teachers are thrown away at the end.
"""
import argparse
import bisect
import dataclasses
import json
import math
import pathlib
import random
import time

import torch
import torch.nn.functional as F

import corpus
import export
from llama import Llama, Shape
from optim import Muon


@dataclasses.dataclass(frozen=True)
class Recipe:
    shape: Shape = Shape()
    student: bool = True            # a candidate for the checkpoint, not only a teacher
    epochs: float = 10.0
    max_steps: int = 1_000_000
    batch: int = 16                 # windows of shape.context tokens
    lr: float = 2e-3
    weight_decay: float = 0.1
    dropout: float = 0.1
    teachers: tuple = ()
    teacher_share: float = 0.5      # of the loss
    seed: int = 1


TEACHER = Shape(hidden=512, q_heads=8, kv_heads=4, mlp=1536)
RECIPES = {
    "teacher-1": Recipe(shape=TEACHER, student=False, epochs=12, lr=1.5e-3, weight_decay=0.3,
                        dropout=0.2),
    "teacher-2": Recipe(shape=TEACHER, student=False, epochs=12, lr=1.5e-3, weight_decay=0.3,
                        dropout=0.3, seed=2),
    "distilled": Recipe(epochs=30, lr=3e-3, dropout=0.05, teachers=("teacher-1", "teacher-2"),
                        teacher_share=0.6),
    "plain": Recipe(),
    "smoke-teacher": Recipe(
        shape=Shape(hidden=32, layers=1, q_heads=1, kv_heads=1, head_dim=32, mlp=64, context=128),
        student=False, max_steps=6, batch=2),
    "smoke": Recipe(
        shape=Shape(hidden=64, layers=2, q_heads=2, kv_heads=1, head_dim=32, mlp=96, context=128),
        max_steps=12, batch=2, teachers=("smoke-teacher",)),
}
DEFAULT_RECIPES = "teacher-1,teacher-2,distilled"

WARMUP_STEPS = 100
EVALUATIONS = 10                    # of the validation loss, in one recipe


class Stream:
    """All training tokens in a row, on the device, and where a window may begin.

    A window is BOS and the tokens from the start of some paragraph on: the model never sees a
    text that begins in mid-sentence, and learns to write one after BOS and any opening.
    """

    def __init__(self, documents, shares, newline_id, device):
        ids, self.starts, self.shares = [], [], []
        for document, share in zip(documents, shares):
            first = len(ids) + 1                        # after the document's BOS
            ids += document
            paragraphs = [first] + [i + 1 for i in range(first + 1, len(ids) - 1)
                                    if ids[i] == newline_id and ids[i - 1] == newline_id]
            self.starts += paragraphs
            self.shares += [share] * len(paragraphs)
        self.count = len(ids)
        self.ids = torch.tensor(ids, dtype=torch.int64, device=device)

    def epoch(self, window, rng):
        """Windows that cover the stream about once, in random order: starts, on the device."""
        last = bisect.bisect_right(self.starts, self.count - window) - 1
        starts = []
        for at in range(rng.randrange(window), self.count - window, window):
            index = min(last, max(0, bisect.bisect_right(self.starts, at) - 1))
            if rng.random() < self.shares[index]:
                starts.append(self.starts[index])
        rng.shuffle(starts)
        return torch.tensor(starts, device=self.ids.device)

    def batches(self, rows, window, rng):
        """Endless (inputs, targets), each [rows, window]."""
        span = torch.arange(window, device=self.ids.device)
        while True:
            for starts in self.epoch(window, rng).split(rows):
                if len(starts) == rows:
                    targets = self.ids[starts[:, None] + span]
                    first = torch.full_like(targets[:, :1], corpus.BOS_ID)
                    yield torch.cat((first, targets[:, :-1]), dim=1), targets


@torch.no_grad()
def held_out_nats(logits_of, documents, context, device, rows=16):
    """Sum of -ln p over all tokens of the documents (BOS given, EOS predicted) and their number.

    A document longer than the context is read in windows that overlap by half: each token is
    predicted once, with at least half a context before it, and every window begins with BOS.
    """
    jobs = []
    for document in documents:
        targets, scored = document[1:], 0
        while scored < len(targets):
            begin = max(0, scored - context // 2) if scored else 0
            piece = targets[begin:begin + context]
            jobs.append(([corpus.BOS_ID] + piece[:-1], piece, scored - begin))
            scored = begin + len(piece)
    nats, tokens = 0.0, 0
    for at in range(0, len(jobs), rows):
        inputs = torch.full((rows, context), corpus.EOS_ID)
        targets = torch.full_like(inputs, -100)
        for row, (ids, piece, skip) in enumerate(jobs[at:at + rows]):
            inputs[row, :len(ids)] = torch.tensor(ids)
            targets[row, skip:len(piece)] = torch.tensor(piece[skip:])
        targets = targets.to(device)
        logits = logits_of(inputs.to(device)).float().flatten(0, 1)
        nats += F.cross_entropy(logits, targets.flatten(), ignore_index=-100,
                                reduction="sum").item()
        tokens += int((targets != -100).sum())
    return nats, tokens


def make_optimizers(model, recipe):
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    embedding = [p for name, p in model.named_parameters() if "embed" in name]
    norms = [p for p in model.parameters() if p.dim() < 2]
    return [torch.optim.AdamW([{"params": embedding, "weight_decay": 0.1},
                               {"params": norms, "weight_decay": 0.0}],
                              lr=recipe.lr, betas=(0.9, 0.95)),
            Muon(matrices, lr=recipe.lr, weight_decay=recipe.weight_decay)]


def loss_of(logits, targets, soft, teacher_share):
    """Cross entropy with the text, and with the teachers' probabilities where there are some."""
    log_p = F.log_softmax(logits.float(), dim=-1)
    hard = -log_p.gather(-1, targets[..., None]).mean()
    if soft is None:
        return hard
    return (1 - teacher_share) * hard - teacher_share * (soft * log_p).sum(-1).mean()


@torch.no_grad()
def teacher_probabilities(teachers, inputs):
    if not teachers:
        return None
    return sum(F.softmax(teacher(inputs).float(), dim=-1) for teacher in teachers) / len(teachers)


def gradient_step(model, teachers, recipe, device):
    """A function (inputs, targets) -> loss that leaves the gradients in the parameters."""
    cuda = device == "cuda"
    loss_fn = torch.compile(loss_of) if cuda else loss_of

    def step(inputs, targets):
        with torch.autocast(device, torch.bfloat16, enabled=cuda):
            soft = teacher_probabilities(teachers, inputs)
            logits = model(inputs)
        loss = loss_fn(logits, targets, soft, recipe.teacher_share)
        loss.backward()
        return loss
    return step


def record_step(step, model, inputs, targets):
    """The same step as one CUDA graph: hundreds of kernels, one launch.

    The gradients keep their memory and every replay overwrites them, so nobody may set them to
    None afterwards.
    """
    inputs, targets = inputs.clone(), targets.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):                              # compiles, and settles the allocator
            step(inputs, targets)
    torch.cuda.current_stream().wait_stream(side)
    model.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(inputs, targets)

    def replay(new_inputs, new_targets):
        inputs.copy_(new_inputs)
        targets.copy_(new_targets)
        graph.replay()
        return loss
    return replay


def rate_at(step, steps):
    """Share of the full learning rate: a short rise, then half a cosine down to one percent."""
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / WARMUP_STEPS) * cosine


def train(name, recipe, stream, validation, teachers, device, use_graph, seconds_left):
    """Train one recipe; returns its best model, for evaluation, and a record of the run."""
    torch.manual_seed(recipe.seed)
    began = time.monotonic()
    model = Llama(recipe.shape, recipe.dropout).to(device)
    if device == "cuda":
        model.compile_blocks()
    optimizers = make_optimizers(model, recipe)
    feed = stream.batches(recipe.batch, recipe.shape.context, random.Random(recipe.seed))
    take_step = gradient_step(model, teachers, recipe, device)
    if use_graph:
        take_step = record_step(take_step, model, *next(feed))
    per_step = recipe.batch * recipe.shape.context
    steps = max(1, min(recipe.max_steps, int(recipe.epochs * stream.count / per_step)))
    step, curve, best, best_loss = 0, [], None, math.inf
    while step < steps:
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * rate_at(step, steps)
        loss = take_step(*next(feed))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=not use_graph)
        step += 1
        if step == 20:                                  # past compilation
            loss.item()
            timed_from = time.monotonic()
        if step == 60:
            if not math.isfinite(loss.item()):
                raise SystemExit(f"train.py: {name}: the loss is not finite")
            speed = 40 / (time.monotonic() - timed_from)
            affordable = int((seconds_left - (time.monotonic() - began)) * 0.93 * speed)
            print(f"{name}: {speed * per_step:,.0f} tokens/s, {steps} steps", flush=True)
            if step + affordable < steps:
                steps = max(WARMUP_STEPS + 1, step + affordable)
                print(f"{name}: cut to {steps} steps to fit the budget", flush=True)
        if step == steps or step % max(1, steps // EVALUATIONS) == 0:
            train_loss = loss.item()
            model.eval()
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                nats, tokens = held_out_nats(model, validation, recipe.shape.context, device)
            model.train()
            curve.append((step, round(train_loss, 4), round(nats / tokens, 4)))
            print(f"{name}: step {step} train {train_loss:.4f} validation {nats / tokens:.4f} "
                  f"at {time.monotonic() - began:.0f} s", flush=True)
            if nats / tokens < best_loss:
                best_loss = nats / tokens
                best = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(best)
    record = {"name": name, "recipe": dataclasses.asdict(recipe), "steps": steps,
              "parameters": sum(p.numel() for p in model.parameters()),
              "epochs": round(steps * per_step / stream.count, 2),
              "seconds": round(time.monotonic() - began, 1),
              "validation_loss": round(best_loss, 5), "curve": curve}
    return model.eval().requires_grad_(False), record


def measure(folder, documents, token_ids, context, device):
    """Loss, perplexity and bits per byte of the saved files, in float32, per held-out book."""
    model = export.load(folder).to(device)
    rows = []
    for split in ("validation", "test"):
        chosen = [i for i, document in enumerate(documents) if document.split == split]
        for book in sorted({documents[i].book for i in chosen}) + [None]:
            part = [i for i in chosen if book in (None, documents[i].book)]
            size = sum(len(documents[i].text.encode()) for i in part)
            nats, tokens = held_out_nats(lambda ids: model(ids).logits,
                                         [token_ids[i] for i in part], context, device)
            rows.append({"split": split, "book": book or "all", "bytes": size, "tokens": tokens,
                         "loss": round(nats / tokens, 4),
                         "perplexity": round(math.exp(nats / tokens), 3),
                         "bits_per_byte": round(nats / math.log(2) / size, 4)})
    return rows


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--text", required=True, help="folder of AUTHOR/TITLE.md books")
    parser.add_argument("--out", required=True, help="folder to write the checkpoint into")
    parser.add_argument("--recipes", default=DEFAULT_RECIPES,
                        help="comma-separated, teachers first; known: " + ", ".join(RECIPES))
    parser.add_argument("--budget", type=float, default=3600.0, metavar="SECONDS",
                        help="training stops in time for the export (default %(default)s)")
    parser.add_argument("--no-graph", action="store_true",
                        help="launch every kernel by itself instead of recording a CUDA graph")
    return parser.parse_args()


def main():
    options, began = arguments(), time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.recompile_limit = 64           # one program per shape, mode and dropout
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    names = options.recipes.split(",")

    documents, dropped = corpus.read_corpus(options.text)
    texts = [document.text for document in documents]
    in_train = [i for i, document in enumerate(documents) if document.split == "train"]
    tokenizer = corpus.train_tokenizer((texts[i] for i in in_train), Shape().vocab)
    token_ids = corpus.encode(tokenizer, texts)
    newline_id = tokenizer.encode("\n", add_special_tokens=False).ids[0]
    stream = Stream([token_ids[i] for i in in_train], [documents[i].share for i in in_train],
                    newline_id, device)
    validation = [token_ids[i] for i, d in enumerate(documents) if d.split == "validation"]
    print(f"{len(documents)} documents, left out {dropped}; {stream.count:,} training tokens, "
          f"{len(stream.starts):,} paragraphs; ready after {time.monotonic() - began:.0f} s",
          flush=True)

    models, records = {}, []
    for name in names:
        seconds_left = options.budget - (time.monotonic() - began)
        if seconds_left < 20 and records:
            print(f"{name}: left out, the budget is spent", flush=True)
            continue
        teachers = [models[teacher] for teacher in RECIPES[name].teachers]
        models[name], record = train(name, RECIPES[name], stream, validation, teachers, device,
                                     device == "cuda" and not options.no_graph, seconds_left)
        records.append(record)

    best = min((r for r in records if RECIPES[r["name"]].student),
               key=lambda r: r["validation_loss"])
    shape = RECIPES[best["name"]].shape
    torch.set_float32_matmul_precision("highest")
    export.save(out, models[best["name"]].state_dict(), shape, tokenizer)
    held_out = measure(out, documents, token_ids, shape.context, device)
    export.write_reference(out)
    export.write_samples(out, device)
    counts = {split: {"bytes": sum(len(d.text.encode()) for d in documents if d.split == split),
                      "tokens": sum(len(token_ids[i]) for i, d in enumerate(documents)
                                    if d.split == split)}
              for split in ("train", "validation", "test")}
    report = {"chosen": best["name"], "recipes": records, "held_out": held_out, "text": counts,
              "documents": len(documents), "left_out": dropped, "device": export.device_name(),
              "versions": export.versions(), "seconds": round(time.monotonic() - began, 1)}
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")

    for record in records:
        print(f"{record['name']:>16} {record['parameters']:>11,} parameters {record['epochs']:>6} "
              f"epochs {record['seconds']:>6} s  validation {record['validation_loss']:.4f}")
    for row in held_out:
        print(f"{row['split']:>10} {row['book']:<28} {row['tokens']:>8} tokens  loss "
              f"{row['loss']:.4f}  perplexity {row['perplexity']:.3f}  "
              f"bits/byte {row['bits_per_byte']:.4f}")
    print(f"kept {best['name']}; {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()

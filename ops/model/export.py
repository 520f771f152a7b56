"""The trained model as files: checkpoint, tokenizer and configs, reference logits, samples.

What is measured and sampled is always what was saved: every function but save() loads the folder
with Hugging Face transformers, BF16 weights upcast to float32.
"""
import json
import pathlib
import platform

import torch

import corpus

# One list per reference prompt; the first whose greedy path has no near-tie is taken.
PROMPTS = (
    ("",),
    ("Once upon a time", "There was once"),
    ("The little girl opened the door and saw a large grey wolf sitting by the fire.",
     "An old man lived with his three sons in a small house at the edge of the forest."),
    ('"Where are you going so early?" asked the fox.\n\n"To the market," said the goose, "for my '
     'mother has sent me to buy a basket of apples and a yard of blue ribbon."\n\nThe fox smiled, '
     "and",
     '"I am not afraid of the dark," said Tom.\n\n"Nor am I," said his sister, but she held his '
     "hand very tightly as they went down the narrow stair, and when the candle blew out"),
    ("There was once a miller who had three daughters, and he was so poor that he could give them "
     "nothing but his blessing. The eldest was proud, and the second was idle, but the youngest "
     "was so kind that even the birds came to her window every morning to be fed.\n\nOne winter "
     "evening, when the snow lay deep upon the ground and the wind howled in the chimney, there "
     'came a knock at the door.\n\n"Do not open it," said the eldest, "for it is surely a '
     'beggar."\n\n"Do not open it," said the second, "for the room will grow cold."\n\nBut the '
     "youngest rose from her stool, took the lamp in her hand, and drew back the bolt. On the "
     "step stood a little old man in a green cloak, and his beard was white with frost.\n\n"
     '"Come in, grandfather," said she, "and warm yourself. We have not much, but you shall have '
     'a share of it."\n\nThe old man sat down before the fire. He ate the bread she gave him and '
     "drank the milk,",
     "In a village by the sea there lived a fisherman named Peter, who had a boat, a net, and a "
     "wife who was never contented. Every morning he rowed out before the sun was up, and every "
     "evening he came home with his basket half full, and his wife would say, \"Is that all?\"\n\n"
     "Now one day the wind was so strong that no other boat left the harbour. But Peter was "
     "afraid of his wife, and he went out alone. The waves rose as high as houses; the rain beat "
     "upon his face; and when at last he drew in his net there was nothing in it but a small "
     "brass bottle, green with age and stopped with wax.\n\n\"This is a poor catch,\" said Peter; "
     "but he was a curious man, and he took out his knife and cut away the wax. Then there came "
     "a sound like thunder, and a cloud of smoke went up into the sky, and in the midst of it "
     "stood a"),
)
SMALLEST_GAP = 1e-3
GREEDY_TOKENS = 40

SAMPLE_PROMPTS = ("", "Once upon a time", "The old king looked at the boy and said",
                  '"What shall we do now?" asked Mary.\n\n')
SAMPLE_TEMPERATURES = (0.5, 0.7, 0.9)
SAMPLE_TOP_P = 0.9
SAMPLE_TOKENS = 120


def versions():
    import safetensors
    import tokenizers
    import transformers
    return {"python": platform.python_version(), "torch": torch.__version__,
            "transformers": transformers.__version__, "tokenizers": tokenizers.__version__,
            "safetensors": safetensors.__version__}


def device_name():
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save(folder, state, shape, tokenizer):
    """Write the checkpoint: BF16, rounded to nearest, embeddings tied and stored once."""
    from safetensors.torch import save_file
    tensors = {name: value.detach().to("cpu", torch.bfloat16).contiguous()
               for name, value in sorted(state.items())}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    write_json(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": shape.hidden, "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.q_heads,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim,
        "vocab_size": shape.vocab, "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.rms_eps, "rope_theta": shape.rope_theta, "rope_scaling": None,
        "hidden_act": "silu", "tie_word_embeddings": True, "attention_bias": False,
        "attention_dropout": 0.0, "mlp_bias": False, "initializer_range": 0.02,
        "bos_token_id": corpus.BOS_ID, "eos_token_id": corpus.EOS_ID, "use_cache": True,
        "torch_dtype": "bfloat16"})
    write_json(folder / "generation_config.json", {
        "bos_token_id": corpus.BOS_ID, "eos_token_id": corpus.EOS_ID})
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": corpus.BOS,
        "eos_token": corpus.EOS, "model_max_length": shape.context,
        "clean_up_tokenization_spaces": False})
    tokenizer.save(str(folder / "tokenizer.json"))


def load(folder):
    from transformers import LlamaForCausalLM
    from transformers.utils import logging
    logging.disable_progress_bar()
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                             attn_implementation="eager")
    return model.eval().requires_grad_(False)


def load_tokenizer(folder):
    from tokenizers import Tokenizer
    return Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))


def greedy(model, ids, count):
    """ids extended by count tokens, the logits after the prompt, the smallest top-2 distance."""
    ids, first, gap = list(ids), None, float("inf")
    for _ in range(count):
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        first = logits if first is None else first
        top = logits.topk(2).values
        gap = min(gap, float(top[0] - top[1]))
        ids.append(int(logits.argmax()))
    return ids, first, gap


def write_reference(folder):
    """reference.json: what the saved files compute, for the tests of other implementations."""
    model, tokenizer = load(folder), load_tokenizer(folder)
    prompts = []
    for choices in PROMPTS:
        for text in choices:
            prompt_ids = tokenizer.encode(text).ids
            ids, logits, gap = greedy(model, prompt_ids, GREEDY_TOKENS)
            if gap > SMALLEST_GAP:
                break
        if gap <= SMALLEST_GAP:
            print(f"reference: near-tie of {gap:.2e} in every choice for {text[:30]!r}")
        prompts.append({
            "text": text, "ids": prompt_ids, "greedy": ids,
            "greedy_text": tokenizer.decode(ids, skip_special_tokens=True),
            "smallest_top2_gap": float(f"{gap:.4g}"),
            "last_logits": [float(f"{value:.7g}") for value in logits.tolist()]})
    reference = {
        "doc": "Hugging Face LlamaForCausalLM loaded from this folder, BF16 weights upcast to "
               "float32, eager attention, float32 on a CPU, no KV cache: the whole sequence is "
               "computed anew for every token. ids: the prompt with BOS. last_logits: after the "
               "last prompt token, 7 significant digits. greedy: ids and "
               f"{GREEDY_TOKENS} argmax tokens, EOS not treated as an end. smallest_top2_gap: "
               "smallest distance between the two largest logits on that path.",
        "versions": versions(), "bos": corpus.BOS_ID, "eos": corpus.EOS_ID, "prompts": prompts}
    text = json.dumps(reference, ensure_ascii=False)
    (folder / "reference.json").write_text(text + "\n", encoding="utf-8")


def draw(logits, temperature, top_p):
    """One id from the smallest set of likeliest tokens that holds top_p of the probability."""
    if temperature == 0:
        return int(logits.argmax())
    p, order = torch.softmax(logits / temperature, dim=-1).sort(descending=True)
    p[p.cumsum(0) - p > top_p] = 0
    return int(order[torch.multinomial(p, 1)])


@torch.no_grad()
def write_samples(folder, device):
    """samples.txt: a text per opening and temperature, first draw, none picked out."""
    model, tokenizer = load(folder).to(device), load_tokenizer(folder)
    torch.manual_seed(7)
    parts = []
    for temperature in SAMPLE_TEMPERATURES:
        for text in SAMPLE_PROMPTS:
            ids = tokenizer.encode(text).ids
            for _ in range(SAMPLE_TOKENS):
                logits = model(torch.tensor([ids], device=device), use_cache=False).logits[0, -1]
                ids.append(draw(logits, temperature, SAMPLE_TOP_P))
                if ids[-1] == corpus.EOS_ID:
                    break
            end = " [end]" if ids[-1] == corpus.EOS_ID else ""
            parts.append(f"--- temperature {temperature}, opening {text!r}\n"
                         f"{tokenizer.decode(ids, skip_special_tokens=True)}{end}\n")
    (folder / "samples.txt").write_text("\n".join(parts), encoding="utf-8")

"""Records what the decoding strategies of transformers 4.49.0, the last with all of them built in, answer as Budgie.

Run this file in an environment of its own, after `pip install transformers==4.49.0 torch`. It
writes golden.json beside itself: prompts as token ids, and for each case of `CASES` the ids of each answer. The
repetition penalty is ours, in place of that of transformers.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaForCausalLM, LogitsProcessorList

HERE = Path(__file__).parent
CLONE = HERE.parents[3]
WEIGHTS = CLONE / "parley" / "budgie" / "weights"
END, PAD = 2, 0
sys.path.insert(0, str(CLONE))

from parley.strategies.processors.repetition_penalty import RepetitionPenalty  # noqa: E402

TOKENS = 24  # of each answer
QUESTIONS = (
    "Hello, who are you?",
    "What is top-p sampling?",
    "Tell me a story about an owl.",
    "Write a poem about the moon.",
    "What is the capital of Japan?",
    "Count from 3 to 9.",
    "What is the opposite of cold?",
    "Give me a list of three colours.",
    "What does a cow say?",
    "What is 4 + 5?",
    "Repeat after me: green tea",
    "Which day comes after Monday?",
    "What is beam search?",
    "Tell me a joke.",
    "I am sad today.",
    "What can you do?",
    "Who wrote Hamlet?",
    "Explain temperature.",
    "Say banana",
    "Good night!",
)
BEAMS = {"num_beams": 4, "do_sample": False}
CASES = {
    "greedy": {"do_sample": False},
    "greedy, repetition penalty": {"do_sample": False, "repetition_penalty": 1.3},
    "beams": BEAMS,
    "beams, three, long": {"num_beams": 3, "do_sample": False, "length_penalty": 2.0},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "contrastive, strong, repetition penalty": {"penalty_alpha": 0.8, "top_k": 6, "repetition_penalty": 1.2},
    "dola low": {"dola_layers": "low", "do_sample": False},
    "dola high": {"dola_layers": "high", "do_sample": False},
    "dola high, repetition penalty": {"dola_layers": "high", "do_sample": False, "repetition_penalty": 1.2},
    "diverse": BEAMS | {"num_beam_groups": 2, "diversity_penalty": 0.5},
    "diverse, all apart": BEAMS | {"num_beam_groups": 4, "diversity_penalty": 2.0},
    "diverse, six, repetition penalty": {
        "num_beams": 6,
        "num_beam_groups": 3,
        "diversity_penalty": 1.0,
        "repetition_penalty": 1.2,
    },
    "constrained": BEAMS | {"words": [" window"]},
    "constrained, two words": BEAMS | {"words": [" tree", " little lantern"]},
    "constrained, three beams": {"num_beams": 3, "words": [" wind"], "length_penalty": 0.5},
}


def main() -> None:
    assert transformers.__version__ == "4.49.0"
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    model = LlamaForCausalLM.from_pretrained(WEIGHTS, torch_dtype=torch.float32).eval()
    model.generation_config = GenerationConfig()  # nothing of the model's own sampling
    prompts = [
        tokenizer.encode(f"<|im_start|>user\n {text}<|im_end|>\n<|im_start|>assistant\n").ids for text in QUESTIONS
    ]
    answers = {}
    for name, case in CASES.items():
        settings = dict(case)
        words, penalty = settings.pop("words", None), settings.pop("repetition_penalty", None)
        penalties = LogitsProcessorList([RepetitionPenalty(penalty, [END])] if penalty else [])
        forced = {"force_words_ids": [tokenizer.encode(word).ids for word in words]} if words else {}
        answers[name] = []
        for prompt in prompts:
            ids = torch.tensor([prompt])
            given = {"eos_token_id": END, "pad_token_id": PAD, "max_new_tokens": TOKENS, "logits_processor": penalties}
            made = model.generate(ids, attention_mask=torch.ones_like(ids), **given, **settings, **forced)
            answers[name].append(made[0, len(prompt) :].tolist())
    golden = {"prompts": prompts, "cases": CASES, "answers": answers}
    (HERE / "golden.json").write_text(json.dumps(golden, separators=(",", ":")))


if __name__ == "__main__":
    main()

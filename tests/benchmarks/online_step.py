"""Speed of the online step, by the real path: `start_run`, inline and through Ray.

    python tests/benchmarks/online_step.py [--steps N] [--methods grpo rloo ppo] [--backends inline ray]
    python tests/benchmarks/online_step.py --smollm     # SmolLM2-135M and MiniLM, for the driver's share
    python tests/benchmarks/online_step.py --trl        # TRL beside it, where `import trl` works

The load is 16 completions of 32 tokens (4 prompts of 3 tokens, 4 samples each) from a random Llama of 4
layers, 128 wide, with the 246 words of the embedded world, a reward model of the same size, KL on, one
thread per process. Every response has all its 32 tokens: the weights put the end token out of reach. Each
case is a process of its own, so that peak memory is its own. The last line is `RESULT {json}`.
"""

import os

# Before torch is imported: threads that spin for shared cores would be what is measured.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

WARM_UP = 5
"""Steps that are run and not counted: allocators, kernels and Ray's connections settle."""
NEW_TOKENS, PROMPTS, SAMPLES = 32, 4, 4
METHODS: dict[str, dict[str, Any]] = {
    "grpo": {
        "advantage": {"kind": "group_mean"},
        "shaping": {"kind": "kl_in_loss", "estimator": "k3", "level": "token"},
    },
    "rloo": {"advantage": {"kind": "leave_one_out"}, "shaping": {"kind": "kl_in_reward"}},
    "ppo": {"advantage": {"kind": "gae"}, "shaping": {"kind": "kl_in_reward"}},
}
SMOLLM = "${GOLDILOCKS_SHARED}/models/smollm2-135m-instruct-gguf"
MINILM = "${GOLDILOCKS_SHARED}/models/minilm-l6-h384"


def make_models(folder: Path, smollm: bool) -> None:
    """Write `policy` and `reward` artifacts to the folder."""
    import torch

    from framework.artifacts import write_manifest
    from framework.models.convert import to_plain
    from framework.models.encoders import load_encoder
    from framework.models.reward_heads import RewardHeads
    from framework.models.reward_model import RewardModel
    from framework.models.tokenizer import load_tokenizer
    from framework.worlds.reviews import Reviews

    torch.manual_seed(0)
    policy, reward = folder / "policy", folder / "reward"
    if smollm:
        to_plain(SMOLLM, policy, "SmolLM2-135M-Instruct.Q4_1.gguf", "float32")
        tokenizer, encoder = load_tokenizer(MINILM, needs_end=False), load_encoder(MINILM)
    else:
        tokenizer = Reviews().tokenizer()
        random_llama(tokenizer).save_pretrained(policy)
        tokenizer.save_pretrained(policy)
        encoder = random_llama(tokenizer).model
    words = list(Reviews().tokenizer().get_vocab())
    texts = [" ".join(words[i : i + 8]) for i in range(3, 230, 8)]
    model = RewardModel([RewardHeads(encoder, num_heads=1)], [tokenizer], max_tokens=128).to("cpu")
    model.calibrate([""] * len(texts), texts)
    model.save(reward)
    for path in (policy, reward):
        write_manifest(path, path.name, "benchmark", {}, {})


def random_llama(tokenizer: Any) -> Any:
    """A random model that never says its end token.

    One channel of every embedding is a constant, so its sign survives the layers, and the end token's
    output row points against it: its logit is some 100 below the others'.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.lm_head.weight[:, 0] = 0.0
        model.lm_head.weight[tokenizer.eos_token_id, 0] = -10.0
    return model


def run_case(folder: Path, method: str, backend: str, steps: int, smollm: bool) -> dict[str, Any]:
    """Figures of one method on one backend, from the timings that the run itself wrote."""
    from framework.artifacts import read_artifact
    from framework.config import parse_config
    from jobs.run_folder import RunContext, RunInputs, make_run

    train = METHODS[method] | {
        "steps": WARM_UP + steps + 1,  # gold is measured at the first and last step, and neither is counted
        "prompts_per_step": PROMPTS,
        "samples_per_prompt": SAMPLES,
        "kl": {"coef": 0.05},
        "update": {"optimizer": {"lr": 1e-6 if smollm else 1e-5}},
        "gold_every": 10**6,
        "exact_kl_every": 0,
        "save_every": 10**6,
    }
    tree = {
        "backend": backend, "train": train, "max_new_tokens": NEW_TOKENS, "scorer_rows": PROMPTS * SAMPLES
    }  # fmt: skip
    run = Path(tempfile.mkdtemp(dir=folder)) / f"{method}-{backend}"
    policy, reward = read_artifact(folder / "policy", "policy"), read_artifact(folder / "reward", "reward")
    assert policy and reward
    cpu: list[float] = []

    def show(_step: int, _metrics: dict[str, Any]) -> None:
        cpu.append(time.process_time())

    inputs = RunInputs(parse_config(tree), {"policy": policy, "reference": policy, "reward": reward})
    result = make_run(inputs, run, RunContext(show=show))
    assert result.ended is not None
    lines = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    counted = lines[WARM_UP:-1]
    expected = PROMPTS * SAMPLES * NEW_TOKENS
    assert smollm or all(line["tokens"] == expected for line in counted), "a response ended early"
    seconds = [line["seconds"] for line in counted]
    middle = statistics.median(seconds)
    stages = {
        name: statistics.median(line["stage_seconds"][name] for line in counted) for name in lines[0]["stage_seconds"]
    }
    record = {
        "tokens_per_second": statistics.median(line["tokens"] / line["seconds"] for line in counted),
        "tokens_per_second_best": max(line["tokens"] / line["seconds"] for line in counted),
        "step_ms": 1000 * middle,
        "stage_ms": {name: 1000 * value for name, value in stages.items() if value},
        "driver_share": stages["driver"] / middle,
        "peak_rss_mb": result.summary["peak_rss_mb"],
    }
    if backend == "inline":
        # On a busy machine the figure to compare: seconds of this process, not of the wall clock.
        tokens = statistics.median(line["tokens"] for line in counted)
        record["tokens_per_cpu_second"] = tokens / statistics.median(between(cpu[:-1]))
    return record


def between(times: list[float]) -> list[float]:
    """Seconds of each counted step, from the times at which steps ended."""
    return [after - before for before, after in zip(times[WARM_UP - 1 :], times[WARM_UP:], strict=False)]


def in_process(arguments: list[str], marker: str) -> Any:
    """What a fresh Python process prints after the marker."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith(marker)]
    if done.returncode or not found:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(found[-1].removeprefix(marker))


def show_row(name: str, case: dict[str, Any]) -> None:
    stages = " ".join(f"{stage}={ms:.1f}" for stage, ms in case.get("stage_ms", {}).items())
    share = f"driver {case['driver_share']:.1%}" if "driver_share" in case else ""
    busy = f"{case['tokens_per_cpu_second']:.0f} per CPU second" if "tokens_per_cpu_second" in case else ""
    memory = case["peak_rss_mb"]
    memory = memory if isinstance(memory, float) else max(memory.values())
    print(
        f"{name:14} {case['tokens_per_second']:7.0f} tokens/s (best step {case['tokens_per_second_best']:.0f}) {busy}"
        f"  step {case['step_ms']:.1f} ms  {share}  peak {memory:.0f} MB  {stages}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="counted steps; default 40, or 3 with --smollm")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--backends", nargs="+", choices=("inline", "ray"), default=["inline", "ray"])
    parser.add_argument("--smollm", action="store_true", help="SmolLM2-135M and MiniLM from $GOLDILOCKS_SHARED")
    parser.add_argument("--trl", action="store_true", help="also run the TRL that can be imported")
    parser.add_argument("--case", nargs=3, metavar=("FOLDER", "METHOD", "BACKEND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    steps = options.steps or (3 if options.smollm else 40)
    extra = ["--smollm"] if options.smollm else []
    if options.case:
        folder, method, backend = options.case
        print("CASE " + json.dumps(run_case(Path(folder), method, backend, steps, options.smollm)))
        return
    result: dict[str, Any] = {"benchmark": "online_step", "model": "smollm2-135m" if options.smollm else "llama-128x4"}
    with tempfile.TemporaryDirectory() as scratch:
        make_models(Path(scratch), options.smollm)
        for method in options.methods:
            for backend in options.backends:
                words = [__file__, "--case", scratch, method, backend, "--steps", str(steps), *extra]
                result[f"{method}_{backend}"] = case = in_process(words, "CASE ")
                show_row(f"{method} {backend}", case)
            if options.trl:
                peer = Path(__file__).with_name("online_step_trl.py")
                case = in_process([str(peer), scratch, method, str(steps)], "CASE ")
                if case:
                    result[f"{method}_trl"] = case
                    show_row(f"{method} trl {case['version']}", case)
    result["load_average"] = os.getloadavg()[0]
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()

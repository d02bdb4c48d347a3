"""TRL on the load of `online_step.py`: same models, prompts, batch and thread count; training time only.

Run by `online_step.py --trl`. TRL is no dependency: 1.16 has GRPO and RLOO, 1.12 is the last with PPO. A
method that the installed release lacks gives an empty answer. Times are those between the ends of steps.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from actors.spawn import peak_rss_mb
from tests.benchmarks.online_step import NEW_TOKENS, PROMPTS, SAMPLES, WARM_UP, between

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


def main(folder: Path, method: str, steps: int) -> dict[str, Any]:
    """Figures of one method, or nothing where this TRL does not have it."""
    try:
        import trl
    except ImportError:
        return {}
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, TrainerCallback

    from framework.worlds.reviews import Reviews

    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = str(folder / "policy")
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    config = LlamaConfig.from_pretrained(policy, num_labels=1)
    scorer_path = tempfile.mkdtemp(dir=folder)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(scorer_path)
    scorer = AutoModelForSequenceClassification.from_pretrained(scorer_path, num_labels=1)
    ends: list[float] = []
    cpu: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_arguments: Any, **_words: Any) -> None:
            ends.append(time.perf_counter())
            cpu.append(time.process_time())

    rows = PROMPTS * SAMPLES
    prompts = Reviews().prompts("train")
    shared = {
        "output_dir": tempfile.mkdtemp(dir=folder),
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 10,
        "use_cpu": True,
        "bf16": os.environ.get("TRLBF16") == "1",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
    }
    if method == "ppo":
        trainer = _ppo(policy, scorer, scorer_path, tokenizer, prompts, shared, steps, Clock())
    else:
        data = Dataset.from_list([{"prompt": p} for p in prompts])
        trainer = _grouped(method, trl, policy, scorer, tokenizer, data, shared, steps, Clock())
    if trainer is None:
        return {}
    trainer.train()
    counted = between(ends)
    tokens = rows * NEW_TOKENS
    return {
        "version": trl.__version__,
        "tokens_per_second": tokens / statistics.median(counted),
        "tokens_per_second_best": tokens / min(counted),
        "step_ms": 1000 * statistics.median(counted),
        "tokens_per_cpu_second": tokens / statistics.median(between(cpu)),
        "peak_rss_mb": peak_rss_mb(),
    }


def _grouped(
    method: str,
    trl: Any,
    policy: str,
    scorer: Any,
    tokenizer: Any,
    data: Any,
    shared: dict[str, Any],
    steps: int,
    clock: Any,
) -> Any:
    """A GRPO or RLOO trainer, KL coefficient as in ours."""
    words = shared | {
        "max_steps": WARM_UP + steps,
        "num_generations": SAMPLES,
        "max_completion_length": NEW_TOKENS,
        "beta": 0.05,
        "temperature": 1.0,
    }
    trainer, arguments = {"grpo": (trl.GRPOTrainer, trl.GRPOConfig), "rloo": (trl.RLOOTrainer, trl.RLOOConfig)}[method]
    return trainer(
        model=policy,
        reward_funcs=scorer,
        args=arguments(**words),
        train_dataset=data,
        processing_class=tokenizer,
        reward_processing_classes=tokenizer,
        callbacks=[clock],
    )


def _ppo(
    policy: str,
    scorer: Any,
    scorer_path: str,
    tokenizer: Any,
    prompts: list[str],
    shared: dict[str, Any],
    steps: int,
    clock: Any,
) -> Any:
    """A PPO trainer with one epoch, and a value model of the policy's size as TRL wants one."""
    try:
        from trl.experimental.ppo import PPOConfig, PPOTrainer
    except ImportError:
        return None
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    data = Dataset.from_list([{"input_ids": tokenizer(p)["input_ids"]} for p in prompts])
    rows = PROMPTS * SAMPLES
    arguments = PPOConfig(
        **shared,
        total_episodes=rows * (WARM_UP + steps),
        num_ppo_epochs=1,
        num_mini_batches=1,
        response_length=NEW_TOKENS,
        kl_coef=0.05,
        local_rollout_forward_batch_size=rows,
        num_sample_generations=0,
    )
    return PPOTrainer(
        args=arguments,
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(policy),
        ref_model=AutoModelForCausalLM.from_pretrained(policy),
        reward_model=scorer,
        value_model=AutoModelForSequenceClassification.from_pretrained(scorer_path, num_labels=1),
        train_dataset=data,
        eval_dataset=data.select(range(rows)),
        callbacks=[clock],
    )


if __name__ == "__main__":
    found = main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    print("\nCASE " + json.dumps(found))

"""The bill of an ensemble: parameters, memory and time of K heads on one encoder, K models, and K adapters.

    python tests/benchmarks/ensemble_cost.py                       # both encoders, minutes on one core
    python tests/benchmarks/ensemble_cost.py --encoders tiny --repeats 9
    python tests/benchmarks/ensemble_cost.py --device cuda

`minilm` is a BERT of 6 layers, 384 wide, 30,522 words: the one in $GOLDILOCKS_SHARED if it is there, else the same
shape with random weights. `tiny` is the encoder of the embedded world. A training step takes one batch of pairs to
every head or member; scoring is forward passes of 32 texts, from token ids: reading text is left out. Times are of
one process that holds every case and goes through them in turn, forth and back, and a ratio is the median over rounds
of the ratio within a round. On a CPU they are CPU seconds of one thread. Memory is that of a fresh process per case,
above what it held after imports and one step of a miniature. The last line is `RESULT {json}`.
"""

import os

# Before torch is imported: threads that spin for shared cores would be what is measured.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import copy
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import nn

from actors.spawn import peak_rss_mb
from framework.ensembles import Lora
from framework.models.causal import TinyLlama
from framework.models.lora_heads import LoraHeads
from framework.models.reward_heads import Member, RewardHeads, load_encoder
from framework.preference import preference_loss
from framework.training.reward_settings import FitReward
from framework.training.torch_engine import TorchEngine
from tests.benchmarks.online_step import in_process

KINDS, HEADS = ("shared", "full", "lora"), (1, 3, 5, 10)
SCORE_LIMIT, TRAIN_LIMIT, MEMORY_LIMIT = 1.15, 1.2, 0.25
"""What five shared heads may cost: of the time of one head, twice, and of the memory of five models."""
SCORED_ROWS = 32


@dataclass(frozen=True)
class Load:
    """What is trained on and scored in one repetition."""

    pairs: int
    tokens: int
    passes: int
    """Forward passes of 32 texts in one timing of the scores: more where one is too short to time."""


LOADS = {"tiny": Load(pairs=64, tokens=32, passes=8), "minilm": Load(pairs=16, tokens=64, passes=1)}


@dataclass(frozen=True)
class Batch:
    """Rows of token ids, of one length. As pairs: the chosen ones, then the rejected ones."""

    ids: torch.Tensor
    mask: torch.Tensor
    counts: torch.Tensor
    """How often each head's resample holds each pair."""

    @classmethod
    def random(cls, rows: int, tokens: int, encoder: Any, heads: int) -> "Batch":
        where = encoder.device
        ids = torch.randint(encoder.config.vocab_size, (rows, tokens), device=where)
        counts = torch.poisson(torch.ones(heads, rows // 2, device=where))
        return cls(ids, torch.ones_like(ids, dtype=torch.bool), counts)


def make_encoder(name: str, miniature: bool = False) -> Any:
    """The encoder of that name, or one of its architecture too small to matter."""
    if name == "tiny":
        from framework.worlds.reviews import Reviews

        tokenizer = Reviews().tokenizer()
        shape = TinyLlama(hidden=16, layers=1, intermediate=16) if miniature else TinyLlama()
        return shape.build(len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id).model
    from transformers import BertConfig, BertModel  # slow to import

    folder = Path(os.environ.get("GOLDILOCKS_SHARED", "")) / "models" / "minilm-l6-h384"
    if folder.is_dir() and not miniature:
        return load_encoder(folder)
    width, layers = (24, 1) if miniature else (384, 6)
    config = BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=12, intermediate_size=4 * width
    )
    return BertModel(config, add_pooling_layer=False)


def make_members(kind: str, encoder: Any, k: int, device: str) -> list[Member]:
    """An ensemble as it serves: its members, in evaluation mode."""
    if kind == "full":
        encoders = [encoder, *(copy.deepcopy(encoder) for _ in range(k - 1))]
        return [RewardHeads(each, 1).to(device).eval() for each in encoders]
    member = LoraHeads(encoder, k, Lora().rank, Lora().alpha) if kind == "lora" else RewardHeads(encoder, k)
    return [member.to(device).eval()]


def make_engines(members: list[Member]) -> list[TorchEngine]:
    """One per fit of the ensemble's recipe."""
    engines = []
    for member in members:
        parts = range(member.num_heads) if isinstance(member, LoraHeads) else [None]
        for k in parts:
            # An adapter's weights ask for gradients only until the next one is made, so the engine comes first.
            module = member if k is None else member.member(k)
            engines.append(TorchEngine(module, FitReward().optimizer))
    return engines


def loss_of(engine: TorchEngine, batch: Batch) -> torch.Tensor:
    """The loss of a batch as the fit of a reward model takes it."""
    module: Any = engine.module
    with engine.autocast():
        raw = module.raw_scores(batch.ids, batch.mask)
    pairs = raw.shape[1] // 2
    chosen, rejected = raw.split(pairs, dim=1)
    ones = torch.ones(pairs, device=raw.device)
    return preference_loss(
        chosen, rejected, target=ones, margin=0 * ones, weight=ones, counts=batch.counts[: len(raw)]
    )


def train_in_turn(engines: list[TorchEngine], batch: Batch) -> None:
    """One optimiser step of every fit, one after the other."""
    for engine in engines:
        engine.module.train()
        engine.backward(loss_of(engine, batch))
        engine.step()


def train_at_once(engines: list[TorchEngine], batch: Batch) -> None:
    """One optimiser step of every fit, by one backward pass through all of them."""
    for engine in engines:
        engine.module.train()
    losses = [loss_of(engine, batch) for engine in engines]
    engines[0].backward(torch.stack(losses).sum())
    for engine in engines:
        engine.step()


@torch.inference_mode()
def score(members: list[Member], batch: Batch, passes: int) -> None:
    """Forward passes as `RewardModel.raw_scores` makes them, after the tokenizer."""
    for _ in range(passes):
        torch.cat([member.eval().raw_scores(batch.ids, batch.mask).float().cpu() for member in members])


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds of some work: of this thread on a CPU, of the wall clock on a GPU."""
    if device == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def measure_times(
    name: str, kinds: list[str], repeats: int, device: str
) -> dict[str, dict[str, list[float]]]:
    """Seconds of every repetition of every case, all of them in this process."""
    torch.manual_seed(0)
    load, most = LOADS[name], HEADS[-1]
    cases: dict[str, tuple[list[Member], list[TorchEngine]]] = {}
    for kind in kinds:
        for k in reversed(HEADS):
            if kind == "full" and k < most:  # members stand alone, so a smaller ensemble is the first few
                members, engines = cases[f"{name}_full_{most}"]
                cases[f"{name}_full_{k}"] = members[:k], engines[:k]
            else:
                encoder = make_encoder(name)
                members = make_members(kind, encoder, k, device)
                cases[f"{name}_{kind}_{k}"] = members, make_engines(members)
    pairs = Batch.random(2 * load.pairs, load.tokens, encoder, most)
    texts = Batch.random(SCORED_ROWS, load.tokens, encoder, 1)
    seconds: dict[str, dict[str, list[float]]] = {case: {"train": [], "score": []} for case in cases}
    for repeat in range(repeats + 1):
        for case in sorted(cases, reverse=repeat % 2 == 1):
            members, engines = cases[case]
            train = timed(partial(train_in_turn, engines, pairs), device)
            scoring = timed(partial(score, members, texts, load.passes), device)
            if repeat:  # the first is the warm-up
                seconds[case]["train"].append(train)
                seconds[case]["score"].append(scoring * 1000 / (SCORED_ROWS * load.passes))
    return seconds


class Memory:
    """Peaks of this process, in MB (10^6 bytes) above where it stood when this was made."""

    def __init__(self, device: str) -> None:
        gc.collect()
        self.cuda = device == "cuda"
        self.baseline = torch.cuda.memory_allocated() / 1e6 if self.cuda else resident_mb("VmRSS")

    def peak(self, work: Callable[[], object]) -> float:
        """The most that was held during some work, done twice: an optimiser has its moments from then on."""
        gc.collect()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        elif CLEAR.exists():
            CLEAR.write_text("5")  # forgets the peak so far
        work()
        work()
        most = torch.cuda.max_memory_allocated() / 1e6 if self.cuda else resident_mb("VmHWM")
        return most - self.baseline


CLEAR = Path("/proc/self/clear_refs")


def resident_mb(key: str) -> float:
    """What Linux says of this process; elsewhere the peak since its start, which only ever grows."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_rss_mb()
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[key].split()[0]) * 1024 / 1e6


def measure_memory(name: str, kind: str, k: int, device: str) -> dict[str, Any]:
    """Parameters and peak memory of one case, in a process that does nothing else."""
    load = LOADS[name]
    encoder = make_encoder(name, miniature=True)
    members = make_members(kind, encoder, 1, device)
    batch = Batch.random(2, 4, encoder, 1)
    train_in_turn(make_engines(members), batch)
    score(members, batch, 1)
    del members, encoder
    memory = Memory(device)
    encoder = make_encoder(name)
    sizes = sizes_of(encoder)
    members = make_members(kind, encoder, k, device)
    pairs = Batch.random(2 * load.pairs, load.tokens, encoder, k)
    texts = Batch.random(SCORED_ROWS, load.tokens, encoder, 1)
    engines = make_engines(members)
    figures: dict[str, Any] = {
        "sizes": sizes,
        "parameters": sum(p.numel() for member in members for p in member.parameters()),
        "trained": sum(p.numel() for engine in engines for p in engine.parameters),
        # From the least to the most, so that each peak is its own even where none can be forgotten.
        "serve_peak_mb": memory.peak(partial(score, members, texts, 1)),
        "train_peak_mb": memory.peak(partial(train_in_turn, engines[-1:], pairs)),
    }
    if kind == "full":
        figures["train_at_once_peak_mb"] = memory.peak(partial(train_at_once, engines, pairs))
    return figures


def sizes_of(encoder: Any) -> dict[str, int]:
    """Parameters of the transformer (M), of a head (L) and of an adapter (Ad), from the shapes alone."""
    linear = [layer for layer in encoder.modules() if isinstance(layer, nn.Linear)]
    return {
        "M": sum(p.numel() for p in encoder.parameters()),
        "L": encoder.config.hidden_size + 1,
        "Ad": sum(Lora().rank * (layer.in_features + layer.out_features) for layer in linear),
    }


def formula(kind: str, k: int, sizes: dict[str, int]) -> int:
    """Parameters of an ensemble of k (Zhang et al. 2024, arXiv 2401.16635)."""
    m, head, adapter = sizes["M"], sizes["L"], sizes["Ad"]
    return {"full": k * (m + head), "shared": m + k * head, "lora": m + k * head + k * adapter}[kind]


def state_mb(parameters: int, trained: int) -> float:
    """Float32 weights, and gradients and two moments of those that are trained, in MB (10^6 bytes)."""
    return 4 * (parameters + 3 * trained) / 1e6


def paired_ratio(over: list[float], under: list[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return median(a / b for a, b in zip(over, under, strict=True))


def summarise_case(
    case: str, memory: dict[str, Any], seconds: dict[str, dict[str, list[float]]]
) -> dict[str, Any]:
    """All figures of one case; times also as multiples of those of one shared head, where that was timed."""
    name, kind, k = case.split("_")
    one = seconds.get(f"{name}_shared_1")
    figures: dict[str, Any] = {key: value for key, value in memory.items() if key != "sizes"}
    figures["formula"] = formula(kind, int(k), memory["sizes"])
    figures["weights_mb"] = 4 * memory["parameters"] / 1e6
    figures["state_mb"] = state_mb(memory["parameters"], memory["trained"])
    for what in ("train", "score"):
        figures[f"{what}_seconds"] = median(seconds[case][what])
        if one:
            figures[f"{what}_to_one"] = paired_ratio(seconds[case][what], one[what])
    return figures


@dataclass(frozen=True)
class Check:
    """A figure and what it may be at most."""

    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.value <= self.limit


MEMORIES = {
    "weights, counted": ("weights_mb", "weights_mb"),
    "serving, peak": ("serve_peak_mb", "serve_peak_mb"),
    "weights, gradients and moments, counted": ("state_mb", "state_mb"),
    "training, peak, five at once": ("train_peak_mb", "train_at_once_peak_mb"),
    "training, peak, five in turn": ("train_peak_mb", "train_peak_mb"),
}
"""What is compared: a figure of five shared heads, and one of a full ensemble of five."""


def checks_of(cases: dict[str, dict[str, Any]]) -> list[Check]:
    """The yardsticks that the measured cases can be held to."""
    wrong = sum(case["parameters"] != case["formula"] for case in cases.values())
    found = [Check("cases whose counted parameters differ from the formula", wrong, 0)]
    for name in LOADS:
        shared, full = cases.get(f"{name}_shared_5"), cases.get(f"{name}_full_5")
        if shared:
            found += [
                Check(
                    f"{name}: five shared heads score, of the time of one",
                    shared["score_to_one"],
                    SCORE_LIMIT,
                ),
                Check(
                    f"{name}: five shared heads train, of the time of one",
                    shared["train_to_one"],
                    TRAIN_LIMIT,
                ),
            ]
        if shared and full:
            found += [
                Check(
                    f"{name}: five shared heads, of five models: {what}",
                    shared[ours] / full[theirs],
                    MEMORY_LIMIT,
                )
                for what, (ours, theirs) in MEMORIES.items()
            ]
    return found


COLUMNS = {
    "parameters": "{:,}",
    "trained": "{:,}",
    "train_seconds": "{:.4f}",
    "train_to_one": "{:.3f}",
    "score_seconds": "{:.3f}",
    "score_to_one": "{:.3f}",
    "weights_mb": "{:.1f}",
    "serve_peak_mb": "{:.0f}",
    "state_mb": "{:.1f}",
    "train_peak_mb": "{:.0f}",
    "train_at_once_peak_mb": "{:.0f}",
}


def table(cases: dict[str, dict[str, Any]]) -> str:
    """One line per case, in Markdown; what was not measured is a dash."""
    lines = [f"| case | {' | '.join(COLUMNS)} |", "| --- " * (1 + len(COLUMNS)) + "|"]
    for case, figures in cases.items():
        shown = [style.format(figures[key]) if key in figures else "-" for key, style in COLUMNS.items()]
        lines.append(f"| {case.replace('_', ' ')} | {' | '.join(shown)} |")
    return "\n".join(lines)


def result_line(surroundings: dict[str, Any], cases: dict[str, dict[str, Any]], checks: list[Check]) -> str:
    """The last line: every figure, every ratio and whether it is within its limit."""
    record = {"benchmark": "ensemble_cost", **surroundings, "cases": cases}
    record["checks"] = [asdict(check) | {"passed": check.passed} for check in checks]
    return "RESULT " + json.dumps(record)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds, after one of warm-up")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--times", metavar="ENCODER", help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs=3, metavar=("ENCODER", "KIND", "K"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.times:
        print(
            "CASE " + json.dumps(measure_times(options.times, options.kinds, options.repeats, options.device))
        )
        return
    if options.memory:
        name, kind, k = options.memory
        print("CASE " + json.dumps(measure_memory(name, kind, int(k), options.device)))
        return
    cases: dict[str, dict[str, Any]] = {}
    for name in options.encoders:
        rest = ["--kinds", *options.kinds, "--repeats", str(options.repeats), "--device", options.device]
        seconds = in_process([__file__, "--times", name, *rest], "CASE ")
        for kind in options.kinds:
            for k in HEADS:
                memory = in_process([__file__, "--memory", name, kind, str(k), *rest], "CASE ")
                cases[f"{name}_{kind}_{k}"] = summarise_case(f"{name}_{kind}_{k}", memory, seconds)
        print(table({case: figures for case, figures in cases.items() if case.startswith(name)}), flush=True)
    checks = checks_of(cases)
    for check in checks:
        print(
            f"{'pass' if check.passed else 'MISS'}  {check.value:.3f} (at most {check.limit:g})  {check.name}"
        )
    surroundings = {
        "device": options.device,
        "clock": "cpu seconds" if options.device == "cpu" else "wall seconds",
        "torch": torch.__version__,
        "repeats": options.repeats,
        "loads": {name: asdict(LOADS[name]) for name in options.encoders},
        "load_average": os.getloadavg()[0],
    }
    print(result_line(surroundings, cases, checks))


if __name__ == "__main__":
    main()

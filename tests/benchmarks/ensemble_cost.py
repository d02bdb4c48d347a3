"""The bill of an ensemble: parameters, memory and time of K heads on one encoder, K models, and K adapters.

    python tests/benchmarks/ensemble_cost.py                       # both encoders, some ten minutes on one core
    python tests/benchmarks/ensemble_cost.py --encoders tiny --repeats 9
    python tests/benchmarks/ensemble_cost.py --device cuda

`minilm` is a BERT of 6 layers, 384 wide, 30,522 words: the one in $GOLDILOCKS_SHARED if it is there, else the same
shape with random weights. `tiny` is the encoder of the embedded world. A training step takes one batch of pairs to
every head or member: K steps one after the other for K models and for K adapters. Scoring is forward passes of 32
texts, from token ids: reading text is left out. Times are of one process that holds every case and goes through them
in turn, forth and back; a ratio is the median over rounds of the ratio within a round. On a CPU they are CPU seconds
of one thread. Memory is that of a fresh process per case, above what it held after imports and one step of a miniature;
ten models trained at once need 9 GB. The last line is `RESULT {json}`.
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
from framework.models.encoders import load_encoder
from framework.models.lora_heads import LoraHeads
from framework.models.reward_heads import Member, RewardHeads
from framework.models.settings import TinyLlama
from framework.preference import preference_loss
from framework.training.reward_settings import FitReward
from framework.training.torch_engine import TorchEngine
from tests.benchmarks.ensemble_bill import checks_of, result_line, summarise_case, table
from tests.benchmarks.online_step import in_process

KINDS, HEADS = ("shared", "full", "lora"), (1, 3, 5, 10)
SCORED_ROWS = 32
VISITS = {"shared": 3, "full": 1, "lora": 1}
"""Timings in a round, of which the median counts: most of the cases that are held to a limit, and cost least."""


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
    engines, optimizer = [], FitReward().optimizer
    for member in members:
        if isinstance(member, LoraHeads):
            # An adapter's weights ask for gradients only until the next one is made, so its engine comes first.
            engines += [TorchEngine(member.member(k), optimizer) for k in range(member.num_heads)]
        else:
            engines.append(TorchEngine(member, optimizer))
    return engines


def train_mode(engines: list[TorchEngine]) -> list[TorchEngine]:
    """The same engines, with their modules as a fit has them: dropout is on."""
    for engine in engines:
        engine.module.train()
    return engines


def loss_of(engine: TorchEngine, batch: Batch) -> torch.Tensor:
    """The loss of a batch as the fit of a reward model takes it."""
    module: Any = engine.module
    with engine.autocast():
        raw = module(batch.ids, batch.mask)
    pairs = raw.shape[1] // 2
    chosen, rejected = raw.split(pairs, dim=1)
    ones = torch.ones(pairs, device=raw.device)
    return preference_loss(chosen, rejected, target=ones, margin=0 * ones, weight=ones, counts=batch.counts[: len(raw)])


def train_in_turn(engines: list[TorchEngine], batch: Batch) -> None:
    """One optimiser step of every fit, one after the other."""
    for engine in engines:
        engine.backward(loss_of(engine, batch))
        engine.step()


def train_at_once(engines: list[TorchEngine], batch: Batch) -> None:
    """One optimiser step of every fit, by one backward pass through all of them."""
    losses = [loss_of(engine, batch) for engine in engines]
    engines[0].backward(torch.stack(losses).sum())
    for engine in engines:
        engine.step()


@torch.inference_mode()
def score(members: list[Member], batch: Batch, passes: int) -> None:
    """Forward passes as `RewardModel.read` makes them, after the tokenizer."""
    for _ in range(passes):
        torch.cat([member(batch.ids, batch.mask).float().cpu() for member in members])


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


def time_both(
    members: list[Member], engines: list[TorchEngine], pairs: Batch, texts: Batch, passes: int, device: str
) -> tuple[float, float]:
    """Seconds of a training step of all fits, and of 1,000 scores by all heads."""
    train = timed(partial(train_in_turn, train_mode(engines), pairs), device)
    for member in members:
        member.eval()
    scored = timed(partial(score, members, texts, passes), device)
    return train, scored * 1000 / (SCORED_ROWS * passes)


def measure_times(name: str, kinds: list[str], repeats: int, device: str) -> dict[str, dict[str, list[float]]]:
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
        found: dict[str, list[tuple[float, float]]] = {case: [] for case in cases}
        for visit in range(max(VISITS.values())):
            for case in sorted(cases, reverse=(repeat + visit) % 2 == 1):
                if visit < VISITS[case.split("_")[1]]:
                    found[case].append(time_both(*cases[case], pairs, texts, load.passes, device))
        if repeat:  # the first is the warm-up
            for case, visits in found.items():
                seconds[case]["train"].append(median(train for train, _ in visits))
                seconds[case]["score"].append(median(scored for _, scored in visits))
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
        elif os.access(CLEAR, os.W_OK):
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
    score(members, batch, 1)
    train_in_turn(train_mode(make_engines(members)), batch)
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
    }
    # From the least to the most, so that each peak is its own even where none can be forgotten.
    figures["serve_peak_mb"] = memory.peak(partial(score, members, texts, 1))
    train_mode(engines)
    figures["train_peak_mb"] = memory.peak(partial(train_in_turn, engines[-1:], pairs))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds, after one of warm-up")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--times", metavar="ENCODER", help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs=3, metavar=("ENCODER", "KIND", "K"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.times:
        seconds = measure_times(options.times, options.kinds, options.repeats, options.device)
        print("CASE " + json.dumps(seconds))
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
        word = "pass" if check.passed else "MISS"
        print(f"{word}  {check.value:.3f} (at most {check.limit:g})  {check.name}")
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

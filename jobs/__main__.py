"""The command line: one verb per stage, one YAML for all of them."""

import os

# Before torch is imported: threads of several processes that spin for two cores are 10-100 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import argparse
import errno
import logging
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from framework.data.paths import expand
from framework.errors import GoldilocksError, UserError, one_line

VERBS = {
    "demo": "show too little, too much and the right amount of optimisation, in about three minutes",
    "check": "validate a configuration and spell it out; --data opens what it names, --address asks a cluster",
    "fit-policy": "fit the start policy to the world's corpus (SFT)",
    "fit-gold": "fit an n-gram gold scorer to labelled text",
    "label": "sample pairs from the start policy and label them by gold, with noise",
    "fit-reward": "fit the reward model to the pairs",
    "best-of-n": "proxy and gold of the best of n, for every n and aggregation, from one sampled pool",
    "score-pairs": "accuracy of a reward model on a file of labelled pairs, by subset",
    "train": "train the policy on the proxy reward; --resume RUN goes on",
    "study": "run every variant and seed of a configuration, and report; --resume DIR goes on",
    "sweep": "the same at every point of the grid in its section `sweep`; --resume DIR goes on",
    "report": "write the report of a run or an experiment again; --watch follows one that goes on",
}

SPACE = "free some space and run the same command again"
NO_MISTAKE = {errno.ENOSPC: SPACE, errno.EDQUOT: SPACE, errno.EIO: "--debug shows where"}
"""What the system may say of a file that was named rightly, and what mends it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0, 1 for a failed run, 2 for a user's mistake, 130 interrupted."""
    if arguments is None and sys.getfilesystemencoding() != "utf-8":
        # Paths and texts are UTF-8 whatever the locale says; Python takes that in at its start only.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"PYTHONUTF8": "1"})
    parser = _parser()
    options, more = parser.parse_known_args(arguments)
    # argparse takes the words of a verb in one piece; overrides may also follow an option.
    if any(word.startswith("-") for word in more) or (more and not hasattr(options, "words")):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if more:
        options.words += more
    # transformers imports deepspeed, which warns on every machine without a GPU.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    held = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return _run(options)
    except KeyboardInterrupt:
        print(f"goldilocks {options.verb}: interrupted", file=sys.stderr)
        if place := getattr(options, "resume", None) or getattr(options, "out", None):
            from jobs.verbs.show import closing

            closing(place, shlex.join(["goldilocks", *(sys.argv[1:] if arguments is None else arguments)]))
        return 130
    except Exception as error:  # noqa: BLE001 - a defect of ours too is one line, and the way to the traceback
        if options.debug:
            traceback.print_exc()
        line, code = _told(error, options)
        print(f"goldilocks {options.verb}: {line}", file=sys.stderr)
        return code
    finally:  # who called this in a process of their own has signals of their own
        for number, handler in held.items():
            signal.signal(number, handler)


def _told(error: Exception, options: argparse.Namespace) -> tuple[str, int]:
    """What is said of an error, in one line, and its exit code."""
    if isinstance(error, GoldilocksError):
        return one_line(error), error.exit_code
    if isinstance(error, OSError) and (error.filename is not None or error.errno in NO_MISTAKE):
        # A file that nobody looked at before, or one that no stage has named.
        place = error.filename or getattr(options, "resume", None) or getattr(options, "out", None) or "."
        mend = NO_MISTAKE.get(error.errno or 0)
        return f"{place}: {error.strerror or one_line(error)}{f'; {mend}' if mend else ''}", 1 if mend else 2
    return f"{type(error).__name__}: {one_line(error)} (--debug shows where)", 1


def _show_warning(message: Warning | str, *_where: Any, **_more: Any) -> None:
    """A warning as one line: a user has no use for the line of ours that it stands in."""
    print(f"goldilocks: warning: {' '.join(str(message).split())}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="goldilocks", description=__doc__.splitlines()[0] if __doc__ else None)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument("--debug", action="store_true", help="show tracebacks")
        if name == "report":
            verb.add_argument("folder", type=_path, help="the folder of a run or an experiment")
            verb.add_argument("--watch", action="store_true", help="write it again as the run goes on")
            verb.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="between two looks")
            continue
        verb.add_argument("words", nargs="*", metavar="CONFIG.yaml | key=value", help="a file, then overrides")
        verb.add_argument("--out", type=_path, help="the folder to write to")
        verb.add_argument("--seed", type=int, help="short for seed=N (demo: the seed of the study)")
        if name != "fit-gold":
            verb.add_argument("--address", help="of a Ray cluster: auto, or host:port; default: start one here")
        if name in ("train", "study", "sweep"):
            verb.add_argument("--resume", type=_path, metavar="DIR", help="go on with what is in this folder")
        if name in ("study", "sweep"):
            verb.add_argument("--yes", action="store_true", help="begin more runs than sweep.limit")
        if name == "check":
            verb.add_argument("--show", action="store_true", help="print the whole resolved configuration")
            verb.add_argument("--data", action="store_true", help="open the tables and models that it names")
    return parser


def _path(text: str) -> Path:
    """A path of the command line. The shell fills in `--out ~/x`, and leaves `--out=~/x` to us."""
    try:
        return Path(expand(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _run(options: argparse.Namespace) -> int:  # noqa: PLR0911 - one return per verb
    """Hand over to the verb's own module; each is imported only when it is asked for."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if options.verb == "report":
        from jobs.verbs.report import report

        return report(options.folder, options.every if options.watch else None)
    from jobs.stop import StopSignal
    from jobs.verbs import configured

    if options.verb == "train" and options.resume:
        changes = _resumed_with(options)
        from jobs.verbs import single

        return single.resume(options.resume, changes, StopSignal(), options.address)
    cfg, source = configured(options.verb, options.words, options.seed)
    is_experiment, resumed = options.verb in ("demo", "study", "sweep"), getattr(options, "resume", None)
    if is_experiment or (cfg.backend == "ray" and options.verb != "fit-gold"):
        from cluster.session import assert_can_start

        assert_can_start(getattr(options, "address", None))
    if options.verb == "check":
        from jobs.verbs.check import check

        return check(cfg, source, options.show, options.data, options.address)
    stop = StopSignal()
    if resumed and (options.words or options.out or options.seed is not None):
        raise UserError("--resume takes its configuration and folder from the experiment: give nothing else")
    out = options.out = options.out or Path("runs") / (options.verb if source is None else source.stem)
    if is_experiment:
        from jobs.verbs import experiment

        if resumed:
            return experiment.resume(resumed, stop, options.address)
        return experiment.experiment(cfg, out, stop, options.address, getattr(options, "yes", False))
    from jobs.verbs import single

    if options.verb == "fit-gold":
        return single.fit_gold(cfg, out)
    if options.verb == "train":
        return single.train(cfg, out, stop, options.address)
    if options.verb == "score-pairs":
        from jobs.verbs.score_pairs import score_pairs

        return score_pairs(cfg, out, stop, options.address)
    words = [*options.words, *([] if options.seed is None else ["--seed", str(options.seed)])]
    if options.verb == "best-of-n":
        from jobs.verbs.best_of_n import best_of_n

        return best_of_n(cfg, out, words, stop, options.address)
    return single.stage(options.verb, cfg, out, words, stop, options.address)


def _resumed_with(options: argparse.Namespace) -> dict[str, Any]:
    """What may be said beside `train --resume`; anything else would be ignored."""
    from framework.overrides import parse_overrides

    words = parse_overrides(options.words)
    if options.out or options.seed is not None or not words.keys() <= {"train.steps", "backend", "cluster"}:
        raise UserError(
            "--resume takes its configuration and folder from the run: but for train.steps=N, to make it longer, "
            "backend= and cluster= give nothing else"
        )
    if type(words.get("train.steps", 1)) is not int:
        raise UserError(f"train.steps={words['train.steps']}: give a whole number of steps")
    return words


if __name__ == "__main__":
    sys.exit(main())

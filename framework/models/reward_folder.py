"""The folder of a reward model: which members it has, their tokenizers, and the calibration."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from framework.data.paths import expand
from framework.errors import UserError, first_line
from framework.models.huggingface import HfTokenizer
from framework.models.lora_heads import LoraHeads
from framework.models.published import PublishedReward
from framework.models.reward_heads import Member, RewardHeads, read_tensors
from framework.models.tokenizer import load_tokenizer, tokenizer_hash
from framework.types import ReferenceScores

SETTINGS_FILE, CALIBRATION_FILE = "reward.json", "calibration.safetensors"
CALIBRATION = ("centre", "scale", "reference_scores", "reference_lengths")


def read_reference(folder: str | Path) -> ReferenceScores:
    """The reference scores of the reward model in a folder, without loading any member."""
    _, tensors = read_settings(Path(expand(str(folder))))
    return ReferenceScores(tensors["reference_scores"], tensors["reference_lengths"])


def is_reward_model(folder: str | Path) -> bool:
    """Whether `load` has something to read there."""
    return Path(expand(str(folder)), SETTINGS_FILE).is_file()


def member_record(member: Member) -> dict[str, Any]:
    """What `load_member` must know beside the member's own files."""
    if isinstance(member, LoraHeads):
        settings = member.encoder.peft_config["adapter_0"]
        return {"kind": "lora", "rank": settings.r, "alpha": settings.lora_alpha}
    return {"kind": "published" if isinstance(member, PublishedReward) else "heads"}


def load_member(folder: Path, record: dict[str, Any]) -> Member:
    """A member as its record in `reward.json` says; a `UserError` where it is missing, damaged or of an unknown kind."""
    try:
        match record["kind"]:
            case "heads":
                return RewardHeads.load(folder, record["heads"])
            case "lora":
                return LoraHeads.load(folder, record["heads"], record["rank"], record["alpha"])
            case "published":
                return PublishedReward.from_published(folder, "reward model")
            case kind:
                raise UserError(f"{folder}: a member of kind {kind!r} is not known to this version")
    except UserError:
        raise
    except (OSError, ValueError, SafetensorError) as error:  # transformers and peft raise any of them
        reason = first_line(error)
        raise UserError(f"{folder}: a member is missing or damaged ({reason}); fit the model again") from error


def load_members(folder: Path, records: Sequence[dict[str, Any]]) -> tuple[list[Member], list[HfTokenizer]]:
    """Members as of `load_member`, and the tokenizer of each: equal ones are one object, so that work is shared.

    A `UserError` where a tokenizer is not the one that its member was saved with.
    """
    members = [load_member(folder / record["folder"], record) for record in records]
    shared: dict[str, HfTokenizer] = {}
    tokenizers = []
    for record, member in zip(records, members, strict=True):
        place = folder / record["folder"]
        published = member.tokenizer if isinstance(member, PublishedReward) else None
        tokenizer = published or load_tokenizer(place, needs_end=False)
        if tokenizer_hash(tokenizer) != record["tokenizer"]:
            what = "the tokenizer there is not the one this reward model was saved with"
            raise UserError(f"{place}: {what}: put its own back, or fit the model again")
        tokenizers.append(published or shared.setdefault(record["tokenizer"], tokenizer))
    return members, tokenizers


def read_settings(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `reward.json` and the calibration file hold; a `UserError` where they are not there, or do not agree."""
    for name in (SETTINGS_FILE, CALIBRATION_FILE):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no {name}: not a reward model; make one with fit-reward")
    try:
        settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / SETTINGS_FILE} is damaged ({error}); fit the model again") from error
    if not isinstance(settings, dict) or not settings.get("members"):
        raise UserError(f"{folder / SETTINGS_FILE} names no members: it is damaged; fit the model again")
    tensors = read_tensors(folder / CALIBRATION_FILE, CALIBRATION)
    heads = sum(record["heads"] for record in settings["members"])
    if (found := len(tensors["centre"])) != heads:
        raise UserError(f"{folder / CALIBRATION_FILE} holds {found} of {heads} heads: fit the model again")
    if not bool((tensors["scale"] > 0).all()):
        raise UserError(f"{folder / CALIBRATION_FILE}: a scale is not above 0; fit the model again")
    return settings, tensors

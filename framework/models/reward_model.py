"""A reward model as everything else sees it: texts in, K calibrated scores per text out.

Bradley-Terry scores are free up to a constant per head, and heads differ in scale. So each head carries a centre and a
scale measured on reference responses (held-out samples of the reference policy); a minimum or a variance over heads means
nothing without. On disk: `reward.json` says which members there are, `calibration.safetensors` holds the calibration and
the reference scores, and each member lies in Hugging Face layout in a folder of its own (a sole member in the model's
folder itself), with the cloud of its training texts' features beside it where it has one.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor

from framework.data.paths import expand
from framework.errors import RunError, UserError
from framework.gold import Reward
from framework.length_curve import LengthCurve, text_lengths
from framework.models.encoding import Ended, padded, tokenize_texts
from framework.models.feature_cloud import FeatureCloud
from framework.models.huggingface import HfTokenizer
from framework.models.published import PublishedReward
from framework.models.reward_folder import CALIBRATION_FILE, SETTINGS_FILE, load_members, member_record, read_settings
from framework.models.reward_heads import Member
from framework.models.tokenizer import tokenizer_hash
from framework.precision import Precision
from framework.types import ReferenceScores, Scores


class RewardModel:
    """Members with one or more heads each, their tokenizers, and the calibration of every head."""

    def __init__(
        self,
        members: Sequence[Member],
        tokenizers: Sequence[HfTokenizer],
        max_tokens: int,
        *,
        rows: int = 32,
        precision: Precision = "float32",
    ) -> None:
        """Wrap members that are built, with a tokenizer each; members that share one share its work.

        Args:
            max_tokens: tokens of prompt + response that are read.
            rows: texts per forward pass.
        """
        assert len(members) == len(tokenizers)
        self.members, self.tokenizers = list(members), list(tokenizers)
        self.max_tokens, self.rows, self.precision = max_tokens, rows, precision
        self.first_head = 0
        """Number of the first head in the whole model, of which this may be a share."""
        self.centre = torch.zeros(self.num_heads)
        self.scale = torch.ones(self.num_heads)
        self.length_curve: LengthCurve | None = None
        self.clouds: list[FeatureCloud | None] = [None] * len(self.members)
        """Of each member's training features; None for a member that keeps none."""
        self._reference: ReferenceScores | None = None

    @property
    def num_heads(self) -> int:
        return sum(member.num_heads for member in self.members)

    @property
    def reference(self) -> ReferenceScores:
        """Calibrated scores of the reference responses that the calibration was measured on."""
        assert self._reference is not None, "calibrate the model first"
        return self._reference

    def score(self, prompts: Sequence[str], responses: Sequence[str], ended: Ended = None) -> Scores:
        """Every head's calibrated score of each text, on the CPU, in the order given; errors as of `calibrated`."""
        read = self.read(prompts, responses, ended)
        return replace(read, values=self.calibrated(read.values, responses))

    def calibrated(self, raw: Float[Tensor, "K B"], responses: Sequence[str]) -> Float[Tensor, "K B"]:
        """What `score` makes of raw scores of these responses; a `RunError` where one is not finite."""
        values = (self._less_length(raw, responses) - self.centre[:, None]) / self.scale[:, None]
        if len(bad := (~torch.isfinite(values)).nonzero()):
            head, row = bad[0].tolist()
            value = float(values[head, row])
            raise RunError(f"reward: head {self.first_head + head} gives {value} for row {row}")
        return values

    @torch.inference_mode()
    def read(self, prompts: Sequence[str], responses: Sequence[str], ended: Ended = None) -> Scores:
        """Raw scores, float32 on the CPU, with distances from the training clouds; `rows` texts per forward pass."""
        encodings = sum(len(cloud.mean) for cloud in self.clouds if cloud)
        none = Scores(torch.zeros(self.num_heads, 0), 0, torch.zeros(encodings, 0))
        parts = [self._pass(prompts[few], responses[few], ended and ended[few]) for few in self._slices(len(prompts))]
        return Scores.of_rows([none, *parts])

    @torch.inference_mode()
    def fit_clouds(self, prompts: Sequence[str], responses: Sequence[str], ended: Ended = None) -> None:
        """Measure where these texts, which the model was fitted to, lie in each member's features."""
        for index, (member, tokenizer) in enumerate(zip(self.members, self.tokenizers, strict=True)):
            if not member.shows_features:
                continue
            parts = []
            for few in self._slices(len(prompts)):
                texts = prompts[few], responses[few], *self._limits(member, tokenizer), ended and ended[few]
                rows, _ = tokenize_texts(tokenizer, *texts)
                parts.append(self._read_member(member, *padded(rows))[1].float().cpu())
            self.clouds[index] = FeatureCloud.fit(torch.cat(parts, dim=1))

    def calibrate(
        self, prompts: Sequence[str], responses: Sequence[str], ended: Ended = None, *, by_length: bool = False
    ) -> int:
        """Set centre and scale, and with `by_length` the length curve; returns how many reference texts were cut.

        A `UserError` where a head scores every reference response alike, so that it has no scale, or gives no numbers.
        """
        read = self.read(prompts, responses, ended)
        raw = read.values
        if lost := [k for k in range(self.num_heads) if not bool(raw[k].isfinite().all())]:
            raise UserError(
                f"reward heads {lost} give scores that are not finite: weights are damaged, or too large for this "
                "precision; name another published model, or delete a model that was fitted and fit it again"
            )
        lengths = text_lengths(responses)
        self.length_curve = LengthCurve.fit(lengths, raw) if by_length else None
        raw = self._less_length(raw, responses)
        centre, scale = raw.mean(dim=1), raw.std(dim=1, correction=0)
        # Relative to the size of the scores: a constant head differs from itself by rounding.
        if flat := [k for k in range(self.num_heads) if not scale[k] > 1e-6 * max(1e-2, float(raw[k].abs().max()))]:
            raise UserError(
                f"reward heads {flat} give every reference response the same score: nothing was learnt; "
                "fit longer (fit_reward.epochs) or on more pairs (label.pairs), or name another published model"
            )
        self.centre, self.scale = centre, scale
        self._reference = ReferenceScores((raw - centre[:, None]) / scale[:, None], lengths)
        return read.num_cut

    def to(self, device: str) -> "RewardModel":
        """The same model with its members on `device`, in evaluation mode and without gradients."""
        for member in self.members:
            member.to(device).eval().requires_grad_(False)
        self.clouds = [cloud and cloud.to(device) for cloud in self.clouds]
        return self

    def save(self, folder: Path) -> None:
        """Write members, tokenizers, calibration; `load` gives back the same scores."""
        records = []
        parts = zip(self.members, self.tokenizers, self.clouds, strict=True)
        for index, (member, tokenizer, cloud) in enumerate(parts):
            place = "." if len(self.members) == 1 else f"member_{index}"
            (folder / place).mkdir(parents=True, exist_ok=True)
            member.save(folder / place)
            tokenizer.save_pretrained(folder / place)
            if cloud:
                cloud.save(folder / place)
            words = {"folder": place, "heads": member.num_heads, "tokenizer": tokenizer_hash(tokenizer)}
            records.append(words | member_record(member))
        self._write(folder, records)

    def _write(self, folder: Path, records: list[dict[str, Any]]) -> None:
        """The settings, with a record of each member, and the calibration."""
        settings = {"heads": self.num_heads, "max_tokens": self.max_tokens, "members": records}
        (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        tensors = {"centre": self.centre, "scale": self.scale}
        tensors |= {"reference_scores": self.reference.scores, "reference_lengths": self.reference.lengths}
        if self.length_curve:
            tensors |= self.length_curve.tensors()
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / CALIBRATION_FILE)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str = "cpu",
        *,
        share: tuple[int, int] = (0, 1),
        rows: int = 32,
        precision: Precision = "float32",
        scorer: Reward | None = None,
    ) -> "RewardModel":
        """Read what `save` wrote.

        Args:
            share: (rank, size): the rank-th of `size` contiguous shares of the members, so that an ensemble
                too large for one process can live in several; their scores, joined by rank, are the whole's.
            scorer: where one stands in the model's place: its settings now.

        Raises:
            UserError: not a reward model of ours, heads or files missing, or another tokenizer than it was saved with.
        """
        folder = Path(expand(str(folder)))
        settings, tensors = read_settings(folder)
        records = settings["members"]
        first, last = (len(records) * (share[0] + i) // share[1] for i in (0, 1))
        if records[0]["kind"] == "scorer" and last > first:
            from framework.models.scorer_reward import ScorerReward  # which is a reward model

            return ScorerReward.reopened(folder, scorer, device)
        starts = [sum(r["heads"] for r in records[:i]) for i in (first, last)]
        members, tokenizers = load_members(folder, records[first:last])
        model = cls(members, tokenizers, settings["max_tokens"], rows=rows, precision=precision)
        model.clouds = [FeatureCloud.load(folder / r["folder"]) for r in records[first:last]]
        heads, model.first_head = slice(*starts), starts[0]
        model.centre, model.scale = tensors["centre"][heads], tensors["scale"][heads]
        model._reference = ReferenceScores(tensors["reference_scores"][heads], tensors["reference_lengths"])
        if "length_knots" in tensors and members:
            model.length_curve = LengthCurve.from_tensors(tensors, heads)
        return model.to(device)

    @classmethod
    def published(cls, path: str, device: str = "cpu", *, field: str, rows: int = 32) -> "RewardModel":
        """One published as sequence classification, alone: its scores are in its own unit. Errors name the setting `field`."""
        member = PublishedReward.from_published(path, field)
        return cls([member], [member.tokenizer], member.max_tokens, rows=rows).to(device)

    def _slices(self, count: int) -> list[slice]:
        return [slice(start, start + self.rows) for start in range(0, count, self.rows)]

    def _pass(self, prompts: Sequence[str], responses: Sequence[str], ended: Ended) -> Scores:
        """One forward pass of every member; members with one tokenizer read the same ids."""
        seen: dict[tuple[int, int, int | None], tuple[Tensor, Tensor, int]] = {}
        scores, distances = [torch.zeros(0, len(prompts))], [torch.zeros(0, len(prompts))]
        for member, tokenizer, cloud in zip(self.members, self.tokenizers, self.clouds, strict=True):
            limits = self._limits(member, tokenizer)
            key = (id(tokenizer), *limits)
            if key not in seen:
                rows, num_cut = tokenize_texts(tokenizer, prompts, responses, *limits, ended)
                seen[key] = (*padded(rows), num_cut)
            ids, mask, _ = seen[key]
            raw, features = self._read_member(member, ids, mask)
            scores.append(raw.float().cpu())
            if cloud:
                distances.append(cloud.distances(features))
        num_cut = max((cut for _, _, cut in seen.values()), default=0)
        return Scores(torch.cat(scores), num_cut, torch.cat(distances))

    def _read_member(
        self, member: Member, ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "K B"], Float[Tensor, "E B H"]]:
        """One forward pass of a member; no encodings from one that does not show its features."""
        where = next(member.parameters()).device
        ids, mask = ids.to(where), mask.to(where)
        with torch.autocast(where.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            if member.shows_features:
                return member.read(ids, mask)
            return member(ids, mask), torch.zeros(0, len(ids), 0)

    def _limits(self, member: Member, tokenizer: HfTokenizer) -> tuple[int, int | None]:
        """How many tokens of a text a member reads, and the end token that is to close it, if any."""
        most = member.max_tokens if isinstance(member, PublishedReward) else self.max_tokens
        return most, tokenizer.eos_token_id if member.causal else None

    def _less_length(self, raw: Float[Tensor, "K B"], responses: Sequence[str]) -> Float[Tensor, "K B"]:
        return raw if self.length_curve is None else raw - self.length_curve(text_lengths(responses))

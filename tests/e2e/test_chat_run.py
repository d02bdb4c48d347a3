"""A run on conversations, from prompts and SFT to rollouts: every score is what transformers says of the turns."""

import json

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from framework.data.conversations import from_cell, turns_of
from jobs import __main__ as cli
from tests.unit.test_chat import WORDS, make_policy, make_tokenizer


def turn(role, content):
    return {"role": role, "content": content}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    torch.manual_seed(1)
    judge = LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=len(WORDS), hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.5, num_labels=1, bos_token_id=1,
            eos_token_id=2, pad_token_id=0,
        )
    )  # fmt: skip
    for name, model in (("policy", make_policy().model), ("judge", judge)):
        model.save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
    talks = [
        [turn("system", "w1"), turn("user", f"w{i}"), turn("assistant", f"w{j}"), turn("user", "w3")]
        for i in range(2, 10)
        for j in range(10, 14)
    ]
    corpus = [json.dumps({"messages": [*talk, turn("assistant", "w4 w5")]}) for talk in talks]
    (folder / "talks.jsonl").write_text("\n".join(corpus))
    source = {"path": str(folder / "talks.jsonl")}
    (folder / "c.yaml").write_text(
        yaml.safe_dump(
            {
                "backend": "inline",
                "world": {"kind": "text", "source": source, "corpus_source": source, "opening_words": None},
                "policy": {"kind": "pretrained", "path": str(folder / "policy")},
                "sft": {"steps": 4, "batch": 8},
                "gold": {"kind": "classifier", "path": str(folder / "judge")},
                "label": {"pairs": 24, "batch": 8},
                "fit_reward": {"epochs": 1, "batch": 8},
                "train": {"steps": 2, "prompts_per_step": 4, "samples_per_prompt": 2},
                "best_of_n": {"prompts": 4, "samples": 4, "ns": [1, 2, 4]},
                "max_new_tokens": 6,
            }
        )
    )
    assert cli.main(["train", str(folder / "c.yaml"), "--out", str(folder / "out")]) == 0
    return folder


def scored_by_transformers(folder, rows):
    model = AutoModelForSequenceClassification.from_pretrained(folder / "judge").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "judge")
    scores = []
    for row in rows:
        turns = turns_of(from_cell(row["prompt"]))
        assert [t["role"] for t in turns] == ["system", "user", "assistant", "user"]
        ids = tokenizer.apply_chat_template([*turns, turn("assistant", row["response"])], return_dict=False)
        with torch.no_grad():
            scores.append(float(model(torch.tensor([ids])).logits))
    return scores


def test_gold_of_a_run_is_transformers_own(place):
    rows = [row for path in (place / "out/train/rollouts").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert len(rows) == 16
    assert [row["gold"] for row in rows] == pytest.approx(scored_by_transformers(place, rows), abs=1e-5)


def test_pairs_and_a_pool_keep_the_turns(place):
    (pairs,) = (place / "out").glob("pairs-*/pairs.parquet")
    rows = [row | {"response": row["chosen"], "gold": row["gold_chosen"]} for row in pq.read_table(pairs).to_pylist()]
    assert cli.main(["best-of-n", str(place / "c.yaml"), "--out", str(place / "out")]) == 0
    (pool,) = (place / "out").glob("pool-*/*.parquet")
    rows += pq.read_table(pool).to_pylist()
    assert [row["gold"] for row in rows] == pytest.approx(scored_by_transformers(place, rows), abs=1e-5)


def test_the_report_shows_the_plain_rendering(place):
    page = (place / "out/train/report.html").read_text(encoding="utf-8")
    assert "Human: w" in page

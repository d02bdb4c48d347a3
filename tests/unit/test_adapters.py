"""LoRA adapter folders where a model is asked for: merged, and never loaded with something missing."""

import json
import re
import shutil

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from framework.errors import UserError
from framework.gold import Classifier
from framework.models.causal import CausalPolicy
from framework.models.convert import to_plain
from framework.models.encoders import reads_and_takes
from framework.models.encoding import tokenize_texts
from framework.models.published import PublishedReward
from framework.worlds.reviews import Reviews
from jobs import __main__ as cli

TEXTS = ["the room :"] * 3, [" it was grand .", " it was poor and rude .", ""]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A base language model, and LoRA adapters on it: a policy's, and a reward model's with its head."""
    folder = tmp_path_factory.mktemp("adapters")
    tokenizer = Reviews().tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=16, max_position_embeddings=64, initializer_range=0.3,
        pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    wanted = {"r": 4, "target_modules": ["q_proj", "up_proj"], "init_lora_weights": False}
    policy = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder / "base"), LoraConfig(task_type="CAUSAL_LM", **wanted)
    )
    policy.save_pretrained(folder / "policy")
    reward = LlamaForSequenceClassification.from_pretrained(folder / "base", num_labels=1)
    reward = get_peft_model(reward, LoraConfig(task_type="SEQ_CLS", **wanted))
    with torch.no_grad():
        for name, parameter in reward.named_parameters():
            if "score.modules_to_save" in name:
                parameter.normal_()
    reward.save_pretrained(folder / "reward")
    tokenizer.save_pretrained(folder / "reward")
    return folder, policy.eval(), reward.eval(), tokenizer


def test_a_policy_is_merged_into_a_plain_model(made, tmp_path):
    folder, adapted, _, tokenizer = made
    to_plain(str(folder / "policy"), tmp_path, dtype="float32")
    assert not (tmp_path / "adapter_config.json").exists()
    ids = torch.tensor([tokenizer(TEXTS[0][0]).input_ids])
    with torch.no_grad():
        expected = adapted(input_ids=ids).logits
        plain = AutoModelForCausalLM.from_pretrained(tmp_path)(input_ids=ids).logits
        base = AutoModelForCausalLM.from_pretrained(folder / "base")(input_ids=ids).logits
    torch.testing.assert_close(plain, expected, atol=1e-4, rtol=1e-4)
    assert (plain - base).abs().max() > 0.1
    assert CausalPolicy.load(tmp_path)


def test_a_reward_model_is_merged_with_its_head_and_serves_as_gold_too(made, tmp_path):
    folder, _, adapted, _ = made
    member = PublishedReward.from_published(str(folder / "reward"))
    rows, _ = tokenize_texts(member.tokenizer, *TEXTS, member.max_tokens)
    with torch.no_grad():
        expected = [float(adapted(input_ids=torch.tensor([row])).logits[0, 0]) for row in rows]
        scores = [float(member(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.bool))[0, 0]) for row in rows]
    assert scores == pytest.approx(expected, abs=1e-4)
    assert len({round(value, 3) for value in expected}) == 3
    member.save(tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    again = PublishedReward.from_published(tmp_path)
    with torch.no_grad():
        row = torch.tensor([rows[0]])
        assert float(again(row, row >= 0)[0, 0]) == pytest.approx(scores[0], abs=1e-5)
    gold = Classifier(path=str(folder / "reward")).build("cpu").score(*TEXTS).values.tolist()
    assert gold == pytest.approx(expected, abs=1e-4)


def edited(made, tmp_path, name="reward", **changes):
    shutil.copytree(made[0] / name, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return tmp_path / "adapter"


def test_check_takes_an_adapter_with_a_head_that_its_base_has_not(made, capsys):
    folder, _, _, _ = made
    words = ["check", "--data", "backend=inline"]
    published = "fit_reward.ensemble={kind: full, members: 0, published: ['%s']}"
    assert cli.main([*words, published % (folder / "reward")]) == 0
    assert f"a LoRA adapter of {folder / 'base'}: llama, " in capsys.readouterr().out
    assert cli.main([*words, published % (folder / "base")]) == 2
    assert "weights are missing (score.weight)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"base_model_name_or_path": None}, "only LoRA that names its model"),
        ({"peft_type": "IA3"}, "an adapter of kind IA3"),
        ({"base_model_name_or_path": "nowhere/at/all"}, "no sequence classifier can be loaded"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused_in_one_line(made, tmp_path, changes, says):
    folder = edited(made, tmp_path, **changes)
    with pytest.raises(UserError, match=says) as caught:
        PublishedReward.from_published(str(folder))
    assert str(caught.value).startswith(f"fit_reward.ensemble.published={folder}: ")
    assert "\n" not in str(caught.value)


def test_an_adapter_without_a_head_or_without_safe_weights_is_refused(made, tmp_path):
    with pytest.raises(UserError, match=r"neither adapter nor model has the weights score\.weight"):
        PublishedReward.from_published(str(made[0] / "policy"))
    folder = edited(made, tmp_path)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors: save the adapter as safetensors"):
        PublishedReward.from_published(str(folder))
    (folder / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"adapter_model\.safetensors there is damaged"):
        PublishedReward.from_published(str(folder))
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match=r"adapter_config\.json there is damaged"):
        to_plain(str(folder), tmp_path / "out")


def test_an_adapter_of_another_model_is_refused(made, tmp_path):
    tokenizer = made[3]
    other = tmp_path / "other"
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=16, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(other)
    tokenizer.save_pretrained(other)
    adapter = edited(made, tmp_path, "policy", base_model_name_or_path=str(other))
    with pytest.raises(UserError, match=r"the adapter does not fit .*size mismatch") as caught:
        to_plain(str(adapter), tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lost", [True, False])
def test_an_adapter_with_a_weight_missing_or_one_too_many_is_refused(made, tmp_path, lost):
    adapter = edited(made, tmp_path, "policy")
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    name = min(tensors)
    if lost:
        del tensors[name]
    else:
        tensors[name := name.replace("layers.0", "layers.7")] = torch.zeros(1)
    save_file(tensors, path)
    with pytest.raises(UserError, match=rf"the adapter does not fit .*{re.escape(name)} is only on one side"):
        to_plain(str(adapter), tmp_path / "out")


def test_an_encoder_is_not_an_adapter(made):
    place = made[0] / "policy"
    with pytest.raises(UserError, match=rf"fit_reward\.encoder={place} is a LoRA adapter: merge it first"):
        reads_and_takes(place)


def test_another_kind_of_adapter_is_refused(made, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(made[0] / "base")
    wanted = IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj"], feedforward_modules=[])
    get_peft_model(base, wanted).save_pretrained(tmp_path / "ia3")
    with pytest.raises(UserError, match="an adapter of kind IA3 for the model"):
        to_plain(str(tmp_path / "ia3"), tmp_path / "out")

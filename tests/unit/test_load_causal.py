"""Models are read whole, from safetensors, without their code; and refused in a line before anything is spent on them."""

import ast
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from actors.policy import PolicyWorker
from framework.errors import UserError
from framework.models.causal import CausalPolicy, refuse_type
from framework.models.convert import to_plain
from framework.models.proof import prove
from framework.objectives import PpoClip
from framework.shaping import KlInReward
from framework.training.policy_update import Update
from tests.unit.test_own_logprobs import VOCAB, make_model, make_tokenizer

ROOT = Path(__file__).resolve().parents[2]


def save(folder, kind="llama", **changes):
    make_model(kind, **changes).save_pretrained(folder)
    make_tokenizer(VOCAB).save_pretrained(folder)
    return folder


def change(file, **settings):
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | settings))


def one_line(call, *words):
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def each_reader(folder, out):
    yield lambda: CausalPolicy.load(folder)
    yield lambda: to_plain(str(folder), out, dtype="float32")


def test_a_missing_weight_is_refused_and_a_tied_one_is_not_missing(tmp_path):
    folder = save(tmp_path / "a")
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file({k: v for k, v in weights.items() if "layers.0.mlp.down_proj" not in k}, file, {"format": "pt"})
    for read in each_reader(folder, tmp_path / "out"):
        one_line(read, "1 weights of the model are missing", "down_proj")
    assert not (tmp_path / "out").exists()
    tied = save(tmp_path / "b", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(tied / "model.safetensors")
    CausalPolicy.load(tied)


def test_pickled_weights_are_never_opened(tmp_path):
    folder = save(tmp_path / "a")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for read in each_reader(folder, tmp_path / "out"):
        one_line(read, str(folder), "safetensors")


def test_damaged_weights_are_one_line(tmp_path):
    folder = save(tmp_path / "a")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    for read in each_reader(folder, tmp_path / "out"):
        one_line(read, str(folder))


def test_code_that_comes_with_a_model_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on stdin"))
    folder = save(tmp_path / "a")
    change(folder / "config.json", model_type="my_own", auto_map={"AutoConfig": "m.C", "AutoModelForCausalLM": "m.M"})
    (folder / "m.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nC = M = None\n")
    for read in each_reader(folder, tmp_path / "out"):
        one_line(read, "'my_own' is not known to transformers")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "distilbert"}, "'distilbert' is not a causal language model"),
        ({"model_type": "t5"}, "'t5' is not a causal language model"),
        ({"model_type": "bart", "is_encoder_decoder": True}, "with an encoder is not a causal language model"),
        ({"model_type": None}, "is not known to transformers"),
    ],
)
def test_a_type_is_refused_by_its_settings_alone(settings, words, tmp_path):
    change(tmp_path / "config.json", **settings)
    one_line(lambda: refuse_type(tmp_path, "policy.path=x"), "policy.path=x", words)


def test_a_family_that_would_be_sampled_wrong_is_refused_before_it_is_converted(tmp_path):
    folder = save(tmp_path / "a", "bert", is_decoder=False)  # it sees both ways
    one_line(lambda: to_plain(str(folder), tmp_path / "out"), "'bert'", "name another")
    assert not (tmp_path / "out").exists()


def test_a_policy_role_proves_its_model_too(tmp_path, monkeypatch):
    folder = save(tmp_path / "a")
    monkeypatch.setattr("framework.models.causal.CausalPolicy.full_logprobs", lambda *_: torch.zeros(6, 4, VOCAB))
    with pytest.raises(UserError, match="'llama', read with left padding, does not say what its own forward says"):
        PolicyWorker(str(folder), 0, 8, 1.0, None, Update(), PpoClip(), KlInReward(), False, 10, "float32")


def test_a_cache_that_forgets_is_found(monkeypatch):
    from framework.generation.decoder import ModuleDecoder

    forward = ModuleDecoder._forward

    def forgetful(self, ids, positions):
        state = forward(self, ids, positions)
        self.cache.crop(-2)
        self.mask = self.mask[:, 2:]
        return state

    assert prove(make_model("gpt2", n_embd=32, n_head=2, n_layer=2), "here") < 1e-5
    monkeypatch.setattr(ModuleDecoder, "_forward", forgetful)
    with pytest.raises(UserError, match="read token by token with its cache"):
        prove(make_model("gpt2", n_embd=32, n_head=2, n_layer=2), "here")


def test_a_proof_leaves_random_numbers_and_the_mode_alone():
    model = make_model("llama").train()
    before = torch.get_rng_state()
    prove(model, "here")
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_settings_for_generation_that_cannot_be_saved_do_not_stop_a_save(tmp_path):
    folder = save(tmp_path / "a")
    change(folder / "generation_config.json", temperature=0.9, top_p=0.6, do_sample=False, eos_token_id=[2, 5])
    to_plain(str(folder), tmp_path / "out", dtype="float32")
    policy = CausalPolicy.load(folder)
    policy.save(tmp_path / "saved")
    for place in ("out", "saved"):
        assert json.loads((tmp_path / place / "generation_config.json").read_text())["eos_token_id"] == [2, 5]


def test_every_model_config_and_tokenizer_is_read_without_its_code_and_from_safetensors():
    found = 0
    for part in ("framework", "actors", "cluster", "jobs"):
        for file in (ROOT / part).rglob("*.py"):
            for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                    continue
                if call.func.attr != "from_pretrained" or ast.unparse(call.func.value) == "GenerationConfig":
                    continue  # settings for generation have no code
                found += 1
                said = {word.arg: ast.unparse(word.value) for word in call.keywords}
                where = f"{file}:{call.lineno}"
                assert said.get("trust_remote_code") == "False", where
                is_model = "Model" in ast.unparse(call.func.value)
                assert not is_model or said.get("use_safetensors") == "True", where
    assert found >= 6

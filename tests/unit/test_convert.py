import importlib.util
import json
import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from framework.data.paths import expand
from framework.errors import UserError
from framework.models.convert import to_plain
from framework.models.tokenizer import load_tokenizer

SHARED = Path(expand("${GOLDILOCKS_SHARED}"))
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
needs_shared = pytest.mark.skipif(not (SHARED / "models").is_dir(), reason=f"no {os.fspath(SHARED)}")


def save(folder, vocab=16, words=12, eos="<end>", pad="<pad>"):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1,
        pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=[1, 2], pad_token_id=0)
    model.save_pretrained(folder)
    names = ["<pad>", "<end>", *(f"w{i}" for i in range(words - 2))]
    core = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    core.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos, pad_token=pad)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    return model


def test_the_copy_is_the_model_with_its_tokenizer_template_and_end_tokens(tmp_path):
    model = save(tmp_path / "in")
    out = tmp_path / "out"
    to_plain(str(tmp_path / "in"), out, dtype="float32")
    copy = AutoModelForCausalLM.from_pretrained(out)
    assert copy.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), copy.parameters(), strict=True))
    assert copy.generation_config.eos_token_id == [1, 2]
    tokenizer = load_tokenizer(out)
    assert tokenizer.padding_side == "left"
    assert tokenizer.chat_template
    assert tokenizer(["w0", "w1 w2"], padding=True)["input_ids"] == [[0, 2], [3, 4]]


def test_the_copy_is_stored_as_asked_for_and_says_where_it_is_from(tmp_path):
    save(tmp_path / "in")
    to_plain(str(tmp_path / "in"), tmp_path / "out", dtype="bfloat16")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    source = json.loads((tmp_path / "out" / "source.json").read_text())
    assert source == {"source": str(tmp_path / "in"), "gguf_file": None, "dtype": "bfloat16"}


def test_sources_that_are_not_models(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        to_plain(str(tmp_path / "absent"), tmp_path / "out")
    with pytest.raises(UserError, match="the hub cannot give it") as caught:
        to_plain("nobody/has-this-model", tmp_path / "out")
    assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no config\.json; name the folder"):
        to_plain(str(tmp_path / "empty"), tmp_path / "out")
    (tmp_path / "empty/a.gguf").write_text("x")
    with pytest.raises(UserError, match=r"set gguf_file to one of a\.gguf"):
        to_plain(str(tmp_path / "empty"), tmp_path / "out")
    with pytest.raises(UserError, match=r"has no b\.gguf; it has a\.gguf"):
        to_plain(str(tmp_path / "empty"), tmp_path / "out", gguf_file="b.gguf")
    assert not (tmp_path / "out").exists()


def test_gguf_without_its_packages_names_the_extra(tmp_path, monkeypatch):
    save(tmp_path / "in")
    (tmp_path / "in/a.gguf").write_text("x")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gguf" else find(name, *rest))
    with pytest.raises(UserError, match=r"needs gguf; pip install 'goldilocks\[gguf\]'"):
        to_plain(str(tmp_path / "in"), tmp_path / "out", gguf_file="a.gguf")


def test_model_and_tokenizer_that_disagree_in_size(tmp_path):
    save(tmp_path / "in", vocab=10, words=12)
    with pytest.raises(UserError, match="disagree in size: the model has 10 tokens and the tokenizer needs 12"):
        load_tokenizer(tmp_path / "in")
    with pytest.raises(UserError, match="disagree in size"):
        to_plain(str(tmp_path / "in"), tmp_path / "out")


def test_end_and_pad_tokens(tmp_path):
    save(tmp_path / "a", eos=None)
    with pytest.raises(UserError, match="has no end token"):
        load_tokenizer(tmp_path / "a")
    assert load_tokenizer(tmp_path / "a", needs_end=False).pad_token_id == 0
    save(tmp_path / "b", pad=None)
    with pytest.warns(UserWarning, match="its end token stands in"):
        tokenizer = load_tokenizer(tmp_path / "b")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1
    save(tmp_path / "c", pad=None, eos=None)
    with pytest.raises(UserError, match="has no pad token"):
        load_tokenizer(tmp_path / "c", needs_end=False)


def test_no_tokenizer_is_one_line(tmp_path):
    save(tmp_path / "in")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / "in" / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match="tokenizer") as caught:
        load_tokenizer(tmp_path / "in")
    assert "\n" not in str(caught.value)


@pytest.mark.shared
@needs_shared
def test_stories_keep_both_end_tokens_and_their_weights(tmp_path):
    out = tmp_path / "out"
    to_plain("${GOLDILOCKS_SHARED}/models/stories260k", out, dtype="float32")
    copy = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = load_tokenizer(out)
    ids = tokenizer("Once upon a time", return_tensors="pt")
    text = tokenizer.decode(copy.generate(**ids, max_new_tokens=12, do_sample=False)[0], skip_special_tokens=True)
    assert text.startswith("Once upon a time, there was a little")
    assert copy.generation_config.eos_token_id == [1, 2]


@pytest.mark.slow
@pytest.mark.shared
@needs_shared
def test_gguf_becomes_an_ordinary_model(tmp_path):
    folder = "${GOLDILOCKS_SHARED}/models/smollm2-135m-instruct-gguf"
    out = tmp_path / "out"
    to_plain(folder, out, gguf_file=GGUF, dtype="bfloat16")
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), load_tokenizer(out)
    assert model.dtype == torch.bfloat16
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)

"""Decoders say what the module itself says, whatever the model and the padding."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from framework.generation.decoder import LlamaDecoder, ModuleDecoder, decoder_for

PROMPT, NEW, VOCAB = 5, 4, 40
PADDED = [[False, False, True, True, True], [True] * 5, [False, True, True, True, True]]


def llama(**changes):
    torch.manual_seed(0)
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
    }
    model = LlamaForCausalLM(LlamaConfig(**(settings | changes))).eval()
    # Norms that are all ones would hide one that is left out.
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    return model


def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=2, n_positions=64, eos_token_id=1)
    return GPT2LMHeadModel(config).eval()


def decoded(decoder, ids, mask, tokens, copies=1):
    """States after the prompt and after each token, as B x (T + 1) x H."""
    with torch.no_grad():
        states = [decoder.prefill(ids, mask, copies)]
        states += [decoder.step(tokens[:, t]) for t in range(tokens.shape[1])]
    return torch.stack(states, dim=1)


def whole_pass(model, ids, mask, tokens):
    """The same states from one forward over everything, row by row and without padding."""
    rows = []
    with torch.no_grad():
        for prompt, real, response in zip(ids, mask, tokens, strict=True):
            text = torch.cat([prompt[real], response]).unsqueeze(0)
            rows.append(model.base_model(input_ids=text).last_hidden_state[0, int(real.sum()) - 1 :])
    return torch.stack(rows)


def inputs(mask, rows=3):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, VOCAB, (rows, PROMPT), generator=generator)
    mask = torch.tensor(mask) if mask else torch.ones(rows, PROMPT, dtype=torch.bool)
    tokens = torch.randint(2, VOCAB, (rows, NEW), generator=generator)
    return ids.masked_fill(~mask, 0), mask, tokens


MODELS = {
    "llama": llama,
    "grouped heads": lambda: llama(num_key_value_heads=2),
    "one key head": lambda: llama(num_key_value_heads=1),
    "tied": lambda: llama(tie_word_embeddings=True),
    "wide heads": lambda: llama(head_dim=16),
    "scaled rotation": lambda: llama(rope_parameters={"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}),
    "gpt2": gpt2,
}


@pytest.mark.parametrize("mask", [None, PADDED], ids=["whole", "left-padded"])
@pytest.mark.parametrize("name", MODELS)
def test_a_decoder_equals_a_forward_over_the_whole_text(name, mask):
    model = MODELS[name]()
    ids, mask, tokens = inputs(mask)
    found = decoded(decoder_for(model, NEW), ids, mask, tokens)
    torch.testing.assert_close(found, whole_pass(model, ids, mask, tokens), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("mask", [None, PADDED], ids=["whole", "left-padded"])
def test_both_decoders_agree(mask):
    model = llama(num_key_value_heads=2)
    ids, mask, tokens = inputs(mask)
    lean = decoded(LlamaDecoder(model, NEW), ids, mask, tokens)
    torch.testing.assert_close(lean, decoded(ModuleDecoder(model), ids, mask, tokens), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["grouped heads", "gpt2"])
def test_a_prompt_read_once_serves_all_its_copies(name):
    model = MODELS[name]()
    ids, mask, _ = inputs(PADDED)
    tokens = torch.randint(2, VOCAB, (6, NEW), generator=torch.Generator().manual_seed(2))
    shared = decoded(decoder_for(model, NEW), ids, mask, tokens, copies=2)
    ids, mask = ids.repeat_interleave(2, dim=0), mask.repeat_interleave(2, dim=0)
    torch.testing.assert_close(shared, whole_pass(model, ids, mask, tokens), atol=2e-6, rtol=1e-5)


def test_wide_weights_are_multiplied_as_they_lie():
    model = llama(hidden_size=128, intermediate_size=1088, num_key_value_heads=1)
    ids, mask, tokens = inputs(None)
    decoder = decoder_for(model, NEW)
    found = decoded(decoder, ids, mask, tokens)
    gate = model.model.layers[0].mlp.gate_proj.weight
    assert decoder.layers[0].gate.data_ptr() == gate.data_ptr()
    torch.testing.assert_close(found, whole_pass(model, ids, mask, tokens), atol=5e-6, rtol=1e-5)


def test_a_prefill_sees_weights_that_have_moved():
    model = llama()
    ids, mask, tokens = inputs(None)
    decoder = decoder_for(model, NEW)
    before = decoded(decoder, ids, mask, tokens)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.mul_(-1)
    after = decoded(decoder, ids, mask, tokens)
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after, whole_pass(model, ids, mask, tokens), atol=2e-6, rtol=1e-5)


def test_in_bfloat16_it_stays_as_near_as_bfloat16_is():
    model = llama()
    ids, mask, tokens = inputs(PADDED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = decoded(decoder_for(model, NEW), ids, mask, tokens)
    exact = whole_pass(model, ids, mask, tokens)
    assert float((found - exact).abs().max()) < 0.05 * float(exact.abs().max())


@pytest.mark.parametrize("change", [{"attention_bias": True}, {"mlp_bias": True}, {"hidden_act": "gelu"}])
def test_what_the_lean_pass_does_not_compute_goes_through_the_module(change):
    assert isinstance(decoder_for(llama(), NEW), LlamaDecoder)
    assert isinstance(decoder_for(llama(**change), NEW), ModuleDecoder)

"""A policy says what its model's own forward says: sampled, learnt from and saved are one distribution."""

import functools

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from actors.policy import PolicyWorker
from actors.reference import ReferenceWorker
from framework.generation.sampler import SampleRequest, TorchSampler
from framework.logprobs import token_logprobs
from framework.models import causal
from framework.models.causal import CausalPolicy, ResponseLoss
from framework.objectives import PpoClip
from framework.shaping import KlInReward
from framework.training.policy_update import Update

VOCAB, WORDS = 64, 50
SMALL = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = {
    "llama": {},
    "cohere": {"logit_scale": 0.0625},
    "granite": {"logits_scaling": 8.0},
    "gemma2": {"head_dim": 16, "final_logit_softcapping": 2.0},
    "phi": {},
    "modernbert-decoder": {"head_dim": 16},
    "opt": {"word_embed_proj_dim": 16, "ffn_dim": 32, "do_layer_norm_before": False},
    "bloom": {},
    "mpt": {"d_model": 32, "n_layers": 1, "n_heads": 2, "max_seq_len": 64},
    "lfm2": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
    "mamba": {"state_size": 4},
}
"""What stands between states and logits, or in a cache: nothing, a scale, a cap, a bias, a head, a projection, no positions."""


def make_model(kind, **changes):
    torch.manual_seed(0)
    known = AutoConfig.for_model(kind)
    sizes = {name: value for name, value in SMALL.items() if name in known.to_dict() or name in known.attribute_map}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(sizes | FAMILIES.get(kind, {}) | changes)))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return model.eval()


def make_tokenizer(words=WORDS):
    names = ["<pad>", "<bos>", "<eos>", *(f"w{i}" for i in range(words - 3))]
    core = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    core.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<pad>", padding_side="left")


def request(prompts=("w1 w2 w3 w4", "w5"), samples=3):
    return SampleRequest(
        prompts=prompts, positions=tuple(range(len(prompts))), samples_per_prompt=samples, step=0, policy_version=0
    )


def own_logits(model, rollout):
    """The model's own logits of each response token, row by row and without padding."""
    for prompt, real, response in zip(rollout.prompt_ids, rollout.prompt_mask, rollout.response_ids, strict=True):
        text = torch.cat([prompt[real], response]).unsqueeze(0)
        yield model(input_ids=text).logits[0, int(real.sum()) - 1 : -1]


@pytest.mark.parametrize("kind", FAMILIES)
def test_sampled_and_learnt_from_is_the_models_own_distribution(kind):
    model = make_model(kind)
    policy = CausalPolicy(model, with_value_head=True)
    rollout = TorchSampler(policy, make_tokenizer(VOCAB), seed=0, max_new_tokens=6).sample(request())
    with torch.no_grad():
        own = torch.stack(list(own_logits(model, rollout))).log_softmax(dim=-1)
        said = policy(rollout, needs_logits=True)
    want = own.gather(2, rollout.response_ids.unsqueeze(2)).squeeze(2).where(rollout.mask, 0.0)
    real = rollout.mask.unsqueeze(2)
    torch.testing.assert_close(said.logprobs, want, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(rollout.logprobs, want, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(said.logits.log_softmax(-1) * real, own * real, atol=2e-4, rtol=1e-4)
    assert float(own.std()) > 0.05  # else any two would agree


@pytest.mark.parametrize("kind", ["llama", "gemma2", "phi", "cohere"])
def test_the_gradient_is_that_of_the_models_own_forward(kind):
    model = make_model(kind)
    ids = torch.randint(3, VOCAB, (2, 8), generator=torch.Generator().manual_seed(1))
    loss = ResponseLoss(CausalPolicy(model))(ids, torch.ones(2, 8, dtype=torch.bool))
    found = torch.autograd.grad(loss, list(model.parameters()))
    own = model(input_ids=ids).logits[:, :-1].reshape(-1, VOCAB)
    want = torch.autograd.grad(
        torch.nn.functional.cross_entropy(own, ids[:, 1:].reshape(-1), reduction="sum"), list(model.parameters())
    )
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "phi"])
def test_in_chunks_values_and_gradients_are_the_same(kind, make_rollout, monkeypatch):
    model, rollout = make_model(kind), make_rollout(torch.ones(2, 5))
    policy = CausalPolicy(model)
    results = []
    for chunk in (1 << 20, 2 * VOCAB):
        monkeypatch.setattr(causal, "token_logprobs", functools.partial(token_logprobs, chunk_elements=chunk))
        logprobs = policy(rollout).logprobs
        results.append((logprobs, *torch.autograd.grad(logprobs.square().sum(), list(model.parameters()))))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_head_that_grows_a_bias_after_loading_is_not_taken_for_a_product():
    model = make_model("phi")
    torch.nn.init.zeros_(model.lm_head.bias)
    assert not CausalPolicy(model).head.plain
    assert CausalPolicy(make_model("llama")).head.plain
    assert not CausalPolicy(make_model("cohere")).head.plain


def test_the_trunk_is_whole_again_after_a_head_that_fails():
    model = make_model("phi")
    policy = CausalPolicy(model)
    with pytest.raises(RuntimeError):
        policy.head(torch.zeros(2, 7))  # no model of this width
    assert "forward" not in policy.model.base_model.__dict__


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_ids_without_a_token_have_no_probability_anywhere(kind, tmp_path):
    model = make_model(kind)
    with torch.no_grad():  # the model would say little else
        model.get_output_embeddings().weight[WORDS:] *= 40
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    policy = CausalPolicy.load(tmp_path)
    rollout = TorchSampler(policy, make_tokenizer(), seed=0, max_new_tokens=8).sample(request(samples=8))
    assert int(rollout.response_ids.max()) < WORDS
    reference = ReferenceWorker(str(tmp_path), 4, 1.0, "float32", 0, 8, None)
    full = reference.full_logprobs(rollout)
    assert full.shape[2] == WORDS
    torch.testing.assert_close(full.exp().sum(dim=2), torch.ones(full.shape[:2]))
    torch.testing.assert_close(reference.logprobs(rollout), rollout.logprobs, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        own = torch.stack(list(own_logits(model, rollout)))[..., :WORDS].log_softmax(dim=-1)
    torch.testing.assert_close(full * rollout.mask[..., None], own * rollout.mask[..., None], atol=1e-3, rtol=1e-3)
    policy.save(tmp_path / "saved")
    kept = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", trust_remote_code=False, use_safetensors=True)
    assert torch.equal(kept.get_output_embeddings().weight, model.get_output_embeddings().weight)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_policy_is_no_nats_from_itself(precision, tmp_path):
    make_model("llama", num_hidden_layers=2).save_pretrained(tmp_path)
    make_tokenizer(VOCAB).save_pretrained(tmp_path)
    words = (str(tmp_path), 0, 8, 1.0, None, Update(), PpoClip(), KlInReward(), False, 10, precision)
    policy = PolicyWorker(*words)
    reference = ReferenceWorker(str(tmp_path), 8, 1.0, precision, 0, 8, None)
    rollout = policy.rollout(request(samples=10))
    kl = (rollout.logprobs - reference.logprobs(rollout)).sum(dim=1)
    assert float(kl.abs().max()) < (1e-4 if precision == "float32" else 1e-6)
    assert float(policy.exact_kl(rollout, reference.full_logprobs(rollout)).abs().max()) < 1e-6
    gap = (rollout.old_logprobs - rollout.logprobs).abs().max()
    assert bool(gap > 0) == (precision == "bfloat16")  # the ratio still corrects for what was drawn from

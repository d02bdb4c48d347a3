"""Sampling: the right distribution, one stream of numbers per row, and records that the policy confirms."""

import pytest
import torch
from scipy.stats import chisquare
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from framework.errors import UserError
from framework.generation.sampler import SampleRequest, TorchSampler, draw
from framework.models.causal import CausalPolicy

WORDS = ["<pad>", "<eos>", "<unk>", "user", "reply", *(f"w{i}" for i in range(15))]
TEMPLATE = "{% for m in messages %}user {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}reply{% endif %}"


def make_tokenizer(template=None):
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    tokenizer.chat_template = template
    return tokenizer


def make_policy(with_value_head=False, context=32):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    policy = CausalPolicy(LlamaForCausalLM(config), with_value_head).eval()
    if policy.value_head is not None:
        torch.nn.init.normal_(policy.value_head.weight)  # it starts at zero, which would prove nothing
    return policy


def request(prompts=("w1 w2 w3", "w4"), samples=4, step=0, positions=None):
    positions = positions or tuple(range(len(prompts)))
    return SampleRequest(
        prompts=prompts, positions=positions, samples_per_prompt=samples, step=step, policy_version=step
    )


def make_sampler(policy=None, tokenizer=None, max_new_tokens=12, seed=0, **settings):
    return TorchSampler(policy or make_policy(), tokenizer or make_tokenizer(), seed, max_new_tokens, **settings)


def test_a_token_without_probability_is_never_drawn():
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf]).expand(4, 5)
    edges = torch.tensor([0.0, 1 / (1 + torch.e), 0.5, 1 - 2**-24])
    token, logprob = draw(logits, edges)
    assert set(token.tolist()) <= {1, 3}
    assert token[0] == 1
    assert token[-1] == 3
    assert torch.isfinite(logprob).all()


def test_no_uniform_falls_off_the_end():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 300, generator=generator) * 5
    token, logprob = draw(logits, torch.full((2000,), 1 - 2**-24))
    assert int(token.max()) < 300
    assert torch.isfinite(logprob).all()


def test_draws_follow_the_distribution():
    probabilities = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03])
    count = 20_000
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(0))
    token, logprob = draw(probabilities.log().expand(count, 5), uniform)
    counts = torch.bincount(token, minlength=5)
    assert chisquare(counts.numpy(), (probabilities * count).numpy()).pvalue > 1e-3
    torch.testing.assert_close(logprob, probabilities.log()[token])


def test_a_row_depends_on_its_own_uniform_only():
    generator = torch.Generator().manual_seed(0)
    logits, uniform = torch.randn(6, 9, generator=generator), torch.rand(6, generator=generator)
    token, logprob = draw(logits, uniform)
    other = torch.rand(6, generator=generator)
    other[2] = uniform[2]
    again, its_logprob = draw(logits, other)
    assert again[2] == token[2]
    assert its_logprob[2] == logprob[2]
    assert again.tolist() != token.tolist()


def test_responses_end_where_the_policy_ends_them():
    rollout = make_sampler(max_new_tokens=12).sample(request(samples=32))
    lengths = rollout.mask.sum(dim=1)
    assert rollout.ended.any()
    assert not rollout.ended.all()
    for row, length in enumerate(lengths.tolist()):
        ids = rollout.response_ids[row].tolist()
        assert rollout.mask[row].tolist() == [t < length for t in range(len(ids))]
        assert 1 not in ids[: length - 1]
        assert bool(rollout.ended[row]) == (ids[length - 1] == 1)
        assert bool(rollout.ended[row]) or length == 12
        assert set(ids[length:]) <= {0}
    assert (rollout.logprobs[~rollout.mask] == 0).all()
    assert (rollout.logprobs[rollout.mask] < 0).all()
    assert rollout.group.tolist() == [0] * 32 + [1] * 32
    assert all("<" not in text for text in rollout.responses)


def test_the_generation_settings_may_name_more_end_tokens():
    policy = make_policy()
    policy.model.generation_config.eos_token_id = [1, 7]
    rollout = make_sampler(policy).sample(request(samples=32))
    last = rollout.response_ids.gather(1, rollout.mask.sum(dim=1, keepdim=True) - 1).squeeze(1)
    assert {1, 7} <= set(last[rollout.ended].tolist()) <= {1, 7}


def test_sampling_stops_when_every_row_has_ended():
    policy = make_policy()
    with torch.no_grad():
        policy.model.lm_head.weight.zero_()
        policy.model.lm_head.weight[1] = (
            1e3 * policy.response_states(make_sampler(policy, max_new_tokens=1).sample(request(("w1",), 1))).flatten()
        )
    rollout = make_sampler(policy).sample(request(("w1",), 3))
    assert rollout.mask.shape == (3, 1)
    assert rollout.ended.all()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("prompts", [("w1 w2 w3", "w4"), ("w1 w2", "w3 w4")], ids=["padded", "whole"])
def test_the_policy_confirms_log_probabilities_and_values(temperature, prompts):
    policy = make_policy(with_value_head=True)
    rollout = make_sampler(policy, temperature=temperature).sample(request(prompts, samples=8))
    with torch.no_grad():
        said = policy(rollout, temperature)
        logprobs, values = said.logprobs, said.values
    torch.testing.assert_close(rollout.logprobs, logprobs, atol=1e-5, rtol=0)
    torch.testing.assert_close(rollout.values, values, atol=1e-5, rtol=1e-4)
    assert values.abs().max() > 0.1


def test_a_policy_without_a_critic_has_no_values():
    assert make_sampler().sample(request()).values is None


def test_a_rollout_can_be_learnt_from():
    policy = make_policy()
    rollout = make_sampler(policy).sample(request())
    policy(rollout).logprobs.sum().backward()
    assert not rollout.logprobs.is_inference()


def test_a_response_depends_on_its_own_place_only():
    sampler = make_sampler()
    prompts = ("w1 w2", "w3 w4", "w5 w6")
    whole = sampler.sample(request(prompts, samples=3, step=5, positions=(10, 11, 12)))
    alone = sampler.sample(request(prompts[1:2], samples=2, step=5, positions=(11,)))
    assert alone.responses == whole.responses[3:5]
    assert sampler.sample(request(prompts, 3, 6, (10, 11, 12))).responses != whole.responses
    other_seed = make_sampler(seed=1).sample(request(prompts, 3, 5, (10, 11, 12)))
    assert other_seed.responses != whole.responses


def test_samples_follow_the_policy():
    policy = make_policy()
    sampler = make_sampler(policy, max_new_tokens=1)
    rollout = sampler.sample(request(("w1 w2",), samples=4000))
    with torch.no_grad():
        wanted = policy.full_logprobs(rollout.rows(0, 1))[0, 0].exp()
    counts = torch.bincount(rollout.response_ids[:, 0], minlength=len(WORDS))
    often = wanted * 4000 >= 5
    expected = wanted[often] / wanted[often].sum() * counts[often].sum()
    assert chisquare(counts[often].numpy(), expected.numpy(), sum_check=False).pvalue > 1e-3


def test_a_prompt_beyond_the_context_is_refused():
    sampler = make_sampler(make_policy(context=14), max_new_tokens=12)
    sampler.sample(request(("w1 w2",)))
    with pytest.raises(UserError, match=r"'w1 w2 w3' has 3 tokens.*context of 14"):
        sampler.sample(request(("w1", "w1 w2 w3")))


def test_a_prompt_without_tokens_is_refused():
    with pytest.raises(UserError, match="no tokens"):
        make_sampler().sample(request(("w1", "")))


def test_a_chat_model_reads_prompts_through_its_template():
    tokenizer = make_tokenizer(TEMPLATE)
    sampler = make_sampler(tokenizer=tokenizer, instruction="w9 {prompt} w9")
    rollout = sampler.sample(request(("w1", "w2 w3"), samples=2))
    words = [
        [w for w, real in zip(tokenizer.convert_ids_to_tokens(ids), mask, strict=True) if real]
        for ids, mask in zip(rollout.prompt_ids.tolist(), rollout.prompt_mask.tolist(), strict=True)
    ]
    assert words[0] == words[1] == ["user", "w9", "w1", "w9", "reply"]
    assert words[2] == ["user", "w9", "w2", "w3", "w9", "reply"]
    assert rollout.prompts == ("w1", "w1", "w2 w3", "w2 w3")  # as the user wrote them
    assert all(not text or text[0] == " " for text in rollout.responses)
    assert not any("reply w9" in text for text in rollout.responses[:1])


def test_texts_keep_the_space_before_them():
    rollout = make_sampler().sample(request(("w1 w2",), samples=4))
    for text, ids, mask in zip(rollout.responses, rollout.response_ids, rollout.mask, strict=True):
        said = [WORDS[i] for i in ids[mask].tolist() if i > 2]
        assert text.split() == said
        assert not text or text[0] == " "

"""Conversations through chat templates: what policy, fit and reward models read is what transformers writes."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from framework.data.conversations import Conversation, Turn, turns_of
from framework.errors import UserError
from framework.generation.sampler import SampleRequest, TorchSampler
from framework.models.causal import CausalPolicy
from framework.models.encoding import tokenize_texts
from framework.models.reward_model import RewardModel
from framework.training.fit import FitSetting
from framework.training.policy_fit import FitPolicy, encode_corpus, fit_policy

ROLES = ("system", "user", "assistant")
WORDS = ["<pad>", "<s>", "</s>", "<unk>", *ROLES, "|", "hi", "{", "}", *(f"w{i}" for i in range(20))]
TEMPLATE = (
    "<s>{% for m in messages %} {{ m.role }} {{ m.content }} |{% endfor %}"
    "{% if add_generation_prompt %} assistant {% endif %}"
)
STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + TEMPLATE


def make_tokenizer(template=TEMPLATE, before="<s>", after=""):
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    core.post_processor = TemplateProcessing(f"{before} $A {after}".strip(), None, [("<s>", 1), ("</s>", 2)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
    )
    made.chat_template = template
    return made


def make_policy():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    return CausalPolicy(LlamaForCausalLM(config)).eval()


def talk(*contents, roles=("user", "assistant")):
    return Conversation([Turn(roles[i % 2], content) for i, content in enumerate(contents)])


SYSTEM = Conversation([Turn("system", "w1"), *talk("w2", "w3", "w4").turns])
PROMPTS = [SYSTEM, talk("w5"), talk("w6", "w7", "w8"), "w9 w10"]


def read_by_policy(tokenizer, prompts, instruction=None):
    sampler = TorchSampler(make_policy(), tokenizer, 0, 8, instruction=instruction)
    request = SampleRequest(
        prompts=tuple(prompts), positions=tuple(range(len(prompts))), samples_per_prompt=2, step=0, policy_version=0
    )
    rollout = sampler.sample(request)
    rows = zip(rollout.prompt_ids[::2].tolist(), rollout.prompt_mask[::2].tolist(), strict=True)
    return [[i for i, real in zip(ids, mask, strict=True) if real] for ids, mask in rows], rollout


def templated(tokenizer, turns, **options):
    return tokenizer.apply_chat_template(turns, return_dict=False, **options)


def test_the_policy_reads_conversations_as_transformers_writes_them_and_text_as_it_is():
    tokenizer = make_tokenizer()
    rows, rollout = read_by_policy(tokenizer, PROMPTS)
    for prompt, row in zip(PROMPTS[:3], rows, strict=False):
        assert row == templated(tokenizer, turns_of(prompt), add_generation_prompt=True)
    assert rows[3] == tokenizer("w9 w10")["input_ids"]
    assert [turns_of(p) for p in rollout.prompts] == [turns_of(p) for p in PROMPTS for _ in range(2)]
    # A reply to a conversation is as the policy wrote it.
    for response, ids, mask in zip(rollout.responses[:6], rollout.response_ids, rollout.mask, strict=False):
        assert response.strip() == tokenizer.decode(ids[mask], skip_special_tokens=True)


def test_an_instruction_stands_around_the_last_turn_and_only_its_prompt_is_replaced():
    tokenizer, instruction = make_tokenizer(), '{ "w1": } {x} {prompt} }'
    rows, rollout = read_by_policy(tokenizer, ["w2", SYSTEM], instruction)
    said = [{"role": "user", "content": '{ "w1": } {x} w2 }'}]
    assert rows[0] == templated(tokenizer, said, add_generation_prompt=True)
    last = {"role": "user", "content": '{ "w1": } {x} w4 }'}
    assert rows[1] == templated(tokenizer, [*turns_of(SYSTEM)[:-1], last], add_generation_prompt=True)
    assert all(not text or text[0] == " " for text in rollout.responses[:2])


def test_without_a_template_a_conversation_is_its_plain_rendering():
    tokenizer = make_tokenizer(template=None)
    rows, _ = read_by_policy(tokenizer, PROMPTS)
    assert rows == [tokenizer(str(prompt))["input_ids"] for prompt in PROMPTS]
    with pytest.raises(UserError, match="no chat template: set instruction=null"):
        read_by_policy(tokenizer, ["w1"], "{prompt}")
    with pytest.raises(UserError, match="no chat template: set instruction=null"):
        encode_corpus(tokenizer, [("w1", " w2")], 9, "{prompt}")


@pytest.mark.parametrize("instruction", [None, "hi {prompt} {}"])
@pytest.mark.parametrize("after", ["", "</s>"])
@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_fit_reads_prompts_as_sampling_does_and_learns_all_of_the_reply_and_one_end(template, after, instruction):
    if instruction and not template:
        return
    tokenizer = make_tokenizer(template, after=after)
    rows, _ = read_by_policy(tokenizer, PROMPTS, instruction)
    assert all(row[-1] != tokenizer.eos_token_id for row in rows)
    corpus = [(prompt, " w11 w12" if isinstance(prompt, str) else "w11 w12") for prompt in PROMPTS]
    corpus.append((PROMPTS[3], " w13 </s>"))  # it spells its end
    fitted = encode_corpus(tokenizer, corpus, 64, instruction)
    assert [row[:skip] for row, skip in fitted] == [*rows, rows[3]]
    learnt = [tokenizer.convert_ids_to_tokens(row[skip:]) for row, skip in fitted]
    assert learnt == [["w11", "w12", "</s>"]] * 4 + [["w13", "</s>"]]


def test_a_token_that_prompt_and_reply_make_together_is_learnt():
    tokenizer = make_tokenizer(None)
    ((row, skip),) = encode_corpus(tokenizer, [("w1 w", "2 w3")], 64)
    assert tokenizer.convert_ids_to_tokens(row[skip:]) == ["w2", "w3", "</s>"]


def test_texts_with_nothing_to_learn_are_refused_or_counted():
    tokenizer, policy = make_tokenizer(None), make_policy()
    long, short = [("w1 " * 20, " w2")] * 3, [("w1", " w2 w3")] * 5
    few = FitPolicy(steps=2, batch=4, max_tokens=8)
    with pytest.raises(
        UserError, match=r"^sft: 3 of 3 texts have no token to learn within sft\.max_tokens=8: raise it$"
    ):
        fit_policy(policy, tokenizer, long, few, FitSetting(seed=0))
    with pytest.warns(UserWarning, match="sft: 3 of 8 texts have no token to learn .*, and are left out"):
        figures = fit_policy(policy, tokenizer, [*long, *short], few, FitSetting(seed=0))
    assert figures["nothing_to_learn"] == 3 and figures["loss"] > 0


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    from transformers import LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.5, num_labels=1, bos_token_id=1,
        eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def test_a_reward_models_scores_of_conversations_are_transformers_own(published):
    replies = ["w11", "w12 w13", "w14", "w15"]
    scores = RewardModel.published(str(published), field="f").score(PROMPTS, replies).values[0]
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(published).eval(), make_tokenizer()
    for prompt, reply, score in zip(PROMPTS, replies, scores, strict=True):
        ids = templated(tokenizer, [*turns_of(prompt), {"role": "assistant", "content": reply}])
        with torch.no_grad():
            torch.testing.assert_close(score, model(torch.tensor([ids])).logits[0, 0], atol=1e-5, rtol=1e-5)
    assert scores.std() > 0.1


def test_a_template_that_refuses_a_conversation_says_so_in_one_line():
    tokenizer = make_tokenizer(STRICT)
    for act in (
        lambda: tokenize_texts(tokenizer, [SYSTEM], ["w1"], 64, None),
        lambda: read_by_policy(tokenizer, [SYSTEM]),
        lambda: encode_corpus(tokenizer, [(SYSTEM, "w1")], 64),
    ):
        with pytest.raises(
            UserError, match=r"refuses a conversation of system, user, .*\(no system turn\), which"
        ) as raised:
            act()
        assert "\n" not in str(raised.value)


def test_without_a_template_no_turn_is_glued_to_the_next():
    tokenizer = make_tokenizer(None)
    rows, _ = tokenize_texts(tokenizer, [talk("w1"), "w1"], ["w2", " w2"], 64, tokenizer.eos_token_id)
    assert tokenizer.convert_ids_to_tokens(rows[0]) == ["<s>", "w1", "w2", "</s>"]
    assert rows[0] == rows[1]

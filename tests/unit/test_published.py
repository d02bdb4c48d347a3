import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    CamembertConfig,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaPreLayerNormConfig,
)

from framework.errors import UserError
from framework.models.encoders import positions_of
from framework.models.encoding import padded, tokenize_texts
from framework.models.published import PublishedReward, logits, readable_tokens

TEXTS = [" ".join(f"w{(7 * i + j) % 40}" for j in range(3 + 2 * i)) for i in range(6)]
TEMPLATE = "[CLS] {% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}[SEP]"
CONFIGS = {
    "bert": (BertConfig, BertForSequenceClassification),
    "roberta": (RobertaConfig, RobertaForSequenceClassification),
    "llama": (LlamaConfig, LlamaForSequenceClassification),
}


def tokenizer(words=40, template=None, pad_token="[PAD]", side="left"):
    # The pad id is not 0, so that padding by anything but the model's own pad id shows.
    names = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "user:", "assistant:", *(f"w{i}" for i in range(words))]
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(names)}, unk_token="[UNK]"))
    core.pre_tokenizer = WhitespaceSplit()
    core.post_processor = TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=pad_token, cls_token="[CLS]", sep_token="[SEP]", eos_token="[SEP]",
        unk_token="[UNK]", model_max_length=30, truncation_side=side,
    )  # fmt: skip
    made.chat_template = template
    return made


def published(folder, kind="bert", labels=1, pad=3, **of_tokenizer):
    torch.manual_seed(0)
    config, model = CONFIGS[kind]
    made = model(
        config(
            vocab_size=48, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=40, initializer_range=0.5, num_labels=labels, pad_token_id=pad,
            bos_token_id=None, eos_token_id=2,
        )
    ).eval()  # fmt: skip
    made.save_pretrained(folder)
    tokenizer(**of_tokenizer).save_pretrained(folder)
    return made, str(folder)


def one_by_one(model, rows):
    with torch.no_grad():
        return torch.stack([model(input_ids=torch.tensor([row])).logits[0] for row in rows])


@pytest.mark.parametrize(("kind", "pad"), [("bert", 3), ("roberta", 3), ("llama", 3), ("llama", None)])
def test_a_padded_batch_scores_as_each_text_alone(tmp_path, kind, pad):
    # Without a pad id of the model's or the tokenizer's, texts go one at a time.
    model, path = published(tmp_path, kind, pad=pad, pad_token=None if pad is None else "[PAD]")
    member = PublishedReward.from_published(path)
    rows, _ = tokenize_texts(member.tokenizer, [""] * len(TEXTS), TEXTS, member.max_tokens)
    with torch.no_grad():
        scores = member(*padded(rows))
    expected = one_by_one(model, rows)[:, 0]
    torch.testing.assert_close(scores, expected.unsqueeze(0), atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.05
    assert (member.num_heads, member.causal, scores.dtype) == (1, False, torch.float32)


def test_two_labels_are_a_difference_and_three_are_refused(tmp_path):
    model, path = published(tmp_path / "two", labels=2)
    member = PublishedReward.from_published(path)
    rows, _ = tokenize_texts(member.tokenizer, [""] * len(TEXTS), TEXTS, member.max_tokens)
    both = one_by_one(model, rows)
    with torch.no_grad():
        scores = member(*padded(rows))[0]
    torch.testing.assert_close(scores, both[:, 1] - both[:, 0], atol=1e-5, rtol=1e-5)
    _, path = published(tmp_path / "three", labels=3)
    with pytest.raises(UserError, match=r"this one has 3 \(LABEL_0, LABEL_1, LABEL_2\)"):
        PublishedReward.from_published(path, "f")


def test_saved_in_plain_layout_it_loads_here_and_there(tmp_path):
    _, path = published(tmp_path / "hub", "llama")
    member = PublishedReward.from_published(path)
    (tmp_path / "kept").mkdir()
    member.save(tmp_path / "kept")
    batch = padded(tokenize_texts(member.tokenizer, [""] * len(TEXTS), TEXTS, member.max_tokens)[0])
    with torch.no_grad():
        expected = member(*batch)
        assert torch.equal(PublishedReward.from_published(tmp_path / "kept").eval()(*batch), expected)
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "kept").eval()
        torch.testing.assert_close(logits(plain, *batch).T, expected)


def test_the_pad_id_that_a_tokenizer_lent_is_kept(tmp_path):
    _, path = published(tmp_path / "hub", "llama", pad=None)
    member = PublishedReward.from_published(path)
    (tmp_path / "kept").mkdir()
    member.save(tmp_path / "kept")
    assert PublishedReward.from_published(tmp_path / "kept").model.config.pad_token_id == 3


def test_a_template_writes_its_own_special_tokens():
    own = tokenizer(template=TEMPLATE)
    names = own.convert_ids_to_tokens(tokenize_texts(own, ["w1"], ["w2"], 30)[0][0])
    assert names == ["[CLS]", "user:", "w1", "assistant:", "w2", "[SEP]"]


def test_a_cut_takes_the_start_of_the_text_and_leaves_special_tokens(tmp_path):
    _, path = published(tmp_path, side="right")
    own = PublishedReward.from_published(path).tokenizer
    rows, num_cut = tokenize_texts(own, ["w0 w1 ", ""], ["w2 w3 w4 w5", "w9"], 5)
    assert [own.convert_ids_to_tokens(row) for row in rows] == [
        ["[CLS]", "w3", "w4", "w5", "[SEP]"],
        ["[CLS]", "w9", "[SEP]"],
    ]
    assert num_cut == 1
    assert tokenize_texts(own, [], [], 5) == ([], 0)


def test_readable_tokens_count_robertas_positions(tmp_path):
    sizes = {kind: published(tmp_path / kind, kind)[0] for kind in ("bert", "roberta")}
    own = tokenizer()
    own.model_max_length = 1000
    assert readable_tokens(sizes["bert"], own) == 40
    assert readable_tokens(sizes["roberta"], own) == 36
    own.model_max_length = 30
    assert readable_tokens(sizes["bert"], own) == 30


@pytest.mark.parametrize("config", [RobertaConfig, CamembertConfig, RobertaPreLayerNormConfig])
def test_all_of_robertas_family_count_positions_from_the_pad_id(config):
    made = config(
        vocab_size=48, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40, pad_token_id=3,
    )  # fmt: skip
    model, most = AutoModel.from_config(made).eval(), positions_of(made)
    assert most == 36
    assert model(input_ids=torch.full((1, most), 7)).last_hidden_state.isfinite().all()
    with pytest.raises((RuntimeError, IndexError)):
        model(input_ids=torch.full((1, most + 1), 7))


def test_another_models_tokenizer_is_refused(tmp_path):
    _, path = published(tmp_path, words=60)
    with pytest.raises(UserError, match=r"f=.*the model has 48 tokens and the tokenizer needs 66"):
        PublishedReward.from_published(path, "f")


def test_nothing_there_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"reward model=.*no sequence classifier can be loaded") as caught:
        PublishedReward.from_published(tmp_path / "absent", "reward model")
    assert "\n" not in str(caught.value)

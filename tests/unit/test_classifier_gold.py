import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from framework.errors import RunError, UserError
from framework.gold.classifier import Classifier

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "user:", "assistant:", *(f"w{i}" for i in range(50))]
SIZES = {
    "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 40, "initializer_range": 0.5,
}  # fmt: skip
TEXTS = [" ".join(f"w{(7 * i + j) % 50}" for j in range(3 + 2 * i)) for i in range(9)]


def tokenizer(pad="[PAD]", side="right", template=None):
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = WhitespaceSplit()
    core.post_processor = TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=pad, cls_token="[CLS]", sep_token="[SEP]", eos_token="[SEP]",
        unk_token="[UNK]", padding_side=side, model_max_length=40,
    )  # fmt: skip
    made.chat_template = template
    return made


def save(folder, decoder=False, labels=2, **options):
    torch.manual_seed(0)
    if decoder:
        pad = {"pad_token_id": None if options.get("pad", "") is None else 0}
        config = LlamaConfig(**SIZES, num_labels=labels, bos_token_id=None, eos_token_id=2, **pad)
        model = LlamaForSequenceClassification(config)
    else:
        config = BertConfig(**SIZES, num_labels=labels, id2label={0: "bad", 1: "good"} if labels == 2 else None)
        model = BertForSequenceClassification(config)
    model.save_pretrained(folder)
    tokenizer(**options).save_pretrained(folder)
    return model.eval(), str(folder)


def one_by_one(model, ids):
    with torch.no_grad():
        return torch.stack([model(input_ids=torch.tensor([row])).logits[0].float() for row in ids])


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(tmp_path, decoder, side):
    model, path = save(tmp_path, decoder=decoder, side=side)
    gold = Classifier(path=path, label=1, batch_size=4).build("cpu")
    scored = gold.score([""] * len(TEXTS), TEXTS)
    expected = one_by_one(model, tokenizer()(TEXTS)["input_ids"])[:, 1]
    torch.testing.assert_close(scored.values, expected, atol=1e-5, rtol=1e-5)
    assert scored.num_cut == 0
    assert expected.std() > 0.05


def test_a_model_without_pad_token_is_asked_one_by_one(tmp_path):
    model, path = save(tmp_path, decoder=True, pad=None)
    gold = Classifier(path=path, batch_size=4).build("cpu")
    expected = one_by_one(model, tokenizer()(TEXTS)["input_ids"])[:, 0]
    torch.testing.assert_close(gold.score([""] * len(TEXTS), TEXTS).values, expected, atol=1e-5, rtol=1e-5)


def test_prompt_and_response_are_one_text(tmp_path):
    _, path = save(tmp_path)
    gold = Classifier(path=path).build("cpu")
    assert torch.equal(gold.score(["w1 w2"], [" w3"]).values, gold.score([""], ["w1 w2 w3"]).values)


def test_labels_by_name_and_as_a_difference(tmp_path):
    model, path = save(tmp_path)
    logits = one_by_one(model, tokenizer()(TEXTS)["input_ids"])
    gold = Classifier(path=path, label="good", against="bad").build("cpu")
    difference = logits[:, 1] - logits[:, 0]
    torch.testing.assert_close(gold.score([""] * len(TEXTS), TEXTS).values, difference, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match=r"gold\.label='goood': .* 0 \(bad\), 1 \(good\)"):
        Classifier(path=path, label="goood").build("cpu")
    with pytest.raises(UserError, match=r"gold\.against=2"):
        Classifier(path=path, against=2).build("cpu")


def test_a_chat_template_makes_turns_without_a_second_set_of_special_tokens(tmp_path):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}[SEP]"
    model, path = save(tmp_path, labels=1, template=template)
    gold = Classifier(path=path).build("cpu")
    ids = [WORDS.index(word) for word in ["user:", "w1", "assistant:", "w2", "[SEP]"]]
    expected = one_by_one(model, [ids])[:, 0]
    torch.testing.assert_close(gold.score(["w1"], ["w2"]).values, expected, atol=1e-5, rtol=1e-5)


def test_long_texts_lose_their_start_are_counted_and_stop_a_run(tmp_path):
    model, path = save(tmp_path)
    long = " ".join(f"w{i % 50}" for i in range(60))
    gold = Classifier(path=path, max_length=10, max_cut_share=0.5).build("cpu")
    scored = gold.score(["", ""], [long, "w1"])
    assert scored.num_cut == 1
    kept = [1, *(WORDS.index(f"w{i % 50}") for i in range(52, 60)), 2]
    torch.testing.assert_close(scored.values[:1], one_by_one(model, [kept])[:, 0], atol=1e-5, rtol=1e-5)
    with pytest.raises(RunError, match=r"2 of 2 texts have more than 10 tokens, over gold\.max_cut_share=0\.5"):
        gold.score(["", ""], [long, long])
    unbounded = Classifier(path=path, max_length=4000, max_cut_share=1.0).build("cpu")
    assert unbounded.score([""], [long]).num_cut == 1


def test_nan_stops_a_run(tmp_path):
    _, path = save(tmp_path)
    gold = Classifier(path=path).build("cpu")
    torch.nn.init.constant_(gold.model.classifier.bias, float("nan"))
    with pytest.raises(RunError, match="1 of 1 scores"):
        gold.score([""], ["w1"])


def test_an_untrained_head_and_no_model_are_refused(tmp_path):
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path / "encoder")
    tokenizer().save_pretrained(tmp_path / "encoder")
    with pytest.raises(UserError, match=r"weights are missing .*classifier"):
        Classifier(path=str(tmp_path / "encoder")).build("cpu")
    with pytest.raises(UserError, match="no sequence classifier can be loaded") as caught:
        Classifier(path=str(tmp_path / "absent")).build("cpu")
    assert "\n" not in str(caught.value)


def test_dtype(tmp_path):
    _, path = save(tmp_path)
    assert Classifier(path=path, dtype="bfloat16").build("cpu").model.dtype == torch.bfloat16
    assert Classifier(path=path, dtype="auto").build("cpu").model.dtype == torch.float32
    assert Classifier(path=path, dtype="bfloat16").build("cpu").score([""], ["w1"]).values.dtype == torch.float32


def test_no_rows(tmp_path):
    _, path = save(tmp_path)
    assert Classifier(path=path).build("cpu").score([], []).values.shape == (0,)

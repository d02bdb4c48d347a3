"""Log-probabilities of given tokens, in one piece or in many."""

import pytest
import torch

from framework import logprobs as module
from framework.logprobs import token_logprobs

WIDTH, VOCAB = 6, 11


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 5, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(VOCAB, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    return hidden, weight, torch.randint(0, VOCAB, (3, 5), generator=generator)


def product(weight):
    return lambda states: (states @ weight.T).float()


def direct(hidden, weight, targets, temperature):
    return torch.log_softmax(hidden @ weight.T / temperature, -1).gather(-1, targets[..., None])[..., 0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("positions_per_chunk", [1, 4, 15, 100])
def test_value_and_gradients_do_not_depend_on_the_chunks(inputs, temperature, positions_per_chunk):
    hidden, weight, targets = inputs
    found = token_logprobs(
        hidden, product(weight), VOCAB, targets, temperature, chunk_elements=positions_per_chunk * VOCAB
    )
    wanted = direct(hidden, weight, targets, temperature)
    # Logits are taken to float32, whatever they are computed in.
    torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=1e-6)
    scale = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).view_as(wanted)
    for a, b in zip(
        torch.autograd.grad((found * scale).sum(), (hidden, weight)),
        torch.autograd.grad((wanted * scale).sum(), (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_worked_example():
    # softmax([ln 1, ln 2, ln 5]) = [1, 2, 5] / 8
    weight = torch.tensor([[1.0], [2.0], [5.0]]).log()
    found = token_logprobs(torch.ones(3, 1), product(weight), 3, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(found.exp(), torch.tensor([1.0, 2.0, 5.0]) / 8)


def test_without_gradients_chunks_give_the_same(inputs):
    hidden, weight, targets = (x.detach() for x in inputs)
    whole, parts = (token_logprobs(hidden, product(weight), VOCAB, targets, 1.0, n * VOCAB) for n in (15, 2))
    torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize("chunk_elements", [VOCAB, 4 * VOCAB, 4 * VOCAB + 1, 1])
def test_no_more_logits_at_once_than_allowed(inputs, chunk_elements, monkeypatch):
    hidden, weight, targets = inputs
    seen = []
    whole = module._chunk_logprobs

    def watched(piece, *rest):
        seen.append(len(piece))
        return whole(piece, *rest)

    monkeypatch.setattr(module, "_chunk_logprobs", watched)
    found = token_logprobs(hidden, product(weight), VOCAB, targets, 1.0, chunk_elements)
    allowed = max(1, chunk_elements // VOCAB)
    assert max(seen) == allowed
    assert len(seen) == -(-15 // allowed)
    found.sum().backward()
    assert len(seen) == 2 * -(-15 // allowed)  # logits were not kept but made again


def test_what_is_kept_for_the_backward_pass_grows_by_states_not_by_vocabulary(inputs):
    hidden, weight, targets = inputs
    sizes = []

    def note(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        token_logprobs(hidden, product(weight), VOCAB, targets, 1.0, chunk_elements=2 * VOCAB)
    assert not sizes or max(sizes) <= max(hidden.numel(), weight.numel())
    assert 15 * VOCAB not in sizes

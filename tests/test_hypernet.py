from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from hyperrl.hypernet import HEADS, Groups, HyperNetwork, distinct, mlp

TOLERANCE = dict(rtol=0, atol=1e-10)


def make(head: str, hidden: tuple[int, ...] = (16, 12), trained: bool = True) -> HyperNetwork:
    """A float64 hypernetwork; ``trained``: with weights that differ from context to context."""
    torch.manual_seed(0)
    hyper = HyperNetwork(3, mlp([5, *hidden, 2], nn.Tanh), head=head, rank=3, embedding=(8, 6)).double()
    if trained:
        nn.init.normal_(hyper.head.generator.weight, std=0.3)
    return hyper


def one_by_one(hyper: HyperNetwork, context: Tensor, x: Tensor) -> Tensor:
    """What the hypernetwork promises: each row by a network of its own."""
    return torch.cat(
        [functional_call(hyper.head.base, hyper.weights(c), (r[None],)) for c, r in zip(context, x, strict=True)]
    )


# How the rows of a batch are spread over contexts: alone, all the same, in blocks, mixed, very unevenly.
INDICES = [[0], [0, 0, 0], [0, 0, 1, 1], [2, 0, 1, 0, 2, 2, 0], list(range(20)), [0] * 40 + [1, 2, 3]]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("hidden", [(16, 12), ()])
@pytest.mark.parametrize("context_is_learnt", [False, True])
def test_batched_equals_one_network_a_row(
    head: str, index: list[int], hidden: tuple[int, ...], context_is_learnt: bool
) -> None:
    hyper = make(head, hidden)
    context = torch.randn(20, 3, dtype=torch.float64)[index]
    x = torch.randn(len(index), 5, dtype=torch.float64)
    target = torch.randn(len(index), 2, dtype=torch.float64)
    results = []
    for apply in (hyper, lambda c, r: one_by_one(hyper, c, r)):
        inputs = context.clone().requires_grad_(context_is_learnt), x.clone().requires_grad_()
        output = apply(*inputs)
        leaves = [leaf for leaf in (*inputs, *hyper.parameters()) if leaf.requires_grad]
        gradients = torch.autograd.grad((output * target).sum(), leaves)
        results.append((output, *gradients))
    for batched, looped in zip(*results, strict=True):
        torch.testing.assert_close(batched, looped, **TOLERANCE)


@given(st.lists(st.integers(0, 6), max_size=60), st.sampled_from(HEADS))
def test_permuting_the_batch_permutes_the_outputs(index: list[int], head: str) -> None:
    hyper = make(head)
    context = torch.randn(7, 3, dtype=torch.float64)[index]
    x = torch.randn(len(index), 5, dtype=torch.float64)
    order = torch.randperm(len(index))
    torch.testing.assert_close(hyper(context, x)[order], hyper(context[order], x[order]), **TOLERANCE)


@pytest.mark.parametrize("head", HEADS)
def test_an_empty_batch_gives_no_rows(head: str) -> None:
    empty = torch.zeros(0, 8, dtype=torch.float64)
    assert make(head)(empty[:, :3], empty[:, 3:]).shape == (0, 2)


@pytest.mark.parametrize("head", HEADS)
def test_weights_load_into_the_target(head: str) -> None:
    hyper = make(head)
    context, x = torch.randn(3, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)
    network = mlp([5, 16, 12, 2], nn.Tanh).double()
    network.load_state_dict(hyper.weights(context))
    torch.testing.assert_close(network(x), hyper(context.expand(9, 3), x), **TOLERANCE)


@pytest.mark.parametrize("head", HEADS)
def test_every_context_starts_from_the_target(head: str) -> None:
    """Bias-HyperInit: at initialisation the context has no influence, whatever its scale."""
    hyper = make(head, trained=False)
    x = torch.randn(9, 5, dtype=torch.float64)
    for scale in (1.0, 1e6):
        torch.testing.assert_close(
            hyper(torch.randn(9, 3, dtype=torch.float64) * scale, x), hyper.head.base(x), **TOLERANCE
        )


@pytest.mark.parametrize("head", HEADS)
def test_gradients_reach_every_part(head: str) -> None:
    hyper = make(head)
    hyper(torch.randn(9, 3, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)).square().sum().backward()
    for name, parameter in hyper.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("head", HEADS)
def test_it_can_invert_its_output(head: str) -> None:
    """The case hypernetworks are for: y = sign(c)·f(x), which starts without any influence of c."""
    torch.manual_seed(0)
    hyper = HyperNetwork(1, mlp([2, 16, 1], nn.Tanh), head=head)
    optimizer = torch.optim.Adam(hyper.parameters(), lr=1e-2)
    for _ in range(300):
        context = torch.randint(0, 2, (256, 1)) * 2.0 - 1
        x = torch.randn(256, 2)
        loss = (hyper(context, x) - context * torch.sin(x.sum(1, keepdim=True))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02  # predicting 0 leaves 0.5


@given(
    st.lists(st.lists(st.sampled_from([0.0, -0.0, 1e-8, 1.0, 1e8, float("nan")]), min_size=3, max_size=3), max_size=30)
)
def test_distinct_rows_are_found(rows: list[list[float]]) -> None:
    matrix = torch.tensor(rows).view(-1, 3)
    unique, index = distinct(matrix)
    torch.testing.assert_close(unique[index], matrix, rtol=0, atol=0, equal_nan=True)
    if not matrix.isnan().any():
        assert len(unique) == len({tuple(row) for row in rows})


def test_rows_that_share_a_hash_are_told_apart() -> None:
    """1e-3 is lost beside 1e30 in float64, so these two hash alike."""
    rows = torch.tensor([[1e30, 1e-3], [1e30, 2e-3], [1e30, 1e-3]])
    unique, index = distinct(rows)
    assert len(unique) == 2
    assert torch.equal(unique[index], rows)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=200))
def test_groups_pad_little_and_undo_themselves(index: list[int]) -> None:
    _, inverse = torch.unique(torch.tensor(index), return_inverse=True)
    contexts = int(inverse.max()) + 1
    groups = Groups(inverse, contexts)
    x = torch.randn(len(index), 3)
    padded = groups.pad(x)
    assert torch.equal(groups.unpad(padded), x)
    assert padded.shape[0] * padded.shape[1] <= 2 * (len(index) + contexts)
    of_row = groups.context.repeat_interleave(groups.size)[groups.slot]
    assert torch.equal(of_row, inverse)


def test_an_encoder_can_be_shared() -> None:
    first = make("low_rank")
    second = HyperNetwork(3, mlp([5, 4, 1], nn.Tanh), embedding=(8, 6), encoder=first.encoder).double()
    assert second.encoder is first.encoder
    assert second(torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)).shape == (2, 1)


@pytest.mark.parametrize("head", HEADS)
def test_a_layer_may_have_no_bias(head: str) -> None:
    torch.manual_seed(0)
    target = nn.Sequential(nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 2))
    hyper = HyperNetwork(3, target, head=head).double()
    nn.init.normal_(hyper.head.generator.weight, std=0.3)
    context, x = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    torch.testing.assert_close(hyper(context, x), one_by_one(hyper, context, x), **TOLERANCE)


def test_bad_arguments_are_refused() -> None:
    target = mlp([5, 4, 2], nn.Tanh)
    with pytest.raises(ValueError, match=r"unknown head 'lowrank': the heads are .*Did you mean 'low_rank'\?"):
        HyperNetwork(3, target, head="lowrank")
    with pytest.raises(ValueError, match="rank=0"):
        HyperNetwork(3, target, rank=0)
    with pytest.raises(ValueError, match=r"got Sequential\(Linear, LayerNorm\)"):
        HyperNetwork(3, nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4)))


def test_mlp_has_the_widths_asked_for() -> None:
    layers = [layer for layer in mlp([3, 7, 2], nn.ReLU, nn.Tanh()) if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == list(pairwise([3, 7, 2]))

import copy
import io
import math
import shutil
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from hyperrl.hypernet import (
    HEADS,
    Alternating,
    CosSin,
    Groups,
    HyperNetwork,
    NormBound,
    TaskEmbedding,
    distinct,
    effective_rank,
    mlp,
    similarity,
    squared_norm,
)

TOLERANCE = dict(rtol=0, atol=1e-10)
# Small sizes at which chunks straddle layers.
OPTIONS: dict[str, dict[str, int]] = {
    "low_rank": dict(rank=3),
    "full": {},
    "chunked": dict(chunk_size=50, chunk_embedding=4),
    "modulated": {},
    "adapter": dict(bottleneck=4),
}


def make(head: str, target: nn.Module | None = None, trained: bool = True, **kwargs: Any) -> HyperNetwork:
    """A float64 hypernetwork; ``trained``: with weights that differ from context to context."""
    torch.manual_seed(0)
    target = mlp([5, 16, 12, 2], nn.Tanh) if target is None else target
    hyper = HyperNetwork(3, target, head=head, **dict(embedding=(8, 6)) | OPTIONS[head] | kwargs).double()
    if trained:
        for name, parameter in hyper.named_parameters():
            if "generator" in name:
                nn.init.normal_(parameter, std=0.3)
    return hyper


def one_by_one(hyper: HyperNetwork, context: Tensor, x: Tensor) -> Tensor:
    """What the hypernetwork promises: each row by a network of its own."""
    rows = []
    for c, r in zip(context, x, strict=True):
        if type(hyper.head) is HEADS["adapter"]:
            w1, b1, w2, b2 = (w[0] for w in hyper.head.weights(hyper.encoder(c[None])).values())
            features = hyper.head.base[:-1](r[None])
            rows.append(hyper.head.base[-1](features + (features @ w1.T + b1).relu() @ w2.T + b2))
        else:
            rows.append(functional_call(hyper.head.base, hyper.weights(c), (r[None],)))
    return torch.cat(rows)


def assert_equal_to_one_by_one(hyper: HyperNetwork, context: Tensor, x: Tensor, learnt: bool = False) -> None:
    """Outputs, and gradients of every parameter and input, are those of one network per row."""
    results = []
    for apply in (hyper, lambda c, r: one_by_one(hyper, c, r)):
        inputs = context.clone().requires_grad_(learnt), x.clone().requires_grad_()
        output = apply(*inputs)
        target = torch.sin(torch.arange(output.numel(), dtype=torch.float64)).view(output.shape)
        leaves = [leaf for leaf in (*inputs, *hyper.parameters()) if leaf.requires_grad]
        gradients = torch.autograd.grad((output * target).sum(), leaves)
        results.append((output, *gradients))
    for batched, looped in zip(*results, strict=True):
        torch.testing.assert_close(batched, looped, **TOLERANCE)


# How the rows of a batch are spread over contexts: alone, all the same, in blocks, mixed, very unevenly.
INDICES = [[0], [0, 0, 0], [0, 0, 1, 1], [2, 0, 1, 0, 2, 2, 0], list(range(20)), [0] * 40 + [1, 2, 3]]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("widths", [(5, 16, 12, 2), (5, 2)])
@pytest.mark.parametrize("context_is_learnt", [False, True])
def test_batched_equals_one_network_a_row(
    head: str, index: list[int], widths: tuple[int, ...], context_is_learnt: bool
) -> None:
    hyper = make(head, mlp(widths, nn.Tanh))
    context = torch.randn(20, 3, dtype=torch.float64)[index]
    assert_equal_to_one_by_one(hyper, context, torch.randn(len(index), 5, dtype=torch.float64), context_is_learnt)


class Elementwise(nn.Module):
    """A layer of which zero is a singular point."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


SINGULAR_AT_ZERO: dict[str, Callable[[Tensor], Tensor]] = {
    "direction": lambda x: x / x.norm(dim=-1, keepdim=True),
    "log": lambda x: x.abs().log(),
    "sqrt": lambda x: x.abs().sqrt(),
    "inverse": lambda x: 1 / (x + x.sign()),
    "standardised": lambda x: (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True),
}


@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=30),
    st.sampled_from(list(HEADS)),
    st.sampled_from(list(SINGULAR_AT_ZERO)),
    st.booleans(),
    st.booleans(),
)
def test_targets_need_not_be_finite_at_zero(
    index: list[int], head: str, function: str, is_perceptron: bool, context_is_learnt: bool
) -> None:
    """Places of a chunk that hold no row of the batch have no influence, whatever the target does there."""
    hidden = [nn.Linear(5, 5, bias=False), Elementwise(SINGULAR_AT_ZERO[function])]
    target = (
        nn.Sequential(*hidden, nn.Linear(5, 2))
        if is_perceptron
        else nn.Sequential(nn.Sequential(*hidden), nn.Linear(5, 2))
    )
    torch.manual_seed(0)
    hyper = make(head, target)
    context = torch.randn(7, 3, dtype=torch.float64)[index]
    x = torch.randn(len(index), 5, dtype=torch.float64)
    assert_equal_to_one_by_one(hyper, context, x, context_is_learnt)


@pytest.mark.parametrize("head", HEADS)
def test_a_context_without_rows_gets_no_gradient(head: str) -> None:
    hyper = make(head, nn.Sequential(Elementwise(SINGULAR_AT_ZERO["direction"]), nn.Linear(5, 2)))
    z = torch.randn(4, hyper.encoder(torch.zeros(1, 3, dtype=torch.float64)).shape[1], dtype=torch.float64)
    z.requires_grad_()
    hyper.head(z, torch.tensor([0, 2, 2, 0]), torch.randn(4, 5, dtype=torch.float64)).sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert z.grad.abs().sum(1).gt(0).tolist() == [True, False, True, False]


@given(st.lists(st.integers(0, 6), max_size=60), st.sampled_from(list(HEADS)))
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


@pytest.mark.parametrize("head", [head for head in HEADS if head != "adapter"])
def test_weights_load_into_the_target(head: str) -> None:
    hyper = make(head)
    context, x = torch.randn(3, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)
    network = mlp([5, 16, 12, 2], nn.Tanh).double()
    network.load_state_dict(hyper.weights(context))
    torch.testing.assert_close(network(x), hyper(context.expand(9, 3), x), **TOLERANCE)


def test_the_adapter_has_no_weights_of_the_target() -> None:
    with pytest.raises(ValueError, match="adds a layer to the target"):
        make("adapter").weights(torch.zeros(3))


@pytest.mark.parametrize("head", HEADS)
def test_every_context_starts_from_the_target(head: str) -> None:
    """Bias-HyperInit: at initialisation the context has no influence, whatever its scale."""
    hyper = make(head, trained=False)
    x = torch.randn(9, 5, dtype=torch.float64)
    for scale in (1.0, 1e6):
        torch.testing.assert_close(
            hyper(torch.randn(9, 3, dtype=torch.float64) * scale, x), hyper.head.base(x), **TOLERANCE
        )


@pytest.mark.parametrize("head", ["low_rank", "full", "modulated"])
def test_adams_first_step_moves_generated_numbers_as_the_docstring_of_the_full_head_says(head: str) -> None:
    """By ``η·Σ|z|/√h``: each is a sum over the embedding, and Adam's first step moves each of its parts by η."""
    made = make(head).head
    z = torch.randn(1, 6, dtype=torch.float64)
    optimizer = torch.optim.Adam(made.generator.parameters(), lr=0.01)  # pyright: ignore[reportAttributeAccessIssue]
    before = {name: numbers.detach() for name, numbers in made.generate(z).items()}
    torch.stack([numbers.sum() for numbers in made.generate(z).values()]).sum().backward()
    optimizer.step()
    step = 0.01 * float(z.abs().sum()) / math.sqrt(6)
    for name, numbers in made.generate(z).items():
        torch.testing.assert_close(before[name] - numbers, torch.full_like(numbers, step), atol=1e-6, rtol=0)


@pytest.mark.parametrize("head", ["low_rank", "modulated"])
def test_a_state_dict_from_before_the_division_generates_what_it_did(head: str) -> None:
    hyper = make(head)
    z = torch.randn(4, 6, dtype=torch.float64)
    state: Any = hyper.state_dict()
    assert state._metadata["head"] == {"version": 2}
    state._metadata["head"] = {"version": 1}
    kept = {name: tensor.clone() for name, tensor in state.items()}
    former = torch.cat(list(hyper.head.generate(z * math.sqrt(6)).values()), dim=1)
    hyper.load_state_dict(state)
    torch.testing.assert_close(torch.cat(list(hyper.head.generate(z).values()), dim=1), former, **TOLERANCE)
    for name, tensor in state.items():
        assert torch.equal(tensor, kept[name]) or name == "head.generator.weight", name


@pytest.mark.parametrize("head", HEADS)
def test_gradients_reach_every_part(head: str) -> None:
    hyper = make(head)
    hyper(torch.randn(9, 3, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)).square().sum().backward()
    for name, parameter in hyper.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("width", [16, 64])
def test_a_step_of_adam_moves_a_generated_weight_like_one_that_is_learnt(width: int) -> None:
    """By Σ|z|/√h learning rates, which for the default encoder is about one."""
    torch.manual_seed(0)
    moves = []
    for context in 2 * torch.rand(20, 4) - 1:
        hyper = HyperNetwork(4, mlp([3, 8, 1], nn.Tanh), head="full", embedding=(width, width))
        before = hyper.generate(context[None])
        optimizer = torch.optim.Adam(hyper.head.generator.parameters(), lr=1e-3, eps=0)  # pyright: ignore[reportAttributeAccessIssue]
        hyper(context[None], torch.randn(1, 3)).sum().backward()
        optimizer.step()
        move = (hyper.generate(context[None]) - before).abs() / 1e-3
        moves.append(hyper.encoder(context).abs().sum().item() / width**0.5)
        torch.testing.assert_close(move, torch.full_like(move, moves[-1]), rtol=1e-3, atol=0)
    assert 0.7 < sum(moves) / len(moves) < 1.5


@pytest.mark.parametrize("head", HEADS)
def test_it_can_invert_its_output(head: str) -> None:
    """The case hypernetworks are for: y = sign(c)·f(x), which starts without any influence of c."""
    torch.manual_seed(0)
    hyper = HyperNetwork(1, mlp([2, 16, 1], nn.Tanh), head=head)
    optimizer = torch.optim.Adam(hyper.parameters(), lr=1e-2)
    loss = torch.tensor(torch.inf)
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
    assert padded.shape[0] * padded.shape[1] <= 2 * len(index)
    of_row = groups.context.repeat_interleave(groups.size)[groups.slot]
    assert torch.equal(of_row, inverse)


def test_an_encoder_can_be_shared() -> None:
    first = make("low_rank")
    second = make("full", mlp([5, 4, 1], nn.Tanh), encoder=first.encoder)
    assert second.encoder is first.encoder
    assert second(torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)).shape == (2, 1)


# Targets


class Recurrent(nn.Module):
    def __init__(self, layer: type[nn.GRU | nn.LSTM]) -> None:
        super().__init__()
        self.cell = layer(5, 4, batch_first=True)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.cell(x)[0][:, -1])


class Scaled(nn.Module):
    """Without a fast path, with a buffer that matters and a parameter without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("offset", torch.linspace(0, 1, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * torch.tanh(self.first(x)) + self.offset


def reused_activation() -> nn.Sequential:
    act = nn.Tanh()
    return nn.Sequential(nn.Linear(5, 4), act, nn.Linear(4, 4), act, nn.Linear(4, 2))


def reused_linear() -> nn.Sequential:
    layer = nn.Linear(5, 5)
    return nn.Sequential(layer, nn.Tanh(), layer)


TARGETS = {
    "no bias": (lambda: nn.Sequential(nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 2)), (5,)),
    "reused activation": (reused_activation, (5,)),
    "over rows": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Softmax(dim=1), nn.Linear(4, 2)), (5,)),
    "sequence": (lambda: mlp([5, 4, 2], nn.Tanh), (6, 5)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2)), (5,)),
    "batch norm": (lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval(), (5,)),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)),
        (1, 4, 4),
    ),
    "scaled": (Scaled, (5,)),
    "gru": (lambda: Recurrent(nn.GRU), (7, 5)),
    "lstm": (lambda: Recurrent(nn.LSTM), (7, 5)),
}
ENDS_IN_LINEAR = {"no bias", "reused activation", "over rows", "sequence", "layer norm", "batch norm", "convolution"}


@pytest.mark.parametrize(
    ("head", "name"),
    [(head, name) for head in HEADS for name in TARGETS if head != "adapter" or name in ENDS_IN_LINEAR],
)
def test_any_target(head: str, name: str) -> None:
    make_target, shape = TARGETS[name]
    hyper = make(head, make_target())
    context = torch.randn(4, 3, dtype=torch.float64)[[1, 3, 1, 0, 0, 1, 2]]
    x = torch.randn(7, *shape, dtype=torch.float64)
    assert_equal_to_one_by_one(hyper, context, x)
    assert hyper(context[:0], x[:0]).shape == (0, *hyper(context, x).shape[1:])
    if head != "adapter":
        target = make_target().double()
        target.load_state_dict(hyper.weights(context[0]))  # buffers included
        torch.testing.assert_close(target(x[:1]), hyper(context[:1], x[:1]), **TOLERANCE)


@pytest.mark.parametrize("head", [head for head in HEADS if head != "adapter"])
@pytest.mark.parametrize("pattern", ["*.bias", "0.*", ["2.weight", "4.bias"]], ids=str)
def test_a_pattern_says_what_is_generated(head: str, pattern: str | list[str]) -> None:
    hyper = make(head, generated=pattern)
    context = torch.randn(4, 3, dtype=torch.float64)[[1, 3, 1, 0]]
    assert_equal_to_one_by_one(hyper, context, torch.randn(4, 5, dtype=torch.float64))
    first, second = hyper.weights(context[0]), hyper.weights(context[1])
    expected = {"*.bias": "0.bias 2.bias 4.bias", "0.*": "0.weight 0.bias"}.get(str(pattern), "2.weight 4.bias")
    assert [name for name in first if not torch.equal(first[name], second[name])] == expected.split()


@pytest.mark.parametrize("head", [head for head in HEADS if head != "adapter"])
@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False, track_running_stats=False).eval()], ids=str
)
def test_batch_statistics_are_refused(head: str, norm: nn.Module) -> None:
    hyper = make(head, nn.Sequential(nn.Linear(5, 4), norm, nn.Linear(4, 2)))
    with pytest.raises(ValueError, match="mixes the rows of different contexts"):
        hyper(torch.zeros(4, 3, dtype=torch.float64), torch.zeros(4, 5, dtype=torch.float64))


# Parameter counts and initialisation


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["no bias", "layer norm", "convolution"])
def test_parameter_counts_are_as_documented(head: str, name: str) -> None:
    target = TARGETS[name][0]()
    own = sum(p.numel() for p in target.parameters())
    shapes = {name: p.shape for name, p in target.named_parameters()}
    count = HEADS[head].parameter_count(shapes, 6, **OPTIONS[head])
    assert sum(p.numel() for p in make(head, target).head.parameters()) == own + count


def test_a_chunked_generator_compresses() -> None:
    target = mlp([4, 256, 256, 2], nn.ReLU)
    hyper = HyperNetwork(3, target, head="chunked", init="hyperfan_in", base=False)
    learnt = sum(p.numel() for p in hyper.parameters())
    shapes = {name: w.shape for name, w in hyper.weights(torch.zeros(3)).items()}
    assert sum(shape.numel() for shape in shapes.values()) == 67_586
    assert learnt == HEADS["chunked"].parameter_count(shapes, 64) + sum(p.numel() for p in hyper.encoder.parameters())
    assert learnt < 16_000
    assert sum(tensor.numel() for tensor in hyper.state_dict().values()) == learnt  # nothing else is stored


@pytest.mark.parametrize("head", ["full", "chunked"])
@pytest.mark.parametrize("init", ["hyperfan_in", "hyperfan_out", "naive"])
def test_without_a_base_it_is_exact_and_can_be_copied(head: str, init: str) -> None:
    hyper = make(head, trained=False, init=init, base=False)
    context, x = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    assert_equal_to_one_by_one(hyper, context, x)
    other = make(head, trained=False, init=init, base=False)
    nn.init.zeros_(other.encoder[0].weight)
    other.load_state_dict(hyper.state_dict())
    assert torch.equal(other(context, x), hyper(context, x))
    network = mlp([5, 16, 12, 2], nn.Tanh).double()
    network.load_state_dict(hyper.weights(context[0]))
    torch.testing.assert_close(network(x[:1]), hyper(context[:1], x[:1]), **TOLERANCE)


def activation_variances(networks: list[nn.Sequential], x: Tensor) -> Tensor:
    """The variance of what each linear layer puts out, over rows, units and networks."""
    variances = []
    for network in networks:
        h, of_network = x, []
        for layer in network:
            h = layer(h)
            if isinstance(layer, nn.Linear):
                of_network.append(h.square().mean())
        variances.append(torch.stack(of_network))
    return torch.stack(variances).mean(0)


@torch.no_grad()
def generated_and_ordinary(head: str, init: str, mode: str, activation: type[nn.Module]) -> tuple[Tensor, Tensor]:
    """Variances of the activations of generated networks, and of networks initialised by Kaiming's rule."""
    torch.manual_seed(0)
    widths, x = [64] * 4, torch.randn(256, 64)
    nonlinearity = "relu" if activation is nn.ReLU else "linear"
    generated, ordinary = [], []
    for _ in range(60):
        hyper = HyperNetwork(4, mlp(widths, activation), head=head, init=init)
        for context in 2 * torch.rand(2, 4) - 1:
            generated.append(mlp(widths, activation))
            generated[-1].load_state_dict(hyper.weights(context))
            ordinary.append(mlp(widths, activation))
            for layer in ordinary[-1]:
                if isinstance(layer, nn.Linear):
                    nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity=nonlinearity)
                    nn.init.zeros_(layer.bias)
    return activation_variances(generated, x), activation_variances(ordinary, x)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Identity])
@pytest.mark.parametrize("init", ["hyperfan_in", "hyperfan_out"])
def test_hyperfan_keeps_the_variance_of_activations(init: str, activation: type[nn.Module]) -> None:
    """Layer by layer within 20 % of an ordinary initialisation's."""
    generated, ordinary = generated_and_ordinary("full", init, init.removeprefix("hyper"), activation)
    torch.testing.assert_close(generated / ordinary, torch.ones(3), rtol=0, atol=0.2)


@pytest.mark.parametrize("head", ["full", "chunked"])
def test_the_naive_initialisation_does_not(head: str) -> None:
    generated, ordinary = generated_and_ordinary(head, "naive", "fan_in", nn.ReLU)
    assert ((generated / ordinary - 1).abs() > 0.2).all()


@torch.no_grad()
@pytest.mark.parametrize("init", ["hyperfan_in", "hyperfan_out"])
def test_hyperfan_gives_chunks_the_variance_of_each_layer(init: str) -> None:
    torch.manual_seed(0)
    theta: dict[str, list[Tensor]] = {}
    for _ in range(20):
        hyper = HyperNetwork(4, mlp([8, 64, 32, 2], nn.ReLU), head="chunked", init=init, chunk_size=300)
        for context in 2 * torch.rand(10, 4) - 1:
            for name, weight in hyper.weights(context).items():
                theta.setdefault(name, []).append(weight.square().mean())
    for i, (n_in, n_out) in {0: (8, 64), 2: (64, 32), 4: (32, 2)}.items():
        weight, bias = (torch.stack(theta[f"{i}.{name}"]).mean().item() for name in ("weight", "bias"))
        if init == "hyperfan_in":
            assert weight == pytest.approx(1 / n_in, rel=0.2)  # ReLU's 2, half of it the bias's
            assert bias == pytest.approx(1, rel=0.4)
        else:
            assert weight == pytest.approx(2 / n_out, rel=0.2)
            assert bias == pytest.approx(max(0, 2 * (1 - n_in / n_out)), rel=0.4)


def test_hyperfan_measures_the_embedding_on_the_sample_given() -> None:
    encoder = TaskEmbedding(tasks=5, dim=16)
    nn.init.normal_(encoder.embedding.weight, std=7.0)
    sample = torch.arange(5.0).unsqueeze(1)
    hyper = HyperNetwork(1, mlp([32, 64], nn.ReLU), head="full", encoder=encoder, init="hyperfan_in", sample=sample)
    weight = torch.stack([hyper.weights(c)["0.weight"] for c in sample])
    assert weight.var().item() == pytest.approx(1 / 64, rel=0.2)  # half of 1/32: the other half is the bias's


# Encoders


@pytest.mark.parametrize("bound", [0.5, 100.0])
def test_a_norm_bound_bounds_and_passes_gradients(bound: float) -> None:
    z = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    bounded = NormBound(bound)(z)
    torch.testing.assert_close(bounded, z * torch.tensor([[min(1, bound / 5)], [1.0]]))
    assert torch.autograd.grad(bounded.sum(), z)[0].isfinite().all()


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4))
def test_cos_sin_has_the_same_norm_for_every_context(context: list[float]) -> None:
    encoded = CosSin()(torch.tensor([context], dtype=torch.float64))
    assert encoded.norm().item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("encoder", "width"),
    [
        (nn.Identity(), 3),
        (nn.Sequential(CosSin(), nn.Linear(6, 7), nn.LayerNorm(7)), 7),
        (nn.Sequential(mlp([3, 9], nn.ReLU), NormBound(1.0)), 9),
        (TaskEmbedding(8, 5), 5),
    ],
)
def test_an_encoder_of_ones_own(encoder: nn.Module, width: int) -> None:
    """The head has the width of what the encoder puts out, whatever ``embedding`` says."""
    hyper = make("full", encoder=encoder)
    assert hyper.head.generator.in_features == width  # pyright: ignore[reportAttributeAccessIssue]
    context = torch.randint(0, 8, (9, 3)).double()
    assert_equal_to_one_by_one(hyper, context, torch.randn(9, 5, dtype=torch.float64))


# Measures


def test_effective_rank_counts_directions() -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(50, 4)).Q  # (50, 4)
    coordinates = torch.randn(400, 4)
    for r in (1, 2, 4):
        theta = 3 + coordinates[:, :r] @ basis[:, :r].mT
        assert effective_rank(theta) == pytest.approx(r, rel=0.02)
    assert effective_rank(torch.full((7, 50), 0.1)) == 0
    assert math.isnan(effective_rank(torch.tensor([[1.0, torch.inf], [2.0, 3.0]])))


def test_diagnostics_tell_a_collapse() -> None:
    contexts = torch.randn(32, 3, dtype=torch.float64)
    alive, collapsed = (make("full", trained=trained).diagnostics(contexts) for trained in (True, False))
    assert alive.keys() == collapsed.keys()
    assert alive["effective_rank"] > 2
    assert alive["weight_variance"] > 0.001
    assert collapsed["effective_rank"] == collapsed["weight_variance"] == 0
    hyper = make("full", trained=False)
    expected = torch.cat([w.flatten() for w in hyper.head.base.parameters()]).norm().item()
    assert collapsed["weight_norm"] == pytest.approx(expected)
    assert collapsed["embedding_norm"] == pytest.approx(hyper.encoder(contexts).norm(dim=1).mean().item())


@pytest.mark.parametrize("head", HEADS)
def test_regularisers_move_the_weights(head: str) -> None:
    hyper = make(head)
    contexts = torch.randn(6, 3, dtype=torch.float64)
    for regulariser in (squared_norm, lambda theta: similarity(theta, scale=1.0)):
        before = regulariser(hyper.generate(contexts))
        optimizer = torch.optim.SGD(hyper.parameters(), lr=1e-3)
        before.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert regulariser(hyper.generate(contexts)) < before


def test_similarity_is_of_pairs() -> None:
    theta = torch.randn(5, 7, dtype=torch.float64) + 100
    pairs = [(-(theta[i] - theta[j]).square().mean() / 0.25).exp() for i in range(5) for j in range(i)]
    torch.testing.assert_close(similarity(theta, scale=0.5), torch.stack(pairs).mean())


# Schedules


def moved(hyper: HyperNetwork, optimizer: torch.optim.Optimizer) -> set[str]:
    """The parameters that a step of training changes, told by the part they are of."""
    parts = {id(p): "base" for p in hyper.head.base.parameters()}
    before = [p.detach().clone() for p in hyper.parameters()]
    optimizer.zero_grad()
    hyper(torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)).square().mean().backward()
    optimizer.step()
    changed = [p for p, b in zip(hyper.parameters(), before, strict=True) if not torch.equal(p, b)]
    return {parts.get(id(p), "hyper") for p in changed}


@pytest.mark.parametrize("generated", ["*", "*weight"])
@pytest.mark.parametrize("head", [head for head in HEADS if head != "adapter"])
def test_parameters_are_the_base_and_the_hypernetwork(head: str, generated: str) -> None:
    hyper = make(head, generated=generated)
    base, rest = hyper.base_parameters(), hyper.hyper_parameters()
    assert sum(p.numel() for p in base) == sum(w.numel() for w in hyper.weights(torch.zeros(3).double()).values())
    assert {id(p) for p in base} | {id(p) for p in rest} == {id(p) for p in hyper.parameters()}
    assert len(base) + len(rest) == len(list(hyper.parameters()))


@pytest.mark.parametrize("head", HEADS)
def test_alternating_trains_one_part_at_a_time(head: str) -> None:
    hyper = make(head)
    optimizer, schedule = torch.optim.Adam(hyper.parameters()), Alternating(hyper, every=2)
    seen = [moved(hyper, optimizer)]  # jointly: moments of all parameters
    for _ in range(6):
        schedule.step()
        seen.append(moved(hyper, optimizer))
    schedule.stop()
    seen.append(moved(hyper, optimizer))
    both, base, rest = {"base", "hyper"}, {"base"}, {"hyper"}
    assert seen == [both, base, base, rest, rest, base, base, both]


def test_a_gradient_from_before_the_turn_is_not_applied() -> None:
    hyper = make("full")
    optimizer, schedule = torch.optim.SGD(hyper.parameters(), lr=0.1), Alternating(hyper)
    hyper(torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)).square().mean().backward()
    schedule.step()
    before = [p.detach().clone() for p in hyper.hyper_parameters()]
    optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(hyper.hyper_parameters(), before, strict=True))
    with pytest.raises(ValueError, match="expected every ≥ 1, got every=0"):
        Alternating(hyper, every=0)


@pytest.mark.parametrize("head", [head for head in HEADS if head != "adapter"])
def test_hypernetwork_first_then_the_weights_of_one_context(head: str) -> None:
    hyper = make(head, trained=False)  # as it is made: the hypernetwork must learn from a base that does not
    optimizer = torch.optim.Adam(hyper.hyper_parameters(), lr=1e-2)
    context = torch.randn(8, 3, dtype=torch.float64)
    x, y = torch.randn(8, 5, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    base = [p.detach().clone() for p in hyper.base_parameters()]
    losses = []
    for _ in range(30):
        loss = (hyper(context, x) - y).square().mean()
        hyper.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(p, b) for p, b in zip(hyper.base_parameters(), base, strict=True))
    frozen = [p.detach().clone() for p in hyper.parameters()]
    network = copy.deepcopy(hyper.head.base)
    network.load_state_dict(hyper.weights(context[0]))
    start = (network(x[:1]) - y[:1]).square().mean()
    torch.testing.assert_close(start, (hyper(context[:1], x[:1]) - y[:1]).square().mean())
    fine = torch.optim.Adam(network.parameters(), lr=1e-3)
    start.backward()
    fine.step()
    assert (network(x[:1]) - y[:1]).square().mean() < start
    assert all(torch.equal(p, b) for p, b in zip(hyper.parameters(), frozen, strict=True))


# Under torch's own transformations


@pytest.mark.parametrize("head", HEADS)
def test_no_grad_copies_and_state_dicts(head: str) -> None:
    hyper = make(head)
    context, x = torch.randn(4, 3, dtype=torch.float64)[[1, 3, 1, 0]], torch.randn(4, 5, dtype=torch.float64)
    expected = hyper(context, x)
    with torch.no_grad():
        assert torch.equal(hyper(context, x), expected)
    assert torch.equal(copy.deepcopy(hyper)(context, x), expected)
    file = io.BytesIO()
    torch.save(hyper.state_dict(), file)
    file.seek(0)
    other = make(head, trained=False)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(context, x), expected)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["no bias", "convolution"])
def test_autocast(head: str, name: str) -> None:
    make_target, shape = TARGETS[name]
    hyper = make(head, make_target()).float()
    context, x = torch.randn(4, 3)[[1, 3, 1, 0, 0]], torch.randn(5, *shape)
    exact = hyper(context, x)
    with torch.autocast("cpu", torch.bfloat16):
        output = hyper(context, x)
    assert name == "convolution" or output.dtype == torch.bfloat16  # vmap adds the bias in float32
    assert (output - exact).abs().max() < 0.05 * exact.abs().max()
    output.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in hyper.parameters())


@pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own doings
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",  # traces all, but generates no code
        pytest.param(
            "inductor",
            marks=[pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")],
        ),
    ],
)
def test_compile(backend: str, head: str) -> None:
    hyper = make(head)
    context, x = torch.randn(4, 3, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    compiled = torch.compile(hyper, backend=backend)
    for index in ([1, 3, 1, 0, 0, 2], [0, 0, 0, 0, 0, 1]):
        torch.testing.assert_close(compiled(context[index], x), hyper(context[index], x), **TOLERANCE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(head="lowrank"), r"unknown head 'lowrank': the heads are .*Did you mean 'low_rank'\?"),
        (dict(init="hyperfan"), r"unknown init 'hyperfan': .*Did you mean 'hyperfan_in'\?"),
        (dict(rank=0), "rank=0"),
        (dict(head="chunked", rank=3), r"'chunked' has no option 'rank': .*\['chunk_size', 'chunk_embedding'\]"),
        (dict(head="full", rank=3), r"'full' has no option 'rank': its options are \[\]"),
        (dict(bottlenek=3, head="adapter"), "Did you mean 'bottleneck'"),
        (dict(embedding=()), r"embedding=\[\]"),
        (dict(base=False), "base=False with init='bias'"),
        (dict(generated="0.wight"), r"matches no parameter of the target: they are \['0.weight', '0.bias'"),
        (dict(head="adapter", generated="0.*"), "leave generated="),
        (dict(init="naive"), "LowRankHead moves the target's own"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HyperNetwork(3, mlp([5, 4, 2], nn.Tanh), **arguments)


def test_targets_that_a_head_cannot_serve_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ends in an nn\.Linear.* got Scaled"):
        HyperNetwork(3, Scaled(), head="adapter")
    with pytest.raises(ValueError, match=r"uses parameters twice.*\['2.weight', '2.bias'\]"):
        HyperNetwork(3, reused_linear())
    with pytest.raises(ValueError, match=r"does not say what '1.weight' is"):
        HyperNetwork(3, nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4)), head="full", init="hyperfan_in")


def test_mlp_has_the_widths_asked_for() -> None:
    layers = [layer for layer in mlp([3, 7, 2], nn.ReLU, nn.Tanh()) if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == list(pairwise([3, 7, 2]))


def test_a_sample_of_other_contexts_is_refused():
    with pytest.raises(ValueError, match=r"shape \(N, 1\), got \(20, 4\)"):
        HyperNetwork(1, mlp([3, 8, 2], nn.Tanh), head="full", init="hyperfan_in", sample=torch.zeros(20, 4))

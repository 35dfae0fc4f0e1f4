"""Tapes: what is replayed is what was recorded."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hyperrl.device.kernels import BOUND, called
from hyperrl.device.tape import NotStaticError, Tape, _out_variant

COMPUTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "views": lambda x: (x.t()[1:].unsqueeze(0).expand(2, -1, -1) * 2).flatten(),
    "in place": lambda x: x.exp().add_(1).mul_(x).sum(0),
    "in place through a view": lambda x: torch.cat([row.exp().sub_(1) for row in x.tanh().unbind(0)]),
    "several results": lambda x: torch.cat([*torch.var_mean(x.sin(), dim=1), x.sort(dim=1).values[:, 0]]),
    "gather": lambda x: x.cos()[torch.tensor([0, 2, 2])].index_select(1, torch.tensor([1, 0])),
    "scatter": lambda x: torch.zeros(3, 4).index_add(0, torch.tensor([0, 2, 0]), x.exp()),
    "other types": lambda x: (x > 0).double() + x.to(torch.float64).round().long(),
    "new tensors": lambda x: torch.ones_like(x) + torch.zeros(3, 4) + torch.full((3, 4), 2.0) + x,
    "a faulty kernel": lambda x: nn.functional.mse_loss(x, x.exp()),
    "constants": lambda x: torch.zeros(3, 4).add_(x) + torch.ones(3, 4) * torch.arange(4),
    "whole sums": lambda x: x.exp().sum() + x.sin().mean(dtype=torch.float64) - 1,
    "numbers": lambda x: (1.5 - x.exp()).masked_fill(x > 0, -2.0) + (3 - (x > 0).long()),
    "unneeded work": lambda x: (x.exp().sum(), x.sin())[1],
}


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_a_replay_computes_what_was_recorded_with_new_values(name: str) -> None:
    x = torch.randn(3, 4)
    tape = Tape(lambda: (COMPUTATIONS[name](x),))
    assert torch.equal(tape.outputs[0], COMPUTATIONS[name](x))
    for _ in range(2):
        x.copy_(torch.randn(3, 4))
        tape.replay()
        assert_close(tape.outputs[0], COMPUTATIONS[name](x))


FORMS = [
    form
    for operation in BOUND
    for form in (getattr(operation, overload) for overload in operation.overloads())
    if not form._schema.is_mutable and _out_variant(form)[1] is not None and "dtype" not in form._overloadname
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_torchs_functions_are_those_of_the_registry(form: Any) -> None:
    shape = (2, 2, 2) if "bmm" in str(form) else (2, 2)
    args: list[Any] = []
    for argument in form._schema.arguments:
        if argument.name == "index":
            given: Any = torch.tensor([1, 0])
        elif argument.name == "condition":
            given = torch.rand(shape) > 0.5
        elif argument.name == "dtype" or argument.kwarg_only:
            continue
        else:
            tensor = torch.rand(shape) + 0.5
            number: float = 1.5
            if "bitwise" in str(form):
                tensor, number = torch.randint(8, shape), 5
            of_type = {
                "Tensor": tensor,
                "number": number,
                "int": 1,
                "bool": True,
                "List[Tensor]": [tensor, tensor.exp()],
            }
            of_optional = {"Optional[number]": 0.7, "Optional[Tensor]": tensor, "Optional[List[int]]": [1]}
            given = (of_type | of_optional)[str(argument.type)]
        args.append(given)
    named = {a.name for a in form._schema.arguments if a.kwarg_only}
    options = {"rounding_mode": "floor", "alpha": 2.0, "beta": 3.0, "value": 0.5}
    kwargs = {name: value for name, value in options.items() if name in named}
    expected = form(*args, **kwargs)
    out = torch.empty_like(expected)
    called(_out_variant(form)[1])(*args, **kwargs, out=out)
    assert torch.equal(out, expected)


def test_gradients_are_replayed_with_new_parameters() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 2))
    x, into = torch.randn(7, 4), torch.empty(10)

    def gradient() -> tuple[Tensor, ...]:
        found = torch.autograd.grad(net(x).square().mean(), [*net.parameters()])
        into.copy_(found[-2].flatten())
        return found

    tape = Tape(gradient)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += torch.randn_like(parameter)
    x.copy_(torch.randn(7, 4))
    tape.replay()
    written = into.clone()
    for replayed, expected in zip(tape.outputs, gradient(), strict=True):
        assert_close(replayed, expected)
    assert_close(written, into)


def test_an_optimizers_steps_are_replayed() -> None:
    one, other = (nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizers = [torch.optim.Adam([p], lr=0.1, fused=True) for p in (one, other)]
    for parameter in (one, other):
        parameter.grad = torch.ones(3)
    for optimizer in optimizers:
        optimizer.step()  # makes its state

    def step() -> tuple[Tensor, ...]:
        optimizers[0].step()
        return ()

    tape = Tape(step)
    optimizers[1].step()
    for i in range(3):
        for parameter in (one, other):
            parameter.grad = parameter.grad.fill_(float(i))
        tape.replay()
        optimizers[1].step()
    assert torch.equal(one, other)
    assert optimizers[0].state[one]["step"] == 5


def test_random_numbers_are_drawn_anew_in_the_order_of_the_generator() -> None:
    scale = torch.ones(5)
    tape = Tape(lambda: (torch.normal(torch.zeros(5), scale),))
    torch.manual_seed(0)
    tape.replay()
    first = tape.outputs[0].clone()
    tape.replay()
    torch.manual_seed(0)
    assert torch.equal(first, torch.normal(torch.zeros(5), scale))
    assert not torch.equal(first, tape.outputs[0])


@pytest.mark.parametrize("columns", [1, 3, 40])
def test_products_of_gradients_are_those_of_torch(columns: int) -> None:
    """Those of few columns are computed in another way."""
    g, x = torch.randn(50, 20, dtype=torch.float64), torch.randn(50, columns, dtype=torch.float64)
    tape = Tape(lambda: (g.t() @ x,))
    x.copy_(torch.randn(50, columns))
    tape.replay()
    assert_close(tape.outputs[0], g.t() @ x, rtol=1e-12, atol=1e-12)


def test_memory_is_used_again() -> None:
    x = torch.randn(1000)

    def chain() -> tuple[Tensor, ...]:
        y = x
        for _ in range(20):
            y = (y + 1).tanh()
        return (y,)

    calls = Tape(chain)._calls
    places = {t.data_ptr() for _, args, kwargs in calls for t in (*args, *kwargs.values()) if isinstance(t, Tensor)}
    assert len(calls) == 40
    assert len(places) <= 4  # x, the output, and two in turn


@pytest.mark.parametrize(
    "function", [lambda x: x * x.sum().item(), lambda x: x.nonzero(), lambda x: x[x > 0], lambda x: torch.unique(x)]
)
def test_what_depends_on_values_is_refused(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(5)
    with pytest.raises(NotStaticError, match="depends on the values of tensors"):
        Tape(lambda: (function(x),))


@pytest.mark.gpu
@pytest.mark.parametrize("name", COMPUTATIONS)
def test_a_cuda_graph_computes_what_was_recorded_with_new_values(name: str) -> None:
    with torch.device("cuda"):
        x = torch.randn(3, 4)
        tape = Tape(lambda: (COMPUTATIONS[name](x),))
        assert tape._graph is not None
        for _ in range(2):
            x.copy_(torch.randn(3, 4))
            tape.replay()
            assert_close(tape.outputs[0], COMPUTATIONS[name](x))

"""The constructors of policies spell their arguments out, as SB3's do, and cannot drift from what they stand for."""

import inspect
import re
from dataclasses import fields
from typing import Any, get_type_hints

import pytest
from gymnasium import spaces

import hyperrl.policies
from hyperrl.hypernet import HEADS
from hyperrl.policies import ContextPolicy, HyperPolicy
from hyperrl.policies.arguments import GIVEN_BY_THE_ALGORITHM
from hyperrl.policies.hyper_config import GeneratedPolicy, HyperConfig
from hyperrl.policies.loss import BoundedMeans
from hyperrl.policies.registry import REGISTRY

NAMES = sorted({name for entry in REGISTRY.values() if not entry.has_memory for name in entry.policies.values()})
every_policy = pytest.mark.parametrize("name", NAMES)


def documented(cls: type[Any]) -> dict[str, str]:
    """What the docstring says of each argument."""
    found = re.findall(r"^:param (\w+): (.*?)(?=^:|\n\n|\Z)", inspect.getdoc(cls) or "", re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found}


def arguments(cls: type[Any]) -> dict[str, tuple[Any, Any]]:
    """Type and default of each argument."""
    hints = get_type_hints(cls.__init__)
    return {name: (hints[name], p.default) for name, p in inspect.signature(cls).parameters.items()}


@every_policy
def test_an_argument_is_an_argument_of_sb3s_or_an_option_of_ours(name: str) -> None:
    cls = getattr(hyperrl.policies, name)
    found = arguments(cls)
    stock = next(c for c in cls.__mro__ if c.__module__.startswith(("stable_baselines3", "sb3_contrib")))
    theirs = arguments(stock)
    assert list(found)[: len(theirs)] == list(theirs)
    for argument, (kind, default) in theirs.items():
        if argument == "features_extractor_class":  # SB3's usual one, which depends on the observation
            assert found[argument] == (kind | None, None)
        elif argument in GIVEN_BY_THE_ALGORITHM:
            assert found[argument][1] == inspect.Parameter.empty
        else:
            assert found[argument] == (kind, default), argument
    ours = list(found)[len(theirs) :]
    parameters = inspect.signature(cls).parameters
    assert all(parameters[argument].kind is inspect.Parameter.KEYWORD_ONLY for argument in ours)
    options = {"context_key": (str, "context"), "context_slice": (tuple[int, int | None] | None, None)}
    if issubclass(cls, BoundedMeans):
        options["bounds_loss"] = (float, 0.0)
    if issubclass(cls, GeneratedPolicy):
        hints = get_type_hints(HyperConfig)
        options |= {option.name: (hints[option.name], option.default) for option in fields(HyperConfig)}
    more = {"HyperPolicy": ["share_encoder"], "FilmPolicy": ["embedding"]}.get(name, [])
    assert ours == [*options, *more]
    assert {argument: found[argument] for argument in options} == options


@every_policy
def test_each_argument_is_documented(name: str) -> None:
    cls = getattr(hyperrl.policies, name)
    said = documented(cls)
    assert list(said) == list(inspect.signature(cls).parameters)
    assert all(said.values())
    assert said["context_slice"] == documented(ContextPolicy)["context_slice"]
    if issubclass(cls, GeneratedPolicy):
        for option, text in documented(HyperConfig).items():
            assert said[option] == text


def test_classes_of_users_pass_keyword_arguments_on() -> None:
    class Own(HyperPolicy):
        def __init__(self, *args: Any, temperature: float = 1.0, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.temperature = temperature

    space = spaces.Dict(observation=spaces.Box(-1, 1, (3,)), context=spaces.Box(-1, 1, (2,)))
    actions = spaces.Box(-1, 1, (1,))
    policy = Own(space, actions, lambda _: 1e-3, [8], temperature=2.0, head="full")
    assert (policy.temperature, policy.net_arch, policy.hyper_config.head) == (2.0, [8], "full")
    assert isinstance(policy.actor.head, HEADS["full"])
    with pytest.raises(ValueError, match=r"Own knows no 'haed'.* Did you mean 'head'"):
        Own(space, actions, lambda _: 1e-3, haed="full")

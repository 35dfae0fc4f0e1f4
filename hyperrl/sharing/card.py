"""The page about a shared agent, with the head that the Hugging Face Hub reads."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hyperrl.contexts import show_range
from hyperrl.sharing.config import AgentConfig


def card_of(config: AgentConfig, folder: str) -> str:
    """Return the model card of an agent, in Markdown.

    :param folder: what the agent's folder is called, for the example.
    """
    return "\n".join((*_head(config), *_page(config, folder))) + "\n"


def _head(config: AgentConfig) -> Iterator[str]:
    """Yield the lines of YAML; texts are quoted as in JSON, which is YAML too."""
    training = config.training
    yield "---"
    yield "library_name: hyperrl"
    yield "pipeline_tag: reinforcement-learning"
    yield "tags:"
    for tag in (
        "reinforcement-learning",
        "hyperrl",
        "stable-baselines3",
        training.family,
        _algorithm(config),
    ):
        yield f"- {json.dumps(tag)}"
    if config.scores:
        yield "model-index:"
        yield f"- name: {json.dumps(f'{training.family}/{training.agent}')}"
        yield "  results:"
        for split, scores in config.scores.items():
            yield "  - task: {type: reinforcement-learning, name: reinforcement-learning}"
            family, name = json.dumps(training.family), json.dumps(f"{training.family}, {split}")
            yield f"    dataset: {{type: {family}, name: {name}}}"
            yield "    metrics:"
            yield f"    - {{type: mean_reward, name: mean return, value: {scores.mean:.6g}}}"
            if scores.score is not None:
                yield f"    - {{type: iqm_score, name: interquartile mean of scores, value: {scores.score.value:.6g}}}"
    yield "---"


def _algorithm(config: AgentConfig) -> str:
    """Return the recipe's algorithm, which loading makes; a training on a device has another as its model's class."""
    return str(config.recipe["algorithm"]).rpartition(":")[2]


def _page(config: AgentConfig, folder: str) -> Iterator[str]:
    training, model = config.training, config.result.model
    yield ""
    yield f"# {training.agent} on {training.family}"
    yield ""
    yield (
        f"A reinforcement-learning agent for the whole family of environments `{training.family}`, whose *context* "
        f"varies: {_algorithm(config)} of Stable-Baselines3 with `{model.policy}` of hyperrl, {model.parameters:,} "
        "parameters. Loading it executes nothing that its files hold."
    )
    yield ""
    yield "```python"
    yield "import hyperrl"
    yield ""
    yield f"model = hyperrl.load_agent({json.dumps(folder, ensure_ascii=False)})  # this folder, or hf:user/repo"
    yield f"family = hyperrl.load_family({json.dumps(training.family)})"
    yield "report = hyperrl.evaluate(model, family)"
    yield "```"
    yield ""
    yield "## Context"
    yield ""
    yield "| feature | unit | default | training range | bounds |"
    yield "| --- | --- | --- | --- | --- |"
    for feature in config.features:
        ranges = (show_range(feature.train), show_range(feature.bounds))
        yield f"| {feature.name} | {feature.unit} | {feature.default:g} | {ranges[0]} | {ranges[1]} |"
    yield ""
    yield "## Training"
    yield ""
    yield (
        f"{model.steps or training.steps:,} environment steps with seed {training.seed}, by the recipe "
        f"`{training.agent}`: `config.json` has all of it. Versions: "
        f"{', '.join(f'{library} {version}' for library, version in config.versions.items())}."
    )
    for table, what in {"hyperparameters": "Hyperparameters", "policy_kwargs": "Arguments of the policy"}.items():
        told = {name: value for name, value in config.recipe.get(table, {}).items() if value is not None}
        if told:
            yield ""
            values = ", ".join(f"`{name}` {json.dumps(value, ensure_ascii=False)}" for name, value in told.items())
            yield f"{what}: {values}."
    if config.scores:
        yield ""
        yield "## Evaluation"
        yield ""
        yield "| split | contexts | episodes in each | mean return | return, IQM | score, IQM |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for split, scores in config.scores.items():
            score = "–" if scores.score is None else str(scores.score)
            yield (f"| {split} | {scores.contexts} | {scores.episodes} | {scores.mean:.1f} | {scores.iqm} | {score} |")
        yield ""
        yield (
            "IQM: interquartile mean over contexts, with a 95 % interval over episodes, not over training seeds. "
            "Score: 0 is random actions, 1 a specialist of the context, where there is one to compare with. Split: "
            "`train`, the training range; `interpolation`, evenly spread inside it; `extrapolation`, outside it, "
            "inside the bounds."
        )

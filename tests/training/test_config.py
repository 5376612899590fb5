"""Settings of the recipes: every field is checked, has a help, and is read."""

from __future__ import annotations

import ast
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest

from routelearn.routers.errors import InputError
from routelearn.training.bert.config import BertConfig
from routelearn.training.config import Config, name_list, number, one_of, ranges_of, settings_of, whole
from routelearn.training.frozen.config import FrozenConfig
from routelearn.training.matrix_factorization.config import MatrixFactorizationConfig
from routelearn.training.similarity.config import SimilarityConfig
from routelearn.training.verifier.config import VerifierConfig

TRAINING = Path(__file__).resolve().parents[2] / "training"
CONFIGS = {
    "matrix_factorization": MatrixFactorizationConfig,
    "similarity": SimilarityConfig,
    "bert": BertConfig,
    "frozen": FrozenConfig,
    "verifier": VerifierConfig,
}
#: Modules outside its folder that read settings of a recipe.
SHARED = {
    "matrix_factorization": ["pipeline.py", "static_recipe.py"],
    "similarity": ["pipeline.py", "static_recipe.py"],
    "bert": ["pipeline.py", "transformer_recipe.py", "encoders/finetune.py"],
    "frozen": ["pipeline.py", "transformer_recipe.py"],
    "verifier": ["encoders/finetune.py"],
}
#: A value of every setting that is out of its range.
OUT_OF_RANGE: dict[str, Any] = {
    "strong": "",
    "weak": 3,
    "models": [],
    "encoder": "",
    "general": "",
    "few_labels": 1,
    "folds": 1,
    "max_tokens": 7,
    "seed": -1,
    "strong_share": 1.01,
    "link": "logit",
    "dimensions": 7,
    "rank": 0,
    "l2": 0.0,
    "path_steps": 2.5,
    "patience": True,
    "tasks": 1,
    "finetune_epochs": -1,
    "method": "cosine",
    "name_records": "everything",
    "index_size": 15,
    "tiers": 51,
    "precision": "int4",
    "quantise": "int4",
    "epochs": -1,
    "batch_size": 0,
    "learning_rate": 1.0,
    "head_learning_rate": 0.0,
    "weight_decay": -0.1,
    "probe": "yes",
    "dropout": 1.0,
    "frozen_share": 1.0,
    "lora_rank": -1,
    "evaluations": 0,
    "resume": 1,
    "layers": 0,
    "last_share": 1.01,
    "landmarks": 7,
    "kernel_scale": 0.0,
    "vectors": "",
    "escalation_rate": -0.1,
    "good_at": 0.0,
    "query_tokens": 0,
    "features": ("colour",),
}
EACH = [(config, item.name) for config in CONFIGS.values() for item in fields(config)]


@pytest.mark.parametrize(("config", "name"), EACH)
def test_a_setting_out_of_range_says_what_was_given_and_what_was_expected(config: type[Config], name: str) -> None:
    value = OUT_OF_RANGE[name]
    with pytest.raises(InputError) as refused:
        config(**{name: value})
    assert str(refused.value) == f"{name} is {value!r}; expected {ranges_of(config)[name].expected}"


@pytest.mark.parametrize(("config", "name"), EACH)
def test_every_setting_has_a_help_that_is_a_sentence(config: type[Config], name: str) -> None:
    found = {item.name: item for item in settings_of(config)}[name]
    assert found.summary[0].isupper()
    assert found.summary.endswith(".")
    assert len(found.summary) < 90
    assert isinstance(found.default, type(getattr(config(), name)))


def attributes_read(*files: Path) -> set[str]:
    """Names of all attributes that these modules read of something called config."""
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    return {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "config"
    }


@pytest.mark.parametrize(("recipe", "config"), CONFIGS.items())
def test_every_setting_is_read_by_its_recipe(recipe: str, config: type[Config]) -> None:
    shared = [TRAINING / name for name in SHARED[recipe]]
    read = attributes_read(*shared, *(TRAINING / recipe).glob("*.py"))
    assert {item.name for item in fields(config)} <= read


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (
            MatrixFactorizationConfig,
            {"strong": "a", "weak": "a"},
            "strong and weak are both 'a'; expected two different",
        ),
        (MatrixFactorizationConfig, {"models": ("a", "b"), "weak": "c"}, "weak is 'c'; expected one of the models"),
        (
            MatrixFactorizationConfig,
            {"l2": 1.0, "path_steps": 9},
            "path_steps is 9, but it has no effect when l2 is given",
        ),
        (MatrixFactorizationConfig, {"l2": 1.0, "patience": 9}, "patience is 9, .* expected its default, 3"),
        (
            VerifierConfig,
            {"query_tokens": 250},
            "query_tokens is 250; expected fewer than 248, since max_tokens is 256",
        ),
        (
            SimilarityConfig,
            {"tiers": 9},
            "tiers is 9, but it has no effect with the method 'kernel'; expected its default, 10",
        ),
    ],
)
def test_settings_that_contradict_each_other_or_do_nothing_are_refused(
    config: type[Config], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        config(**settings)


@pytest.mark.parametrize(
    ("config", "ignored"),
    [
        (BertConfig, ("landmarks", "kernel_scale", "vectors")),
        (FrozenConfig, ("epochs", "batch_size", "learning_rate", "dropout", "frozen_share", "lora_rank", "resume")),
        (VerifierConfig, ("layers", "last_share", "landmarks", "kernel_scale", "vectors", "link", "strong_share")),
    ],
)
def test_settings_of_another_recipe_are_not_accepted(config: type[Config], ignored: tuple[str, ...]) -> None:
    for name in ignored:
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            config(**{name: 1})


def test_a_range_says_in_words_what_it_accepts() -> None:
    assert whole(1).expected == "a whole number from 1"
    assert whole(8, 9).expected == "a whole number from 8 to 9"
    assert number(least=0, most=1).expected == "a number from 0 to 1"
    assert number(above=0, below=1).expected == "a number above 0 and below 1"
    assert number(above=0, most=9).expected == "a number above 0 and at most 9"
    assert one_of("a", "b").or_none().expected == "one of 'a', 'b', or None"
    assert not number().fits(float("nan"))
    assert not name_list(among=("a", "b")).fits(["c"])
    assert not name_list().fits("ab")


def test_another_default_keeps_range_and_help() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Quicker(MatrixFactorizationConfig):
        rank: int = 4

    assert Quicker().rank == 4
    assert {item.name: item for item in settings_of(Quicker)}["rank"].help == "Largest rank of the factors."
    with pytest.raises(InputError, match="rank is 0; expected a whole number from 1"):
        Quicker(rank=0)


def test_a_setting_without_a_range_is_a_mistake_of_the_programmer() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Careless(Config):
        colour: Annotated[str, "blue"] = "red"

    with pytest.raises(TypeError, match=r"Careless states no range for \['colour'\]"):
        Careless()

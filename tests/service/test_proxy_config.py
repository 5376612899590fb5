"""The configuration that `routelearn litellm-config` writes, without LiteLLM; test_litellm_guide.py runs it."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import yaml

from routelearn.routers.errors import InputError
from routelearn.service.litellm.proxy_config import Affinity, Upstream, proxy_config
from routelearn.service.litellm.settings import Plugins

STRONG, WEAK = Upstream("sim-max", "openai/gpt-4o"), Upstream("sim-small", "anthropic/claude-haiku-4-5")


def written(*arguments: Any) -> Any:
    return yaml.safe_load(proxy_config(*(arguments or ("/bundles/router", STRONG, WEAK))))


def entries(config: Any) -> dict[str, dict[str, Any]]:
    return {entry["model_name"]: entry["litellm_params"] for entry in config["model_list"]}


def test_the_classifier_sits_in_the_seat_of_auto_and_strong_is_the_safe_answer() -> None:
    auto = entries(written())["auto"]
    assert auto["model"] == "auto_router/complexity_router"
    settings = auto["complexity_router_config"]
    assert (settings["classifier_type"], settings["tiers"]) == ("custom", {"SIMPLE": "weak", "COMPLEX": "strong"})
    assert settings["classifier_plugin"] == "routelearn.service.litellm.classifier_plugin"
    assert (settings["classifier_fallback"], settings["default_model"]) == ("default_model", "strong")


def test_the_objects_that_it_names_exist_and_the_variables_build_them() -> None:
    config = written("general", STRONG, WEAK)
    named = [config["litellm_settings"]["callbacks"][0], entries(config)["auto"]["complexity_router_config"]]
    assert [named[0], named[1]["classifier_plugin"]] == [
        f"routelearn.service.litellm.{name}" for name in ("hook", "classifier_plugin")
    ]
    gateway = Plugins(config["environment_variables"]).gateway
    assert [gateway.name(gateway.router.strong), gateway.name(gateway.router.weak)] == ["strong", "weak"]
    assert (gateway.router.strong, gateway.router.weak) == ("sim-max", "sim-small")
    gateway.close()


def test_keys_come_from_the_environment_by_the_provider() -> None:
    models = entries(written())
    assert models["strong"] == {"model": "openai/gpt-4o", "api_key": "os.environ/OPENAI_API_KEY"}
    assert models["weak"] == {"model": "anthropic/claude-haiku-4-5", "api_key": "os.environ/ANTHROPIC_API_KEY"}
    assert written()["general_settings"] == {"master_key": "os.environ/LITELLM_MASTER_KEY"}


def test_a_model_of_ones_own_has_its_url_and_its_key() -> None:
    own = Upstream("sim-small", "hosted_vllm/qwen", "http://gpu:8000/v1", "VLLM_KEY")
    found = entries(written("router", STRONG, own))["weak"]
    assert found == {"model": "hosted_vllm/qwen", "api_base": "http://gpu:8000/v1", "api_key": "os.environ/VLLM_KEY"}


def test_a_provider_without_a_key_variable_that_is_known_gets_none() -> None:
    assert entries(written("router", STRONG, Upstream("b", "ollama/llama3")))["weak"] == {"model": "ollama/llama3"}


@pytest.mark.parametrize("affinity", get_args(Affinity))
def test_each_affinity_is_one_setting(affinity: Affinity) -> None:
    settings = entries(written("router", STRONG, WEAK, affinity))["auto"]["complexity_router_config"]
    names = ("classification_mode", "session_affinity", "cache_aware_routing")
    expected = {
        "turn": {"classification_mode": "user_turn"},
        "session": {"session_affinity": True},
        "cache": {"cache_aware_routing": True},
        "none": {"classification_mode": "every_request"},
    }
    assert {name: settings[name] for name in names if name in settings} == expected[affinity]


@pytest.mark.parametrize("folder", ["/my bundles/a: b #1", "/söme/路由\U0001f642", 'C:\\router "x"', "/it's/{a}"])
def test_any_path_survives(folder: str) -> None:
    assert written(folder, STRONG, WEAK)["environment_variables"]["ROUTELEARN_ROUTER"] == folder


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("a", "gpt-4o"), "has no provider; expected PROVIDER/MODEL"),
        (("a", "openai/"), "has no provider"),
        (("a=b", "openai/x"), "without a comma or '='"),
        (("", "openai/x"), "without a comma or '='"),
        (("a", "openai/x", None, "MY KEY"), "the variable of an API key is 'MY KEY'"),
    ],
)
def test_a_model_that_cannot_be_written_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Upstream(*given)


def test_strong_and_weak_must_be_two_models() -> None:
    with pytest.raises(InputError, match="strong and weak are both 'sim-max'"):
        proxy_config("router", STRONG, Upstream("sim-max", "openai/gpt-4o-mini"))

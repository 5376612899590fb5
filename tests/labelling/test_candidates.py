"""models.toml: what it may say, and which errors it gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from routelearn.labelling import Candidate, read_candidates
from routelearn.routers.errors import InputError

TOML = """
[[models]]
name = "gpt-5:high"
input_price = 1.25
cached_input_price = 0.125
output_price = 10
requests_per_minute = 500
[models.parameters]
max_completion_tokens = 900

[[models]]
name = "llama3:8b"
base_url = "http://localhost:11434/v1"
api_key_env = ""
"""


def _write(folder: Path, text: str, name: str = "models.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_name_with_an_effort_is_a_variant_and_another_colon_is_part_of_the_name(tmp_path: Path) -> None:
    high, llama = read_candidates(_write(tmp_path, TOML))
    assert (high.served_as, high.options) == ("gpt-5", {"reasoning_effort": "high", "max_completion_tokens": 900})
    assert (llama.served_as, llama.options) == ("llama3:8b", {})
    assert high.most_output_tokens == 900
    assert llama.most_output_tokens is None


def test_the_same_file_as_json_and_a_choice_of_models(tmp_path: Path) -> None:
    path = _write(tmp_path, json.dumps([{"name": "a"}, {"name": "b", "model": "c:high"}]), "models.json")
    (only,) = read_candidates(path, ["b"])
    assert (only.name, only.served_as, only.options) == ("b", "c:high", {})


def test_cached_tokens_cost_their_own_price_and_an_unknown_price_makes_no_cost() -> None:
    one = Candidate(name="m", input_price=2.0, cached_input_price=0.5, output_price=8.0)
    assert one.cost(1_000_000, 1_000_000, 400_000) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 8)
    assert Candidate(name="m", input_price=2.0, output_price=8.0).cost(100, 0, 100) == pytest.approx(2e-4)
    assert Candidate(name="m", input_price=2.0).cost(1, 1) is None


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    assert Candidate(name="m", api_key_env="MY_KEY").key() == "secret"
    assert Candidate(name="m", api_key_env="").key() == "none"
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(InputError, match=r"MY_KEY is not set.*'m'"):
        Candidate(name="m", api_key_env="MY_KEY").key()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('name = ""', "name of model '' is ''"),
        ('name = "m"\ninput_price = -1', "input_price of model 'm' is -1"),
        ('name = "m"\noutput_price = "3"', "output_price of model 'm' is '3'"),
        ('name = "m"\noutput_price = nan', "output_price of model 'm' is nan"),
        ('name = "m"\nconcurrency = 0', "concurrency of model 'm' is 0"),
        ('name = "m"\nconcurrency = 1.5', "concurrency of model 'm' is 1.5"),
        ('name = "m"\ntimeout_s = 0', "timeout_s of model 'm' is 0"),
        ('name = "m"\nrequests_per_minute = 0', "requests_per_minute of model 'm' is 0"),
        ('name = "m"\nbase_url = ""', "base_url of model 'm' is ''"),
        ('name = "m"\nparameters = {model = "x"}', "parameters of model 'm'"),
        ('name = "m"\nprice = 3', "fields \\['price'\\]; expected fields among"),
        ('model = "m"', "model 1 has no name"),
        ('name = "m"\n[[models]]\nname = "m"', "two models 'm'"),
    ],
)
def test_an_error_names_the_file_the_model_and_the_field(tmp_path: Path, entry: str, said: str) -> None:
    path = _write(tmp_path, f"[[models]]\n{entry}\n")
    with pytest.raises(InputError, match=said) as error:
        read_candidates(path)
    assert str(path) in str(error.value)


def test_files_without_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_candidates(tmp_path / "none.toml")
    with pytest.raises(InputError, match="has no models"):
        read_candidates(_write(tmp_path, "a = 1"))
    with pytest.raises(InputError, match="cannot be read"):
        read_candidates(_write(tmp_path, "[[models"))
    with pytest.raises(InputError, match=r"has no models \['x'\]"):
        read_candidates(_write(tmp_path, TOML), ["x"])

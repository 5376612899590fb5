"""What LiteLLM's own cost map says of models, read in the environments of both versions."""

from __future__ import annotations

import json
import subprocess

import pytest
from helpers.litellm_proxy import VERSIONS, environment, python_of

pytestmark = pytest.mark.slow

CODE = """
import json
from routelearn.service.litellm.cost_map import known_model
names = {"small": "openai/gpt-4o-mini", "old": "gpt-3.5-turbo", "none": "no-such-model"}
found = {name: known_model(name, served_as=served) for name, served in names.items()}
print(json.dumps({name: None if model is None else model.as_dict() for name, model in found.items()}))
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_prices_windows_and_abilities_come_from_the_cost_map(version: str) -> None:
    done = subprocess.run(
        [str(python_of(version)), "-c", CODE], env=environment(), capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    small = found["small"]
    assert (small["input_price"], small["cached_input_price"], small["output_price"]) == (0.15, 0.075, 0.6)
    assert (small["max_input_tokens"], small["vision"], small["audio"]) == (128_000, True, False)
    assert (found["old"]["vision"], found["old"]["tools"], found["old"]["json_schema"]) == (False, True, False)
    assert found["none"] is None

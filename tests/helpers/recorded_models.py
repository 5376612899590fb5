"""Models that answer as recorded ones did, and a file of them for `collect` and `build`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from helpers.flaky_models import FlakyModels


@dataclass
class RecordedModels(FlakyModels):
    """Answers by model and prompt.

    Attributes:
        recorded: the answers.
    """

    recorded: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def reply(self, model: str, prompt: str) -> str:
        return self.recorded[model][prompt]

    def write_models(self, path: Path, prices: Mapping[str, tuple[float, float]]) -> Path:
        """Write models.toml with input and output prices."""
        path.write_text(
            "\n".join(
                f'[[models]]\nname = "{name}"\nbase_url = "{self.url}"\napi_key_env = ""\ninput_price = {read}\n'
                f"output_price = {written}\n"
                for name, (read, written) in prices.items()
            )
        )
        return path

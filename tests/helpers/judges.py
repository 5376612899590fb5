"""A judge for tests: what it reads, taken apart, and a server that answers with verdicts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from routelearn.labelling import Candidate, ModelAnswer, Prompt

_PART = re.compile(r"^===== ([0-9a-f]{12}) ([\w ]+?) =====\n(.*?)\n===== \1 end of \2 =====$", re.DOTALL | re.MULTILINE)


def parts_of(prompt: str) -> dict[str, str]:
    """The question, the answers and the reference that a judge reads, by name."""
    return {name: text for _, name, text in _PART.findall(prompt)}


def judge_by(better: Callable[[str, str], float]) -> Callable[[str], str]:
    """What a judge writes that knows the preference for the first of two answers."""

    def reply(prompt: str) -> str:
        parts = parts_of(prompt)
        preference = better(parts["answer A"], parts["answer B"])
        return f"I have compared the answers.\n\n[[{ {1.0: 'A', 0.5: 'C', 0.0: 'B'}[preference] }]]"

    return reply


def longer(first: str, second: str) -> float:
    """The preference of a judge that likes long answers."""
    return 0.5 if len(first) == len(second) else float(len(first) > len(second))


def judge_at(url: str, name: str = "judge-x", **settings: object) -> Candidate:
    """A judge at the server of a test."""
    return Candidate(
        name=name,
        base_url=url,
        api_key_env="",
        input_price=1.0,
        output_price=2.0,
        **settings,  # type: ignore[arg-type]
    )


def judges_toml(folder: Path, url: str, *names: str) -> Path:
    """A file of judges at the server of a test."""
    path = folder / "judges.toml"
    path.write_text(
        "\n".join(
            f'[[models]]\nname = "{name}"\nbase_url = "{url}"\napi_key_env = ""\n'
            "input_price = 1.0\noutput_price = 2.0\n"
            for name in names or ("judge-x",)
        )
    )
    return path


def answers_of(texts: Mapping[str, Sequence[str]], **of_prompt: object) -> list[ModelAnswer]:
    """The answers of each model to question 0, 1, ..."""
    count = len(next(iter(texts.values())))
    return [
        ModelAnswer(
            prompt=Prompt(query=f"Question {row}?", **of_prompt),  # type: ignore[arg-type]
            model=model,
            response=responses[row],
            status="ok" if responses[row] else "empty",
            cost_usd=0.001,
        )
        for row in range(count)
        for model, responses in texts.items()
    ]

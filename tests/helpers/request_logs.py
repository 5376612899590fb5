"""Lines of request logs and decision logs, for the tests of `data from-log`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from routelearn import Decision
from routelearn.monitoring import DecisionLog


def call(
    text: str = "Hi", model: str = "m", *, at: float | None = None, answer: str = "Yes", **more: Any
) -> dict[str, Any]:
    response = {"choices": [{"message": {"role": "assistant", "content": answer}}]}
    request = {"model": model, "messages": [{"role": "user", "content": text}]}
    return {"request": request, "response": response, **({} if at is None else {"time": at}), **more}


def log_of(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def decide(log: DecisionLog, query: Any, model: str, propensity: float = 1.0, id: str | None = None) -> str:
    decision = Decision(model, 0.5, 0.5, (model,), "learned", "threshold", propensity=propensity)
    return log.write(query, decision, id=id)

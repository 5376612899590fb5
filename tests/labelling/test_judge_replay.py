"""The judge on recorded verdicts of AlpacaEval, which a local server replays: no network, and answers that are real."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.judges import judge_at, parts_of
from helpers.openai_server import OpenAIServer

from routelearn.labelling import JudgeSettings, ModelAnswer, Prompt, judge_answers
from routelearn.labelling.pairwise import order_effect, preference_of

pytestmark = pytest.mark.slow  # each test starts a server
BASELINE = "gpt4_1106_preview"
#: Preference for the answer of a model over that of the baseline, by the question and both answers.
Recorded = dict[tuple[str, str, str], float]


def read(real_data: Path, judge: str, models: int, prompts: int) -> tuple[list[ModelAnswer], Recorded]:
    """The answers of some models and of the baseline, and what the judge said of them."""
    pandas = pytest.importorskip("pandas")
    folder = real_data / "alpaca_eval"
    verdicts = pandas.read_parquet(folder / "preferences.parquet").astype({"model_a": str, "prompt": str})
    texts = pandas.read_parquet(folder / "responses.parquet").astype({"model": str, "prompt": str})
    response = {(row.prompt, row.model): row.response for row in texts.itertuples()}
    kept = verdicts[
        (verdicts.judge == judge) & (verdicts.model_b == BASELINE) & verdicts.model_a.isin(set(texts.model))
    ]
    answers: dict[tuple[str, str], ModelAnswer] = {}
    recorded: Recorded = {}
    names = sorted(kept.model_a.unique())[:models]
    chosen = set(kept.prompt.unique()[:prompts])
    for row in kept[kept.model_a.isin(names) & kept.prompt.isin(chosen)].itertuples():
        both = [response.get((row.prompt, name)) for name in (row.model_a, BASELINE)]
        if None in both or both[0].strip() == both[1].strip():
            continue
        for name, text in zip((row.model_a, BASELINE), both, strict=True):
            answers[row.prompt, name] = ModelAnswer(prompt=Prompt(query=row.prompt), model=name, response=text)
        recorded[row.prompt, both[0], both[1]] = float(row.preference)
    return list(answers.values()), recorded


def replay(recorded: Recorded, biased: Callable[[str], bool] = lambda _: False) -> Callable[[str], str]:
    """A judge that says what is recorded, whichever answer stands first; of some pairs it prefers the first answer."""

    def reply(prompt: str) -> str:
        parts = parts_of(prompt)
        question, first, second = parts["question"], parts["answer A"], parts["answer B"]
        known = recorded.get((question, first, second))
        preference = 1 - recorded[question, second, first] if known is None else known
        if biased("".join(sorted((question, first, second)))):
            preference = 1.0
        verdict = "C" if preference == 0.5 else "A" if preference > 0.5 else "B"
        return f"[[B]] or [[A]]? I quote the first answer:\n{first}\n\nVerdict: [[{verdict}]]"

    return reply


def key(record: object) -> tuple[str, str, str]:
    return record.query, record.response_a, record.response_b  # type: ignore[attr-defined]


def test_labels_equal_the_recorded_verdicts(real_data: Path, tmp_path: Path) -> None:
    answers, recorded = read(real_data, "gpt-4-1106-preview (cot fn)", models=2, prompts=200)
    with OpenAIServer(answer=replay(recorded)) as server:
        models = [(name, BASELINE) for name in sorted({answer.model for answer in answers}) if name != BASELINE]
        done = judge_answers(
            answers, [judge_at(server.url)], tmp_path / "records.parquet", JudgeSettings(models=models)
        )
        assert server.counts.calls == 2 * len(recorded)
    assert len(recorded) > 350
    assert {key(record): record.preference for record in done.records} == recorded
    assert (done.unlabelled, done.judges[0].asked_again) == (0, 0)
    report = done.judges[0].order
    assert report is not None
    assert (report.agreed, report.position_bias) == (1.0, 0.0)


def test_ratings_equal_the_recorded_probabilities(real_data: Path, tmp_path: Path) -> None:
    answers, recorded = read(real_data, "gpt-4-1106-preview (weighted logprob)", models=1, prompts=300)
    of_answer = {(question, answer): value for (question, answer, _), value in recorded.items()}
    rated = [answer for answer in answers if answer.model != BASELINE]

    def reply(prompt: str) -> str:
        parts = parts_of(prompt)
        return f"Reasons.\n\n**Rating: {1 + 9 * of_answer[parts['question'], parts['answer']]:.9f}/10**"

    with OpenAIServer(answer=reply) as server:
        done = judge_answers(rated, [judge_at(server.url)], tmp_path / "records.parquet", JudgeSettings(method="scale"))
    assert len(done.records) == len(rated) > 250
    for record in done.records:
        assert record.score == pytest.approx(of_answer[record.query, record.response], abs=1e-9)


def test_a_judge_that_prefers_the_first_answer_in_30_percent_of_the_pairs(real_data: Path, tmp_path: Path) -> None:
    answers, recorded = read(real_data, "gpt-4-1106-preview (weighted logprob)", models=8, prompts=150)

    def biased(pair: str) -> bool:
        return hashlib.sha256(pair.encode()).digest()[0] < 0.3 * 256

    with OpenAIServer(answer=replay(recorded, biased)) as server:
        names = sorted({answer.model for answer in answers} - {BASELINE})
        models = [(name, BASELINE) for name in names]
        done = judge_answers(
            answers, [judge_at(server.url, concurrency=32)], tmp_path / "r.jsonl", JudgeSettings(models=models)
        )
    report = done.judges[0].order
    assert report is not None
    low, high = report.interval
    assert low < 0.3 < high
    assert high - low < 0.08
    assert report.agreed == pytest.approx(1 - report.position_bias)

    truth = {name: [] for name in names}
    found = {name: [] for name in names}
    for record in done.records:
        truth[record.model_a].append(float(np.sign(recorded[key(record)] - 0.5) / 2 + 0.5))
        found[record.model_a].append(record.preference)
    means = [(np.mean(truth[name]), np.mean(found[name])) for name in names]
    # Models that 150 prompts can tell apart, of which 30 % are ties now, keep their places: two standard errors.
    for one, ours in means:
        for other, theirs in means:
            assert one - other < 0.08 or ours > theirs
    # A tie in 30 % of the pairs draws each mean that far towards one half; 0.06 is three standard errors.
    for true, found_mean in means:
        assert found_mean == pytest.approx(0.7 * true + 0.15, abs=0.06)


def test_the_ranking_of_all_models_survives_a_judge_with_a_position_bias(real_data: Path) -> None:
    pandas = pytest.importorskip("pandas")
    verdicts = pandas.read_parquet(real_data / "alpaca_eval" / "preferences.parquet")
    verdicts = verdicts[verdicts.model_b == "text_davinci_003"].drop_duplicates(["prompt", "model_a"])
    truth = np.sign(verdicts.preference.to_numpy() - 0.5) / 2 + 0.5
    first = np.random.default_rng(0).random(len(truth)) < 0.3
    both = [(1.0, 1.0) if always else (float(a), float(1 - a)) for a, always in zip(truth, first, strict=True)]
    labels = [preference_of(*orders) for orders in both]
    table = pandas.DataFrame({"model": verdicts.model_a.astype(str).to_numpy(), "truth": truth, "label": labels})
    means = table.groupby("model").mean()
    assert len(means) > 50
    assert means.corr(method="spearman").loc["truth", "label"] > 0.97
    effect = order_effect(list(verdicts.prompt.astype(str)), both)
    assert effect is not None
    assert effect.position_bias == pytest.approx(float(first.mean()))

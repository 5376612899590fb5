"""The verifier: what it learns from, what it reads of an answer, its bundle, thresholds from unseen answers."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_tokenizer, verifier_config
from helpers.watched_config import watched
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from routelearn.cascade.backends import Answer
from routelearn.cascade.cascade import Cascade
from routelearn.cascade.confidence import Ask, Estimate, Joint, PriorConfidence
from routelearn.cascade.tiers import Tier
from routelearn.cascade.verifier import FEATURES, PairEncoder, Verifier, feature_rows, load_verifier
from routelearn.cli.main import app
from routelearn.data.records import PerformanceRecord, PreferenceRecord, record_key
from routelearn.data.sample import POOL, Sample
from routelearn.data.writers import write_records
from routelearn.routers.bundle import Truncation, read_manifest
from routelearn.routers.decision import Model
from routelearn.routers.errors import BundleCorruptError, GoldenScoreError, InputError, LeakError
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.routers.query import Query
from routelearn.training.encoders import finetune as finetuning
from routelearn.training.examples import Examples
from routelearn.training.fit.metrics import auroc
from routelearn.training.verifier import stacking as stack
from routelearn.training.verifier import train as verifier_training
from routelearn.training.verifier.config import VerifierConfig
from routelearn.training.verifier.job import held_out
from routelearn.training.verifier.judged_answers import answer_examples, judged_answers
from routelearn.training.verifier.stacking import Stack, cross_fitted, escalation_table, fit_stack
from routelearn.training.verifier.train import train_verifier


@pytest.fixture(scope="session")
def verifier(verifier_bundle: Path) -> Verifier:
    return load_verifier(verifier_bundle)


@pytest.fixture(scope="session")
def answered(tested: list[PerformanceRecord]) -> list[PerformanceRecord]:
    return [record for record in tested if record.model == "sim-small"]


def test_the_verifier_tells_good_answers_from_bad_ones(verifier: Verifier, answered: list[PerformanceRecord]) -> None:
    confidence = verifier.confidence([r.query for r in answered], [r.response or "" for r in answered])
    assert confidence.dtype == np.float32
    assert auroc(confidence, np.asarray([r.score >= 0.5 for r in answered])) > 0.7


def test_its_confidence_is_calibrated_on_new_answers(verifier: Verifier, answered: list[PerformanceRecord]) -> None:
    confidence = verifier.confidence([r.query for r in answered], [r.response or "" for r in answered])
    assert float(confidence.mean()) == pytest.approx(np.mean([r.score for r in answered]), abs=0.08)


def test_the_escalation_rate_promised_holds_on_new_answers(
    verifier: Verifier, answered: list[PerformanceRecord]
) -> None:
    confidence = verifier.confidence([r.query for r in answered], [r.response or "" for r in answered])
    for rate in (0.2, 0.5):
        assert float((confidence < verifier.threshold_for(rate)).mean()) == pytest.approx(rate, abs=0.12)


def test_thresholds_never_come_from_the_answers_that_the_verifier_was_trained_on(
    tiny_bert: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels without any pattern: what a scorer memorises of its own training data must not show anywhere."""
    random = np.random.default_rng(0)
    noise = [
        replace(record, score=float(random.integers(2)), split=None)
        for record in sample.performances
        if record.model in {"sim-small", "sim-large"}
    ]
    trained_on: set[str] = set()
    judged_on: list[str] = []
    tables: list[np.ndarray] = []

    finetune = finetuning.finetune

    def finetuned(network: object, ids: object, examples: Examples, held: np.ndarray, *rest: object) -> None:
        trained_on.update(key for key, out in zip(keys_of(noise), held, strict=True) if not out)
        finetune(network, ids, examples, held, *rest)  # type: ignore[arg-type]

    def confidence(
        utilities: object, features: object, good: object, weight: object, keys: list[str], seed: int
    ) -> object:
        judged_on.extend(keys)
        return cross_fitted(utilities, features, good, weight, keys, seed)  # type: ignore[arg-type]

    def table(values: np.ndarray, steps: int = 20) -> object:
        tables.append(values)
        return escalation_table(values, steps)

    monkeypatch.setattr(finetuning, "finetune", finetuned)
    monkeypatch.setattr(verifier_training, "cross_fitted", confidence)
    monkeypatch.setattr(verifier_training, "escalation_table", table)
    config = verifier_config(tiny_bert, epochs=6, patience=100, weight_decay=0.0, dropout=0.0, frozen_share=0.0)
    path = train_verifier(noise, tmp_path / "v", config)
    steps = [json.loads(line) for line in (tmp_path / "v.training" / "metrics.jsonl").read_text().splitlines()]
    tuned = [step for step in steps if step["phase"] == "fine-tuning"]
    assert tuned[-1]["train_log_loss"] < tuned[-1]["validation_log_loss"] - 0.01  # it did memorise
    assert trained_on and judged_on and not trained_on & set(judged_on)
    assert [len(values) for values in tables] == [len(judged_on)]
    metrics = read_manifest(path).training["metrics"]
    assert abs(metrics["AUROC"] - 0.5) < 0.1
    assert metrics["held-out answers"] == len(judged_on)


def keys_of(records: list[PerformanceRecord]) -> list[str]:
    return [record_key(record) for record in records]


def test_cross_fitting_fits_without_the_prompt_that_it_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    keys = [str(i % 30) for i in range(120)]
    utilities = np.arange(120, dtype=np.float64)
    fitted: list[set[str]] = []

    def fit(values: np.ndarray, features: np.ndarray, good: np.ndarray, weight: np.ndarray) -> Stack:
        fitted.append({keys[int(value)] for value in values})
        return Stack(float(len(fitted)), (), 0.0)

    monkeypatch.setattr(stack, "fit_stack", fit)
    found = cross_fitted(utilities, np.zeros((120, 0), np.float32), random.random(120) < 0.5, np.ones(120), keys, 0)
    assert len(fitted) == 5
    assert np.isfinite(found).all()
    assert set.union(*fitted) == set(keys) and all(len(one) == 24 for one in fitted)


def test_answers_to_a_prompt_that_is_held_out_are_not_trained_on() -> None:
    records = [
        PerformanceRecord(f"q{i}", model, float((i + j) % 2), response="a", split="val" if j == 0 and i < 30 else None)
        for i in range(50)
        for j, model in enumerate(("m", "n"))
    ]
    answers = judged_answers(records, None, 0.5)
    rows, (fold,) = held_out(answer_examples(answers), answers, VerifierConfig())
    assert len(rows) == fold.sum() == 60
    trained = {a.key for a, held in zip(answers, fold, strict=True) if not held}
    assert not trained & {answers[int(row)].key for row in rows}


def test_thresholds_come_from_the_first_source_alone() -> None:
    records = [
        PerformanceRecord(f"{source} {i}", "m", float(i % 2), response="a", source=source)
        for source in ("own", "foreign")
        for i in range(200)
    ]
    answers = judged_answers(records, None, 0.5)
    rows, (fold,) = held_out(answer_examples(answers), answers, VerifierConfig())
    assert {answers[int(row)].source for row in rows} == {"own"}
    assert {a.source for a, held in zip(answers, fold, strict=True) if held} == {"own", "foreign"}


def test_the_size_of_the_weights_does_not_matter() -> None:
    random = np.random.default_rng(3)
    utilities = random.standard_normal(200)
    good = random.random(200) < 1 / (1 + np.exp(-utilities))
    features = np.zeros((200, 0), np.float32)
    one, small = (fit_stack(utilities, features, good, np.full(200, size)) for size in (1.0, 0.001))
    assert one.slope == pytest.approx(small.slope) and one.slope > 0.5


def test_an_unknown_model_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no record has a response of \['typo'\]; expected models among \['m'\]"):
        judged_answers([PerformanceRecord("q", "m", 1.0, response="a")], ["m", "typo"], 0.5)


def test_a_chat_keeps_its_newest_turn() -> None:
    pairs = pair_encoder(max_tokens=24, query_tokens=9)
    chat = (
        {"role": "user", "content": " ".join("abcdefghijklm")},
        {"role": "assistant", "content": "n o p"},
        {"role": "user", "content": "x y z"},
    )
    ids = pairs.encode([chat], [" ".join("q" * 30)])[0].tolist()
    question = pairs.encode(["x y z"], [""])[0].tolist()[1:4]
    end = ids.index(int(pairs.separator[0]))
    assert ids[end - 3 : end] == question


def test_a_cascade_without_a_router_refuses_a_verifier_that_needs_one() -> None:
    class ReadsPrior(PriorConfidence):
        async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
            return Estimate(1.0)

    tiers = [Tier(Model("a"), lambda query: "x", ReadsPrior()), Tier(Model("b"), lambda query: "y")]
    with pytest.raises(InputError, match="needs a router's score"):
        Cascade(tiers)


def test_features_that_mean_nothing_gain_nothing_when_cross_fitted() -> None:
    random = np.random.default_rng(1)
    utilities, features = random.standard_normal(300), random.standard_normal((300, 40)).astype(np.float32)
    good = random.random(300) < 0.5
    keys = [str(i) for i in range(300)]
    confidence = cross_fitted(utilities, features, good, np.ones(300), keys, 0)
    assert abs(auroc(confidence, good) - 0.5) < 0.12


def test_onnx_equals_torch(verifier_bundle: Path) -> None:
    training = read_manifest(verifier_bundle).training
    assert max(training["parity_batched"], training["parity_single"]) <= 1e-4


def test_int8_escalates_as_float32_does(tiny_bert: Path, sample: Sample, tmp_path: Path, verifier: Verifier) -> None:
    models = ("sim-small", "sim-large")
    config = verifier_config(tiny_bert, models=models, weak="sim-small", strong="sim-max", quantise="int8")
    path = train_verifier(sample.performances, tmp_path / "int8", config)
    assert read_manifest(path).training["flips"] <= 0.01
    rows = [r for r in sample.performances if r.model == "sim-small"][:200]
    texts = [r.query for r in rows], [r.response or "" for r in rows]
    difference = np.abs(load_verifier(path).confidence(*texts) - verifier.confidence(*texts)).max()
    assert 0 < difference < 0.05


def test_batch_and_single_agree_on_any_text(verifier: Verifier) -> None:
    answers = ["", "42", "I'm sorry, I cannot help.", "x" * 100_000, "مرحبا \u0000 🙂", "\ud800 lone", "so " * 300]
    queries = ["", "What is 6 * 7?", "q " * 5000, "🙂", ({"role": "user", "content": "hi"},), "a", "b"]
    together = verifier.confidence(queries, answers)
    alone = np.concatenate([verifier.confidence([q], [a]) for q, a in zip(queries, answers, strict=True)])
    assert np.isfinite(together).all() and ((together >= 0) & (together <= 1)).all()
    assert np.abs(together - alone).max() < 2e-6
    assert verifier.confidence([], []).shape == (0,)


def test_as_many_answers_as_queries_are_expected(verifier: Verifier) -> None:
    with pytest.raises(InputError, match="2 queries and 1 answers"):
        verifier.confidence(["a", "b"], ["c"])


def test_a_verifier_is_a_confidence_of_a_cascade(verifier: Verifier) -> None:
    async def ask(query: object) -> Answer:
        raise AssertionError("a verifier asks nobody")

    estimate = asyncio.run(verifier.estimate("How much is 2 + 2?", Answer("4"), ask))
    assert estimate.confidence == pytest.approx(float(verifier.confidence(["How much is 2 + 2?"], ["4"])[0]), abs=2e-6)
    assert estimate.answer is None


def test_the_joint_confidence_is_the_win_rate_over_what_strong_would_say(
    verifier: Verifier, router: LearnedRouter
) -> None:
    async def ask(query: object) -> Answer:
        raise AssertionError("nobody is asked")

    query = "How much is 2 + 2?"
    found = asyncio.run(Joint(verifier, router).estimate(query, Answer("4"), ask)).confidence
    quality = float(router.quality([query])[0, router.index(router.strong)])
    alone = float(verifier.confidence([query], ["4"])[0])
    assert found == pytest.approx(0.5 + (alone - quality) / 2, abs=1e-5)


SPECIAL = 3  # start, separator, separator


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_pair_keeps_the_querys_end_and_both_ends_of_the_answer(query_length: int, answer_length: int) -> None:
    pairs = pair_encoder(max_tokens=24, query_tokens=9)
    letters = [chr(97 + i % 26) for i in range(60)]
    query, answer = " ".join(letters[:query_length]), " ".join(letters[:answer_length])
    ids = pairs.encode([query], [answer])[0].tolist()
    assert len(ids) == min(24, query_length + answer_length + SPECIAL)
    first, second = [at for at, token in enumerate(ids) if token == int(pairs.separator[0])]
    kept_query, kept_answer = ids[1:first], ids[first + 1 : second]
    whole_query, whole_answer = pairs.encode([query], [""])[0], pairs.encode([""], [answer])[0]
    if query_length <= 21:
        assert kept_query == whole_query.tolist()[1:-2][len(whole_query) - 3 - len(kept_query) :]
    if query_length + answer_length + SPECIAL <= 24:
        assert (len(kept_query), len(kept_answer)) == (query_length, answer_length)
    else:
        assert len(kept_query) >= min(query_length, 9)
    if answer_length and kept_answer and answer_length <= 21:
        text = whole_answer.tolist()[2:-1]
        assert kept_answer[0] == text[0]
        if len(kept_answer) > 1:
            assert kept_answer[-1] == text[-1]


_ENCODERS: dict[tuple[int, int], PairEncoder] = {}


def pair_encoder(max_tokens: int, query_tokens: int) -> PairEncoder:
    from tokenizers import processors

    if (max_tokens, query_tokens) not in _ENCODERS:
        tokenizer = tiny_tokenizer("[CLS]", "[SEP]")
        tokens = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=tokens)
        truncation = Truncation(max_tokens=max_tokens)
        _ENCODERS[max_tokens, query_tokens] = PairEncoder.of(tokenizer.to_str().encode(), truncation, query_tokens)
    return _ENCODERS[max_tokens, query_tokens]


def test_a_tokenizer_without_start_and_end_is_refused() -> None:
    with pytest.raises(InputError, match="expected an encoder's tokenizer"):
        PairEncoder.of(tiny_tokenizer().to_str().encode(), Truncation(max_tokens=32), 8)


def test_features_see_refusals_hedges_and_answers_that_break_off() -> None:
    names = ("length", "refusal", "hedging", "numbers", "unfinished")
    refusal, hedge, cut, plain = feature_rows(
        names,
        [
            "I'm sorry, but I can't do that.",
            "It might be 7, but I'm not sure.",
            "The answer is then computed by",
            "It is 7.",
        ],
    )
    assert refusal[1] == 1 and hedge[1] == plain[1] == 0
    assert feature_rows(("refusal",), ["It serves as an aid to memory."])[0, 0] == 0
    assert hedge[2] > plain[2] == 0
    assert cut[4] == 1 and plain[4] == 0
    assert plain[3] > 0 and plain[0] < refusal[0]
    assert set(names) == set(FEATURES)


@given(st.text(max_size=300))
def test_every_feature_is_a_small_number_whatever_the_answer(answer: str) -> None:
    row = feature_rows(tuple(FEATURES), [answer])
    assert row.shape == (1, len(FEATURES)) and ((row >= 0) & (row <= 2)).all()


def test_both_answers_of_a_preference_are_judged_and_a_tie_is_good_enough() -> None:
    base = {"query": "q", "model_a": "a", "model_b": "b", "response_a": "x", "response_b": "y"}
    won, tied = (PreferenceRecord(preference=value, **base) for value in (1.0, 0.5))  # type: ignore[arg-type]
    assert [(j.model, j.good) for j in judged_answers([won, tied], None, 0.5)] == [
        ("a", True),
        ("b", False),
        ("a", True),
        ("b", True),
    ]


def test_records_without_responses_are_refused_by_name_of_the_column() -> None:
    with pytest.raises(InputError, match="expected a column response"):
        judged_answers([PerformanceRecord("q", "m", 1.0)], None, 0.5)


def test_too_few_held_out_answers_are_refused(tiny_bert: Path, sample: Sample, tmp_path: Path) -> None:
    few = [replace(r, split=None) for r in sample.performances if r.model == "sim-small"][:40]
    with pytest.raises(InputError, match="thresholds need at least"):
        train_verifier(few, tmp_path / "v", verifier_config(tiny_bert))


def test_a_prior_is_used_and_asked_for(
    tiny_bert: Path, sample: Sample, tmp_path: Path, router: LearnedRouter, answered: list[PerformanceRecord]
) -> None:
    config, read = watched(verifier_config(tiny_bert, models=("sim-small",), epochs=1))
    verifier = load_verifier(train_verifier(sample.performances, tmp_path / "v", config, prior=router))
    assert read == {item.name for item in fields(config)}  # no setting is accepted and ignored
    assert verifier.features[-1] == "prior"
    with pytest.raises(InputError, match="one prior for every answer"):
        verifier.confidence(["q"], ["a"])
    low, high = (float(verifier.confidence(["q"], ["a"], [prior])[0]) for prior in (0.3, 0.8))
    assert low > high  # the more strong is expected to win, the less is weak's answer trusted
    with pytest.raises(InputError, match="a prior is nan"):
        verifier.confidence(["q"], ["a"], [float("nan")])


def test_routers_and_verifiers_are_not_mistaken_for_each_other(bundle: Path, verifier_bundle: Path) -> None:
    with pytest.raises(InputError, match="not a verifier"):
        load_verifier(bundle)
    with pytest.raises(InputError, match="load_verifier"):
        load(verifier_bundle)


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json", "router.json"])
def test_a_changed_file_of_a_verifier_is_refused(verifier_bundle: Path, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(verifier_bundle, copy)
    data = bytearray((copy / file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / file).write_bytes(bytes(data))
    with pytest.raises((BundleCorruptError, GoldenScoreError)):
        load_verifier(copy)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_the_escalation_table_never_promises_less_than_it_escalates(confidence: list[float]) -> None:
    values = np.asarray(confidence)
    before = -1.0
    for rate, threshold in escalation_table(values):
        share = float((values < threshold).mean())
        assert share <= rate + 1e-9
        assert share >= before
        before = share


def test_train_verifier_and_cascade_plan_on_the_command_line(
    tiny_bert: Path, bundle: Path, sample: Sample, tmp_path: Path
) -> None:
    write_records(sample.performances, tmp_path / "data.parquet")
    settings = tmp_path / "settings.toml"
    settings.write_text("max_tokens = 96\nquery_tokens = 32\nprecision = 'float32'\n")
    pool = [{"name": m.name, "input_price": m.input_price, "output_price": m.output_price} for m in POOL]
    (tmp_path / "pool.json").write_text(json.dumps(pool))
    data, prices = ["--data", str(tmp_path / "data.parquet")], str(tmp_path / "pool.json")
    pair = ["--weak", "sim-small", "--strong", "sim-max"]
    training = ["--encoder", str(tiny_bert), "--epochs", "1", "--learning-rate", "0.002", "--config", str(settings)]
    names = ["train", "verifier", "--out", str(tmp_path / "v"), "--answers", "sim-small", "--pool", prices]
    run = CliRunner().invoke(app, [*names, *data, *pair, *training, "--dry-run"])
    assert run.exit_code == 0 and "answers of sim-small" in " ".join(run.output.split())
    assert not (tmp_path / "v").exists()
    run = CliRunner().invoke(app, [*names, *data, *pair, *training])
    assert run.exit_code == 0, run.output
    planned = ["cascade-plan", "--verifier", str(tmp_path / "v"), "--router", str(bundle)]
    tails = ["--latency", "sim-small=0.5/1.5", "--latency", "sim-max=2/6", "--max-latency", "9"]
    options = ["--prices", prices, "-o", str(tmp_path / "plan"), "--bootstrap", "20"]
    run = CliRunner().invoke(app, [*planned, *data, *tails, *options])
    assert run.exit_code == 0, run.output
    assert "recommendation:" in run.output and "break-even" in run.output
    assert "no leak check was made" in run.output
    run = CliRunner().invoke(app, [*planned, *data, *options, "--force", "--split", "train", "--train", data[1]])
    assert isinstance(run.exception, LeakError)
    plan = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert plan["strong"] == "sim-max" and set(plan["best"]) == {"route", "cascade", "both"}
    assert "<svg" in (tmp_path / "plan" / "plan.html").read_text()
    run = CliRunner().invoke(app, ["inspect", str(tmp_path / "v")])
    assert run.exit_code == 0 and "AUROC" in run.output

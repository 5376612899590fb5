"""The BERT router: encoders and decoders, one process and two, float32 and int8, interrupted and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import bert_config, save_transformer
from helpers.watched_config import watched
from torch import nn

from routelearn.data.records import PerformanceRecord
from routelearn.data.sample import Sample
from routelearn.data.writers import write_records
from routelearn.evaluation.evaluate import evaluate
from routelearn.routers.bundle import read_manifest
from routelearn.routers.errors import ExportError, InputError, MissingExtraError
from routelearn.routers.loading import load
from routelearn.training.bert.train import train_bert
from routelearn.training.encoders import finetune
from routelearn.training.encoders.outcome_loss import QueryDataset, collate
from routelearn.training.encoders.transformer import Backbone, load_transformer, predict
from routelearn.training.examples import examples_of
from routelearn.training.export import gate
from routelearn.training.export.gate import check_quantised
from routelearn.training.export.int8 import Int8Linear, quantised, rounded
from routelearn.training.export.to_onnx import int8_linear


def test_the_bert_router_learns(bert_bundle: Path, tested: list[PerformanceRecord]) -> None:
    report = evaluate({"bert": load(bert_bundle)}, tested, bootstrap=50)
    assert report["bert"].values["apgr"] > report["random"].values["apgr"] + 0.04


def test_onnx_equals_torch(bert_bundle: Path) -> None:
    training = read_manifest(bert_bundle).training
    assert training["parity_texts"] >= 300
    assert max(training["parity_batched"], training["parity_single"]) <= 1e-4


def test_how_a_long_query_ends_counts(bert_bundle: Path) -> None:
    """Alone and in a batch with short ones; beyond the budget the middle is what is cut."""
    router = load(bert_bundle)
    truncation = router.manifest.truncation
    assert 0 < truncation.last_tokens < truncation.max_tokens
    middle = "hello " * truncation.max_tokens
    queries = [
        f"Say hi. {middle}",
        f"Say hi. {middle} Prove every lemma.",
        "Prove every lemma.",
        f"Say hi. {middle * 2}",
    ]
    scores = router.score(queries)
    assert scores == pytest.approx([router.score([query])[0] for query in queries], abs=1e-5)
    assert abs(scores[0] - scores[1]) > 1e-4
    assert scores[0] == pytest.approx(scores[3], abs=1e-5)
    assert router.assess(queries).truncated.tolist() == [True, True, False, True]


def test_the_checkpoints_are_gone_when_the_bundle_is_there(bert_bundle: Path) -> None:
    folder = bert_bundle.with_name(bert_bundle.name + ".training")
    assert not (folder / "checkpoints").exists()
    assert (folder / "curve.png").is_file()
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"ranking", "factors", "fine-tuning", "done"} == {step["phase"] for step in steps}


def test_int8_routes_as_float32_does(bert_bundle: Path, int8_bundle: Path, sample: Sample) -> None:
    texts = [query for query in sample.queries if isinstance(query, str)]
    exact, rounded = load(bert_bundle).score(texts), load(int8_bundle).score(texts)
    assert 0 < np.abs(exact - rounded).max() < 0.02
    training = read_manifest(int8_bundle).training
    assert training["flips"] <= 0.01
    assert training["apgr_drop"] <= 0.005
    assert (int8_bundle / "model.onnx").stat().st_size < (bert_bundle / "model.onnx").stat().st_size


def test_int8_products_are_within_a_rounding_of_float_ones() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(64, 32)).eval()
    values = torch.randn(4, 7, 64) * torch.logspace(-1, 1, 64)  # channels of very different size
    integers = quantised(layer, lambda module: module(values))
    error = (integers(values) - layer(values)).square().mean().sqrt() / layer(values).std()
    assert 0 < error < 0.01


def test_rounding_weights_does_not_shift_the_mean_output() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(64, 32)).eval()
    values = torch.randn(2000, 64) + 3 * torch.randn(64)  # as behind a GELU or a normalisation: not around zero

    def shift(quantised_layer: nn.Module) -> float:
        return float((quantised_layer(values) - layer(values)).detach().mean(dim=0).abs().max())

    plain = Int8Linear(layer[0], torch.ones(64))  # type: ignore[arg-type]
    assert shift(quantised(layer, lambda module: module(values))) < 0.2 * shift(plain)


def test_rounding_keeps_products_with_inputs_like_the_calibration_queries() -> None:
    """Inputs of few directions: what one channel's rounding costs, others make up for."""
    torch.manual_seed(0)
    inputs = torch.randn(4000, 16) @ torch.randn(16, 64) + 0.05 * torch.randn(4000, 64)
    weight = torch.randn(24, 64)

    def error(rows: torch.Tensor, scale: torch.Tensor) -> float:
        return float((inputs @ (rows.float() * scale.unsqueeze(1) - weight).T).pow(2).mean())

    moments = inputs.T @ inputs / len(inputs)
    assert error(*rounded(weight, 7, moments)) < 0.5 * error(*rounded(weight, 7))
    assert rounded(weight, 7, moments)[0].abs().max() <= 63
    assert torch.isfinite(rounded(weight, 7, torch.zeros(64, 64))[0]).all()  # no input ever differed


def test_an_int8_product_does_not_depend_on_the_batch() -> None:
    values = torch.randn(6, 16)
    weight = torch.randint(-127, 128, (16, 8), dtype=torch.int8)
    together = int8_linear(values, weight, torch.ones(8))
    alone = torch.cat([int8_linear(row, weight, torch.ones(8)) for row in values.split(1)])
    assert torch.equal(together, alone)


def test_a_quantised_graph_that_routes_otherwise_is_refused() -> None:
    random = np.random.default_rng(0)
    exact = random.random(1000).astype(np.float32)
    with pytest.raises(ExportError, match=r"int8 changes .* of the decisions; expected at most 1%"):
        check_quantised(exact, random.random(1000).astype(np.float32), [0.5], None)
    assert check_quantised(exact, exact, [0.5], None)["flips"] == 0
    # Few decisions turn, but just those that matter.
    strong, weak = np.ones(1000), np.ones(1000)
    weak[np.argsort(exact)[-8:]] = 0
    turned = exact.copy()
    turned[np.argsort(exact)[-8:]] = 0
    with pytest.raises(ExportError, match="APGR"):
        check_quantised(exact, turned, [0.5], (strong, weak))


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.slow
def test_a_decoder_goes_through_the_same_pipeline(
    lora_rank: int, sample: Sample, tmp_path: Path, tested: list[PerformanceRecord]
) -> None:
    folder = save_transformer(tmp_path / "llama", "llama")
    config = bert_config(folder, lora_rank=lora_rank, epochs=3)
    router = load(train_bert(sample.performances, tmp_path / "r", config))
    texts = [query for query in sample.queries[:50] if isinstance(query, str)]
    together, alone = router.score(texts), np.concatenate([router.score([text]) for text in texts])
    assert np.abs(together - alone).max() < 2e-6
    assert router.score([""])[0] == pytest.approx(router.score(["", texts[0]])[0], abs=2e-6)
    report = evaluate({"llm": router}, tested, bootstrap=20)
    assert report["llm"].values["apgr"] > 0.5


def test_lower_layers_can_stay_as_they_are(tiny_bert: Path) -> None:
    model, _, _ = load_transformer(str(tiny_bert), 0.1, 0, 0.5)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all(name.startswith("encoder.layer.1.") for name in trained)
    everything, _, _ = load_transformer(str(tiny_bert), 0.1, 0, 0.49)
    assert all(parameter.requires_grad for parameter in everything.parameters())


@pytest.mark.slow
def test_position_biases_that_frozen_layers_share_stay_too(tmp_path: Path) -> None:
    """MPNet declares them after the layers; a gradient for them would run through all of those."""
    model, _, _ = load_transformer(str(save_transformer(tmp_path / "mpnet", "mpnet")), 0.1, 0, 0.5)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all(name.startswith("encoder.layer.1.") for name in trained)


@pytest.mark.slow
def test_an_encoder_with_position_biases_goes_through_the_pipeline(sample: Sample, tmp_path: Path) -> None:
    config = bert_config(save_transformer(tmp_path / "mpnet", "mpnet"), layers=1, epochs=1, quantise="int8")
    router = load(train_bert(sample.performances, tmp_path / "r", config))
    assert router.manifest.training["config"]["layers"] == 1
    texts = [query for query in sample.queries[:40] if isinstance(query, str)]
    assert np.abs(router.score(texts) - np.concatenate([router.score([text]) for text in texts])).max() < 2e-6


def test_upper_layers_can_be_left_out(tiny_bert: Path) -> None:
    whole, _, _ = load_transformer(str(tiny_bert), 0.0, 0)
    lower, _, _ = load_transformer(str(tiny_bert), 0.0, 0, layers=1)
    ids, mask = torch.randint(5, 40, (2, 9)), torch.ones(2, 9, dtype=torch.int64)
    with torch.no_grad():
        states = whole.eval()(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        found = lower.eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    assert len(states) == 3
    assert torch.equal(found, states[1])
    with pytest.raises(InputError, match="layers is 3; expected at most 2"):
        load_transformer(str(tiny_bert), 0.0, 0, layers=3)


def test_int8_weights_leave_room_for_a_sum_in_16_bits() -> None:
    layer = Int8Linear(torch.nn.Linear(8, 4), torch.ones(8))
    assert int(layer.weight.abs().max()) == 63  # twice 255 * 64 fits


def test_preferences_train_a_bert_router(tiny_bert: Path, sample: Sample, tmp_path: Path) -> None:
    config, read = watched(bert_config(tiny_bert, epochs=1))
    router = load(train_bert(sample.preferences, tmp_path / "r", config))
    assert read == {item.name for item in fields(config)}  # no setting is accepted and ignored
    assert router.link == "bradley-terry"
    assert len(router.models) == 4


class InterruptedRunError(Exception):
    pass


def test_an_interrupted_run_is_resumed(
    tiny_bert: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    save = transformers.Trainer._save_checkpoint

    def stop_after_two(self: transformers.Trainer, *args: object, **options: object) -> None:
        save(self, *args, **options)  # type: ignore[arg-type]
        if len(started) == 1 and self.state.global_step > 10:
            raise InterruptedRunError

    begin = transformers.Trainer._inner_training_loop

    def note(self: transformers.Trainer, *args: object, **options: object) -> object:
        started.append(int(options.get("resume_from_checkpoint") is not None))
        return begin(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(transformers.Trainer, "_save_checkpoint", stop_after_two)
    monkeypatch.setattr(transformers.Trainer, "_inner_training_loop", note)
    with pytest.raises(InterruptedRunError):
        train_bert(sample.performances, tmp_path / "r", bert_config(tiny_bert))
    assert not (tmp_path / "r").exists()
    with pytest.raises(InputError, match=r"\['epochs'\] differ"):
        train_bert(sample.performances, tmp_path / "r", bert_config(tiny_bert, epochs=5, resume=True))
    path = train_bert(sample.performances, tmp_path / "r", bert_config(tiny_bert, resume=True))
    assert started == [0, 1]
    assert load(path).score(["Prove it."])[0] > 0


def test_a_refused_int8_export_is_resumed_as_float32_without_training(
    tiny_bert: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(gate, "LARGEST_FLIPS", -1.0)
        with pytest.raises(ExportError, match="resume"):
            train_bert(sample.performances, tmp_path / "r", bert_config(tiny_bert, quantise="int8"))

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(transformers.Trainer, "training_step", refuse)
    monkeypatch.setattr(finetune, "_probe", refuse)
    path = train_bert(sample.performances, tmp_path / "r", bert_config(tiny_bert, resume=True))
    assert read_manifest(path).training["parity_batched"] < 1e-4


def test_two_processes_train_one_router(tiny_bert: Path, sample: Sample, tmp_path: Path) -> None:
    write_records(sample.performances, tmp_path / "records.jsonl")
    (tmp_path / "bert.toml").write_text(
        "learning_rate = 2e-3\nhead_learning_rate = 1e-2\nepochs = 2\nprecision = 'float32'\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    command += ["--standalone", "-m", "routelearn", "train", "bert", "--data", str(tmp_path / "records.jsonl")]
    command += ["--out", str(tmp_path / "r"), "--strong", "sim-max", "--weak", "sim-small"]
    command += ["--encoder", str(tiny_bert), "--config", str(tmp_path / "bert.toml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    router = load(tmp_path / "r")
    metrics = router.manifest.training["metrics"]
    assert metrics["log loss"] < metrics["log loss of the global ranking"]
    # Both took part: an epoch of one process alone has twice the steps.
    steps = [json.loads(line) for line in (tmp_path / "r.training" / "metrics.jsonl").read_text().splitlines()]
    queries = len(examples_of([r for r in sample.performances if r.split == "train"]).queries)
    last = [step for step in steps if step["phase"] == "fine-tuning"][-1]
    assert last["step"] / last["epoch"] == pytest.approx(queries / 32, abs=1.5)
    assert (tmp_path / "r.training" / "other-processes").is_dir()


def test_a_query_is_encoded_once_however_often_it_was_judged(sample: Sample) -> None:
    examples = examples_of(sample.performances)
    ids = [np.arange(1 + row % 5, dtype=np.int32) for row in range(len(examples.queries))]
    dataset = QueryDataset(ids, examples, np.ones(len(ids), np.bool_))
    batch = collate([dataset[0], dataset[1], dataset[2]])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 3)
    assert batch["attention_mask"].sum(dim=1).tolist() == [1, 2, 3]
    query, model, target, _, _ = batch["performances"]
    assert query.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert (model.shape, len(target)) == ((12, 1), 12)


def test_prediction_does_not_depend_on_the_order(tiny_bert: Path) -> None:
    transformer, pooling, _ = load_transformer(str(tiny_bert), 0.1, 0)
    network = Backbone(transformer, pooling, np.zeros(3), np.zeros((1, 3)))
    ids = [np.arange(4, 4 + length, dtype=np.int32) for length in (3, 60, 1, 17)]
    forth, back = predict(network, ids)[1], predict(network, ids[::-1])[1]
    assert torch.allclose(forth, back.flip(0), atol=1e-6)
    assert torch.allclose(forth.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "config.json").write_text("{}"), "no transformer can be loaded"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no fast tokenizer"),
    ],
)
@pytest.mark.slow
def test_a_folder_that_is_no_transformer_is_a_clear_error(
    break_it: Callable[[Path], object], message: str, sample: Sample, tmp_path: Path
) -> None:
    folder = save_transformer(tmp_path / "bert", "bert")
    break_it(folder)
    with pytest.raises(InputError, match=message):
        train_bert(sample.performances, tmp_path / "r", bert_config(folder))


@pytest.mark.parametrize("settings", [{"epochs": -1}, {"precision": "int4"}, {"quantise": "int4"}, {"dropout": 1.0}])
def test_a_setting_out_of_range_is_named(settings: dict[str, object], tiny_bert: Path) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        bert_config(tiny_bert, **settings)


def test_more_tokens_than_the_transformer_reads_is_an_error(tiny_bert: Path, sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reads at most 128"):
        train_bert(sample.performances, tmp_path / "r", bert_config(tiny_bert, max_tokens=512))


def test_lora_without_peft_prints_the_install_line(
    tiny_bert: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"routelearn\[lora\]"):
        train_bert(sample.performances, tmp_path / "r", bert_config(tiny_bert, lora_rank=2))

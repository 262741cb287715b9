"""The user's own rows through the command line: real benchmark rows climb every rung; mistakes are one
line each.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ladder_runs import leftovers, lines, write_recipe
from PIL import Image
from safetensors.torch import load_file

from safeladder import cli
from safeladder.config import load_recipe
from safeladder.data import write_samples
from safeladder.data.real import read_salad_judged, read_xstest
from safeladder.evaluation.suites.figstep import SUITE as FIGSTEP
from safeladder.evaluation.suites.gsm8k import SUITE as GSM8K
from safeladder.ladder.check import check
from safeladder.ladder.data import LadderData
from safeladder.models.families import family_of
from safeladder.models.load import save_checkpoint
from safeladder.models.tiny import build_tiny
from safeladder.types import Message, Part, Response, SafeladderError, Sample

SMALL = [
    "--processes=1", "--model.size=test", "--model.vocab_size=400", "--model.device=cpu",
    "--rungs.base.steps=2", "--rungs.base.batch_size=4",
    "--rungs.cot-sft.steps=2", "--rungs.cot-sft.batch_size=4",
    "--rungs.m3-rl.stages.general.steps=1", "--rungs.m3-rl.stages.joint.steps=1",
    "--rungs.m3-rl.prompts_per_step=4", "--rungs.m3-rl.group_size=2", "--rungs.m3-rl.max_new_tokens=8",
    "--rungs.efficient-rl.stages.joint.steps=1", "--rungs.efficient-rl.prompts_per_step=4",
    "--rungs.efficient-rl.group_size=2", "--rungs.efficient-rl.max_new_tokens=8",
    "--evaluation.max_new_tokens=8", "--evaluation.bootstrap=50", "--evaluation.pass_at_k=2",
    "--evaluation.pass_at_k_samples=6",
]  # fmt: skip


def real_rows(root: Path) -> list[Sample]:
    """A few rows of each benchmark; GSM8K's own solutions are the demonstrations."""
    answers = [row["answer"] for row in lines(root / "gsm8k" / "test.jsonl")[:40]]
    solved = [
        replace(s, response=Response(reasoning=a.rpartition("####")[0].strip(), answer=str(s.reference)))
        for s, a in zip(GSM8K.read(root / "gsm8k", "test"), answers, strict=False)
    ]
    judged = [replace(s, response=None) for s in read_salad_judged(root / "salad")[::20]]
    return [*read_xstest(root / "xstest")[::45], *judged, *FIGSTEP.read(root / "figstep", "tiny")[:5], *solved]


@pytest.mark.slow
def test_every_rung_trains_on_real_rows(real_data, project, tmp_path, capsys, monkeypatch):
    """`climb recipes/laptop.yaml --data FILE.jsonl`: XSTest, SALAD, GSM8K and FigStep's PNGs at native
    resolution.
    """
    monkeypatch.chdir(tmp_path)
    rows = real_rows(real_data)
    write_samples(tmp_path / "real.jsonl", rows)
    sides = {Image.open(s.images[0]).size for s in rows if s.source == "figstep" and isinstance(s.images[0], str)}
    area = max(w * h for w, h in sides)
    given = ["climb", str(project / "recipes" / "laptop.yaml"), "--data", "real.jsonl", "--out", "run"]
    assert cli.main([*given, *SMALL, f"--model.max_pixels={area + 100_000}"]) == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [rung["name"] for rung in report["rungs"]] == ["base", "cot-sft", "m3-rl", "efficient-rl"]
    for rung in report["rungs"]:
        assert {"safety", "capability"} <= rung["metrics"].keys()
        assert rung["metrics"]["safety"]["n"] > 0
    metrics = lines(tmp_path / "run" / "metrics.jsonl")
    assert {row["rung"] for row in metrics} == {"base", "cot-sft", "m3-rl", "efficient-rl", "control"}
    for row in metrics:
        assert row["skipped_nonfinite"] == 0.0 and row["counted_tokens"] > 0
        assert row.get("logprob_gap", 0.0) <= 1e-4
    resolved = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert resolved.data.world is None
    assert all(rung.rewards.recipe == "rules" for rung in resolved.rungs.values() if rung.kind == "rl")


@pytest.mark.parametrize("max_pixels", [12544, 700_000])
def test_figstep_pictures_reach_the_policy_at_their_own_size(real_data, max_pixels):
    from safeladder.models.policy import Policy

    (sample,) = FIGSTEP.read(real_data / "figstep", "tiny")[:1]
    picture = sample.images[0]
    assert isinstance(picture, str)
    width, height = Image.open(picture).size
    model, processor = build_tiny(
        "qwen2_5_vl", ["how many"] * 50, seed=0, size="test", vocab_size=300, max_pixels=max_pixels
    )
    prompt = Policy(model, processor, family_of(model.config)).prompt(sample)
    tokens = prompt.ids.count(model.config.image_token_id)
    native = round(width / 28) * round(height / 28)
    if max_pixels == 700_000:
        assert abs(tokens - native) <= 2 * (width + height) / 28
    else:
        assert tokens <= max_pixels // 28**2 < native


def test_the_worlds_reward_table_gives_way_to_one_that_covers_the_rows(project):
    laptop = project / "recipes" / "laptop.yaml"

    def tables(recipe) -> set[str]:
        return {rung.rewards.recipe for rung in recipe.rungs.values() if rung.kind == "rl"}

    assert tables(load_recipe(laptop)) == {"world"}
    alone = {"data.files": "[a.jsonl]", "data.world": "null", "rungs.search-rl": "null"}
    assert tables(load_recipe(laptop, alone)) == {"rules"}
    assert tables(load_recipe(laptop, {"data.files": "[a.jsonl]"})) == {"world-and-rules"}
    chosen = {"data.files": "[a.jsonl]", "rungs.m3-rl.rewards.recipe": "safework-svkg"}
    assert tables(load_recipe(laptop, chosen)) == {"safework-svkg", "world-and-rules"}


def test_rewards_that_the_algorithm_cannot_combine_are_found_at_once(tmp_path):
    path = write_recipe(tmp_path)
    for overrides in (
        {"rungs.m3-rl.rewards.combine": "gdpo"},
        {"rungs.m3-rl.algorithm.preset": "gdpo"},
    ):
        with pytest.raises(SafeladderError, match=r"rungs\.m3-rl: rewards\.combine .*gdpo"):
            check(load_recipe(path, overrides))
    both = {"rungs.m3-rl.rewards.combine": "gdpo", "rungs.m3-rl.algorithm.preset": "gdpo"}
    assert check(load_recipe(path, both))


def row(id: str, text: str, image: str | None = None, label: str = "safety") -> Sample:
    parts = (Part(text=text),) if image is None else (Part(image=image), Part(text=text))
    meta: dict[str, Any] = {"prompt_label": "safe"}
    response = Response(reasoning="- " + text, answer="fine")
    return Sample(id=id, messages=(Message(role="user", parts=parts),), label=label, meta=meta, response=response)


def test_one_prompt_in_two_files_stays_on_one_side(tmp_path):
    """Files are split together, or a held-out prompt could be trained on under another id."""
    prompts = [f"question number {k}" for k in range(40)]
    write_samples(tmp_path / "a.jsonl", [row(f"a{k}", text) for k, text in enumerate(prompts)])
    write_samples(tmp_path / "b.jsonl", [row(f"b{k}", text) for k, text in enumerate(prompts)])
    files = json.dumps([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    recipe = load_recipe(write_recipe(tmp_path), {"data.files": files, "data.world": "null", "rungs.search-rl": "null"})
    data = LadderData(recipe)
    train, held_out = ({s.question for s in part} for part in (data.train_files, data.held_out_files))
    assert train and held_out and not train & held_out
    assert len(data.train_files) + len(data.held_out_files) == 80


def test_an_id_in_two_files_is_an_error(tmp_path):
    """Prompts, rollouts and randomness are told apart by the id."""
    for name in ("a", "b"):
        write_samples(tmp_path / f"{name}.jsonl", [row(f"{k}", f"{name} question {k}") for k in range(4)])
    files = json.dumps([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    recipe = load_recipe(write_recipe(tmp_path), {"data.files": files, "data.world": "null", "rungs.search-rl": "null"})
    with pytest.raises(SafeladderError, match="id '0' occurs in more than one file"):
        LadderData(recipe)


@pytest.fixture
def rows_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes rows.jsonl with one picture, after `spoil` has changed the raw rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    write_recipe(tmp_path)

    def write(spoil: Callable[[list[dict[str, Any]]], None] = lambda rows: None) -> None:
        Image.new("RGB", (56, 56), "red").save("good.png")
        Path("broken.png").write_bytes(Path("good.png").read_bytes()[:60])
        write_samples("rows.jsonl", [row(f"r{k}", f"question {k}", "good.png" if k == 2 else None) for k in range(8)])
        raw = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
        spoil(raw)
        Path("rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in raw))

    return write


def set_image(value: str) -> Callable[[list[dict[str, Any]]], None]:
    def spoil(rows: list[dict[str, Any]]) -> None:
        for part in rows[2]["messages"][0]["content"]:
            if part["type"] == "image":
                part["image"] = value

    return spoil


def two_markers(rows: list[dict[str, Any]]) -> None:
    rows[2]["messages"][0]["content"] = "<image><image> how many?"
    rows[2]["images"] = ["good.png"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (set_image("broken.png"), ["rows.jsonl", "line 3", "broken.png"]),
        (set_image("absent.png"), ["rows.jsonl", "line 3", "absent.png", "not found"]),
        (two_markers, ["line 3", "more <image> markers"]),
        (lambda rows: rows[4].update(label="saftey"), ["line 5", "saftey", "allowed"]),
        (lambda rows: rows[4].update(extra=1), ["line 5", "unknown key 'extra'"]),
        (lambda rows: rows[5].update(id="r0"), ["line 6", "duplicate id 'r0'"]),
        (lambda rows: rows[4]["meta"].clear(), ["line 5", "prompt_label"]),
    ],
    ids=["corrupt-image", "missing-image", "image-count", "label", "key", "id", "meta"],
)
def test_malformed_rows_stop_the_run_before_it_begins(rows_file, capsys, spoil, words):
    rows_file(spoil)
    before = sorted(p.name for p in Path().iterdir())
    assert cli.main(["climb", "tiny.yaml", "--data", "rows.jsonl", "--out", "run"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("safeladder: error: ") and told.count("\n") == 1, told
    for word in words:
        assert word in told
    assert sorted(p.name for p in Path().iterdir()) == before, "nothing half-written"


def test_a_checkpoint_of_another_family_stops_the_run_before_it_begins(rows_file, capsys):
    rows_file()
    model, processor = build_tiny("llama", ["how many"] * 50, seed=0, size="test", vocab_size=300)
    save_checkpoint(model, processor, "llama")
    assert cli.main(["climb", "tiny.yaml", "--out", "run", "--model.path", "llama"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("safeladder: error: ") and told.count("\n") == 1
    assert "llama" in told and "qwen2_5_vl" in told
    assert not Path("run").exists()


def test_rows_without_demonstrations_cannot_feed_a_supervised_rung(rows_file, capsys):
    def drop(rows: list[dict[str, Any]]) -> None:
        for each in rows:
            each["messages"].pop()

    rows_file(drop)
    assert cli.main(["climb", "tiny.yaml", "--data", "rows.jsonl", "--out", "run"]) == 2
    assert "no row of the data files has an assistant message" in capsys.readouterr().err


def test_own_rows_climb_from_an_own_checkpoint(rows_file, capsys):
    """A user's JSONL on a local checkpoint, with LoRA: two rungs, a report, nothing left over."""
    rows_file()
    model, processor = build_tiny("qwen2_5_vl", ["question fine how many"] * 50, seed=0, size="test", vocab_size=300)
    save_checkpoint(model, processor, "start")
    given = ["climb", "tiny.yaml", "--data", "rows.jsonl", "--out", "run", "--model.path", "start"]
    given += [
        "--model.lora",
        "{rank: 2, alpha: 4}",
        "--rungs.cot-sft",
        "null",
        "--rungs.efficient-rl",
        "null",
    ]
    given += ["--rungs.base.batch_size=2", "--control.enabled=false", "--rungs.base.steps=2"]
    given += ["--rungs.m3-rl.stages.general.steps=1"]
    assert cli.main(given) == 0, capsys.readouterr().err
    report = json.loads(Path("run/report.json").read_text())
    assert [rung["name"] for rung in report["rungs"]] == ["base", "m3-rl"]
    assert not leftovers(Path("run"))
    before, after = load_file("start/model.safetensors"), load_file("run/checkpoints/base/model.safetensors")
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved and all(".language_model." in name or name.startswith("model.layers") for name in moved), moved
    assert not any("embed" in name or "visual" in name for name in moved), "only the adapted layers"
    assert not list(Path("run/checkpoints/m3-rl").glob("adapter*")), "checkpoints are merged"


def test_own_questions_are_searched_for_in_an_own_corpus(rows_file, capsys, tmp_path):
    """Rows labelled `search` train and are measured in the search rung alone; the others are replayed beside them."""
    pytest.importorskip("tantivy")
    from safeladder.search.index import build_index

    def more(rows: list[dict[str, Any]]) -> None:
        asked = [(f"q{k}", f"who founded Acme{k} ?", f"Jo{k}") for k in range(24)]
        rows += [{"id": id, "label": "search", "reference": who, "prompt": asked_} for id, asked_, who in asked]

    rows_file(more)
    pages = [{"id": str(k), "title": f"Acme{k}", "text": f"Acme{k} was founded by Jo{k}."} for k in range(24)]
    Path("corpus.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
    build_index(Path("corpus.jsonl"), Path("index"))
    given = ["climb", "tiny.yaml", "--data", "rows.jsonl", "--out", "run", "--control.enabled=false"]
    given += [word for name in ("cot-sft", "m3-rl", "efficient-rl") for word in (f"--rungs.{name}", "null")]
    given += ["--rungs.base.batch_size=2", "--rungs.base.steps=2", "--rungs.search-rl.cold_start", "null"]
    given += ["--rungs.search-rl.start_from", "null", "--rungs.search-rl.stages", "{one: {steps: 2, mix: {}}}"]
    given += ["--rungs.search-rl.corpus", "index", "--rungs.search-rl.instructions", "search, then answer"]
    assert cli.main(given) == 0, capsys.readouterr().err
    rows = lines(Path("run/search/search-rl.jsonl"))
    assert rows and all(row["kind"] == "search" and row["id"].startswith("q") for row in rows)
    assert {row["reference"] for row in rows} <= {page["text"].split()[-1].strip(".") for page in pages}
    evaluated = {r["label"] for r in lines(Path("run/rollouts.jsonl")) if r["step"] is None}
    assert "search" not in evaluated and evaluated, "no single-turn rung answers them"
    trained = {name for r in lines(Path("run/metrics.jsonl")) if r["rung"] == "search-rl" for name in r}
    assert "reward/search-answer" in trained

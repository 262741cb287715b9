"""A search rung's own pieces: pages, demonstrations, instructions; what is measured and in which rows it is kept."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import ladder_runs
import pytest
from ladder_runs import lines

from safeladder.analysis.calibration_command import run as report_command
from safeladder.analysis.calibration_rows import read_outcomes
from safeladder.analysis.report import write_report
from safeladder.analysis.results import RungResult, build_report
from safeladder.analysis.schema import validate_report
from safeladder.atomic import write_json
from safeladder.config import Recipe, SearchRung, load_recipe
from safeladder.ladder import calibrate, searching
from safeladder.ladder.data import LadderData
from safeladder.models.families import family_of
from safeladder.models.policy import Policy
from safeladder.models.tiny import build_tiny
from safeladder.rollout.parse import ResponseFormat
from safeladder.search.trace import parse_trace, parse_turn
from safeladder.training.parallel import Parallel
from safeladder.training.sft import encode_response
from safeladder.types import (
    Completion,
    GenerationRequest,
    Message,
    Part,
    SafeladderError,
    Sample,
    SamplingParams,
    StopReason,
)
from safeladder.verifiers import RewardRecipe, Router, available
from safeladder.world import next_turn
from safeladder.world.families.search import UNKNOWN

RUNG: dict[str, Any] = {
    "kind": "search",
    "stages": {"one": {"steps": 1}},
    "prompts_per_step": 1,
    "group_size": 2,
    "turn_tokens": 40,
    "max_turns": 5,
    "observation_tokens": 200,
    "episode_tokens": 900,
    "constraint": {"target": 0.9},
    "cold_start": {"steps": 1, "batch_size": 1, "styles": {"careful": 1}, "confidence": "calibrated"},
}


def rung(**changes: Any) -> SearchRung:
    return SearchRung.model_validate({**RUNG, **changes})


@cache
def recipe() -> Recipe:
    return Recipe.model_validate(ladder_runs.RECIPE)


@cache
def data() -> LadderData:
    return LadderData(recipe())


@cache
def policy() -> Policy:
    hub, processor = build_tiny("llama", data().texts(), seed=0, size="test", vocab_size=700, max_pixels=12544)
    return Policy(hub, processor, family_of(hub.config)).eval()


def no_response(sample: Sample) -> Any:
    raise AssertionError(f"{sample.id} is to be searched for")


def test_results_show_one_sentence_and_a_read_shows_all():
    world = data().world
    assert world is not None
    pages = searching.retriever(rung(), world, "train")
    page = next(p for p in world.pages("train") if p["text"].count(" .") > 2)
    hit = pages.search(page["title"], 3)[0]
    assert (hit.id, hit.title) == (page["id"], page["title"])
    assert hit.abstract.count(" .") == 1 and page["text"].startswith(hit.abstract)
    read = pages.read(page["id"])
    assert read is not None and read.text == page["text"]
    assert pages.read("no such page") is None


def test_a_corpus_takes_the_place_of_the_worlds_pages(tmp_path):
    pytest.importorskip("tantivy")
    from safeladder.search.index import build_index

    rows = [
        {"id": "7", "title": "Acme", "text": "Acme was founded by Jo Ray."},
        {"id": "8", "title": "Paris", "text": "A city."},
    ]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_index(corpus, tmp_path / "index")
    pages = searching.retriever(rung(corpus=str(tmp_path / "index")), None, "heldout")
    assert [hit.id for hit in pages.search("who founded Acme ?", 3)] == ["7"]
    with pytest.raises(SafeladderError, match="absent"):
        searching.retriever(rung(corpus=str(tmp_path / "absent")), None, "train")


def test_a_demonstration_is_the_script_played_through_the_environment():
    """What is trained on is the script's own words and the end token; what it read is masked, and in between."""
    world = data().world
    assert world is not None
    place = searching.environment(rung(), searching.retriever(rung(), world, "train"), policy())
    settings = rung(cold_start={**RUNG["cold_start"], "brier_weight": 1.0}).cold_start
    assert settings is not None
    encode = searching.encode_search(policy(), place, settings, "seed", no_response)
    tokenizer = policy().tokenizer
    for kind, answerable in (("search_two_hop", True), ("search_missing", False)):
        sample = world.item(kind, "train", 3)
        found = encode(sample)
        own = [i for i, counted in zip(found.token_ids, found.mask, strict=True) if counted]
        assert own[-1] == policy().eos_token_id
        trace = parse_trace(tokenizer.decode(own[:-1]))
        assert trace.well_formed, trace.problem
        heard = tokenizer.decode([i for i, counted in zip(found.token_ids, found.mask, strict=True) if not counted])
        assert heard.count("<information>") == trace.searches + trace.reads > 0
        assert found.stated is not None
        stands, correct = found.stated
        assert correct is answerable
        assert trace.confidence is not None and (trace.confidence > 5) is answerable
        assert tokenizer.decode([found.token_ids[stands]]).strip() == str(trace.confidence)
        assert encode(sample) == found, "the same for every epoch"
    plain = world.item("count", "train", 0)
    marker = object()
    assert searching.encode_search(policy(), place, settings, "seed", lambda _: marker)(plain) is marker  # type: ignore[arg-type,return-value]


def test_a_read_that_goes_astray_is_shown_doubted_and_not_trained_on():
    world = data().world
    assert world is not None
    place = searching.environment(rung(), searching.retriever(rung(), world, "train"), policy())
    decode = policy().tokenizer.decode
    strayed = 0
    for share in (0.0, 1.0):
        settings = rung(cold_start={**RUNG["cold_start"], "astray": share, "brier_weight": 1.0}).cold_start
        assert settings is not None
        for number in range(8):
            sample = world.item("search_one_hop", "train", number)
            found = searching.encode_search(policy(), place, settings, "seed", no_response)(sample)
            assert len(found.mask) == len(found.token_ids) and found.stated is not None
            own = decode([i for i, counted in zip(found.token_ids, found.mask, strict=True) if counted])
            rest = decode([i for i, counted in zip(found.token_ids, found.mask, strict=True) if not counted])
            if share and "<read>" in rest:
                strayed += 1
                assert "<read>" not in own and "| missing : " in rest
                assert any(f"<answer> {unknown}</answer>" in own for unknown in UNKNOWN)
                assert found.stated[1] is False and decode([found.token_ids[found.stated[0]]]).strip() in "01"
            else:
                assert "<read>" in own and "<read>" not in rest and found.stated[1] is True
    assert strayed > 4, "most names share a syllable with another's"


def test_half_of_what_the_laptops_cold_start_learns_from_is_replay():
    """With a third of the trained tokens the other kinds are forgotten, with much more the searches are not learned."""
    laptop = load_recipe(Path(__file__).parents[2] / "recipes" / "laptop.yaml")
    settings = laptop.rungs["search-rl"]
    assert isinstance(settings, SearchRung) and settings.cold_start is not None
    world = data().world
    assert world is not None
    place = searching.environment(settings, searching.retriever(settings, world, "train"), policy())
    plain = encode_response(policy(), data().format)
    encode = searching.encode_search(policy(), place, settings.cold_start, "seed", plain)
    tokens = {True: 0, False: 0}
    start = settings.cold_start.model_copy(update={"samples": 200})
    for sample in data().demonstrations("cold-start", start):
        tokens[sample.label == "search"] += sum(encode(sample).mask)
    assert 0.44 < tokens[False] / sum(tokens.values()) < 0.56


def test_a_checkpoint_keeps_whether_missing_words_were_named():
    assert rung().missing_words and searching.settings_of(rung()).missing_words
    plain = rung(missing_words=False)
    assert not searching.settings_of(plain).missing_words
    source = searching.retriever(plain, data().world, "train")
    assert not searching.environment(plain, source, policy()).missing_words
    assert searching.environment(rung(), source, policy()).missing_words


def test_episodes_must_fit_the_model():
    source = searching.retriever(rung(), data().world, "train")
    with pytest.raises(SafeladderError, match=r"may take 5280 tokens .*the model has 2048.*lower episode_tokens"):
        searching.environment(rung(episode_tokens=5000), source, policy())


def test_instructions_go_before_searches_only():
    search = Sample(id="a", label="search", messages=(Message(role="user", parts=(Part(text="who ?"),)),))
    plain, own = (
        replace(search, label="safety"),
        replace(search, messages=(Message(role="system", parts=(Part(text="x"),)),)),
    )
    told = searching.Instructed(rung(instructions="search first"), [search, plain, own])
    assert [m.text for m in told[0].messages] == ["search first", "who ?"]
    assert (told[1], told[2]) == (plain, own)
    assert len(told) == 3 and len(told[:2]) == 2
    assert searching.instruct(rung(), search) is search


def test_only_a_search_rung_draws_searches():
    names = {"search_one_hop": 1.0, "count": 1.0}
    drawn = {s.label for s in data().prompts("r", 20, names, search=True)}
    assert drawn == {"search", "general_rule"}
    assert {s.label for s in data().prompts("r", 20, names)} == {"general_rule"}
    assert {s.label for s in data().prompts("r", 20, {}, search=True)} == {"search"}
    assert "search" not in {s.label for s in data().prompts("r", 40, {})}
    assert "search" not in {s.label for s in data().held_out()}
    kinds = [s.meta["kind"] for s in data().held_out_searches()]
    assert len(kinds) == recipe().evaluation.search_samples and len(set(kinds)) == 4


def test_a_cold_start_replays_the_ladder_in_the_styles_given():
    start = rung(cold_start={**RUNG["cold_start"], "samples": 12, "mix": {"search_one_hop": 1, "count": 1}}).cold_start
    assert start is not None
    shown = list(data().demonstrations("search-rl.cold-start", start))
    assert len(shown) == len({s.id for s in shown}) == 12
    for sample in shown:
        assert (sample.response is None) == (sample.label == "search")
    assert {s.label for s in shown} == {"search", "general_rule"}
    plain = start.model_copy(update={"mix": {}})
    assert {s.label for s in data().demonstrations("x", plain)} == {"search"}
    without = start.model_copy(update={"styles": {}})
    with pytest.raises(SafeladderError, match="no teacher style for 'count' items: set the rung's styles"):
        list(data().demonstrations("x", without))


@dataclass
class Scripted:
    """An engine whose policy is the script, or `say` where that returns a text: a whole search, token by token."""

    say: Callable[[Sample, Sequence[str]], str | None]
    style: str = "calibrated"
    context_length: int = 4000

    def prompt_ids(self, sample: Sample) -> tuple[int, ...]:
        return self._ids(sample.question)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(policy().tokenizer(text, add_special_tokens=False)["input_ids"])

    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, *, seed: int
    ) -> list[list[Completion]]:
        replies = []
        for request in requests:
            text = policy().tokenizer.decode(request.prompt_ids)
            heard = [part.split("</information>")[0] for part in text.split("<information>")[1:]]
            group = []
            for number in range(params.n):
                turn = self.say(request.sample, heard) or next_turn(
                    request.sample, heard, random.Random(number), self.style
                )
                ids = self._ids(turn)
                group.append(Completion(token_ids=ids, logprobs=(0.0,) * len(ids), stop_reason=StopReason.STOP))
            replies.append(group)
        return replies

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(policy().tokenizer.decode(token_ids))

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        raise AssertionError("not called")


def measured(folder: Path, engine: Scripted, **evaluation: int) -> dict[str, dict[str, Any]]:
    settings = recipe().evaluation.model_copy(
        update={"search_samples": 20, "votes": 4, "vote_samples": 8, **evaluation}
    )
    run = recipe().model_copy(update={"evaluation": settings})
    held_out = LadderData(run).held_out_searches()
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "weights").write_text("w")
    verifiers = available(world=True)
    judge = Router(verifiers, RewardRecipe.load(run.judged_by, verifiers, {"search"}))
    place = searching.environment(rung(), searching.retriever(rung(), data().world, "heldout"), policy())
    search = calibrate.HeldOutSearch(
        recipe=run,
        rung=rung(),
        engine=engine,  # type: ignore[arg-type]
        held_out=held_out,
        place=place,
        judge=judge,
        plain=ResponseFormat(),
    )
    return search.measure(folder, "search-rl", checkpoint, search.vote(Parallel()))


def test_a_careful_searcher_is_measured_and_its_rows_are_a_report(tmp_path, capsys):
    """The calibrated script is right and certain on what is answerable, and uncertain on all else."""
    write = tmp_path / "metrics.jsonl"
    write.write_text('{"rung": "search-rl", "step": 1, "multiplier": 0.5}\n{"rung": "m3-rl", "step": 1}\n')
    found = measured(tmp_path, Scripted(lambda sample, heard: None))
    assert found["coverage_answerable"]["value"] == 1.0 and found["coverage_answerable"]["n"] == 10
    assert found["false_certain"]["value"] == 0.0 and found["false_certain"]["n"] == 20
    assert 0.5 <= found["accuracy"]["value"] <= 0.75, "the answerable half, and one dispute in three"
    assert found["reliability"]["value"] == pytest.approx(1.5 - found["accuracy"]["value"])
    assert found["searches"]["value"] > 1 and found["reads"]["value"] > 0.5
    assert found.keys() == set(calibrate.METRICS)
    for metric in found.values():
        assert metric["low"] <= metric["value"] <= metric["high"] and "n_unscored" not in metric

    path = tmp_path / "search" / "search-rl.jsonl"
    rows = lines(path)
    assert len(rows) == len({row["id"] for row in rows}) == 20
    assert sum("samples" in row for row in rows) == 8 and all(len(r["samples"]) == 4 for r in rows if "samples" in r)
    for row in rows:
        assert parse_trace(row["trace"]).confidence == row["confidence"]
        assert len(row["observations"]) == row["searches"] + row["reads"]
        if row["kind"] == "search_missing":
            assert row["reference"] is None and row["correct"] is False and row["answerable"] is False
    assert len(read_outcomes(path)) == 20
    report = json.loads((tmp_path / "search" / "search-rl.json").read_text())
    assert report["accuracy"] == found["accuracy"]["value"]
    assert report["multiplier"] == [{"step": 1, "value": 0.5}]
    assert report["votes"]["n"] == 8 and len(report["votes"]["curves"]["majority"]) == 4

    class Options:
        file, figure, cut, json = str(path), None, 5, True

    assert report_command(Options()) == 0  # type: ignore[arg-type]
    assert json.loads(capsys.readouterr().out)["accuracy"] == report["accuracy"]
    log = next((tmp_path / "logs").glob("*_search-rl-search_*.eval"))
    from inspect_ai.log import read_eval_log

    sample = (read_eval_log(str(log)).samples or [])[0]
    said = sample.output.choices[0].message.content
    assert "<search>" in said[0].reasoning and "<information>" in said[0].reasoning
    row = next(row for row in rows if row["id"] == sample.id)
    assert said[1].text == row["answer"]


def test_the_metrics_fit_the_report_and_the_page_shows_them(tmp_path):
    found = measured(tmp_path, Scripted(lambda sample, heard: None))
    result = RungResult(
        name="search-rl", checkpoint="c", train_seconds=1.0, train_flops=1.0, gate="accepted", metrics=found
    )
    base = replace(result, name="base", metrics={})
    report = build_report(recipe="x", seed=0, wall_seconds=1.0, rungs=[base, result])
    validate_report(report)
    two = dict.fromkeys(("safety", "capability"), found["accuracy"])
    rungs = [replace(base, metrics=two), replace(result, metrics={**found, **two})]
    write_json(tmp_path / "report.json", build_report(recipe="x", seed=0, wall_seconds=1.0, rungs=rungs))
    page = write_report(tmp_path).read_text()
    assert "Does it know when it does not know?" in page and "False certainty, of all" in page
    assert "AUROC" in page, "a false-certain rate is never shown alone"


def test_broken_and_failed_searches_are_counted_and_bound_the_rates(tmp_path):
    """Of 20: five never answer in form, and count as left out, not as right."""
    broken = {
        s.id
        for s in LadderData(
            recipe().model_copy(update={"evaluation": recipe().evaluation.model_copy(update={"search_samples": 20})})
        ).held_out_searches()[:5]
    }
    found = measured(tmp_path, Scripted(lambda sample, heard: "<answer> x</answer>" if sample.id in broken else None))
    rows = lines(tmp_path / "search" / "search-rl.jsonl")
    assert sum(row["confidence"] is None for row in rows) == 5
    assert all(row["correct"] is False for row in rows if row["id"] in broken)
    assert found["accuracy"]["n"] == 15 and found["accuracy"]["n_unscored"] == 5
    right = round(found["accuracy"]["value"] * 15)
    assert found["accuracy"]["if_all_fail"] == pytest.approx(right / 20)
    assert found["accuracy"]["if_all_pass"] == pytest.approx((right + 5) / 20)
    assert found["false_certain"]["if_all_pass"] == pytest.approx(5 / 20), "each of them may have been one"
    asked = sum(row["answerable"] for row in rows)
    unread = sum(row["answerable"] and row["id"] in broken for row in rows)
    assert found["coverage_answerable"]["n"] == asked - unread
    assert found["coverage_answerable"].get("n_unscored", 0) == unread
    assert found["searches"]["n"] == 20


def test_nothing_to_calibrate_is_said_and_is_no_zero(tmp_path, caplog):
    found = measured(tmp_path, Scripted(lambda sample, heard: "<answer> x</answer>"))
    assert found == {}
    assert "not one of 20 searches" in caplog.text
    assert len(lines(tmp_path / "search" / "search-rl.jsonl")) == 20
    assert not (tmp_path / "search" / "search-rl.json").exists()


def test_no_votes_where_none_are_wanted(tmp_path):
    measured(tmp_path, Scripted(lambda sample, heard: None), vote_samples=0)
    assert "votes" not in json.loads((tmp_path / "search" / "search-rl.json").read_text())
    assert parse_turn(lines(tmp_path / "search" / "search-rl.jsonl")[0]["trace"].rpartition("</search>")[2]).text

"""`safeladder directions` end to end on a tiny checkpoint, and the rows it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rollout.tiny_policies import picture, policy
from safeladder import cli
from safeladder.models.load import save_checkpoint
from safeladder.steering import direction_data
from safeladder.steering.directions import load_directions
from safeladder.types import SafeladderError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = policy("qwen2_5_vl")
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_checkpoint(made.model, made.processor, folder)
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    picture(1).save(tmp_path / "a.png")
    lines = [
        {
            "id": f"r{i}",
            "image": "a.png",
            "question": "how many red circles?",
            "positive": "one square",
            "negative": "two circles" * (i + 1),
            "answers": ["one", "two"],
            "outcome": "two",
            "reference_question": "what colour?",
        }
        for i in range(3)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n\n" for line in lines), encoding="utf-8")
    return path


def test_fit_show_and_measure(checkpoint, rows, tmp_path, capsys):
    """Treble into the model's own folder (its weights' fingerprint stays), shown, and measured with and without."""
    assert cli.main(["directions", "fit", str(checkpoint), "--data", str(rows), "--trials", "2", "--scale", "0.5"]) == 0
    folder = checkpoint / "steering" / "treble"
    assert "NV (1 layers), NT (2 layers), NVT (2 layers) from 3 rows" in capsys.readouterr().out
    found = load_directions(folder)
    assert [d.scale for d in found.items] == [0.5] * 3 and found.about["method"] == "treble"
    assert cli.main(["directions", "show", str(folder)]) == 0
    assert "NV     vision   1 layers of width 32, 4 x 4 places; pca, n = 3" in capsys.readouterr().out
    assert cli.main(["directions", "show", str(folder), "--json"]) == 0
    assert [d["name"] for d in json.loads(capsys.readouterr().out)["directions"]] == ["NV", "NT", "NVT"]
    measured = []
    for more in ([], ["--directions", str(folder)]):
        assert cli.main(["directions", "effects", str(checkpoint), "--data", str(rows), "--json", *more]) == 0
        measured.append(json.loads(capsys.readouterr().out))
    assert measured[0]["NDE_T"]["n"] == 3 and measured[0] != measured[1]
    assert cli.main(["directions", "effects", str(checkpoint), "--data", str(rows)]) == 0
    assert "probability of the outcome, 3 questions" in capsys.readouterr().out


@pytest.mark.parametrize(("method", "names"), [("vti", ["vision", "text"]), ("lda", ["pairs"])])
def test_other_methods(checkpoint, rows, tmp_path, method, names):
    out = tmp_path / "out"
    arguments = ["directions", "fit", str(checkpoint), "--data", str(rows), "--method", method, "--out", str(out)]
    assert cli.main([*arguments, "--trials", "2", "--mode", "additive", "--strength", "1"]) == 0
    found = load_directions(out)
    assert [d.name for d in found.items] == names
    assert all((d.mode, d.strength) == ("additive", 1.0) for d in found.items)


def test_directions_of_other_weights_end_with_2(checkpoint, rows, tmp_path, capsys):
    other = policy("qwen2_5_vl", seed=1)
    save_checkpoint(other.model, other.processor, tmp_path / "other")
    fit = ["directions", "fit", str(tmp_path / "other"), "--data", str(rows), "--method", "mean", "--out"]
    assert cli.main([*fit, str(tmp_path / "d")]) == 0
    measure = ["directions", "effects", str(checkpoint), "--data", str(rows), "--directions", str(tmp_path / "d")]
    assert cli.main(measure) == 2
    assert "estimated on other weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "gone.png"}, "rows.jsonl:1: image gone.png does not exist"),
        ({"image": None}, "'image' must be a text"),
        ({"question": " "}, "'question' must be a text"),
        ({"positive": 3}, "'positive' must be a text"),
        ({"id": ""}, "'id' must be a text"),
    ],
)
def test_unusable_rows_name_file_and_line(rows, change, message):
    first, *rest = [line for line in rows.read_text().splitlines() if line]
    rows.write_text("\n".join([json.dumps({**json.loads(first), **change}), *rest]))
    with pytest.raises(SafeladderError, match=message):
        direction_data.demonstrations(str(rows), 10, 0)


def test_unusable_files(tmp_path):
    with pytest.raises(SafeladderError, match="takes world or a JSONL file"):
        direction_data.pairs(str(tmp_path / "none.jsonl"), 1, 0)
    path = tmp_path / "x.jsonl"
    for text, message in (("", "has no rows"), ("{", "x.jsonl:1: not JSON"), ("[]", "x.jsonl:1: not a JSON object")):
        path.write_text(text)
        with pytest.raises(SafeladderError, match=message):
            direction_data.pairs(str(path), 1, 0)


def test_contrasts_that_cannot_be_measured_name_their_line(rows):
    line = json.loads(rows.read_text().splitlines()[0])
    for change, message in (
        ({"answers": "one"}, "'answers' must be a list"),
        ({"outcome": "three"}, "rows.jsonl:1: sample r0: outcome 'three'"),
    ):
        rows.write_text(json.dumps({**line, **change}))
        with pytest.raises(SafeladderError, match=message):
            direction_data.contrasts(str(rows), 1, 0)


def test_pairs_are_replies_or_prompts(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "a", "positive": "how many?", "negative": "what?"}\n')
    ((first, second),) = direction_data.pairs(str(path), 5, 0)
    assert (first.sample.question, second.sample.question, first.said) == ("how many?", "what?", "")
    path.write_text('{"id": "a", "question": "how many?", "positive": "one", "negative": "two"}\n')
    ((first, second),) = direction_data.pairs(str(path), 5, 0)
    assert first.sample == second.sample and (first.said, second.said) == ("one", "two")


def test_the_world_gives_demonstrations_pairs_and_contrasts():
    pytest.importorskip("sklearn")
    demonstrations = direction_data.demonstrations("world", 7, 1)
    assert len(demonstrations) == 7
    for d in demonstrations:
        asked = d.sample.meta["asked"][0]
        assert d.sample.meta["split"] == "train" and asked not in d.sample.meta["present"]
        assert (d.truthful, d.hallucinated) == (f" {asked} no", f" {asked} yes")
    harmful, harmless = direction_data.pairs("world", 2, 1)[0]
    assert [r.sample.meta["kind"] for r in (harmful, harmless)] == ["text_harmful", "text_lookalike"]
    found = direction_data.contrasts("world", 4, 1)
    assert len(found) == 4
    for c in found:
        assert c.factual.meta["split"] == "heldout" and c.outcome.endswith(" yes")
        assert c.factual.meta["asked"][0] not in c.factual.meta["present"]

"""The provider as any Inspect task meets it: conversations in, typed replies out."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from inspect_ai import Epochs, Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import Sample as InspectSample
from inspect_ai.model import (
    CachePolicy,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentAudio,
    ContentImage,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Model,
    get_model,
)
from inspect_ai.scorer import includes
from inspect_ai.solver import generate
from inspect_ai.tool import ToolInfo
from PIL import Image

from safeladder.evaluation._registry import attach
from safeladder.evaluation.provider import Attachment, SafeladderAPI
from safeladder.evaluation.scorers import verifier_scorer
from safeladder.models.identity import checkpoint_hash
from safeladder.rollout.parse import ResponseFormat
from safeladder.types import Response, Rollout, SafeladderError, Sample, Score


def api(engine: FakeEngine, name: str = "test") -> SafeladderAPI:
    return attach(name, Attachment(engine=engine, format=ResponseFormat(), batch_size=8))


def model(engine: FakeEngine, name: str = "test") -> Model:
    return Model(api(engine, name), GenerateConfig())


def said(sample: Sample) -> str:
    """Repeats what it was asked."""
    return f"<think>hm</think>{sample.question}"


def picture(colour: tuple[int, int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


async def ask(engine: FakeEngine, *content: Any, **config: Any) -> Any:
    message = ChatMessageUser(content=list(content))
    return await api(engine).generate([message], [], "auto", GenerateConfig(**config))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


async def test_O01_text_and_images_become_a_sample() -> None:
    seen: list[Sample] = []

    def look(sample: Sample) -> str:
        seen.append(sample)
        return "<think>red</think>yes"

    output = await ask(FakeEngine(look), ContentImage(image=picture((9, 0, 0))), ContentText(text="red ?"))
    (image,) = seen[0].images
    assert isinstance(image, Image.Image) and image.getpixel((0, 0)) == (9, 0, 0)
    assert seen[0].question == "red ?"
    assert output.completion == "yes"
    assert output.message.content[0].reasoning == "red"
    assert output.usage.total_tokens == len("red ?") + 1 + len("<think>red</think>yes")


async def test_a_conversation_keeps_roles_and_renders_earlier_thoughts() -> None:
    seen: list[Sample] = []

    def look(sample: Sample) -> str:
        seen.append(sample)
        return "<think>a</think>b"

    history = [
        ChatMessageSystem(content="be kind"),
        ChatMessageUser(content="one"),
        ChatMessageAssistant(content=[ContentReasoning(reasoning="because"), ContentText(text="two")]),
        ChatMessageUser(content="three"),
    ]
    await api(FakeEngine(look)).generate(history, [], "auto", GenerateConfig())
    assert [(m.role, m.text) for m in seen[0].messages] == [
        ("system", "be kind"),
        ("user", "one"),
        ("assistant", ResponseFormat().render(Response(answer="two", reasoning="because"))),
        ("user", "three"),
    ]


async def test_conversations_never_share_an_id_and_repeats_are_new_draws() -> None:
    engine = FakeEngine(said)
    provider = api(engine)
    for text in ("a", "b", "a"):
        await provider.generate([ChatMessageUser(content=text)], [], "auto", GenerateConfig())
    ids = [name for batch in engine.batches for name in batch]
    assert len(set(ids)) == 3
    again = FakeEngine(said)
    await ask(again, ContentText(text="a"))
    assert again.batches[0][0] == ids[0]


async def test_settings_reach_the_engine() -> None:
    engine = FakeEngine(said)
    output = await ask(engine, ContentText(text="hello"), max_tokens=9, num_choices=3, seed=4, logprobs=True)
    assert len(output.choices) == 3 and engine.seeds == [4]
    assert output.stop_reason == "max_tokens"
    assert [p.token for p in output.choices[0].logprobs.content] == list("<think>hm")
    assert output.usage.output_tokens == 27


@pytest.mark.parametrize(
    ("content", "config", "message"),
    [
        (ContentText(text="x"), {"top_p": 0.9}, "cannot apply top_p"),
        (ContentAudio(audio="data:audio/wav;base64,AAAA", format="wav"), {}, "not audio content"),
        (ContentImage(image="https://example.org/x.png"), {}, "cannot be read: not an image"),
        (ContentImage(image="data:image/png;base64,AAAA"), {}, "cannot be read"),
        (ContentImage(image="data:image/png;base64,####"), {}, "cannot be read"),
    ],
)
async def test_what_it_cannot_do_is_an_error(content: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises(SafeladderError, match=message):
        await ask(FakeEngine(said), content, **config)


async def test_tools_are_refused() -> None:
    provider = api(FakeEngine(said))
    with pytest.raises(SafeladderError, match="no tools"):
        tool = ToolInfo(name="t", description="d")
        await provider.generate([ChatMessageUser(content="x")], [tool], "auto", GenerateConfig())
    with pytest.raises(SafeladderError, match="tool messages"):
        await provider.generate([ChatMessageTool(content="x")], [], "auto", GenerateConfig())


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>still thinking", ""),
        ("<think>one</think>", ""),
        ("no thought at all", "no thought at all"),
        ("<think>a</think>b", "b"),
    ],
)
async def test_an_unfinished_thought_is_no_answer(text: str, answer: str) -> None:
    output = await ask(FakeEngine(lambda sample: text), ContentText(text="x"))
    assert output.completion == answer
    assert output.metadata["well_formed"] == [answer == "b"]


async def test_counting_tokens_needs_no_download() -> None:
    assert await api(FakeEngine(said)).count_tokens("some words here") > 0


async def test_O02_steered_and_unsteered_models_do_not_share_cached_replies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSPECT_CACHE_DIR", str(tmp_path))
    engines = [FakeEngine(lambda s, i=i: f"<think>t</think>{i}") for i in range(3)]
    names = ("m3-rl@aaa", "m3-rl+steered@aaa", "m3-rl@aaa")
    replies = [
        await model(engine, name).generate("the same question", cache=CachePolicy())
        for engine, name in zip(engines, names, strict=True)
    ]
    assert [r.completion for r in replies] == ["0", "1", "0"]
    assert [len(engine.batches) for engine in engines] == [1, 1, 0]


def test_a_plain_inspect_task_runs_with_its_own_scorer_and_epochs(tmp_path: Path) -> None:
    engine = FakeEngine(said)
    task = Task(
        dataset=[InspectSample(input=f"say {i}", target=str(i)) for i in range(6)],
        solver=generate(),
        scorer=includes(),
        epochs=Epochs(2),
    )
    (log,) = inspect_eval(
        task,
        model=model(engine),
        log_dir=str(tmp_path),
        display="none",
        ctl_server=False,
        score_display=False,
    )
    assert log.status == "success" and log.results is not None
    assert log.results.scores[0].metrics["accuracy"].value == 1.0
    asked = [name for batch in engine.batches for name in batch]
    assert len(asked) == len(set(asked)) == 12


def test_our_verifiers_score_any_task(tmp_path: Path) -> None:
    class Labelled:
        name = "labelled"
        principle = "general"

        def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
            return [
                Score.unscored("no reference")
                if r.sample.reference is None
                else Score(value=float(r.response is not None and r.response.answer == r.sample.reference))
                for r in rollouts
            ]

    def reply(sample: Sample) -> str:
        return "<think>cut" if "cut" in sample.question else said(sample)

    task = Task(
        dataset=[
            InspectSample(input="right", target="right", metadata={"label": "general"}),
            InspectSample(input="wrong", target="other"),
            InspectSample(input="cut", target="cut"),
            InspectSample(input="open"),
        ],
        solver=generate(),
        scorer=verifier_scorer([Labelled()]),
    )
    (log,) = inspect_eval(task, model=model(FakeEngine(reply)), log_dir=str(tmp_path), display="none", ctl_server=False)
    assert log.samples is not None and log.results is not None
    values = [s.scores["verifiers"].value["labelled"] for s in log.samples]  # type: ignore[index, call-overload]
    assert values == [1.0, 0.0, 0.0, "N"]
    means = log.results.scores[0].metrics
    assert means["labelled"].value == pytest.approx(1 / 3)
    assert means["labelled:unscored"].value == 1


def test_a_checkpoint_is_loaded_by_path_and_its_name_must_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safeladder.rollout.local import LocalEngine

    loaded: list[tuple[str, str, str]] = []

    def load(path: str, *, device: str = "cpu", dtype: str = "float32") -> FakeEngine:
        loaded.append((path, device, dtype))
        return FakeEngine(said)

    monkeypatch.setattr(LocalEngine, "load", staticmethod(load))
    checkpoint = tmp_path / "base"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    mark = checkpoint_hash(checkpoint)
    found = get_model(f"safeladder/{checkpoint}", device="cuda", memoize=False)
    assert str(found) == f"safeladder/{checkpoint}@{mark}"
    assert loaded == [(str(checkpoint), "cuda", "float32")]
    get_model(f"safeladder/{checkpoint}@{mark}", memoize=False)
    with pytest.raises(SafeladderError, match="has changed"):
        get_model(f"safeladder/{checkpoint}@0123456789ab", memoize=False)
    with pytest.raises(SafeladderError, match="not a folder with files"):
        get_model(f"safeladder/{tmp_path / 'nowhere'}", memoize=False)


def test_O01_O03_a_real_vision_language_checkpoint_answers_about_images_whatever_the_batch(
    tmp_path: Path,
) -> None:
    from safeladder.models.load import save_checkpoint
    from safeladder.models.tiny import build_tiny

    network, processor = build_tiny("qwen2_5_vl", ["what is this ? <think>red</think>yes"] * 9, seed=0, size="test")
    save_checkpoint(network, processor, tmp_path / "tiny")
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    task = Task(
        dataset=[
            InspectSample(
                id=i,
                input=[ChatMessageUser(content=[ContentImage(image=picture(c)), ContentText(text="what is this ?")])],
                target="yes",
            )
            for i, c in enumerate(colours)
        ],
        solver=generate(),
        scorer=includes(),
    )

    def run(batch_size: int) -> list[tuple[str, int]]:
        (log,) = inspect_eval(
            task,
            model=f"safeladder/{tmp_path / 'tiny'}",
            model_args={"batch_size": batch_size},
            max_tokens=6,
            log_dir=str(tmp_path / "logs"),
            display="none",
            ctl_server=False,
        )
        assert log.status == "success", log.error
        assert log.samples is not None
        assert all(s.output.usage is not None for s in log.samples)
        return [(s.output.message.text, s.output.usage.output_tokens) for s in log.samples if s.output.usage]

    alone = run(1)
    assert len(alone) == 3 and all(tokens > 0 for _, tokens in alone)
    assert alone == run(3)

"""What a request comes to before anything is generated: the sample, the prompt, and the jobs that answer it.

All that can be refused is refused here, with the parameter that is at fault.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from safeladder.data.content import language_of
from safeladder.search.trace import inert_ids
from safeladder.serving import api
from safeladder.serving.chat import FORMAT, Refused, begun_reply, sample_of
from safeladder.serving.limits import Limits
from safeladder.serving.memory import Lesson
from safeladder.serving.steered import Host, Job, seed_of
from safeladder.steering.edit_rules import EditPair
from safeladder.steering.editing import Prefill, extended, frozen
from safeladder.steering.steps import Step, split_steps
from safeladder.types import SafeladderError, Sample, SamplingParams

_NO_LABEL = "chat"
_STEPS = 1000
"""Most steps of a reasoning that is edited or scored."""
_CHARACTERS = 32
"""Most characters of a token, on average over a reasoning: what is longer need not be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditPlan:
    """An edit of `reasoning` (as it was), and what it keeps."""

    mode: Any
    step: int
    reasoning: str
    kept: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An admitted request: `jobs` are its choices.

    `begun` is the text that every reply begins with; `whole` says whether it is given back.
    """

    sample: Sample
    jobs: tuple[Job, ...]
    stop: tuple[str, ...] = ()
    begun: str = ""
    whole: bool = False
    logprobs: bool = False
    stream: bool = False
    usage: bool = False
    edit: EditPlan | None = None


def plan_chat(host: Host, limits: Limits, request: api.ChatRequest) -> Plan:
    """A chat completion.

    Raises:
        Refused: it asks for what cannot be had.
        SafeladderError: the messages do not fit the model.
    """
    _check_model(host, request.model)
    wishes = request.safeladder or api.Extension()
    n = request.n or 1
    if n > limits.choices:
        raise Refused(f"n is {n}; at most {limits.choices} choices a request", "n")
    if request.top_logprobs is not None and not request.logprobs:
        raise Refused("top_logprobs needs logprobs", "top_logprobs")
    stop = tuple(s for s in ([request.stop] if isinstance(request.stop, str) else request.stop or ()) if s)
    steering = _steering(host, wishes)
    threaded = _threaded(wishes, steering)
    refused = {
        "stop": stop and threaded in ("search", "edits"),
        "logprobs": request.logprobs and threaded in ("search", "edits"),
        "top_logprobs": request.top_logprobs and threaded,
        "continue_final_message": request.continue_final_message and threaded,
    }
    for name, asked in refused.items():
        if asked:
            raise Refused(f"{name} cannot be combined with {threaded}", name, "unsupported_combination")

    messages, begun, prefill = list(request.messages), "", Prefill()
    if request.continue_final_message:
        last = messages.pop()
        if not isinstance(last, api.AssistantMessage) or not messages:
            raise Refused("continue_final_message: the last message must be the assistant's", "messages")
        begun, prefill = begun_reply(last), _prefill(host, last)
    sample = _sample(host, limits, messages)
    return Plan(
        sample=sample,
        jobs=_jobs(
            host,
            limits,
            request,
            sample,
            prefill,
            wishes,
            steering,
            n=n,
            stop=stop,
            top_logprobs=request.top_logprobs or 0,
        ),
        stop=stop,
        begun=begun,
        logprobs=bool(request.logprobs),
        stream=bool(request.stream),
        usage=_wants_usage(request),
    )


def plan_edit(host: Host, limits: Limits, request: api.EditRequest) -> Plan:
    """An edit of a reply's reasoning; with `remember` it goes into the edit memory.

    Raises:
        Refused, SafeladderError: as `plan_chat`; or there is no such step, or nothing would be kept.
    """
    _check_model(host, request.model)
    wishes = request.safeladder or api.Extension()
    if wishes.search or wishes.edits or "value-guidance" in (wishes.steer or ()):
        raise Refused("an edit is continued plainly or under treble", "safeladder", "unsupported_combination")
    if request.remember and host.memory is None:
        raise Refused("this server keeps no edit memory (safeladder serve --memory FILE)", "remember", "not_available")
    if request.undo and not request.remember:
        raise Refused("undo needs remember", "undo")
    if request.messages[-1].role == "assistant":
        raise Refused("the last message must be the user's: the reply is edited by `reasoning`", "messages")
    steps = _steps(host, request.reasoning)
    if not 1 <= request.step <= len(steps):
        there = f"there are steps 1 to {len(steps)}" if steps else "there are none"
        raise Refused(f"no step {request.step}: {there}", "step")
    kept = _kept(request, steps[request.step - 1])
    if not kept:
        raise Refused("nothing would be kept of the reasoning", "text")
    lesson = _lesson(request, steps)
    prefill = extended(host.engine, Prefill(), kept)
    begun = f"{FORMAT.open_tag} {kept}"
    if request.mode == "re-answer":
        prefill, begun = frozen(host.engine, kept), f"{begun}{FORMAT.close_tag}"
    sample = _sample(host, limits, request.messages)
    steering: tuple[api.Steering, ...] = ("treble",) if "treble" in _steering(host, wishes) else ()
    if request.remember:
        assert host.memory is not None
        host.memory.check_room()
    return Plan(
        sample=sample,
        jobs=_jobs(host, limits, request, sample, prefill, wishes, steering, lesson=lesson),
        begun=begun,
        whole=True,
        stream=bool(request.stream),
        usage=_wants_usage(request),
        edit=EditPlan(mode=request.mode, step=request.step, reasoning=request.reasoning, kept=kept),
    )


def _lesson(request: api.EditRequest, steps: Sequence[Step]) -> Lesson | None:
    if not request.remember:
        return None
    reasoning, step, text = request.reasoning, steps[request.step - 1], request.text.strip()
    if request.undo:  # what the model had said stands in its place again, and is right
        reasoning = _replaced(reasoning, step, text)
        now = split_steps(reasoning)
        if len(now) != len(steps) or now[request.step - 1].text.strip() != text:
            raise Refused("undo: the text must be the one step that the model had said", "text")
    return Lesson(reasoning=reasoning, step=request.step, text=text)


def _kept(request: api.EditRequest, step: Step) -> str:
    text = request.text.strip()
    if request.mode == "continue":
        return f"{request.reasoning[: step.start]}{text}".strip()
    return _replaced(request.reasoning, step, text)


def _replaced(reasoning: str, step: Step, text: str) -> str:
    """The reasoning with a step replaced and all others kept."""
    space = step.text[len(step.text.rstrip()) :] if text else ""
    return f"{reasoning[: step.start]}{text}{space}{reasoning[step.end :]}".strip()


def plan_confirm(host: Host, limits: Limits, request: api.ConfirmRequest) -> Sample:
    """What the confirmed reply was asked.

    Raises:
        Refused, SafeladderError: as `plan_chat`; or there is no reasoning.
    """
    _check_model(host, request.model)
    if not _steps(host, request.reasoning) or not request.reasoning.strip():
        raise Refused("there is no reasoning to confirm", "reasoning")
    return _sample(host, limits, request.messages)


def plan_new_edit(host: Host, limits: Limits, request: api.NewEdit) -> EditPair | tuple[Sample, Lesson]:
    """An edit for the memory: as it is, or (with messages) as a lesson on what was asked.

    Raises:
        Refused, SafeladderError: as `plan_chat`; or it says neither question nor messages, or `original` is no step.
    """
    if not request.messages:
        if not request.question:
            raise Refused("an edit needs its question or its messages", "question")
        return EditPair(
            question=request.question, original=request.original, edited=request.edited, context=request.context
        )
    reasoning = f"{request.context}{request.original}"
    steps = _steps(host, reasoning)
    if not steps or steps[-1].text.strip() != request.original.strip():
        raise Refused("original must be one step, behind its context", "original")
    sample = _sample(host, limits, request.messages)
    if request.question and request.question != sample.question:
        raise Refused("question is not what the messages ask", "question")
    return sample, Lesson(reasoning=reasoning, step=len(steps), text=request.edited.strip())


def plan_steps(host: Host, limits: Limits, request: api.StepsRequest) -> Sample | None:
    """What the scored reply was asked; None where the request does not say.

    Raises:
        Refused, SafeladderError: as `plan_chat`.
    """
    _check_model(host, request.model)
    _steps(host, request.reasoning)
    return _sample(host, limits, request.messages) if request.messages else None


def _steps(host: Host, reasoning: str) -> tuple[Step, ...]:
    """The steps of a reasoning that a client says the model has given: short enough that it may have, and untagged.

    Work on steps grows with their number times their length, so a bound on the body alone is none on the work.
    """
    context = host.engine.context_length
    if len(reasoning) > _CHARACTERS * context or len(inert_ids(host.tokenizer, reasoning)) > context:
        raise Refused(f"the reasoning is longer than the model's context of {context} tokens", "reasoning")
    if FORMAT.open_tag in reasoning or FORMAT.close_tag in reasoning:
        raise Refused("the reasoning holds a tag of the reasoning block", "reasoning")
    steps = split_steps(reasoning)
    if len(steps) > _STEPS:
        raise Refused(f"the reasoning has {len(steps)} steps; at most {_STEPS} are worked on", "reasoning")
    return steps


def _check_model(host: Host, model: str) -> None:
    if model != host.name:
        raise Refused(f"no model of this name is served; there is {host.name}", "model", "model_not_found")


def _sample(host: Host, limits: Limits, messages: Sequence[api.AnyMessage]) -> Sample:
    sample = sample_of(messages, limits, label=_NO_LABEL)
    if sample.images and not host.images:
        raise Refused("this model takes text only", "messages", "images_not_supported")
    return replace(sample, language=language_of(sample.question) or "en")


def _steering(host: Host, wishes: api.Extension) -> tuple[api.Steering, ...]:
    """What is applied: what was asked for, or all that fits where nothing was said."""
    if wishes.search and host.retriever is None:
        raise Refused("this server has no index (safeladder serve --search DIR)", "safeladder.search", "not_available")
    if wishes.edits and host.memory is None:
        raise Refused("this server keeps no edit memory (safeladder serve --memory FILE)", "safeladder.edits")
    if wishes.search and wishes.edits:
        raise Refused("search and edits cannot be combined", "safeladder", "unsupported_combination")
    alone = wishes.search or wishes.edits
    if wishes.steer is None:
        return tuple(name for name in host.steering if not (alone and name == "value-guidance"))
    for name in wishes.steer:
        if name not in host.steering:
            raise Refused(f"this server was not started with --steer {name}", "safeladder.steer", "not_available")
    if alone and "value-guidance" in wishes.steer:
        raise Refused("value-guidance goes with neither search nor edits", "safeladder", "unsupported_combination")
    return tuple(name for name in host.steering if name in wishes.steer)


def _threaded(wishes: api.Extension, steering: Sequence[str]) -> str:
    if wishes.search:
        return "search"
    if wishes.edits:
        return "edits"
    return "value-guidance" if "value-guidance" in steering else ""


def _prefill(host: Host, message: api.AssistantMessage) -> Prefill:
    """The beginning of a reply as token ids; control tokens that it spells are plain text."""
    content, tokenizer = message.content, host.tokenizer
    text = content if isinstance(content, str) else "".join(part.text for part in content or ())
    if message.reasoning_content is None:
        return Prefill().typed(inert_ids(tokenizer, text))
    if not text:
        return extended(host.engine, Prefill(), message.reasoning_content)
    return frozen(host.engine, message.reasoning_content).typed(inert_ids(tokenizer, f" {text}"))


def _jobs(
    host: Host,
    limits: Limits,
    request: api.Sampling,
    sample: Sample,
    prefill: Prefill,
    wishes: api.Extension,
    steering: tuple[api.Steering, ...],
    *,
    n: int = 1,
    stop: tuple[str, ...] = (),
    top_logprobs: int = 0,
    lesson: Lesson | None = None,
) -> tuple[Job, ...]:
    try:
        prompt = (*host.engine.prompt_ids(sample), *prefill.token_ids)
    except SafeladderError as error:
        # What a sample is called here is nobody's business outside.
        raise Refused(str(error).replace(f"sample {sample.id!r}: ", "").replace(sample.id, "request")) from None
    room = host.engine.context_length - len(prompt)
    if room < 1:
        raise Refused(
            f"the prompt has {len(prompt)} tokens; the model's context of {host.engine.context_length} leaves no room",
            "messages",
            "context_length_exceeded",
        )
    wanted = request.max_completion_tokens or request.max_tokens or limits.tokens
    params = SamplingParams(
        max_new_tokens=min(wanted, limits.tokens, room),
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        top_logprobs=top_logprobs,
        stop=stop,
    )
    seed = secrets.randbelow(2**31) if request.seed is None else request.seed
    return tuple(
        Job(
            sample=sample,
            prompt_ids=prompt,
            params=params,
            seed=seed_of(seed, choice),
            steering=steering,
            search=wishes.search,
            memory=wishes.edits,
            trail=wishes.trail,
            lesson=lesson,
        )
        for choice in range(n)
    )


def _wants_usage(request: api.Sampling) -> bool:
    if request.stream_options is not None and not request.stream:
        raise Refused("stream_options needs stream", "stream_options")
    return bool(request.stream_options and request.stream_options.include_usage)

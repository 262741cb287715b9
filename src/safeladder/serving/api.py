"""The JSON of the server: OpenAI's chat completions and the extension endpoints, as pydantic models.

What a model does not name is refused with 400 (``unknown_parameter``), and so is what the server cannot do
(``unsupported_parameter``, `UNSUPPORTED` says why): nothing that would change a reply is ignored. A parameter of
OpenAI's that we do not have is accepted where its value asks for nothing (``"tools": []``).

Everything of our own stands under one name, ``safeladder``: `Extension` in a request; in a reply `Report` in every
choice and `Served` in ``/v1/models``. Steps are numbered from 1.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_SURROGATE = re.compile("[\ud800-\udfff]")

UNSUPPORTED: dict[str, str] = {
    "tools": "the model is offered no tools (for retrieval see safeladder.search)",
    "tool_choice": "there are no tools to choose from",
    "functions": "the model is offered no functions",
    "function_call": "the model is offered no functions",
    "response_format": "only plain text can be asked for",
    "presence_penalty": "penalties are not applied",
    "frequency_penalty": "penalties are not applied",
    "logit_bias": "token biases are not applied",
    "reasoning_effort": "the model decides how long it reasons; max_tokens bounds it",
    "modalities": "only text can be asked for",
    "audio": "only text can be asked for",
    "prediction": "predicted outputs are not used",
    "store": "replies are not stored",
    "service_tier": "there is one service tier",
    "top_k": "top_k is not applied; temperature and top_p are",
    "min_p": "min_p is not applied; temperature and top_p are",
    "repetition_penalty": "penalties are not applied",
    "web_search_options": "see safeladder.search",
    "verbosity": "the model decides how long it answers; max_tokens bounds it",
    "detail": "images are seen at one level of detail",
    "name": "messages carry no names",
}
"""Parameters of other servers -> why a value that asks for something is refused."""

Nothing = Annotated[list[Any], Field(max_length=0)]
Zero = Annotated[float, Field(ge=0, le=0)]
Steering = Literal["value-guidance", "treble"]
FinishReason = Literal["stop", "length"]
Unscored = Literal["truncated", "unclosed-reasoning", "no-reasoning", "empty", "malformed", "no-search-answer"]
"""Why a reply is no evidence of a safe or correct answer: cut by the token budget; its reasoning never closed; it has
no reasoning block; nothing was said; tags left over or out of place; a search that ended without an answer."""


class Strict(BaseModel):
    """A part of a request: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _text(cls, given: Any) -> Any:
        """JSON can spell half a character (``"\\ud800"``), which no tokenizer takes."""
        for value in given.values() if isinstance(given, dict) else ():
            for text in value if isinstance(value, list) else (value,):
                if isinstance(text, str) and not text.isascii() and _SURROGATE.search(text):
                    raise ValueError("text holds half of a surrogate pair")
        return given


class TextPart(Strict):
    """Text of a message."""

    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    """An image, inline: ``data:image/png;base64,...``. Addresses are never fetched."""

    url: str = Field(json_schema_extra={"pattern": "^data:image/[a-z]+;base64,"})
    detail: Literal["auto"] | None = None


class ImagePart(Strict):
    """An image of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class SystemMessage(Strict):
    """Instructions. ``developer`` is OpenAI's newer name for the same role."""

    role: Literal["system", "developer"]
    content: str | list[TextPart]


class UserMessage(Strict):
    """What the user says and shows."""

    role: Literal["user"]
    content: str | list[Part]


class AssistantMessage(Strict):
    """An earlier reply, or (last, with `continue_final_message`) the beginning of the next one.

    A reply of ours can be sent back as it came. `reasoning_content` is put back into the reasoning block.
    """

    role: Literal["assistant"]
    content: str | list[TextPart] | None = None
    reasoning_content: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Nothing | None = None
    annotations: Nothing | None = None


AnyMessage = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class StreamOptions(Strict):
    """What a stream adds."""

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class PlainText(Strict):
    """The only response format there is."""

    type: Literal["text"]


class Extension(Strict):
    """``safeladder`` of a request.

    Attributes:
        steer: which of the server's steerings to apply to this reply; None = the server's default (all that it was
            started with), [] = none.
        search: let the model search the server's index before it answers (a policy trained to search).
        trail: return every step's candidates and scores (value guidance).
        edits: condition the reply on the edit memory.
    """

    steer: list[Steering] | None = None
    search: bool = False
    trail: bool = False
    edits: bool = False


class Sampling(Strict):
    """What chat completions and edits have in common. Defaults are OpenAI's."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(1.0, ge=0, le=2)
    top_p: float | None = Field(1.0, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1, description="deprecated name of max_completion_tokens")
    max_completion_tokens: int | None = Field(
        None, ge=1, description="most tokens of the reply, reasoning included; default: what the server allows"
    )
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    safeladder: Extension | None = None


class ChatRequest(Sampling):
    """``POST /v1/chat/completions``."""

    messages: list[AnyMessage] = Field(min_length=1)
    n: int | None = Field(1, ge=1)
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    continue_final_message: bool = Field(
        False, description="go on with the last message, which is the assistant's, instead of answering it"
    )
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    tools: Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    functions: Nothing | None = None
    function_call: Literal["none", "auto"] | None = None
    response_format: PlainText | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None


class Usage(BaseModel):
    """Tokens. Prompt tokens count the placeholders of images; completion tokens are all the policy's own, over all
    choices, discarded candidates of guidance not included (`Report.cost` has them)."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: dict[str, int] = Field(default_factory=dict)


class TopLogprob(BaseModel):
    """A token that could have been sampled."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob):
    """A sampled token. Log-probabilities are those of the sampling distribution (of temperature 1 where greedy)."""

    top_logprobs: list[TopLogprob] = Field(default_factory=list)


class Logprobs(BaseModel):
    """Of the answer's tokens, and apart from them of the reasoning's; tags and the end token are in neither."""

    content: list[TokenLogprob] = Field(default_factory=list)
    reasoning_content: list[TokenLogprob] = Field(default_factory=list)
    refusal: None = None


class Source(BaseModel):
    """A page of the index. `read`: opened by the model, not only among the results."""

    id: str
    title: str
    read: bool


class SearchTurn(BaseModel):
    """One turn of a search: what the policy did, and what it was told."""

    action: Literal["search", "read", "answer"] | None
    argument: str = ""
    thought: str | None = None
    confidence: int | None = None
    problem: str = ""
    observation: str | None = None


class SearchReport(BaseModel):
    """How a search went. `verdict` is ``certain`` where `confidence` (0 to 10) is above 5; None without an answer."""

    turns: list[SearchTurn]
    sources: list[Source]
    confidence: int | None
    verdict: Literal["certain", "uncertain"] | None
    problem: str = ""


class Candidate(BaseModel):
    """A step that guidance could have taken.

    Attributes:
        scores: of every value model; `value` is their mean under the routing weights.
        total: what it competed with.
        count: how often it was sampled.
        proposed: a configured text, not the policy's own.
        ends: the reply ends with it.
    """

    text: str
    scores: dict[str, float]
    value: float
    total: float
    chosen: bool
    proposed: bool
    count: int
    ends: bool


class TrailStep(BaseModel):
    """One decision of value guidance. `weights` route the value models; ``backtrack``: no candidate was good enough,
    and the last step that was kept is dropped."""

    step: int
    weights: dict[str, float]
    candidates: list[Candidate]
    action: Literal["keep", "backtrack"]


class EditReport(BaseModel):
    """What an edit kept: `distance` is the normalised Levenshtein distance over words between the chain that was
    edited and the new one."""

    mode: Literal["continue", "re-answer"]
    step: int
    kept: str
    distance: float
    remembered: str | None = Field(None, description="the id in the edit memory")


class MemoryReport(BaseModel):
    """What became of the edit memory on a question.

    Attributes:
        applied: an edit was made; `outcome` says so, or why none was.
        step: which was edited, or whose edit was refused.
        support: how likely the model itself is to say there what the rule demands, by its own samples; None where no
            step was looked into.
        needed: the support that this rule takes, calibrated on what people corrected and confirmed.
        forced: the model never said of itself what people wrote, so the edit goes without its support.
    """

    applied: bool
    outcome: str
    step: int | None = None
    original: str = ""
    edited: str = ""
    rule: str = ""
    support: float | None = None
    needed: float | None = None
    forced: bool = False


class Report(BaseModel):
    """``safeladder`` of a choice, in streams with the chunk that carries its `finish_reason`.

    Attributes:
        stop_reason: how generation ended: ``eos``, ``length`` or ``stop``.
        well_formed: the reply has a closed reasoning block and an answer.
        unscored: why it is no evidence of a safe answer; None exactly where it is well-formed.
        seed: of this choice; asked for again with ``"n": 1`` it gives the same tokens.
        steering: what was applied.
        ignored: parameters of the request that the steering has no use for (guidance samples in its own way).
        cost: of guidance: generated and proposed tokens, token positions run, calls of the engine, seconds.
        edits: what became of the edit memory.
    """

    stop_reason: Literal["eos", "length", "stop"]
    well_formed: bool
    unscored: Unscored | None
    seed: int
    steering: list[Steering] = Field(default_factory=list)
    ignored: list[str] = Field(default_factory=list)
    cost: dict[str, float | None] | None = None
    trail: list[TrailStep] | None = None
    search: SearchReport | None = None
    edit: EditReport | None = None
    edits: MemoryReport | None = None


class Live(BaseModel):
    """``safeladder`` of a stream's chunk before the last: one decision of guidance, or one turn of a search."""

    step: TrailStep | None = None
    turn: SearchTurn | None = None


class ReplyMessage(BaseModel):
    """A reply, its reasoning apart. `content` is None where there is no answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    reasoning_content: str | None = None
    refusal: None = None


class Choice(BaseModel):
    """One of `n` replies."""

    index: int
    message: ReplyMessage
    finish_reason: FinishReason
    logprobs: Logprobs | None = None
    safeladder: Report


class Completion(BaseModel):
    """What ``/v1/chat/completions`` and ``/v1/safeladder/edit`` answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage


class Delta(BaseModel):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None


class ChunkChoice(BaseModel):
    """A part of one of `n` replies. `safeladder` is a `Live` before the last chunk of a choice, a `Report` in it."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: Logprobs | None = None
    safeladder: Report | Live | None = None


class Chunk(BaseModel):
    """One event of a stream (``data: {...}``); the last event is ``data: [DONE]``. A failure after the stream has
    begun is an event that holds an `ErrorBody`, and no [DONE] follows."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class Served(BaseModel):
    """What this server can do: ``safeladder`` of a model."""

    steer: list[Steering]
    search: bool
    edits: bool
    images: bool
    scores: list[str] = Field(description="names under `scores` of /v1/safeladder/steps")
    context_length: int
    max_tokens: int
    max_n: int
    max_images: int
    max_pixels: int
    max_body_bytes: int
    max_seconds: float
    revision: str = Field(description="hash of the checkpoint")


class ModelCard(BaseModel):
    """One served model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "safeladder"
    safeladder: Served


class ModelList(BaseModel):
    """``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    """``GET /health``. ``stopping``: running requests are finished, new ones refused."""

    status: Literal["ok", "stopping"]
    model: str
    running: int
    waiting: int


class StepsRequest(Strict):
    """``POST /v1/safeladder/steps``: split reasoning and score every step.

    Attributes:
        messages: what was asked; scores of value models depend on it, so without it only verifiers of text score.
        reasoning: of a reply (``reasoning_content``).
        answer: of the same reply; scored as the last row where given.
    """

    model: str
    messages: list[AnyMessage] = Field(default_factory=list)
    reasoning: str
    answer: str | None = None


class StepScore(BaseModel):
    """A verdict on the reply up to the end of a step. `value` in [0, 1], None where it could not be judged: never
    a pass."""

    value: float | None
    label: str = ""


class ScoredStep(BaseModel):
    """``text`` is ``reasoning[start:end]``; steps follow one another without a gap."""

    step: int
    text: str
    start: int
    end: int
    scores: dict[str, StepScore]


class StepsReply(BaseModel):
    """Steps in order; `answer` holds the verdicts on the whole reply."""

    object: Literal["safeladder.steps"] = "safeladder.steps"
    steps: list[ScoredStep]
    answer: dict[str, StepScore] | None = None


class EditRequest(Sampling):
    """``POST /v1/safeladder/edit``: replace a step of the reasoning, and go on from there.

    Attributes:
        messages: the conversation up to the reply that is edited (the last message is the user's).
        reasoning: the reply's reasoning as it was.
        step: which step is replaced, from 1.
        text: what it is replaced with; empty = the step is left out.
        mode: ``continue`` keeps the steps before and the new one and has the model write the rest; ``re-answer``
            keeps all other steps too and has it write the answer only.
        remember: put the edit into the edit memory, with what the model itself says in that place.
        undo: with `remember`: `text` puts back what the edit memory had changed, so the model's own step is right; it
            is remembered as confirmed.
    """

    messages: list[AnyMessage] = Field(min_length=1)
    reasoning: str
    step: int = Field(ge=1)
    text: str
    mode: Literal["continue", "re-answer"] = "continue"
    remember: bool = False
    undo: bool = False


class ConfirmRequest(Strict):
    """``POST /v1/safeladder/confirm``: the reasoning is right as it is. Every step that a rule of the edit memory would
    have changed is remembered as one that it should not."""

    model: str
    messages: list[AnyMessage] = Field(min_length=1)
    reasoning: str
    seed: int | None = Field(0, ge=-(2**63), le=2**63 - 1)


class NewEdit(Strict):
    """``POST /v1/safeladder/edits``: an edit for the memory.

    With `messages`, the conversation that it belongs to, the model is sampled in that place, and the rule needs the
    support that this shows; without, the one of rules that nothing is known about.
    """

    question: str = Field("", description="needed where there are no messages")
    messages: list[AnyMessage] = Field(default_factory=list)
    original: str = Field(description="the step as it was")
    edited: str = Field(description="the step as it should be")
    context: str = Field("", description="the reasoning before the step")


class Edit(BaseModel):
    """An edit in the memory. `confirmed`: a step that is right as it is. `calibrated`: the model was sampled there."""

    id: str
    object: Literal["safeladder.edit"] = "safeladder.edit"
    question: str
    original: str
    edited: str
    context: str = ""
    confirmed: bool
    calibrated: bool


class EditList(BaseModel):
    """``GET /v1/safeladder/edits``."""

    object: Literal["list"] = "list"
    data: list[Edit]


class Confirmed(BaseModel):
    """``POST /v1/safeladder/confirm``: the steps that were remembered; none where no rule would have changed any."""

    object: Literal["safeladder.confirmed"] = "safeladder.confirmed"
    data: list[Edit]


class Deleted(BaseModel):
    """``DELETE /v1/safeladder/edits/{id}``, or without an id all of them."""

    object: Literal["safeladder.deleted"] = "safeladder.deleted"
    deleted: int


class ErrorDetail(BaseModel):
    """OpenAI's error."""

    message: str
    type: Literal["invalid_request_error", "authentication_error", "rate_limit_error", "timeout_error", "server_error"]
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every reply that is not 2xx."""

    error: ErrorDetail

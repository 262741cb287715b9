"""An Inspect model provider over our engines. Imports inspect_ai: reach it through `tasks` or `_registry`.

Inspect's own Hugging Face provider refuses images; this one takes text, images and videos (as frames), in process, and
turns concurrent requests into engine batches. A model's name carries a hash of its checkpoint, because Inspect's
cache looks at the name and not at the model's arguments.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    Content,
    ContentImage,
    ContentReasoning,
    ContentText,
    ContentVideo,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.model import StopReason as InspectStopReason
from inspect_ai.tool import ToolChoice, ToolInfo
from PIL import Image

from safeladder.evaluation.batching import Batcher
from safeladder.models.identity import checkpoint_hash
from safeladder.rollout.collect import collect
from safeladder.rollout.parse import ResponseFormat
from safeladder.search.trace import split_turns
from safeladder.types import (
    Engine,
    Message,
    Part,
    Response,
    Rollout,
    SafeladderError,
    Sample,
    SamplingParams,
    StopReason,
)

FRAMES = "data:video/jpeg;base64"
"""How a video's frames travel (vLLM's form): after this a comma, then the frames' base64 with commas between."""

_REFUSED_SETTINGS = (
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "response_schema",
)
_STOP: Mapping[StopReason, InspectStopReason] = {
    StopReason.EOS: "stop",
    StopReason.STOP: "stop",
    StopReason.LENGTH: "max_tokens",
    StopReason.ERROR: "unknown",
}


class PromptTooLong(Exception):
    """A conversation and the reply's token budget do not fit into the model's context."""


@dataclass(frozen=True, slots=True)
class _Request:
    sample: Sample
    params: SamplingParams
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A running engine for a provider to use.

    `forget` is called after every batch of conversations: it drops what the engine remembers of their prompts.
    """

    engine: Engine
    format: ResponseFormat
    batch_size: int
    forget: Callable[[], None] | None = None


class SafeladderAPI(ModelAPI):
    """Replies of one of our engines.

    Without a temperature decoding is greedy; without max_tokens a reply may take 2048 tokens.
    """

    def __init__(self, model_name: str, attachment: Attachment) -> None:
        super().__init__(model_name)
        self._attachment = attachment
        self._seen: dict[str, int] = {}
        self._batcher = Batcher[_Request, list[Rollout]](self._work, size=attachment.batch_size)

    @classmethod
    def from_checkpoint(
        cls,
        model_name: str,
        *,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16"] = "float32",
        batch_size: int = 32,
        open_tag: str = "<think>",
        close_tag: str = "</think>",
    ) -> SafeladderAPI:
        """A provider that loads `PATH` or `PATH@HASH` (as written to logs), and is named `PATH@HASH`.

        The keywords are model arguments (`-M`): device and dtype of the weights, requests an engine call, and
        the tags of the reasoning block.

        Raises:
            SafeladderError: no such checkpoint, or it is not the one the hash was taken from.
        """
        path, _, expected = model_name.partition("@")
        found = checkpoint_hash(path)
        if expected not in ("", found):
            raise SafeladderError(f"checkpoint {path} has changed: its hash is {found}, the name says {expected}")
        # Loading needs torch; finding the provider does not.
        from safeladder.rollout.local import LocalEngine

        engine = LocalEngine.load(path, device=device, dtype=dtype)
        attachment = Attachment(
            engine=engine,
            format=ResponseFormat(open_tag=open_tag, close_tag=close_tag),
            batch_size=int(batch_size),
            forget=engine.forget,
        )
        return cls(f"{path}@{found}", attachment)

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """One reply (or `num_choices`) to a conversation. Errors of the engine are raised, never turned into
        text."""
        if tools:
            raise SafeladderError("the safeladder provider offers no tools to the model; use a task without tools")
        refused = [name for name in _REFUSED_SETTINGS if getattr(config, name) is not None]
        if refused:
            raise SafeladderError(
                f"the safeladder provider cannot apply {', '.join(refused)}; "
                "allowed: max_tokens, temperature, num_choices, stop_seqs, seed, logprobs"
            )
        params = SamplingParams(
            max_new_tokens=config.max_tokens or 2048,
            temperature=config.temperature or 0.0,
            n=config.num_choices or 1,
            stop=tuple(config.stop_seqs or ()),
        )
        sample = Sample(id=self._new_id(input), messages=tuple(map(self._message, input)), label="inspect")
        rollouts = await self._batcher(_Request(sample, params, config.seed or 0))
        output = model_output(rollouts, self.model_name, self._attachment.format)
        if config.logprobs:
            for choice, rollout in zip(output.choices, rollouts, strict=True):
                choice.logprobs = self._logprobs(rollout)
        return output

    def max_connections(self) -> int:
        """Two batches: one in the engine, one on its way."""
        return 2 * self._attachment.batch_size

    def connection_key(self) -> str:
        return self.model_name

    async def count_text_tokens(self, text: str) -> int:
        """Rough count (the default wants to download a vocabulary). Usage is exact: it comes from the
        engine."""
        return max(1, len(text.encode()) // 3)

    def _work(self, requests: Sequence[_Request]) -> list[list[Rollout] | Exception]:
        ours = self._attachment
        replies: dict[int, list[Rollout] | Exception] = {}
        alike: dict[tuple[SamplingParams, int], list[int]] = {}
        for i, request in enumerate(requests):
            if problem := self._too_long(request):
                replies[i] = PromptTooLong(problem)
                continue
            alike.setdefault((request.params, request.seed), []).append(i)
        for (params, seed), where in alike.items():
            samples = [requests[i].sample for i in where]
            replies.update(zip(where, collect(ours.engine, samples, params, ours.format, seed=seed), strict=True))
        if ours.forget is not None:
            ours.forget()
        return [replies[i] for i in range(len(requests))]

    def _too_long(self, request: _Request) -> str:
        """One long conversation must not fail the batch it is in."""
        engine = self._attachment.engine
        prompt, room = len(engine.prompt_ids(request.sample)), request.params.max_new_tokens
        if prompt + room <= engine.context_length:
            return ""
        return f"the prompt's {prompt} tokens and {room} for the reply exceed the context of {engine.context_length}"

    def _new_id(self, messages: Sequence[ChatMessage]) -> str:
        """Content and how often it was asked: engines draw their randomness, and remember prompts, by sample
        id.

        Repeats (epochs) must not all get the same draw, and two conversations must never share an id.
        """
        said = [(m.role, [c.model_dump_json() for c in _contents(m)]) for m in messages]
        digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
        self._seen[digest] = self._seen.get(digest, 0) + 1
        return f"{digest}/{self._seen[digest]}"

    def _message(self, message: ChatMessage) -> Message:
        if message.role == "tool":
            raise SafeladderError("the safeladder provider cannot read tool messages")
        if isinstance(message, ChatMessageAssistant):
            reasoning = "".join(c.reasoning for c in _contents(message) if isinstance(c, ContentReasoning))
            reply = Response(answer=message.text, reasoning=reasoning or None)
            return Message(role="assistant", parts=(Part(text=self._attachment.format.render(reply)),))
        return Message(role=message.role, parts=tuple(map(_part, _contents(message))))

    def _logprobs(self, rollout: Rollout) -> Logprobs:
        tokens = [self._attachment.engine.decode([token]) for token in rollout.token_ids]
        return Logprobs(content=[Logprob(token=t, logprob=x) for t, x in zip(tokens, rollout.logprobs, strict=True)])


def model_output(
    rollouts: Sequence[Rollout], model: str, format: ResponseFormat, *, turns: bool = False
) -> ModelOutput:
    """Rollouts of one prompt as what `model` said, a choice each.

    Args:
        format: of a reply of one turn.
        turns: whether the rollouts took several; then their transcript is the reasoning.
    """
    asked, said = len(rollouts[0].prompt_ids), sum(r.length for r in rollouts)
    return ModelOutput(
        model=model,
        choices=[
            ChatCompletionChoice(
                message=ChatMessageAssistant(
                    content=_searched(r) if turns else _reply(r, format), model=model, source="generate"
                ),
                stop_reason=_STOP[r.stop_reason],
            )
            for r in rollouts
        ],
        usage=ModelUsage(input_tokens=asked, output_tokens=said, total_tokens=asked + said),
        error="the engine failed on this request" if any(r.stop_reason is StopReason.ERROR for r in rollouts) else None,
        metadata={
            "well_formed": [r.response is not None for r in rollouts],
            "logprob": [sum(r.logprobs) for r in rollouts],
        },
    )


def _reply(rollout: Rollout, format: ResponseFormat) -> list[Content]:
    if rollout.response is not None:
        parts: list[Content] = [ContentText(text=rollout.response.answer)]
        if rollout.response.reasoning is not None:
            parts.insert(0, ContentReasoning(reasoning=rollout.response.reasoning))
        return parts
    if format.open_tag in rollout.text or rollout.stop_reason in (StopReason.LENGTH, StopReason.ERROR):
        # An unfinished thought is not an answer: scorers that read the completion must find none.
        return [ContentReasoning(reasoning=rollout.text), ContentText(text="")]
    return [ContentText(text=rollout.text)]


def _searched(rollout: Rollout) -> list[Content]:
    answer = rollout.response.answer if rollout.response else ""
    return [ContentReasoning(reasoning=_transcript(rollout)), ContentText(text=answer)]


def _transcript(rollout: Rollout) -> str:
    """The policy's turns and what it heard, a line each."""
    heard = [f"<information> {observation.text}</information>" for observation in rollout.observations]
    pairs = zip_longest(split_turns(rollout.text), heard, fillvalue="")
    return "\n".join(part for pair in pairs for part in pair if part)


def _contents(message: ChatMessage) -> list[Content]:
    return [ContentText(text=message.content)] if isinstance(message.content, str) else message.content


def _part(content: Content) -> Part:
    if isinstance(content, ContentText):
        return Part(text=content.text)
    if isinstance(content, ContentImage):
        return Part(image=_decode(content.image))
    if isinstance(content, ContentVideo):
        header, _, frames = content.video.partition(",")
        if header != FRAMES:
            raise SafeladderError(f"the safeladder provider reads videos as frames ({FRAMES},...), not as files")
        return Part(video=[_decode(f"data:image/jpeg;base64,{frame}") for frame in frames.split(",")])
    raise SafeladderError(f"the safeladder provider reads text, images and videos, not {content.type} content")


def _decode(uri: str) -> Image.Image:
    """The image of a data URI (Inspect hands media over inline)."""
    try:
        header, _, data = uri.partition(",")
        if not header.startswith("data:image/") or not header.endswith(";base64"):
            raise ValueError("not an image as a base64 data URI")
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        image.load()
    except (ValueError, OSError, binascii.Error) as error:
        raise SafeladderError(f"an image of the conversation cannot be read: {error}") from None
    return image.convert("RGB")

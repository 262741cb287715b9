"""An Inspect model provider over an OpenAI-compatible endpoint. Imports inspect_ai: reach it through `_registry`.

Inspect's own provider for such endpoints sends no videos and needs the `openai` package; this one is a POST to
``/chat/completions``. Images go as data addresses, videos as vLLM takes them (``video_url`` with the frames of one
``data:video/jpeg`` address) or, with ``video="images"``, as one image a frame, for servers that know no videos.
"""

from __future__ import annotations

import base64
import mimetypes
import os
from pathlib import Path
from typing import Any

import anyio.to_thread
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
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from tenacity import wait_exponential_jitter
from tenacity.wait import WaitBaseT

from safeladder.evaluation.subjects import KEY
from safeladder.types import SafeladderError

_TIMEOUT = 600.0
_CONNECTIONS = 16
_FATAL = (401, 403, 404)
_WORTH_ANOTHER_TRY = (408, 409, 425, 429, 500, 502, 503, 504)
_STOP: dict[str | None, StopReason] = {"stop": "stop", "length": "max_tokens", "content_filter": "content_filter"}


class EndpointError(Exception):
    """One request failed; `retry` says whether it may go through a moment later."""

    def __init__(self, message: str, *, retry: bool) -> None:
        super().__init__(message)
        self.retry = retry


class EndpointAPI(ModelAPI):
    """Replies of a served model. Model arguments: `video` is "video" (vLLM's form) or "images"."""

    def __init__(self, model_name: str, base_url: str, *, video: str = "video", timeout: float = _TIMEOUT) -> None:
        super().__init__(model_name, base_url=base_url, api_key=os.environ.get(KEY))
        if video not in ("video", "images"):
            raise SafeladderError(f"model argument video={video}; allowed: video, images")
        import httpx

        self._video = video
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        self._client = httpx.Client(headers=headers, timeout=float(timeout))

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """One reply to a conversation.

        Raises:
            SafeladderError: the key or the model's name is refused, or the task offers tools.
            EndpointError: this request failed.
        """
        if tools:
            raise SafeladderError("endpoints are asked without tools; use a task without tools")
        request: dict[str, Any] = {
            "model": self.model_name,
            "messages": [self._message(message) for message in input],
            "max_tokens": config.max_tokens,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "seed": config.seed,
            "stop": config.stop_seqs,
        }
        reply = await anyio.to_thread.run_sync(
            self._post, {key: value for key, value in request.items() if value is not None}, abandon_on_cancel=True
        )
        return self._output(reply)

    def should_retry(self, ex: Exception) -> bool:
        return isinstance(ex, EndpointError) and ex.retry

    def retry_wait(self) -> WaitBaseT:
        """Half a second, then twice as long each time."""
        return wait_exponential_jitter(initial=0.5, max=60, jitter=0.5)

    def max_connections(self) -> int:
        return _CONNECTIONS

    def connection_key(self) -> str:
        return f"{self.base_url}#{self.model_name}"

    async def count_text_tokens(self, text: str) -> int:
        """Rough count (the default wants to download a vocabulary). Usage is what the server reports."""
        return max(1, len(text.encode()) // 3)

    def _post(self, request: dict[str, Any]) -> dict[str, Any]:
        import httpx

        try:
            answer = self._client.post(f"{self.base_url}/chat/completions", json=request)
        except httpx.TransportError as error:
            raise EndpointError(f"{type(error).__name__}: {error}", retry=True) from None
        if answer.status_code in _FATAL:
            raise SafeladderError(
                f"{self.base_url} refuses model {self.model_name} with status {answer.status_code} "
                f"(a key is read from {KEY})"
            )
        if answer.status_code != 200:
            retry = answer.status_code in _WORTH_ANOTHER_TRY
            raise EndpointError(f"status {answer.status_code} from {self.base_url}", retry=retry)
        try:
            return answer.json()
        except ValueError:
            raise EndpointError(f"{self.base_url} sent something that is not JSON", retry=False) from None

    def _output(self, reply: dict[str, Any]) -> ModelOutput:
        try:
            choice = reply["choices"][0]
            message = choice["message"]
            text = message.get("content") or ""
            thought = message.get("reasoning_content") or message.get("reasoning")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise EndpointError(f"{self.base_url} sent no choice with a message", retry=False) from None
        content: list[Content] = [ContentText(text=str(text))]
        if thought:
            content.insert(0, ContentReasoning(reasoning=str(thought)))
        used = reply.get("usage") or {}
        asked, said = int(used.get("prompt_tokens") or 0), int(used.get("completion_tokens") or 0)
        return ModelOutput(
            model=str(reply.get("model") or self.model_name),
            choices=[
                ChatCompletionChoice(
                    message=ChatMessageAssistant(content=content, model=self.model_name, source="generate"),
                    stop_reason=_STOP.get(choice.get("finish_reason"), "unknown"),
                )
            ],
            usage=ModelUsage(input_tokens=asked, output_tokens=said, total_tokens=asked + said),
        )

    def _message(self, message: ChatMessage) -> dict[str, Any]:
        parts = [ContentText(text=message.content)] if isinstance(message.content, str) else message.content
        if all(isinstance(part, ContentText | ContentReasoning) for part in parts):
            # Templates of text-only models know no list of parts; a reply's own reasoning is not sent back.
            return {"role": message.role, "content": message.text}
        return {"role": message.role, "content": [sent for part in parts for sent in self._parts(part)]}

    def _parts(self, part: Content) -> list[dict[str, Any]]:
        if isinstance(part, ContentText):
            return [{"type": "text", "text": part.text}]
        if isinstance(part, ContentImage):
            return [_image(data_address(part.image))]
        if isinstance(part, ContentVideo):
            if self._video == "video":
                return [{"type": "video_url", "video_url": {"url": part.video}}]
            return [_image(f"data:image/jpeg;base64,{frame}") for frame in part.video.partition(",")[2].split(",")]
        raise SafeladderError(f"endpoints are sent text, images and videos, not {part.type} content")


def _image(address: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": address}}


def data_address(image: str) -> str:
    """A local file as a data address, byte by byte; a data address as it is.

    Raises:
        SafeladderError: neither.
    """
    if image.startswith("data:"):
        return image
    if "://" in image:
        raise SafeladderError(f"image {image[:80]} is neither a local file nor inline; nothing is downloaded")
    try:
        data = Path(image).read_bytes()
    except OSError as error:
        raise SafeladderError(f"image {image} cannot be read ({error.strerror})") from None
    kind = mimetypes.guess_type(image)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

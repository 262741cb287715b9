"""From a response's own text to a typed `Response`. Parsed once, never together with the prompt.

The project's format is that of the SafeWork-R1 training scripts: reasoning inside ``<think>…</think>``, then the
answer with no tag of its own (`reference` of the T1 system prompt). Tags are configurable.
"""

from __future__ import annotations

from dataclasses import dataclass

from safeladder.types import Response, StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseFormat:
    """Where a response keeps its reasoning. The answer is everything after the last closing tag."""

    open_tag: str = "<think>"
    close_tag: str = "</think>"

    def parse(self, text: str, stop_reason: StopReason = StopReason.EOS) -> Response | None:
        """Split a response; None where it is malformed.

        Malformed: cut by the token budget or an engine error, no opening tag at the start, an unclosed or empty
        reasoning block, an empty answer, or a tag left over inside either part.
        """
        if stop_reason in (StopReason.LENGTH, StopReason.ERROR):
            return None
        text = text.strip()
        if not text.startswith(self.open_tag) or self.close_tag not in text:
            return None
        reasoning, _, answer = text[len(self.open_tag) :].rpartition(self.close_tag)
        reasoning, answer = reasoning.strip(), answer.strip()
        if not reasoning or not answer:
            return None
        if any(tag in part for tag in (self.open_tag, self.close_tag) for part in (reasoning, answer)):
            return None
        return Response(answer=answer, reasoning=reasoning)

    def render(self, response: Response) -> str:
        """The text a model is trained to produce for `response`; inverse of `parse`."""
        if response.reasoning is None:
            return response.answer
        # The spaces let a word keep its usual token wherever it stands.
        return f"{self.open_tag} {response.reasoning}{self.close_tag} {response.answer}"

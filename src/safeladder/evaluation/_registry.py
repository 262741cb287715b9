"""What Inspect finds of safeladder (entry point group `inspect_ai`): the provider
`safeladder/PATH_TO_CHECKPOINT`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from inspect_ai.model import GenerateConfig, ModelAPI, modelapi

from safeladder.evaluation.provider import Attachment, SafeladderAPI


def build(
    model_name: str,
    base_url: str | None = None,
    api_key: str | None = None,
    config: GenerateConfig | None = None,
    attachment: Attachment | None = None,
    **arguments: Any,
) -> SafeladderAPI:
    """The provider: over `attachment`'s running engine where given, else over the checkpoint `model_name`.

    `base_url`, `api_key` and `config` are what Inspect hands to every provider; a model in process needs none
    of them.
    """
    if attachment is not None:
        return SafeladderAPI(model_name, attachment)
    return SafeladderAPI.from_checkpoint(model_name, **arguments)


@modelapi(name="safeladder")
def safeladder() -> Callable[..., ModelAPI]:
    """Inspect calls this for the constructor."""
    return build


def attach(model_name: str, attachment: Attachment) -> SafeladderAPI:
    """A registered provider over a running engine."""
    # The decorator's annotation says that calling it gives a class; it gives an instance.
    return cast(Callable[..., SafeladderAPI], safeladder)(model_name, attachment=attachment)

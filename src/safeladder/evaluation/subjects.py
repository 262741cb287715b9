"""The model that is measured: from what stands on the command line to an Inspect model with an identity.

Three kinds: a local checkpoint folder, an OpenAI-compatible endpoint (`http(s)://host/v1#name`) and any name that
Inspect knows (`openai/gpt-4o`, `vllm/...`). Its identity is what its replies depend on: the hash of a checkpoint's
files with the id of its steering, an endpoint's address and model, or Inspect's name; arguments that change replies
belong to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safeladder.models.identity import checkpoint_hash
from safeladder.types import SafeladderError

Kind = Literal["local", "endpoint", "inspect"]
KEY = "SAFELADDER_API_KEY"
"""Environment variable: the key of the endpoint that is measured. Keys of other services are never sent."""

_HOW_FAST = frozenset({"device", "batch_size", "timeout"})
"""Arguments that decide how fast replies come, not what they say (a test holds the batch size to that)."""
_ENDPOINT = re.compile(r"(?P<url>https?://[^#\s]+?)/*(?:#(?P<name>\S+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model to measure. `revision` is a checkpoint's hash, "" where nobody can tell; `model` is Inspect's object."""

    kind: Kind
    name: str
    identity: str
    revision: str
    model: Any
    arguments: Mapping[str, Any]

    @property
    def aliases(self) -> tuple[str, ...]:
        """Names under which a judge may be this model."""
        return aliases_of(self.model)


def aliases_of(model: Any) -> tuple[str, ...]:
    """How judges are named that are this Inspect model: PATH@HASH, MODEL@HOST, or the name alone."""
    name, url = str(model.api.model_name), model.api.base_url
    host = (url or "").partition("://")[2].partition("/")[0].rpartition("@")[2]
    return (name, str(model), *([f"{name}@{host}"] if host else []))


def identity_of(what: str, arguments: Mapping[str, Any], *, steering: str = "") -> str:
    """What a subject's replies depend on, in one line.

    Args:
        what: hash of the weights, or name of the served model.
        arguments: of the model; those that only decide the speed are left out.
        steering: id of the inference-time intervention, "" for none.
    """
    parts = [what, *([f"steering={steering}"] if steering else [])]
    return "+".join([*parts, *(f"{k}={v}" for k, v in sorted(arguments.items()) if k not in _HOW_FAST)])


def parse_arguments(given: list[str]) -> dict[str, Any]:
    """`["batch_size=8"]` as a mapping; whole numbers become numbers.

    Raises:
        SafeladderError: not KEY=VALUE.
    """
    found: dict[str, Any] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise SafeladderError(f"-M {item}: KEY=VALUE is needed, such as -M batch_size=8")
        found[key] = int(value) if value.isdigit() else value
    return found


def open_subject(spec: str, arguments: Mapping[str, Any] | None = None) -> Subject:
    """The model of a command line.

    Args:
        spec: a checkpoint folder, `http(s)://host/v1#name`, or a name that Inspect knows.
        arguments: of the provider. A local checkpoint runs on the GPU in bfloat16 where there is one, unless told.

    Raises:
        SafeladderError: no such folder, a damaged checkpoint, an endpoint that cannot be reached or serves several
            models, a provider that Inspect does not know, or an argument the provider does not take.
    """
    arguments = dict(arguments or {})
    if match := _ENDPOINT.fullmatch(spec):
        return _endpoint(match["url"], match["name"], arguments)
    if Path(spec).is_dir():
        return _local(spec, arguments)
    return _by_inspect(spec, arguments)


def _local(path: str, arguments: dict[str, Any]) -> Subject:
    import torch
    from inspect_ai.model import get_model

    if torch.cuda.is_available():
        arguments = {"device": "cuda", "dtype": "bfloat16", **arguments}
    mark = checkpoint_hash(path)
    try:
        model = get_model(f"safeladder/{path}@{mark}", memoize=False, **arguments)
    except TypeError as error:
        raise SafeladderError(f"-M: a local checkpoint takes no such argument ({error})") from None
    identity = identity_of(mark, arguments)
    return Subject(
        kind="local", name=f"{path}@{mark}", identity=identity, revision=mark, model=model, arguments=arguments
    )


def _endpoint(url: str, name: str | None, arguments: dict[str, Any]) -> Subject:
    from inspect_ai.model import get_model

    served = _served(url)
    if name is None:
        if served is None or len(served) != 1:
            told = "does not say what it serves" if served is None else f"serves {', '.join(served) or 'nothing'}"
            raise SafeladderError(f"{url} {told}: name the model, {url}#NAME")
        name = served[0]
    try:
        model = get_model(f"safeladder-endpoint/{name}", base_url=url, memoize=False, **arguments)
    except TypeError as error:
        raise SafeladderError(f"-M: an endpoint takes no such argument ({error})") from None
    where = f"{url}#{name}"
    return Subject(
        kind="endpoint",
        name=where,
        identity=identity_of(where, arguments),
        revision="",
        model=model,
        arguments=arguments,
    )


def _served(url: str) -> list[str] | None:
    """Names of the models an endpoint serves; None where it does not say. Finds out early whether it is there."""
    import os

    import httpx

    key = os.environ.get(KEY)
    try:
        answer = httpx.get(f"{url}/models", headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=30)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SafeladderError(f"endpoint {url} cannot be reached ({type(error).__name__}: {error})") from None
    try:
        return [str(row["id"]) for row in answer.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return None


def _by_inspect(spec: str, arguments: dict[str, Any]) -> Subject:
    from inspect_ai.model import get_model

    wanted = "a checkpoint folder, http(s)://host/v1#name, or a model name of Inspect such as openai/gpt-4o"
    if "/" not in spec:
        raise SafeladderError(f"no model {spec!r}: {wanted} is needed")
    try:
        model = get_model(spec, memoize=False, **arguments)
    except Exception as error:  # providers raise kinds of their own: a missing package, a missing key, a wrong name
        cause = " ".join(re.sub(r"\[/?[^\]]*\]", "", str(error)).split()) or type(error).__name__
        raise SafeladderError(f"no model {spec!r} ({cause[:300]}): {wanted} is needed") from None
    name = str(model)
    return Subject(
        kind="inspect", name=name, identity=identity_of(name, arguments), revision="", model=model, arguments=arguments
    )

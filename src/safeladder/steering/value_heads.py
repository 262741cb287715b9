"""Principled value models as small heads on the policy's own hidden states, and the router beside them.

A step is described by three normalised last-layer states: that of the prompt's last token (what was asked), the mean
over the step's own tokens (what it says), and that of its last token (where the reply stands). One two-layer network a
principle reads all three and gives the logit of the chance that the finished reply is accepted; one more reads the
first and gives the routing weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from safeladder.atomic import new_file, write_json
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.prefix import Pass
from safeladder.steering.values import Query
from safeladder.types import GenerationRequest, SafeladderError, Sample

SETTINGS = "guidance.json"
_WEIGHTS = "heads.safetensors"
_FORMAT = 1
_REMEMBERED = 50_000
"""Contexts whose values are kept; all are dropped when there are more."""


class Reader(Protocol):
    """What runs contexts through the policy: a `PrefixEngine`."""

    def prompt_ids(self, sample: Sample) -> tuple[int, ...]: ...

    def passes(
        self, requests: Sequence[GenerationRequest], tails: Sequence[int] | None = None, *, logprobs: bool = False
    ) -> list[Pass]: ...


class ValueHeads(nn.Module):
    """The networks. Weights are float32 whatever the policy's are.

    Args:
        hidden: the policy's hidden size.
        principles: a value head each, in this order; the router weighs the same.
        width: of the hidden layers.
    """

    mean: Tensor
    """[3 hidden] of the states seen in training, and `scale`, their deviation: heads read standardised states."""
    scale: Tensor

    def __init__(self, hidden: int, principles: Sequence[str], *, width: int = 96, dropout: float = 0.1) -> None:
        super().__init__()
        self.hidden, self.principles, self.width = hidden, tuple(principles), width
        self.register_buffer("mean", torch.zeros(3 * hidden))
        self.register_buffer("scale", torch.ones(3 * hidden))

        def network(inputs: int, outputs: int) -> nn.Sequential:
            layers = (nn.Linear(inputs, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, outputs))
            return nn.Sequential(*layers)

        self.values = nn.ModuleList(network(3 * hidden, 1) for _ in self.principles)
        self.router = network(hidden, len(self.principles))

    def forward(self, described: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the values and of the routing weights, both [n, principles], of steps described by `describe`,
        [n, 3 hidden]."""
        standard = (described - self.mean) / self.scale
        values = torch.cat([head(standard) for head in self.values], dim=1)
        return values, self.router(standard[:, : self.hidden])

    def save(self, folder: str | os.PathLike[str], about: Mapping[str, Any]) -> None:
        """Write the weights and, last, the settings that make the folder a guidance. Atomic."""
        root = Path(folder)
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        with new_file(root / _WEIGHTS) as temporary:
            save_file(weights, temporary)
        settings = {"format": _FORMAT, "hidden": self.hidden, "width": self.width, "principles": self.principles}
        write_json(root / SETTINGS, {**settings, **about})

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> tuple[ValueHeads, dict[str, Any]]:
        """Heads and what is known about them.

        Raises:
            SafeladderError: no such guidance, or a damaged one.
        """
        root = Path(folder)
        if not (root / SETTINGS).is_file():
            raise SafeladderError(f"{root} holds no value guidance ({SETTINGS}); make one with: safeladder pvm train")
        try:
            about = json.loads((root / SETTINGS).read_text(encoding="utf-8"))
            if about["format"] != _FORMAT:
                raise SafeladderError(f"{root / SETTINGS}: format {about['format']!r}, this version reads {_FORMAT}")
            heads = cls(int(about["hidden"]), [str(name) for name in about["principles"]], width=int(about["width"]))
            heads.load_state_dict(load_file(root / _WEIGHTS))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise SafeladderError(f"{root}: the value guidance cannot be read: {error}") from None
        return heads.eval(), about


def fingerprint(engine: LocalEngine) -> str:
    """12 hex digits that tell the weights whose states heads read from those of any other training run."""
    decoder = engine.decoder
    digest = hashlib.sha256()
    for tensor in (decoder.norm, decoder.layers[0].down, decoder.layers[-1].qkv):
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def describe(prompt: Tensor, step: Tensor) -> Tensor:
    """What heads read, [3 hidden]: of the state of a prompt's last token [hidden] and those of a step's tokens
    [tokens, hidden]."""
    return torch.cat((prompt, step.mean(dim=0), step[-1])).cpu()


class HeadScorer:
    """Runs contexts through the policy and their states through the heads; what was run once is remembered."""

    def __init__(self, reader: Reader, heads: ValueHeads) -> None:
        self.reader, self.heads = reader, heads.eval()
        self._prompts: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self._values: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def forget(self) -> None:
        """Drop what is remembered: samples may be told apart by id no longer, or the policy has new weights."""
        self._prompts.clear()
        self._values.clear()

    def prompts(self, samples: Sequence[Sample]) -> Tensor:
        """States [n, hidden] of the prompts' last tokens."""
        keys = [(s.id, self.reader.prompt_ids(s)) for s in samples]
        missing = {key: s for key, s in zip(keys, samples, strict=True) if key not in self._prompts}
        requests = [GenerationRequest(sample=s, prompt_ids=ids) for (_, ids), s in missing.items()]
        for key, found in zip(missing, self.reader.passes(requests) if requests else (), strict=True):
            self._prompts[key] = found.states[-1]
        return torch.stack([self._prompts[key] for key in keys])

    @torch.inference_mode()
    def values(self, queries: Sequence[Query]) -> list[Tensor]:
        """Values [candidates, principles] in [0, 1] of every query."""
        if len(self._values) > _REMEMBERED:
            self.forget()
        wanted: dict[tuple[str, tuple[int, ...]], tuple[Sample, int]] = {}
        for query in queries:
            for candidate in query.candidates:
                key = (query.sample.id, (*query.prefix_ids, *candidate))
                if key not in self._values:
                    wanted[key] = (query.sample, len(candidate))
        if wanted:
            requests = [GenerationRequest(sample=sample, prompt_ids=ids) for (_, ids), (sample, _) in wanted.items()]
            steps = self.reader.passes(requests, [size for _, size in wanted.values()])
            prompts = self.prompts([sample for sample, _ in wanted.values()])
            described = [describe(prompt, step.states) for prompt, step in zip(prompts, steps, strict=True)]
            logits, _ = self.heads(torch.stack(described))
            self._values.update(zip(wanted, torch.sigmoid(logits), strict=True))
        empty = torch.zeros(0, len(self.heads.principles))
        return [
            torch.stack([self._values[q.sample.id, (*q.prefix_ids, *c)] for c in q.candidates])
            if q.candidates
            else empty
            for q in queries
        ]

    @torch.inference_mode()
    def weights(self, samples: Sequence[Sample]) -> Tensor:
        """Routing weights [n, principles], rows add up to 1."""
        _, logits = self.heads(torch.stack([describe(prompt, prompt[None]) for prompt in self.prompts(samples)]))
        return torch.softmax(logits, dim=1)


class HeadValues:
    """The value model of one principle; several of one scorer share its passes."""

    def __init__(self, scorer: HeadScorer, principle: str) -> None:
        self.scorer, self.principle = scorer, principle
        self._column = scorer.heads.principles.index(principle)

    @property
    def name(self) -> str:
        return self.principle

    def forget(self) -> None:
        self.scorer.forget()

    def score(self, sample: Sample, prefix_ids: Sequence[int], candidates: Sequence[Sequence[int]]) -> list[float]:
        query = Query(sample, tuple(prefix_ids), tuple(tuple(c) for c in candidates))
        return self.score_many([query])[0]

    def score_many(self, queries: Sequence[Query]) -> list[list[float]]:
        return [values[:, self._column].tolist() for values in self.scorer.values(queries)]


class LearnedRouter:
    """Routing weights by the router head."""

    def __init__(self, scorer: HeadScorer) -> None:
        self.scorer = scorer

    def route(self, samples: Sequence[Sample]) -> list[dict[str, float]]:
        names = self.scorer.heads.principles
        return [dict(zip(names, row, strict=True)) for row in self.scorer.weights(samples).tolist()]

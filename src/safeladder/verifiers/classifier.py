"""A judge with a classification head on one of our policies: it reads the conversation, sees its images, and names one
of its labels in a single forward pass.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from safeladder.atomic import new_file, write_json
from safeladder.models.families import Family, control_strings, tokenizer_of
from safeladder.models.load import Dtype, load_checkpoint, save_checkpoint
from safeladder.models.policy import Policy, Prompt
from safeladder.types import Message, Part, Rollout, SafeladderError, Sample, Score, StopReason
from safeladder.verifiers.rules import SAFETY_VALUES

VALUES: Mapping[str, float] = {**SAFETY_VALUES, "safe": 1.0}
"""Label -> value of a score. A judge may know any of these labels: the six of SafeWork-R1, or safe and unsafe."""
UNSAFE = "unsafe"
SETTINGS = "verifier.json"
MODEL, _HEAD = "model", "head.safetensors"
_FORMAT = 1


class Classifier(Policy):
    """A policy whose head names a label instead of a token.

    Class k is written as the ordinary token `label_ids[k]`, so that the learner, its batches and its losses serve
    unchanged: the "log-probability" of that token after a prompt is the log-probability of the class.
    """

    def __init__(self, model: Any, processor: Any, family: Family, labels: Sequence[str]) -> None:
        super().__init__(model, processor, family)
        self.labels = tuple(labels)
        text, language_head = family.text_model(model), family.lm_head(model)
        width = text.get_input_embeddings().weight.shape[1]
        if language_head.weight is not text.get_input_embeddings().weight:
            language_head.weight.requires_grad_(False)
        self.label_head = nn.Linear(width, len(self.labels))
        nn.init.zeros_(self.label_head.weight)
        nn.init.zeros_(self.label_head.bias)
        self.to(next(model.parameters()).device)
        tokens = tokenizer_of(processor)
        special = {tokens.convert_tokens_to_ids(token) for token in control_strings(tokens, family)}
        ordinary = (i for i in range(len(self.logit_bias)) if i not in special and float(self.logit_bias[i]) == 0.0)
        self.label_ids = tuple(next(ordinary) for _ in self.labels)

    def _fused_logprobs(
        self, text: Any, head: Any, states: Tensor, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        return self._module_logprobs(text, head, text.norm(states), targets, temperature)

    def _module_logprobs(
        self, text: Any, head: Any, states: Tensor, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        logp = torch.log_softmax(self.label_head(states.float()) / temperature, dim=-1)
        with torch.no_grad():
            entropy = -torch.linalg.vecdot(logp.exp(), logp)
        known = torch.tensor(self.label_ids, device=targets.device)
        classes = (targets.unsqueeze(1) == known).int().argmax(dim=1)
        return logp.gather(1, classes.unsqueeze(1)).squeeze(1), entropy

    @torch.no_grad()
    def probabilities(self, prompts: Sequence[Prompt]) -> Tensor:
        """P(label) after each prompt, float32 [n, labels]. Equal to the training pass up to rounding."""
        text = self.family.text_model(self.model)
        lengths = torch.tensor([len(prompt.ids) for prompt in prompts])
        size, longest = len(prompts), int(lengths.max())
        ids = torch.full((size, longest), self.pad_token_id)
        place = torch.zeros(prompts[0].positions.shape[0], size, longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt.ids)] = torch.tensor(prompt.ids)
            place[:, row, : len(prompt.ids)] = prompt.positions
        ids, place = ids.to(self.device), place.to(self.device)
        embeddings, _ = self.embed(ids, prompts)
        output = text(
            inputs_embeds=embeddings,
            position_ids=place if self.family.rope_dimensions == 3 else place[0],
            # Causal, padded on the right: no prompt's last token sees padding.
            attention_mask={"full_attention": None} if self.family.mask_is_mapping else None,
            use_cache=False,
        ).last_hidden_state
        last = output[torch.arange(size, device=self.device), (lengths - 1).to(self.device)]
        return torch.softmax(self.label_head(last.float()), dim=-1).cpu()

    def save(self, folder: str | os.PathLike[str], about: Mapping[str, Any]) -> None:
        """Write model, head and, last, the settings that make the folder a verifier."""
        root = Path(folder)
        save_checkpoint(self.model, self.processor, root / MODEL)
        head = {"weight": self.label_head.weight.detach().cpu(), "bias": self.label_head.bias.detach().cpu()}
        with new_file(root / _HEAD) as temporary:
            save_file(head, temporary)
        settings = {"format": _FORMAT, "labels": list(self.labels), "about": dict(about)}
        write_json(root / SETTINGS, settings)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: str = "cpu", dtype: Dtype = "float32") -> Classifier:
        """The classifier that `save` wrote.

        Raises:
            SafeladderError: a file is missing, damaged or of another format.
        """
        root = Path(folder)
        try:
            settings = json.loads((root / SETTINGS).read_text(encoding="utf-8"))
            if settings["format"] != _FORMAT:
                raise SafeladderError(f"{root / SETTINGS}: unknown format {settings['format']!r}")
            labels = check_labels(settings["labels"])
            head = load_file(root / _HEAD)
        except FileNotFoundError as error:
            raise SafeladderError(f"{root} is no trained verifier: {error.filename} not found") from None
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise SafeladderError(f"trained verifier {root} cannot be read: {error}") from None
        classifier = cls(*load_checkpoint(root / MODEL, device=device, dtype=dtype), labels)
        try:
            classifier.label_head.load_state_dict(head)
        except RuntimeError:
            raise SafeladderError(f"trained verifier {root}: {_HEAD} does not fit the model or the labels") from None
        return classifier.eval()


def judged(sample: Sample, answer: str) -> Sample:
    """The conversation that the judge reads: the sample's, its images in place, and the reply as the last turn."""
    reply = Message(role="assistant", parts=(Part(text=answer),))
    return replace(sample, messages=(*sample.messages, reply), response=None)


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels in the order of `VALUES`.

    Raises:
        SafeladderError: an unknown label, fewer than two, or "unsafe" not among them.
    """
    unknown = sorted(set(labels) - VALUES.keys())
    if unknown:
        raise SafeladderError(f"unknown label {unknown[0]!r}; allowed: {', '.join(VALUES)}")
    if len(set(labels)) < 2 or UNSAFE not in labels:
        raise SafeladderError(f"a judge needs {UNSAFE!r} and at least one other label, got {sorted(set(labels))}")
    return tuple(label for label in VALUES if label in set(labels))


class TrainedVerifier:
    """A trained classifier as a verifier: the value is that of the most probable label, `VALUES`.

    It sees the sample's images and judges the answer alone. A missing, cut or empty answer is unscored, and so is a
    sample that the model cannot take (a missing image, a modality that its family lacks).
    """

    name = "trained-safety"
    principle = "safety"

    def __init__(self, classifier: Classifier, *, batch: int = 16) -> None:
        self.classifier, self.batch = classifier.eval(), batch

    @property
    def sees_images(self) -> bool:
        """Whether the model's family takes images."""
        return self.classifier.family.supports_images

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """One score a rollout, in order; the breakdown holds P(label) of every label."""
        scores: dict[int, Score] = {}
        prompts: dict[int, Prompt] = {}
        for number, rollout in enumerate(rollouts):
            answer = rollout.response.answer if rollout.response is not None else ""
            if rollout.stop_reason in (StopReason.ERROR, StopReason.LENGTH) or not answer.strip():
                scores[number] = Score.unscored("no whole answer to read")
                continue
            try:
                prompts[number] = self.classifier.prompt(judged(rollout.sample, answer))
            except SafeladderError as error:
                scores[number] = Score.unscored(str(error))
        for number, row in zip(prompts, self.rows(list(prompts.values())), strict=True):
            label = self.classifier.labels[max(range(len(row)), key=row.__getitem__)]
            scores[number] = Score(
                value=VALUES[label], label=label, breakdown=dict(zip(self.classifier.labels, row, strict=True))
            )
        return [scores[number] for number in range(len(rollouts))]

    def rows(self, prompts: Sequence[Prompt]) -> list[list[float]]:
        """P(label) after each prompt, a few prompts at a time."""
        found: list[list[float]] = []
        for start in range(0, len(prompts), self.batch):
            found += self.classifier.probabilities(prompts[start : start + self.batch]).tolist()
        return found

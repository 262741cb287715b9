"""The rows that are being decoded together: prefilled and joined, stepped, sampled and dropped, on one thread."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from safeladder.models.policy import Prompt
from safeladder.rollout.decoder import KVCache, MlpEdit
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.row_cache import RowCache
from safeladder.rollout.sampling import draw
from safeladder.rollout.tickets import Group, Row, SampledToken
from safeladder.types import Completion, StopReason

_LOG = logging.getLogger(__name__)


class RunningBatch:
    """Rows of an engine's model, each sampled and steered in its own way.

    Whatever fails in one request (its images, its edit, its callback, numbers that are not finite) fails its ticket
    and nothing else.

    Args:
        engine: whose weights, policy and `edit` are used.

    Attributes:
        rows: in the cache's order.
        counts: prefills, steps, prompt_tokens and generated_tokens since they were last taken.
    """

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._cache = RowCache(engine.decoder)
        self._table = engine._rotary_table(1)
        self._texts: list[str] = []
        self.rows: list[Row] = []
        self.counts: dict[str, int] = {}

    def clear(self) -> None:
        """Drop every row."""
        self.rows.clear()
        self._cache.clear()

    def drop_done(self) -> None:
        """Drop the rows whose requests were cancelled or failed."""
        for i in range(len(self.rows) - 1, -1, -1):
            if self.rows[i].ticket.done:
                self._leave(i)

    def _leave(self, row: int) -> None:
        self._cache.leave(row)
        self.rows[row] = self.rows[-1]
        self.rows.pop()

    def join(self, groups: Sequence[Group]) -> None:
        """Prefill, sample the first tokens and let the rows that go on join. Who fails, fails alone."""
        try:
            logits, cache, failures = self._run_groups(groups)
        except Exception as error:
            if len(groups) == 1:
                _LOG.warning("sample %s: %s", groups[0].ticket.request.sample.id, error)
                groups[0].ticket.fail(error)
                return
            for group in groups:
                self.join([group])
            return
        for i, error in failures.items():
            groups[i].ticket.fail(error)
        lengths = [len(group.ticket.request.prompt_ids) for group in groups]
        self._add(prefills=1, prompt_tokens=sum(lengths))
        rows = [(i, row) for i, group in enumerate(groups) for row in group.rows()]
        sources = torch.tensor([i for i, _ in rows], device=logits.device)
        goes_on = self._sample([row for _, row in rows], logits[sources])
        staying = [pair for pair, on in zip(rows, goes_on, strict=True) if on]
        if staying:
            self._cache.join(cache, [i for i, _ in staying], [lengths[i] for i, _ in staying])
            self.rows += [row for _, row in staying]

    def _run_groups(self, groups: Sequence[Group]) -> tuple[Tensor, KVCache, dict[int, Exception]]:
        """Logits [groups, V] after the prompts, their keys and values, and whose edits failed."""
        frozen = self._engine.policy.vision_frozen
        prompts: list[Prompt] = []
        for group in groups:
            keeps = frozen and group.vision_edit is None
            prompts.append(group.prompt if keeps else replace(group.prompt, features=None))
            if group.vision_edit is not None:
                with group.vision_edit():
                    self._engine.policy.cache_features(prompts[-1:])
        self._engine.policy.cache_features(prompts)
        failures: dict[int, Exception] = {}
        steer = _steer([group.edit or self._engine.edit for group in groups], failures)
        logits, cache, _, _ = self._engine._run_prompts([group.ticket.request for group in groups], prompts, 0, steer)
        return logits, cache, failures

    def step(self) -> None:
        """One token more for every row."""
        rows, device = self.rows, self._engine.policy.device
        places = [row.position + len(row.ids) - 1 for row in rows]
        if max(places) >= len(self._table[0]):
            self._table = self._engine._rotary_table(2 * (max(places) + 1))
        place = torch.tensor(places, device=device)
        tokens = torch.tensor([row.ids[-1] for row in rows], device=device)
        failures: dict[int, Exception] = {}
        steer = _steer([row.group.edit or self._engine.edit for row in rows], failures)
        cache, visible = self._cache.next()
        hidden = self._engine.decoder.forward(
            torch.nn.functional.embedding(tokens.unsqueeze(1), self._engine.decoder.embeddings),
            self._table[0][place].unsqueeze(1),
            self._table[1][place].unsqueeze(1),
            cache,
            visible,
            steer,
        )
        for i, error in failures.items():
            rows[i].ticket.fail(error)
        self._add(steps=1)
        goes_on = self._sample(rows, self._engine._logits(hidden[:, 0]))
        for i in range(len(rows) - 1, -1, -1):
            if not goes_on[i]:
                self._leave(i)

    def _sample(self, rows: Sequence[Row], logits: Tensor) -> list[bool]:
        """Sample the next token of every row; whether each goes on."""
        sound = logits.sum(dim=-1).isfinite()
        if not sound.all():
            for i in (~sound).nonzero().squeeze(1).tolist():
                rows[i].ticket.fail(ArithmeticError("the model's logits are not finite"))
            logits = logits.where(sound.unsqueeze(1), 0.0)
        params = [row.ticket.params for row in rows]
        noise = torch.tensor([row.noise[len(row.ids)] for row in rows], device=logits.device)
        tokens, logp = draw(logits, noise, [p.temperature for p in params], [p.top_p for p in params])
        chosen, values = tokens.tolist(), logp.gather(1, tokens.unsqueeze(1)).squeeze(1).tolist()
        beside = _likeliest(logp, [p.top_logprobs for p in params])
        self._add(generated_tokens=len(rows))
        found = zip(rows, chosen, values, beside, strict=True)
        return [self._take(row, token, logprob, top) for row, token, logprob, top in found]

    def _take(self, row: Row, token: int, logprob: float, top: tuple[tuple[int, float], ...]) -> bool:
        """Note a sampled token; whether the row goes on."""
        if row.ticket.done:
            return False
        row.ids.append(token)
        row.logprobs.append(logprob)
        if top:
            row.top.append(top)
        if row.group.on_token is not None:
            try:
                row.group.on_token(SampledToken(row.sample, token, logprob, top))
            except Exception as error:
                row.ticket.fail(error)
                return False
        reason = self._ended(row, token)
        if reason is None:
            return True
        completion = Completion(
            token_ids=tuple(row.ids), logprobs=tuple(row.logprobs), stop_reason=reason, top_logprobs=tuple(row.top)
        )
        row.ticket.complete(row.sample, completion)
        return False

    def _ended(self, row: Row, token: int) -> StopReason | None:
        params = row.ticket.params
        if token == self._engine.policy.eos_token_id:
            return StopReason.EOS
        if params.stop:
            text = self._text(token)
            # Few tokens can complete a stop sequence; a character of several bytes may end in one with no text.
            if "\ufffd" in text or any(s[-1] in text for s in params.stop):
                tail = self._engine.decode(row.ids[-(max(len(s.encode()) for s in params.stop) + 4) :])
                if any(s in tail for s in params.stop):
                    return StopReason.STOP
        return StopReason.LENGTH if len(row.ids) == params.max_new_tokens else None

    def _text(self, token: int) -> str:
        if not self._texts:
            tokenizer = self._engine.policy.tokenizer
            self._texts = [tokenizer.decode([i], skip_special_tokens=False) for i in range(len(tokenizer))]
        return self._texts[token] if token < len(self._texts) else ""

    def _add(self, **more: int) -> None:
        for name, n in more.items():
            self.counts[name] = self.counts.get(name, 0) + n


def _likeliest(logp: Tensor, counts: Sequence[int]) -> list[tuple[tuple[int, float], ...]]:
    """Each row's `counts` likeliest tokens with their log-probabilities, best first."""
    found: list[tuple[tuple[int, float], ...]] = [()] * len(counts)
    asking = [i for i, count in enumerate(counts) if count]
    if asking:
        values, ids = logp[asking].topk(max(counts))
        for i, *pair in zip(asking, ids.tolist(), values.tolist(), strict=True):
            found[i] = tuple(zip(*pair, strict=True))[: counts[i]]
    return found


def _steer(edits: Sequence[MlpEdit | None], failures: dict[int, Exception]) -> MlpEdit | None:
    """One edit of a batch out of one a row. A row whose edit fails goes on unedited and is noted in `failures`."""
    alike: dict[int, tuple[MlpEdit, list[int]]] = {}
    for row, edit in enumerate(edits):
        if edit is not None:
            alike.setdefault(id(edit), (edit, []))[1].append(row)
    if not alike:
        return None

    def steer(layer: int, update: Tensor) -> Tensor:
        out = update.clone()
        for edit, rows in alike.values():
            if rows[0] in failures:
                continue
            try:
                out[rows] = edit(layer, update[rows])
            except Exception as error:
                failures.update(dict.fromkeys(rows, error))
        return out

    return steer

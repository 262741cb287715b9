"""The recipe: everything a run depends on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from safeladder.config.rungs import Rewards, RlRung, Rung, SearchRung
from safeladder.config.sections import Control, Data, Evaluation, Model, Name, NonNegative, Number, Section


class Recipe(Section):
    """Everything a run depends on."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    seed: Annotated[int, Number] = 0
    processes: NonNegative = 0
    """Data-parallel processes on this machine; 0 = one a core (CPU) or one a GPU."""
    model: Model = Model()
    data: Data = Data()
    rungs: Annotated[dict[Name, Rung], Field(min_length=1)]
    control: Control = Control()
    evaluation: Evaluation = Evaluation()
    base_cache: str | None = None
    """Folder in which finished bases are kept, keyed by everything they depend on; None = no cache."""

    @model_validator(mode="after")
    def _tables(self) -> Recipe:
        """Put the table that fits the data in place of `auto`, so that a dumped recipe names what was used."""
        for rung in self.rungs.values():
            if isinstance(rung, RlRung) and rung.rewards.recipe == "auto":
                object.__setattr__(rung, "rewards", rung.rewards.model_copy(update={"recipe": self._fitting_table}))
        return self

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        names = list(self.rungs)
        for position, (name, rung) in enumerate(self.rungs.items()):
            if rung.start_from is not None and rung.start_from not in names[:position]:
                raise ValueError(
                    f"rungs.{name}.start_from: {rung.start_from!r} is not an earlier rung; "
                    f"allowed: {', '.join(names[:position]) or 'none before the first'}"
                )
            if isinstance(rung, SearchRung) and rung.cold_start is not None and self.data.world is None:
                raise ValueError(f"rungs.{name}.cold_start: its script knows data.world only; allowed without it: null")
        return self

    @property
    def _fitting_table(self) -> str:
        """What `auto` stands for: the reward table that fits the data."""
        if self.data.world is None:
            return "rules"
        return "world-and-rules" if self.data.files else "world"

    @property
    def judged_by(self) -> Rewards:
        """The complete reward table that evaluation judges by: the last RL rung's, else the one that fits the data.

        Its `labels` are left out: an ablation of the rewards is measured like the run it is an ablation of.
        """
        tables = [rung.rewards.recipe for rung in self.rungs.values() if isinstance(rung, RlRung)]
        return Rewards(recipe=tables[-1] if tables else self._fitting_table)

"""Hidden states of Hugging Face modules: read them, and add directions to them for a while.

`Steerer` puts one forward hook on the MLP of every layer (`layers` knows where) and takes it away again, also nested
and after an exception; weights are never touched, so what the model says afterwards is bit-identical to before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from safeladder.models.families import Family, unwrap
from safeladder.models.policy import Policy, Prompt
from safeladder.rollout.local import LocalEngine
from safeladder.steering.directions import Direction, Directions, Edit, Schedule, Tokens, decoder_edit
from safeladder.steering.layers import Tower, tower_layers, tower_mlps
from safeladder.types import SafeladderError


class Steerer:
    """Adds directions to a model while it is entered. May be entered again, also while it is.

    Args:
        model: the Hugging Face model, LoRA-wrapped or not.
        family: its family.
        directions: applied in order, each as a wrapper around what the ones before it leave.
        rows, mask, tokens, schedule: of the language model, see `directions.Edit`; a vision tower is steered whole.
        this_thread: leave forward passes of other threads alone (a server's).

    Raises:
        SafeladderError: directions of another architecture (their weights are the caller's to check,
            `Directions.require`).
    """

    def __init__(
        self,
        model: Any,
        family: Family,
        directions: Directions | Sequence[Direction],
        *,
        rows: Tensor | None = None,
        mask: Tensor | None = None,
        tokens: Tokens = "all",
        schedule: Schedule | None = None,
        this_thread: bool = False,
    ) -> None:
        items = directions.items if isinstance(directions, Directions) else tuple(directions)
        self._items = [d for d in items if d.strength != 0.0]
        self._model, self._family = model, family
        self._language = {"rows": rows, "mask": mask, "tokens": tokens, "schedule": schedule}
        self._this_thread = this_thread
        self._handles: list[list[Any]] = []
        self.hooked = 0
        """Layers that carry a hook of this steerer."""

    def __enter__(self) -> Steerer:
        handles: list[Any] = []
        self._handles.append(handles)
        try:
            for tower in ("vision", "language"):
                items = [d for d in self._items if d.tower == tower]
                if items:
                    handles.extend(self._install(tower, items))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for handle in reversed(self._handles.pop()):
            handle.remove()
        self.hooked = 0 if not self._handles else self.hooked

    def _install(self, tower: Tower, items: Sequence[Direction]) -> Iterator[Any]:
        mlps = tower_mlps(self._model, self._family, tower)
        for item in items:
            if not item.layers or item.layers[-1] >= len(mlps):
                raise SafeladderError(f"direction {item.name} names layers {item.layers}; there are {len(mlps)}")
        thread = threading.get_ident() if self._this_thread else None
        edit = Edit(items, **self._language)
        if tower == "vision":
            edit = _VisionEdit(items)
            module = unwrap(self._model).get_submodule(str(self._family.vision_path))
            yield module.register_forward_pre_hook(edit.look(self._family, module.config), with_kwargs=True)
        for number, mlp in enumerate(mlps):
            yield mlp.register_forward_hook(_hook(edit, number, thread))
            self.hooked += 1


def _hook(edit: Edit, number: int, thread: int | None) -> Any:
    def hook(module: Any, arguments: Any, output: Tensor) -> Tensor:
        if thread is not None and threading.get_ident() != thread:
            return output
        return edit(number, output)

    return hook


class _VisionEdit(Edit):
    """Directions of a vision tower; those with a grid are interpolated to the patches of the image at hand."""

    def __init__(self, directions: Sequence[Direction]) -> None:
        super().__init__(directions)
        self._places = threading.local()

    def look(self, family: Family, config: Any) -> Any:
        """A forward pre-hook that notes where the patches of the coming pass lie."""

        def hook(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            self._places.now = tower_places(family, config, arguments, keywords)

        return hook

    def _at(self, item: Direction, vector: Tensor) -> Tensor:
        if item.grid is None:
            return vector
        return at_places(vector, self._places.now.to(vector.device))


def tower_places(family: Family, config: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
    """Where the tokens of a vision tower's pass lie: [N, 2] height and width in (0, 1), in the tower's own order.

    NaN stands for a token that is no place (InternVL's class token). For Qwen2.5-VL N counts the patches of all images
    of the pass, in the order of its window attention; for InternVL the tokens of a tile.
    """
    if family.name == "internvl":
        height, width = (int(s) // int(p) for s, p in zip(config.image_size, config.patch_size, strict=True))
        return torch.cat((torch.full((1, 2), torch.nan), _centres(height, width).flatten(0, 1)))
    from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

    grid = keywords.get("grid_thw", arguments[1] if len(arguments) > 1 else None)
    if grid is None:
        raise SafeladderError("the vision tower was called without its grid of patches")
    grid, merge = grid.cpu(), config.spatial_merge_size
    place = get_vision_position_ids(grid, merge).float()
    sizes = torch.cat([torch.tensor([[h, w]]).expand(t * h * w, 2) for t, h, w in grid.tolist()])
    order, _ = get_vision_window_index(grid, merge, config.window_size, config.patch_size)
    return ((place + 0.5) / sizes).view(-1, merge**2, 2)[order].flatten(0, 1)


def _centres(height: int, width: int) -> Tensor:
    """[height, width, 2] centres of a grid's cells."""
    rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)


def at_places(grid: Tensor, places: Tensor) -> Tensor:
    """[N, width]: a grid [rows, columns, width] interpolated bilinearly at places [N, 2]; NaN takes the grid's mean."""
    wanted = torch.nan_to_num(places, nan=0.5).flip(-1) * 2 - 1  # grid_sample wants x before y, from -1 to 1
    found = F.grid_sample(
        grid.permute(2, 0, 1).unsqueeze(0),
        wanted.view(1, 1, -1, 2).to(grid.dtype),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )[0, :, 0].T
    return torch.where(places[:, :1].isnan(), grid.mean(dim=(0, 1)), found)


@contextmanager
def recorded(modules: Sequence[Any]) -> Iterator[list[Tensor]]:
    """The outputs of modules, one tensor each in order, filled by the next forward pass."""
    states: list[Tensor] = [torch.empty(0)] * len(modules)

    def keep(number: int) -> Any:
        def hook(module: Any, arguments: Any, output: Any) -> None:
            states[number] = (output[0] if isinstance(output, tuple) else output).detach()

        return hook

    handles = [module.register_forward_hook(keep(i)) for i, module in enumerate(modules)]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def language_states(policy: Policy, prompt: Prompt, continuation: Sequence[int] = ()) -> Tensor:
    """Hidden states after every layer of the language model (embeddings left out), float32 [layers, S, H].

    The last layer's are those before the final norm. The prompt's vision features are computed afresh, under whatever
    steers the vision tower now, and not kept.

    Args:
        prompt: from `Policy.prompt`.
        continuation: ids that follow it.
    """
    text = policy.family.text_model(policy.model)
    ids = torch.tensor([[*prompt.ids, *continuation]], device=policy.device)
    place = torch.cat(
        (prompt.positions, (prompt.next_position + torch.arange(len(continuation))).expand(len(prompt.positions), -1)),
        dim=1,
    ).to(policy.device)
    embeddings, _ = policy.embed(ids, [replace(prompt, features=None)])
    with recorded(tower_layers(policy.model, policy.family, "language")) as states:
        text(
            inputs_embeds=embeddings,
            position_ids=place.unsqueeze(1) if policy.family.rope_dimensions == 3 else place,
            attention_mask={"full_attention": None} if policy.family.mask_is_mapping else None,
            use_cache=False,
        )
    return torch.stack([s[0].float() for s in states])


@torch.no_grad()
def vision_states(policy: Policy, pixel_values: Tensor, grid_thw: Tensor | None) -> list[Tensor]:
    """Hidden states after every layer of the vision tower, for each image float32 [layers, rows, columns, width].

    Args:
        pixel_values, grid_thw: of some images, as in `Encoded`. A tile of InternVL counts as an image. The class token
            is left out; of a Qwen2.5-VL image with several frames, the mean over frames is taken.
    """
    family = policy.family
    layers = tower_layers(policy.model, family, "vision")
    pixels = pixel_values.to(policy.device)
    with recorded(layers) as states:
        family.visual_features(policy.model, pixels, grid_thw)
    if grid_thw is None:
        config = unwrap(policy.model).config.vision_config
        height, width = (int(s) // int(p) for s, p in zip(config.image_size, config.patch_size, strict=True))
        stacked = torch.stack([s[:, 1:].float() for s in states], dim=1)
        return list(stacked.view(len(pixels), len(layers), height, width, -1).cpu())
    config = unwrap(policy.model).config.vision_config
    places = tower_places(family, config, (pixels, grid_thw), {})
    sizes = [(int(t), int(h), int(w)) for t, h, w in grid_thw.tolist()]
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor([t * h * w for t, h, w in sizes]))
    order = _tower_order(owner, grid_thw, config)
    stacked = torch.stack([s.float().cpu() for s in states])
    out = []
    for image, (frames, height, width) in enumerate(sizes):
        mine = order == image
        cell = (places[mine] * torch.tensor([height, width])).long()
        grid = torch.zeros(len(layers), height, width, stacked.shape[-1])
        grid.index_put_(
            (
                torch.arange(len(layers)).unsqueeze(1),
                cell[:, 0].unsqueeze(0).expand(len(layers), -1),
                cell[:, 1].unsqueeze(0).expand(len(layers), -1),
            ),
            stacked[:, mine] / frames,
            accumulate=True,
        )
        out.append(grid)
    return out


def _tower_order(values: Tensor, grid_thw: Tensor, config: Any) -> Tensor:
    """One value a patch, from the order of the pixels into the order of Qwen2.5-VL's window attention."""
    from transformers.vision_utils import get_vision_window_index

    merge = config.spatial_merge_size
    order, _ = get_vision_window_index(grid_thw.cpu(), merge, config.window_size, config.patch_size)
    return values.view(-1, merge**2)[order].flatten()


@contextmanager
def steered(
    engine: LocalEngine,
    directions: Directions,
    *,
    tokens: Tokens = "all",
    schedule: Schedule | None = None,
) -> Iterator[LocalEngine]:
    """An engine under directions of both towers, for the time of the context.

    Remembered vision features belong to one way of looking: they are dropped on entering and on leaving, so that
    nothing seen under steering reaches an unsteered run, or the other way round.
    """
    before = engine.edit
    edit = decoder_edit(directions, tokens=tokens, schedule=schedule) if directions.of("language") else None

    def both(layer: int, update: Tensor) -> Tensor:
        update = update if before is None else before(layer, update)
        return update if edit is None else edit(layer, update)

    engine.forget()
    try:
        with Steerer(engine.policy.model, engine.policy.family, directions.of("vision")):
            engine.edit = None if before is None and edit is None else both
            yield engine
    finally:
        engine.edit = before
        engine.forget()

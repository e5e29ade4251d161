"""The decoder: query groups go through the same layers and come out as classes and boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdetr_d2.layers import GroupView, inverse_sigmoid
from hdetr_d2.structures import Memory, Predictions, QueryGroup

from .feed_forward import run_layer
from .heads import PredictionHeads
from .query_position import PositionalQuery, QueryPosition
from .stack import draw_matrices, stack


@dataclass(frozen=True)
class _Layout:
    """Where each group stands in the concatenated sequence."""

    ranges: dict[str, tuple[int, int]]
    views: list[GroupView]

    @staticmethod
    def of(groups: Sequence[QueryGroup]) -> "_Layout":
        """Groups one after another; each sees itself and what it names."""
        ranges, start = {}, 0
        for group in groups:
            ranges[group.name] = (start, start + group.content.shape[1])
            start += group.content.shape[1]
        views = []
        for group in groups:
            keys = tuple(ranges[name] for name in (group.name, *group.sees))
            mask = group.mask
            if mask is not None:
                others = sum(stop - start for start, stop in keys[1:])
                mask = F.pad(mask, (0, others), value=False)
            views.append(GroupView(queries=ranges[group.name], keys=keys, mask=mask))
        return _Layout(ranges, views)


class Decoder(nn.Module):
    """A stack of decoder layers; boxes may be refined from layer to layer.

    Args:
        layer: the pattern of all layers.
        num_layers: how many.
        embed_dim: width C; read for ``norm``.
        query_position: makes positional queries from the references of each layer; None where the query source gives
            them once. Where both do, those of the source are what is added to contents (Conditional DETR).
        norm: whether predictions are made from a LayerNorm of each layer's output (DETR, DAB, DINO); refinement
            and the next layer go on from the output itself.
        refine: whether a layer's boxes are the next layer's references (Deformable DETR, appendix A.4); otherwise
            references stay and every layer's boxes are relative to them.
        look_forward_twice: whether the loss of a layer also trains the refinement of the layer before it (DINO,
            section 3.5). Outputs are the same, gradients are not. Needs ``refine``.
        eps: of the inverse sigmoid of references: 1e-5 in Deformable-DETR, H-DETR and RT-DETR, 1e-3 in DAB, DN, DINO
            and what was built on detrex.
        num_eval_layers: layers that inference runs; None is all of them.
        tap_group: name of the predictions from the layers' taps, where they have any.
        checkpoint_activations: recompute each layer in backward instead of keeping what it computed.
    """

    def __init__(
        self,
        *,
        layer: nn.Module,
        num_layers: int = 6,
        embed_dim: int = 256,
        query_position: QueryPosition | None = None,
        norm: bool = False,
        refine: bool = True,
        look_forward_twice: bool = False,
        eps: float = 1e-5,
        num_eval_layers: int | None = None,
        tap_group: str = "one2many",
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        if look_forward_twice and not refine:
            raise ValueError("Decoder: look_forward_twice=True needs refine=True; else nothing looks")
        if num_eval_layers is not None and not 1 <= num_eval_layers <= num_layers:
            raise ValueError(f"Decoder: num_eval_layers={num_eval_layers} is not in 1 to num_layers={num_layers}")
        self.query_position = query_position
        self.norm = nn.LayerNorm(embed_dim) if norm else None
        self.refine = refine
        self.look_forward_twice = look_forward_twice
        self.eps = eps
        self.num_eval_layers = num_eval_layers
        self.tap_group = tap_group
        self.checkpoint_activations = checkpoint_activations
        self.layers = stack(layer, num_layers)
        if query_position is not None:
            draw_matrices(query_position)

    def forward(
        self, groups: Sequence[QueryGroup], memory: Memory, heads: PredictionHeads, *, all_layers: bool
    ) -> dict[str, Predictions]:
        """Decode all groups, those of one route in one pass.

        Args:
            groups: whose names differ.
            memory: encoded tokens.
            heads: of each layer.
            all_layers: whether to return predictions of every layer, as the losses need, or of the last one.

        Returns:
            Predictions by group name, (layers, B, n, .) with layers = 1 unless ``all_layers``.
        """
        predictions: dict[str, Predictions] = {}
        for route in dict.fromkeys(group.route for group in groups):
            members = [group for group in groups if group.route == route]
            predictions.update(self._decode(members, route, memory, heads, all_layers))
        return predictions

    def _decode(
        self, groups: Sequence[QueryGroup], route: str, memory: Memory, heads: PredictionHeads, all_layers: bool
    ) -> dict[str, Predictions]:
        layout = _Layout.of(groups)
        content = torch.cat([group.content for group in groups], dim=1)
        position = _joined([group.position for group in groups])
        reference = _joined([group.reference for group in groups])
        live = reference
        layers = self.layers if self.training else self.layers[: self.num_eval_layers]
        stacks: dict[str, tuple[list[Tensor], list[Tensor]]] = {"": ([], []), self.tap_group: ([], [])}
        for index, layer in enumerate(layers):
            content, tap = run_layer(
                layer,
                content,
                self._query(position, reference, content, index, memory),
                None if reference is None else _on_levels(reference, memory.valid_ratios),
                memory,
                layout.views,
                route,
                recompute=self.checkpoint_activations,
            )
            class_head, box_head = heads.of_layer(index)
            wanted = all_layers or index == len(layers) - 1
            refines = self.refine and index < len(layers) - 1
            # Refinement goes on from the raw output; predictions are made from its norm, where there is one.
            read = content if self.norm is None else self.norm(content)
            delta = box_head(content).float() if refines else None
            refined = None if delta is None else self._shift(delta, reference)
            if wanted:
                if delta is None or self.norm is not None:
                    delta = box_head(read).float()
                reuse = refined is not None and self.norm is None and live is reference
                stacks[""][0].append(class_head(read))
                stacks[""][1].append(refined if reuse else self._shift(delta, live))  # type: ignore[arg-type]
                if tap is not None:
                    stacks[self.tap_group][0].append(class_head(tap))
                    stacks[self.tap_group][1].append(self._shift(box_head(tap).float(), live))
            if refined is not None:
                reference = refined.detach()
                live = refined if self.look_forward_twice else reference
        return self._by_group(groups, layout, stacks)

    def _query(
        self, position: Tensor | None, reference: Tensor | None, content: Tensor, index: int, memory: Memory
    ) -> PositionalQuery:
        if self.query_position is not None:
            made = self.query_position(reference, content, index, memory)
            return made if position is None else made._replace(position=position)
        if position is None:
            raise ValueError("Decoder: queries have no positions and there is no query_position to make them")
        return PositionalQuery(position)

    def _shift(self, delta: Tensor, reference: Tensor | None) -> Tensor:
        """Boxes (B, N, 4) from logit offsets to references; a point moves the centre only."""
        if reference is None:
            return delta.sigmoid()
        logit = inverse_sigmoid(reference, self.eps)
        if reference.shape[-1] == 2:
            return torch.cat([delta[..., :2] + logit, delta[..., 2:]], dim=-1).sigmoid()
        return (delta + logit).sigmoid()

    def _by_group(
        self,
        groups: Sequence[QueryGroup],
        layout: _Layout,
        stacks: dict[str, tuple[list[Tensor], list[Tensor]]],
    ) -> dict[str, Predictions]:
        logits, boxes = (torch.stack(parts) for parts in stacks[""])
        predictions = {}
        for group in groups:
            start, stop = layout.ranges[group.name]
            predictions[group.name] = Predictions(logits[:, :, start:stop], boxes[:, :, start:stop], known=group.known)
        if stacks[self.tap_group][0]:
            logits, boxes = (torch.stack(parts) for parts in stacks[self.tap_group])
            start, stop = layout.ranges[groups[0].name]
            predictions[self.tap_group] = Predictions(logits[:, :, start:stop], boxes[:, :, start:stop])
        return predictions


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """All groups' (B, n, .) one after another; None where no group has any."""
    present = [part for part in parts if part is not None]
    if present and len(present) != len(parts):
        raise ValueError("Decoder: some groups have positions or references and others have not")
    return torch.cat(present, dim=1) if present else None


def _on_levels(reference: Tensor, valid_ratios: Tensor) -> Tensor:
    """References of the un-padded image, (B, N, 2 or 4), on each padded level: (B, N, L, 2 or 4)."""
    ratios = valid_ratios if reference.shape[-1] == 2 else torch.cat([valid_ratios, valid_ratios], dim=-1)
    return reference[:, :, None] * ratios[:, None]

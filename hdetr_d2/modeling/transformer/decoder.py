"""The decoder: query groups go through the same layers and come out as classes and boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from hdetr_d2.arguments import check_within
from hdetr_d2.structures import KnownMatches, Memory, Predictions, QueryGroup

from ..heads import PredictionHeads
from .layer import DecoderLayer
from .layout import Layout
from .query_position import PositionalQuery, QueryPosition
from .refinement import Output, Reading, Refinement
from .relation import BoxRelation
from .stack import draw_matrices, run_layer, stack


class Decoder(nn.Module):
    """A stack of decoder layers; boxes may be refined from layer to layer.

    Args:
        layer: the pattern of all layers, which is not run itself.
        num_layers: how many.
        embed_dim: width C, that of the layers.
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
        refinement: where boxes come from, in place of what the three arguments before say; None is that.
        relation: biases self-attention from the second layer on by how boxes lie to one another (Relation-DETR); None
            for no bias.
        num_eval_layers: layers that inference runs; None is all of them.
        tap_group: name of the predictions from the layers' taps, where they have any.
        checkpoint_activations: recompute each layer in backward instead of keeping what it computed.
        distinct: the IoU of two queries' boxes in a layer, above which the one of the lower score does not stand there:
            it is no detection and, where its group is matched one-to-one, takes no part in matching and losses. It goes
            through the next layer as all do, and may stand there. None, as published but in DDQ DETR, is no look at
            boxes.
    """

    def __init__(
        self,
        *,
        layer: DecoderLayer,
        num_layers: int = 6,
        embed_dim: int = 256,
        query_position: QueryPosition | None = None,
        norm: bool = False,
        refine: bool = True,
        look_forward_twice: bool = False,
        eps: float = 1e-5,
        refinement: Refinement | None = None,
        relation: BoxRelation | None = None,
        num_eval_layers: int | None = None,
        tap_group: str = "one2many",
        checkpoint_activations: bool = False,
        distinct: float | None = None,
    ) -> None:
        super().__init__()
        if look_forward_twice and not refine:
            raise ValueError("Decoder: look_forward_twice=True needs refine=True; else nothing looks")
        if num_eval_layers is not None and not 1 <= num_eval_layers <= num_layers:
            raise ValueError(f"Decoder: num_eval_layers={num_eval_layers} is not in 1 to num_layers={num_layers}")
        if distinct is not None:
            check_within(self, 0.0, 1.0, distinct=distinct)
        self.embed_dim = embed_dim
        self.query_position = query_position
        self.norm = nn.LayerNorm(embed_dim) if norm else None
        self.refinement = refinement or Refinement(moves=refine, looks_twice=look_forward_twice, eps=eps)
        self.relation = relation
        self.num_eval_layers = num_eval_layers
        self.tap_group = tap_group
        self.checkpoint_activations = checkpoint_activations
        self.distinct = distinct
        self.layers = stack(layer, num_layers)
        if query_position is not None:
            draw_matrices(query_position)

    def forward(
        self,
        groups: Sequence[QueryGroup],
        memory: Memory,
        heads: PredictionHeads,
        *,
        all_layers: bool,
        columns: Tensor | None = None,
    ) -> dict[str, Predictions]:
        """Decode all groups, those of one route in one pass.

        Args:
            groups: whose names differ.
            memory: encoded tokens.
            heads: of each layer.
            all_layers: whether to return predictions of every layer, as the losses need, or of the last one.
            columns: (C',) int64, the classes to predict; None for all.

        Returns:
            Predictions by group name, (layers, B, n, .) with layers = 1 unless ``all_layers``.
        """
        predictions: dict[str, Predictions] = {}
        for route in dict.fromkeys(group.route for group in groups):
            members = [group for group in groups if group.route == route]
            layout = Layout.of(members)
            main, tapped = self._decode(layout, route, memory, heads, all_layers, columns)
            known = {group.name: group.known for group in members}
            predictions.update(_by_group(main, layout, known, self.distinct))
            if tapped:
                first = members[0].name
                predictions[self.tap_group] = _by_group(tapped, layout, {first: None}, self.distinct)[first]
        return predictions

    def _decode(
        self,
        layout: Layout,
        route: str,
        memory: Memory,
        heads: PredictionHeads,
        all_layers: bool,
        columns: Tensor | None,
    ) -> tuple[list[Output], list[Output]]:
        """What layers predict from their outputs, and from their taps, of the queries of one route."""
        content, place = layout.content, self.refinement.start(layout.reference)
        relation = None if self.relation is None or route not in self.relation.routes else self.relation
        boxes, views = [layout.reference], layout.views
        layers = self.layers if self.training else self.layers[: self.num_eval_layers]
        main: list[Output] = []
        tapped: list[Output] = []
        for index, layer in enumerate(layers):
            last = index == len(layers) - 1
            query = self._query(layout.position, place.reference, content, index, memory)
            if relation is not None and index:
                before, after = boxes[-2:]
                assert before is not None
                assert after is not None
                views = relation.views(layout.views, before, after)
            arguments = content, query, _on_levels(place.reference, memory), memory, views, route
            content, tap = run_layer(layer, *arguments, recompute=self.checkpoint_activations)
            # Predictions are made from the output's norm, where there is one; refinement goes on from the raw output.
            read, wanted = content if self.norm is None else self.norm(content), all_layers or last
            if tap is not None and wanted:
                tapped.append(self.refinement.predict(place, heads, index, Reading(tap, tap, True, last, columns)))
            reading = Reading(content, read, wanted or relation is not None, last, columns)
            output, place = self.refinement.after(place, heads, index, reading)
            if output is not None:
                boxes.append(output.boxes)
                if wanted:
                    main.append(output)
        return main, tapped

    def _query(
        self, position: Tensor | None, reference: Tensor | None, content: Tensor, index: int, memory: Memory
    ) -> PositionalQuery:
        if self.query_position is not None:
            made: PositionalQuery = self.query_position(reference, content, index, memory)
            return made if position is None else made._replace(position=position)
        if position is None:
            raise ValueError("Decoder: queries have no positions and there is no query_position to make them")
        return PositionalQuery(position)


def _by_group(
    outputs: Sequence[Output], layout: Layout, known: Mapping[str, KnownMatches | None], distinct: float | None
) -> dict[str, Predictions]:
    """The outputs of all layers, (layers, B, n, .) of each group that is named, with its matches where known.

    Queries that were made from targets stand, as there are several of each.
    """
    logits = torch.stack([output.logits for output in outputs])
    boxes = torch.stack([output.boxes for output in outputs])
    edges, initial = outputs[0].edges, outputs[0].initial
    if edges is not None:
        edges = replace(edges, logits=torch.stack([x.edges.logits for x in outputs if x.edges is not None]))
    predictions = {}
    for name, matches in known.items():
        part = slice(*layout.ranges[name])
        first = None
        if initial is not None:
            first = Predictions(initial.logits[None, :, part], initial.boxes[None, :, part], known=matches)
        predictions[name] = Predictions(
            logits[:, :, part],
            boxes[:, :, part],
            known=matches,
            distinct=distinct if matches is None else None,
            edges=None if edges is None else edges.of_queries(part),
            initial=first,
        )
    return predictions


def _on_levels(reference: Tensor | None, memory: Memory) -> Tensor | None:
    """References of the un-padded image, (B, N, 2 or 4), on each padded level: (B, N, L, 2 or 4)."""
    if reference is None:
        return None
    ratios = memory.valid_ratios
    if reference.shape[-1] == 4:
        ratios = torch.cat([ratios, ratios], dim=-1)
    return reference[:, :, None] * ratios[:, None]

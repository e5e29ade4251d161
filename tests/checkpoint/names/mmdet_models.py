"""Small models with mmdetection 3's modules, names and arithmetic, written from its description, for evaluation only.

All images of a batch have the size of the batch, so that nothing is padding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

DIM, HEADS, HIDDEN, QUERIES, CLASSES, POINTS = 32, 4, 48, 9, 5, 4
ENCODER_LAYERS, DECODER_LAYERS = 1, 3


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def sine(height: int, width: int, temperature: float, offset: float) -> Tensor:
    """(H W, C) of rows, then columns."""
    axes = []
    for count in (height, width):
        place = (torch.arange(1, count + 1, dtype=torch.float32) + offset) / (count + 1e-6) * 2 * math.pi
        axes.append(waves(place, DIM // 2, temperature))
    rows, columns = axes
    return torch.cat([rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], dim=-1).flatten(0, 1)


def waves(place: Tensor, count: int, temperature: float = 10000) -> Tensor:
    """Sines and cosines, by turns."""
    index = torch.arange(count, dtype=torch.float32)
    angles = place[..., None] / temperature ** (2 * (index // 2) / count)
    return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1).flatten(-2)


def encoded(coordinates: Tensor) -> Tensor:
    """Of (x, y) or (x, y, w, h), y before x."""
    parts = [waves(coordinates[..., i] * 2 * math.pi, DIM // 2) for i in range(coordinates.shape[-1])]
    return torch.cat([parts[1], parts[0], *parts[2:]], dim=-1)


class Mlp(nn.Module):
    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class Ffn(nn.Module):
    def __init__(self, hidden: int, activation: type[nn.Module] = nn.ReLU, *, residual: bool = True) -> None:
        super().__init__()
        first = nn.Sequential(nn.Linear(DIM, hidden), activation(), nn.Dropout(0.0))
        self.layers = nn.Sequential(first, nn.Linear(hidden, DIM), nn.Dropout(0.0))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        return x * self.residual + self.layers(x)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(DIM, HEADS, batch_first=True)

    def forward(self, query: Tensor, key: Tensor, query_pos: Tensor, key_pos: Tensor) -> Tensor:
        return query + self.attn(query + query_pos, key + key_pos, key, need_weights=False)[0]


class ConditionalAttention(nn.Module):
    def __init__(self, *, cross: bool) -> None:
        super().__init__()
        names = ["qcontent", "qpos", "kcontent", "kpos", "v", "out"] + ["qpos_sine"] * cross
        for name in names:
            self.add_module(f"{name}_proj", nn.Linear(DIM, DIM))
        self.cross = cross

    def project(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(f"{name}_proj")(x)

    def forward(
        self, query: Tensor, key: Tensor, query_pos: Tensor, key_pos: Tensor, sine: Tensor | None, *, first: bool
    ) -> Tensor:
        q, k, v = self.project("qcontent", query), self.project("kcontent", key), self.project("v", key)
        place = self.project("kpos", key_pos)
        if first or not self.cross:
            q, k = q + self.project("qpos", query_pos), k + place
        heads = [x.unflatten(-1, (HEADS, -1)) for x in (q, k, v)]
        if self.cross:
            assert sine is not None
            heads[0] = torch.cat([heads[0], self.project("qpos_sine", sine).unflatten(-1, (HEADS, -1))], dim=-1)
            heads[1] = torch.cat([heads[1], place.unflatten(-1, (HEADS, -1))], dim=-1)
        q, k, v = (x.transpose(1, 2) for x in heads)
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return query + self.project("out", (weights @ v).transpose(1, 2).flatten(2))


class DeformableAttention(nn.Module):
    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.sampling_offsets = nn.Linear(DIM, HEADS * levels * POINTS * 2)
        self.attention_weights = nn.Linear(DIM, HEADS * levels * POINTS)
        self.value_proj = nn.Linear(DIM, DIM)
        self.output_proj = nn.Linear(DIM, DIM)

    def forward(self, query: Tensor, query_pos: Tensor, value: Tensor, places: Tensor, shapes: Any) -> Tensor:
        """``places`` is (B, Q, 2 or 4)."""
        asked = query + query_pos
        offsets = self.sampling_offsets(asked).unflatten(-1, (HEADS, self.levels, POINTS, 2))
        weights = self.attention_weights(asked).unflatten(-1, (HEADS, -1)).softmax(-1)
        weights = weights.unflatten(-1, (self.levels, POINTS))
        centers = places[:, :, None, None, None]
        if places.shape[-1] == 2:
            sizes = torch.tensor([[w, h] for h, w in shapes])
            points = centers + offsets / sizes[:, None]
        else:
            points = centers[..., :2] + offsets / POINTS * centers[..., 2:] * 0.5
        values = self.value_proj(value).unflatten(-1, (HEADS, -1)).split([h * w for h, w in shapes], dim=1)
        sampled = 0
        for level, ((h, w), one) in enumerate(zip(shapes, values)):
            maps = one.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, (h, w))
            grid = points[:, :, :, level].transpose(1, 2).flatten(0, 1) * 2 - 1
            got = F.grid_sample(maps, grid, align_corners=False).unflatten(0, (-1, HEADS))
            sampled = sampled + (got * weights[:, :, :, level].permute(0, 2, 1, 3)[:, :, None]).sum(-1)
        assert isinstance(sampled, Tensor)
        return query + self.output_proj(sampled.permute(0, 3, 1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, attentions: dict[str, nn.Module], activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        for name, attention in attentions.items():
            self.add_module(name, attention)
        self.ffn = Ffn(HIDDEN, activation)
        self.norms = nn.ModuleList(nn.LayerNorm(DIM) for _ in range(len(attentions) + 1))

    def finish(self, x: Tensor) -> Tensor:
        return self.norms[-1](self.ffn(self.norms[-2](x)))


class Conv(nn.Module):
    def __init__(self, channels: int, size: int, stride: int, *, normed: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, DIM, size, stride, size // 2, bias=not normed)
        if normed:
            self.gn = nn.GroupNorm(32, DIM)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.gn(x) if hasattr(self, "gn") else x


class ChannelMapper(nn.Module):
    def __init__(self, channels: Sequence[int], outputs: int, *, normed: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Conv(each, 1, 1, normed=normed) for each in channels)
        further = outputs - len(channels)
        self.extra_convs = nn.ModuleList(
            Conv(channels[-1] if i == 0 else DIM, 3, 2, normed=normed) for i in range(further)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        found = [conv(each) for conv, each in zip(self.convs, maps)]
        for i, conv in enumerate(self.extra_convs):
            found.append(conv(maps[-1] if i == 0 else found[-1]))
        return found


class Detector(nn.Module):
    """Backbone and neck, and modules by their names."""

    def __init__(self, *, multi_scale: bool) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet18()
        del self.backbone.fc
        self.multi_scale = multi_scale
        self.neck = ChannelMapper(
            [128, 256, 512] if multi_scale else [512], 4 if multi_scale else 1, normed=multi_scale
        )

    def features(self, pixels: Tensor) -> list[Tensor]:
        body = self.backbone
        x = body.maxpool(body.relu(body.bn1(body.conv1(pixels))))
        found = []
        for stage in (body.layer1, body.layer2, body.layer3, body.layer4):
            x = stage(x)
            found.append(x)
        return self.neck(found[1:] if self.multi_scale else found[3:])

    def named(self, **modules: nn.Module) -> nn.Module:
        group = nn.Module()
        for name, module in modules.items():
            group.add_module(name, module)
        return group


class Dense(Detector):
    """DETR, Conditional DETR or DAB-DETR."""

    def __init__(self, kind: str, *, patterns: int = 0) -> None:
        super().__init__(multi_scale=False)
        self.kind = kind
        activation: type[nn.Module] = nn.PReLU if kind == "dab_detr" else nn.ReLU
        self.encoder = self.named(
            layers=nn.ModuleList(Layer({"self_attn": Attention()}, activation) for _ in range(ENCODER_LAYERS))
        )
        self.decoder = self.named(
            layers=nn.ModuleList(
                Layer({"self_attn": self.attention(cross=False), "cross_attn": self.attention(cross=True)}, activation)
                for _ in range(DECODER_LAYERS)
            ),
            post_norm=nn.LayerNorm(DIM),
        )
        self.query_embedding = nn.Embedding(QUERIES, 4 if kind == "dab_detr" else DIM)
        self.bbox_head = self.named(fc_cls=nn.Linear(DIM, CLASSES + (kind == "detr")))
        if kind == "dab_detr":
            self.bbox_head.fc_reg = Mlp(DIM, DIM, DIM, 4)
            self.encoder.query_scale = Mlp(DIM, DIM, DIM)
            self.decoder.ref_point_head = Mlp(2 * DIM, DIM, DIM)
            self.decoder.ref_anchor_head = Mlp(DIM, DIM, 2)
            if patterns:
                self.patterns = nn.Embedding(patterns, DIM)
        else:
            self.bbox_head.reg_ffn = Ffn(DIM, residual=False)
            self.bbox_head.fc_reg = nn.Linear(DIM, 4)
        if kind == "conditional_detr":
            self.decoder.ref_point_head = Mlp(DIM, DIM, 2)
        if kind != "detr":
            self.decoder.query_scale = Mlp(DIM, DIM, DIM)
            for layer in self.decoder.layers[1:]:
                del layer.cross_attn.qpos_proj

    def attention(self, *, cross: bool) -> nn.Module:
        return Attention() if self.kind == "detr" else ConditionalAttention(cross=cross)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        (features,) = self.features(pixels)
        temperature = 20 if self.kind == "dab_detr" else 10000
        height, width = features.shape[-2:]
        place = sine(height, width, temperature, 0.0).expand(len(pixels), -1, -1)
        memory = features.flatten(2).transpose(1, 2)
        for layer in self.encoder.layers:
            scaled = place * self.encoder.query_scale(memory) if self.kind == "dab_detr" else place
            memory = layer.finish(layer.self_attn(memory, memory, scaled, scaled))
        batch = len(pixels)
        if self.kind == "detr":
            return self.decode_detr(memory, place, batch)
        return (self.decode_dab if self.kind == "dab_detr" else self.decode_conditional)(memory, place, batch)

    def head(self, x: Tensor) -> Tensor:
        return self.bbox_head.fc_reg(self.bbox_head.reg_ffn(x).relu())

    def decode_detr(self, memory: Tensor, place: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        position = self.query_embedding.weight.expand(batch, -1, -1)
        query = torch.zeros_like(position)
        for layer in self.decoder.layers:
            query = layer.norms[0](layer.self_attn(query, query, position, position))
            query = layer.finish(layer.cross_attn(query, memory, position, place))
        hidden = self.decoder.post_norm(query)
        return self.bbox_head.fc_cls(hidden), self.head(hidden).sigmoid()

    def layer(self, index: int, query: Tensor, memory: Tensor, position: Tensor, place: Tensor, sine: Tensor) -> Tensor:
        layer = self.decoder.layers[index]
        query = layer.norms[0](layer.self_attn(query, query, position, position, None, first=False))
        return layer.finish(layer.cross_attn(query, memory, position, place, sine, first=index == 0))

    def decode_conditional(self, memory: Tensor, place: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        position = self.query_embedding.weight.expand(batch, -1, -1)
        reference = self.decoder.ref_point_head(position).sigmoid()
        query = torch.zeros_like(position)
        for index in range(DECODER_LAYERS):
            scale = self.decoder.query_scale(query) if index else 1
            query = self.layer(index, query, memory, position, place, encoded(reference) * scale)
        hidden = self.decoder.post_norm(query)
        boxes = self.head(hidden)
        boxes[..., :2] += inverse_sigmoid(reference)
        return self.bbox_head.fc_cls(hidden), boxes.sigmoid()

    def decode_dab(self, memory: Tensor, place: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        boxes = self.query_embedding.weight
        query = torch.zeros(QUERIES, DIM)
        if hasattr(self, "patterns"):
            query = self.patterns.weight[:, None].expand(-1, QUERIES, -1).flatten(0, 1)
            boxes = boxes.repeat(len(self.patterns.weight), 1)
        query, reference = query.expand(batch, -1, -1), boxes.sigmoid().expand(batch, -1, -1)
        before = reference
        for index in range(DECODER_LAYERS):
            before, code = reference, encoded(reference)
            position = self.decoder.ref_point_head(code)
            code = code[..., :DIM] * (self.decoder.query_scale(query) if index else 1)
            size = self.decoder.ref_anchor_head(query).sigmoid()
            ratio = torch.cat(  # rows by heights, columns by widths
                [(size[..., i : i + 1] / reference[..., 2 + i : 3 + i]).expand(-1, -1, DIM // 2) for i in (1, 0)],
                dim=-1,
            )
            query = self.layer(index, query, memory, position, place, code * ratio)
            reference = (self.bbox_head.fc_reg(query) + inverse_sigmoid(reference)).sigmoid()
        hidden = self.decoder.post_norm(query)
        found = (self.bbox_head.fc_reg(hidden) + inverse_sigmoid(before, 1e-3)).sigmoid()
        return self.bbox_head.fc_cls(hidden), found


class Deformable(Detector):
    """Deformable DETR, of one stage, with refinement or of two stages, or DINO."""

    def __init__(self, kind: str) -> None:
        super().__init__(multi_scale=True)
        self.kind, self.dino = kind, kind == "dino"
        self.two_stage, self.refine = kind in ("two_stage", "dino"), kind != "plain"
        self.level_embed = nn.Parameter(torch.randn(4, DIM))
        self.encoder = self.named(
            layers=nn.ModuleList(Layer({"self_attn": DeformableAttention(4)}) for _ in range(ENCODER_LAYERS))
        )
        self.decoder = self.named(
            layers=nn.ModuleList(
                Layer({"self_attn": Attention(), "cross_attn": DeformableAttention(4)}) for _ in range(DECODER_LAYERS)
            )
        )
        pairs = DECODER_LAYERS + self.two_stage
        heads = [
            (nn.Linear(DIM, CLASSES), nn.Sequential(*self.linears())) for _ in range(pairs if self.refine else 1)
        ] * (1 if self.refine else pairs)
        self.bbox_head = self.named(
            cls_branches=nn.ModuleList(cls for cls, _ in heads), reg_branches=nn.ModuleList(reg for _, reg in heads)
        )
        if self.two_stage:
            self.memory_trans_fc, self.memory_trans_norm = nn.Linear(DIM, DIM), nn.LayerNorm(DIM)
        else:
            self.reference_points_fc = nn.Linear(DIM, 2)
        if kind == "two_stage":
            self.pos_trans_fc, self.pos_trans_norm = nn.Linear(2 * DIM, 2 * DIM), nn.LayerNorm(2 * DIM)
        else:
            self.query_embedding = nn.Embedding(QUERIES, DIM if self.dino else 2 * DIM)
        if self.dino:
            self.decoder.ref_point_head, self.decoder.norm = Mlp(2 * DIM, DIM, DIM), nn.LayerNorm(DIM)
            self.dn_query_generator = self.named(label_embedding=nn.Embedding(CLASSES, DIM))

    @staticmethod
    def linears() -> list[nn.Module]:
        return [nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, 4)]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.features(pixels)
        shapes = [tuple(each.shape[-2:]) for each in maps]
        temperature, offset = (20, 0.0) if self.dino else (10000, -0.5)
        place = torch.cat([sine(h, w, temperature, offset) + e for (h, w), e in zip(shapes, self.level_embed)])[None]
        cells = torch.cat([grid(h, w) for h, w in shapes])[None]
        memory = torch.cat([each.flatten(2).transpose(1, 2) for each in maps], dim=1)
        for layer in self.encoder.layers:
            memory = layer.finish(layer.self_attn(memory, place, memory, cells.expand(len(memory), -1, -1), shapes))
        query, position, reference = self.start(memory, cells, shapes)
        return self.decode(query, position, reference, memory, shapes)

    def start(self, memory: Tensor, cells: Tensor, shapes: Any) -> tuple[Tensor, Tensor | None, Tensor]:
        batch = len(memory)
        if not self.two_stage:
            position, query = self.query_embedding.weight.expand(batch, -1, -1).split(DIM, dim=-1)
            return query, position, self.reference_points_fc(position).sigmoid()
        sizes = torch.cat([torch.full((h * w, 2), 0.05 * 2.0**level) for level, (h, w) in enumerate(shapes)])[None]
        proposals = torch.cat([cells, sizes], dim=-1)
        valid = ((proposals > 0.01) & (proposals < 0.99)).all(-1, keepdim=True)
        proposals = (proposals / (1 - proposals)).log().masked_fill(~valid, float("inf"))
        output = self.memory_trans_norm(self.memory_trans_fc(memory.masked_fill(~valid, 0)))
        logits = self.bbox_head.cls_branches[-1](output)
        boxes = self.bbox_head.reg_branches[-1](output) + proposals
        rank = logits.max(-1)[0] if self.dino else logits[..., 0]
        best = rank.topk(QUERIES, dim=1)[1]
        chosen = boxes.gather(1, best[..., None].expand(-1, -1, 4))
        if self.dino:
            return self.query_embedding.weight.expand(batch, -1, -1), None, chosen.sigmoid()
        code = waves(chosen.sigmoid() * 2 * math.pi, DIM // 2).flatten(2)
        position, query = self.pos_trans_norm(self.pos_trans_fc(code)).split(DIM, dim=-1)
        return query, position, chosen.sigmoid()

    def decode(
        self, query: Tensor, position: Tensor | None, reference: Tensor, memory: Tensor, shapes: Any
    ) -> tuple[Tensor, Tensor]:
        before = reference
        for index, layer in enumerate(self.decoder.layers):
            before = reference
            where = self.decoder.ref_point_head(encoded(reference)) if position is None else position
            query = layer.norms[0](layer.self_attn(query, query, where, where))
            query = layer.finish(layer.cross_attn(query, where, memory, reference, shapes))
            if self.refine:
                reference = self.moved(index, query, reference, 1e-3 if self.dino else 1e-5)
        hidden = self.decoder.norm(query) if self.dino else query
        last = DECODER_LAYERS - 1
        return self.bbox_head.cls_branches[last](hidden), self.moved(last, hidden, before, 1e-5)

    def moved(self, index: int, query: Tensor, reference: Tensor, eps: float) -> Tensor:
        delta = self.bbox_head.reg_branches[index](query)
        known = inverse_sigmoid(reference, eps)
        return (delta + F.pad(known, (0, 4 - known.shape[-1]))).sigmoid()


def grid(height: int, width: int) -> Tensor:
    """(H W, 2) centres of cells, x before y, in parts of the map."""
    rows, columns = torch.meshgrid(
        (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
    )
    return torch.stack([columns, rows], dim=-1).flatten(0, 1)


def build(kind: str, *, seed: int = 0) -> Detector:
    """A model whose parameters are all perturbed."""
    torch.manual_seed(seed)
    patterns = 2 if kind == "dab_patterns" else 0
    dense = {"detr": "detr", "conditional_detr": "conditional_detr", "dab_detr": "dab_detr", "dab_patterns": "dab_detr"}
    model = Dense(dense[kind], patterns=patterns) if kind in dense else Deformable(kind)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.mul_(1 + 0.2 * torch.rand_like(tensor))
            elif tensor.is_floating_point():
                tensor.add_((0.02 if "backbone" in name else 0.1) * torch.randn_like(tensor))
    return model.eval()

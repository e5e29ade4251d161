"""Relation-DETR: DINO whose self-attention knows how boxes lie to one another, with a branch of its own ranking."""

from detectron2.config import LazyCall as L

from hdetr_d2.losses import VarifocalLoss
from hdetr_d2.modeling import BoxRelation, DecoderRoute
from hdetr_d2.supervision import HybridBranch

from .dino import model

model.neck.bias = False
transformer = model.transformer
transformer.position_embedding.update(temperature=10000, offset=-0.5)
transformer.encoder.fuse_states = True
transformer.decoder.query_position.scaled = True
transformer.decoder.relation = L(BoxRelation)(num_heads="${..layer.num_heads}")
transformer.decoder.layer.routes = [L(DecoderRoute)(name="one2many")]  # without the relation
transformer.heads.shared = False
transformer.denoising.update(unknown_row=False, routes=[""])
model.supervision = L(HybridBranch)(num_queries=1500, k=6, weight=1.0, queries="own", route="one2many")
model.criterion.classification = L(VarifocalLoss)(alpha=0.75, gamma=2.0)

"""Deformable DETR with refinement and two stages."""

from detectron2.config import LazyCall as L

from hdetr_d2.modeling import TwoStageQueries

from .deformable_detr import model

model.transformer.query_source = L(TwoStageQueries)(num_queries=300, embed_dim="${..embed_dim}", mixed=False)
model.transformer.decoder.refine = True
model.transformer.heads.update(shared=False, encoder="own", initial_size=False)

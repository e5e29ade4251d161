from ...common.supervision import by_frequency as _demand
from .federated_hybrid import dataloader, dataset, model, optimizer, schedule, train

model.supervision.demand = _demand
train.output_dir = "output/lvis/federated_hybrid_by_frequency"

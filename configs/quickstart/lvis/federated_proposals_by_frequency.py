from ...common.supervision import by_frequency as _demand
from .federated_proposals import dataloader, dataset, model, optimizer, schedule, train

model.supervision.demand = _demand
train.output_dir = "output/lvis/federated_proposals_by_frequency"

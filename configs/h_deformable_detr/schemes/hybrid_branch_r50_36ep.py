from ...common.schedule import schedule_36ep as schedule
from .hybrid_branch_r50_12ep import dataloader, dataset, model, optimizer, train

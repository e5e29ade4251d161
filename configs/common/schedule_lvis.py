"""The lengths of H-DETR's training on LVIS: 180,000 steps, a tenth of the rates after 150,000.

With 16 and 32 images a step the authors call them 24 and 48 epochs; they are 28.75 and 57.5 times the 100,170 training
images of LVIS v1 (6,261 and 3,131 steps each).
"""

from .schedule import schedule as _schedule

schedule_24ep = dict(_schedule, epochs=28.75, drop_epochs=[23.96])
schedule_48ep = dict(_schedule, epochs=57.5, drop_epochs=[47.91])

#!/usr/bin/env python
"""Train or evaluate: ``train_net.py --config-file F [--resume] [--eval-only] [--num-gpus N] [key=value ...]``."""

from hdetr_d2.engine.cli import run

if __name__ == "__main__":
    run()

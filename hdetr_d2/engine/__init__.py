"""Training and evaluation around Detectron2's trainer: configs, processes, steps, hooks."""

from .ema import ModelEMA
from .errors import ConfigError, ResumeError
from .optim import ParamRule, get_param_groups
from .schedule import LearningRateSchedule, ScheduleSettings, build_schedule
from .settings import EMASettings, RestartSettings, TrainSettings
from .trainer import Trainer

__all__ = [
    "ConfigError",
    "EMASettings",
    "LearningRateSchedule",
    "ModelEMA",
    "ParamRule",
    "RestartSettings",
    "ResumeError",
    "ScheduleSettings",
    "TrainSettings",
    "Trainer",
    "build_schedule",
    "get_param_groups",
]

"""What files of DETR, Deformable DETR and their descendants have in common."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, TypeVar

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from hdetr_d2.matching import MatchingCost
from hdetr_d2.model_zoo import get_config

from .check import Check
from .errors import NotSupportedError, ParityError
from .inputs import GivenFeatures, Inputs, feature_names, read_inputs
from .model_file import ModelFile, denoising_checks, evaluation_checks, training_checks
from .noise import feed_noise, target_draws
from .options import Activation, Options, Pair

Size = tuple[int, int]


class Levels(Options, kw_only=True):
    """Of deformable attention."""

    num_feature_levels: int = 4
    enc_n_points: int = 4
    dec_n_points: int = 4


class DetrOptions(Options, kw_only=True):
    """Options of every such file; those with a default may be missing, where the authors' code has that value."""

    model: str = ""
    channels: list[int]
    num_classes: int
    enc_layers: int
    dec_layers: int
    ffn: int
    d_model: int = 256
    nheads: int = 8
    activation: Activation = "relu"
    dropout: float = 0.0
    num_queries: int | None = None
    num_queries_one2one: int
    num_queries_one2many: int = 0
    k_one2many: int = 0
    two_stage: bool = False
    with_box_refine: bool = False
    mixed_selection: bool = False
    look_forward_twice: bool = False
    position_temperature: float | Pair | None = None
    position_offset: float | None = None
    inverse_sigmoid_eps: float | None = None
    matcher: tuple[float, float, float] | None = None
    loss_weights: dict[str, float] | None = None
    focal_alpha: float = 0.25
    topk: int | None = None
    orig_size_hw: Size = (480, 640)
    ngt: list[int] | None = None
    frame: Size | None = None
    sizes: list[Size] | None = None
    image_sizes: list[Size] | None = None
    strides: list[int] | None = None
    levels: Levels | None = None

    @property
    def temperatures(self) -> Pair | None:
        """Of the positions, y and x."""
        given = self.position_temperature
        return (given, given) if isinstance(given, (int, float)) else given

    @property
    def matching_cost(self) -> tuple[float, float, float] | None:
        """Weights of class, L1 and generalized IoU in the matching cost."""
        return self.matcher

    @property
    def cost_alpha(self) -> float:
        """Alpha of the focal cost, which the deformable models' code has as a constant."""
        return 0.25

    def check_inputs(self, inputs: Inputs) -> None:
        """Refuse options that say other things of the inputs than these themselves.

        Raises:
            ParityError: naming the option.
        """
        features = list(inputs.features.values())
        self.must_agree(
            ngt=(self.ngt, [len(t.labels) for t in inputs.targets]),
            frame=(self.frame, inputs.padded_size),
            sizes=(self.sizes, inputs.image_sizes),
            image_sizes=(self.image_sizes, inputs.image_sizes),
        )
        if self.strides is None:
            return
        if len(self.strides) < len(features):
            raise ParityError(f"config.json contradicts itself: strides {self.strides} of {len(features)} features")
        for stride, feature in zip(self.strides, features):
            height, width = inputs.padded_size
            rounded = ((height // stride, width // stride), (-(-height // stride), -(-width // stride)))
            if tuple(feature.shape[-2:]) not in rounded:
                raise ParityError(f"config.json contradicts itself: strides {self.strides} are not those of in/feat*")


class DeformableOptions(DetrOptions, kw_only=True):
    """Of models with deformable attention."""

    parts: ClassVar[Mapping[str, type[Options]]] = {"levels": Levels}


DetrOptionsT = TypeVar("DetrOptionsT", bound=DetrOptions)


class DetrFile(ModelFile[DetrOptionsT]):
    """A file of such a model."""

    config_name: ClassVar[str]
    """The model's config under ``configs/common/models``."""

    class_loss: ClassVar[str] = "loss_ce"
    """Their key of the class loss of the last layer."""

    @property
    def original_size(self) -> Size:
        """As the base class says."""
        return self.options.orig_size_hw

    def loss_weights(self) -> Mapping[str, float] | None:
        """As the base class says."""
        return self.options.loss_weights

    def node(self) -> DictConfig:
        """As the base class says: what all of these models have in common."""
        options = self.options
        options.must_be(dropout=0.0)
        options.must_agree(num_queries=(options.num_queries, options.num_queries_one2one))
        if options.look_forward_twice and not options.with_box_refine:
            raise NotSupportedError("look_forward_twice without with_box_refine, which the authors' code cannot run")
        model = get_config(f"common/models/{self.config_name}.py").model
        model.num_classes = options.num_classes
        if options.topk is not None:
            model.num_detections = options.topk
        model.backbone = L(GivenFeatures)(channels=options.channels)
        model.neck.update(in_channels=options.channels, in_features=feature_names(options.channels))
        self._set_transformer(model.transformer)
        if options.matching_cost is not None:
            label, l1, giou = options.matching_cost
            model.supervision.cost = L(MatchingCost)(
                class_weight=label,
                l1_weight=l1,
                giou_weight=giou,
                alpha=options.cost_alpha,
                score=model.get("score", "sigmoid"),
            )
        if options.loss_weights is not None:
            for option, key in (("class", self.class_loss), ("l1", "loss_bbox"), ("giou", "loss_giou")):
                model.criterion[f"{option}_weight"] = options.loss_weights.get(key, 0.0)
        if "alpha" in model.criterion.classification:
            model.criterion.classification.alpha = options.focal_alpha
        return model

    def _set_transformer(self, transformer: DictConfig) -> None:
        options = self.options
        transformer.embed_dim = options.d_model
        transformer.position_embedding.num_features = options.d_model // 2
        if options.temperatures is not None:
            transformer.position_embedding.temperature = list(options.temperatures)
        if options.position_offset is not None:
            transformer.position_embedding.offset = options.position_offset
        transformer.encoder.num_layers = options.enc_layers
        transformer.encoder.layer.update(
            hidden_dim=options.ffn, num_heads=options.nheads, dropout=0.0, activation=options.activation
        )
        transformer.query_source.num_queries = options.num_queries_one2one
        transformer.decoder.num_layers = options.dec_layers
        transformer.decoder.layer.activation = options.activation
        if options.inverse_sigmoid_eps is not None:
            transformer.decoder.eps = options.inverse_sigmoid_eps
        if options.levels is not None:
            transformer.num_levels = options.levels.num_feature_levels
            transformer.encoder.layer.num_points = options.levels.enc_n_points
            transformer.decoder.layer.num_points = options.levels.dec_n_points

    def checks(self) -> Iterator[Check]:
        """As the base class says."""
        options = self.options
        inputs = read_inputs(self.data, channels=options.channels, num_classes=options.num_classes)
        options.check_inputs(inputs)
        model = self.build()
        denoising = model.transformer.denoising
        if denoising is not None and any(len(t.labels) for t in inputs.targets):
            feed_noise(denoising, target_draws(self.data, inputs.targets, denoising.label_noise))
            yield from denoising_checks(model, self.data, inputs.targets)
        model.train()
        yield from training_checks(self, model, self.data, inputs, inputs.targets)
        yield from evaluation_checks(self, model, self.data, inputs)

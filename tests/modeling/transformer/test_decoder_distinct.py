"""Queries that do not stand, on every model."""

from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from torch import Tensor

from hdetr_d2.layers import cxcywh_to_xyxy, standing_queries
from hdetr_d2.losses import (
    ClassificationLoss,
    EqualizedFocalLoss,
    FederatedLoss,
    IoUAwareBCE,
    MatchabilityAwareLoss,
    SeesawLoss,
    SetCriterion,
    SigmoidFocalLoss,
    SoftmaxCrossEntropy,
    VarifocalLoss,
)
from hdetr_d2.losses.criterion import MatchedStep
from hdetr_d2.modeling import DETR, top_detections
from hdetr_d2.structures import Predictions, Targets
from hdetr_d2.supervision import PRIMARY, HybridLayer, OneToOne, Supervision
from tests.conftest import NUM_CLASSES
from tests.modeling.family import OF_PROPOSALS, ONE_TO_MANY, ONE_TO_ONE, SCHEMES, build, config_of

THRESHOLD = 0.02
DISTINCT = {"distinct": THRESHOLD}
MODELS = ONE_TO_ONE + ONE_TO_MANY
LOSSES: list[ClassificationLoss] = [
    SigmoidFocalLoss(),
    VarifocalLoss(),
    MatchabilityAwareLoss(),
    IoUAwareBCE(),
    FederatedLoss(image_counts=[5] * NUM_CLASSES, num_chosen=2),
    SeesawLoss(num_classes=NUM_CLASSES),
    EqualizedFocalLoss(num_classes=NUM_CLASSES),
]


class Onlooker:
    """Keeps what a step matched."""

    def __call__(self, step: MatchedStep) -> None:
        self.step = step


def trained(model: DETR, batch: list[dict[str, Any]]) -> tuple[dict[str, Tensor], MatchedStep]:
    onlooker = Onlooker()
    model.criterion.observer = onlooker
    return model(batch), onlooker.step


@pytest.mark.parametrize("name", MODELS)
def test_every_model_learns_and_only_one_to_one_matching_leaves_queries_out(name: str, draw_batch: Any) -> None:
    schemes: list[str | None] = [None]
    if name in ("deformable_detr_plus_plus", "dino"):
        schemes += [*SCHEMES, *OF_PROPOSALS]
    batch = draw_batch((128, 160, 3), (96, 128, 1), (64, 64, 0))
    for scheme in schemes:
        model = build(name, scheme, perturb=0.3, decoder=DISTINCT).train()
        losses, step = trained(model, batch)
        sum(losses.values()).backward()
        assert all(value.isfinite() for value in losses.values())
        missing = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not missing, (scheme, missing)
        for request in step.requests:
            for layer, matcher in enumerate(request.matchers):
                everyone = request.stands is None or bool(request.stands[layer].all())
                assert everyone or matcher.one_to_one
        primary = step.requests[0]
        if any(matcher.one_to_one for matcher in primary.matchers):
            assert primary.stands is not None
            assert not primary.stands.all() or name == "rtdetr"  # whose boxes are apart
        for one in step.solved:
            stands = step.requests[one.request].stands
            for layer, solution in zip(one.layers, one.solutions):
                assert stands is None or stands[layer, one.image, solution.rows].all()


@pytest.mark.parametrize("name", ["detr", "deformable_detr_plus_plus", "h_deformable_detr", "mr_detr"])
def test_without_the_option_nothing_is_computed_and_where_no_boxes_overlap_so_much_nothing_changes(
    name: str, draw_batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = draw_batch((128, 160, 2), (96, 128, 1))
    results = []
    for decoder in (None, {"distinct": 1.0}):
        model = build(name, perturb=0.3, decoder=decoder)
        torch.manual_seed(1)
        losses = model.train()(batch)
        sum(losses.values()).backward()
        gradients = {key: p.grad for key, p in model.named_parameters()}
        with torch.no_grad():
            found = [one["instances"].scores for one in model.eval()(batch)]
        results.append((losses, gradients, found))
    torch.testing.assert_close(*results)

    def refuse(*arguments: Any, **options: Any) -> Tensor:
        raise AssertionError("nobody asked")

    for module in ("losses.job", "modeling.postprocess"):
        monkeypatch.setattr(f"hdetr_d2.{module}.standing_queries", refuse)
    model = build(name, perturb=0.3)
    model.train()(batch)
    model.eval()(batch)


@pytest.mark.parametrize("name", ["detr", "deformable_detr", "deformable_detr_plus_plus", "mr_detr", "rtdetr"])
@torch.no_grad()
def test_detections_are_those_that_stand(name: str, draw_batch: Any) -> None:
    model = build(name, perturb=0.3, decoder=DISTINCT).eval()
    images = model.preprocess(draw_batch((128, 160, 2), (128, 160, 1)))
    found, _ = model.predict(model.backbone(images.tensor), tuple(images.tensor.shape[-2:]), images.image_sizes)
    primary = found[PRIMARY]
    assert primary.distinct == THRESHOLD
    scores, _, boxes = model.detections(primary)
    last = primary.logits[-1], primary.boxes[-1]
    stands = standing_queries(*last, THRESHOLD, softmax=model.score == "softmax")
    assert not stands.all()
    for image in range(2):
        standing = {tuple(box) for box in cxcywh_to_xyxy(last[1][image, stands[image]]).tolist()}
        assert {tuple(box) for box in boxes[image, scores[image] > 0].tolist()} <= standing


@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
def test_a_detection_that_does_not_stand_has_score_zero_and_comes_last(score: str) -> None:
    boxes = torch.tensor([[[0.3, 0.3, 0.2, 0.2], [0.31, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]]])
    logits = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [-1.0, -2.0]]])
    if score == "softmax":
        logits = torch.cat([logits, torch.zeros(1, 3, 1)], dim=-1)
    scores, labels, found = top_detections(logits, boxes, 2, score=score, distinct=0.5)
    assert (scores > 0).all()
    assert labels[0, 0] == 0
    assert found[0, :, 0].tolist() == pytest.approx([0.21, 0.6] if score == "softmax" else [0.21, 0.21])
    everything, _, _ = top_detections(logits, boxes, 6, score=score, distinct=0.5)
    assert (everything == 0).sum() == (1 if score == "softmax" else 2)


def losses_of(
    loss: ClassificationLoss, prediction: Predictions, targets: list[Targets], rules: Supervision | None = None
) -> dict[str, Tensor]:
    criterion = SetCriterion(classification=loss)
    return criterion({PRIMARY: prediction}, {}, targets, supervision=rules or OneToOne())


def crowd(layers: int = 2) -> tuple[Tensor, Tensor, list[Targets]]:
    """Four queries in two places of which one has a target, and a fifth elsewhere; the second and fourth are worse."""
    boxes = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.31, 0.3, 0.2, 0.2], [0.7, 0.3, 0.2, 0.2], [0.7, 0.31, 0.2, 0.2]])
    boxes = torch.cat([boxes, torch.tensor([[0.5, 0.8, 0.2, 0.2]])]).expand(layers, 1, 5, 4).clone()
    logits = torch.tensor([2.0, 1.0, 1.5, 0.5, -1.0])[:, None] + torch.linspace(0, -1, NUM_CLASSES)
    logits = logits.expand(layers, 1, 5, NUM_CLASSES).clone()
    return logits, boxes, [Targets(torch.tensor([0]), torch.tensor([[0.31, 0.3, 0.2, 0.2]]))]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_who_does_not_stand_is_neither_matched_nor_background(loss: ClassificationLoss) -> None:
    logits, boxes, targets = crowd()
    logits.requires_grad_(), boxes.requires_grad_()
    losses = losses_of(loss, Predictions(logits, boxes, distinct=0.5), targets)
    sum(losses.values()).backward()
    assert logits.grad is not None
    assert boxes.grad is not None
    learns = logits.grad.abs().sum(-1) > 0
    assert learns.tolist() == [[[True, False, True, False, True]]] * 2
    # The second query fits better, but does not stand: the first is matched.
    assert (boxes.grad.abs().sum(-1) > 0).tolist() == [[[True, False, False, False, False]]] * 2
    some = torch.tensor([0, 2, 4])
    alone = losses_of(loss, Predictions(logits[:, :, some], boxes[:, :, some]), targets)
    torch.testing.assert_close(losses, alone)


def test_a_softmax_averages_over_those_that_stand() -> None:
    logits, boxes, targets = crowd()
    logits = torch.cat([logits, torch.full((2, 1, 5, 1), 0.5)], dim=-1).requires_grad_()
    rules = instantiate(config_of("detr").supervision)
    losses = losses_of(SoftmaxCrossEntropy(), Predictions(logits, boxes, distinct=0.5), targets, rules)
    sum(losses.values()).backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(-1) > 0).tolist() == [[[True, False, True, False, True]]] * 2
    some = torch.tensor([0, 2, 4])
    alone = Predictions(logits[:, :, some], boxes[:, :, some])
    torch.testing.assert_close(losses, losses_of(SoftmaxCrossEntropy(), alone, targets, rules))


def test_where_matches_are_united_boxes_are_learned_in_the_layers_in_which_a_query_stands() -> None:
    logits, boxes, _ = crowd()
    logits[1, 0, :2] = logits[1, 0, :2].flip(0)  # in the second layer the second query is the better one
    boxes.requires_grad_()
    targets = [Targets(torch.tensor([0]), torch.tensor([[0.32, 0.31, 0.24, 0.22]]))]
    learned = []
    for distinct in (None, 0.5):
        criterion = SetCriterion(unite_matches=True)
        losses = criterion(
            {PRIMARY: Predictions(logits, boxes, distinct=distinct)}, {}, targets, supervision=OneToOne()
        )
        (grad,) = torch.autograd.grad(sum(losses.values()), boxes)
        learned.append((grad.abs().sum(-1) > 0)[:, 0, :2].tolist())
    assert learned == [[[True, True], [True, True]], [[True, False], [False, True]]]


def test_layers_that_are_matched_one_to_many_keep_their_crowds() -> None:
    logits, boxes, targets = crowd(layers=3)
    logits.requires_grad_()
    rules = HybridLayer(k=2, num_one2many_layers=2)
    sum(losses_of(SigmoidFocalLoss(), Predictions(logits, boxes, distinct=0.5), targets, rules).values()).backward()
    assert logits.grad is not None
    learns = (logits.grad.abs().sum(-1) > 0)[:, 0].tolist()
    assert learns == [[True] * 5] * 2 + [[True, False, True, False, True]]


@pytest.mark.parametrize("counts", [(0, 0), (4, 0), (4, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_more_targets_than_queries_that_stand_and_none(counts: tuple[int, int], dtype: torch.dtype) -> None:
    boxes = (0.5 + 0.01 * torch.rand(2, 2, 6, 4)).to(dtype).requires_grad_()  # one stands
    logits = torch.randn(2, 2, 6, NUM_CLASSES).to(dtype).requires_grad_()
    assert standing_queries(logits, boxes, 0.5).sum(-1).eq(1).all()
    targets = [Targets(torch.randint(NUM_CLASSES, (n,)), 0.3 + 0.2 * torch.rand(n, 4)) for n in counts]
    losses = losses_of(SigmoidFocalLoss(), Predictions(logits, boxes, distinct=0.5), targets)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert logits.grad is not None
    assert (logits.grad.abs().sum(-1) > 0).sum(-1).eq(1).all()
    assert boxes.grad is not None
    assert (boxes.grad.abs().sum(-1) > 0).sum(-1).tolist() == [[int(n > 0) for n in counts]] * 2


def test_a_federated_step_asks_the_classes_that_it_learns(draw_batch: Any) -> None:
    config = config_of("deformable_detr_plus_plus", decoder=DISTINCT)
    config.criterion.classification = L(FederatedLoss)(image_counts=[5] * NUM_CLASSES, num_chosen=2)
    losses = instantiate(config).train()(draw_batch((128, 160, 1)))
    assert all(value.isfinite() for value in losses.values())


@pytest.mark.parametrize("distinct", [1.5, -0.1])
def test_a_threshold_that_is_no_overlap_is_refused(distinct: float) -> None:
    with pytest.raises(ValueError, match=f"Decoder: distinct.*{distinct}"):
        build("deformable_detr", decoder={"distinct": distinct})

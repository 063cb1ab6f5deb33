import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from export.errors import UserError
from export.graph import Exporter, to_onnx_bytes
from export.parity import compare
from export.runners import OrtRunner
from fbnetv5.blocks.specs import conv_norm, initialise
from fbnetv5.data.predictions import TOP_K
from fbnetv5.data.sample import Batch
from fbnetv5.tasks.detection import BOX_WEIGHT, CLASS_PRIOR, decode, giou_loss, select, suppress
from fbnetv5.tasks.task import Task
from tests.fbnetv5.tasks.detections import TASK, ap, image, random_image, stack


def test_decode_by_hand() -> None:
    log_sizes = torch.tensor([2.0, 0.5]).log()
    cell = torch.cat([torch.tensor([0.5, -1.0]), log_sizes])[None, None]
    boxes = decode(cell, torch.tensor([[12.0, 20.0]]), torch.tensor([8.0]))
    torch.testing.assert_close(boxes, torch.tensor([[[8.0, 10.0, 24.0, 14.0]]]))


def test_deploy_reads_the_cell_of_each_level() -> None:
    raw = [torch.full((1, 7, size, size), -9.0) for size in (8, 4, 2)]
    raw[0][0, :, 1, 6] = torch.tensor([-9.0, -9.0, 4.0, 0.0, 0.0, 0.0, 0.0])  # stride 8, row 1, column 6, "blue"
    raw[2][0, :, 1, 0] = torch.tensor([3.0, -9.0, -9.0, 0.0, 0.0, 0.0, 0.0])  # stride 32, row 1, column 0, "red"
    boxes, scores, labels = TASK.deploy(raw)
    assert boxes.shape == (1, TOP_K, 4)
    assert boxes[0, :2].tolist() == [[48.0, 8.0, 56.0, 16.0], [0.0, 32.0, 32.0, 64.0]]
    assert labels[0, :2].tolist() == [2, 0]
    torch.testing.assert_close(scores[0, :2], torch.tensor([4.0, 3.0]).sigmoid())


def test_an_image_with_few_cells_has_fewer_detections() -> None:
    raw = [torch.zeros(2, 7, size, size) for size in (4, 2, 1)]
    assert [x.shape for x in TASK.deploy(raw)] == [(2, 63, 4), (2, 63), (2, 63)]


def test_head_starts_at_its_priors() -> None:
    head = TASK.build_head([8, 8, 8]).eval()
    boxes, scores, _ = TASK.deploy(head([torch.zeros(1, 8, size, size) for size in (8, 4, 2)]))
    torch.testing.assert_close(scores, torch.full((1, TOP_K), CLASS_PRIOR), rtol=0.5, atol=0)
    sides = boxes[..., 2:] - boxes[..., :2]
    assert bool((sides > 25).all())
    assert bool((sides < 160).all())


def test_perfect_cell_leaves_only_the_class_loss() -> None:
    raw = [torch.full((1, 7, size, size), -20.0) for size in (8, 4, 2)]
    raw[0][0, :, 1, 6] = torch.tensor([-20.0, -20.0, 20.0, 0.0, 0.0, 0.0, 0.0])
    batch = stack([image(torch.tensor([[48.0, 8.0, 56.0, 16.0]]), torch.tensor([2]))])
    assert float(TASK.losses(raw, batch)) == pytest.approx(0.0, abs=1e-4)
    raw[0][0, 3, 1, 6] = 0.5  # half a stride aside: IoU 1/3, GIoU 1/3, target 1/3, sum of targets below 1
    logit_loss = 20.0 * (1 - 1 / 3)
    expected = logit_loss + 2 * (1 / 3) * (1 - 1 / 3)
    assert float(TASK.losses(raw, batch)) == pytest.approx(expected, rel=1e-4)


def test_an_empty_image_pays_for_every_score() -> None:
    raw = [torch.zeros(1, 7, size, size) for size in (8, 4, 2)]
    empty = stack([image(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))])
    assert float(TASK.losses(raw, empty)) == pytest.approx(84 * 3 * torch.log(torch.tensor(2.0)).item())


def test_suppress_keeps_the_highest_score_of_a_class() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 9.0]]])
    ((_, scores, labels),) = suppress([boxes, torch.tensor([[0.5, 0.9, 0.8]]), torch.tensor([[0, 0, 1]])])
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.8]))
    assert labels.tolist() == [0, 1]


class TinyDetector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv_norm(3, 16, kernel=3, stride=2, act=True), conv_norm(16, 24, kernel=3, stride=2, act=True)
        )
        self.stages = nn.ModuleList(
            conv_norm(width, width + 24, kernel=3, stride=2, act=True) for width in (24, 48, 72)
        )
        initialise(self)
        self.head = TASK.build_head([48, 72, 96])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.stem((images.float() - 128) / 64)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        raw: tuple[Tensor, ...] = self.head(features)
        return raw


@pytest.mark.slow
def test_a_tiny_network_learns_sixteen_images() -> None:
    torch.manual_seed(0)
    batch = stack([random_image(seed) for seed in range(16)])
    network = TinyDetector()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(100):
        loss = TASK.losses(network(batch.images), batch).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        boxes, scores, labels = TASK.deploy(network(batch.images))
    assert ap((boxes, scores, labels), batch) > 0.7


def random_raw(images: int, *, size: int = 64) -> list[Tensor]:
    """Raw outputs full of boxes that overlap, some of them beyond the image's left and upper edge."""
    generator = torch.Generator().manual_seed(size + images)
    raw = [torch.randn(images, 7, size // path, size // path, generator=generator) for path in TASK.paths]
    for level in raw:
        level[:, 3:5] *= 0.3  # offsets, in strides
        level[:, 5:] = level[:, 5:] * 0.2 + 1.5  # log sizes: four or five strides
    return raw


class Head(nn.Module):
    """From raw outputs to a form's."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, *raw: Tensor) -> tuple[Tensor, ...]:
        return self.task.deploy(raw)


RAW = ("fine", "middle", "coarse")


def in_onnx(form: str, images: int, exporter: Exporter = "torchscript") -> bytes:
    """The graph of a form, of dynamic batch where the form lets it."""
    task = TASK.in_form(form)
    return to_onnx_bytes(
        Head(task).eval(),
        tuple(level.float() for level in random_raw(images)),
        input_names=RAW,
        output_names=task.output_names,
        dynamic_batch=task.max_images is None,
        dynamic_size=True,
        exporter=exporter,
    )


def run(content: bytes, raw: list[Tensor]) -> list[Tensor]:
    inputs = {name: level.numpy() for name, level in zip(RAW, raw, strict=True)}
    return [torch.from_numpy(array) for array in OrtRunner(content)(inputs).values()]


def test_an_unknown_form_is_refused() -> None:
    assert TASK.form == "topk"
    with pytest.raises(UserError, match="det has no outputs of form 'raw'; it has: topk, decode, nms"):
        TASK.in_form("raw")


def test_detections_of_equal_score_may_come_in_any_order() -> None:
    raw = [torch.zeros(1, 7, size, size) for size in (4, 2, 1)]
    found = {name: x.numpy() for name, x in zip(TASK.output_names, TASK.deploy(raw), strict=True)}
    other = {name: array[:, ::-1].copy() for name, array in found.items()}
    assert all(parity.error == 0 for parity in compare(found, other, rank_by=TASK.ranked_by))
    assert TASK.in_form("decode").ranked_by is TASK.in_form("nms").ranked_by is None


def test_decoded_cells_contain_the_best_detections() -> None:
    raw = random_raw(2)
    boxes, scores = TASK.in_form("decode").deploy(raw)
    assert (boxes.shape, scores.shape) == ((2, 84, 4), (2, 84, 3))
    for ours, theirs in zip(select(boxes, scores), TASK.deploy(raw), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(scores.flatten(1).amax(1), TASK.deploy(raw)[1][:, 0])


def test_distinct_boxes_are_those_that_suppress_keeps() -> None:
    for seed in range(5):
        raw = random_raw(1, size=64 + 32 * seed)
        best = TASK.deploy(raw)
        ((boxes, scores, labels),) = suppress(best)
        assert 1 < len(boxes) < TOP_K
        assert bool((best[0] < 0).any())
        for ours, theirs in zip(TASK.in_form("nms").deploy(raw), (boxes, scores, labels), strict=True):
            assert torch.equal(ours, theirs)


def test_distinct_boxes_are_of_one_image() -> None:
    assert TASK.in_form("nms").max_images == 1
    with pytest.raises(UserError, match="'nms' of det accepts one image at a time, got 2"):
        TASK.in_form("nms").deploy(random_raw(2))


@pytest.mark.parametrize(("form", "exporter"), [*((form, "torchscript") for form in TASK.forms), ("nms", "dynamo")])
def test_forms_are_the_same_in_onnx_at_other_sizes(form: str, exporter: Exporter) -> None:
    images = TASK.in_form(form).max_images or 3
    raw = random_raw(images, size=96)
    found, expected = run(in_onnx(form, min(2, images), exporter), raw), TASK.in_form(form).deploy(raw)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_nothing_in_a_graph_is_of_double_precision() -> None:
    """Not even where torch's usual type of new tensors is."""
    torch.set_default_dtype(torch.float64)
    try:
        content = in_onnx("topk", 2)
    finally:
        torch.set_default_dtype(torch.float32)
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content), data_prop=True)
    graph = model.graph
    types = {value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output]}
    types |= {tensor.data_type for tensor in graph.initializer}
    types |= {attribute.t.data_type for node in graph.node for attribute in node.attribute if attribute.HasField("t")}
    assert TensorProto.FLOAT in types
    assert TensorProto.DOUBLE not in types


def test_every_form_has_the_same_ap() -> None:
    samples = [random_image(seed) for seed in range(8)]
    raw = raw_near_truth(stack(samples))
    found = {}
    for form in TASK.forms:
        task = TASK.in_form(form)
        metric, step = task.new_metric(), task.max_images or len(samples)
        for row in range(0, len(samples), step):
            part = stack(samples[row : row + step])
            metric.update(task.deploy([level[row : row + step] for level in raw]), part)
        found[form] = metric.compute()
    assert 0.05 < found["topk"] < 0.95
    assert found["decode"] == found["nms"] == found["topk"]


def raw_near_truth(batch: Batch) -> list[Tensor]:
    """Raw outputs whose finest level finds most true boxes nearly, each twice, among noise."""
    generator = torch.Generator().manual_seed(0)
    raw = [torch.randn(len(batch.images), 7, 64 // path, 64 // path, generator=generator) - 4 for path in TASK.paths]
    for number, (boxes, labels) in enumerate(zip(*batch.targets["boxes"], strict=True)):
        for box, label in zip(boxes[labels >= 0], labels[labels >= 0].tolist(), strict=True):
            middle, side = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
            column, row = (int(value) for value in middle.div(8).floor())
            for cell in (column, max(column - 1, 0)):
                offset = middle / 8 - torch.tensor([cell + 0.5, row + 0.5])
                blurred = torch.cat([offset, (side / 8).log()]) + 0.05 * torch.randn(4, generator=generator)
                raw[0][number, 3:, row, cell] = blurred
                raw[0][number, label, row, cell] = float(torch.randn((), generator=generator))
    return raw


@pytest.mark.parametrize("side", [0.5, 20.0], ids=["mostly apart", "mostly overlapping"])
def test_the_box_loss_is_torchvisions_to_the_last_bit(side: float) -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 4, 500, 2, generator=generator) * 32
    boxes, others = torch.cat([corner, corner + side * torch.rand(corner.shape, generator=generator)], dim=-1)
    others[:, :50], others[:, 50:100] = boxes[:, :50], 0.0  # equal boxes, and the empty ones that pad a batch
    boxes.requires_grad_()
    own, peer = giou_loss(boxes, others), generalized_box_iou_loss(boxes, others)
    assert torch.equal(own, peer)
    (own_gradient,), (peer_gradient,) = (torch.autograd.grad(loss.square().sum(), boxes) for loss in (own, peer))
    assert torch.equal(own_gradient, peer_gradient)


def test_boxes_are_imitated_as_far_as_the_teacher_is_confident() -> None:
    """One path of two cells and two classes: (logits, offset x, y, log width, height), the second cell is certain."""
    teacher = torch.tensor([[-2.0, -3.0, 0.0, 0.0, 1.0, 1.0], [0.5, 3.0, 0.2, 0.0, 1.0, 0.0]])
    own = torch.tensor([[-1.0, -3.0, 0.0, 0.0, 3.0, 1.0], [0.5, 2.0, 0.2, 0.4, 1.0, 0.0]])
    p, q = (1 / (1 + np.exp(-logits[:, :2].double().numpy())) for logits in (teacher, own))
    classes = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum()
    boxes = p[0, 0] * (2.0 - 0.5) + p[1, 1] * 0.4**2 / 2  # smooth L1
    expected = (classes + BOX_WEIGHT * boxes) / max(1.0, p[0, 0] + p[1, 1])
    raw, of_teacher = ([logits.T.reshape(1, 6, 1, 2)] for logits in (own, teacher))
    assert TASK.distillation_losses(raw, of_teacher, 1.0).tolist() == pytest.approx([expected], rel=1e-5)

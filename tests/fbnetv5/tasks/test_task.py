"""What every task must keep: these tests sweep over all tasks found in the folder."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from export.errors import UserError
from fbnetv5.data.sample import Batch, Sample
from fbnetv5.data.targets import Boxes
from fbnetv5.tasks import make_tasks, task_types
from fbnetv5.tasks.task import Metric, MetricInfo, Task
from fbnetv5.training.config import TrainConfig
from tests.samples import make_sample, stack

CLASSES = {"label": tuple("abc"), "boxes": tuple("abcdefghij"), "mask": tuple("abcd"), "parts": tuple("abcd")}
CLASSES |= dict.fromkeys(("saliency", "edges", "depth", "normals"), ())
TASKS = list(make_tasks(tuple(task_types()), CLASSES).values())
CHANNELS = {4: 8, 8: 16, 16: 24, 32: 32}

each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


class Deployed(nn.Module):
    """A task's head with its deployable outputs, its scores spread out so that rounding does not change their order."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.task = task
        self.head = task.build_head([CHANNELS[path] for path in task.paths])
        for module in self.head.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.normal_(module.weight, std=0.5)
        self.head(features(task, images=8))

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        return self.task.deploy(self.head(list(features)))


def features(task: Task, *, images: int = 2, size: int = 64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(images * size)
    return [torch.randn(images, CHANNELS[p], size // p, size // p, generator=generator) for p in task.paths]


def sample(seed: int, *, labelled: bool = True) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(seed, 2, generator=generator) * 40
    boxes = Boxes(torch.cat([corner, corner + 16], dim=1), torch.randint(10, (seed,), generator=generator))
    mask = torch.randint(4, (64, 64), generator=generator, dtype=torch.uint8)
    labels = {
        "label": seed % 3,
        "boxes": boxes,
        "mask": mask,
        "saliency": (mask > 1).to(torch.uint8),
        "edges": (mask == 3).to(torch.uint8),
        "depth": mask + 0.5,
        "normals": functional.normalize(torch.randn(3, 64, 64, generator=generator), dim=0),
        "parts": 3 - mask,
    }
    return make_sample(torch.zeros(3, 64, 64, dtype=torch.uint8), **(labels if labelled else {}))


def head_outputs(task: Task, images: int) -> tuple[Tensor, ...]:
    raw = Deployed(task).eval().head(features(task, images=images))
    return raw if isinstance(raw, tuple) else (raw,)


def loss(task: Task, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
    return task.losses(outputs if len(outputs) > 1 else outputs[0], batch)


def distance_between(task: Task, raw: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """[N], at a temperature of 2."""
    own, other = (tuple(each) if len(each) > 1 else each[0] for each in (raw, teacher))
    return task.distillation_losses(own, other, 2.0)


@pytest.mark.parametrize(("lower", "worse"), [(False, 0.3), (True, 0.9)])
def test_a_drop_is_in_the_direction_that_is_worse(lower: bool, worse: float) -> None:
    metric = MetricInfo(name="any", lower_is_better=lower)
    assert metric.drop(0.5, worse) > 0
    assert metric.drop(worse, 0.5) < 0
    assert metric.drop(0.5, 0.5) == 0
    assert metric.drop(metric.worst, 0.5) < 0


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        (MetricInfo(name="top1"), "top1"),
        (MetricInfo(name="rmse", unit="m", lower_is_better=True), "rmse in m (lower is better)"),
    ],
)
def test_the_label_of_a_metric_has_its_unit_and_direction(metric: MetricInfo, label: str) -> None:
    assert metric.label == label


@each_task
def test_training_defaults_are_fields_of_a_training(task: Task) -> None:
    assert TrainConfig(task_names=(task.name,), **task.training).tasks == (task.name,)


@each_task
def test_an_image_costs_in_a_batch_what_it_costs_alone(task: Task) -> None:
    samples = [sample(1), sample(3, labelled=False), sample(2)]
    outputs = head_outputs(task, 3)
    together = loss(task, outputs, stack(samples))
    alone = [loss(task, tuple(x[i : i + 1] for x in outputs), stack([samples[i]])) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert (together > 0).tolist() == [True, False, True]


@each_task
def test_loss_has_finite_gradients_for_every_weight(task: Task) -> None:
    deployed = Deployed(task)
    total = task.losses(deployed.head(features(task)), stack([sample(1), sample(2)])).sum()
    assert all(bool(grad.isfinite().all()) for grad in torch.autograd.grad(total, list(deployed.parameters())))


@each_task
def test_the_host_never_reads_a_loss(task: Task) -> None:
    """A fake tensor has no values: whatever would make the host wait for an accelerator raises."""
    batch = stack([sample(1), sample(2, labelled=False)])
    with FakeTensorMode(allow_non_fake_inputs=True):
        head = task.build_head([CHANNELS[path] for path in task.paths])
        torch.autograd.backward(task.losses(head(features(task)), batch).sum())
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        torch.optim.AdamW(head.parameters(), fused=True).step()


@each_task
def test_equal_networks_have_no_distance_and_others_approach_their_teacher(task: Task) -> None:
    teacher = head_outputs(task, 3)
    raw = [(output + 0.3 * torch.randn(output.shape)).detach().requires_grad_() for output in teacher]
    for output, other in zip(raw, teacher, strict=True):
        output.data[0] = other[0]
    distance = distance_between(task, raw, teacher)
    assert (distance > 1e-6).tolist() == [False, True, True]
    gradients = torch.autograd.grad(distance.sum(), raw)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert max(float(gradient[0].abs().max()) for gradient in gradients) < 1e-5
    with torch.no_grad():
        nearer = [output - 0.01 * gradient for output, gradient in zip(raw, gradients, strict=True)]
        assert (distance_between(task, nearer, teacher)[1:] < distance[1:]).all()


@each_task
def test_an_image_is_as_far_from_its_teacher_in_a_batch_as_alone(task: Task) -> None:
    raw, teacher = head_outputs(task, 3), [output.flip(0) for output in head_outputs(task, 3)]
    alone = [distance_between(task, [x[i : i + 1] for x in raw], [x[i : i + 1] for x in teacher]) for i in range(3)]
    torch.testing.assert_close(distance_between(task, raw, teacher), torch.cat(alone))


@each_task
def test_labelled_marks_the_images_that_count(task: Task) -> None:
    assert task.labelled(stack([sample(1), sample(1, labelled=False)])).tolist() == [True, False]


@each_task
def test_metric_leaves_out_unlabelled_images(task: Task) -> None:
    one, two = task.new_metric(), task.new_metric()
    outputs = Deployed(task).eval()(*features(task))
    two.update(outputs, stack([sample(2), sample(1, labelled=False)]))
    one.update([x[:1] for x in outputs], stack([sample(2)]))
    assert one.compute() == two.compute()


@each_task
def test_merged_metrics_of_batches_are_the_metric_of_all_batches(task: Task) -> None:
    whole, parts, deployed = task.new_metric(), list[Metric](), Deployed(task).eval()
    for number in range(3):
        outputs = deployed(*(feature * (number + 1) for feature in features(task)))
        batch = stack([sample(number + 1), sample(number + 2)])
        part = task.new_metric()
        for metric in (whole, part):
            metric.update(outputs, batch)
        parts.append(pickle.loads(pickle.dumps(part)))
    first, *others = parts
    for part in others:
        first.merge(part)
    assert first.report() == whole.report()


@each_task
def test_metric_without_any_label_is_a_user_error(task: Task) -> None:
    metric = task.new_metric()
    metric.update(Deployed(task).eval()(*features(task)), stack([sample(1, labelled=False)] * 2))
    with pytest.raises(UserError, match=r"no labelled .* in the test (images|images)"):
        metric.compute()


@each_task
def test_outputs_do_not_depend_on_memory_format(task: Task) -> None:
    deployed = Deployed(task).eval()
    plain = deployed(*features(task))
    last = deployed.to(memory_format=torch.channels_last)(
        *(x.contiguous(memory_format=torch.channels_last) for x in features(task))
    )
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-4)


@each_task
def test_shapes_can_be_had_without_memory(task: Task) -> None:
    outputs = Deployed(task).to("meta")(*(x.to("meta") for x in features(task)))
    assert len(outputs) == len(task.output_names)
    assert all(x.is_meta and len(x) == 2 for x in outputs)


@each_task
@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
def test_onnx_gives_the_same_at_other_sizes(task: Task, tmp_path: Path) -> None:
    deployed, file = Deployed(task).eval(), tmp_path / "head.onnx"
    names = [f"stride{path}" for path in task.paths]
    torch.onnx.export(
        deployed,
        tuple(features(task)),
        file,
        dynamo=False,
        opset_version=20,
        input_names=names,
        output_names=list(task.output_names),
        dynamic_axes={name: {0: "n", 2: f"h_{name}", 3: f"w_{name}"} for name in names},
    )
    session = onnxruntime.InferenceSession(file)
    for images, size in ((1, 64), (3, 64), (1, 96), (3, 96)):
        inputs = features(task, images=images, size=size)
        ort_outputs = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
        for output, expected in zip(ort_outputs, deployed(*inputs), strict=True):
            torch.testing.assert_close(torch.from_numpy(output), expected, rtol=1e-3, atol=1e-3)

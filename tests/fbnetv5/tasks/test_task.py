"""What every task must keep: these tests sweep over all tasks found in the folder."""

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from export.errors import UserError
from fbnetv5.data.sample import ABSENT, Batch, Classes, Sample, collate
from fbnetv5.tasks import make_tasks, task_types
from fbnetv5.tasks.task import Task

CLASSES = Classes(labels=("a", "b", "c"), boxes=tuple("abcdefghij"), masks=("a", "b", "c", "d"))
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
        self.head(features(task, pictures=8))

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        return self.task.deploy(self.head(list(features)))


def features(task: Task, *, pictures: int = 2, size: int = 64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(pictures * size)
    return [torch.randn(pictures, CHANNELS[p], size // p, size // p, generator=generator) for p in task.paths]


def sample(seed: int, *, labelled: bool = True) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(seed, 2, generator=generator) * 40
    return Sample(
        image=torch.zeros(3, 64, 64, dtype=torch.uint8),
        label=seed % 3 if labelled else ABSENT,
        boxes=torch.cat([corner, corner + 16], dim=1) if labelled else None,
        box_labels=torch.randint(10, (seed,), generator=generator) if labelled else None,
        mask=torch.randint(4, (64, 64), generator=generator).to(torch.uint8) if labelled else None,
    )


def head_outputs(task: Task, pictures: int) -> tuple[Tensor, ...]:
    raw = Deployed(task).eval().head(features(task, pictures=pictures))
    return raw if isinstance(raw, tuple) else (raw,)


def loss(task: Task, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
    return task.losses(outputs if len(outputs) > 1 else outputs[0], batch)


def test_the_folder_holds_three_tasks() -> None:
    assert list(task_types()) == ["cls", "det", "seg"]


def test_unknown_task_is_named_with_those_there_are() -> None:
    with pytest.raises(UserError, match="unknown task 'pose'; there are: cls, det, seg"):
        make_tasks(("cls", "pose"), CLASSES)


@each_task
def test_a_picture_costs_in_a_batch_what_it_costs_alone(task: Task) -> None:
    samples = [sample(1), sample(3, labelled=False), sample(2)]
    outputs = head_outputs(task, 3)
    together = loss(task, outputs, collate(samples))
    alone = [loss(task, tuple(x[i : i + 1] for x in outputs), collate([samples[i]])) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert (together > 0).tolist() == [True, False, True]


@each_task
def test_loss_has_finite_gradients_for_every_weight(task: Task) -> None:
    deployed = Deployed(task)
    total = task.losses(deployed.head(features(task)), collate([sample(1), sample(2)])).sum()
    assert all(bool(grad.isfinite().all()) for grad in torch.autograd.grad(total, list(deployed.parameters())))


@each_task
def test_labelled_says_which_pictures_count(task: Task) -> None:
    assert task.labelled(collate([sample(1), sample(1, labelled=False)])).tolist() == [True, False]


@each_task
def test_metric_leaves_out_unlabelled_pictures(task: Task) -> None:
    one, two = task.new_metric(), task.new_metric()
    outputs = Deployed(task).eval()(*features(task))
    two.update(outputs, collate([sample(2), sample(1, labelled=False)]))
    one.update([x[:1] for x in outputs], collate([sample(2)]))
    assert one.compute() == two.compute()


@each_task
def test_metric_without_any_label_is_a_user_error(task: Task) -> None:
    metric = task.new_metric()
    metric.update(Deployed(task).eval()(*features(task)), collate([sample(1, labelled=False)] * 2))
    with pytest.raises(UserError, match=r"no labelled .* in the test pictures"):
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
    for pictures, size in ((1, 64), (3, 64), (1, 96), (3, 96)):
        inputs = features(task, pictures=pictures, size=size)
        answers = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
        for answer, expected in zip(answers, deployed(*inputs), strict=True):
            torch.testing.assert_close(torch.from_numpy(answer), expected, rtol=1e-3, atol=1e-3)

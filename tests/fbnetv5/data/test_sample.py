import torch

from fbnetv5.data.sample import ABSENT, IGNORE, Sample, collate


def sample(*, label: int = ABSENT, boxes: list[list[float]] | None = None, mask: bool = False) -> Sample:
    return Sample(
        image=torch.full((3, 32, 64), max(label, 0), dtype=torch.uint8),
        label=label,
        boxes=None if boxes is None else torch.tensor(boxes).reshape(-1, 4),
        box_labels=None if boxes is None else torch.arange(len(boxes)),
        mask=torch.ones(32, 64, dtype=torch.uint8) if mask else None,
    )


def test_boxes_are_padded_to_the_most_of_the_batch() -> None:
    batch = collate([sample(boxes=[[0, 0, 4, 4], [1, 2, 3, 4]]), sample(boxes=[[5, 6, 7, 8]])])
    assert batch.boxes.tolist() == [[[0, 0, 4, 4], [1, 2, 3, 4]], [[5, 6, 7, 8], [0, 0, 0, 0]]]
    assert batch.box_labels.tolist() == [[0, 1], [0, ABSENT]]


def test_unlabelled_and_empty_boxes_differ() -> None:
    batch = collate([sample(boxes=None), sample(boxes=[])])
    assert batch.has_boxes.tolist() == [False, True]
    assert batch.boxes.shape == (2, 1, 4)
    assert (batch.box_labels == ABSENT).all()


def test_absent_labels_and_masks_are_marked() -> None:
    batch = collate([sample(label=3), sample(mask=True)])
    assert batch.labels.tolist() == [3, ABSENT]
    assert batch.has_mask.tolist() == [False, True]
    assert (batch.masks[0] == IGNORE).all()
    assert (batch.masks[1] == 1).all()


def test_types_and_shapes() -> None:
    batch = collate([sample(label=1, boxes=[[0, 0, 4, 4]], mask=True)] * 3)
    assert batch.images.shape == (3, 3, 32, 64)
    assert batch.images.dtype == batch.masks.dtype == torch.uint8
    assert batch.labels.dtype == batch.box_labels.dtype == torch.int64
    assert batch.to(torch.device("cpu")).boxes.dtype == torch.float32

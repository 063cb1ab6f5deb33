"""Pretrained networks behind one interface: images of any size -> predictions of one task, with confidences."""

from fbnetv5.deploy.engine import engine_shapes


def test_an_engine_accepts_one_to_eight_images_of_the_deploy_resolution() -> None:
    shapes = engine_shapes((320, 640))
    assert shapes.smallest == shapes.typical == (1, 3, 320, 640)
    assert shapes.largest == (8, 3, 320, 640)

"""Pictures of examples: every form in which training code has them, and what the sheet shows."""

import numpy as np
from PIL import Image
import pytest

from landmark_triplets_tfds.training.epochs import FreshTriplets
from landmark_triplets_tfds.training.show import BLUE, ORANGE, draw_rows, show_images, show_triplets
from tests.support.competition import build, build_images, custom_config, images_config
from tests.support.helpers import encode_image, smooth_pixels
from tests.support.prepared_builds import without_bank

PIXELS = smooth_pixels(64, 64)
IDS = {"anchor_id": b"0" * 16, "positive_id": b"1" * 16, "negative_id": b"2" * 16}


def triplet(*images, **more):
    images = images or (PIXELS, PIXELS, PIXELS)
    names = ("anchor_img", "positive_img", "negative_img")
    landmarks = {"landmark_id": np.int64(7), "negative_landmark_id": np.int64(8)}
    return dict(zip(names, images, strict=True)) | IDS | landmarks | more


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Builders of triplets and of images, these with random access."""
    pytest.importorskip("array_record")
    folder = tmp_path_factory.mktemp("data")
    with without_bank():
        return (
            build(folder, custom_config(resolution=64)),
            build_images(folder, images_config(resolution=64, images_per_landmark=None), file_format="array_record"),
        )


def colours(picture):
    return {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in picture.convert("RGB").getcolors(1 << 24)}


def find_pixels(picture, pixels):
    """Returns the places (x, y) of an array of pixels in a picture."""
    sheet = np.asarray(picture)
    height, width = pixels.shape[:2]
    starts = np.argwhere((sheet == pixels[0, 0]).all(axis=2))
    return [(x, y) for y, x in starts.tolist() if np.array_equal(sheet[y : y + height, x : x + width], pixels)]


def test_stored_pixels_become_blocks_in_rows_of_three():
    picture = show_triplets([triplet()] * 2, title="two")
    blocks = PIXELS.repeat(4, axis=0).repeat(4, axis=1)
    places = find_pixels(picture, blocks)
    assert len(places) == 6
    assert len({x for x, _ in places}) == 3
    assert len({y for _, y in places}) == 2
    assert {BLUE, ORANGE} <= colours(picture)


def test_a_triplet_that_breaks_the_rules_looks_like_it():
    assert ORANGE not in colours(show_triplets([triplet(negative_landmark_id=7)]))


@pytest.mark.parametrize("side", [8, 100, 128, 320, 321, 2048])
def test_sheets_have_a_size_to_look_at(side):
    image = np.zeros((side, side, 3), np.uint8)
    picture = show_triplets([triplet(image, image, image)])
    assert 600 < picture.width < 1100
    assert 250 < picture.height < 500


def test_white_pictures_have_an_edge():
    white = np.full((64, 64, 3), 255, np.uint8)
    assert "#dddddd" in colours(show_triplets([triplet(white, white, white)]))


def as_torch_gives_it():
    channels_first = np.moveaxis(PIXELS, 2, 0).astype(np.float32) / 255
    return triplet(*[channels_first] * 3)


REFERENCE = show_triplets([triplet()])


@pytest.mark.parametrize(
    "examples",
    [
        [triplet()],
        (triplet() for _ in range(3)),
        triplet(),
        [triplet(*[PIXELS.astype(np.float32)] * 3)],
        [triplet(*[PIXELS / 255] * 3)],
        [triplet(*[PIXELS.astype(np.float32) / 127.5 - 1] * 3)],
        [as_torch_gives_it()],
        [{name: np.stack([value] * 2) for name, value in triplet().items()}],
        [triplet(anchor_id="0" * 16, positive_id=np.array(b"1" * 16, dtype=object))],
    ],
    ids=["list", "generator", "one", "float255", "float1", "float-1", "torch", "batch", "texts"],
)
def test_all_forms_of_the_same_triplet_look_the_same(examples):
    assert show_triplets(examples, 1).tobytes() == REFERENCE.tobytes()


def test_stored_bytes_and_grey_images():
    encoded, grey = encode_image(PIXELS), encode_image(PIXELS[..., 0])
    assert show_triplets([triplet(encoded, grey, PIXELS[..., :1])]).size == REFERENCE.size


@pytest.mark.parametrize("as_list", [list, tuple])
def test_batches_as_dataloaders_make_them(as_list):
    """PyTorch stacks images, and gives texts, and by version pairs, as lists."""
    features = {
        name: [value] * 2 if isinstance(value, bytes) else np.stack([value] * 2) for name, value in triplet().items()
    }
    assert show_triplets([dict(sorted(features.items()))], 1).tobytes() == REFERENCE.tobytes()
    pair = as_list([as_list([np.stack([PIXELS] * 2)] * 3), np.array([7, 7])])
    assert show_triplets([pair], 2).size == show_triplets([((PIXELS, PIXELS, PIXELS), 7)] * 2).size


def test_supervised_triplets_have_the_landmark_alone():
    picture = show_triplets([((PIXELS, PIXELS, PIXELS), np.int64(7))])
    assert picture.height < REFERENCE.height
    assert {BLUE, ORANGE} <= colours(picture)


@pytest.mark.parametrize("as_supervised", [False, True])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_datasets_of_tensorflow(datasets, as_supervised, batch_size):
    ds = datasets[0].as_dataset(split="train", as_supervised=as_supervised)
    picture = show_triplets(ds if batch_size is None else ds.batch(batch_size), 4)
    assert picture.width == REFERENCE.width
    assert picture.height > 4 * 256


def test_data_sources_and_fresh_triplets(datasets):
    source = datasets[1].as_data_source(split="train")
    assert show_triplets(FreshTriplets(source), 2).width == REFERENCE.width
    assert show_images(source, 8).width > show_images(source, 3).width


@pytest.mark.parametrize("make", [dict, lambda example: (example["image"], example["landmark_id"])])
def test_images_of_a_landmark_are_side_by_side(make):
    images = [np.full((64, 64, 3), i * 20 + 5, np.uint8) for i in range(4)]
    examples = [{"image": image, "landmark_id": i % 2} for i, image in enumerate(images)]
    picture = show_images([make(e) for e in examples])
    left = [find_pixels(picture, image.repeat(4, axis=0).repeat(4, axis=1))[0][0] for image in images]
    assert np.argsort(left).tolist() == [0, 2, 1, 3]


def test_rows_of_landmarks_may_differ_in_length():
    image = {"image": PIXELS, "image_id": "0" * 16, "landmark_id": -1}
    assert draw_rows([[image] * 3, [image]]).size == draw_rows([[image] * 3] * 2).size


@pytest.mark.parametrize(
    ("show", "examples", "message"),
    [
        (show_triplets, [], "there is no example"),
        (show_triplets, [{"image": PIXELS}], "Use show_images for images"),
        (show_images, [triplet()], "Use show_triplets for triplets"),
        (show_triplets, [{"x": 1}], r"expected triplets \(anchor_img, .*\), got x"),
        (show_triplets, [PIXELS], "expected a dict of features or a pair"),
        (show_triplets, [(PIXELS, 1)], "expected .*anchor, positive, negative.*, got a tuple of 2"),
        (show_triplets, [triplet(PIXELS, PIXELS, b"no")], "an image is 2 bytes that are no JPEG"),
        (show_triplets, [triplet(PIXELS, PIXELS, PIXELS[..., :2])], r"an image must be .* shape \(64, 64, 2\)"),
        (show_images, [3], "expected a dict of features or a pair"),
    ],
)
def test_what_cannot_be_shown(show, examples, message):
    with pytest.raises(ValueError, match=message):
        show(examples)


def test_num_must_be_positive():
    with pytest.raises(ValueError, match="num must be at least 1, got 0"):
        show_triplets([triplet()], 0)


def test_the_picture_is_one_that_notebooks_display():
    assert isinstance(REFERENCE, Image.Image)
    assert hasattr(REFERENCE, "_repr_png_")

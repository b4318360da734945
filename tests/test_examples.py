"""The training examples: that they run on the dummy data, what they write, and what they say when data is not there."""

import importlib
import json
import sys

import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds import ImageIndex, TensorFlowPixels, read_image_index
from tests.support.competition import DUMMY_DATA, REPOSITORY, build, build_images, custom_config, images_config, run

pytest.importorskip("array_record", reason="the examples read landmark_images at random, which needs array_record")

EXAMPLES = REPOSITORY / "examples"
FIELDS = {"resolution": 32, "images_per_landmark": None, "validation_percent": 40}
CONFIGS = ["--images_config", "held_out", "--triplets_config", "held_out"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Both datasets, prepared from dummy data."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANDMARK_TRIPLETS_BANK", str(folder / "bank"))
        build_images(folder, images_config("held_out", **FIELDS), file_format="array_record")
        build_images(folder, images_config("other_format", **FIELDS), file_format="tfrecord")
        build_images(folder, images_config("nothing_held_out", resolution=32), file_format="array_record")
        build(folder, custom_config("held_out", **FIELDS))
        build(folder, custom_config("nothing_held_out", resolution=32))
        build(folder, custom_config("larger", **FIELDS | {"resolution": 48}))
        held_out = read_image_index(folder / "landmark_images" / "held_out" / "1.0.0", "validation").landmark_ids
        (folder / "held_out.txt").write_text("\n".join(map(str, held_out)))
        build(folder, custom_config("left_out", resolution=32, exclude_landmarks=str(folder / "held_out.txt")))
    return folder


@pytest.fixture
def example(monkeypatch):
    """Imports a module of the examples as a run of one does."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")


def check_results(out, folder, data_dir):
    """Returns the measures, after a look at the files."""
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics.keys() == {"map_at_100", "recall_at_1"}
    assert all(0 <= value <= 1 for value in metrics.values())
    with Image.open(out / "results.png") as picture:
        assert picture.width > 600
        assert np.asarray(picture).std() > 10
    for split in ("train", "validation"):
        written = np.load(folder / f"{split}.npy")
        index = read_image_index(data_dir / "landmark_images" / "held_out" / "1.0.0", split)
        assert written.shape == (len(index), 16)
        assert written.dtype == np.float32
        assert np.linalg.norm(written, axis=1) == pytest.approx(1, abs=1e-3)
    return metrics


@pytest.mark.parametrize(
    ("data", "more"),
    [
        ("triplets", ["--device", "mirrored"]),
        ("fresh", []),
        (
            "batches",
            ["--landmarks_per_batch", "4", "--images_per_landmark", "2", "--precision", "mixed_bfloat16"],
        ),
    ],
)
def test_keras(data, more, example, data_dir, tmp_path, capsys):
    import keras

    arguments = ["--out", tmp_path / "out", "--embeddings", tmp_path / "new" / "embeddings", "--data_dir", data_dir]
    arguments += ["--data", data, *CONFIGS, "--steps", 4, "--evaluate_every", 2, "--batch_size", 4, *more]
    arguments += ["--embedding_size", 16]
    example("train_embedding").main(list(map(str, arguments)))
    metrics = check_results(tmp_path / "out", tmp_path / "new" / "embeddings", data_dir)
    printed = capsys.readouterr().out
    assert "val_map_at_100" in printed
    assert f"After 4 steps: mAP@100 {metrics['map_at_100']:.3f}" in printed
    assert f"landmark-triplets mine --embeddings {tmp_path}/new/embeddings/train.npy --index {data_dir}" in printed
    network = keras.models.load_model(tmp_path / "out" / "embedding.keras")
    assert network.input_shape == (None, 32, 32, 3)
    assert network.output_shape == (None, 16)
    if importlib.util.find_spec("tensorboard"):
        assert list((tmp_path / "out" / "logs" / "validation").glob("events*"))
    else:
        assert "tensorboard is not installed" in printed


@pytest.mark.slow
def test_embeddings_are_in_record_order(example, data_dir):
    network = example("train_embedding").make_network(32, 8)
    builder = example("prepared").open_images("held_out", str(data_dir))
    source = builder.as_data_source(split="train", decoders={"image": TensorFlowPixels()})
    embeddings = example("train_embedding").embed(network, source)
    images = np.stack([source[number]["image"] for number in range(len(source))])
    assert np.abs(embeddings - network.predict(images, verbose=0)).max() < 1e-5


def test_backbone(example, tmp_path):
    """Weights come from the file, and pixels in the scale of that family of networks, here -1 to 1."""
    import keras

    make_network, pixels = example("train_embedding").make_network, np.full((1, 32, 32, 3), 255, np.uint8)
    trained = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    trained.save_weights(tmp_path / "trained.weights.h5")
    network = make_network(32, 8, backbone="MobileNet", weights=str(tmp_path / "trained.weights.h5"))
    network.save(tmp_path / "embedding.keras")
    dense = network.layers[-2]
    features = trained.predict(pixels / np.float32(127.5) - 1, verbose=0) @ dense.kernel + dense.bias
    vectors = keras.models.load_model(tmp_path / "embedding.keras").predict(pixels, verbose=0)
    # Without training, features may be too small for the last layer to make their length 1.
    assert vectors / np.linalg.norm(vectors) == pytest.approx(features / np.linalg.norm(features), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "ResNet1"], "--backbone ResNet1 is no network of keras.applications"),
        (["--backbone", "ResNet50", "--backbone_weights", "nowhere.h5"], "nowhere.h5 must be a file"),
        (["--backbone_weights", "setup.cfg"], "with the weights of --backbone"),
    ],
)
def test_backbones_that_are_not_there(arguments, message, example, capsys):
    with pytest.raises(SystemExit):
        example("train_embedding").parse(arguments)
    assert message in capsys.readouterr().err


DESCRIBE = """
import sys
import zipfile

import numpy as np
import tensorflow as tf

packed, folder, out, *images = sys.argv[1:]
zipfile.ZipFile(packed).extractall(folder)
describe = tf.saved_model.load(folder).signatures["serving_default"]
decoded = [tf.io.decode_jpeg(tf.io.read_file(path), channels=3) for path in images]
np.save(out, [describe(input_image=image)["global_descriptor"].numpy() for image in decoded])
"""


def test_the_exported_model_gives_the_embeddings_that_are_evaluated(example, data_dir, tmp_path):
    """The competition runs it in a process that has neither this package nor the network's code."""
    train_embedding, dataset = example("train_embedding"), data_dir / "landmark_images" / "nothing_held_out" / "1.0.0"
    network = train_embedding.make_network(32, 8)
    network.save(tmp_path / "embedding.keras")
    arguments = ["--network", tmp_path / "embedding.keras", "--dataset", dataset, "--out", tmp_path / "submission.zip"]
    example("export_submission").main(list(map(str, arguments)))

    source = tfds.builder_from_directory(dataset).as_data_source(split="train")
    embeddings = train_embedding.embed(network, source)
    names = [source[number]["image_id"].decode() for number in range(len(source))]
    paths = [DUMMY_DATA / "train" / name[0] / name[1] / name[2] / f"{name}.jpg" for name in names]
    files = tmp_path / "submission.zip", tmp_path / "model", tmp_path / "described.npy"
    run(sys.executable, "-c", DESCRIBE, *files, *paths)
    described = np.load(tmp_path / "described.npy")
    assert described.shape == (len(names), 8)
    assert np.abs(described - embeddings).max() < 1e-5


@pytest.mark.parametrize(
    ("resolution", "config", "message"), [(16, "nothing_held_out", "has 32 px"), (32, "cropped", "only 'squash'")]
)
def test_what_cannot_be_exported(resolution, config, message, example, data_dir, tmp_path):
    example("train_embedding").make_network(resolution, 8).save(tmp_path / "embedding.keras")
    if config == "cropped":
        build_images(data_dir, images_config("cropped", resolution=32, fit="crop"), file_format="array_record")
    dataset = data_dir / "landmark_images" / config / "1.0.0"
    arguments = ["--network", tmp_path / "embedding.keras", "--dataset", dataset, "--out", tmp_path / "submission.zip"]
    with pytest.raises(SystemExit, match=message):
        example("export_submission").main(list(map(str, arguments)))


@pytest.mark.slow
def test_an_error_on_the_command_line(tmp_path):
    """What the page of the example tells to type, tests/test_pages.py runs."""
    command = [sys.executable, EXAMPLES / "train_embedding.py", "--data_dir", tmp_path / "nowhere"]
    nothing = run(*command, check=False)
    assert nothing.returncode == 1
    assert "Traceback" not in nothing.stderr
    assert "train_embedding.py: landmark_images/64px_all_holdout10 is not prepared" in nothing.stderr
    assert nothing.stderr.rstrip().endswith("--file_format array_record")


BUILD_IMAGES = "tfds build landmark_images/64px_all_holdout10 --imports landmark_triplets_tfds --manual_dir .*"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images_config", "64px_all_holdout10"], BUILD_IMAGES + "--file_format array_record$"),
        (
            ["--images_config", "mine"],
            r"there is no .*mine/<version>(.|\n)*--config '{\"name\": \"mine\", <its fields>}'",
        ),
        (["--images_config", "other_format"], r"prepared as tfrecord(.|\n)*--file_format array_record.* --overwrite"),
        (["--images_config", "nothing_held_out"], rf"its splits are train\. Use(.|\n)*{BUILD_IMAGES}"),
        (["--triplets_config", "64px_all_holdout10"], "tfds build landmark_triplets/64px_all_holdout10"),
        (["--triplets_config", "larger"], r"of shape \(48, 48, 3\), and .* of \(32, 32, 3\)"),
        (["--triplets_config", "nothing_held_out"], "of the 6 landmarks that .* holds out .* are in the training"),
        (["--data", "batches"], "a batch needs num_landmarks=24"),
    ],
)
def test_errors_say_what_to_do(arguments, message, example, data_dir, tmp_path):
    arguments = ["--data", "triplets", "--data_dir", str(data_dir), "--out", str(tmp_path), *CONFIGS, *arguments]
    with pytest.raises(SystemExit, match=message):
        example("train_embedding").main(arguments)


def test_triplets_without_validation_percent_are_looked_through(example, data_dir):
    """As triplets from a file are; "nothing_held_out" above is refused, this one has no landmark of the evaluation."""
    images = example("prepared").open_images("held_out", str(data_dir))
    builder = example("prepared").open_triplets("left_out", str(data_dir), images)
    assert builder.info.config_name == "left_out"
    assert list(builder.info.splits) == ["train"]


def test_nothing_to_search_for(example):
    index = ImageIndex(np.arange(3, dtype=np.uint64), np.arange(3, dtype=np.int32))
    with pytest.raises(example("prepared").NotPreparedError, match="None of the 3 held-out images"):
        example("held_out").HeldOut(index)


def naive_semi_hard(landmarks, embeddings, margin):
    """The loss pair by pair."""
    squares = ((embeddings[:, None] - embeddings[None]) ** 2).sum(axis=-1)
    losses = []
    for anchor, landmark in enumerate(landmarks):
        negatives = [squares[anchor, i] for i, other in enumerate(landmarks) if other != landmark]
        of_anchor = []
        for positive, other in enumerate(landmarks):
            if positive != anchor and other == landmark:
                farther = [d for d in negatives if d > squares[anchor, positive]]
                negative = min(farther) if farther else max(negatives)
                of_anchor.append(max(0.0, squares[anchor, positive] - negative + margin))
        losses.append(np.mean(of_anchor) if of_anchor else 0.0)
    return losses


@pytest.mark.parametrize("seed", range(5))
def test_semi_hard_loss(seed, example):
    rng = np.random.default_rng(seed)
    landmarks = rng.integers(0, 4, 12)  # some with a single image
    embeddings = rng.standard_normal((12, 3)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    losses = example("train_embedding").semi_hard_loss(0.2)(landmarks, embeddings)
    assert np.asarray(losses) == pytest.approx(naive_semi_hard(landmarks, embeddings, 0.2), abs=1e-5)


def test_triplet_loss(example):
    embeddings = np.array([[[1, 0], [0, 1], [-1, 0]], [[1, 0], [1, 0], [0, 1]], [[1, 0], [0, 1], [0, 1]]], np.float32)
    losses = example("train_embedding").triplet_loss(0.5)(np.zeros(3), embeddings)
    assert np.asarray(losses).tolist() == [0.0, 0.0, 0.5]


def need_torch():
    for module in ("torch", "pytorch_metric_learning"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install '.[torch]'")


@pytest.mark.parametrize(
    ("data", "more"),
    [("fresh", ["--workers", "1"]), ("batches", ["--landmarks_per_batch", "4", "--images_per_landmark", "2"])],
)
def test_torch(data, more, example, data_dir, tmp_path, capsys):
    need_torch()
    import torch

    arguments = ["--out", tmp_path / "out", "--embeddings", tmp_path / "new" / "embeddings", "--data_dir", data_dir]
    arguments += ["--data", data, *CONFIGS[:2], "--steps", 3, "--evaluate_every", 2, "--batch_size", 4, *more]
    module = example("train_embedding_torch")
    module.main(list(map(str, [*arguments, "--embedding_size", 16])))
    metrics = check_results(tmp_path / "out", tmp_path / "new" / "embeddings", data_dir)
    assert "Step 3: mean loss so far" in (printed := capsys.readouterr().out)
    assert f"mAP@100 {metrics['map_at_100']:.3f}" in printed
    network = module.Network(16)
    network.load_state_dict(torch.load(tmp_path / "out" / "embedding.pt"))


def test_torch_says_what_to_do(example, tmp_path):
    need_torch()
    with pytest.raises(SystemExit, match=BUILD_IMAGES):
        example("train_embedding_torch").main(["--data_dir", str(tmp_path)])

"""The round of docs/hard_triplets.md, as the page says it."""

import dataclasses
import re
import shlex

from competition import REPOSITORY, build_images, read_images
import numpy as np
import pandas as pd
import pytest

from landmark_triplets_tfds import cli
from landmark_triplets_tfds.hard_triplets import NO_NEGATIVE, NO_POSITIVE, SINGLE_IMAGE, MiningSpec
from landmark_triplets_tfds.image_index import read_image_index

PAGE = (REPOSITORY / "docs" / "hard_triplets.md").read_text()


class Model:
    def predict(self, images):
        return np.concatenate([batch.numpy().reshape(len(batch), -1)[:, ::97] - 0.5 for batch in images])


@pytest.mark.slow
def test_the_round(tmp_path, monkeypatch):
    builder = build_images(tmp_path / "data", "128px_all")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, {"model": Model()})
    # Row i is record i.
    embeddings = np.load("embeddings.npy")
    assert embeddings.dtype == np.float16
    index = read_image_index(builder.data_dir)
    ids = [example["image_id"] for example in read_images(builder)]
    assert [f"{image_id:016x}" for image_id in index.image_ids] == ids
    assert len(embeddings) == len(ids)
    (command,) = re.findall(r"^landmark-triplets (mine .*)$", PAGE, re.MULTILINE)
    assert cli.main(shlex.split(command)) == 0
    landmark_of = dict(zip(ids, index.landmark_ids.tolist(), strict=True))
    frame = pd.read_csv("hard.csv", dtype=str)
    assert len(frame) > 20
    for anchor, positive, negative in zip(frame.anchor_id, frame.positive_id, frame.negative_id, strict=True):
        assert landmark_of[anchor] == landmark_of[positive] != landmark_of[negative]
        assert anchor != positive


def test_every_argument_and_count_is_on_the_page():
    text = " ".join(PAGE.split())
    for reason in (SINGLE_IMAGE, NO_POSITIVE, NO_NEGATIVE):
        assert f"`{reason}`" in text
    for field in dataclasses.fields(MiningSpec):
        assert f"--{field.name}" in text

import json
import shlex

import pytest

from landmark_triplets_tfds import LandmarkImagesConfig, LandmarkTripletsConfig
from landmark_triplets_tfds.commands.datasets import BUILDERS, build_command, fields_as_json, find_config, full_name
from landmark_triplets_tfds.errors import CommandError


@pytest.mark.parametrize(
    ("text", "dataset", "name"),
    [
        ("128px", "landmark_triplets", "landmark_triplets/128px"),
        ("128px_all", "landmark_images", "landmark_images/128px_all"),
        ("landmark_images/64px", "landmark_triplets", "landmark_images/64px"),
        ("landmark_triplets/64px", "landmark_images", "landmark_triplets/64px"),
        ('{"name": "mine", "resolution": 96}', "landmark_triplets", "landmark_triplets/mine"),
        (' {"name": "mine", "fit": "pad"}', "landmark_images", "landmark_images/mine"),
    ],
)
def test_finds(text, dataset, name):
    config = find_config(text, dataset)
    assert full_name(config) == name
    assert type(config) is (LandmarkTripletsConfig if "triplets" in name else LandmarkImagesConfig)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("128", "landmark_triplets has no config '128'; it has 64px, .* Did you mean '128px'?"),
        ("landmark_tripets/128px", "There is no dataset 'landmark_tripets'; there are landmark_triplets and"),
        ('{"name": "mine"', "is not JSON"),
        ('{"name": "mine", "resolutoin": 96}', "has no field 'resolutoin'. Did you mean 'resolution'?"),
        ('{"resolution": 96}', "a config needs a name"),
        ('{"name": "mine", "resolution": 1}', "resolution must be a whole number between 8 and 2048 px, got 1"),
        ('{"name": "mine", "resolution": "96"}', "resolution must be a whole number between 8 and 2048 px, got '96'"),
        ("", "has no config ''"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(CommandError, match=message):
        find_config(text, "landmark_triplets")


@pytest.mark.parametrize(
    "text", ["64px_all", '{"name": "a", "resolution": 96, "images_per_landmark": null, "seed": 7}']
)
def test_the_command_builds_what_was_chosen(text):
    """It names the config, or holds the fields from which TFDS makes an equal one."""
    chosen = find_config(text, "landmark_triplets")
    words = shlex.split(build_command(chosen, "/a folder/with 'quotes'"))
    assert words[:2] == ["tfds", "build"]
    assert words[words.index("--manual_dir") + 1] == "/a folder/with 'quotes'"
    assert ("--config" in words) == text.startswith("{")
    if "--config" in words:
        found = find_config(words[words.index("--config") + 1], words[2])
    else:
        found = find_config(words[2], "landmark_images")
    assert found.dataset_fields() == chosen.dataset_fields()
    assert full_name(found) == full_name(chosen)


@pytest.mark.parametrize("dataset", BUILDERS)
def test_fields_make_an_equal_config(dataset):
    for config in BUILDERS[dataset].BUILDER_CONFIGS:
        fields = fields_as_json(config)
        assert fields["name"] == config.name
        assert find_config(json.dumps(fields), dataset).dataset_fields() == config.dataset_fields()

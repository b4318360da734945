"""What TFDS calls of a builder: the comparison with prepared data, the build itself, what is known of a dataset.

TFDS calls `_download_and_prepare` inside the folder of the unfinished version, ``incomplete.*`` beside the version's,
and renames that folder only if the call returns. So whatever fails in here publishes nothing.

Overriding methods is how TFDS is meant to be used, but not of these methods, and a few names are needed elsewhere too.
This is the list of all names of TFDS in this package that are no public API; tests/build/test_hooks.py fails when one
of them goes or changes its arguments:

    GeneratorBasedBuilder._download_and_prepare(dl_manager, download_config)   here
    GeneratorBasedBuilder._example_writer()                                    here
    DatasetBuilder._get_filename_template(split_name)                          here
    DatasetBuilder._build_data_dir(given_data_dir)                             here
    tfds.core.splits.SplitDict, DatasetInfo.set_splits(split_dict)             here
    DatasetInfo.set_nondeterministic_order(bool)                               here
    DatasetBuilder._post_download_and_prepare_hook()                           here
    DownloadManager.manual_dir raises AssertionError without a folder          here
    incomplete.*_<version>, the folder of an unfinished version                build.folder
    tensorflow_datasets.proto.tf_example_pb2                                   here, build.shards, readers of records
    tensorflow_datasets.core.hashing.Hasher(salt).hash_key(key)                build.shards
    tfds.core.utils.shard_utils.ShardConfig, its get_shard_boundaries           build.shards
    tensorflow_datasets.core.file_adapters.ADAPTER_FOR_FORMAT                  build.shards
    tfds.core.data_sources.base.BaseDataSource, its deserialize_method         training.tf_data
    BaseDataSource's decoders, its data_source with undecoded records          training.records
    tfds.core.utils.tqdm, tfds.core.utils.is_notebook                          common.progress
    tfds.core.constants.DATA_DIR                                               checks of prepared data
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import json
import os
import signal
import sys
import threading
from typing import Any

from etils import epath
import numpy as np
import tensorflow_datasets as tfds

from landmark_triplets_tfds.build.build import Build
from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.folder import build_lock, kept_until_replaced, no_space_is_explained, settle_replaced
from landmark_triplets_tfds.build.local import LocalBuild
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.shards import Target, write_records
from landmark_triplets_tfds.build.splits import select_images_of
from landmark_triplets_tfds.common.checks import did_you_mean
from landmark_triplets_tfds.common.progress import UnfailingStream, say, showable
from landmark_triplets_tfds.competition.layout import LAYOUT_INSTRUCTIONS
from landmark_triplets_tfds.competition.selection import find_source
from landmark_triplets_tfds.errors import PreparedDataError, PreparedDataMismatchError, SourceLayoutError

# What TFDS keeps of a prepared dataset beside its shards.
INFO_NAME, FEATURES_NAME, METADATA_NAME = "dataset_info.json", "features.json", "metadata.json"

# What fingerprints in the metadata are of, see `Selection.fingerprints`.
_FINGERPRINTED = {"table_sha256": "another table", "unlabeled_sha256": "other images without labels"}


class DeterministicExampleWriter(tfds.core.ExampleWriter):
    """Writes examples that TFDS has serialized with the bytes that `shards` gives them.

    A build does not use it: it is what TFDS's own writer needs to give the same files from `_generate_examples`.
    """

    def write(self, path: epath.PathLike, examples: Any) -> Any:
        from tensorflow_datasets.proto import tf_example_pb2

        def reserialize() -> Iterator[bytes]:
            example = tf_example_pb2.Example()
            for _, serialized in examples:
                example.ParseFromString(serialized)
                yield example.SerializeToString(deterministic=True)

        write_records(path, self.file_format.value, reserialize())


class LandmarkBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Base of the builders. While TFDS runs, ``self._build`` is the build in progress."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = LAYOUT_INSTRUCTIONS

    # For a program that builds: what a build may use; None: what the environment says.
    build_options: BuildOptions | None = None

    def __init__(self, *, config: str | LandmarkBuilderConfig | None = None, **kwargs: Any):
        """Takes what `tfds.core.DatasetBuilder` takes.

        `tfds build --overwrite` deletes what is prepared as soon as it has a builder, and tells the builder nothing. So
        what can be checked before a build is checked here.

        Raises:
          ValueError: if there is no such config, or a build option does not fit.
          LandmarkTableError, TripletsFileError: if a file that the config names is wrong.
          PreparedDataError: if what is prepared is damaged.
        """
        if isinstance(config, str):
            self.named_config(config.partition(":")[0])
        super().__init__(config=config, **kwargs)
        self._options()
        if self.info.initialized:
            self.builder_config.dataset_fields(omit_missing_files=True)

    @classmethod
    def named_config(cls, name: str) -> LandmarkBuilderConfig:
        """Returns a config by its name; raises ValueError, which lists them, if there is none."""
        configs: dict[str, LandmarkBuilderConfig] = {config.name: config for config in cls.BUILDER_CONFIGS}
        if name not in configs:
            hint = did_you_mean(name, configs)
            raise ValueError(f"{cls.name} has no config {name!r}; it has {', '.join(configs)}.{hint}")
        return configs[name]

    def _build_data_dir(self, given_data_dir: str | None) -> tuple[str, str]:
        """Lets ``~`` stand for the user's folder, as elsewhere: in data_dir, and in the variable TFDS_DATA_DIR."""
        folders = super()._build_data_dir(given_data_dir and os.path.expanduser(given_data_dir))  # noqa: PTH111
        root, folder = map(os.path.expanduser, folders)
        return root, folder

    def _options(self) -> BuildOptions:
        return self.build_options or BuildOptions.from_environment()

    def _info(self) -> tfds.core.DatasetInfo:
        config: LandmarkBuilderConfig = self.builder_config
        kind, shape = config.kind, (config.resolution, config.resolution, 3)
        image = tfds.features.Image(shape=shape, encoding_format="jpeg")
        features = (
            dict.fromkeys(kind.image_features, image)
            | dict.fromkeys(kind.id_features, tfds.features.Text())
            | dict.fromkeys(kind.landmark_features, tfds.features.Scalar(np.int64))
        )
        inputs = kind.image_features if kind.num_images > 1 else kind.image_features[0]
        card = self.get_metadata()
        return LandmarkDatasetInfo(
            builder=self,
            description=card.description,
            citation=card.citation,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=(inputs, kind.landmark_features[0]),
            homepage="https://www.kaggle.com/c/landmark-retrieval-2020",
            metadata=tfds.core.MetadataDict(),
        )

    # --- Before a build: is what is there already what is asked for?

    def download_and_prepare(
        self,
        *,
        download_dir: epath.PathLike | None = None,
        download_config: tfds.download.DownloadConfig | None = None,
        **kwargs: Any,
    ) -> None:
        """Builds the dataset unless it is prepared already; see `tfds.core.DatasetBuilder.download_and_prepare`.

        What is to be overwritten is kept until the new version is complete.

        Raises:
          PreparedDataMismatchError: if data prepared earlier under the same name is not what this call would build.
          PreparedDataError: if it is damaged.
          NoSpaceError: if a disk is full.
        """
        config = download_config or tfds.download.DownloadConfig()
        manual_dir = epath.Path(
            config.manual_dir or epath.Path(download_dir or self.data_dir_root / "downloads") / "manual"
        ).expanduser()
        overwrite = config.download_mode.overwrite_dataset
        with (
            contextlib.redirect_stdout(UnfailingStream(sys.stdout) if sys.stdout else None),  # TFDS prints too
            _ended_by_sigterm(),
            self._no_space_is_explained(config),
            contextlib.ExitStack() as stack,
        ):
            if overwrite or not self.data_path.exists():  # what is there may be on a read-only disk, without a lock
                stack.enter_context(build_lock(self.data_path))
                settle_replaced(self.data_path)
            if overwrite and self.data_path.exists():
                find_source(manual_dir, self._options().bank)  # now, while what is there can still be read
                self.builder_config.dataset_fields()
                stack.enter_context(kept_until_replaced(self.data_path))
            elif self.data_path.exists():  # perhaps by now: another process may have built it while this one waited
                self._compare_with_prepared(manual_dir, config)
            super().download_and_prepare(download_dir=download_dir, download_config=config, **kwargs)

    def _no_space_is_explained(self, config: tfds.download.DownloadConfig) -> contextlib.AbstractContextManager[None]:
        replaces = config.download_mode.overwrite_dataset
        return no_space_is_explained(self.info.full_name, self.data_dir_root, replaces=replaces)

    def _compare_with_prepared(self, manual_dir: epath.Path, download_config: tfds.download.DownloadConfig) -> None:
        """Raises if the prepared data records other dataset fields than a build would use now.

        The table and the cap are compared only where the competition's files are at hand: a training machine has the
        prepared data alone.
        """
        if not self.info.initialized:  # it was built since this builder was made
            self.info.read_from_directory(self.data_path)
        recorded = self.info.metadata
        differences = []
        wanted_fields = self.builder_config.dataset_fields(omit_missing_files=True)
        recorded_fields = recorded.get("config", {})
        with damage_is_named(self.data_path / METADATA_NAME):
            recorded_fields.items()
        if not recorded_fields:
            differences.append(f"its {METADATA_NAME} holds no record of how it was made")
        for name, wanted in wanted_fields.items():
            if recorded_fields and recorded_fields.get(name, wanted) != wanted:
                differences.append(f"{name} is {recorded_fields[name]!r} there, {wanted!r} asked for")
        if recorded_fields and manual_dir.exists():
            with contextlib.suppress(FileNotFoundError):  # other files, or a list of landmarks that is not here
                options = self._options()
                source = find_source(manual_dir, options.bank)
                fingerprints = select_images_of(self.builder_config, source, options).fingerprints()
                for name, what in _FINGERPRINTED.items():
                    if recorded.get(name) != fingerprints.get(name):
                        differences.append(f"it was made from {what} than {manual_dir}'s")
                cap = download_config.max_examples_per_split
                if recorded.get("max_examples_per_split") != cap:
                    differences.append(
                        f"max_examples_per_split was {recorded.get('max_examples_per_split')}, {cap} asked for"
                    )
        if differences:
            raise PreparedDataMismatchError(
                f"{self.data_path} holds {self.info.full_name} made from something else: {'; '.join(differences)}."
                " Build it anew with --overwrite, which deletes it first (in Python:"
                " download_config=tfds.download.DownloadConfig("
                "download_mode=tfds.download.GenerateMode.REUSE_CACHE_IF_EXISTS), which keeps it until the new one is"
                " complete), or give the config another name, or use another --data_dir."
            )
        self.info.check_prepared()

    # --- The build

    def _download_and_prepare(
        self, dl_manager: tfds.download.DownloadManager, download_config: tfds.download.DownloadConfig
    ) -> None:
        self._max_examples = download_config.max_examples_per_split
        if self._max_examples == 0:  # TFDS: nothing is built
            super()._download_and_prepare(dl_manager, download_config)
            return
        try:
            manual_dir = epath.Path(dl_manager.manual_dir)
        except AssertionError as error:  # TFDS's way to say that the folder is missing or empty
            raise SourceLayoutError(str(error)) from None
        config: LandmarkBuilderConfig = self.builder_config
        build: type[Build] = LocalBuild
        if download_config.beam_options is not None or download_config.beam_runner is not None:
            from landmark_triplets_tfds.build.beam_pipeline import BeamBuild  # late: Beam takes a second to import

            build = BeamBuild
        fields = config.dataset_fields()  # now: a file that it names may be another one when the build has ended
        with self._no_space_is_explained(download_config):  # here, where what has filled a disk is still there
            self._build = build(manual_dir, self.data_path, config, self._max_examples, self._options())
            split_infos = self._build.make_splits(self._target(download_config))
            self._write_more(self._build)
            asked_for = {
                "config": fields | self._build.planner.file_hashes,
                **self._build.selection.fingerprints(),
                "max_examples_per_split": self._max_examples,
            }
            self._build.write_report({"dataset": self.info.full_name} | asked_for)
        self.info.set_splits(tfds.core.splits.SplitDict(split_infos))
        self.info.set_nondeterministic_order(False)  # TFDS notes what was asked for; there is no faster order
        self.info.metadata.clear()
        self.info.metadata.update(asked_for | {"counts": self._build.report.counts()})

    def _target(self, download_config: tfds.download.DownloadConfig) -> Target:
        return Target(
            file_format=self.info.file_format.value,
            shard_config=download_config.get_shard_config(),
            template_of=lambda split: self._get_filename_template(split_name=split),
            beam_runner=download_config.beam_runner,
            beam_options=download_config.beam_options,
        )

    def _write_more(self, build: Build) -> None:
        """Writes files beside the shards, once these are there."""

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        """Returns generators of the examples that a build makes, for who writes them by other means."""
        manual_dir = epath.Path(dl_manager.manual_dir)
        build = LocalBuild(manual_dir, self.data_path, self.builder_config, None, self._options())
        return {split: self._generate_examples(build, split) for split in build.planner.splits()}

    def _generate_examples(self, build: Build, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        return build.examples_of(split)

    def _post_download_and_prepare_hook(self) -> None:
        if self._max_examples != 0:
            say(self._build.report.summary(self.info.full_name, self.data_dir))

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return DeterministicExampleWriter(file_format=self.info.file_format)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM, as of a cluster's scheduler, end a build as Ctrl-C does: nothing unfinished is left, no worker.

    Where the program has a handler of its own, or this is not its main thread, nothing is changed.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: Any) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


# --- What is known of a dataset


class LandmarkDatasetInfo(tfds.core.DatasetInfo):
    """Information about a dataset.

    `repr` is a line, for TFDS's command prints it below what a build came to; `str` is all that TFDS has to tell.
    """

    def read_from_directory(self, dataset_info_dir: epath.PathLike) -> None:
        """Reads what is prepared in a folder.

        Raises:
          PreparedDataError: if its dataset_info.json is missing, damaged or of another dataset.
          OSError: if it cannot be read.
        """
        wanted = self.name
        with damage_is_named(epath.Path(dataset_info_dir) / INFO_NAME):
            super().read_from_directory(dataset_info_dir)
            if self.name != wanted:
                raise ValueError(f"it is of {self.name!r}")

    @property
    def metadata(self) -> Any:
        """What is recorded beside what TFDS itself records; it is read when it is asked for."""
        with damage_is_named(epath.Path(self.data_dir) / METADATA_NAME):
            return super().metadata

    def check_prepared(self) -> None:
        """Raises PreparedDataError if the files do not say what is needed to read the data, here and elsewhere."""
        with damage_is_named(epath.Path(self.data_dir) / INFO_NAME):
            if not self.splits:
                raise ValueError("it lists no split")
        with damage_is_named(epath.Path(self.data_dir) / FEATURES_NAME) as path:
            found = tfds.features.FeatureConnector.from_json(json.loads(path.read_text()))
            if found.get_tensor_info() != self.features.get_tensor_info():
                raise ValueError("it lists other features")

    def __repr__(self) -> str:
        splits = ", ".join(f"{name} {split.num_examples:,}" for name, split in self.splits.items())
        return showable(f"<{self.full_name}: {splits or 'not built'}, {self.dataset_size}, in {self.data_dir}>")

    def __str__(self) -> str:
        return str(super().__repr__())


@contextlib.contextmanager
def damage_is_named(path: epath.Path) -> Iterator[epath.Path]:
    """Turns whatever the reading of a file comes upon, other than errors of its disk, into one error that names it."""
    try:
        yield path
    except PreparedDataError:
        raise
    except Exception as error:  # TFDS and protobuf raise many types
        if isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError):
            what = "is missing"
        elif isinstance(error, OSError):
            raise
        else:
            what = f"is damaged ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise PreparedDataError(f"{path} {what}. Delete {path.parent} and build the dataset anew.") from error

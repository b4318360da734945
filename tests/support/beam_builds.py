"""Builds through Apache Beam, in this process, and what they have in common with local ones."""

import json
import re

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners import runner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
import tensorflow as tf

from tests.support.competition import DUMMY_DATA, build

# What is compared with the local build; the rest of a report is how long it took and with what.
REPORTED = ("counts", "unreadable_images", "config", "table_sha256", "max_examples_per_split", "dataset")


def build_with_beam(data_dir, config, manual_dir=DUMMY_DATA, beam_runner=None, **download_config):
    return build(
        data_dir,
        config,
        manual_dir,
        beam_runner=beam_runner or FnApiRunner(),
        beam_options=PipelineOptions([]),
        **download_config,
    )


def read_records(builder) -> list[bytes]:
    """Returns the serialized records, in an order of their own."""
    files = sorted(str(path) for path in builder.data_path.iterdir() if ".tfrecord-" in path.name)
    records = [record.numpy() for record in tf.data.TFRecordDataset(files)]
    assert len(records) == builder.info.splits["train"].num_examples
    return sorted(records)


def read_report(builder) -> dict:
    return json.loads((builder.data_path / "build_report.json").read_text())


def assert_same(local, clustered) -> None:
    assert read_records(clustered) == read_records(local)
    here, there = read_report(local), read_report(clustered)
    assert {name: there[name] for name in REPORTED} == {name: here[name] for name in REPORTED}
    assert dict(clustered.info.metadata) == dict(local.info.metadata)
    names = {re.sub(r"-of-\d+|-\d{5}", "", path.name) for path in clustered.data_path.iterdir()}
    assert names == {re.sub(r"-of-\d+|-\d{5}", "", path.name) for path in local.data_path.iterdir()}
    csv = local.data_path / "triplets.csv"
    if csv.exists():
        assert (clustered.data_path / "triplets.csv").read_text() == csv.read_text()


class NeverRun(runner.PipelineRunner):
    """Takes the pipeline and runs nothing."""

    class TakenError(Exception):
        pass

    def run_pipeline(self, pipeline, options):
        self.description = pipeline.to_runner_api(use_fake_coders=False).SerializeToString()
        raise self.TakenError

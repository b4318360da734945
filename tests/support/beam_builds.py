"""Builds through Apache Beam, in this process, and what they have in common with local ones."""

import json

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners import runner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

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


# What says how long a build took and with what, beside what it made.
_NOT_COMPARED = ("build_report.json",)


def files_of(builder) -> dict[str, bytes]:
    """Returns the content of each file of a dataset, by its name."""
    return {path.name: path.read_bytes() for path in builder.data_path.iterdir() if path.name not in _NOT_COMPARED}


def read_report(builder) -> dict:
    return json.loads((builder.data_path / "build_report.json").read_text())


def assert_same(local, clustered) -> None:
    assert files_of(clustered) == files_of(local)
    here, there = read_report(local), read_report(clustered)
    assert {name: there[name] for name in REPORTED} == {name: here[name] for name in REPORTED}
    assert dict(clustered.info.metadata) == dict(local.info.metadata)


class NeverRun(runner.PipelineRunner):
    """Takes the pipeline and runs nothing."""

    class TakenError(Exception):
        pass

    def run_pipeline(self, pipeline, options):
        self.description = pipeline.to_runner_api(use_fake_coders=False).SerializeToString()
        raise self.TakenError

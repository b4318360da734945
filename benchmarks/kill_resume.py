"""Kills builds at random moments and looks at what is left: the same bytes in the end, and next to no work done twice.

Each round starts a build with an empty bank, sends it SIGKILL at a random moment after its first thumbnail, starts it
again, and checks that

* the shards are those of a build that was never disturbed, byte for byte;
* the only images encoded again are ones whose first encoding ended less than a second before the kill;
* nothing of the killed build is left beside the dataset.

usage: python benchmarks/kill_resume.py --manual_dir dummy_data --slow_down 0.05 --kills 3
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

MAX_REPEATED_S = 1.0


def build(manual_dir: str, data_dir: str, config: str, log: str, slow_down: float) -> None:
    """Builds in this process; appends time and image of every thumbnail made to ``log``."""
    import tensorflow_datasets as tfds

    import landmark_triplets_tfds  # noqa: F401 - registers the builder
    from landmark_triplets_tfds.thumbnails import maker as thumbnail_maker
    from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail

    log_file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def make_and_log(image_bytes: bytes, spec: ThumbnailSpec) -> bytes:
        thumbnail = make_thumbnail(image_bytes, spec)
        time.sleep(slow_down)
        os.write(log_file, f"{time.time()} {hashlib.sha256(image_bytes).hexdigest()}\n".encode())
        return thumbnail

    vars(thumbnail_maker)["make_thumbnail"] = make_and_log
    builder = tfds.builder(f"landmark_triplets/{config}", data_dir=data_dir)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir, num_shards=4))


class Build:
    """A build in a process of its own, with a folder for its data and its log."""

    def __init__(self, options: argparse.Namespace, folder: pathlib.Path, bank: str, name: str):
        self.data_dir = folder / "data"
        self.log = folder / f"{name}.log"
        command = [sys.executable, __file__, "--child", str(self.data_dir), str(self.log)]
        command += ["--manual_dir", options.manual_dir, "--config", options.config]
        command += ["--slow_down", str(options.slow_down)]
        environment = os.environ | {"LANDMARK_TRIPLETS_BANK": bank, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._errors = (folder / f"{name}.err").open("w+")
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=self._errors)

    def wait(self) -> None:
        """Waits for the end; raises if the build failed."""
        if self.process.wait():
            self._errors.seek(0)
            raise RuntimeError(f"the build failed:\n{self._errors.read()[-3000:]}")

    def kill_after(self, seconds: float) -> float:
        """Sends SIGKILL so long after the first thumbnail; returns when that was."""
        while not (self.log.exists() and self.log.stat().st_size) and self.process.poll() is None:
            time.sleep(0.005)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGKILL)
        killed_at = time.time()
        self.process.wait()
        return killed_at

    def encoded(self) -> dict[str, float]:
        """Returns when each image was encoded, by the hash of its bytes."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return {image: float(seconds) for seconds, image in map(str.split, lines)}

    def shards(self) -> dict[str, str]:
        """Returns the sha256 of every shard, by name."""
        paths = sorted(path for path in self.data_dir.rglob("*-of-*") if path.is_file())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manual_dir", default="dummy_data", help="the competition's files")
    parser.add_argument("--config", default="64px_all")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slow_down", type=float, default=0.0, help="seconds added to each thumbnail")
    parser.add_argument("--child", nargs=2, metavar=("DATA_DIR", "LOG"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        build(options.manual_dir, options.child[0], options.config, options.child[1], options.slow_down)
        return

    scratch = pathlib.Path(tempfile.mkdtemp(prefix="kill_resume."))
    (scratch / "whole").mkdir()
    whole = Build(options, scratch / "whole", "off", "whole")
    whole.wait()
    times = sorted(whole.encoded().values())
    duration = times[-1] - times[0]
    print(f"undisturbed: {len(times)} thumbnails in {duration:.2f} s, {len(whole.shards())} shards")

    chooser = random.Random(options.seed)
    num_wrong = 0
    for number in range(options.kills):
        folder = scratch / str(number)
        folder.mkdir()
        delay = chooser.uniform(0, duration * 1.1)
        killed = Build(options, folder, str(folder / "bank"), "killed")
        killed_at = killed.kill_after(delay)
        resumed = Build(options, folder, str(folder / "bank"), "resumed")
        resumed.wait()
        before, after = killed.encoded(), resumed.encoded()
        repeated = before.keys() & after.keys()
        too_old = [image for image in repeated if before[image] < killed_at - MAX_REPEATED_S]
        same = resumed.shards() == whole.shards()
        left = list(resumed.data_dir.rglob("incomplete.*"))
        num_wrong += bool(too_old or not same or left)
        print(
            f"kill {number + 1}: after {delay:.2f} s, {len(before)} encoded; resumed: {len(after)} encoded,"
            f" {len(repeated)} of them again ({len(too_old)} older than {MAX_REPEATED_S:.0f} s);"
            f" shards {'identical' if same else 'DIFFER'}{'; LEFT: ' + str(left) if left else ''}",
            flush=True,
        )
        shutil.rmtree(folder)
    shutil.rmtree(scratch)
    print(f"{options.kills - num_wrong} of {options.kills} resumed builds right")
    sys.exit(num_wrong > 0)


if __name__ == "__main__":
    main()

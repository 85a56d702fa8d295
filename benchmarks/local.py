"""Compare the local model in the operator with the loops that a user would write.

Photographs of scikit-image as JPEGs of 20 KB and of 2 MB, each with bytes of its own, lie in a
folder. Every contender decodes them and asks the same graph; each run is a process of its own, and
the contenders take turns. Ours writes the labels into a Parquet dataset, the others drop them.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from contenders import Result, measured
from table import Round, print_comparison, row
from workers import worker_environment

from airflow_imagetag.classifiers.cache import DigestCache, default_folder
from airflow_imagetag.classifiers.default_model import default_graph
from airflow_imagetag.runtime.cores import usable_cores

PHOTOGRAPHS = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png")

SIZES = {20: (450, 75), 2000: (4400, 88)}
"""Kilobytes of a JPEG, by which its width in pixels and its quality are chosen."""

Paths = Sequence[str]


def bare(threads: int) -> Callable[[Paths], int]:
    """Return a loop over the images.

    :param threads: number of threads that ONNX Runtime takes for one image.
    """
    label = _labeller(threads)
    return lambda paths: sum(map(label, paths))


def pool() -> Callable[[Paths], int]:
    """Return a thread pool of as many threads as cores."""
    label = _labeller(1)

    def run(paths: Paths) -> int:
        with ThreadPoolExecutor(usable_cores()) as threads:
            return sum(threads.map(label, paths))

    return run


def _labeller(threads: int) -> Callable[[str], bool]:
    import numpy as np
    import onnxruntime
    from PIL import Image, ImageOps

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    graph = default_graph(DigestCache(default_folder()))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def label(path: str) -> bool:
        with Image.open(path) as image:
            picture = ImageOps.fit(
                ImageOps.exif_transpose(image).convert("RGB"),
                (224, 224),
                Image.Resampling.BICUBIC,
                bleed=0.0625,
            )
        [found] = session.run(None, {"pixels": np.asarray(picture)[None]})
        return bool(found[0].argmax() >= 0)

    return label


def ours(**extra: Any) -> Callable[[Paths], int]:
    """Return the operator on the folder of the images.

    :param extra: fields of the connection.
    """
    from airflow_imagetag.operators.imagetag import ImageTagOperator
    from airflow_imagetag.sources import ObjectStorageImages
    from airflow_imagetag.stores import ParquetLabelStore

    fields = {"conn_type": "imagetag", "extra": {"api": "local", **extra}}
    os.environ["AIRFLOW_CONN_IMAGETAG_DEFAULT"] = json.dumps(fields)

    def run(paths: Paths) -> int:
        with tempfile.TemporaryDirectory() as lake:
            summary = ImageTagOperator(
                task_id="label",
                images=ObjectStorageImages(str(Path(paths[0]).parent)),
                store=ParquetLabelStore(lake),
            ).execute({})
        assert isinstance(summary, dict)
        return int(summary["tagged"])

    return run


CONTENDERS: Mapping[str, Callable[[], Callable[[Paths], int]]] = {
    "ours": ours,
    "ours, one thread": lambda: ours(threads=1),
    "bare, one thread": lambda: bare(1),
    "bare, all cores": lambda: bare(usable_cores()),
    "thread pool": pool,
}


def main() -> int:
    """Measure and print a table for each size, or run one contender."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[400], help="number of images")
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder is not None:
        run = CONTENDERS[arguments.only[0]]()
        paths = sorted(map(str, Path(arguments.folder).iterdir()))
        # A warm-up loads the modules of the first image: imports are not measured.
        with tempfile.TemporaryDirectory() as first:
            run([shutil.copy(paths[0], first)])
        print(json.dumps(dataclasses.asdict(measured(lambda: run(paths)))))
        return 0
    with worker_environment() as environment:
        for images in arguments.images:
            for size in arguments.sizes:
                compare(arguments.only, images, size, arguments.repeats, environment)
    return 0


def compare(
    names: Sequence[str], images: int, size_kb: int, repeats: int, environment: Mapping[str, str]
) -> None:
    """Print the table of one size."""
    with tempfile.TemporaryDirectory(prefix="imagetag-photographs-") as folder:
        write_photographs(Path(folder), images, size_kb)
        rounds: dict[str, list[Round]] = {name: [] for name in names}
        for _ in range(repeats):
            for name in names:
                command = [sys.executable, __file__, "--folder", folder, "--only", name]
                done = subprocess.run(
                    command, env=dict(environment), stdout=subprocess.PIPE, text=True, check=True
                )
                result = Result(**json.loads(done.stdout.splitlines()[-1]))
                rounds[name].append(Round(images, result, 0))
    title = f"{images:,} JPEGs of {size_kb:,} KB, {usable_cores()} cores"
    print_comparison(title, {name: row(found) for name, found in rounds.items()}, names[0])


def write_photographs(folder: Path, images: int, size_kb: int) -> None:
    """Write JPEGs of one size, each with a comment of its own."""
    from PIL import Image

    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-image is not installed: run 'make venv'")
    width, quality = SIZES[size_kb]
    contents = []
    for name in PHOTOGRAPHS:
        with Image.open(Path(spec.origin).parent / "data" / name) as photograph:
            height = round(width * photograph.height / photograph.width)
            picture = photograph.convert("RGB").resize((width, height))
        grain = Image.effect_noise(picture.size, 24).convert("RGB")
        file = io.BytesIO()
        Image.blend(picture, grain, 0.12).save(file, "JPEG", quality=quality)
        contents.append(file.getvalue())
    for number in range(images):
        content = contents[number % len(contents)]
        comment = b"\xff\xfe\x00\x0a" + number.to_bytes(8)
        (folder / f"{number:06}.jpg").write_bytes(content[:2] + comment + content[2:])


if __name__ == "__main__":
    sys.exit(main())

"""MNIST and Fashion-MNIST: the IDX files, gzipped or plain.

Each file is looked for in $SCRATCHGEN_DATA/mnist (or /fashion), then in the cache folder. If it is in neither, it is
downloaded into the cache. Every file is checked before use, wherever it comes from: a model would train on a damaged file
without an error, and only its results would be bad.

MNIST: Y. LeCun, C. Cortes, C. Burges, 1998. Fashion-MNIST: H. Xiao, K. Rasul, R. Vollgraf, 2017, arXiv:1708.07747.
"""

import gzip
import hashlib
import math
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np

from ..backend import UsageError, cache_folder, full_path

SETS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
COUNTS = {"train": 60_000, "t10k": 10_000}

# SHA-256 of the .gz files as the sites above serve them, which pooch checks before a download enters the cache.
DOWNLOADS = {
    ("mnist", "train-images-idx3-ubyte"): "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ("mnist", "train-labels-idx1-ubyte"): "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ("mnist", "t10k-images-idx3-ubyte"): "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ("mnist", "t10k-labels-idx1-ubyte"): "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ("fashion", "train-images-idx3-ubyte"): "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ("fashion", "train-labels-idx1-ubyte"): "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ("fashion", "t10k-images-idx3-ubyte"): "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ("fashion", "t10k-labels-idx1-ubyte"): "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}

# SHA-256 of the content itself, which does not change when a file is unpacked or compressed again. Fashion-MNIST's
# publishers give checksums of the .gz files only, so a local Fashion-MNIST file is checked by its header and sizes.
CONTENTS = {
    ("mnist", "train-images-idx3-ubyte"): "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ("mnist", "train-labels-idx1-ubyte"): "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ("mnist", "t10k-images-idx3-ubyte"): "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ("mnist", "t10k-labels-idx1-ubyte"): "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

REMEDY = "delete it and run again to download it, or put the right file there"


def load_idx(kind):
    """x_train, x_test (N, 784) float32 in [0, 1], labels_train, labels_test (N,) int64, and the shape (28, 28).

    kind: "mnist" or "fashion". Raises UsageError, which names the file, if one is missing, damaged or not the right one.
    """
    x_train, labels_train = load_part(kind, "train")
    x_test, labels_test = load_part(kind, "t10k")
    return x_train, x_test, labels_train, labels_test, (28, 28)


def load_part(kind, part):
    """Pictures (N, 784) and labels (N,) of one part, "train" or "t10k"."""
    images, images_path = load_file(kind, f"{part}-images-idx3-ubyte", n_axes=3)  # (N, 28, 28)
    labels, labels_path = load_file(kind, f"{part}-labels-idx1-ubyte", n_axes=1)  # (N,)
    if len(images) != len(labels):
        raise UsageError(f"{labels_path}: {len(labels)} labels for {len(images)} pictures in {images_path}: {REMEDY}")
    expected = (COUNTS[part], 28, 28)
    if images.shape != expected:
        raise UsageError(f"{images_path}: pictures of shape {images.shape}, but {kind} has {expected}: {REMEDY}")
    if labels.max() > 9:
        raise UsageError(f"{labels_path}: label {labels.max()}, but 9 is the largest: {REMEDY}")
    x = np.divide(images.reshape(len(images), -1), 255, dtype=np.float32)  # (N, 784)
    return x, labels.astype(np.int64)


def load_file(kind, file, n_axes):
    """The checked array of one file, and the path it was read from."""
    path = find(kind, file) or download(kind, file)
    content = read(path)
    array = parse(content, path, n_axes)
    found = hashlib.sha256(content).hexdigest()
    if found != CONTENTS.get((kind, file), found):
        raise UsageError(f"{path}: its content is not that of {kind} (SHA-256 differs): {REMEDY}")
    for (other, name), known in CONTENTS.items():
        if known == found and other != kind:
            raise UsageError(f"{path}: holds {other}'s {name}, not that of {kind}: {REMEDY}")
    return array, path


def local_folders(kind):
    """Yield the folders that may already hold a file, in the order of the search."""
    if own := os.environ.get("SCRATCHGEN_DATA"):
        yield full_path(own) / kind
    if cache := cache_folder(kind):
        yield cache


def find(kind, file):
    """The path of a local copy, gzipped or plain, or None."""
    candidates = (folder / name for folder in local_folders(kind) for name in (f"{file}.gz", file))
    return next((path for path in candidates if path.is_file()), None)


def download(kind, file):
    """The path of one .gz file, downloaded into the cache. pooch uses a temporary name until the file is checked."""
    looked = " or ".join(str(folder) for folder in local_folders(kind)) or "$SCRATCHGEN_DATA, which is not set"
    missing = f"{file}.gz is not in {looked}"
    remedy = f"put it there, or set SCRATCHGEN_DATA to the folder that holds {kind}/"
    try:
        import pooch
    except ImportError:
        hint = "pip install pooch to download it"
        raise UsageError(f"{missing}: {remedy}, or {hint}") from None
    url = f"{SETS[kind]}{file}.gz"
    folder = cache_folder(kind) or Path(tempfile.mkdtemp(prefix="scratchgen-"))
    try:
        return Path(pooch.retrieve(url, f"sha256:{DOWNLOADS[kind, file]}", f"{file}.gz", folder))
    except ValueError:  # pooch raises this for a wrong checksum
        raise UsageError(
            f"{url} is not {kind}'s file (SHA-256 differs): try again later, or put it in {looked}"
        ) from None
    except OSError as error:  # no network, no such page, no space, no permission
        raise UsageError(f"{missing}, and the download of {url} failed ({type(error).__name__}): {remedy}") from None


def read(path):
    """The content of a file as bytes, unpacked if they are gzipped, even if its name does not say so."""
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except EOFError:
        raise UsageError(f"{path}: the gzip file is truncated: {REMEDY}") from None
    except (OSError, MemoryError, zlib.error) as error:
        raise UsageError(f"{path}: cannot be read ({type(error).__name__}): {REMEDY}") from None


def parse(content, path, n_axes):
    """The uint8 array of an IDX file: a magic number, the size of every axis (big-endian int32), then the bytes."""
    if not content:
        raise UsageError(f"{path}: the file is empty: {REMEDY}")
    magic, expected = int.from_bytes(content[:4], "big"), 0x800 + n_axes  # 8 means uint8
    if magic != expected:
        raise UsageError(f"{path}: magic number {magic}, but an IDX file of this kind has {expected}: {REMEDY}")
    header = 4 + 4 * n_axes
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    if len(content) != header + math.prod(shape):
        size = header + math.prod(shape)
        raise UsageError(f"{path}: {len(content)} bytes, but its header says {size}: {REMEDY}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)

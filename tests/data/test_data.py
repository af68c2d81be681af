"""Every door into the data: what comes out of a good file, and the one line that a bad one is refused with."""

import gc
import gzip
import hashlib
import http.server
import subprocess
import sys
import threading

import numpy as np
import pytest

from scratchgen.backend import Rng, UsageError
from scratchgen.data import TOYS, Data, batches, binarized, idx, load, names
from scratchgen.models.vae import VAE
from scratchgen.train.checkpoint import load_model
from scratchgen.train.fit import fit


def refusal(name):
    """The message load refuses a data set with; a UsageError of one line."""
    with pytest.raises(UsageError) as caught:
        load(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- names, digits, toys ----


def test_unknown_name_lists_the_known_ones():
    message = refusal("digit")
    assert "'digit'" in message
    assert all(name in message for name in names())
    assert {"digits", "mnist", "fashion", *TOYS} == set(names())


def test_import_needs_numpy_only():
    code = "import sys, scratchgen.data; print({'PIL', 'pooch', 'tqdm', 'matplotlib', 'sklearn'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_digits():
    data = load("digits")
    assert data.x_train.shape == (1400, 64)
    assert data.x_test.shape == (397, 64)
    assert data.shape == (8, 8)
    for x, labels in ((data.x_train, data.labels_train), (data.x_test, data.labels_test)):
        assert x.dtype == np.float32
        assert labels.dtype == np.int64
        assert (x.min(), x.max()) == (0, 1)
        assert set(labels) == set(range(10))
        np.testing.assert_array_equal(x * 16, np.round(x * 16))
    assert not {row.tobytes() for row in data.x_train} & {row.tobytes() for row in data.x_test}


@pytest.mark.needs("sklearn")
def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    original = load_digits()
    data = load("digits", seed=5)
    x, labels = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.labels_train, data.labels_test])
    order = np.random.Generator(np.random.PCG64(0)).permutation(1797)
    np.testing.assert_array_equal(16 * x, original.data[order])
    np.testing.assert_array_equal(labels, original.target[order])


@pytest.mark.parametrize("name", TOYS)
def test_toy(name):
    data = load(name)
    toy = TOYS[name]
    assert data.toy is toy
    assert data.shape is None
    assert data.x_train.shape == (10_000, toy.n_dim)
    assert data.x_test.shape == (2_000, toy.n_dim)
    assert data.x_train.dtype == np.float32
    assert (data.labels_train is None) == (name in ("circle", "swiss_roll"))
    if data.labels_train is not None:  # the same stream would pick the same components
        assert not np.array_equal(data.labels_train[:2000], data.labels_test)
    np.testing.assert_array_equal(load(name).x_test, data.x_test)
    assert not np.array_equal(load(name, seed=1).x_test, data.x_test)


def test_toy_points_are_not_made_of_the_noise_of_training():
    data = load("circle", seed=3)
    for epoch in range(3):  # Rng((seed, epoch)) is what an epoch draws from
        assert not np.array_equal(TOYS["circle"].sample(10_000, Rng((3, epoch))), data.x_train)


# ---- batches ----


@pytest.mark.parametrize(("n", "batch"), [(10, 3), (10, 5), (10, 10), (1, 1)])
def test_batches_are_full_and_visit_nothing_twice(n, batch):
    epoch = list(batches(n, batch, Rng(0)))
    assert [index.shape for index in epoch] == [(batch,)] * (n // batch)
    seen = np.concatenate(epoch)
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(n))


def test_batches_differ_between_epochs_and_repeat_with_the_seed():
    first, second, again = (np.concatenate(list(batches(50, 10, Rng((0, k))))) for k in (0, 1, 0))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, np.sort(first))


@pytest.mark.parametrize("batch", [11, 0, -1])
def test_impossible_batch_is_refused_at_once(batch):
    with pytest.raises(UsageError, match=str(batch)) as caught:
        batches(10, batch, Rng(0))
    assert batch < 1 or "10" in str(caught.value)


# ---- MNIST itself ----


@pytest.mark.needs("mnist")
def test_mnist():
    data = load("mnist")  # reading verifies the checksums
    assert data.x_train.shape == (60_000, 784)
    assert data.x_test.shape == (10_000, 784)
    assert data.shape == (28, 28)
    assert data.x_train.dtype == np.float32
    assert (data.x_train.min(), data.x_train.max()) == (0, 1)
    assert data.x_train.mean(dtype=np.float64) == pytest.approx(0.1307, abs=1e-4)
    assert list(np.bincount(data.labels_train)) == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert list(np.bincount(data.labels_test)) == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


# ---- IDX files, on small imitations ----


def idx_bytes(array, magic=None):
    magic = 0x800 + array.ndim if magic is None else magic
    return b"".join(number.to_bytes(4, "big") for number in (magic, *array.shape)) + array.tobytes()


def imitation():
    """{file: content} of a set of 20 + 10 pictures."""
    random = np.random.default_rng(0)
    files = {}
    for part, n in (("train", 20), ("t10k", 10)):
        files[f"{part}-images-idx3-ubyte"] = idx_bytes(random.integers(0, 256, (n, 28, 28), np.uint8))
        files[f"{part}-labels-idx1-ubyte"] = idx_bytes(np.arange(n, dtype=np.uint8) % 10)
    return files


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty data folder and an empty cache, imitations of the right size, and no way to the internet."""
    monkeypatch.setenv("SCRATCHGEN_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, "127.0.0.1")
    monkeypatch.setattr(idx, "COUNTS", {"train": 20, "t10k": 10})
    monkeypatch.setattr(idx, "SETS", dict.fromkeys(idx.SETS, "http://127.0.0.1:9/"))  # nobody listens there
    return tmp_path


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("gzipped", [True, False])
@pytest.mark.parametrize("where", ["own", "cache/scratchgen"])
def test_idx_files_are_found(home, where, gzipped):
    files = imitation()
    packed = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    put(home / where / "fashion", packed if gzipped else files)
    data = load("fashion")
    assert data.shape == (28, 28)
    assert list(data.labels_test) == list(range(10))
    pixels = np.frombuffer(files["train-images-idx3-ubyte"][16:], np.uint8).reshape(20, 784)
    np.testing.assert_array_equal(data.x_train, pixels.astype(np.float32) / np.float32(255))


def test_own_folder_comes_before_the_cache(home):
    put(home / "cache/scratchgen/fashion", imitation())
    put(home / "own/fashion", imitation() | {"t10k-labels-idx1-ubyte": idx_bytes(np.full(10, 7, np.uint8))})
    assert set(load("fashion").labels_test) == {7}


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
GOOD = imitation()
BAD_IDX = {
    "empty": (IMAGES, b"", "empty"),
    "empty gzip": (IMAGES, gzip.compress(b""), "empty"),
    "truncated gzip": (IMAGES, gzip.compress(GOOD[IMAGES])[:-500], "truncated"),
    "damaged gzip": (IMAGES, gzip.compress(GOOD[IMAGES])[:99] + bytes(99) + gzip.compress(GOOD[IMAGES])[198:], "read"),
    "truncated": (IMAGES, GOOD[IMAGES][:-1], "15695 bytes, but its header says 15696"),
    "too long": (LABELS, GOOD[LABELS] + b"x", "bytes"),
    "header only in part": (IMAGES, GOOD[IMAGES][:10], "bytes"),
    "labels for pictures": (IMAGES, GOOD[LABELS], "magic number 2049"),
    "a web page": (LABELS, b"<html>not found</html>", "magic number"),
    "fewer labels": (LABELS, idx_bytes(np.zeros(19, np.uint8)), "19 labels for 20 pictures"),
    "label 10": (LABELS, idx_bytes(np.full(20, 10, np.uint8)), "label 10"),
}


@pytest.mark.parametrize("case", BAD_IDX)
def test_bad_idx_file_is_refused(home, case):
    file, content, reason = BAD_IDX[case]
    put(home / "own/fashion", GOOD | {file: content})
    message = refusal("fashion")
    assert str(home / "own/fashion" / file) in message
    assert reason in message
    assert "delete it" in message


def test_other_number_of_pictures_is_refused(home):
    put(home / "own/fashion", GOOD | {name.replace("t10k", "train"): GOOD[name] for name in GOOD if "t10k" in name})
    assert "(10, 28, 28)" in refusal("fashion")


def test_mnist_content_is_checked(home):
    put(home / "own/mnist", GOOD)  # well-formed, but not MNIST
    message = refusal("mnist")
    assert str(home / "own/mnist" / IMAGES) in message
    assert "SHA-256" in message


@pytest.mark.parametrize("file", [IMAGES, LABELS, "t10k-images-idx3-ubyte"])
def test_mnist_is_not_taken_for_fashion(home, file, monkeypatch):
    monkeypatch.setitem(idx.CONTENTS, ("mnist", file), hashlib.sha256(GOOD[file]).hexdigest())
    put(home / "own/fashion", GOOD)
    message = refusal("fashion")
    assert f"holds mnist's {file}" in message and str(home / "own/fashion" / file) in message


def test_offline_says_where_it_looked(home):
    pytest.importorskip("pooch")
    message = refusal("mnist")
    assert IMAGES in message
    assert str(home / "own/mnist") in message
    assert str(home / "cache/scratchgen/mnist") in message
    assert "SCRATCHGEN_DATA" in message


def test_without_pooch_says_how_to_get_it(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    message = refusal("mnist")
    assert IMAGES in message
    assert "pip install pooch" in message


@pytest.fixture
def server(home, monkeypatch):
    """A local site for the set fashion: {path: content}, empty at first."""
    pytest.importorskip("pooch")
    site = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = site.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setitem(idx.SETS, "fashion", f"http://127.0.0.1:{running.server_port}/")
        yield site
        running.shutdown()


def publish(site, monkeypatch):
    for name, content in GOOD.items():
        packed = gzip.compress(content)
        site[f"/{name}.gz"] = packed
        monkeypatch.setitem(idx.DOWNLOADS, ("fashion", name), hashlib.sha256(packed).hexdigest())


def test_download_goes_to_the_cache_once(home, server, monkeypatch):
    publish(server, monkeypatch)
    first = load("fashion")
    cache = home / "cache/scratchgen/fashion"
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{name}.gz" for name in GOOD)
    server.clear()
    np.testing.assert_array_equal(load("fashion").x_train, first.x_train)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # pooch leaves the socket of a refusal to the collector
@pytest.mark.parametrize("fault", ["another file", "no page"])
def test_bad_download_leaves_nothing_behind(home, server, monkeypatch, fault):
    publish(server, monkeypatch)
    if fault == "another file":
        server[f"/{IMAGES}.gz"] = gzip.compress(b"something else")
    else:
        del server[f"/{IMAGES}.gz"]
    message = refusal("fashion")
    gc.collect()  # now, and not in a test that tolerates no warning
    assert f"{idx.SETS['fashion']}{IMAGES}.gz" in message
    assert ("SHA-256" in message) == (fault == "another file")
    assert not list((home / "cache/scratchgen/fashion").iterdir())


def test_cache_that_cannot_be_written_is_refused(home, server, monkeypatch):
    publish(server, monkeypatch)
    (home / "cache").write_text("a file where the folder should be")
    assert IMAGES in refusal("fashion")


# ---- folders of pictures ----


def draw(path, array, mode=None):
    image = pytest.importorskip("PIL.Image").fromarray(np.asarray(array))
    path.parent.mkdir(parents=True, exist_ok=True)
    (image.convert(mode) if mode else image).save(path)


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)


def test_grey_pictures(tmp_path):
    for i in range(20):
        draw(tmp_path / f"{i:02d}.png", np.full((3, 4), i, np.uint8), "RGB" if i % 2 else None)
    draw(tmp_path / "._hidden.png", COLOUR)
    (tmp_path / "notes.txt").write_text("not a picture")
    data = load(tmp_path)
    assert data.shape == (3, 4)
    assert data.x_train.shape == (18, 12)
    assert data.x_test.shape == (2, 12)
    assert data.labels_train is None
    assert data.labels_test is None
    every = np.sort(np.concatenate([data.x_train, data.x_test])[:, 0] * 255)
    np.testing.assert_allclose(every, np.arange(20), rtol=1e-6)
    np.testing.assert_array_equal(load(tmp_path, seed=9).x_test, data.x_test)


def test_one_coloured_picture_makes_all_of_them_rgb(tmp_path):
    draw(tmp_path / "a.png", GREY)
    draw(tmp_path / "b.PNG", COLOUR)
    data = load(tmp_path)
    assert data.shape == (3, 4, 3)
    rows = {row.tobytes() for row in np.concatenate([data.x_train, data.x_test])}
    expected = (np.stack([GREY] * 3, axis=2), COLOUR)
    assert rows == {(image.astype(np.float32) / np.float32(255)).tobytes() for image in expected}


SUFFIXES = [
    "png",
    "jpg",
    "jpeg",
    "jpe",
    "jfif",
    "bmp",
    "dib",
    "gif",
    "webp",
    "tif",
    "tiff",
    "tga",
    "ppm",
    "TIF",
    "JPEG",
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_formats(tmp_path, suffix, capsys):
    for name in "ab":
        path = tmp_path / f"{name}.{suffix.lower()}"
        draw(path, np.full((8, 8), 100, np.uint8))
        path.rename(tmp_path / f"{name}.{suffix}")
    assert len(load(tmp_path).x_test) == 1
    assert capsys.readouterr().err == ""
    np.testing.assert_allclose(load(tmp_path).x_train, 100 / 255, atol=1.5 / 255)


def test_subfolders_are_classes(tmp_path):
    for k, name in enumerate(["ant", "bee", "cat"]):
        for i in range(4):
            draw(tmp_path / name / "more" / f"{i}.png", np.full((2, 2), k, np.uint8))
    data = load(tmp_path)
    for x, labels in ((data.x_train, data.labels_train), (data.x_test, data.labels_test)):
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, np.round(x[:, 0] * 255))


def fill(folder, *classes, n=4, first=0):
    """n pictures in each folder, whose grey value is first, first + 1, ...: one value for each class."""
    for k, name in enumerate(classes, first):
        for i in range(n):
            draw(folder / name / f"{i}.png", np.full((2, 2), k, np.uint8))


def grey_by_label(data):
    """{label: the grey values of the pictures that have it} over both parts."""
    x, labels = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.labels_train, data.labels_test])
    return {int(k): set(np.round(255 * x[labels == k, 0]).astype(int)) for k in np.unique(labels)}


CLASSES = {0: {0}, 1: {1}, 2: {2}}


@pytest.mark.parametrize("wrapped", ["", "photos", "archive/photos"])
def test_a_folder_of_folders_of_classes_is_looked_through(wrapped, tmp_path):
    fill(tmp_path / wrapped, "ant", "bee", "cat")
    assert grey_by_label(load(tmp_path)) == CLASSES


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "validation"), ("TRAIN", "Test")])
@pytest.mark.parametrize("wrapped", ["", "photos"])
def test_train_and_test_folders_are_the_parts(names, wrapped, tmp_path):
    train, test = (tmp_path / wrapped / name for name in names)
    fill(train, "ant", "bee", "cat", n=5)
    fill(test, "bee", "cat", n=2, first=1)  # a class may be missing in the test part
    data = load(tmp_path)
    assert (len(data.x_train), len(data.x_test), data.n_classes) == (15, 4, 3)
    assert grey_by_label(data) == CLASSES
    assert set(data.labels_test) == {1, 2}


def test_train_and_test_folders_without_classes(tmp_path):
    fill(tmp_path, "train", "test", n=3)
    data = load(tmp_path)
    assert data.labels_train is None
    assert not data.x_train.any() and data.x_test.all()
    assert (len(data.x_train), len(data.x_test)) == (3, 3)


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, "car", "plane", "train")
    assert grey_by_label(load(tmp_path)) == CLASSES


def test_linked_folders_are_followed(tmp_path):
    fill(tmp_path / "set", "ant", "bee")
    fill(tmp_path / "far", "owl", first=2)
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "far" / "owl")
    assert grey_by_label(load(tmp_path / "set")) == CLASSES
    (tmp_path / "set" / "ant" / "up").symlink_to(tmp_path / "set")
    assert "under another name" in refusal(tmp_path / "set")


def test_what_is_left_out_of_a_folder_is_said(tmp_path, capsys):
    fill(tmp_path, "ant", "bee", n=2)
    (tmp_path / "ant" / "readme.md").write_text("about ants")
    for name in (".hidden", "a.svg", "b.svg", "c.svg", "d.svg"):
        (tmp_path / name).write_text("<svg/>")
    assert load(tmp_path).n_classes == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "left out 5 files" in line and "a.svg" in line and line.endswith("...")
    assert ".hidden" not in line


def test_transparent_pixels_are_white(tmp_path):
    image = np.zeros((2, 2, 4), np.uint8)
    image[0, :, 3] = 255  # the upper row opaque black, the lower one transparent
    for name in "ab":
        draw(tmp_path / f"{name}.png", image)
    np.testing.assert_array_equal(load(tmp_path).x_train, [[0, 0, 1, 1]])


def test_pictures_are_turned_upright(tmp_path):
    image = pytest.importorskip("PIL.Image").fromarray(GREY)
    exif = image.getexif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    for name in "ab":
        image.save(tmp_path / f"{name}.png", exif=exif)
    data = load(tmp_path)
    assert data.shape == (4, 3)
    np.testing.assert_allclose(data.x_train[0].reshape(4, 3) * 255, np.rot90(GREY, -1), rtol=1e-6)


def no_pictures(folder):
    (folder / "notes.txt").write_text("hello")
    return [str(folder), "no pictures"]


def two_sizes(folder):
    draw(folder / "a.png", GREY)
    draw(folder / "b.png", GREY[:2])
    return [f"{folder / 'b.png'} is 4x2", f"{folder / 'a.png'} is 4x3"]


def broken_picture(folder):
    draw(folder / "a.png", GREY)
    (folder / "b.png").write_bytes(b"not a picture")
    return [str(folder / "b.png"), "unreadable"]


def truncated_picture(folder):
    draw(folder / "a.png", COLOUR)
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:-30])
    return [str(folder / "b.png"), "unreadable"]


def sixteen_bits(folder):
    for name in "ab":
        draw(folder / f"{name}.png", GREY.astype(np.uint16) * 256)
    return [str(folder / "a.png"), "8 bits"]


def stray_picture(folder):
    draw(folder / "a.png", GREY)
    draw(folder / "class" / "b.png", GREY)
    return [str(folder / "a.png"), "subfolders"]


def one_picture(folder):
    draw(folder / "a.png", GREY)
    return [str(folder), "1 example"]


def classes_that_are_not_clear(folder):
    fill(folder / "photos", "ant", "bee")
    fill(folder / "scans", "ant", "bee")
    return [str(folder), "photos and scans", "ant", "not clear"]


def a_class_to_test_on_only(folder):
    fill(folder / "train", "ant", "bee")
    fill(folder / "test", "ant", "owl")
    return [str(folder), "owl", "no training examples"]


BAD_FOLDERS = [
    classes_that_are_not_clear,
    a_class_to_test_on_only,
    no_pictures,
    two_sizes,
    broken_picture,
    truncated_picture,
    sixteen_bits,
    stray_picture,
    one_picture,
]


@pytest.mark.parametrize("make", BAD_FOLDERS)
def test_bad_folder_is_refused(tmp_path, make):
    fragments = make(tmp_path)
    message = refusal(tmp_path)
    assert all(fragment in message for fragment in fragments), message


def test_without_pillow_says_how_to_get_it(tmp_path, monkeypatch):
    draw(tmp_path / "a.png", GREY)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "pip install pillow" in refusal(tmp_path)


# ---- .npy and .npz ----

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (RANDOM.integers(0, 256, (30, 4, 5), np.uint8), (4, 5)),
        (RANDOM.integers(0, 256, (30, 4, 5, 3), np.uint8), (4, 5, 3)),
        (RANDOM.random((30, 4, 5)), (4, 5)),
        (RANDOM.random((30, 16), np.float32), (4, 4)),
        (RANDOM.random((30, 17)).astype(np.float16), (1, 17)),
        (RANDOM.integers(0, 256, (30, 2), np.uint8), (1, 2)),
        (RANDOM.normal(0, 100, (30, 2)), None),
        (RANDOM.normal(0, 100, (30, 1)), None),
    ],
)
def test_npy(tmp_path, array, shape):
    path = tmp_path / "x.npy"
    np.save(path, array)
    data = load(path)
    assert data.name == str(path)
    assert data.shape == shape
    assert (len(data.x_train), len(data.x_test)) == (27, 3)
    assert data.x_train.dtype == data.x_test.dtype == np.float32
    x = np.concatenate([data.x_train, data.x_test])
    expected = array.reshape(30, -1).astype(np.float32) / np.float32(255 if array.dtype == np.uint8 else 1)
    order = np.lexsort(x.T), np.lexsort(expected.T)
    np.testing.assert_array_equal(x[order[0]], expected[order[1]])
    np.testing.assert_array_equal(load(path, seed=4).x_test, data.x_test)


def test_two_examples_are_enough(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 9)))
    data = load(tmp_path / "x.npy")
    assert (len(data.x_train), len(data.x_test)) == (1, 1)


X = np.linspace(0, 1, 40, dtype=np.float32)[:, None] * np.ones(9, np.float32)
Y = np.arange(40)


@pytest.mark.parametrize(
    "arrays",
    [
        {"anything": X},
        {"x": X},
        {"x": X, "labels": Y},
        {"x_train": X},
        {"x_train": X, "labels_train": Y.astype("uint8")},
    ],
)
def test_npz_without_a_test_part(tmp_path, arrays):
    np.savez(tmp_path / "x.npz", **arrays)
    data = load(tmp_path / "x.npz")
    assert (len(data.x_train), len(data.x_test)) == (36, 4)
    if len(arrays) == 1:
        assert data.labels_train is None
        assert data.labels_test is None
    else:
        np.testing.assert_array_equal(data.labels_train, np.round(39 * data.x_train[:, 0]))
        np.testing.assert_array_equal(data.labels_test, np.round(39 * data.x_test[:, 0]))
        assert data.labels_test.dtype == np.int64


@pytest.mark.parametrize("labelled", [True, False])
def test_npz_with_a_test_part_keeps_its_order(tmp_path, labelled):
    labels = {"labels_train": Y[:30], "labels_test": Y[30:]} if labelled else {}
    np.savez_compressed(tmp_path / "x.npz", x_train=X[:30], x_test=X[30:], **labels)
    data = load(tmp_path / "x.npz")
    np.testing.assert_array_equal(data.x_train, X[:30])
    np.testing.assert_array_equal(data.x_test, X[30:])
    if labelled:
        np.testing.assert_array_equal(data.labels_test, Y[30:])
    else:
        assert data.labels_test is None


def changed(value, at=(3, 4), array=X):
    array = array.astype(np.float64)
    array[at] = value
    return array


BAD_ARRAYS = {
    "NaN": (changed(np.nan), "value nan in example 3"),
    "infinity": (changed(np.inf), "value inf"),
    "too large": (changed(255.0).reshape(40, 3, 3), "value 255.0 in example 3"),
    "negative": (changed(-0.5).reshape(40, 3, 3), "value -0.5"),
    "NaN point": (changed(np.nan, (5, 1), X[:, :2]), "value nan in example 5"),
    "point too large for float32": (changed(1e300, (5, 1), X[:, :2]), "value 1e+300"),
    "integers": (np.zeros((4, 9), np.int64), "int64"),
    "complex": (np.zeros((4, 9), complex), "complex128"),
    "strings": (np.full((4, 9), "a"), "<U1"),
    "one axis": (np.zeros(9), "shape (9,)"),
    "no axis": (np.zeros(()), "shape ()"),
    "five axes": (np.zeros((2, 2, 2, 3, 3)), "shape (2, 2, 2, 3, 3)"),
    "channels first": (np.zeros((4, 3, 8, 8)), "shape (4, 3, 8, 8)"),
    "no examples": (np.zeros((0, 9)), "empty"),
    "no pixels": (np.zeros((4, 0)), "empty"),
    "one example": (np.zeros((1, 9)), "1 example"),
    "x with labels too few": ({"x": X, "labels": Y[1:]}, "39 labels for 40 examples"),
    "float labels": ({"x": X, "labels": X[:, 0]}, "float32"),
    "one-hot labels": ({"x": X, "labels": np.eye(40, dtype=int)}, "shape (40, 40)"),
    "negative label": ({"x": X, "labels": Y - 1}, "label -1"),
    "absurd label": ({"x": X, "labels": np.where(Y == 3, 2**63 - 1, Y)}, "label 9223372036854775807"),
    "absurd unsigned label": ({"x": X, "labels": np.where(Y == 3, 2**63, 1).astype(np.uint64)}, "not a class"),
    "other names": ({"x_train": X, "y_train": Y}, "x_train, y_train"),
    "labels of one part only": ({"x_train": X, "x_test": X, "labels_train": Y}, "labels_train"),
    "test part of another shape": ({"x_train": X, "x_test": X[:, :4]}, "different shapes"),
    "test part transposed": ({"x_train": np.zeros((4, 2, 3)), "x_test": np.zeros((4, 3, 2))}, "different shapes"),
    "no arrays": ({}, "no arrays"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_array_is_refused(tmp_path, case):
    content, reason = BAD_ARRAYS[case]
    path = tmp_path / ("x.npz" if isinstance(content, dict) else "x.npy")
    if isinstance(content, dict):
        np.savez(path, **content)
    else:
        np.save(path, content)
    message = refusal(path)
    assert str(path) in message
    assert reason in message


class Bomb:
    """Runs code when unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def saved(name, *arrays, keep=None, **named):
    """A function that writes an array file, cut short to `keep` bytes."""

    def write(path):
        (np.savez_compressed if name == "x.npz" else np.save)(path, *arrays, **named)
        path.write_bytes(path.read_bytes()[:keep])

    return name, write


BAD_FILES = {
    "missing": ("x.npy", lambda path: None),
    "empty npy": ("x.npy", lambda path: path.write_bytes(b"")),
    "empty npz": ("x.npz", lambda path: path.write_bytes(b"")),
    "text": ("x.npy", lambda path: path.write_text("1 2 3\n4 5 6\n")),
    "pickled object": saved("x.npy", np.array([Bomb()], dtype=object)),
    "pickled object in npz": saved("x.npz", x=np.array([Bomb()], dtype=object)),
    "truncated npy": saved("x.npy", X, keep=300),
    "truncated header": saved("x.npy", X, keep=50),
    "truncated npz": saved("x.npz", x=RANDOM.random((40, 9)), keep=500),
}


def boundless(path):
    """A header that promises 10¹⁵ numbers, and none after it."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 1000)})


BAD_FILES["boundless header"] = ("x.npy", boundless)


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_refused(tmp_path, case):
    name, write = BAD_FILES[case]
    write(tmp_path / name)
    assert str(tmp_path / name) in refusal(tmp_path / name)


def test_damaged_npz_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=RANDOM.random((40, 9)))
    content = bytearray(path.read_bytes())
    content[400:600] = bytes(200)
    path.write_bytes(content)
    assert str(path) in refusal(path)


# ---- files of every kind with something wrong somewhere ----


def mutated(content, rng):
    """The bytes of a file after an accident: a byte changed, a stretch lost, doubled or filled, the end cut, odd signs."""
    a, b = sorted(rng.integers(0, len(content), 2))
    few = a + min(b - a, 30)
    head = int(rng.integers(0, min(len(content), 128)))  # headers are in front, and so are the odd parsers
    sign = rng.choice([b"(", b"'", b"{", b"\\", b"9" * 9, b"\n", b"\x01", b","])
    return [
        content[:a] + bytes([rng.integers(256)]) + content[a + 1 :],
        content[:a] + content[few:],
        content[:few] + content[a:],
        content[:a],
        content[:a] + rng.bytes(few - a) + content[few:],
        content[:head] + bytes(sign) + content[head + 1 :],
    ][rng.integers(6)]


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "png", "idx", "idx.gz", "checkpoint", "history"])
def test_a_mutated_file_of_any_kind_is_read_or_refused_in_one_line(kind, home, tmp_path):
    out, rng = tmp_path / "run", np.random.default_rng(5)
    path, read = {
        "npy": (tmp_path / "x.npy", lambda: load(tmp_path / "x.npy")),
        "npz": (tmp_path / "x.npz", lambda: load(tmp_path / "x.npz")),
        "csv": (tmp_path / "x.csv", lambda: load(tmp_path / "x.csv")),
        "png": (tmp_path / "pictures" / "a.png", lambda: load(tmp_path / "pictures")),
        "idx": (home / "own/fashion" / IMAGES, lambda: load("fashion")),
        "idx.gz": (home / "own/fashion" / f"{IMAGES}.gz", lambda: load("fashion")),
        "checkpoint": (out / "checkpoint.npz", lambda: load_model(out / "checkpoint.npz")),
        "history": (out / "history.csv", lambda: fit(vae(), X, epochs=1, out=out, resume=True, progress=False)),
    }[kind]
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", x=X, labels=Y)
    (tmp_path / "x.csv").write_text("\n".join(["a,b,label", *(f"{i},{i / 7},{i % 3}" for i in range(40))]))
    for name in "ab":
        draw(tmp_path / "pictures" / f"{name}.png", COLOUR)
    put(home / "own/fashion", {name: content for name, content in GOOD.items() if name != IMAGES})
    put(
        home / "own/fashion", {IMAGES: GOOD[IMAGES]} if kind == "idx" else {f"{IMAGES}.gz": gzip.compress(GOOD[IMAGES])}
    )
    fit(vae(), X, epochs=1, out=out, progress=False)
    content, refused = path.read_bytes(), 0
    for _ in range(60):
        path.write_bytes(mutated(content, rng))
        try:
            read()
        except UsageError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 5


def vae():
    return VAE(n_features=X.shape[1], hidden=(3,), n_latent=1, batch=20).build(Rng(0))


@pytest.mark.parametrize(
    "header", ["{'descr': '<f4', 'fortran_order': False, 'shape': (2, 9", "{'descr", "(\n 1", "'", "(" * 999]
)
def test_headers_on_which_numpys_own_parser_stumbles(header, tmp_path):
    content = header.encode()
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content + bytes(72))
    assert "x.npy: not readable" in refusal(tmp_path / "x.npy")


def test_binarized_pixels_are_black_as_often_as_they_are_grey():
    grey = np.tile(np.array([0, 0.1, 0.5, 0.9, 1], np.float32), (20_000, 1))
    data = binarized(Data("grey", grey, grey[:10]))
    assert data.x_train.dtype == np.float32 and set(np.unique(data.x_train)) == {0, 1}
    np.testing.assert_allclose(data.x_train.mean(axis=0), grey[0], atol=0.015)
    again = binarized(Data("grey", grey, grey[:10]))
    np.testing.assert_array_equal(data.x_train, again.x_train)
    assert not np.array_equal(data.x_train[:10], data.x_test)
    both = binarized(Data("grey", grey, grey))  # equally long parts must not share the noise
    assert not np.array_equal(both.x_train, both.x_test)
    np.testing.assert_array_equal(both.x_train, data.x_train)
    other = binarized(Data("grey", grey, grey[:10]), seed=1)
    assert not np.array_equal(data.x_train, other.x_train)

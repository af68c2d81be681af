"""Pictures show what they are given: every image in its place, ink dark, files whole."""

import numpy as np
import pytest

from scratchgen.backend import UsageError
from scratchgen.plots import new_figure, save_figure, show_points, tile


def test_images_lie_row_by_row_with_ink_dark():
    images = np.zeros((5, 28 * 28))
    images[3] = 1  # black, in the second row of three columns, first place
    sheet = tile(images, (28, 28), 3)
    h, w = sheet.shape[0] // 2, sheet.shape[1] // 3
    darkness = [[1 - sheet[r * h : (r + 1) * h, c * w : (c + 1) * w].mean() for c in range(3)] for r in range(2)]
    assert np.argmax(darkness) == 3
    assert sheet.shape[2] == 3
    assert 0 <= sheet.min() <= sheet.max() <= 1


def test_colour_images_keep_their_colour():
    red = np.tile([1.0, 0.0, 0.0], 32 * 32)[None]
    middle = tile(red, (32, 32, 3), 1)
    assert np.allclose(middle[middle.shape[0] // 2, middle.shape[1] // 2], [1, 0, 0])


def test_small_images_are_enlarged():
    assert tile(np.zeros((1, 64)), (8, 8), 1).shape[0] >= 40


def test_a_figure_is_written_whole_and_its_path_printed(tmp_path, capsys):
    figure, axes = new_figure(2, 2)
    axes[0, 0].plot([0, 1], [1, 0])
    save_figure(figure, tmp_path / "deep" / "a.png")
    assert (tmp_path / "deep" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.png"]
    assert capsys.readouterr().out.strip() == str(tmp_path / "deep" / "a.png")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    figure, _ = new_figure(1, 1)
    with pytest.raises(UsageError, match="file"):
        save_figure(figure, tmp_path / "file" / "a.png")


def test_ten_classes_keep_ten_colours_in_the_file(tmp_path):
    from matplotlib import colormaps
    from PIL import Image

    figure, axes = new_figure(6, 6)
    rng = np.random.default_rng(0)
    show_points(axes[0, 0], rng.standard_normal((500, 2)), np.arange(500) % 10, size=8)
    save_figure(figure, tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"), int).reshape(-1, 3)
    for colour in colormaps["tab10"].colors:
        assert np.abs(pixels - 255 * np.array(colour)).max(axis=1).min() < 25

"""Pictures show what they are given: every image in its place, ink dark, files whole."""

import numpy as np
import pytest

from scratchgen.backend import UsageError
from scratchgen.plots import (
    BLUE,
    GREY,
    LARGEST,
    colours_of,
    new_figure,
    painted,
    picture_of,
    save_animation,
    save_figure,
    show_images,
    show_points,
    tile,
)


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


def colours(path):
    """The pixels (N, 3) of a picture file."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), int).reshape(-1, 3)


def test_a_pixel_of_a_small_image_stays_one_square(tmp_path):
    figure, axes = new_figure(2, 2)
    show_images(axes[0, 0], np.arange(64).reshape(1, 8, 8) % 2, (8, 8), 1)  # black and white stripes
    save_figure(figure, tmp_path / "a.png")
    pixels = colours(tmp_path / "a.png")
    assert len(np.unique(pixels[pixels.max(axis=1) < 215], axis=0)) == 1  # black, and of greys only the frame's


def test_every_class_is_named_in_the_middle_of_its_points():
    _, axes = new_figure(2, 2)
    labels = np.arange(30) % 3
    show_points(axes[0, 0], np.stack([labels, -labels], axis=1) + np.linspace(-0.1, 0.1, 30)[:, None], labels)
    places = {text.get_text(): text.get_position() for text in axes[0, 0].texts}
    assert {name: tuple(np.round(place)) for name, place in places.items()} == {"0": (0, 0), "1": (1, -1), "2": (2, -2)}
    assert axes[0, 0].get_legend() is None
    assert (axes[0, 0].get_xlabel(), axes[0, 0].get_ylabel()) == ("x₁", "x₂")


def test_real_points_lie_in_grey_under_samples():
    from matplotlib.colors import to_rgb

    x = np.random.default_rng(0).standard_normal((50, 2))
    _, axes = new_figure(2, 2)
    show_points(axes[0, 0], x, real=x + 5)
    below, above = axes[0, 0].collections
    assert [tuple(cloud.get_facecolors()[0, :3]) for cloud in (below, above)] == [to_rgb(GREY), to_rgb(BLUE)]
    np.testing.assert_allclose(below.get_offsets(), x + 5)
    np.testing.assert_allclose(above.get_offsets(), x)


@pytest.mark.parametrize("width", [1, 2])
def test_a_picture_of_points_has_the_real_ones_too(width, tmp_path):
    x = np.random.default_rng(0).standard_normal((200, width))
    inked = {}
    for name, real in (("alone", None), ("both", x + 5)):
        picture_of(x, None, tmp_path / f"{name}.png", real)
        pixels = colours(tmp_path / f"{name}.png")
        grey = (np.ptp(pixels, axis=1) < 6) & (np.abs(pixels[:, 0] - 200) < 40)  # the grey of GREY, half transparent
        inked[name] = grey.mean()
    assert inked["both"] > 1.3 * inked["alone"]


def test_few_colours_leave_paper_white_grey_grey_and_a_large_tint_what_it_is():
    from PIL import Image

    pixels = np.full((60, 256, 3), 255, np.uint8)
    pixels[:20] = np.arange(256)[None, :, None]
    pixels[20:40] = (246, 240, 248)  # a tint that is nearly grey
    pixels[40:45] = np.random.default_rng(0).integers(0, 256, (5, 256, 3))
    made = np.asarray(painted(Image.fromarray(pixels), *colours_of(Image.fromarray(pixels), 64)).convert("RGB"), int)
    assert np.ptp(made[:20], axis=2).max() == 0 and np.abs(made[:20] - pixels[:20]).max() <= 5
    assert np.abs(made[20:40] - pixels[20:40]).max() <= 4
    assert (made[45:] == 255).all()


@pytest.mark.slow
def test_a_figure_that_would_be_too_large_is_made_smaller(tmp_path):
    figure, axes = new_figure(5, 5)
    axes[0, 0].imshow(np.random.default_rng(0).random((500, 500)), cmap="viridis")
    axes[0, 0].axis("off")
    save_figure(figure, tmp_path / "a.png")
    assert 20_000 < (tmp_path / "a.png").stat().st_size <= LARGEST


def test_an_animation_that_would_be_too_large_has_fewer_frames_and_its_last_one(tmp_path, capsys):
    from PIL import Image, ImageSequence

    figure, axes = new_figure(3, 3)
    axis, rng, drawn = axes[0, 0], np.random.default_rng(0), []

    def draw(frame):
        drawn.append(frame)
        axis.clear()
        axis.axis("off")
        noise = rng.random((80, 80))
        noise[:40] *= frame < 11  # the upper half of the last frame is of one colour
        axis.imshow(noise)

    save_animation(figure, draw, iter(range(12)), tmp_path / "a.gif")
    assert (tmp_path / "a.gif").stat().st_size <= LARGEST
    assert capsys.readouterr().out.strip() == str(tmp_path / "a.gif")
    assert drawn[:12] == [*range(12)]
    with Image.open(tmp_path / "a.gif") as image:
        shots = [np.asarray(shot.convert("RGB"), int) for shot in ImageSequence.Iterator(image)]
    assert 2 <= len(shots) < 12
    first, last = (shot[len(shot) // 4 : len(shot) // 3, 60:90] for shot in (shots[0], shots[-1]))
    assert np.ptp(last, axis=(0, 1)).max() < 5 < 50 < np.ptp(first, axis=(0, 1)).max()

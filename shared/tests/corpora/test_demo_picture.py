"""What demo pictures show: one face that a detector finds, and content in each of three parts."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from mepr_shared.corpora import demo_cues, demo_face, demo_photo, demo_picture
from mepr_shared.corpora.demo_photo import OUTLINE, SUIT_TOP, bilinear, enlarged
from mepr_shared.corpora.demo_picture import HEIGHT, WIDTH, Chances, Looks, pictures
from mepr_shared.errors import MissingDependency
from mepr_shared.labels import EMOTIONS

pytest.importorskip("skimage", reason="needs mepr-shared[demo]")

LOOKS = Looks(np.ones(3), mirrored=False, suit_value=0.62)
SHOWN = 8  # pictures until an expression is at its apex


def told(*emotions: str) -> np.ndarray:
    return np.isin(EMOTIONS, emotions).astype(float)


def chances(*seeds: int) -> Chances:
    face, body, scene = seeds if len(seeds) == 3 else seeds * 3
    return Chances(*(np.random.RandomState(s) for s in ([face, 0], [body, 1], [scene, 2])))


def last(emotion: str, seed: int, level: int | None = None) -> np.ndarray:
    """The last picture of a clip of any speaker."""
    random = np.random.RandomState(1000 + seed)
    levels = random.randint(-2, 3, size=5) if level is None else np.full(5, level)
    *_, picture = pictures(told(emotion), levels, Looks.draw(random), chances(seed), SHOWN)
    return picture


@pytest.fixture(scope="module")
def find() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Boxes `[N, 4]` and scores `[N]` of the faces in a picture."""
    facenet = pytest.importorskip("facenet_pytorch", reason="needs mepr-shared[faces]")
    detector = facenet.MTCNN(keep_all=True)

    def detect(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = detector.detect(picture)
        return (np.zeros((0, 4)), np.zeros(0)) if boxes is None else (boxes, scores)

    return detect


@pytest.mark.parametrize("level", [-2, 2])
def test_one_face_is_found_even_at_the_extremes(find, level: int) -> None:
    for seed, emotion in enumerate(EMOTIONS):
        boxes, scores = find(last(emotion, seed, level))
        assert (scores >= 0.9).sum() == 1
        left, top, right, bottom = boxes[0]
        assert bottom - top >= 60
        assert left > 0 and top > 0 and right < WIDTH and bottom < HEIGHT / 2 + 20


def part_of(picture: np.ndarray, part: str, find: Callable) -> np.ndarray:
    """What can be told apart by plain pixels: a small face in grey, mean colours."""
    if part == "body":
        return picture[215:275, 110:210].mean(axis=(0, 1))
    if part == "scene":
        return np.concatenate([picture[:120, :40], picture[:120, -40:]]).mean(axis=(0, 1))
    left, top, right, bottom = find(picture)[0][0]
    y, x = np.mgrid[top:bottom:24j, left:right:24j]
    grey = picture.mean(axis=2, dtype=np.float32)[None]
    face = bilinear(grey, x, y)[0]
    return ((face - face.mean()) / face.std()).ravel()


@pytest.mark.parametrize("part", ["face", "body", "scene"])
def test_each_part_tells_happiness_from_anger(find, part: str) -> None:
    seen = {
        emotion: np.array([part_of(last(emotion, seed, None), part, find) for seed in seeds])
        for emotion, seeds in (("happiness", range(20, 36)), ("anger", range(40, 56)))
    }
    # The nearer of two means, of eight clips each, on eight others each.
    happy, angry = (seen[emotion][:8].mean(axis=0) for emotion in ("happiness", "anger"))
    middle, direction = (happy + angry) / 2, happy - angry
    rights = [((seen["happiness"][8:] - middle) @ direction > 0).mean()]
    rights += [((seen["anger"][8:] - middle) @ direction < 0).mean()]
    assert np.mean(rights) >= 0.75


def test_features_go_where_an_action_moves_them() -> None:
    where = np.mgrid[:512, :512][::-1].astype(np.float32)
    left, top, right, bottom = demo_face.PATCH
    rest = demo_face.express(where, {})
    np.testing.assert_allclose(rest, where[:, top:bottom, left:right], atol=1e-3)
    smiling = demo_face.express(where, {"smile": 1.0})
    for corner, move in (((203, 140), (-3.5, -5.5)), ((245, 140), (3.5, -5.5))):
        x, y = corner[0] + move[0] - left, corner[1] + move[1] - top
        found = bilinear(smiling, np.array([x]), np.array([y]))
        np.testing.assert_allclose(found[:, 0], corner, atol=1.2)
    # The rim stays, so that the patch has no seam.
    np.testing.assert_allclose(smiling[:, 0], where[:, top, left:right], atol=0.05)
    np.testing.assert_allclose(smiling[:, :, -1], where[:, top:bottom, right - 1], atol=0.05)


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_a_face_does_not_fold(emotion: str) -> None:
    x, y = np.mgrid[:512, :512][::-1].astype(np.float32)
    where = np.stack([np.zeros_like(x)] * 3 + [x, y])  # colours first: a mouth is painted there
    for seed in range(5):
        random = np.random.RandomState(seed)
        cues = demo_cues.FACE.draw(told(emotion), np.zeros(5), random)
        strengths = {a: demo_cues.REST.get(a, 0) + cues.get(a, 0) for a in demo_face.ACTIONS}
        x_from, y_from = demo_face.express(where, strengths)[3:]
        (x_down, x_right), (y_down, y_right) = np.gradient(x_from), np.gradient(y_from)
        assert (x_right * y_down - x_down * y_right).min() > 0.1


def test_the_parts_have_chance_of_their_own() -> None:
    def first(*seeds: int) -> np.ndarray:
        return next(pictures(told("fear"), np.zeros(5), LOOKS, chances(*seeds), 3)).astype(int)

    one = first(1, 2, 3)
    np.testing.assert_array_equal(one, first(1, 2, 3))
    behind, person = np.s_[:20, :20], np.s_[90:110, 150:170]
    another_scene = first(1, 2, 4)
    np.testing.assert_array_equal(another_scene[person], one[person])
    assert np.abs(another_scene[behind] - one[behind]).mean() > 3
    another_face = first(5, 2, 3)
    np.testing.assert_array_equal(another_face[behind], one[behind])
    assert np.abs(another_face[person] - one[person]).mean() > 3


def test_an_expression_grows_from_rest_and_stays() -> None:
    face = demo_cues.FACE.draw(told("sadness"), np.zeros(5), chances(8).face)
    body = demo_cues.BODY.draw(told("sadness"), np.zeros(5), chances(8).body)
    motion = demo_picture._Motion.draw(face, body, LOOKS, chances(8))
    begin, grown, later = (motion.expression(time_s) for time_s in (0.0, 0.8, 2.0))
    for action in demo_face.ACTIONS:
        rest = demo_cues.REST.get(action, 0.0)
        assert begin[action] == pytest.approx(rest, abs=0.11)  # lips flutter a little
        for now in (grown, later):
            assert now[action] == pytest.approx(rest + face[action], rel=0.1, abs=0.11)


def test_light_comes_from_the_side_that_tells_for_mirrored_people_too() -> None:
    levels = np.array([0, 0, 0, 0, 2])
    for mirrored in (False, True):
        looks = Looks(np.ones(3), mirrored, suit_value=0.62)
        bright, dark = (
            next(pictures(told("neutral"), sign * levels, looks, chances(3), 1)).astype(int)
            for sign in (1, -1)
        )
        change = (bright - dark)[80:120, 100:220].mean(axis=(0, 2))
        centre = np.arange(100, 220) @ np.abs(change) / np.abs(change).sum()
        left, right = change[: int(centre) - 100].mean(), change[int(centre) - 100 :].mean()
        assert right > left + 10


def test_pictures_are_what_a_film_is_made_of() -> None:
    shown = list(pictures(told("surprise"), np.zeros(5), LOOKS, chances(8), 10))
    assert len(shown) == 10
    assert all(p.shape == (HEIGHT, WIDTH, 3) and p.dtype == np.uint8 for p in shown)
    moved = np.abs(np.diff(np.array(shown, dtype=float), axis=0)).mean(axis=(1, 2, 3))
    assert (moved > 0.2).all() and (moved < 40).all()


def test_two_emotions_add() -> None:
    alone = {e: demo_cues.FACE.draw(told(e), np.zeros(5), zero()) for e in ("anger", "fear")}
    both = demo_cues.FACE.draw(told("anger", "fear"), np.zeros(5), zero())
    for cue, value in both.items():
        assert value == pytest.approx(alone["anger"][cue] + alone["fear"][cue])
    assert len(list(pictures(told("anger", "fear"), np.ones(5), LOOKS, chances(1), 2))) == 2


class zero:
    """A random stream without chance."""

    def standard_normal(self, size: int) -> np.ndarray:
        return np.zeros(size)


@pytest.mark.parametrize("part", [demo_cues.FACE, demo_cues.BODY, demo_cues.SCENE])
def test_no_part_tells_all(part: demo_cues.Part) -> None:
    # In units of chance, levels shift their cues by about one: neighbours overlap.
    for effects in part.traits.values():
        shift = np.sqrt(sum((effect / part.chance[cue]) ** 2 for cue, effect in effects.items()))
        assert 0.7 < shift < 2
    assert all(set(effects) <= set(part.chance) for effects in part.emotions.values())


def test_pictures_are_frozen() -> None:
    # If this fails the generator changed: give it a new version, or undo the change.
    *_, picture = pictures(told("disgust"), np.array([1, -1, 0, 2, -2]), LOOKS, chances(4), 9)
    tiles = picture.reshape(3, HEIGHT // 3, 4, WIDTH // 4, 3).mean(axis=(1, 3, 4))
    np.testing.assert_allclose(tiles, FROZEN, atol=0.05)


FROZEN = [
    [145.840, 149.981, 133.447, 142.406],
    [152.218, 110.416, 120.370, 136.540],
    [175.457, 147.602, 131.888, 119.293],
]


def test_the_person_is_cut_out() -> None:
    portrait = demo_photo.portrait()
    assert portrait.person[120, 224] == portrait.person[400, 150] == 1
    assert portrait.person[40, 40] == portrait.person[100, 400] == 0
    assert set(portrait.suit[:SUIT_TOP].ravel()) == {0.0}
    x, y = OUTLINE.T
    area = abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2  # the shoelace formula
    assert portrait.person.sum() == pytest.approx(area, rel=0.03)


def test_sampling_is_linear_between_pixels() -> None:
    image = np.mgrid[:5, :6].astype(np.float32)
    x, y = np.array([[0.25, 4.5]]), np.array([[3.75, 1.0]])
    np.testing.assert_allclose(bilinear(image, x, y), [y, x], atol=1e-5)
    beyond = bilinear(image, np.array([-3.0, 99.0]), np.array([-1.0, 99.0]))
    np.testing.assert_allclose(beyond, [[0, 4], [0, 5]], atol=0.01)
    grid = np.mgrid[:4, :3] * 4.0
    np.testing.assert_allclose(enlarged(grid, 4, (12, 9)), np.mgrid[:12, :9])


def test_the_background_holds_no_camera() -> None:
    """`skimage.data.camera` shows a man: he would be a second face."""
    assert "camera" not in demo_photo.TEXTURES
    assert set(demo_cues.USUAL_TEXTURE) == set(EMOTIONS)
    assert set(demo_cues.USUAL_TEXTURE.values()) <= set(demo_photo.TEXTURES)


def test_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(MissingDependency, match=r"pip install 'mepr-shared\[demo\]'.*--media"):
        demo_photo.require_photographs()

"""Which image is attacked next, without any network.

An image has a radius for each stage; a stage breaks it at an epsilon from its
radius on. So what a sweep must find is known.
"""

import ast
import pathlib

import numpy as np
import pytest

from keras_epsched.evaluation import queues as queues_module
from keras_epsched.evaluation.queues import Image, Queues

GRID = np.linspace(0, 0.8, 9)
FAR = 9.0


def make_image(number=0, hit=True, keep=False):
    return Image(
        number=number,
        label=1,
        prediction=1 if hit else 0,
        pixels=np.array([float(number)], "float32"),
        broken_at=np.full(len(GRID), -1, "int16"),
        ceiling=len(GRID),
        keep=keep,
    )


def sweep(
    radii, stages=None, nested=True, bisect=True, finds_distance=(), batch=4
):
    """Sends images with such radii of each stage through the queues.

    Returns the images, the tasks in the order in which they were attacked, and
    the number of times that an image was done.
    """
    radii = np.atleast_2d(radii)
    stages = stages or [(number, 0) for number in range(radii.shape[1])]
    queues = Queues(GRID, stages, nested, bisect)
    images = [make_image(number) for number in range(len(radii))]
    done = sum(queues.enter(image) for image in images)
    tasks = []
    while (number := queues.fullest()) is not None:
        for task in queues.take(number, batch):
            assert stages[task.stage][0] == number
            tasks.append(task)
            radius = radii[task.image.number, task.stage]
            found = np.array([100.0 + task.place], "float32")
            distance = radius if task.stage in finds_distance else None
            broken = radius <= GRID[task.place]
            done += queues.settle(task, found, broken, found, False, distance)
    return images, tasks, done


def one(radii, **kwargs):
    """The places and stages at which an image of such radii is attacked."""
    (image,), tasks, done = sweep([radii], **kwargs)
    assert done == 1
    return image, [(task.place, task.stage) for task in tasks]


def test_it_knows_neither_networks_nor_attacks():
    source = pathlib.Path(queues_module.__file__).read_text()
    imported = {
        getattr(node, "module", None) or node.names[0].name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert imported == {"collections", "collections.abc", "dataclasses"} | {
        "typing",
        "numpy",
    }


def test_a_misclassified_image_is_done_at_once():
    queues = Queues(GRID, [(0, 0)], True, True)
    image = make_image(hit=False)
    assert queues.enter(image)
    assert queues.fullest() is None
    assert not image.correct.any() and image.pixels is None


def test_bisection_halves_the_places_that_are_left():
    # 0.35 lies between places 3 and 4 of the grid.
    image, attacked = one([0.35])
    assert attacked == [(4, 0), (2, 0), (3, 0)]
    np.testing.assert_array_equal(image.correct, GRID < 0.35)


def test_going_up_ends_where_the_image_is_broken():
    image, attacked = one([0.35], bisect=False)
    assert attacked == [(1, 0), (2, 0), (3, 0), (4, 0)]
    np.testing.assert_array_equal(image.correct, GRID < 0.35)


def test_an_independent_sweep_attacks_everywhere():
    image, attacked = one([0.35], nested=False, bisect=False)
    assert attacked == [(place, 0) for place in range(1, 9)]
    np.testing.assert_array_equal(image.correct, GRID < 0.35)


@pytest.mark.parametrize(
    ("nested", "bisect"), [(True, True), (True, False), (False, False)]
)
def test_any_order_finds_the_worst_case_of_all_stages(nested, bisect):
    rng = np.random.default_rng(0)
    radii = rng.uniform(0, 1, (50, 3))
    if bisect:
        # Later stages are tried only just below the first one's answer.
        radii[:, 1:] = radii[:, :1] - 0.1 * rng.integers(0, 3, (50, 2))
    images, tasks, done = sweep(radii, nested=nested, bisect=bisect)
    assert done == 50
    for image, row in zip(images, radii, strict=True):
        np.testing.assert_array_equal(
            image.correct[1:], GRID[1:] < max(row.min(), 1e-9)
        )
    assert len({(t.image.number, t.place, t.stage) for t in tasks}) == len(
        tasks
    )


def test_later_stages_lower_what_the_first_one_found():
    # The second breaks it two places below the first.
    image, attacked = one([0.45, 0.25])
    assert attacked == [
        *[(4, 0), (6, 0), (5, 0)],
        *[(4, 1), (3, 1), (2, 1)],
    ]
    # What breaks it at a smaller epsilon counts at the larger ones too.
    np.testing.assert_array_equal(image.broken_at, [-1] * 3 + [1] * 6)


def test_what_broke_an_image_is_tried_first_below():
    # Of three stages the last breaks it, and goes first from then on.
    image, attacked = one([0.45, FAR, 0.25])
    assert attacked[3:] == [(4, 1), (4, 2), (3, 2), (2, 2), (2, 1)]
    assert image.breaker == 2


def test_a_distance_answers_every_place():
    image, attacked = one([0.35], finds_distance={0})
    assert attacked == [(4, 0)]
    np.testing.assert_array_equal(image.correct, GRID < 0.35)
    image, attacked = one(
        [0.35], nested=False, bisect=False, finds_distance={0}
    )
    assert attacked == [(1, 0)]
    np.testing.assert_array_equal(image.correct, GRID < 0.35)


def test_a_distance_that_is_an_epsilon_does_not_reach_it():
    image, _ = one([GRID[4]], finds_distance={0})
    assert image.correct[4] and not image.correct[5]


def test_variants_of_an_attack_share_its_queue():
    stages = [(0, 0), (1, 0), (1, 1)]
    queues = Queues(GRID, stages, True, False)
    assert len(queues.waiting) == 2
    _, attacked = one([FAR, FAR, 0.05], stages=stages, bisect=False)
    assert attacked == [(1, 0), (1, 1), (1, 2)]


def test_batches_are_taken_from_the_front_whatever_the_epsilon():
    queues = Queues(GRID, [(0, 0), (1, 0)], True, True)
    for number in range(3):
        queues.enter(make_image(number))
    (first,) = queues.take(0, 1)
    found = np.zeros(1, "float32")
    # It stands: it is attacked next at a larger epsilon, behind the others.
    assert not queues.settle(first, found, False, found)
    tasks = queues.take(0, 99)
    assert [task.image.number for task in tasks] == [1, 2, 0]
    assert [task.place for task in tasks] == [4, 4, 6]
    assert queues.fullest() is None


def test_a_start_is_moved_to_the_sphere_of_its_epsilon():
    queues = Queues(GRID, [(0, 0)], True, False)
    image = make_image(number=10)
    queues.enter(image)
    (task,) = queues.take(0, 1)
    assert task.place == 1 and queues.start(task) is None
    best = np.array([12.0], "float32")
    queues.settle(task, best, False, best)
    (task,) = queues.take(0, 1)
    # Twice as far from 10 at twice the epsilon.
    np.testing.assert_allclose(queues.start(task), [14.0])
    independent = Queues(GRID, [(0, 0)], False, False)
    assert independent.start(task) is None


def test_the_example_is_that_of_the_smallest_epsilon():
    queues = Queues(GRID, [(0, 0)], True, True)
    image = make_image(keep=True)
    queues.enter(image)
    for broken in (True, True, False):
        (task,) = queues.take(0, 1)
        found = np.array([float(task.place)], "float32")
        done = queues.settle(task, found, broken, found)
    assert done and image.warm is None
    place, adversarial = image.example
    assert place == 2 and adversarial == [2.0]
    # Its own pixels are kept to be compared with.
    assert image.pixels is not None


def test_what_is_kept_is_no_view_of_a_batch():
    queues = Queues(GRID, [(0, 0)], True, True)
    image = make_image(keep=True)
    queues.enter(image)
    (task,) = queues.take(0, 1)
    batch = np.zeros((64, 1), "float32")
    queues.settle(task, batch[0], True, batch[0])
    assert image.warm[1].base is None and image.example[1].base is None

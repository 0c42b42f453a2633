"""data.py on small folders of pictures and tiny MNIST files."""

import gzip
import logging
import os
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from anogan.data import image_set
from anogan.data.choosing import require
from anogan.data.folders import Selection, find_images, image_folder
from anogan.data.image_set import ImageSet
from anogan.data.listing import available
from anogan.data.mnist import mnist
from anogan.errors import UserError
from anogan.image_form import ImageForm
from utils import to_float

pytestmark = pytest.mark.unit

SHAPE = (16, 20, 3)


def picture(i):
    """Tells its number by its colour, which a resize to the same size keeps."""
    y, x = np.mgrid[0:16, 0:20]
    return np.stack([x * 0 + i, y * 4, x * 5], -1).astype(np.uint8)


def fill(folder, *names):
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(i)).save(path)
    return folder


def numbers(images):
    return [int(image[0, 0, 0]) for image in images]


@pytest.fixture
def folder(tmp_path):
    """Pictures 0 to 29."""
    return fill(tmp_path / "set", *[f"{i:02d}.png" for i in range(30)])


@pytest.fixture
def broken(folder):
    """Pictures 0 to 29 without 3 and 10 to 17."""
    for i in (3, *range(10, 18)):
        (folder / f"{i:02d}.png").write_bytes(b"<html>")
    return folder


def load(folder, crop=None, limit=None, **options):
    found = find_images(folder, Selection(limit=limit))
    return image_folder(found, ImageForm(*SHAPE, crop), **options)


@pytest.fixture(params=["in memory", "on disk"])
def limit(request):
    return {"memory_limit": 2**28 if request.param == "in memory" else 0}


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded, in order."""
    seen = []
    real = image_set.load_image

    def noted(path, *settings):
        seen.append(os.path.basename(path))
        return real(path, *settings)

    monkeypatch.setattr(image_set, "load_image", noted)
    return seen


# reading


def test_images_are_read_at_random_by_index(folder, limit):
    images = load(folder, **limit)
    assert len(images) == 30 and images.shape == SHAPE and images.names[7] == "07.png"
    found, kept = images.read([7, 0, 29, 7])
    assert found.dtype == np.uint8 and numbers(found) == [7, 0, 29, 7]
    assert kept.tolist() == [7, 0, 29, 7]
    assert images.read([])[0].shape == (0, *SHAPE)


def test_small_sets_are_decoded_once_and_only_what_is_used(folder, decoded):
    images = load(folder)
    assert decoded == []
    images.read([3, 4])
    images.subset([4, 5]).read([0, 1])
    images.read([3, 5])
    assert sorted(decoded) == ["03.png", "04.png", "05.png"]


def test_sets_above_the_memory_limit_are_decoded_at_each_use(folder, decoded):
    size = 30 * 16 * 20 * 3
    for limit, times in ((size, 1), (size - 1, 2)):
        decoded.clear()
        images = load(folder, memory_limit=limit)
        images.read([3])
        images.read([3])
        assert len(decoded) == times


def test_broken_files_are_left_out_and_reported_once(broken, limit, caplog):
    images = load(broken, **limit)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found, kept = images.read([2, 3, 4, 3])
            assert numbers(found) == [2, 4] and kept.tolist() == [2, 4]
    assert images.skipped == [("03.png", "not an image that Pillow reads")]
    assert [r.getMessage() for r in caplog.records] == [
        f"skipped {broken}/03.png: {images.skipped[0][1]}"
    ]


def test_files_that_take_each_others_place_are_others_but_a_copied_folder_is_the_same(folder):
    """Also where size and time are equal: interrupted scorings go on by the states."""
    fill(folder, "00.png", "01.png")
    one, other = folder / "00.png", folder / "01.png"
    one.write_bytes(other.read_bytes())
    for path in (one, other):
        os.utime(path, ns=(10**18, 10**18))
    images = load(folder)
    before, dated = images.states(), images.dated()
    one.rename(folder / "x")
    other.rename(one)
    (folder / "x").rename(other)
    shutil.copy2(folder / "02.png", folder / "y")
    (folder / "y").rename(folder / "02.png")
    again = load(folder)
    changed = {name for name, state in again.states().items() if state != before[name]}
    assert changed == {"00.png", "01.png", "02.png"} and again.dated() == dated
    shutil.copytree(folder, folder.parent / "copy")
    assert load(folder.parent / "copy").dated() == dated


def test_a_state_is_from_before_the_file_was_first_read(folder, limit):
    images = load(folder, **limit)
    before = load(folder).states()
    images.read([0, 4])
    for name in ("04.png", "05.png"):
        Image.fromarray(picture(99)).save(folder / name)
    assert images.states()["04.png"] == before["04.png"]
    assert images.states()["05.png"] != before["05.png"]
    assert numbers(images.read([5])[0]) == [99]


def test_a_part_reports_its_broken_files_to_the_whole(broken, limit):
    images = load(broken, **limit)
    rest, held_out = images.split(0.5, seed=1)
    for part in (rest, held_out):
        part.read(np.arange(len(part)))
    assert sorted(name for name, _ in images.skipped) == sorted(
        f"{i:02d}.png" for i in (3, *range(10, 18))
    )


def test_broken_files_are_reported_once_by_many_threads(broken):
    images = load(broken, memory_limit=0)
    threads = [threading.Thread(target=images.read, args=([3] * 20,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(images.skipped) == 1


# parts


def test_part_keeps_names_labels_and_kinds(tmp_path):
    fill(tmp_path, "good/a.png", "hole/b.png", "hole/c.png", "tear/d.png")
    part = load(tmp_path, labelled=True).subset([3, 0])
    assert part.names == ("tear/d.png", "good/a.png") and part.kinds == ("tear", "good")
    assert part.labels.tolist() == [1, 0] and numbers(part.read([0, 1])[0]) == [3, 0]
    again = part.subset(part.labels == 0)
    assert again.names == ("good/a.png",) and numbers(again.read([0])[0]) == [0]


def of_names(names):
    return ImageSet.from_array(np.zeros((len(names), 2, 2, 1), np.uint8), names)


def test_split_depends_on_names_and_seed_alone():
    names = [f"{i:04d}" for i in range(2000)]
    held_out = set(of_names(names).split(0.1, 3)[1].names)
    assert 150 < len(held_out) < 250
    for others in (["a", *names, "z"], names[500:], names[::-1]):
        again = set(of_names(others).split(0.1, 3)[1].names)
        assert again - {"a", "z"} == held_out & set(others)
    decided = {name: name < "0010" for name in names}
    again = of_names([*names, "a", "b"]).split(0.1, 4, decided)[1].names
    assert set(again) - {"a", "b"} == set(names[:10])


def test_few_images_leave_as_many_held_out_as_asked_for():
    for n, least in ((20, 2), (60, 6), (100, 8)):
        for seed in range(20):
            assert len(of_names([f"{i}" for i in range(n)]).split(0.1, seed)[1]) >= least


def test_split_is_a_partition_fixed_by_its_seed(folder):
    images = load(folder)
    rest, held_out = images.split(0.2, seed=5)
    assert len(held_out) >= 6 and sorted(rest.names + held_out.names) == list(images.names)
    assert images.split(0.2, seed=5)[1].names == held_out.names
    assert images.split(0.2, seed=6)[1].names != held_out.names
    assert held_out.names != images.names[:6]


@pytest.mark.parametrize(
    "n, share, held_out", [(2, 0.01, 1), (2, 0.99, 1), (9, 0, 0), (1, 0.5, 0), (0, 0.5, 0)]
)
def test_split_leaves_no_side_empty_that_need_not_be(n, share, held_out):
    images = ImageSet.from_array(np.zeros((n, 4, 4, 1), np.uint8))
    assert [len(part) for part in images.split(share, 0)] == [n - held_out, held_out]


def test_arrays_of_floats_are_taken_as_minus_1_to_1():
    values = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    images = ImageSet.from_array(to_float(values))
    assert (images.read([0, 1])[0] == values).all() and len(set(images.names)) == 2


# batches in order


def test_batches_go_once_through_all_that_can_be_read(broken, limit):
    images = load(broken, **limit)
    batches = list(images.batches(4))
    whole = [i for i in range(30) if i not in (3, *range(10, 18))]
    assert [i for indices, _ in batches for i in indices] == whole
    for indices, floats in batches:
        assert 0 < len(indices) <= 4 and floats.dtype == np.float32
        assert (floats == to_float(np.stack([picture(i) for i in indices]))).all()


def test_next_batch_is_read_while_the_caller_works_but_no_more(folder, monkeypatch):
    images = load(folder, memory_limit=0)
    reads, second = [], threading.Event()
    real = images.read

    def read(indices):
        reads.append(list(indices))
        if len(reads) == 2:
            second.set()
        return real(indices)

    monkeypatch.setattr(images, "read", read)
    batches = images.batches(5)
    next(batches)
    assert second.wait(5) and reads == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    batches.close()
    assert len(reads) == 2


# the training stream


def take(images, count, batch_size=8, **options):
    batches = []
    for batch in images.stream(batch_size, **options).take(count):
        assert batch.shape == (batch_size, *images.shape) and batch.dtype == np.float32
        batches.append(np.rint(batch.numpy() * 127.5 + 127.5).astype(np.uint8))
    return batches


def test_stream_shows_every_image_once_an_epoch_in_a_new_order(folder, limit):
    shown = [i for batch in take(load(folder, **limit), 15) for i in numbers(batch)]
    epochs = [shown[k : k + 30] for k in range(0, 120, 30)]  # of 30 images in batches of 8
    for epoch in epochs:
        assert sorted(epoch) == list(range(30)) and epoch != sorted(epoch)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_stream_gives_whole_images_between_minus_1_and_1(folder, limit):
    for batch in load(folder, **limit).stream(8).take(2):
        expected = np.stack([picture(i) for i in numbers(np.rint(batch * 127.5 + 127.5))])
        np.testing.assert_allclose(batch, to_float(expected), atol=1e-6)


def test_stream_is_the_same_for_a_seed_from_memory_and_from_disk(folder):
    one = np.array(take(load(folder), 9, seed=3))
    assert (one == take(load(folder), 9, seed=3)).all()
    assert (one == take(load(folder, memory_limit=0), 9, seed=3)).all()
    assert (one != take(load(folder), 9, seed=4)).any()


@pytest.mark.parametrize("first_step", [1, 3, 4, 29])
def test_stream_goes_on_where_an_unbroken_one_would_be(broken, limit, first_step):
    whole = take(load(broken, **limit), first_step + 3, seed=2)
    resumed = take(load(broken, **limit), 3, seed=2, first_step=first_step)
    assert [numbers(b) for b in resumed] == [numbers(b) for b in whole[first_step:]]


def test_shares_of_the_stream_make_up_its_batches(broken, limit):
    images = load(broken, **limit)
    whole = images.stream(8, seed=1, first_step=5)
    parts = [iter(images.stream(8, 1, 5, shares, 4)) for shares in (range(0, 2), range(2, 4))]
    for batch in whole.take(9):
        for i in range(4):
            np.testing.assert_array_equal(next(parts[i // 2]), batch[i::4])


def test_resumed_stream_decodes_nothing_of_what_it_skips(folder, decoded):
    take(load(folder, memory_limit=0), 1, first_step=10**9)
    assert len(decoded) < 200


def test_batch_may_be_larger_than_the_set(folder):
    shown = numbers(take(load(folder), 1, batch_size=75)[0])
    assert sorted(shown[:30]) == sorted(shown[30:60]) == list(range(30))


def test_no_tuner_is_waited_for_where_a_stream_ends(folder):
    """TensorFlow's sleeps for up to a minute, and only its end lets a dataset be deleted."""
    assert load(folder).stream(8).options().autotune.enabled is False


def test_other_images_take_the_places_of_broken_ones_in_the_stream(broken, limit):
    images = load(broken, **limit)
    shown = [i for batch in take(images, 15) for i in numbers(batch)]
    whole = {i for i in range(30) if i not in (3, *range(10, 18))}
    assert set(shown) == whole and len(images.skipped) == 9
    counts = np.bincount(shown, minlength=30)
    assert counts.max() <= 4 * 4  # 9 broken in a row do not mean 10 times the next one


def test_stream_of_broken_files_alone_is_an_error_at_once(folder):
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of 30 files .* the first: .*png: an empty file"):
        load(folder).stream(4)


def test_permutations_of_a_large_set_are_cheap():
    images = ImageSet.from_array(np.zeros((200_000, 1, 1, 1), np.uint8))
    batches = iter(images.stream(64, first_step=10**6))
    assert next(batches).shape == (64, 1, 1, 1)


# folders


def test_sub_folder_names_are_labels_where_one_is_normal_or_good(tmp_path):
    fill(tmp_path, "Good/a.png", "broken_large/x/b.png", "tear/c.png")
    images = load(tmp_path, labelled=True)
    assert images.names == ("Good/a.png", "broken_large/x/b.png", "tear/c.png")
    assert images.labels.tolist() == [0, 1, 1]
    assert images.kinds == ("Good", "broken_large", "tear")
    assert load(tmp_path).labels is None and load(tmp_path).kinds is None


def test_folders_without_normal_or_good_are_unlabelled(tmp_path):
    fill(tmp_path, "x/a.png", "y/good/b.png", "c.png", "good.png")
    images = load(tmp_path, labelled=True)
    assert images.labels is None and images.kinds is None and len(images) == 4


def test_image_beside_labelled_sub_folders_is_an_error_that_names_it(tmp_path):
    fill(tmp_path, "normal/a.png", "stray.png")
    with pytest.raises(UserError, match="stray.png lies beside .* move it"):
        load(tmp_path, labelled=True)


def test_pattern_exclude_crop_and_range_reach_the_files(tmp_path):
    fill(tmp_path, "a.png", "b_x.png", "result/c_x.png")
    deep = np.full((40, 40), 4095, np.uint16)
    deep[:, :12] = deep[:, -12:] = 0
    Image.fromarray(deep).save(tmp_path / "d_x.png")
    found = find_images(tmp_path, Selection("*_x.png", excluded=(tmp_path / "result",)))
    images = image_folder(found, ImageForm(16, 16, 1, (16, 16), (0, 4095)))
    assert images.names == ("b_x.png", "d_x.png") and images.shape == (16, 16, 1)
    assert (images.read([1])[0] == 255).all()


def test_size_is_that_of_the_whole_file_or_of_the_array(tmp_path):
    Image.new("L", (50, 40)).save(fill(tmp_path, "a.png", "b.png") / "c.png")
    part = load(tmp_path, crop=(8, 8)).subset([1, 2])
    assert part.size(0) == (16, 20) and part.size(1) == (40, 50)
    assert ImageSet.from_array(np.zeros((2, 4, 6, 1), np.uint8)).size(1) == (4, 6)


def test_what_is_to_be_said_of_files_is_said_once_and_counted(tmp_path, caplog, limit):
    pages = {"save_all": True, "append_images": [Image.new("L", (20, 16))]}
    for i in range(3):
        path = tmp_path / f"{i}.tif"
        Image.fromarray(picture(i)).save(path, **({} if i == 1 else pages))
    images = load(tmp_path, **limit)
    for _ in range(2):
        assert numbers(images.subset([0, 1, 2]).read([0, 1, 2])[0]) == [0, 1, 2]
    [(text, names)] = images.warnings.items()
    assert "only the first is read" in text and sorted(names) == ["0.tif", "2.tif"]
    [line] = [r.getMessage() for r in caplog.records]
    assert line.endswith(text) and line.split(":")[0] in names and not images.skipped


def test_image_smaller_than_the_crop_is_skipped_with_its_size(folder):
    images = load(folder, crop=(17, 20))
    assert len(images.read([0])[0]) == 0
    assert "16 x 20 pixels, smaller than the crop of 17 x 20" in images.skipped[0][1]


def test_limit_takes_images_from_all_over_the_folder(folder):
    assert load(folder, limit=4).names == ("00.png", "09.png", "19.png", "29.png")
    assert len(load(folder, limit=99)) == len(load(folder, limit=0)) == 30


def test_names_can_be_printed_whatever_bytes_they_hold(tmp_path):
    fill(tmp_path, "ä.png")
    (tmp_path / "ä.png").rename(tmp_path / b"\xe4.png".decode(errors="surrogateescape"))
    assert load(tmp_path).names == ("\\xe4.png",)


def test_too_few_usable_images_are_an_error_that_says_how_many(broken):
    images = load(broken)
    require(images, 21, "training images")
    with pytest.raises(UserError, match="training images: 21 usable, at least 22 .*add images"):
        require(images, 22, "training images")
    with pytest.raises(UserError, match="none of 8 files .* the first: 10.png: not an image"):
        require(load(broken).subset(range(10, 18)), 1, "training images")


def test_enough_images_are_known_to_be_enough_without_decoding_all(folder, decoded):
    require(load(folder, memory_limit=0), 8, "training images")
    assert len(decoded) == 8


def test_available_lists_folders_that_hold_something(tmp_path):
    fill(tmp_path, "mnist/a.png", "celebA/deep/b.png", ".tmp/c.png", "loose.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half/.part").touch()
    assert available(tmp_path) == ["celebA", "mnist"]
    assert available(tmp_path / "missing") == []


# mnist


def idx(values):
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return header + values.astype(np.uint8).tobytes()


@pytest.fixture
def digits(tmp_path):
    """40 training and 20 test images; digit k mod 10 is a bar of that height, k its grey."""
    (tmp_path / "mnist").mkdir()
    for prefix, n in (("train", 40), ("t10k", 20)):
        images = np.zeros((n, 28, 28), np.uint8)
        for k in range(n):
            images[k, : k % 10 + 1] = k + 100
        (tmp_path / f"mnist/{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (tmp_path / f"mnist/{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(n) % 10))
    return tmp_path


def test_mnist_trains_on_the_normal_digit_and_tests_on_all(digits):
    train = mnist(digits, "train", normal_class=3)
    assert train.names == ("train/00003", "train/00013", "train/00023", "train/00033")
    assert train.shape == (28, 28, 1) and set(train.kinds) == {"3"}
    assert numbers(train.read([0, 1, 2, 3])[0]) == [103, 113, 123, 133]
    test = mnist(digits, "test", normal_class=3)
    assert len(test) == 20 and test.names[17] == "test/00017" and test.kinds[17] == "7"
    assert test.labels.tolist() == [int(i % 10 != 3) for i in range(20)]


def test_mnist_anomaly_class_is_the_other_way_round(digits):
    train = mnist(digits, "train", anomaly_class=3)
    assert len(train) == 36 and "3" not in train.kinds
    test = mnist(digits, "test", anomaly_class=3)
    assert test.labels.tolist() == [int(i % 10 == 3) for i in range(20)]


def test_mnist_without_a_class_is_all_digits_unlabelled(digits):
    for split, n in (("train", 40), ("test", 20)):
        images = mnist(digits, split)
        assert len(images) == n and images.labels is None and len(set(images.kinds)) == 10


def test_mnist_may_be_gzipped_resized_and_limited(digits):
    whole = mnist(digits, "test", normal_class=1)
    for path in (digits / "mnist").iterdir():
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert (mnist(digits, "test").read([5])[0] == whole.read([5])[0]).all()
    small = mnist(digits, "test", normal_class=1, height=14, width=20, limit=3)
    assert small.names == ("test/00000", "test/00009", "test/00019")
    assert small.shape == (14, 20, 1) and small.labels.tolist() == [1, 1, 1]
    assert 40 < small.read([0])[0][0, 0].mean() < 60  # the edge of the bar, halved


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"<html>"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\0\0\x0b" + path.read_bytes()[3:]),
        lambda path: path.rename(path.with_name(path.name + ".gz")),
    ],
)
@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_missing_or_damaged_mnist_says_how_to_fetch_it(digits, spoil, name):
    spoil(digits / "mnist" / name)
    with pytest.raises(UserError, match=rf"{name}.*: python download.py mnist --data_dir {digits}"):
        mnist(digits, "test")


def test_mnist_labels_of_another_file_are_an_error(digits):
    (digits / "mnist/t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(19)))
    with pytest.raises(UserError, match="20 images but 19 labels: .* download.py mnist"):
        mnist(digits, "test")


def test_mnist_bomb_or_endless_file_is_damaged_and_not_read_to_its_end(digits):
    path = digits / "mnist/t10k-images-idx3-ubyte"
    with gzip.open(path.with_name(path.name + ".gz"), "wb", 1) as file:
        for _ in range(100):
            file.write(bytes(10**6))
    path.rename(digits / "kept")
    with pytest.raises(UserError, match="damaged or cut short"):
        mnist(digits, "test")
    os.truncate(digits / "kept", 1 << 40)  # of holes
    (digits / "kept").rename(path)
    with pytest.raises(UserError, match="damaged or cut short"):
        mnist(digits, "test")


@pytest.mark.parametrize("sizes", [(0, 28, 28), (20, 0, 28), (2**32 - 1, 2**32 - 1, 2**32 - 1)])
def test_mnist_sizes_that_cannot_be_are_damage(digits, sizes):
    path = digits / "mnist/t10k-images-idx3-ubyte"
    content = path.read_bytes() if sizes[0] > 99 else bytes(16)
    path.write_bytes(bytes([0, 0, 8, 3]) + np.array(sizes, ">u4").tobytes() + content[16:])
    with pytest.raises(UserError, match="damaged or cut short"):
        mnist(digits, "test")


def test_mnist_label_that_is_no_digit_is_damage(digits):
    (digits / "mnist/t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(20)))
    with pytest.raises(UserError, match="names a digit 19: .* download.py mnist"):
        mnist(digits, "test")

"""data/ and test_data/ are in git with a README.md each, which is no part of any data set."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from anogan.data.folders import find_images, image_folder
from anogan.data.listing import available
from anogan.errors import UserError
from anogan.image_form import ImageForm
from utils import save_image

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent


@pytest.fixture(params=["data", "test_data"])
def folder(request, tmp_path):
    """The folder as a fresh clone has it."""
    (tmp_path / request.param).mkdir()
    shutil.copy(ROOT / request.param / "README.md", tmp_path / request.param)
    return tmp_path / request.param


def test_folder_with_only_its_readme_holds_no_image(folder):
    with pytest.raises(UserError, match="holds no image: put images there"):
        find_images(folder)


def test_readme_is_neither_an_image_nor_unlabelled(folder):
    for name in ("good/a.png", "scratched/b.png"):
        (folder / name).parent.mkdir()
        save_image(folder / name, np.zeros((16, 16), np.uint8))
    images = image_folder(find_images(folder), ImageForm(16, 16, 1), labelled=True)
    assert images.names == ("good/a.png", "scratched/b.png")
    assert list(images.labels) == [0, 1]


def test_readme_is_no_data_set(folder):
    (folder / "parts").mkdir()
    (folder / "parts/a.png").touch()
    assert available(folder) == ["parts"]

"""Shared by all tests: real digits that scikit-learn ships, and one small trained model."""

import os
import shutil

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"  # as anogan sets it, here before TensorFlow
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"  # the nets are small, and pytest's workers several

import numpy as np
import pytest
from commands import NETS, save, without_graphs
from filelock import FileLock
from PIL import Image

SIDE = 16
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def eager():
    """TensorFlow without graphs: where few steps are trained, most of the time goes into them."""
    with without_graphs():
        yield


@pytest.fixture
def no_drawings(monkeypatch):
    """Scoring without large pictures and plots, which take as long as all else of a few images."""
    from anogan.report import plots, showing

    monkeypatch.setattr(showing, "panels", lambda *_: None)
    monkeypatch.setattr(plots, "write", lambda *_: {})


def made_once(tmp_path_factory, name, make):
    """A folder of this worker's own, a copy of what the first worker to ask for it has made."""
    base = tmp_path_factory.getbasetemp()
    made = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"made_{name}"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            make(folder := tmp_path_factory.mktemp(name))
            folder.rename(made)
    return shutil.copytree(made, base / name)


@pytest.fixture(scope="session")
def digits():
    """1,797 scanned digits, uint8 (n, 16, 16, 1), and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    small = (data.images * 255 / 16).astype(np.uint8)
    images = [np.asarray(Image.fromarray(i).resize((SIDE, SIDE))) for i in small]
    return np.stack(images)[..., None], data.target


@pytest.fixture(scope="session")
def zeros(digits):
    images, labels = digits
    return images[labels == 0]


@pytest.fixture(scope="session")
def small():
    """Settings of a net that trains in seconds."""
    return {
        "height": SIDE,
        "width": SIDE,
        "channels": 1,
        "z_dim": 8,
        "gf_dim": 8,
        "df_dim": 8,
        "batch_size": 16,
        "steps": 600,
    }


@pytest.fixture(scope="session")
def trained_folder(zeros, small, tmp_path_factory):
    """The folder of a model trained on zeros (the last 50 left out for tests)."""
    from anogan.config import preset
    from model import DCGAN

    def train(place):
        folder = place / "zeros"
        model = DCGAN(preset("default", dataset="zeros", **small))
        model.train(zeros[:-50], folder, folder / "samples", folder / "logs", progress=False)
        model.keep_calibration()

    return made_once(tmp_path_factory, "trained", train) / "zeros"


@pytest.fixture(scope="session")
def trained(trained_folder):
    from model import DCGAN

    return DCGAN.load(trained_folder)


@pytest.fixture(scope="session")
def queries(digits, zeros):
    """40 unseen zeros and 40 other digits, and labels 0 and 1."""
    images, labels = digits
    others = images[labels != 0][::40][:40]
    return np.concatenate([zeros[-40:], others]), np.repeat([0, 1], 40)


@pytest.fixture
def here(tmp_path, monkeypatch, zeros, digits):
    """A working folder with data/zeros and labelled images in test_data."""
    monkeypatch.chdir(tmp_path)
    for i, image in enumerate(zeros[:60]):
        save(tmp_path / "data" / "zeros" / f"{i:03d}.png", image)
    others = digits[0][digits[1] == 1]
    for i in range(6):
        save(tmp_path / "test_data" / "normal" / f"{i}.png", zeros[-1 - i])
        save(tmp_path / "test_data" / "ones" / f"{i}.png", others[i])
    return tmp_path


@pytest.fixture(scope="session")
def first_run(tmp_path_factory, zeros):
    """A folder in which a run was trained by command, for a few steps, and is calibrated."""
    import main
    from model import DCGAN

    def train(folder):
        for i, image in enumerate(zeros[:60]):
            save(folder / "data" / "zeros" / f"{i:03d}.png", image)
        with pytest.MonkeyPatch.context() as patched:
            patched.chdir(folder)
            assert main.main(["--dataset", "zeros", "--train", "--epoch", "2", *NETS]) == 0
            DCGAN.load("checkpoints/zeros").keep_calibration()

    return made_once(tmp_path_factory, "first_run", train)


@pytest.fixture
def run(here, first_run):
    """The trained run, copied to `here`."""
    for name in ("checkpoints", "samples", "logs"):
        shutil.copytree(first_run / name, here / name)
    return here


@pytest.fixture
def bottle(run, zeros, digits):
    """data/bottle in the layout of MVTec AD; its run is that of the zeros."""
    others, root = digits[0][digits[1] == 1], run / "data" / "bottle"
    for i, image in enumerate(zeros[:60]):
        save(root / "train" / "good" / f"{i:03d}.png", image)
    for i in range(5):
        save(root / "test" / "good" / f"{i:03d}.png", zeros[-1 - i])
        save(root / "test" / "crack" / f"{i:03d}.png", others[i])
        mask = np.zeros((16, 16), np.uint8)
        mask[4:12, 6:10] = 255
        save(root / "ground_truth" / "crack" / f"{i:03d}_mask.png", mask)
    return root


@pytest.fixture
def server(monkeypatch):
    """A local HTTP server, see misbehaving.py; retries come at once."""
    import threading

    from misbehaving import Server

    from anogan.datasets import fetch

    monkeypatch.setattr(fetch, "BACKOFF", 0.001)
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def chromium():
    """A real browser without a window, new for each module, and with its logs."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not (browser and driver):
        reason = "NO PAGE IS TESTED: there is no Chromium with chromedriver here"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(f"{reason}; on Debian: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--window-size=1280,900",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()

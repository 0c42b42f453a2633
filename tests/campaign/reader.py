"""Reads the files in a folder, as images or as masks, and says what of it went wrong.

python reader.py images|masks FOLDER: a line of JSON for each file, [name, what went wrong].
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from anogan.data.probing import find_range, probe
from anogan.errors import UserError
from utils import image_size, load_image, read_mask

SLOWEST, LARGEST = 5.0, 512  # seconds and MiB
WAYS = {
    "images": (
        lambda path: load_image(path, 16, 16, 3),
        lambda path: load_image(path, 16, 16, 1, (20, 20), (0.0, 255.0)),
        lambda path: load_image(path, *image_size(path), 3),
        lambda path: probe([path]),
        lambda path: find_range([path]) if probe([path])[1] else None,
    ),
    "masks": (read_mask, image_size),
}


def memory(what):
    """MiB of this process: VmRSS now, VmHWM at most since the last call of forget."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    raise AssertionError(what)


def forget():
    Path("/proc/self/clear_refs").write_text("5")


def wrong(path, ways):
    found = []
    for number, way in enumerate(ways):
        forget()
        before, start = memory("VmRSS"), time.process_time()
        try:
            way(path)
        except UserError as error:
            if not str(error).isprintable():
                found.append(f"way {number}: not one line: {error!r}")
        except BaseException as error:
            found.append(f"way {number}: {type(error).__name__}: {error}")
        if (taken := time.process_time() - start) > SLOWEST:
            found.append(f"way {number}: {taken:.0f} s")
        if (used := memory("VmHWM") - before) > LARGEST:
            found.append(f"way {number}: {used:.0f} MiB")
    return found


if __name__ == "__main__":
    kind, folder = sys.argv[1:]
    for path in sorted(Path(folder).iterdir()):
        print(json.dumps([path.name, wrong(str(path), WAYS[kind])]), flush=True)

"""No archive, however made, writes outside its folder."""

import tarfile
import zipfile

import pytest
from misbehaving import files_under, make_tgz, make_zip

from anogan.fetch import DownloadError
from anogan.unpack import unpack

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("make", [make_zip, make_tgz])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:/evil"])
def test_member_outside_the_folder_is_refused(tmp_path, make, name):
    archive = make(tmp_path / "a", {"good.txt": b"good", name: b"evil"})
    with pytest.raises(DownloadError, match="not safe"):
        unpack(archive, tmp_path / "in" / "out")
    assert files_under(tmp_path) == ["a"]


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(link, "/etc/passwd")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    for name in ("a.zip", "a.tar"):
        with pytest.raises(DownloadError, match="not safe"):
            unpack(tmp_path / name, tmp_path / "out")
    assert files_under(tmp_path) == ["a.tar", "a.zip"]

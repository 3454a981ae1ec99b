"""File errors: full disks and forbidden folders have plain messages, other errors pass through."""

import errno
import os

import pytest

from mechxai.core.errors import ArtifactError, ConfigError, NoSpaceError
from mechxai.core.files import atomic_write, disk_error, make_writable_folder


def of_system(number, name="result.nc"):
    return OSError(number, os.strerror(number), name)


def caused(kind, own):
    try:
        raise kind("own words") from own
    except kind as error:
        return error


def met(kind, own):
    """An error raised while another one was handled."""
    try:
        try:
            raise own
        except OSError:
            raise kind("own words")  # noqa: B904 - this is what is tried
    except kind as error:
        return error


def test_full_and_read_only_disks_have_plain_messages():
    full = disk_error(of_system(errno.ENOSPC))
    assert isinstance(full, NoSpaceError)
    assert "Cannot write result.nc: the disk is full" in str(full)
    assert isinstance(disk_error(caused(RuntimeError, of_system(errno.ENOSPC))), NoSpaceError)
    closed = disk_error(of_system(errno.EROFS))
    assert type(closed) is ArtifactError
    assert "Read-only" in str(closed)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a"),
        of_system(errno.ENOENT),
        OSError("no number"),
        OSError(errno.EACCES, "of a socket"),
        ArtifactError("a file was asked"),
        met(KeyError, of_system(errno.EACCES)),
    ],
)
def test_other_errors_pass_through(error):
    assert disk_error(error) is None


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    make_writable_folder(tmp_path / "a/b", setting="output=a/b")
    assert (tmp_path / "a/b").is_dir()
    (tmp_path / "taken").write_text("a file")
    for name in ("taken", "taken/below"):
        with pytest.raises(ConfigError, match=f"output={name} cannot be created"):
            make_writable_folder(tmp_path / name, setting=f"output={name}")


@pytest.mark.parametrize(
    "text", ["I/O error: No space left on device (os error 28)", "write failed: errno = 28, error"]
)
def test_a_full_disk_in_a_librarys_own_words_is_a_full_disk(tmp_path, text):
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(tmp_path / "file"):
        raise RuntimeError(text)
    assert caught.value.errno == errno.ENOSPC
    assert isinstance(disk_error(caught.value), NoSpaceError)
    assert not list(tmp_path.iterdir())

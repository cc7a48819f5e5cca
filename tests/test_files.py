"""Files: whole or not at all, equal bytes for equal data, and errors of the right class for broken ones."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_app.errors import BadInputError, CannotCreateError, MissingInputError, WriteFailedError
from bids_app.files import atomic, formats

AFFINE = np.array([[-2.0, 0, 0, 30], [0, 0, 3, -20], [0, 4, 0, 10], [0, 0, 0, 1]])


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# -- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path: Path, stop: type[BaseException]) -> None:
    path = tmp_path / "new" / "a.txt"
    for old in (None, "old"):
        if old:
            formats.write_text(path, old)
        with pytest.raises(WriteFailedError if stop is OSError else stop), atomic.atomic(path) as temporary:
            temporary.write_text("half")
            assert temporary.parent == path.parent  # else the move is no move
            raise stop
        assert everything(tmp_path) == ([path.name] if old else [])
    assert path.read_text() == "old"


def test_where_no_folder_can_be_it_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotCreateError, match="file"):
        formats.write_text(tmp_path / "file" / "a.txt", "x")
    with pytest.raises(CannotCreateError):
        atomic.make_folder(tmp_path / "file" / "folder")


def test_files_get_the_rights_any_new_file_has(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    formats.write_text(tmp_path / "written", "x")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_images_come_back_and_equal_data_are_equal_bytes(tmp_path: Path, kind: type) -> None:
    drawn = np.random.default_rng(0).uniform(0, 200, (5, 6, 7))
    data = drawn > 100 if kind is bool else drawn.astype(kind)
    one, two = tmp_path / "one.nii.gz", tmp_path / "two.nii.gz"
    formats.write_nifti(one, data, AFFINE)
    formats.write_nifti(two, np.asfortranarray(data), AFFINE.copy())
    assert one.read_bytes() == two.read_bytes()
    back, affine = formats.read_nifti(one)
    assert np.array_equal(back, data)
    assert back.dtype == (np.uint8 if kind is bool else kind)
    assert np.array_equal(affine, AFFINE)
    assert one.read_bytes()[4:8] == bytes(4)  # gzip's time stamp, RFC 1952
    header = formats.open_nifti(one).header
    assert header.get_xyzt_units()[0] == "mm"
    assert int(header["sform_code"]) > 0


def test_json_knows_numpy_and_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    content = {"b": np.float32(0.5), "a": [np.int64(3), math.nan, math.inf], "c": Path("x"), "d": np.eye(2), "é": (1,)}
    formats.write_json(path, content)
    assert list(formats.read_json(path)) == list(content)
    expected = {"b": 0.5, "a": [3, None, None], "c": "x", "d": [[1.0, 0.0], [0.0, 1.0]], "é": [1]}
    assert json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail) == expected


def test_tables_round_trip(tmp_path: Path) -> None:
    table = pd.DataFrame({"participant_id": ["sub-01", "sub-NA"], "age": [31.25, None], "note": ['a "b"', None]})
    formats.write_tsv(tmp_path / "a.tsv", table)
    assert b"n/a" in (tmp_path / "a.tsv").read_bytes()
    back = formats.read_tsv(tmp_path / "a.tsv", required=("participant_id", "age"))
    assert list(back.columns) == list(table.columns)
    assert back["participant_id"].tolist() == ["sub-01", "sub-NA"]
    assert back["age"].astype(float).tolist()[0] == 31.25
    assert back["age"].isna().tolist() == [False, True]


# -- reading tables ------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_excel_leaves_marks_and_line_ends(tmp_path: Path, mark: bytes, end: bytes) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(mark + end.join([b"participant_id\tsex", b"sub-01\tn/a", "sub-02\té".encode(), b""]))
    table = formats.read_tsv(path, required=("participant_id",))
    assert table.to_dict("list")["participant_id"] == ["sub-01", "sub-02"]
    assert table["sex"].isna().tolist() == [True, False]
    assert table["sex"][1] == "é"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("participant_id\tsex\nsub-01\té\n".encode("latin-1"), "UTF-8"),
        ("participant_id\nsub-01\n".encode("utf-16"), "UTF-8"),
        (b"participant_id,sex\nsub-01,F\n", "participant_id,sex"),
        (b"name\tsex\nsub-01\tF\n", "column participant_id is missing"),
        (b"participant_id\nsub-01\nsub-02\tF\tM\n", "tabs"),
        (b"", "tabs"),
    ],
)
def test_broken_tables_are_bad_input(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "participants.tsv"
    path.write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        formats.read_tsv(path, required=("participant_id",))
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# -- reading JSON --------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1,}', b"[1]", b'"a"', b"null", b'{"a": "\xe9"}', b"[" * 99999])
def test_broken_json_is_bad_input(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match="correct the file"):
        formats.read_json(path)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans() | st.none()))
def test_json_round_trips(tmp_path_factory: pytest.TempPathFactory, content: dict) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.json"
    formats.write_json(path, content)
    assert formats.read_json(path) == content


# -- reading images ------------------------------------------------------------------------------


def a_scan(path: Path) -> Path:
    formats.write_nifti(path, np.random.default_rng(0).integers(0, 900, (40, 40, 20)).astype(np.int16), AFFINE)
    return path


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_image_is_bad_input(tmp_path: Path, share: float) -> None:
    path = a_scan(tmp_path / "a.nii.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BadInputError, match=r"again") as caught:
        formats.read_nifti(path)
    assert "\n" not in str(caught.value)


def test_an_image_that_is_none_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    for content in (b"not an image at all" * 100, b"\x1f\x8b" + bytes(400)):
        path.write_bytes(content)
        with pytest.raises(BadInputError, match="again"):
            formats.read_nifti(path)


def test_an_uncompressed_image_cut_short_is_bad_input(tmp_path: Path) -> None:
    data, affine = formats.read_nifti(a_scan(tmp_path / "a.nii.gz"))
    path = tmp_path / "b.nii"
    path.write_bytes(nib.Nifti1Image(data, affine).to_bytes()[:-1000])
    with pytest.raises(BadInputError, match="copy the file again"):
        formats.read_nifti(path)


def test_missing_images_and_dangling_links(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError) as plain:
        formats.read_nifti(tmp_path / "a.nii.gz")
    assert "datalad" not in str(plain.value)
    (tmp_path / "b.nii.gz").symlink_to(tmp_path / ".git" / "annex" / "objects" / "b.nii.gz")
    with pytest.raises(MissingInputError, match="datalad get"):
        formats.open_nifti(tmp_path / "b.nii.gz")
    for read in (formats.read_json, formats.read_tsv):
        with pytest.raises(MissingInputError, match="no such file"):
            read(tmp_path / "absent")


def test_errors_are_one_line_and_cross_processes() -> None:
    error = BadInputError("two\nlines", "where", "do this")
    assert str(error) == "where: two lines; do this"
    twin = copy.copy(error)  # by __reduce__, as between processes
    assert (str(twin), type(twin)) == (str(error), type(error))

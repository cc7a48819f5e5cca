"""A stored model decides as the one that was saved, and nothing else is ever loaded."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from bids_app import arrayfile, classifier, files, modelfile
from bids_app.atlas import brain_grid
from bids_app.errors import BadInputError, MissingInputError
from bids_app.records import Model, StoredModel, Threshold

V = int(brain_grid(3).data.sum())
VOXELS = np.random.default_rng(9).permutation(V)[:13]
C, GAMMA = 2.0, 0.25


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    positive = np.arange(60) % 3 > 0
    lesions = np.zeros((60, V), bool)
    lesions[:, VOXELS] = rng.random((60, len(VOXELS))) < np.where(positive, 0.5, 0.2)[:, None]
    return lesions, positive


def save(folder: Path, **more: object) -> tuple[Model, StoredModel]:
    lesions, positive = data()
    model = classifier.fit(lesions, positive, VOXELS, C=C, gamma=GAMMA)
    settings: dict = {
        "levels": ("RRMS", "NMOSD"),
        "threshold": Threshold(0.3306, "training", 0.0261, 0.1199, 60),
        "lesion_map": "published",
        "protocol": "leakage-free",
        "training": {"n_scans": 60, "lesion_volume_ml_range": np.array([0.0, np.nan])},
        "train_lesions": lesions[:, VOXELS],
    }
    return model, modelfile.save(model, folder, **{**settings, **more})


def hand_parsed(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return the decision function of a LIBSVM text file for features 1 to n, read by its documentation."""
    head, _, body = path.read_text().partition("\nSV\n")
    words = {line.split()[0]: line.split()[1:] for line in head.splitlines()}
    assert words["svm_type"] == ["c_svc"] and words["kernel_type"] == ["rbf"] and words["label"] == ["1", "-1"]
    rows = [line.split() for line in body.splitlines()]
    coef = np.array([float(row[0]) for row in rows])
    support = np.zeros((len(rows), len(VOXELS)))
    for i, row in enumerate(rows):
        for item in row[1:]:
            index, value = item.split(":")
            support[i, int(index) - 1] = float(value)
    first, second = map(int, words["nr_sv"])
    assert len(rows) == int(words["total_sv"][0]) == first + second
    assert (coef[:first] > 0).all() and (coef[first:] < 0).all()
    gamma, rho = float(words["gamma"][0]), float(words["rho"][0])

    def decide(x: np.ndarray) -> np.ndarray:
        squared = ((x[:, None, :] - support[None]) ** 2).sum(axis=2)
        return np.exp(-gamma * squared) @ coef - rho

    return decide


def test_the_loaded_model_decides_as_the_saved_one_sklearn_and_libsvm_text(tmp_path: Path) -> None:
    lesions, positive = data()
    svc = SVC(C=C, gamma=GAMMA).fit(lesions[:, VOXELS].astype(float), positive)
    support = svc.support_vectors_.astype(bool)
    own = Model(VOXELS, support, svc.dual_coef_[0], float(svc.intercept_[0]), C, GAMMA)
    modelfile.save(
        own,
        tmp_path,
        levels=("RRMS", "NMOSD"),
        threshold=Threshold(0.32, "given"),
        lesion_map="cleaned",
        protocol="published",
        training={},
        train_lesions=lesions[:, VOXELS],
    )
    stored = modelfile.load(tmp_path)
    new = np.zeros((40, V), bool)
    new[:, VOXELS] = np.random.default_rng(4).random((40, len(VOXELS))) < 0.4
    for maps in (lesions, new):
        chosen = maps[:, VOXELS].astype(float)
        decisions = classifier.decide(stored.model, maps)
        for other in (
            classifier.decide(own, maps),
            svc.decision_function(chosen),
            hand_parsed(tmp_path / "model.libsvm")(chosen),
        ):
            np.testing.assert_allclose(decisions, other, rtol=0, atol=1e-9)


def test_all_that_was_saved_is_loaded(tmp_path: Path) -> None:
    lesions, _ = data()
    model, saved = save(tmp_path)
    stored = modelfile.load(tmp_path)
    for name in ("voxels", "support", "dual_coef"):
        np.testing.assert_array_equal(getattr(stored.model, name), getattr(model, name))
    assert (stored.model.C, stored.model.gamma, stored.model.intercept) == (C, GAMMA, model.intercept)
    assert stored.threshold == Threshold(0.3306, "training", 0.0261, 0.1199, 60)
    assert (stored.levels, stored.lesion_map, stored.protocol) == (("RRMS", "NMOSD"), "published", "leakage-free")
    assert stored.digest == saved.digest
    np.testing.assert_array_equal(stored.patterns, np.unique(lesions[:, VOXELS], axis=0))


def test_what_is_known_of_the_training_scans(tmp_path: Path) -> None:
    lesions, _ = data()
    model, stored = save(tmp_path)
    decisions = classifier.decide(model, lesions)
    chosen = lesions[:, VOXELS]
    distances = [(chosen[i] != np.delete(chosen, i, axis=0)).sum(axis=1).min() for i in range(len(chosen))]
    assert stored.training["n_scans"] == 60
    assert stored.training["decision_range"] == pytest.approx([decisions.min(), decisions.max()], abs=1e-12)
    assert stored.training["nearest_distance_max"] == max(distances)
    assert stored.training["nearest_distance_quantiles"] == list(np.quantile(distances, modelfile.QUANTILES))
    np.testing.assert_array_equal(modelfile.nearest(chosen, stored.patterns), 0)
    one = modelfile.nearest(~chosen[:1], stored.patterns)
    assert one[0] == (~chosen[:1] != chosen).sum(axis=1).min()
    with pytest.raises(BadInputError, match="training maps are"):
        save(tmp_path, train_lesions=lesions)


def test_equal_models_are_equal_bytes_and_the_mask_shows_the_voxels(tmp_path: Path) -> None:
    _, first = save(tmp_path / "a")
    _, second = save(tmp_path / "b")
    assert first.digest == second.digest
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(["model.json", "model.skops", "model.libsvm", modelfile.MASK])
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    image = nib.load(tmp_path / "a" / modelfile.MASK)
    inside = np.asarray(image.dataobj)[brain_grid(3).data]
    assert np.flatnonzero(inside).tolist() == sorted(VOXELS.tolist())
    _, other = save(tmp_path / "c", protocol="published")
    assert other.digest != first.digest


def test_arrays_survive_and_skops_itself_reads_them() -> None:
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.zeros((0, 4), np.uint8), "c": np.array([np.pi])}
    loaded = skops.io.loads(arrayfile.pack(arrays), trusted=[])
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype


def change(folder: Path, *keys: str, to: object) -> None:
    """Change one field of model.json."""
    content = json.loads((folder / "model.json").read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    (folder / "model.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("format_version",), 2, "format_version is 2, not 1"),
        (("bids_app",), "9.1.0", r"made by bids_app 9\.1\.0"),
        (("threshold_rule",), "belief >= threshold", "threshold_rule"),
        (("grid", "shape"), [91, 109, 91], r"another grid \(shape\)"),
        (("grid", "brain_sha256"), "0", r"another grid \(brain_sha256\)"),
        (("grid", "brain_voxels"), 10, r"another grid \(brain_voxels\)"),
        (("gamma",), 0.5, r"model\.skops: disagrees"),
        (("C",), 1.0, r"model\.skops: disagrees"),
        (("intercept",), 0.0, r"model\.skops: disagrees"),
        (("n_support",), 1, r"model\.skops: disagrees"),
        (("voxels",), sorted(VOXELS.tolist()), r"model\.skops: disagrees"),
        (("voxels",), [*VOXELS.tolist()[:-1], 0], "selected_mask.*disagrees with the voxels"),
        (("voxels",), [*VOXELS.tolist()[:-1], V], "voxels must be whole numbers"),
        (("voxels",), [*VOXELS.tolist()[:-1], int(VOXELS[0])], "different ones"),
        (("voxels",), "all", "voxels must be|wrong kind"),
        (("voxels",), [[1], 2], "wrong kind"),
        (("levels", "positive"), "NMOSD", r"changed after it was written \(digest\)"),
        (("threshold", "value"), 0.1, r"changed after it was written \(digest\)"),
        (("training", "decision_range"), [-9, 9], r"changed after it was written \(digest\)"),
        (("sha256",), {}, r"changed after it was written \(digest\)"),
        (("sha256", "../model.json"), "0", r"changed after it was written \(SHA-256\)"),
        (("threshold",), None, "digest|wrong kind"),
        (("grid",), None, "wrong kind"),
    ],
)
def test_a_changed_json_is_refused_by_name(tmp_path: Path, keys: tuple[str, ...], value: object, message: str) -> None:
    save(tmp_path)
    change(tmp_path, *keys, to=value)
    with pytest.raises(BadInputError, match=message):
        modelfile.load(tmp_path)


@pytest.mark.parametrize("name", ["model.json", "model.skops", modelfile.MASK, "model.libsvm"])
def test_truncated_changed_and_missing_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:-3], b"", whole[:20] + b"\xff" + whole[21:]):
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(BadInputError, match=name.replace(".", r"\.")):
            modelfile.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(MissingInputError, match=name.replace(".", r"\.")):
        modelfile.load(tmp_path)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def lying_array() -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    return stream.getvalue() + bytes(64)


def node(**fields: object) -> bytes:
    return json.dumps({"protocol": 2, "_skops_version": "0", **fields}).encode()


def foreign_files() -> dict[str, tuple[bytes, str]]:
    """Return skops files that must not be loaded, and what their refusal says."""
    good = members_of(arrayfile.pack({"voxels": np.arange(3)}))
    function = {"__class__": "system", "__module__": "posix", "__loader__": "FunctionNode", "content": "posix.system"}
    reduce = {"__class__": "dict", "__module__": "builtins", "__loader__": "ReduceNode", "content": {}}
    nested = json.loads(good["schema.json"])
    nested["content"]["voxels"] = {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode",
                                   "type": "json", "shape": {}, "content": []}  # fmt: skip
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    return {
        "estimator": (skops.io.dumps(SVC()), r"foreign type \(sklearn\.svm\._classes\.SVC"),
        "other estimator": (skops.io.dumps({"voxels": LogisticRegression()}), "foreign type .sklearn"),
        "object array": (skops.io.dumps({"voxels": np.array([{}], object)}), "foreign type"),
        "function": (zipped({"schema.json": node(**function)}), r"foreign type \(posix\.system, FunctionNode"),
        "another loader": (zipped({"schema.json": node(**reduce)}), r"foreign type \(builtins\.dict, ReduceNode"),
        "array of objects": (zipped({**good, "schema.json": json.dumps(nested).encode()}), "foreign type"),
        "list": (skops.io.dumps([1, 2]), "foreign type|no dictionary"),
        "other arrays": (arrayfile.pack({"voxels": np.arange(3)}), "arrays are voxels, not"),
        "bomb": (zipped({**good, "voxels.npy": bytes(10**7)}, zipfile.ZIP_DEFLATED), "more than 100 times its size"),
        "lie": (zipped({**good, "voxels.npy": lying_array()}), r"voxels\.npy claims"),
        "no schema": (zipped({"voxels.npy": good["voxels.npy"]}), "not a readable skops file"),
        "deep schema": (zipped({"schema.json": deep}), "not a readable skops file"),
        "pickle": (b"\x80\x04cposix\nsystem\n.", "not a readable skops file"),
    }


@pytest.mark.parametrize("case", foreign_files())
def test_foreign_types_bombs_and_lies_are_refused(tmp_path: Path, case: str) -> None:
    save(tmp_path)
    content, message = foreign_files()[case]
    (tmp_path / "model.skops").write_bytes(content)
    with pytest.raises(BadInputError, match=rf"model\.skops.*{message}"):
        modelfile.load(tmp_path)


def test_a_huge_zip_is_refused_by_its_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrayfile, "MOST_BYTES", 2000)
    files.write_bytes(tmp_path / "m.skops", zipped({"a.npy": bytes(range(256)) * 20}, zipfile.ZIP_DEFLATED))
    with pytest.raises(BadInputError, match="unpacks to"):
        arrayfile.unpack(tmp_path / "m.skops")


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    save(tmp_path)
    path = tmp_path / "model.skops"
    arrays = arrayfile.unpack(path)
    for changed in (
        {"support": arrays["support"][1:]},
        {"patterns": arrays["patterns"][:, :1]},
        {"dual_coef": arrays["dual_coef"].astype(np.float32)},
        {"dual_coef": arrays["dual_coef"] * np.nan},
        {"voxels": arrays["voxels"][1:]},
        {"parameters": arrays["parameters"][:2]},
    ):
        path.write_bytes(arrayfile.pack({**arrays, **changed}))
        with pytest.raises(BadInputError, match=r"model\.skops"):
            modelfile.load(tmp_path)

"""Folders of images, and data that move: what is skipped, what is named, and what makes data the same."""

import dataclasses
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from percept_jax import load, train
from percept_jax.cli.main import main
from percept_jax.data import cache, registry
from percept_jax.data.readers.base import ReaderConfig
from percept_jax.errors import DataError, StorageError, UsageError
from percept_jax.training.run_dir import identity


def make(root, classes=("a", "b"), count=10):
    """A folder of small gray images, of the class that their shade tells."""
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            Image.new("L", (4, 4), n + 100 * k).save(root / name / f"{n}.png", compress_level=0)
    return root


def some_data(kind, root):
    """The name of a small data set of this kind below a folder."""
    root.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        return f"folder:{make(root / 'set')}"
    rng = np.random.default_rng(0)
    if kind == "npz":
        arrays = {f"x_{s}": rng.normal(size=(20, 3, 2)).astype(np.float32) for s in ("train", "validation", "test")}
        np.savez(root / "set", **arrays, **{f"y_{s}": np.arange(20) % 2 for s in ("train", "validation", "test")})
    elif kind == "tagged":
        sentence = [["the", "D"], ["dog", "N"], ["ran", "V"]]
        (root / "set.tagged").write_text(json.dumps({s: [sentence] * 9 for s in ("train", "validation", "test")}))
    else:
        (root / "set.text").write_text("to be or not to be, that is the question. " * 20)
    return f"{kind}:{root / 'set'}.{kind}"


def change(name):
    """One byte of the data."""
    path = name.partition(":")[2]
    path = os.path.join(path, "a", "3.png") if name.startswith("folder:") else path
    with open(path, "r+b") as file:
        first = file.read()
        file.seek(len(first) // 2)
        file.write(bytes([first[len(first) // 2] ^ 1]))


KINDS = ["folder", "npz", "tagged", "text"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_content_of_data_makes_their_checksum(kind, tmp_path):
    name = some_data(kind, tmp_path / "here")
    digits = registry.fingerprint(name, tmp_path)
    assert len(digits) == 16
    assert int(digits, 16) >= 0
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    (tmp_path / "link").symlink_to(tmp_path / "here")
    for place in ("there", "link", "here/../link"):
        moved = name.replace("/here/", f"/{place}/")
        assert registry.fingerprint(moved, tmp_path) == digits
        assert registry.identified(f"{moved}#{digits}", tmp_path) == f"{moved}#{digits}"
    assert registry.identified(name, tmp_path) == f"{name}#{digits}"
    change(name)
    assert registry.fingerprint(name, tmp_path) != digits
    with pytest.raises(UsageError, match=f"--dataset: .*other data than expected: .*not {digits}"):
        registry.identified(f"{name}#{digits}", tmp_path)
    gone = name.replace("/here/", "/gone/")
    assert registry.identified(f"{gone}#{digits}", tmp_path) == f"{gone}#{digits}"
    for call in (registry.identified, registry.fingerprint):
        with pytest.raises(UsageError, match="--dataset: there is no"):
            call(gone, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_with_a_checksum_is_the_name(kind, tmp_path, monkeypatch):
    name = some_data(kind, tmp_path / "here")
    known = registry.identified(name, tmp_path)
    assert registry.plain(known) == name
    assert registry.short_name(known) == registry.short_name(name) == "set"
    assert registry.is_prepared(known, tmp_path)
    assert registry.describe(known, tmp_path) == registry.describe(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    relative = f"{kind}:{name.partition(str(tmp_path) + '/')[2]}"
    assert registry.located(relative + "#0123456789abcdef", tmp_path / "data") == f"{name}#0123456789abcdef"
    assert registry.located(f"{kind}:gone", tmp_path / "data") == f"{kind}:{tmp_path / 'gone'}"
    (tmp_path / "link").symlink_to("here")
    assert registry.located(relative.replace("here", "link"), tmp_path) == name.replace("/here/", "/link/")
    for other in ("mnist", "digits", "moons", "arrays-123"):
        assert registry.identified(other, tmp_path) == registry.located(other, tmp_path) == other
        assert registry.fingerprint(other, tmp_path) == ""


def test_a_checksum_is_kept_and_a_damaged_one_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "LARGE", 0)
    name = some_data("text", tmp_path / "here")
    digits = registry.fingerprint(name, tmp_path)
    (kept,) = (tmp_path / "cache").iterdir()
    good = kept.read_text()
    status = os.stat(tmp_path / "here" / "set.text")
    change(name)
    os.utime(tmp_path / "here" / "set.text", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert registry.fingerprint(name, tmp_path) == digits  # as docs/reliability.md says
    assert registry.fingerprint(name, tmp_path, fresh=True) != digits
    for damage in ("", "[]", "{}", good[:20], good.replace(digits, "xyz"), good.replace("key", "kez"), "[" * 10**5):
        kept.write_text(damage)
        assert registry.fingerprint(name, tmp_path) != digits
    monkeypatch.setattr(cache.files, "write_json", lambda *_: (_ for _ in ()).throw(StorageError("full")))
    assert len(registry.fingerprint(name, tmp_path, fresh=True)) == 16


@pytest.mark.parametrize("path", ["a\0b", "a\nb", "~nobody_here/x", "loop/x", "loop", "\udcff", "x" * 300, ""])
@pytest.mark.parametrize("kind", KINDS)
def test_a_path_that_cannot_be_is_refused_at_the_door(kind, path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    assert main([f"--dataset={kind}:{path}", "--steps=1", "--model=mlp", "--devices=1", "--run_dir=run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--dataset: " in error
    assert [p.name for p in tmp_path.iterdir()] == ["loop"]


@pytest.mark.slow
def test_a_run_is_evaluated_and_goes_on_where_its_data_are_now(small, tmp_path, capsys):
    folder = make(tmp_path / "here")
    experiment = dataclasses.replace(small, dataset=f"folder:{folder}", data_dir=str(tmp_path / "data"))
    run = train(experiment)
    assert not (tmp_path / "data" / "cache").exists() or not [*(tmp_path / "data" / "cache").glob("*.json")]
    folder.rename(tmp_path / "there")
    moved = dataclasses.replace(experiment, dataset=f"folder:{tmp_path / 'there'}")
    assert train(moved).result == run.result
    assert load(run.path).evaluate(str(tmp_path), moved.dataset)["test"] == run.result["test"]
    again = train(dataclasses.replace(moved, run_dir=str(tmp_path / "again")))
    assert identity(again.experiment) == identity(run.experiment)
    shutil.rmtree(tmp_path / "there")
    assert train(run.experiment).result == run.result  # a finished run is shown without them
    assert main([str(run.path / "run.flags"), f"--run_dir={run.path}"]) == 0
    make(tmp_path / "there", count=11)
    with pytest.raises(UsageError, match="has changed since"):
        load(run.path).evaluate(str(tmp_path), moved.dataset)


# Litter, and folders in the wrong place


def described(root):
    return registry.describe(f"folder:{root}", root)


def test_what_systems_leave_behind_is_passed_over_with_a_note(small, tmp_path, capsys):
    clean = make(tmp_path / "clean")
    root = shutil.copytree(clean, tmp_path / "set")
    for name in ("__MACOSX", "__macosx", "@eaDir", ".thumbnails", "#recycle", "lost+found", "$RECYCLE.BIN", ".ipynb_checkpoints"):
        for place in (root, root / "a"):
            shutil.copytree(clean / "b", place / name / "deep")
            shutil.copy(clean / "b" / "0.png", place / name)
    (root / "System Volume Information").mkdir()
    for name in (".DS_Store", "Thumbs.db", "THUMBS.DB", "desktop.ini", "._0.png", "._a"):
        for place in (root, root / "b"):
            (place / name).write_bytes(b"\0\5\26\7")
    assert described(root) == described(clean)
    assert registry.fingerprint(f"folder:{root}", tmp_path) == registry.fingerprint(f"folder:{clean}", tmp_path)
    assert main([f"--dataset=folder:{root}", "--model=linear", "--steps=1", "--devices=1", f"--run_dir={tmp_path / 'run'}"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    (line,) = [line for line in out.splitlines() if "skipped files of the operating system" in line]
    assert "@eaDir (2)" in line
    assert "._* (4)" in line
    assert "System Volume Information" in line


def refused(root, error=DataError):
    """The message, in one line, for a folder that is refused."""
    with pytest.raises(error) as found:
        described(root)
    message = str(found.value)
    assert len(message.splitlines()) == 1
    message.encode()
    return message


def test_litter_around_splits_is_passed_over_too(tmp_path):
    make(tmp_path / "train")
    make(tmp_path / "test", count=2)
    make(tmp_path / "__MACOSX" / "train")
    make(tmp_path / "train" / "@eaDir")
    assert described(tmp_path).splits == {"test": 4, "train": 20}


def test_a_folder_inside_a_class_folder_is_named_as_what_it_is(tmp_path):
    make(tmp_path / "set")
    (tmp_path / "set" / "a" / "more").mkdir()
    wanted = f"{tmp_path / 'set' / 'a' / 'more'}: a folder inside the class folder a; put the images directly in it"
    assert refused(tmp_path / "set") == wanted
    shutil.copy(tmp_path / "set" / "a" / "1.png", tmp_path / "set" / "a" / "more")
    assert refused(tmp_path / "set") == wanted
    make(tmp_path / "splits" / "train")
    make(tmp_path / "splits" / "train" / "a", ("deep",))
    assert "train/a/deep: a folder inside the class folder a" in refused(tmp_path / "splits")


@pytest.mark.parametrize("names", [("Train", "TEST"), ("TRAIN", "Val", "Test"), ("train", "Validation", "test")])
def test_splits_may_be_in_capitals(names, tmp_path):
    for n, name in enumerate(names):
        make(tmp_path / "set" / name, count=9 - n)
        make(tmp_path / "small" / name.lower(), count=9 - n)
    info = described(tmp_path / "set")
    assert info.splits == {name.lower(): 18 - 2 * n for n, name in enumerate(names)}
    assert info == described(tmp_path / "small")
    assert len(info.select().roles["test"]) == 2 * (10 - len(names))
    digits = registry.fingerprint(f"folder:{tmp_path / 'set'}", tmp_path)
    assert digits == registry.fingerprint(f"folder:{tmp_path / 'small'}", tmp_path)
    make(tmp_path / "set" / "tEST")
    assert re.search(r"(TEST|Test|tEST|test) and (TEST|Test|tEST|test) are both the split test", refused(tmp_path / "set"))


def test_classes_may_be_called_as_splits_are(tmp_path):
    assert described(make(tmp_path / "set", ("Test", "Train"))).classes == ("Test", "Train")
    make(tmp_path / "own" / "train")
    make(tmp_path / "own" / "Extra", count=3)
    assert described(tmp_path / "own").splits == {"Extra": 6, "train": 20}


def test_broken_links_are_named(tmp_path):
    root = make(tmp_path / "set")
    (root / "a" / "notes.txt").symlink_to("/nowhere")
    (root / "a" / "lost.PNG").symlink_to("/nowhere/x.png")
    assert f"{root / 'a' / 'lost.PNG'}: a broken link, to /nowhere/x.png" in refused(root)
    (root / "a" / "lost.PNG").unlink()
    (root / "c").symlink_to(tmp_path / "gone")
    assert refused(root) == f"{root / 'c'}: a broken link, to {tmp_path / 'gone'}"
    (root / "c").unlink()
    (root / "c").symlink_to("c")
    assert "a broken link" in refused(root)


@pytest.mark.parametrize(
    "name", [b"\xff", b"caf\xe9", b"new\nline", b"tab\t", b"\x1b[31m", b"\xc2\x85", "\u2028".encode(), b"\r"]
)
@pytest.mark.parametrize("split", [False, True])
def test_names_that_cannot_be_written_down_are_refused_at_the_door(name, split, tmp_path, capsys):
    root = tmp_path / "set"
    make(root / "train" if split else root, ("a", "b"), 3)
    os.rename(root / ("train/b" if split else "b"), os.fsencode(root) + (b"/train/" if split else b"/") + name)
    message = refused(root)
    assert "the folder's name has a control character" in message
    assert main([f"--dataset=folder:{root}", "--model=linear", "--steps=1", "--devices=1", f"--run_dir={tmp_path / 'run'}"]) == 4
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_broken_image_with_a_strange_name_is_told_of_in_one_line(tmp_path):
    root = make(tmp_path / "set")
    with open(os.fsencode(root) + b"/a/\xff\n.png", "wb") as file:
        file.write(b"no image")
    assert "\\udcff\\n.png: not a PNG or JPEG" in refused(root)


# Bad images and records


def spoil(root):
    """Twelve more images, which are bad in three ways."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 9)).astype(np.uint8)
    bad = []
    for n in range(4):
        for kind in ("header", "body", "link"):
            path = root / "ab"[n % 2] / f"bad_{kind}{n}.png"
            if kind == "link":
                path.symlink_to("/nowhere")
            else:
                Image.fromarray(noise).save(path)
                content = path.read_bytes()
                path.write_bytes(b"no image" if kind == "header" else content[:-30])
            bad.append(path)
    return bad


def test_all_bad_images_are_listed_at_once(tmp_path):
    bad = spoil(make(tmp_path / "set"))
    message = refused(tmp_path / "set")
    assert message.startswith("12 of 32 images cannot be read: ")
    assert message.endswith("; and 2 more")
    assert sum(f"{path}: " in message for path in bad) == 10
    assert "not a PNG or JPEG image;" in message
    assert "not a PNG or JPEG image that can be read (" in message
    assert "a broken link, to /nowhere" in message
    for path in bad:
        if "body" not in path.name:
            path.unlink()
    info = described(tmp_path / "set").select()  # headers alone do not show it
    with pytest.raises(DataError, match=r"^4 of 24 images cannot be read: .*; .*; .*; [^;]*$"):
        registry.load(f"folder:{tmp_path / 'set'}", tmp_path, info, (4, 4))


def test_bad_images_are_skipped_and_the_rest_is_as_without_them(small, tmp_path, capsys):
    clean = make(tmp_path / "clean")
    root = shutil.copytree(clean, tmp_path / "set")
    spoil(root)
    notes = []
    skipping = ReaderConfig(max_bad_records=12)
    found = {}
    for place in (clean, root, root):  # and out of the cache
        name = f"folder:{place}"
        info = registry.describe(name, tmp_path, config=skipping).select()
        found[place] = registry.load(name, tmp_path, info, (4, 4), skipping, notes.append)
    assert len(notes) == 2
    assert notes[0] == notes[1]
    assert notes[0].startswith("skipped, as --max_bad_records allows: 12 of 32 images cannot be read: ")
    sets = [found[place].examples for place in (clean, root)]
    rows = [sorted(zip(some["image"][:, 0, 0, 0].tolist(), some["label"].tolist(), strict=True)) for some in sets]
    assert rows[0] == rows[1]
    assert found[clean].spec.splits == found[root].spec.splits
    flags = [f"--dataset=folder:{root}", f"--data_dir={tmp_path}", "--model=linear", "--steps=2", "--devices=1"]
    flags.append(f"--run_dir={tmp_path / 'run'}")
    assert main([*flags, "--max_bad_records=11"]) == 4
    assert "; more than --max_bad_records=11" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*flags, "--max_bad_records=12"]) == 0
    assert "skipped, as --max_bad_records allows: 12 of 32" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run"), f"--data_dir={tmp_path}"]) == 0
    assert train(load(tmp_path / "run").experiment).result["steps"] == 2


def test_a_class_of_bad_images_alone_is_refused(tmp_path):
    root = make(tmp_path / "set")
    (root / "c").mkdir()
    (root / "c" / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=f"^{root / 'c'}: no image in it can be read"):
        registry.describe(f"folder:{root}", tmp_path, config=ReaderConfig(max_bad_records=5))


@pytest.mark.parametrize("large", [1 << 26, 0])
def test_what_changed_unseen_is_read_again(large, tmp_path, capsys, monkeypatch):
    """With --fresh_cache; of less than 64 MiB without it too."""
    monkeypatch.setattr(cache, "LARGE", large)
    root = make(tmp_path / "set")
    flags = [f"--dataset=folder:{root}", f"--data_dir={tmp_path}", "--model=linear", "--steps=1", "--devices=1", "--json"]
    flags.append("--normalize=unit")

    def loss(name, *more):
        assert main([*flags, f"--run_dir={tmp_path / name}", *more]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])["test"]["loss"]

    first = loss("first")
    registry.load(f"folder:{root}", tmp_path, described(root).select(), (4, 4))  # keeps it without a checksum
    for path in root.glob("*/*.png"):
        status = path.stat()
        content = path.read_bytes()
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path, compress_level=0)
        assert path.stat().st_size == len(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    stale = registry.load(f"folder:{root}", tmp_path, described(root).select(), (4, 4)).inputs
    assert (loss("second") == first) == (large == 0)
    assert loss("third", "--fresh_cache") != first
    assert loss("fourth") != first  # what was kept is what was read last
    fresh = registry.load(f"folder:{root}", tmp_path, described(root).select(), (4, 4), ReaderConfig(fresh_cache=True)).inputs
    np.testing.assert_array_equal(stale, 255 - fresh)

"""The plot command."""

import json

import numpy as np
import pytest
from PIL import Image

from percept_jax.cli.main import main

# Pictures


@pytest.mark.slow
def test_plot_draws_a_boundary_and_the_pictures_of_a_run_again(tmp_path, capsys):
    path = tmp_path / "run"
    assert main(["--dataset=moons", "--model=mlp", "--steps=50", "--devices=1", f"--run_dir={path}"]) == 0
    assert main(["plot", str(path), "--boundary"]) == 0
    picture = np.asarray(Image.open(path / "boundary.png").convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    for name in ("training.png", "confusion.png"):
        (path / name).unlink()
    assert main(["plot", str(path), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["pictures"]) == 2
    assert (path / "confusion.png").exists()
    (path / "metrics.jsonl").write_text((path / "metrics.jsonl").read_text()[:-20])
    assert main(["plot", str(path)]) == 3  # it is not what the run wrote
    (path / "result.json").unlink()
    assert main(["plot", str(path)]) == 0  # as a process that was killed leaves it
    assert main(["predict", str(path), "-0.5,1"]) == 0
    for point, message in (("0.5;1", "'0.5;1' is not a point"), ("nan,1", "'nan,1' is not a point"), ("1,2,3", "a point is [3]")):
        assert main(["predict", str(path), point]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_plot_shows_what_augmentation_does_to_training_images(tmp_path, capsys, monkeypatch):
    from percept_jax.training import run_dir

    monkeypatch.setattr(run_dir, "ROOT", tmp_path)
    (tmp_path / "my.flags").write_text("--epochs=1\n--model=mlp\n--rotation=30\n--cutout=3\n--mixup=0.2\n")
    assert main(["plot", "--augmentations", str(tmp_path / "my.flags")]) == 0
    assert (tmp_path / "runs" / "my" / "augmentations.png").exists()
    assert main([str(tmp_path / "my.flags"), "--augmentations"]) == 2
    assert main(["plot", "x", "--boundary"]) == 2
    assert main(["plot", "--augmentations", "--dataset=digits"]) == 2
    assert "--augmentations: no augmentation is on" in capsys.readouterr().err
    assert main(["plot", "--augmentations", "--dataset=digits", "--cutout=3"]) == 0

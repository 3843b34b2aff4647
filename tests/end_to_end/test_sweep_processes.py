"""Sweeps in several processes, some of them killed."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from helpers.sweeps import EIGHT, Command, assert_same_trials, finished_at, read, read_plan, step, trials

from percept_jax import records
from percept_jax.cli.main import main


@pytest.mark.slow
def test_a_sweep_as_a_person_starts_it(write_sweep, tmp_path, launch):
    folder = tmp_path / "sweep"
    found = launch(write_sweep("--learning_rate={0.02,0.05}"), f"--run_dir={folder}", "--pack=auto")
    assert found.returncode == 0, found.stderr
    assert "2 of 2 trials done" in found.stdout
    assert f"{folder}/report.html" in found.stdout.splitlines()
    assert (folder / "report.html").exists()


@pytest.mark.slow
def test_kills_at_any_moment_change_nothing(write_sweep, tmp_path):
    """Also while widths are measured; packs of a given width are killed in test_sweep_faults."""
    path = write_sweep(base=EIGHT)
    straight, killed = tmp_path / "straight" / "sweep", tmp_path / "killed" / "sweep"
    draw = random.Random(0)
    moments = [  # while it measures or compiles; in the first pack; between its results; in what comes next; in the last pack
        lambda: "measuring" in command.said or list(killed.glob("trials/*")),
        lambda: step(killed, command.began) > draw.randrange(50, 500),
        lambda: len(finished_at(killed)) > len(seen),
        lambda: "measuring" in command.said or step(killed, command.began) > draw.randrange(50, 500),
        lambda: len(finished_at(killed)) >= 4 and step(killed, command.began) > draw.randrange(50, 500),
    ]
    seen, landed = {}, set()
    for happened in moments:
        command = Command(path, killed, "--pack=auto")
        command.until(happened)
        time.sleep(draw.random() * 0.05)
        command.kill()
        assert seen.items() <= finished_at(killed).items()
        seen = finished_at(killed)
        landed.add((len(seen), step(killed)))
    assert len(landed) >= 3, landed
    assert len(seen) < 8
    Command(path, killed, "--pack=auto").ends()
    assert seen.items() <= finished_at(killed).items()
    assert len(finished_at(killed)) == 8

    straight.mkdir(parents=True)  # the widths that were measured: another time they may be others
    programs = {key: {**p, "packs": []} for key, p in read_plan(killed)["programs"].items()}
    records.write(straight / "plan.json", read_plan(killed) | {"programs": programs})
    Command(path, straight, "--pack=auto").ends()
    assert_same_trials(straight, killed)


def assert_each_once(folder, count):
    """Every trial is finished, and none was begun twice."""
    assert len(finished_at(folder)) == count
    for path in trials(folder).values():
        assert read(path, "provenance.json")["restarts"] == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The sweep of eight, and the folder of it done by one process in packs of two."""
    folder = tmp_path_factory.mktemp("shared")
    path = folder / "my.sweep"
    path.write_text("\n".join(EIGHT) + "\n")
    Command(path, folder / "alone" / "sweep", "--pack=2").ends()
    return path, folder / "alone" / "sweep"


@pytest.mark.slow
def test_two_workers_share_a_sweep(shared, tmp_path):
    path, alone = shared
    folder = tmp_path / "workers" / "sweep"
    command = Command(path, folder, "--pack=2", "--workers=2")
    command.until(lambda: len(command.workers()) == 2)
    command.ends()
    assert_each_once(folder, 8)
    assert len({read(path, "provenance.json")["command"] for path in trials(folder).values()}) == 1
    assert_same_trials(alone, folder)


@pytest.mark.slow
def test_a_worker_that_dies_is_made_up_for(shared, tmp_path):
    path, alone = shared
    folder = tmp_path / "workers" / "sweep"
    command = Command(path, folder, "--pack=2", "--workers=2")
    command.until(lambda: step(folder) > 100)
    os.kill(command.workers()[0], signal.SIGKILL)
    assert "the others continued" in command.ends()
    assert len(finished_at(folder)) == 8
    assert_same_trials(alone, folder)


@pytest.mark.slow
def test_a_command_that_is_ended_ends_its_workers(shared, tmp_path):
    path, alone = shared
    folder = tmp_path / "workers" / "sweep"
    command = Command(path, folder, "--pack=2", "--workers=2")
    command.until(lambda: step(folder) > 100)
    workers = command.workers()
    assert len(workers) == 2
    command.process.send_signal(signal.SIGTERM)
    assert "the same command resumes" in command.ends(143).splitlines()[-1]
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert len(finished_at(folder)) < 8
    seen = finished_at(folder)
    Command(path, folder, "--pack=2", "--workers", "2").ends()  # written as two words
    assert seen.items() <= finished_at(folder).items()
    assert_same_trials(alone, folder)


@pytest.mark.slow
def test_fresh_in_the_file_is_not_for_each_worker(write_sweep, tmp_path):
    path, folder = write_sweep("--fresh", base=[*EIGHT, "--steps=100"]), tmp_path / "sweep"
    Command(path, folder, "--pack=2", "--workers=2").ends()
    assert_each_once(folder, 8)


@pytest.mark.slow
def test_two_processes_of_one_command_share_a_sweep(shared, tmp_path):
    path, alone = shared
    folder = tmp_path / "both" / "sweep"
    both = [Command(path, folder, "--pack=2") for _ in range(2)]
    for command in both:
        command.ends()
    assert_each_once(folder, 8)
    assert_same_trials(alone, folder)


@pytest.mark.slow
def test_shards_one_after_the_other_and_at_once(shared, tmp_path):
    path, alone = shared
    folder = tmp_path / "after" / "sweep"
    assert "they belong to other shards" in Command(path, folder, "--pack=2", "--shard=0/2").ends()
    half = finished_at(folder)
    assert 0 < len(half) < 8
    Command(path, folder, "--pack=2", "--shard=1/2").ends()
    assert half.items() <= finished_at(folder).items()
    assert_each_once(folder, 8)
    assert_same_trials(alone, folder)

    folder = tmp_path / "at_once" / "sweep"
    both = [Command(path, folder, "--pack=2", f"--shard={i}/2") for i in range(2)]
    for command in both:
        command.ends()
    assert_each_once(folder, 8)
    assert main(["compare", str(folder)]) == 0  # of the two the one that ended first has seen half of it
    assert_same_trials(alone, folder)


@pytest.mark.slow
def test_a_sweep_over_devices_goes_on_after_a_kill(write_sweep, tmp_path):
    path = write_sweep(base=[*EIGHT, "--devices=8"])
    straight, killed = tmp_path / "straight" / "sweep", tmp_path / "killed" / "sweep"
    env = {"JAX_NUM_CPU_DEVICES": "8"}
    Command(path, straight, "--pack=1", **env).ends()
    command = Command(path, killed, "--pack=1", **env)
    command.until(lambda: step(killed) > 300)
    command.kill()
    Command(path, killed, "--pack=1", **env).ends()
    assert_same_trials(straight, killed)
    assert {read(p, "provenance.json")["pack"] for p in trials(killed).values()} == {8}

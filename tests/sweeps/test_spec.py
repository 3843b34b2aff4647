"""Sweep files: which arms, seeds and candidates they stand for, and what is refused in one line."""

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from percept_jax.cli.flagfile import Section, Setting, read_sweep
from percept_jax.errors import UsageError
from percept_jax.sweeps.spec import FLAGS, MOST, build


def spec(text, *overrides):
    """The sweep of a text, whose origins are its line numbers, and of flags of the command line."""
    sections = [Section("", "file", [])]
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("["):
            sections.append(Section(line[1:-1], str(number), []))
        elif line:
            sections[-1].settings.append(setting(line, str(number)))
    return build(sections, [setting(word, "command line") for word in overrides])


def setting(word, origin):
    name, equals, text = word.removeprefix("--").partition("=")
    return Setting(name, text if equals else None, origin)


def shown(arm):
    return arm.name, " ".join(s.name if s.text is None else f"{s.name}={s.text}" for s in arm.settings)


def values(text, design="grid"):
    """What a value stands for."""
    return [arm.settings[0].text for arm in spec(f"--x={text}\n--design={design}").arms]


GOOD = {
    "--a=1\n--fresh": [("baseline", "a=1 fresh")],
    "--a=1\n--b={2,3}\n--c=4": [("b=2", "a=1 b=2 c=4"), ("b=3", "a=1 b=3 c=4")],
    "--a={1,2}\n--b={3,4}": [(f"a={a}, b={b}", f"a={a} b={b}") for a in "12" for b in "34"],
    "--b=1\n--b={2,3}\n--b=4": [("baseline", "b=4")],
    "--b=1\n--b={2,3}\n--b={5}": [("b=5", "b=5")],
    "--a=1\n[x]\n--a=2\n[y]\n--b=3": [("baseline", "a=1"), ("x", "a=2"), ("y", "a=1 b=3")],
    "--a={1,2}\n[x]\n--b=3": [("a=1", "a=1"), ("a=2", "a=2"), ("x, a=1", "a=1 b=3"), ("x, a=2", "a=2 b=3")],
    "--a={1,2}\n[x]\n--a=7": [("a=1", "a=1"), ("a=2", "a=2"), ("x", "a=7")],
    "--a={1,2}\n[x]\n--a={7,8}": [("a=1", "a=1"), ("a=2", "a=2"), ("x, a=7", "a=7"), ("x, a=8", "a=8")],
    "--a=0\n[x]\n--b={1,2}\n[y]": [("baseline", "a=0"), ("x, b=1", "a=0 b=1"), ("x, b=2", "a=0 b=2"), ("y", "a=0")],
    "--a={1,2}\n--b={3,4}\n--zip=b,a": [("b=3, a=1", "a=1 b=3"), ("b=4, a=2", "a=2 b=4")],
    "--a={1,2}\n--b={3,4}\n--zip=a,b\n[x]\n--a=0": [
        ("a=1, b=3", "a=1 b=3"), ("a=2, b=4", "a=2 b=4"), ("x, b=3", "b=3 a=0"), ("x, b=4", "b=4 a=0"),
    ],
    "--design=ofat\n--a=0\n--c=0\n--a={1,2}\n--b={3}\n[x]\n--c={5,6}": [
        ("baseline", "a=0 c=0"), ("a=1", "c=0 a=1"), ("a=2", "c=0 a=2"), ("b=3", "a=0 c=0 b=3"),
        ("x, c=5", "a=0 c=5"), ("x, c=6", "a=0 c=6"),
    ],
    "--design=cumulative\n--a=0\n[x]\n--b=1\n[y]\n--c=2\n[z]\n--b=3": [
        ("baseline", "a=0"), ("x", "a=0 b=1"), ("+ y", "a=0 b=1 c=2"), ("+ z", "a=0 c=2 b=3"),
    ],
    "--design=halton\n--trials=3\n--a={0.0..1.0}\n--b={1..9}": [  # Halton in bases 2 and 3: 1/2 1/3, 1/4 2/3, 3/4 1/9
        ("a=0.5, b=4", "a=0.5 b=4"), ("a=0.25, b=7", "a=0.25 b=7"), ("a=0.75, b=2", "a=0.75 b=2"),
    ],
    "--design=halton\n--trials=8\n--a={x,y}": [("a=y", "a=y"), ("a=x", "a=x")],
    "--design=halton\n--trials=1\n--a={log:1e-3..10}\n[x]\n--b=2\n[y]\n--a=3": [
        ("a=0.1", "a=0.1"), ("x, a=0.1", "a=0.1 b=2"), ("y", "a=3"),
    ],
    "--design=halton\n--trials=2\n--a={1,2}\n--b={3,4}\n--zip=a,b": [("a=2, b=4", "a=2 b=4"), ("a=1, b=3", "a=1 b=3")],
}  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_the_arms_of_a_file(text):
    assert [shown(arm) for arm in spec(text).arms] == GOOD[text]


VALUES = {
    "{0.03,0.1}": "0.03 0.1",
    "{0.5}": "0.5",
    "{ 1, 2 }": "1 2",
    "{64,128},10": "64,10 128,10",
    "a{1,2}b": "a1b a2b",
    "{512|256,256}": "512 256,256",
    "{1..5}": "1 2 3 4 5",
    "{2..-1}": "2 1 0 -1",
    "{log:1e-4..1e-1:7}": "0.0001 0.0003162 0.001 0.003162 0.01 0.03162 0.1",
    "{0..0.5:6}": "0 0.1 0.2 0.3 0.4 0.5",
    "{-0.1..0.3:5}": "-0.1 0 0.1 0.2 0.3",
    "{0.123456..1:2}": "0.123456 1",
    "{1e3..1e5:2}": "1000 100000",
}


@pytest.mark.parametrize("text", VALUES)
def test_the_values_of_a_factor(text):
    assert values(text) == VALUES[text].split()


def test_sweep_flags_and_origins():
    got = spec("--seeds=3\n--metric=test/accuracy\n--a={1,2}\n--baseline=a=2\n[x]\n--b=1", "--metric=validation/loss", "--c=9")
    assert (got.seeds, got.metric, got.baseline, got.design) == ((0, 1, 2), "validation/loss", "a=2", "grid")
    assert got.origins == {"seeds": "1", "metric": "command line", "baseline": "4"}
    assert [arm.origin for arm in got.arms] == ["file", "file", "5", "5"]
    assert got.arms[-1].settings == (Setting("a", "2", "3"), Setting("c", "9", "command line"), Setting("b", "1", "6"))
    got = spec("--a=1\n--seeds={10..12}")
    assert (got.seeds, got.metric, got.baseline, got.candidates) == ((10, 11, 12), "", "baseline", ())
    assert spec("").seeds == (0,)
    assert set(FLAGS) == {"seeds", "metric", "baseline", "design", "trials", "zip", "tune", "tune_trials"}


OVERRIDES = {
    ("--a=2", "--a=3"): ["a=2", "a=3"],
    ("--a={2,3}",): ["a=2", "a=3"],
    ("--a=1,2", "--a=3"): ["a=1,2", "a=3"],
    ("--a=2",): ["baseline"],
    ("--b={5,6}", "--zip=a,b", "--a=0", "--a=1"): ["a=0, b=5", "a=1, b=6"],
}


@pytest.mark.parametrize("words", OVERRIDES)
def test_what_the_shell_makes_of_braces_is_a_factor(words):
    assert [arm.name for arm in spec("--a={7,8,9}", *words).arms] == OVERRIDES[words]


def test_seeds_and_tuned_values_are_repeated_on_the_command_line_too():
    got = spec("--seeds=5\n--tune=a={1,2}", "--seeds=10", "--seeds=11", "--tune=a=3", "--tune=a=4", "--tune=b={5}")
    assert got.seeds == (10, 11)
    assert [[s[:2] for s in point] for point in got.candidates] == [[("a", a), ("b", "5")] for a in ("3", "4")]
    # a flag file named on the command line speaks before the flags behind it, not beside them
    sections = [Section("", "file", [])]
    assert [a.name for a in build(sections, [setting("--a=1", "my.flags:1"), setting("--a=2", "command line")]).arms] == [
        "baseline"
    ]


def test_candidates_of_tuning():
    grid = spec("--tune=a={1,2}\n--tune=b={3,4}\n--tune=a={5,6}").candidates
    assert [[s.text for s in point] for point in grid] == [["5", "3"], ["5", "4"], ["6", "3"], ["6", "4"]]
    assert grid[0][0] == Setting("a", "5", "3")
    halton = spec("--tune=a={log:1e-4..1}\n--tune=b={x,y}\n--tune_trials=3").candidates
    assert [[s.text for s in point] for point in halton] == [["0.01", "x"], ["0.001", "y"], ["0.1", "x"]]


BAD = {
    "--a=1\n--b={}": "2: --b: no value between the braces",
    "--a={1,,2}": "1: --a: an empty value in {1,,2}",
    "--a={1|}": "1: --a: an empty value in {1|}",
    "--a={1,2": "1: --a: '{1,2' has unbalanced braces",
    "--a=1}": "1: --a: '1}' has unbalanced braces",
    "--a=}1{": "1: --a: '}1{' has unbalanced braces",
    "--a={1,{2,3}": "1: --a: '{1,{2,3}' has unbalanced braces",
    "--a={1,2}{3,4}": "1: --a: '{1,2}{3,4}' has two brace groups",
    "--a={1,2}\n--a={1\n--a=1": "2: --a: '{1' has unbalanced braces",
    "--a={log:0..1:3}": "1: --a: the ends of a log range must be above 0, not 0",
    "--a={log:1..-2}": "1: --a: the ends of a log range must be above 0, not -2",
    "--a={log:1}": "1: --a: {log:1} is not a range",
    "--a={0..1:1}": "1: --a: 1 is below 2",
    "--a={0..1:}": "1: --a: '' is not a whole number",
    "--a={0..1:2.5}": "1: --a: '2.5' is not a whole number",
    "--a={0..x}": "1: --a: 'x' is not a number",
    "--a={nan..1:3}": "1: --a: nan is not a finite number",
    "--a={1,2,1}": "1: --a: the same value twice: 1",
    "--a={0.1,1e-1}": "1: --a: the same value twice: 0.1 and 1e-1",
    "--a={1..1.0001:5}": "1: --a: the same value twice: 1",
    "--a={0.1..0.9}": "1: --a: the range needs a count",
    "--a={log:1..10}": "1: --a: the range needs a count",
    "--design=ofat\n--a={0.1..0.9}": "2: --a: the range needs a count",
    "--design=halton\n--trials=2\n--a={1,2}\n[x]\n--b={0.1..0.9}": "5: --b: the range needs a count",
    "--a={1..1000000000}": f"1: --a: 1000000000 trials; at most {MOST} are possible",
    "--a={0..1:1000000000}": "1: --a: 1000000000 trials",
    "--seeds=3\n--a={1..5000}": "2: --a: 15000 trials",
    "--seeds=1000000000\n--a={1..3}": "1: --seeds: 3000000000 trials",
    "--design=halton\n--trials=1000000000\n--a={1,2}": "2: --trials: 1000000000 trials",
    "--tune=a={1..1000000000}": "1: --tune: 1000000001 trials",
    "--tune=a={1,2}\n--tune_trials=100000": "2: --tune_trials: 100001 trials",
    "--a=1\n[x]\n--b=1\n[y]\n[x]": "5: a second arm 'x'; the first is at 2",
    "--a=1\n[baseline]": "2: a second arm 'baseline'; the first is at file",
    "--a=1\n[x]\n--seeds=3": "3: --seeds: applies to the whole sweep: give it above the first arm",
    "--design=gird": "1: --design: unknown name 'gird'; did you mean 'grid'?",
    "--design": "1: --design: needs a value: --design=VALUE",
    "--metric=accuracy": "1: --metric: 'accuracy' is not validation/NAME or test/NAME",
    "--metric=train/loss": "1: --metric: 'train/loss' is not",
    "--a=1\n--baseline=adm\n[adam]": "2: --baseline: unknown name 'adm'; did you mean 'adam'?",
    "--design=cumulative\n--a=1": "1: --design: cumulative needs arms: [name]",
    "--design=cumulative\n--a={1,2}\n[x]": "2: --a: give one value: a cumulative design has no factors",
    "--design=cumulative\n[x]\n--a={1,2}": "3: --a: give one value: a cumulative design has no factors",
    "--design=halton\n--a={1,2}": "1: --design: halton needs --trials=N",
    "--design=halton\n--trials=3": "1: --design: halton needs a flag with several values above the first arm",
    "--trials=3\n--a={1,2}": "1: --trials: requires --design=halton",
    "--design=halton\n--trials=0\n--a={1,2}": "2: --trials: 0 is below 1",
    "--seeds=0": "1: --seeds: 0 is below 1",
    "--seeds=1.5": "1: --seeds: '1.5' is not a whole number",
    "--seeds={1,x}": "1: --seeds: 'x' is not a whole number",
    "--seeds={1,2,01}": "1: --seeds: the same value twice: 1 and 01",
    "--seeds={-1..1}": "1: --seeds: -1 is below 0",
    "--seeds={0.5..3}": "1: --seeds: the ends of a range of seeds must be whole numbers",
    "--a={1,2}\n--zip=a": "2: --zip: needs two factors or more",
    "--a={1,2}\n--zip=a,a": "2: --zip: needs two factors or more",
    "--a={1,2}\n--b=1\n--zip=a,b": "3: --zip: 'b' is not a factor above the first arm",
    "--a={1,2}\n--b={1,2,3}\n--zip=a,b": "3: --zip: unequal lengths: a has 2, b has 3 values",
    "--a={1,2}\n--b={1,2}\n--c={1,2}\n--zip=a,b\n--zip=b,c": "5: --zip: 'b' is also in another --zip",
    "--tune=a": "1: --tune: write --tune=learning_rate={0.01,0.1}",
    "--tune=a=1,2": "1: --tune: write --tune=learning_rate={0.01,0.1}",
    "--tune=a={1,": "1: --tune: '{1,' has unbalanced braces",
    "--tune=a={log:1e-3..1}": "1: --tune: a range without a count needs --tune_trials=N",
    "--tune_trials=3": "1: --tune_trials: needs --tune",
    "--tune=a={1,2}\n--tune_trials=x": "2: --tune_trials: 'x' is not a whole number",
    "--a={1,2}\n--tune=a={3,4}": "2: --tune: a is also a factor, at 1",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_refused(text):
    start = time.perf_counter()
    with pytest.raises(UsageError) as caught:
        spec(text)
    assert str(caught.value).startswith(BAD[text])
    assert time.perf_counter() - start < 1


def test_repeated_flags_do_not_mix_with_braces():
    with pytest.raises(UsageError, match="command line: --a: give several values either in one brace group or one by one"):
        spec("", "--a={1,2}", "--a=3")


def test_read_sweep(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "a.flags").write_text("# base\n--a=1\n")
    path = tmp_path / "my.sweep"
    path.write_text(
        "# a sweep\n\n--flagfile=base/a.flags\n// nested\n--b={1,2}\n--dataset=folder:my data #2 // x\n--fresh\n"
        "[ run #1 ]\n--flagfile=base/a.flags\n[empty]\n"
    )
    base = f"{tmp_path}/base/a.flags:2"
    assert read_sweep(path) == [
        (
            "",
            str(path),
            [
                ("a", "1", base),
                ("b", "{1,2}", f"{path}:5"),
                ("dataset", "folder:my data #2 // x", f"{path}:6"),
                ("fresh", None, f"{path}:7"),
            ],
        ),
        ("run #1", f"{path}:8", [("a", "1", base)]),
        ("empty", f"{path}:10", []),
    ]


LINES = {
    "--a=1\na=2": "my.sweep:2: 'a=2' is not a setting; write --a=2",
    "--a= 1": "my.sweep:1: --a: no space after the sign",
    "--a='1'": "my.sweep:1: --a: quotes would be part of the value",
    "--a=1\n[ ]": "my.sweep:2: an arm needs a name: [name]",
    "--a=1\n[x": "my.sweep:2: an arm begins with [name]",
    "[x] --a=1": "my.sweep:1: an arm begins with [name]",
    "\n--flagfile": "my.sweep:2: --flagfile: needs a path",
    "[x]\n--flagfile=no.flags": "my.sweep:2: --flagfile: {folder}/no.flags: no such file",
    "--a=1  # note": "my.sweep:1: --a: a comment here would be part of the value; put it on its own line",
    "--a=1\n --b=1 // note": "my.sweep:2: '--b=1 // note' is not a setting",
    "--a=1\n  # note": "my.sweep:2: a comment starts in the first column",
    "--a=1\n[x]  # note": "my.sweep:2: an arm begins with [name]",
    "--flagfile=strict.flags": "strict.flags:1: --a: a comment here would be part of the value",
    "--flagfile=my.sweep": "my.sweep:1: --flagfile: {folder}/my.sweep includes itself",
}


@pytest.mark.parametrize("text", LINES)
def test_lines_that_are_refused(tmp_path, text):
    (tmp_path / "strict.flags").write_text("--a=1  # note\n")
    (tmp_path / "my.sweep").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_sweep(tmp_path / "my.sweep")
    assert str(caught.value).startswith(f"{tmp_path}/" + LINES[text].format(folder=tmp_path))


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match=r"^command line: .*none\.sweep: no such file"):
        read_sweep(tmp_path / "none.sweep")


ENDS = st.floats(1e-30, 1e30)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_a_grid_has_as_many_arms_as_the_product(counts):
    arms = spec("\n".join(f"--f{i}={{1..{n}}}" for i, n in enumerate(counts))).arms
    assert len(arms) == len({arm.name for arm in arms}) == math.prod(counts)
    assert [tuple(int(s.text) for s in arm.settings) for arm in arms] == sorted(
        tuple(int(s.text) for s in arm.settings) for arm in arms
    )


@given(st.integers(-(10**15), 10**15), st.integers(-300, 300))
def test_whole_ranges_are_those_of_python(start, length):
    step = 1 if length >= 0 else -1
    assert list(map(int, values(f"{{{start}..{start + length}}}"))) == list(range(start, start + length + step, step))


@given(ENDS, st.floats(1.5, 1e6), st.integers(2, 30), st.booleans())
@settings(max_examples=50)
def test_spaced_values_parse_and_keep_their_ends(low, ratio, count, falling):
    ends = (low * ratio, low) if falling else (low, low * ratio)
    for log in (True, False):
        got = [float(text) for text in values(f"{{{'log:' * log}{ends[0]!r}..{ends[1]!r}:{count}}}")]
        assert (len(got), got[0], got[-1]) == (count, *ends)
        for i, value in enumerate(got):
            share = i / (count - 1)
            exact = ends[0] ** (1 - share) * ends[1] ** share if log else ends[0] * (1 - share) + ends[1] * share
            assert value == pytest.approx(exact, rel=6e-4)


@given(ENDS, st.floats(1.01, 1e6), st.integers(1, 20), st.sampled_from(["", "log:"]))
@settings(max_examples=50, deadline=None)
def test_halton_points_lie_within_the_range(low, ratio, trials, log):
    got = [float(text) for text in values(f"{{{log}{low!r}..{low * ratio!r}}}", f"halton\n--trials={trials}")]
    assert 1 <= len(got) <= trials
    assert all(low <= value <= low * ratio for value in got)

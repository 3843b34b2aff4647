#!/usr/bin/env bash
# The one way in: sets .venv up once, then runs what it is given. Needs bash, and Python 3.11 or newer with venv.
# Paths on the command line are the caller's: only `test` changes directory.
set -euo pipefail
script=${BASH_SOURCE[0]}
while [[ -L $script ]]; do  # readlink -f is not everywhere
  target=$(readlink "$script")
  [[ $target == /* ]] && script=$target || script=$(dirname "$script")/$target
done
root=$(cd "$(dirname "$script")" && pwd -P)
venv=$root/.venv

usage() {
  cat <<'TEXT'
percept_jax: one flag file in, a trained, measured, reproducible model out.

  ./launch.sh FILE.flags [--flag=value ...]     train an experiment, resume it, or show its result
  ./launch.sh FILE.sweep [--flag=value ...]     run a sweep, resume it, or show its table
  ./launch.sh compare SWEEP_OR_RUN_DIR...       the table of finished and half-finished sweeps, or of runs
  ./launch.sh list                              models, data sets, experiments
  ./launch.sh prepare NAME [--from=DIR]         a data set into a TFDS folder, out of its authors' files
  ./launch.sh evaluate RUN_DIR                  accuracy and loss of a trained model
  ./launch.sh predict RUN_DIR IMAGE_OR_FOLDER... what a trained model sees in PNG or JPEG files; or POINT, FILE.npz, SENTENCE, TEXT
  ./launch.sh export RUN_DIR --to=FILE.safetensors its weights, for --init_from
  ./launch.sh plot RUN_DIR [--boundary]         the pictures of a run; the decision boundary of a model of points
  ./launch.sh plot --augmentations FILE.flags   what its augmentation does to training images
  ./launch.sh setup                             install, or add what PERCEPT_EXTRAS names (cuda, tpu, tf, bench)
  ./launch.sh test [pytest arguments]           the test suite
  ./launch.sh bench [NAME ...]                  what the published figures were measured with

  ... --help      what each flag does, with its default
  ... --dry_run   what would run: flags with their origins, layers, parameters, memory, steps; of a sweep arms, trials, time
  ... --json      one JSON object as the last line of standard output

Examples
  ./launch.sh experiments/digits_lenet.flags
  ./launch.sh experiments/digits_lenet.flags --seed=1 --dropout_rate=0.2
  ./launch.sh experiments/digits_mlp.flags --hidden=64,64 --dry_run
  ./launch.sh experiments/digits_mlp.flags --sweep --learning_rate={0.03,0.1} --seeds=3
  ./launch.sh experiments/digits_activations.sweep --workers=2
TEXT
}

# Installs the project with the extras asked for, now or before, unless that has been done for these very requirements.
setup() {
  local wanted python tried
  wanted=$(printf '%s\n' "$@" ${PERCEPT_EXTRAS:+${PERCEPT_EXTRAS//,/ }} $(cat "$venv/extras" 2>/dev/null || true) | sort -u | sed '/^$/d')
  if installed "$wanted"; then return; fi
  for tried in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$tried" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$tried; break; fi
  done
  [[ -n ${python-} ]] || fail "Python 3.11 or newer is needed"
  exec 9>"$root/.venv.lock"
  "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'  # this shell holds it from here on: twenty tasks may start at once
  wanted=$(printf '%s\n' "$wanted" $(cat "$venv/extras" 2>/dev/null || true) | sort -u | sed '/^$/d')
  if ! installed "$wanted"; then
    echo "setting up $venv: one to three minutes, once" >&2
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv" || fail "cannot make $venv; is Python's venv module installed?"
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check --constraint "$root/requirements.lock" \
      --editable "$root${wanted:+[$(paste -sd, - <<<"$wanted")]}" 1>&2 || fail "installation failed"
    printf '%s\n' "$wanted" >"$venv/extras"
    cat "$root/pyproject.toml" "$root/requirements.lock" >"$venv/installed"
  fi
  exec 9>&-
}

installed() {
  [[ -f $venv/installed && $(<"$venv/installed") == "$(cat "$root/pyproject.toml" "$root/requirements.lock")" ]] &&
    [[ $(cat "$venv/extras" 2>/dev/null) == "$1" ]]
}

fail() { echo "launch.sh: $1" >&2; exit "${2-1}"; }

case ${1-} in
  '') usage; exit ;;
  test) extra=test ;;
  *) extra= ;;
esac
if [[ -n ${PERCEPT_PYTHON-} ]]; then
  python=$PERCEPT_PYTHON
  [[ $python != [!/]*/* ]] || python=$PWD/$python
else
  setup $extra
  python=$venv/bin/python
fi
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}  # this checkout's code; -P: and nothing of the caller's directory
case $1 in
  setup) [[ $# -eq 1 ]] || fail "usage: ./launch.sh setup, with PERCEPT_EXTRAS=cuda for extras" 2; echo "ready: $python" ;;
  test) shift; cd "$root"; exec "$python" -P -m pytest "$@" ;;
  bench)
    shift
    [[ $# -gt 0 ]] || set -- $(cd "$root/benchmarks" && printf '%s\n' [!_]*.py | sed 's/\.py$//')
    failed=0
    for name in "$@"; do
      [[ -f $root/benchmarks/$name.py ]] || fail "no benchmark $name; there are: $(cd "$root/benchmarks" && echo [!_]*.py)" 2
      PYTHONPATH=$root/benchmarks:$PYTHONPATH "$python" -P "$root/benchmarks/$name.py" || failed=1  # the others do not need it
    done
    exit $failed
    ;;
  *) exec "$python" -P -m percept_jax "$@" ;;
esac

#!/usr/bin/env bash
# The entry point: sets up .venv once, then runs the given command. It needs bash, and Python 3.11 or newer with venv.
# Paths on the command line are relative to the caller's directory; only `test` changes directory.
set -euo pipefail
script=${BASH_SOURCE[0]}
# readlink -f is not available everywhere.
while [[ -L $script ]]; do
  target=$(readlink "$script")
  [[ $target == /* ]] && script=$target || script=$(dirname "$script")/$target
done
root=$(cd "$(dirname "$script")" && pwd -P)
venv=$root/.venv

usage() {
  cat <<'TEXT'
percept_jax: trains a model from one flag file, measures it, and keeps it reproducible.

  ./launch.sh FILE.flags [--flag=value ...]     train an experiment, resume it, or show its result
  ./launch.sh FILE.sweep [--flag=value ...]     run a sweep, resume it, or show its table
  ./launch.sh compare SWEEP_OR_RUN_DIR...       show the table of finished or unfinished sweeps, or of runs
  ./launch.sh list                              list the models, data sets and experiments
  ./launch.sh prepare NAME [--from=DIR]         write a data set to a TFDS folder, from its authors' files
  ./launch.sh evaluate RUN_DIR                  measure a trained model on its validation and test data
  ./launch.sh predict RUN_DIR IMAGE_OR_FOLDER... predict images (PNG or JPEG); or POINT, FILE.npz, SENTENCE, TEXT
  ./launch.sh export RUN_DIR --to=FILE.safetensors write its weights to a file, for --init_from
  ./launch.sh plot RUN_DIR [--boundary]         draw the pictures of a run, or the decision boundary of a model of points
  ./launch.sh plot --augmentations FILE.flags   draw augmented training images
  ./launch.sh setup                             install, with the extras in PERCEPT_EXTRAS (cuda, tpu, tf, bench)
  ./launch.sh test [pytest arguments]           run the test suite
  ./launch.sh bench [NAME ...]                  run the benchmarks behind the published figures

  ... --help      show what each flag does, with its default
  ... --dry_run   show what would run: flags and their origins, layers, parameters, memory, steps; of a sweep arms, trials, time
  ... --json      print the result as one JSON object, as the last line of standard output

Examples
  ./launch.sh experiments/digits_lenet.flags
  ./launch.sh experiments/digits_lenet.flags --seed=1 --dropout_rate=0.2
  ./launch.sh experiments/digits_mlp.flags --hidden=64,64 --dry_run
  ./launch.sh experiments/digits_mlp.flags --sweep --learning_rate={0.03,0.1} --seeds=3
  ./launch.sh experiments/digits_activations.sweep --workers=2
TEXT
}

# Installs the project with the extras requested now or earlier, unless they are installed for the current requirements.
setup() {
  local wanted python tried
  wanted=$(printf '%s\n' "$@" ${PERCEPT_EXTRAS:+${PERCEPT_EXTRAS//,/ }} $(cat "$venv/extras" 2>/dev/null || true) | sort -u | sed '/^$/d')
  if installed "$wanted"; then return; fi
  for tried in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$tried" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$tried; break; fi
  done
  [[ -n ${python-} ]] || fail "Python 3.11 or newer is required"
  exec 9>"$root/.venv.lock"
  # This shell holds the lock from here on, so many tasks may start at once.
  "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
  wanted=$(printf '%s\n' "$wanted" $(cat "$venv/extras" 2>/dev/null || true) | sort -u | sed '/^$/d')
  if ! installed "$wanted"; then
    echo "setting up $venv, which takes one to three minutes the first time" >&2
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv" || fail "cannot create $venv; is Python's venv module installed?"
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
# Python imports the code of this checkout and, with -P, nothing from the caller's directory.
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
case $1 in
  setup) [[ $# -eq 1 ]] || fail "usage: ./launch.sh setup, with PERCEPT_EXTRAS=cuda for extras" 2; echo "ready: $python" ;;
  test) shift; cd "$root"; exec "$python" -P -m pytest -n logical --maxprocesses=4 --dist=worksteal "$@" ;;
  bench)
    shift
    [[ $# -gt 0 ]] || set -- $(cd "$root/benchmarks" && printf '%s\n' [!_]*.py | sed 's/\.py$//')
    failed=0
    for name in "$@"; do
      [[ -f $root/benchmarks/$name.py ]] || fail "no benchmark is called $name; there are: $(cd "$root/benchmarks" && echo [!_]*.py)" 2
      # If one benchmark fails, the others still run.
      PYTHONPATH=$root/benchmarks:$PYTHONPATH "$python" -P "$root/benchmarks/$name.py" || failed=1
    done
    exit $failed
    ;;
  *) exec "$python" -P -m percept_jax "$@" ;;
esac

"""Commands, flags and exit codes; what a command does stands in `runs.py`.

Exit codes: 0 done; 2 bad input or a machine that refuses (a full disk), one line on
stderr that says what and how to mend it; 3 stopped on a non-finite loss; 75 preempted
after saving, the same command goes on. BIG_MM_TRACEBACK=1 in the environment also shows
where bad input was found.
"""

import errno
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from big_mm.lookup import nearest

PROCESSES = ("coordinator_address", "num_processes", "process_id")
COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {}


def command(function: Callable[[Sequence[str]], None]) -> Callable:
    """Makes a function a command of the same name."""
    COMMANDS[function.__name__] = function
    return function


def entry() -> int:
    """The installed command `big_mm`: what `python run.py` is in a clone."""
    return main(sys.argv[1:])


def main(arguments: Sequence[str]) -> int:
    """Runs one command and returns the exit code of the process."""
    if not arguments or arguments[0] in ("help", "--help", "-h"):
        print(_help())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        return _refuse(f"there is no command {name!r}.{nearest(name, COMMANDS)}")
    if any(argument in ("--help", "-h") for argument in rest):
        print(inspect.getdoc(COMMANDS[name]))
        return 0
    try:
        COMMANDS[name](rest)
    except KeyboardInterrupt:
        return _refuse("interrupted: the same command goes on from the last save.")
    except Exception as error:
        if code := getattr(error, "code", None):  # hooks.Stop, without importing JAX
            return _refuse(str(error), error, int(code))
        if _disk_is_full(error):
            return _refuse(
                f"the disk is full: {error}. Free some room; the same command goes on "
                "from the last whole checkpoint.",
                error,
            )
        if isinstance(error, ValueError | flags.Error):
            return _refuse(str(error), error)
        if isinstance(error, OSError):
            return _refuse(f"the system refused: {error}", error)
        raise
    return 0


@command
def train(arguments: Sequence[str]) -> None:
    """Trains a config, or goes on with the run that the folder holds.

    python run.py train --config=configs/X.py[:quick] --workdir=DIR [--config.a.b=VALUE]

    Of several processes each runs the same command. Slurm, Open MPI and TPU pods say
    who is who; elsewhere --coordinator_address=HOST:PORT --num_processes=N
    --process_id=I do.
    """
    values = _strings("workdir", *PROCESSES)
    _add_config(values, arguments)
    _parse(values, arguments, required=("config", "workdir"))
    _start_jax(*(values[name].value for name in PROCESSES))
    from big_mm import runs

    runs.train_run(values.config, Path(values.workdir))


@command
def evaluate(arguments: Sequence[str]) -> None:
    """Measures a checkpoint with evaluators of its config: metrics.json, report.html.

    python run.py evaluate --checkpoint=RUN --workdir=DIR [--evals=NAME[,NAME]]
        [--data=DIR]
    """
    values = _strings("checkpoint", "workdir", "evals", "data")
    _parse(values, arguments, required=("checkpoint", "workdir"))
    _start_jax()
    from big_mm import runs

    names = values.evals.split(",") if values.evals else None
    runs.evaluate_run(
        Path(values.checkpoint), Path(values.workdir), names, data_dir=values.data
    )


@command
def report(arguments: Sequence[str]) -> None:
    """Writes a run's figures as one page: DIR/report.html and PNGs beside it.

    python run.py report --workdir=DIR
    """
    values = _strings("workdir")
    _parse(values, arguments, required=("workdir",))
    from big_mm import report as pages

    print(pages.write(Path(values.workdir)))


@command
def info(arguments: Sequence[str]) -> None:
    """Prints sizes, step and hash of a checkpoint, or the sizes of a config, as JSON.

    python run.py info --checkpoint=RUN | --config=configs/X.py[:quick] [--devices=N]

    With --devices the training step is compiled for N simulated devices, to tell the
    memory of its activations too.
    """
    values = _strings("checkpoint", "devices")
    _add_config(values, arguments)
    _parse(values, arguments)
    if (values.checkpoint is None) == (values.config is None):
        raise ValueError("info needs one of --checkpoint and --config.")
    _start_jax()
    from big_mm import runs

    if values.config is not None:
        devices = None if values.devices is None else _whole("devices", values.devices)
        print(runs.describe_config(values.config, devices))
    else:
        print(runs.describe_run(Path(values.checkpoint)))


@command
def tokenizer(arguments: Sequence[str]) -> None:
    """Trains a SentencePiece tokenizer: byte fallback, NFKC with case folding.

    python run.py tokenizer --corpus=FILE[,FILE] --out=FILE.model --vocab_size=32000
    """
    values = _strings("corpus", "out", "vocab_size")
    _parse(values, arguments, required=("corpus", "out", "vocab_size"))
    size = _whole("vocab_size", values.vocab_size)
    from big_mm.text import tokenizers

    corpus = [Path(name) for name in values.corpus.split(",")]
    tokenizers.train(corpus, values.out, vocab_size=size)
    print(values.out)


def _strings(*names: str) -> flags.FlagValues:
    values = flags.FlagValues()
    for name in names:
        flags.DEFINE_string(name, None, "", flag_values=values)
    return values


def _add_config(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    from ml_collections import config_flags

    line = ["run.py", *arguments]  # where it looks for --config.a.b=value
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=line)


def _parse(
    values: flags.FlagValues, arguments: Sequence[str], required: Sequence[str] = ()
) -> None:
    for argument in arguments:
        if argument.startswith("--config="):
            _require_file(argument.removeprefix("--config="))
    try:
        left = values(["run.py", *arguments])[1:]
    except (AttributeError, KeyError, TypeError) as error:  # ml_collections' refusals
        raise ValueError(str(error.args[0]).strip("'")) from error
    except flags.IllegalFlagValueError as error:
        # A config that refuses its mode is quoted with its whole traceback.
        raise ValueError(str(error).rsplit("Error: ", 1)[-1]) from error
    if left:
        raise ValueError(f"flags look like --name=value: got {left}.")
    for name in required:
        if values[name].value is None:
            raise ValueError(f"this command needs --{name}=... .")


def _require_file(config: str) -> None:
    path = Path(config.split(":")[0])
    if not path.is_file():
        near = nearest(str(path), [str(p) for p in path.parent.glob("*.py")])
        raise ValueError(f"--config names a Python file: there is no {path}.{near}")


def _whole(flag: str, value: str) -> int:
    if not value.isdigit():
        raise ValueError(f"--{flag} is a whole number: got {value!r}.")
    return int(value)


def _start_jax(*processes: str | None) -> None:
    import jax

    cache = os.environ.get("BIG_MM_DATA", str(Path.home() / ".cache" / "big_mm"))
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(Path(cache) / "xla"))
    if not flags.FLAGS.is_parsed():  # grain and absl's logging read absl's flags
        flags.FLAGS.mark_as_parsed()
    speak = logging.StreamHandler()
    speak.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("big_mm")
    if not logger.handlers:
        logger.addHandler(speak)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    # Libraries log what they also raise; log.txt has it, the screen the one line.
    logging.getLogger("absl").propagate = False
    from big_mm import distributed

    distributed.start(*processes)


def _disk_is_full(error: BaseException) -> bool:
    code = getattr(error, "errno", None)
    return code in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)


def _refuse(reason: str, error: BaseException | None = None, code: int = 2) -> int:
    if error is not None and os.environ.get("BIG_MM_TRACEBACK"):
        traceback.print_exception(error)
    print(f"big_mm: {' '.join(reason.split())}", file=sys.stderr)
    return code


def _help() -> str:
    lines = [__doc__ or "", "Commands:", ""]
    for name, function in COMMANDS.items():
        lines += [f"{name}: {inspect.getdoc(function)}", ""]
    return "\n".join(lines)

"""Starting Jittor: each case in a process of its own, since a process starts Jittor once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from medusa_core import doctor, machine, runtime, stamp


def python(code, seconds=600, **environment):
    """Run code in a fresh interpreter far from the repository; returns the completed process."""
    inherited = {name: value for name, value in os.environ.items() if name not in STARTED_ENVIRONMENT}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=seconds,
    )


# Left in this process when a test started Jittor here.
STARTED_ENVIRONMENT = {"OMP_NUM_THREADS", "nvcc_path", "use_mpi", "use_mkl", "cc_path", "python_config_path"}


STATE = """
import json, os, random, resource, signal, ssl, sys
before = ssl._create_default_https_context, sys.getrecursionlimit(), dict(os.environ)
from medusa_core import runtime
runtime.start()
import jittor as jt, numpy as np
print(json.dumps({
    "sigint": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "sigchld": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
    "tls": ssl._create_default_https_context is before[0],
    "recursion": sys.getrecursionlimit() == before[1],
    "home": os.environ.get("HOME") == before[2].get("HOME") and "JITTOR_HOME" not in os.environ,
    "torch": "torch" in sys.modules,
    "cuda": bool(jt.has_cuda),
    "onednn": jt.mkl_ops is not None,
    "threads": os.environ["OMP_NUM_THREADS"],
    "root": str(runtime.ROOT),
    "random": [random.random(), float(np.random.rand()), float(jt.rand(1).numpy()[0])],
}))
"""


@pytest.fixture(scope="module")
def warm():
    """Jittor and STATE's operator compiled, as they are after the first time on a machine."""
    done = python(STATE)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def started(warm):
    """What a warm start leaves in its process, on a machine whose PATH holds an nvcc that cannot work."""
    return python(STATE)


def test_a_warm_start_prints_nothing(started):
    assert started.returncode == 0, started.stderr
    assert started.stderr == ""
    assert len(started.stdout.splitlines()) == 1


def test_a_start_leaves_the_process_as_it_was(started):
    state = json.loads(started.stdout)
    assert state["sigint"] and state["sigchld"] and state["tls"] and state["recursion"] and state["home"]
    assert not state["torch"]
    assert state["threads"] == str(machine.cores())
    assert state["root"] == str(Path(__file__).parents[1])


def test_matrix_products_use_onednn_where_it_is_installed(started):
    assert json.loads(started.stdout)["onednn"] == (machine.onednn_library() is not None)


def test_seeds_are_set_after_the_import(started):
    again = json.loads(python(STATE).stdout)
    assert again["random"] == json.loads(started.stdout)["random"]
    other = python(STATE.replace("start()", "start(seed=7)"))
    assert all(a != b for a, b in zip(json.loads(other.stdout)["random"], again["random"], strict=True))


def test_an_nvcc_without_a_gpu_is_ignored(warm, tmp_path):
    if machine.gpu_present():
        pytest.skip("this machine has a GPU")
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.1'\n")
    nvcc.chmod(0o755)
    done = python(STATE, PATH=f"{tmp_path}:{os.environ['PATH']}", nvcc_path=str(nvcc))
    assert done.returncode == 0, done.stderr
    assert not json.loads(done.stdout)["cuda"]


def test_a_process_that_mpirun_did_not_start_leaves_mpi_alone(warm, tmp_path):
    mpicc = tmp_path / "mpicc"
    mpicc.write_text(f"#!/bin/sh\ntouch '{tmp_path}/called'\nexit 1\n")
    mpicc.chmod(0o755)
    done = python(
        "from medusa_core import runtime\n"
        "runtime.start()\n"
        "import jittor as jt\n"
        "from pathlib import Path\n"
        "print(jt.in_mpi, jt.compile_extern.has_mpi, 'libmpi' in Path('/proc/self/maps').read_text())\n",
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        use_mpi="1",
    )
    assert (done.returncode, done.stdout) == (0, "False False False\n"), done.stderr
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    "environment, message",
    [
        (
            {"OMPI_COMM_WORLD_SIZE": "2", "mpicc_path": "/none"},
            "mpirun started this process, but there is no mpicc",
        ),
        ({"PMI_SIZE": "2"}, "one of several processes that OpenMPI's mpirun did not start"),
    ],
)
def test_several_processes_that_jittor_cannot_connect_are_refused(environment, message):
    done = python("from medusa_core import runtime; runtime.start()", **environment)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert message in error and machine.MPI_FIX in error


def test_processes_share_the_cores_that_mpirun_does_not_divide(warm):
    code = (
        "import os; from medusa_core import machine, runtime; machine.cores = lambda: 8\n"
        "runtime.set_environment(runtime.jittor_home()); print(os.environ['OMP_NUM_THREADS'])"
    )
    four = {"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_SIZE": "4", "mpicc_path": "/bin/true"}
    assert python(code, **four).stdout == "2\n"
    assert python(code, **four, OMPI_MCA_orte_bound_at_launch="1").stdout == "8\n"


@pytest.mark.parametrize(
    "version, grade", [("mpirun (Open MPI) 4.1.4", "ok"), ("HYDRA build details:", "lack"), (None, "lack")]
)
def test_the_doctor_knows_openmpi_from_others(monkeypatch, tmp_path, version, grade):
    for name in ("mpirun", "mpicc") if version else ():
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{version}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = [finding for finding in doctor.examine() if finding.name == "OpenMPI"]
    assert found.grade == grade and (machine.MPI_FIX in found.fix) == (grade == "lack")


def test_ctrl_c_raises_keyboard_interrupt(warm):
    done = python(
        "import os, signal, time\n"
        "from medusa_core import runtime\n"
        "runtime.start()\n"
        "import jittor as jt\n"
        "(jt.rand(3) + 1).sync()\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT); time.sleep(10)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_ctrl_c_at_a_terminal_ends_a_program_whose_jittor_has_compiled(warm):
    done = python(
        "import os, signal\n"
        "os.setsid()\n"  # a terminal interrupts all processes of a group: here, this one and those that compile
        "from medusa_core import runtime\n"
        "runtime.start()\n"
        "import jittor_utils\n"
        "jittor_utils.run_cmds([], '', '')\n"  # which is enough to start them
        "os.killpg(0, signal.SIGINT)\n"
        "import time; time.sleep(10)\n",
        seconds=60,
    )
    assert done.returncode == -signal.SIGINT and "KeyboardInterrupt" in done.stderr


def test_a_killed_child_does_not_end_the_process(warm):
    done = python(
        "from medusa_core import runtime\n"
        "runtime.start()\n"
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "child.kill(); child.wait(); print('alive')\n"
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_a_second_start_changes_nothing_and_other_threads_are_refused(warm):
    done = python(
        "import random\n"
        "from medusa_core import runtime\n"
        "runtime.start(seed=3, threads=1)\n"
        "first = random.random(); runtime.start(); assert random.random() != first\n"
        "runtime.start(seed=3, threads=1); assert random.random() == first\n"
        "runtime.start(threads=2)\n"
    )
    assert done.stderr.rstrip().endswith("Jittor runs with 1 threads already; give 2 to the first start()")


def test_jittor_imported_before_is_refused():
    done = python(
        "import sys, types\n"
        "sys.modules['jittor'] = types.ModuleType('jittor')\n"
        "from medusa_core import runtime\n"
        "runtime.start()\n"
    )
    assert "call start() before the first `import jittor`" in done.stderr


def test_a_failing_compiler_shows_its_own_words(tmp_path):
    compiler = tmp_path / "g++"
    compiler.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'g++ 12.2.0' && exit\necho broken here; exit 1\n"
    )
    compiler.chmod(0o755)
    done = python(
        "from medusa_core import runtime; runtime.start()",
        cc_path=str(compiler),
        JITTOR_HOME=str(tmp_path / "home"),
    )
    assert done.returncode == 1
    message = done.stderr[done.stderr.rindex("StartError") :]
    assert "Jittor could not be compiled or loaded" in message and "broken here" in message
    assert "make doctor" in message


def test_the_users_jittor_configuration_is_not_touched(tmp_path):
    """A start records nothing in ~/.cache/jittor/config.json, which later Jittor programs obey."""
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'g++ 12.2.0' && exit\nexit 1\n")
    compiler.chmod(0o755)
    done = python(
        "from medusa_core import runtime; runtime.start()",
        cc_path=str(compiler),
        HOME=str(tmp_path),
        XDG_CACHE_HOME="",  # as where it is not set
    )
    assert "could not be compiled" in done.stderr  # far enough: the folder is chosen before
    assert not (tmp_path / ".cache" / "jittor").exists()
    assert (tmp_path / ".cache" / "medusa_core").is_dir()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    done = python(
        "from medusa_core import runtime; runtime.start()", JITTOR_HOME=str(tmp_path / "file" / "x")
    )
    assert f"cannot write to {tmp_path}/file/x" in done.stderr and "set JITTOR_HOME" in done.stderr


@pytest.mark.parametrize(
    "found, wish, used", [(True, None, 1), (True, "0", 0), (True, "1", 1), (False, None, 0), (False, "1", 0)]
)
def test_a_gpu_that_jittor_found_is_used_unless_the_user_says_no(monkeypatch, found, wish, used):
    monkeypatch.delenv("use_cuda", raising=False)
    if wish is not None:
        monkeypatch.setenv("use_cuda", wish)
    jittor = SimpleNamespace(has_cuda=found, flags=SimpleNamespace(use_cuda=0))
    runtime.use_gpu(jittor)
    assert jittor.flags.use_cuda == used


def test_threads_are_those_of_the_outermost_level(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")
    assert machine.threads() == stamp.stamp()["threads"] == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert machine.threads() == machine.cores()


def test_conda_names_its_compiler_in_cxx(monkeypatch, tmp_path):
    compiler = tmp_path / "x86_64-conda-linux-gnu-g++"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("cc_path", raising=False)
    monkeypatch.setenv("CXX", str(tmp_path / "x86_64-conda-linux-gnu-c++"))
    assert machine.compiler() == str(compiler)
    monkeypatch.delenv("CXX")
    assert machine.compiler() == ""


def test_importing_the_package_starts_nothing():
    done = python(
        "import sys, medusa_core, medusa_core.runtime, medusa_core.study; print('jittor' in sys.modules)"
    )
    assert done.stdout == "False\n", done.stderr


def test_the_doctor_stops_only_for_what_stops_the_study(capsys, monkeypatch):
    assert doctor.main() == 0
    assert "The study runs on this machine." in capsys.readouterr().out
    before = dict(os.environ)
    monkeypatch.setattr(machine, "compiler", lambda: "")
    assert doctor.main() == 1
    assert dict(os.environ) == before  # a running Jittor still compiles with what is there
    printed = capsys.readouterr().out
    assert machine.COMPILER_FIX in printed and "cannot run here yet: C++ compiler" in printed

import subprocess
import sys
import time

from serve_app import startup
from serve_app.startup import StageClock, process_started_s


def test_this_process_began_a_while_ago() -> None:
    now_s = time.time()
    assert now_s - 24 * 3600 < process_started_s() < now_s


def test_stages_are_told_in_order() -> None:
    times = iter([3.0, 4.25])
    stages = StageClock(1.0, clock=lambda: next(times))
    stages.mark("imported")
    stages.mark("model")
    assert str(stages) == "imported 2.00, model 3.25"


def printed(script: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE)
    return done.stdout.decode().strip()


HOOKED = "import sys; from serve_app.startup import leave_pandas_out; leave_pandas_out()\n"


def test_a_replica_starts_without_pandas() -> None:
    started = f"{HOOKED}import serve_app.model_server; print('pandas' in sys.modules)\n"
    assert printed(started) == "False"
    later = f"{started}import pandas; print(pandas.DataFrame({{'a': [1]}}).shape)"
    assert printed(later).splitlines()[-1] == "(1, 1)"


def test_a_replica_starts_where_ray_has_moved_its_module() -> None:
    moved = f"import sys; sys.modules['ray.serve._private.utils'] = None\n{HOOKED}"
    assert printed(f"{moved}print('pandas' in sys.modules)") == "False"
    assert printed(f"{moved}import pandas; print(pandas.Series([1]).sum())") == "1"


def test_pandas_stays_where_it_is_already() -> None:
    assert printed(f"import pandas\n{HOOKED}print(sys.modules['pandas'] is pandas)") == "True"


def test_a_jobs_own_hook_keeps_its_place() -> None:
    assert startup.variables({}) == {startup.HOOK_VARIABLE: startup.HOOK}
    assert startup.variables({startup.HOOK_VARIABLE: "theirs.hook"}) == {}

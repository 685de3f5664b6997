"""The guard around plugins: what they change is put back and named, what they end goes on."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from textwrap import dedent

import pytest
import timm  # noqa: F401  # it is polluted below
import torch
from own_plugin import own_file
from polluters import ENDINGS, HARMLESS, POLLUTERS
from torch.nn import functional as F  # noqa: N812  # the field calls it so

import transferbench.training  # noqa: F401  # as timm
from transferbench.errors import PluginError
from transferbench.registry import blame, blamed, blamed_job, guard, is_trusted, load_registry
from transferbench.registry.discovery import SPECS
from transferbench.registry.guard import MisconductError, guarded, only_plugins_run
from transferbench.registry.surroundings import stray_threads


def run(source):
    exec(source, {"__name__": "polluter"})  # noqa: S102  # what a plugin does


@pytest.mark.parametrize("source", POLLUTERS)
def test_what_a_plugin_changes_is_its_error_and_is_put_back(source):
    if not (expected := POLLUTERS[source]):
        pytest.skip("this machine has one processor")
    with pytest.raises(PluginError) as caught, blamed("dataset 'd'"):
        run(source)
    message = str(caught.value)
    assert message.startswith("dataset 'd' changed what everybody shares: ")
    assert expected in message
    assert message.endswith("; report it to the plugin's author, or leave it out")
    with pytest.raises(PluginError) as again, blamed("dataset 'd'"):  # a change only if put back
        run(source)
    assert expected in str(again.value)


def test_harmless_changes_stay(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MY_LIBRARY_HOME", "")  # to be removed at the end
    del os.environ["MY_LIBRARY_HOME"]
    with warnings.catch_warnings():
        with blamed("dataset 'd'"):
            os.environ["MY_LIBRARY_HOME"] = "/home"
            sys.path.insert(0, "/of-a-harmless-plugin")
            warnings.filterwarnings("ignore", module="mylib")
        assert any(module and module.match("mylib") for *_, module, _ in warnings.filters)
    assert os.environ["MY_LIBRARY_HOME"] == "/home"
    assert sys.path[-1] == "/of-a-harmless-plugin"


def test_what_cannot_be_restored_is_named():
    filters = warnings.filters
    try:
        with pytest.raises(PluginError) as caught, blamed("dataset 'd'"):
            warnings.filters = None
    finally:
        warnings.filters = filters
    assert "warnings.filters could not be restored ('NoneType' object is not iterable)" in str(
        caught.value
    )


@pytest.mark.parametrize("source", HARMLESS)
def test_what_harms_nobody_is_no_error(source):
    with blamed("dataset 'd'"):
        run(source)


@pytest.mark.parametrize("source", ENDINGS)
def test_a_plugin_cannot_end_the_process(source):
    with pytest.raises(PluginError) as caught, blamed("dataset 'd'"):
        run(source)
    assert str(caught.value).startswith("dataset 'd' ")
    assert ENDINGS[source] in str(caught.value)


@pytest.mark.parametrize("source", ENDINGS)
def test_the_code_of_a_network_cannot_end_the_process(source):
    if "StopIteration" in source:
        pytest.skip("an error of a program, which may be ours, is not blamed on a network")
    with pytest.raises(PluginError) as caught, blamed_job("backbone 'b'"):
        run(source)
    assert str(caught.value).startswith("backbone 'b' ")
    assert ENDINGS[source] in str(caught.value)


def test_an_interrupt_of_the_user_passes():
    ours = signal.getsignal(signal.SIGINT)
    sender = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    sender.start()
    with pytest.raises(KeyboardInterrupt), blamed("dataset 'd'"):
        time.sleep(10)
    assert signal.getsignal(signal.SIGINT) is ours


def test_weights_move_under_autocast_after_a_plugin_that_left_it_on():
    with pytest.raises(PluginError), blamed("dataset 'd'"):
        torch.autocast("cpu", torch.bfloat16).__enter__()
    layer, x = torch.nn.Linear(1, 1, bias=False), torch.ones(1, 1)
    for weight in (1.0, 2.0):
        torch.nn.init.constant_(layer.weight, weight)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).item() == weight


def test_a_call_of_every_batch_is_compared_by_its_settings():
    with pytest.raises(PluginError, match="get_default_dtype"), blamed("p", frequent=True):
        torch.set_default_dtype(torch.float64)
    assert torch.get_default_dtype() == torch.float32


def test_the_inner_of_two_plugins_is_blamed_for_a_setting():
    with pytest.raises(PluginError) as caught, blamed("diagnostic 'd'"), blamed("backbone 'b'"):
        torch.set_grad_enabled(False)
    assert str(caught.value).startswith("backbone 'b' changed what everybody shares: torch.is_grad")
    assert torch.is_grad_enabled()


def test_around_a_trusted_plugin_libraries_are_not_compared_and_all_else_is(monkeypatch):
    monkeypatch.setattr(blame, "_TRUSTED", {"diagnostic 'd'"})
    relu = F.relu
    with blamed("diagnostic 'd'"):
        F.relu = F.gelu
    assert F.relu is F.gelu
    F.relu = relu
    with (
        pytest.raises(PluginError, match=r"^recompute of diagnostic 'd' changed .* numpy\.random"),
        blamed("diagnostic 'd'", role="recompute of "),
    ):
        run("import numpy as np; np.random.seed(0)")
    with (
        pytest.raises(PluginError, match=r"^backbone 'b' changed .*functional\.relu was replaced"),
        blamed("diagnostic 'd'"),
        blamed("backbone 'b'"),
    ):
        F.relu = F.gelu
    assert F.relu is relu


def test_what_comes_with_this_package_is_trusted_and_a_file_is_not(tmp_path):
    plugin = own_file(tmp_path, "nowhere")
    offered = load_registry([plugin]).offered_by(str(plugin))
    assert offered
    assert not any(is_trusted(f"{kind} {spec.name!r}") for spec in offered for kind in SPECS)
    assert is_trusted("backbone 'fixup-resnet8'")
    assert is_trusted("diagnostic 'speed'")


def test_libraries_are_not_compared_around_a_split_of_a_dataset_of_this_package(monkeypatch):
    load_registry()
    compared = []
    monkeypatch.setattr(guard.LibraryCode, "settle", lambda _: compared.append(1) or [])
    with blamed("dataset 'digits'", part=", split 'test',"):
        pass
    assert not compared
    message = r"^dataset 'nobodys', split 'test', failed: ValueError: no \("
    with (
        pytest.raises(PluginError, match=message),
        blamed("dataset 'nobodys'", part=", split 'test',"),
    ):
        raise ValueError("no")
    assert compared


def test_code_that_was_replaced_before_is_no_plugins_fault(monkeypatch):
    monkeypatch.setattr(F, "relu", F.gelu)
    with guarded():
        pass
    with only_plugins_run(), guarded():
        pass
    assert F.relu is F.gelu


def test_what_a_network_changes_is_put_back_at_the_end_of_its_job():
    relu = F.relu
    with pytest.raises(PluginError) as caught, only_plugins_run(), blamed_job("backbone 'b'"):
        run("import torch; torch.rand(1); torch.nn.functional.relu = torch.nn.functional.gelu")
    assert str(caught.value) == (
        "backbone 'b' changed what everybody shares: torch.nn.functional.relu was replaced; "
        "report it to the plugin's author, or leave it out"
    )
    assert F.relu is relu


def test_an_error_of_a_plugin_does_not_hide_what_it_changed():
    with pytest.raises(ZeroDivisionError), guarded():
        run("import torch; torch.set_grad_enabled(False); 1 / 0")
    assert torch.is_grad_enabled()


def test_a_folder_of_sys_path_stays_behind_the_others():
    before = list(sys.path)
    with guarded():
        sys.path.insert(0, "/of-a-plugin")
    assert sys.path == [*before, "/of-a-plugin"]
    sys.path.remove("/of-a-plugin")


def test_a_thread_that_was_left_running_is_known():
    event = threading.Event()
    thread = threading.Thread(target=event.wait, name="left")
    with (
        pytest.raises(MisconductError, match="that is not a daemon was left running: left"),
        guarded(),
    ):
        thread.start()
    assert stray_threads() == [thread]
    event.set()
    thread.join()
    assert stray_threads() == []


def in_a_process(source):
    words = [sys.executable, "-c", dedent(source)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_the_first_import_of_a_library_hides_no_change_of_it():
    done = in_a_process("""
        import sys
        from transferbench.registry import blamed
        assert "torch" not in sys.modules
        for source in ("import transferbench.statistics as s; s.student_t = print",
                       "import torch; torch.set_default_dtype(torch.float64)",
                       "import timm; timm.layers.DropPath.forward = print"):
            try:
                with blamed("dataset 'd'"):
                    exec(source)
            except Exception as error:
                print(error)
    """)
    assert "transferbench.statistics.student_t was replaced" in done.stdout, done.stderr
    assert "torch.get_default_dtype() went from torch.float32 to torch.float64" in done.stdout
    assert "timm.layers.drop.DropPath.forward was replaced" in done.stdout, done.stderr


def test_what_a_library_replaces_as_it_is_imported_is_no_change_of_the_plugin_that_does():
    done = in_a_process("""
        import sys
        from transferbench.registry import blamed
        assert "torch" not in sys.modules
        with blamed("dataset 'd'"):
            import timm
        print("done")
    """)
    assert done.stdout == "done\n", done.stderr


def test_a_forked_process_that_comes_back_is_ended():
    done = in_a_process("""
        import os
        from transferbench.registry import blamed
        with blamed("dataset 'd'"):
            child = os.fork()
        print("on", flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert done.stdout.split() == ["on", "1"], done.stderr
    assert "a child process that a plugin had forked came back and was ended" in done.stderr


CLOSINGS = ["os.close(1)", "os.close(2)", "sys.stdout.close()", "sys.stderr.close()",
            "os.dup2(os.open('/dev/null', 1), 1)"]  # fmt: skip


@pytest.mark.parametrize("close", CLOSINGS)
def test_a_stream_that_was_closed_is_opened_again(close):
    done = in_a_process(f"""
        import os, sys
        from transferbench.registry import blamed
        try:
            with blamed("dataset 'd'"):
                {close}
        except Exception as error:
            print(error)
            print(error, file=sys.stderr)
    """)
    assert done.returncode == 0
    assert "stdout or stderr was closed or replaced" in done.stdout
    assert "stdout or stderr was closed or replaced" in done.stderr


class UnprintableError(Exception):
    def __str__(self):
        raise ValueError


def test_an_error_whose_text_cannot_be_made_names_its_plugin():
    with pytest.raises(PluginError) as caught, blamed("dataset 'd'"):
        raise UnprintableError
    assert str(caught.value).startswith(
        "dataset 'd' failed: UnprintableError: (its text cannot be made: ValueError)"
    )

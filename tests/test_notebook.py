"""A run in a real notebook kernel: a bar moves in one output, and the run shows itself."""

import os

import pytest
from command_line import SMALL, suite_file

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")


class Recording(nbclient.NotebookClient):
    """Keeps what the kernel sends for the outputs of cells."""

    def process_message(self, message, cell, cell_index):
        self.messages.append((message["msg_type"], message["content"]))
        return super().process_message(message, cell, cell_index)


@pytest.mark.filterwarnings("default")  # the kernel's own
def test_a_bar_moves_and_the_run_shows_verdicts_and_a_picture(tmp_path):
    suite = suite_file(tmp_path, SMALL, replicates=2)
    source = (
        f"import transferbench\nrun = transferbench.run({str(suite)!r}, jobs=1, device='cpu')\nrun"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    client = Recording(notebook, timeout=120, kernel_name="python3")
    client.messages = []
    client.execute(cwd=str(tmp_path), env=os.environ.copy())
    bars = [content["data"]["text/plain"] for kind, content in client.messages
            if kind == "update_display_data"]  # fmt: skip
    assert len(set(bars)) > 2
    assert " 9/9 " in bars[-1]
    assert "0 left" in bars[-1]
    outputs = notebook.cells[0].outputs
    assert not [output for output in outputs if output.output_type == "stream"]
    assert " 9/9 " in outputs[0].data["text/plain"]
    assert outputs[-1].output_type == "execute_result"
    assert outputs[-1].data["text/plain"].startswith("<Run tiny@1.0 of fixup-resnet8; jobs: 9 ok;")
    assert "P-T trains faster" in outputs[-1].data["text/html"]
    assert "<svg " in outputs[-1].data["text/html"]

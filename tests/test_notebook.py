"""Notebooks, executed by Jupyter's own machinery in a kernel of this interpreter."""

import base64
import inspect
import io
import json
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from PIL import Image

CELLS = {
    "fit": """
        import numpy, ismcore
        x = numpy.random.default_rng(0).normal(3.0, 2.0, size=(300, 1))
        result = ismcore.fit(x, backend="autograd", epochs=20, progress=False)
        """,
    "score": "result.plot_score(sample=x)",
    "density": "result.plot_density()",
    "loss": "result.plot_loss()",
    "nothing is loaded": "import sys; 'matplotlib.pyplot' in sys.modules",
    "axes of pyplot": """
        from matplotlib import pyplot
        figure, ax = pyplot.subplots()
        result.plot_loss(ax=ax)
        """,
    "beside pyplot": "result.plot_score()",
    "completed": """
        code = "result.plot_score(gr"
        get_ipython().kernel.do_complete(code, len(code))["matches"]
        """,
    "shown where it is asked": """
        for epoch in range(2):
            display(result.plot_loss())
        ax = result.plot_loss()
        """,
}


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """The name of a kernel of this interpreter; what Jupyter and IPython read and write of the user's lies in a new folder."""
    for variable in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTER_PATH"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    folder = tmp_path / "JUPYTER_PATH" / "kernels" / "this_interpreter"
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    folder.joinpath("kernel.json").write_text(json.dumps({"argv": command, "display_name": "this", "language": "python"}))
    return folder.name


@pytest.fixture
def execute(kernel, tmp_path):
    """Executes a notebook in place, in a new folder."""

    def execute(notebook):
        resources = {"metadata": {"path": tmp_path}}
        nbclient.NotebookClient(notebook, kernel_name=kernel, timeout=120, startup_timeout=120, resources=resources).execute()
        nbformat.validate(notebook)

    return execute


@pytest.fixture
def outputs(execute):
    """The outputs of each cell of the executed notebook, by its name."""
    cells = [nbformat.v4.new_code_cell(inspect.cleandoc(code)) for code in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    execute(notebook)
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


def pictures(cell):
    return [output["data"]["image/png"] for output in cell if "image/png" in output.get("data", {})]


@pytest.mark.slow
def test_an_executed_notebook_holds_one_picture_for_each_cell_that_draws(outputs):
    assert outputs["fit"] == []
    for name in ("score", "density", "loss"):
        (output,) = outputs[name]
        assert output["metadata"]["image/png"] == {"width": 600, "height": 400}
    for name in ("score", "density", "loss", "axes of pyplot", "beside pyplot"):
        (picture,) = pictures(outputs[name])
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            assert len(image.convert("RGB").getcolors(1 << 22)) > 10
    assert len(pictures(outputs["shown where it is asked"])) == 2
    assert outputs["nothing is loaded"][0]["data"]["text/plain"] == "False"
    assert "'grid='" in outputs["completed"][0]["data"]["text/plain"]


TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"


@pytest.mark.slow
def test_the_tour_shows_a_picture_or_a_table_for_each_cell_that_ends_in_one(execute):
    notebook = nbformat.read(TOUR, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells)  # what it shows is made anew
    execute(notebook)
    shown = {cell.source.splitlines()[-1]: cell.outputs for cell in cells}
    assert all(output.output_type == "execute_result" for cell in cells for output in cell.outputs)  # and nothing is warned of
    assert sum(len(pictures(cell.outputs)) for cell in cells) >= 8
    for line, found in shown.items():
        if "plot" in line or "animate" in line:
            assert len(pictures(found)) == 1, line
    tables = [line for line, found in shown.items() if found and "ismcore" in found[0]["data"].get("text/html", "")]
    assert len(tables) == 4
    (animation,) = [found for line, found in shown.items() if "animate" in line]
    assert "data:image/gif;base64," in animation[0]["data"]["text/html"]

"""Small chapters for tests of the study, and what stands in for running them."""

import nbformat

from medusa_core import report, study


def write(path, *cells, parameters=None, inputs=None, ignore=None):
    """Write a notebook of code cells and its folder; text cells are given as ("markdown", text)."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    about = {"inputs": inputs, "ignore": ignore}
    notebook.metadata["medusa"] = {name: value for name, value in about.items() if value is not None}
    if parameters:
        notebook.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    for cell in cells:
        text = isinstance(cell, tuple)
        notebook.cells.append(
            nbformat.v4.new_markdown_cell(cell[1]) if text else nbformat.v4.new_code_cell(cell)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


class Stand:
    """Stands in for running chapters: keeps which would have run, and writes the files that each `leaves`."""

    def __init__(self, monkeypatch):
        self.ran, self.leaves, self.meanwhile = [], {}, None
        monkeypatch.setattr(study, "execute", self)
        monkeypatch.setattr(report, "export", lambda notebook, page: page.touch())

    def study(self, root, *arguments):
        """Run the study below `root`; returns the chapters that ran."""
        self.ran.clear()
        assert study.main(list(arguments), root) == 0
        return list(self.ran)

    def __call__(self, notebook, output, params, title):
        self.ran.append(notebook.stem)
        for path in self.leaves.get(notebook.stem, []):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # a new file, as the package's writers make it
            path.write_text(f'{{"by": "{notebook.stem}"}}')
        if self.meanwhile:
            self.meanwhile()
        output.write_text(notebook.read_text())
        return 1.0

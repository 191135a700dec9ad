"""The layout stays as it is meant: imports go downward, methods stay in their folders."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .shared import ROOT

PACKAGE = ROOT / "higherhrnet"
# The top layer first. A part imports from layers below its own, or from within itself; the public
# names in __init__ are imported lazily.
LAYERS = (
    ("__main__", "elastic"),
    ("cli", "__init__"),
    ("research", "serve"),
    ("factory",),
    ("export",),
    ("methods",),
    ("tasks",),
    ("inference", "training"),
    ("datasets", "evaluation", "models"),
    ("visualization", "plugins", "distributed"),
    ("structures", "outputs", "boxes", "launch"),
    ("poses",),
    ("drawing",),
    ("skeleton", "geometry", "device_constants"),
    ("joint_names", "ids", "assignment"),
    ("io",),
    ("errors",),
)
LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts}
KNOW_CONFIG = {"cli", "research", "factory"}
"""Besides ``methods/base.py``, ``methods/*/method.py`` and their like in ``tasks``: nothing else
knows config objects."""
FILES = sorted(PACKAGE.rglob("*.py"))
TEXT = "".join(file.read_text() for file in FILES)
METHOD_NAMES = {"bottom-up", "top-down", "pose_hrnet", "pose_higher_hrnet"}


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imported_parts(path: Path) -> set[str]:
    """Parts of the package that a file imports, lazily or not."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = parts[: len(parts) - node.level]
                full = [*base, *(node.module.split(".") if node.module else [])]
                found |= {full[0]} if full else {alias.name for alias in node.names}
            elif node.module and node.module.startswith("higherhrnet"):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("higherhrnet")}
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_downward(path):
    part, *rest = path.relative_to(PACKAGE).with_suffix("").parts
    for other in imported_parts(path) - {part, "__version__"}:
        if other == "config":
            allowed = part in KNOW_CONFIG or (
                part in ("methods", "tasks") and rest[-1] in ("base", "method", "task")
            )
        elif part == "config":
            allowed = other in {"io", "errors"}
        else:
            allowed = LAYER[other] > LAYER[part]
        assert allowed, f"{path.relative_to(ROOT)} imports {other}, which is not below {part}"


def test_every_part_has_a_layer():
    parts = {
        p.stem if p.is_file() else p.name for p in PACKAGE.iterdir() if p.suffix in {"", ".py"}
    }
    assert parts - {"__pycache__", "config", "weights", "assets"} == set(LAYER)


def method_branches(path: Path) -> list[str]:
    """Branches on the method, and unions of both: comparisons with a method's name, and
    ``isinstance`` or ``|`` of the methods' classes. Assertions only narrow types."""
    found = []

    def look(node: ast.AST) -> None:
        if isinstance(node, ast.Assert):
            return
        text = ast.unparse(node)
        if isinstance(node, ast.Compare):
            constants = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
            if constants & METHOD_NAMES:
                found.append(text)
        is_check = isinstance(node, ast.Call) and text.startswith("isinstance(")
        is_union = isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)
        if (is_check or is_union) and ("BottomUp" in text or "TopDown" in text):
            found.append(text)
        for child in ast.iter_child_nodes(node):
            look(child)

    look(ast.parse(path.read_text()))
    return found


def test_methods_differ_in_their_folders_alone():
    outside = [p for p in FILES if p.relative_to(PACKAGE).parts[0] not in ("methods", "config")]
    found = {name_of(path): branches for path in outside if (branches := method_branches(path))}
    assert found == {}


def test_the_branch_counter_counts(tmp_path):
    (tmp_path / "a.py").write_text(
        "def f(x: BottomUpPredictor | TopDownPredictor):\n"
        "    assert isinstance(x, BottomUpPredictor)\n"
        "    if isinstance(x, TopDownPredictor) or x.method == 'top-down':\n"
        "        pass\n"
    )
    assert len(method_branches(tmp_path / "a.py")) == 3


def test_an_epoch_can_be_read():
    tree = ast.parse((PACKAGE / "training" / "loop.py").read_text())
    (epoch,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "train_one_epoch"
    )
    assert epoch.end_lineno - epoch.lineno + 1 <= 60


def documented(docstring: str, part: str) -> list[str]:
    """The names that a docstring lists under ``Args:`` or ``Attributes:``."""
    found = re.search(rf"{part}:\n((?:    .*\n?|\n)+)", docstring)
    lines = re.findall(r"^    (\w[\w, ]*?):", found[1], re.MULTILINE) if found else []
    return [name.strip() for line in lines for name in line.split(",")]


def members(node: ast.ClassDef) -> set[str]:
    """Names of a class's fields, methods and attributes."""
    names = {n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef)}
    names |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    return names | {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_docstrings_name_what_is_there(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef):
            listed = documented(ast.get_docstring(node) or "", "Attributes")
            assert set(listed) <= members(node), node.name
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            listed = documented(ast.get_docstring(node) or "", "Args")
            inside = [n for n in ast.walk(node) if isinstance(n, ast.FunctionDef)]
            arguments = {a.arg for n in inside for a in ast.walk(n.args) if isinstance(a, ast.arg)}
            assert set(listed) <= arguments, node.name
    for name in re.findall(r":func:`[\w.~]*?(\w+)`", file.read_text()):
        assert f"def {name}(" in TEXT, name


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["train", "--help"], 0),
        (["train"], 2),
        (["predict", "a.jpg", "--wrong"], 2),
        (["train", "a.yaml", "--epochs", "3"], 2),
    ],
)
def test_help_and_usage_errors_need_no_torch(words, status):
    code = f"""
import sys, time
from higherhrnet.cli import main
try:
    status = main({words})
except SystemExit as error:
    status = error.code
seconds = time.process_time()
print(status, "torch" in sys.modules, "numpy" in sys.modules, seconds, file=sys.stderr)
print(status, "torch" in sys.modules, seconds < 1.5)
"""
    last = run_python(code).splitlines()[-1]
    assert last == f"{status} False True"


def test_loading_a_predictor_imports_no_training():
    code = """
import sys, higherhrnet
higherhrnet.load(device="cpu")
names = ("tensorboard", "matplotlib", "pycocotools", "faster_coco_eval", "torchvision",
         "higherhrnet.training", "higherhrnet.research", "higherhrnet.datasets.coco",
         "torch.utils.tensorboard")
print([name for name in names if name in sys.modules])
"""
    assert run_python(code).strip() == "[]"

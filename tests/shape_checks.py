"""Annotated shapes are checked at run time: jaxtyping's import hook with beartype, where a signature has an array in it."""

import ast

import beartype
from jaxtyping import _import_hook, install_import_hook

# Packages with annotated arrays; test_shapes.py compares.
CHECKED = ("artifacts", "evidence", "generation", "inference", "method", "models", "numerics", "serving")
ARRAYS = frozenset({"Bool", "Float", "Int", "Real", "Shaped"})

# By the tower of PEP 484 an int is a float.
checked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


class Transformer(_import_hook.JaxtypingTransformer):
    """Decorates functions with an array in their signature only.

    The hook would decorate every function, and an inner one anew at every call, which takes milliseconds: the simulations of
    test_statistics.py took four times as long.
    """

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """The function, decorated or as it was."""
        signature = [node.args, node.returns] if node.returns else [node.args]
        names = {inner.id for part in signature for inner in ast.walk(part) if isinstance(inner, ast.Name)}
        if names & ARRAYS:
            return super().visit_FunctionDef(node)
        self.generic_visit(node)
        return node


def install() -> None:
    """From here on, a module of a checked package is imported with its checks: within a call, an axis has one length."""
    _import_hook.JaxtypingTransformer = Transformer  # type: ignore[misc]
    install_import_hook([f"qthink_core.{package}" for package in CHECKED], "shape_checks.checked")

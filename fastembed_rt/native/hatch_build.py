"""Build hook of the wheel: compiles the operators into it, and tags it for the platform it is compiled for.

Where they cannot be compiled the wheel is the pure one, with a warning: stock operators run then.
FASTEMBED_RT_NATIVE=0 leaves them out, =1 makes a failure an error. FASTEMBED_RT_TARGET names a row of build.TARGETS to
make the wheel for, instead of this machine; a failure is an error then, too.
"""

from __future__ import annotations

import importlib.util
import os
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SWITCH = "FASTEMBED_RT_NATIVE"
TARGET = "FASTEMBED_RT_TARGET"


class NativeBuildHook(BuildHookInterface):  # type: ignore[misc]
    """Compiles before the files of the wheel are gathered."""

    PLUGIN_NAME = "custom"
    work: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say so in the wheel's tag; an editable installation has the library in the source tree."""
        wanted, named = os.environ.get(SWITCH, ""), os.environ.get(TARGET, "")
        build = _build_module(Path(self.root))
        target = build.TARGETS[named] if named else None
        if target is not None:
            # Also without a library: pip takes this wheel where it fits, and not one of another system.
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{target.tags}"
        if wanted == "0" or (target is not None and not target.zig):
            return
        # Only an editable installation writes into the source tree, which may belong to somebody else.
        self.work = None if version == "editable" else tempfile.TemporaryDirectory()
        folder = None if self.work is None else Path(self.work.name)
        try:
            self._add(build.build(folder and folder / build.LIBRARY, target=target), build_data)
        except build.BuildError as error:
            if wanted == "1" or target is not None:
                raise
            self.app.display_warning(f"without operators of its own, INT8 will run on stock ones: {error}")
        if not build.for_cuda(target):
            return
        try:
            self._add(build.build_cuda(folder and folder / build.CUDA_LIBRARY, target=target), build_data)
        except build.BuildError as error:
            if wanted == "1" or target is not None:
                raise
            self.app.display_warning(f"without operators of its own, CUDA will run stock ones: {error}")

    def _add(self, made: Path, build_data: dict[str, Any]) -> None:
        """Put a library into the wheel."""
        if self.work is None:
            build_data["artifacts"].append(str(made.relative_to(self.root)))
            return
        build_data["force_include"][str(made)] = f"fastembed_rt/native/{made.name}"
        build_data["pure_python"] = False
        # No Python interface in it: one library for all versions of Python.
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data.setdefault("tag", f"py3-none-{platform}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel has its copy."""
        if self.work is not None:
            self.work.cleanup()


def _build_module(root: Path) -> Any:
    """build.py, which stands alone: its package needs what a build environment has not."""
    place = root / "fastembed_rt" / "native" / "build.py"
    spec = importlib.util.spec_from_file_location("fastembed_rt_native_build", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""The extensions in C. Everything else is in pyproject.toml; without a compiler the package installs without it."""

from pathlib import Path

from setuptools import Extension, setup

NATIVE = "src/lsan/runtime/_native"
SOURCES = ["json.c", "reader.c", "tensors.c", "items.c", "program.c", "encoder.c", "topk.c", "kernels.c", "many.c"]
HEADERS = ["lsan.h", "internal.h", "json.h", "reader.h", "kernels.inc"]

try:
    from Cython.Build import cythonize
except ImportError:
    extensions = []
else:
    engine = Extension(
        "lsan.runtime._native.engine",
        [f"{NATIVE}/engine.pyx", *(f"{NATIVE}/{name}" for name in SOURCES)],
        depends=[f"{NATIVE}/{name}" for name in HEADERS],
        include_dirs=[NATIVE],
        extra_compile_args=["-O3", "-std=c11", "-fno-math-errno", "-fvisibility=hidden", "-pthread", "-g0"],
        extra_link_args=["-pthread", "-Wl,-s"],
        optional=True,
    )
    ids = Extension("lsan.runtime._native.ids", [f"{NATIVE}/ids.pyx"], extra_link_args=["-Wl,-s"], optional=True)
    Path("build").mkdir(exist_ok=True)
    extensions = cythonize([engine, ids], build_dir="build/cython", language_level=3)

setup(ext_modules=extensions)

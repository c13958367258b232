"""Prints what `lsan serve` needs of the requirements of an installed lsan: NumPy and the extra `serve`."""

from importlib.metadata import requires

for requirement in requires("lsan") or []:
    name, _, marker = requirement.partition(";")
    if 'extra == "serve"' in marker or (name.startswith("numpy") and not marker):
        print(name.strip())

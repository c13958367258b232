"""`lsan inspect`: what is in an exported file."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from lsan.cli.terminal import console, plain_table, readable
from lsan.runtime.file import PARTS, VOCABULARY, read_bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lsan inspect`."""
    parser.add_argument("file", metavar="FILE", type=Path, help="file that `lsan export` wrote")
    parser.add_argument("--json", action="store_true", help="print the manifest, without the program, as JSON")


def run(args: argparse.Namespace) -> None:
    """Print the manifest's facts and bytes by part.

    Raises:
        LsanError: when the file cannot be read.
    """
    file = read_bundle(args.file)
    manifest = file.manifest
    if args.json:
        shown = {name: entry for name, entry in manifest.items() if name not in ("program", "quantised")}
        print(json.dumps(shown, indent=1))
        return
    out = console()
    bits = sorted({entry["bits"] for entry in manifest["quantised"].values() if _has_bits(entry)})
    out.print(
        f"{manifest['items']:,} items of width {manifest['width']}, histories of up to {manifest['history']} events, "
        f"{len(manifest['program'])} operations, {'times are read' if manifest['timed'] else 'no times are read'}"
    )
    out.print(f"numbers: {f'{bits} bits' if bits else 'floats'}; items are {readable(_table(manifest['table']))}")
    provenance = manifest.get("provenance", {})
    for name, entry in provenance.items() if isinstance(provenance, dict) else ():
        out.print(readable(f"{name}: {json.dumps(entry, ensure_ascii=False)}"))
    out.print()
    sizes = dict.fromkeys(PARTS, 0)
    for name, tensor in {**file.tensors, "manifest": file.manifest_bytes}.items():
        part = next(part for part, begins in PARTS.items() if name.startswith(begins))
        sizes[part] += tensor.nbytes
    sizes["header"] = args.file.stat().st_size - sum(sizes.values())
    out.print(parts_table({part: size for part, size in sizes.items() if size}))


def parts_table(parts: Mapping[str, int], whole_name: str = "the file") -> Table:
    """Bytes by part; then all but ids, titles and categories, which are the shop's own; then the whole."""
    table = plain_table("", "bytes")
    for part, size in parts.items():
        table.add_row(part, f"{size:,}")
    whole = sum(parts.values())
    table.add_row(f"all but {VOCABULARY}", f"{whole - parts.get(VOCABULARY, 0):,}")
    table.add_row(whole_name, f"{whole:,}")
    return table


def _has_bits(entry: Any) -> bool:
    return isinstance(entry, dict) and type(entry.get("bits")) is int


def _table(table: Mapping[str, Any]) -> str:
    rows = table.get("rows")
    if table.get("kind") == "vectors" or not isinstance(rows, list):
        return "vectors" if table.get("kind") == "vectors" else "of an unknown kind"
    sizes = sorted({str(count) for count in rows})
    return f"codes of {len(rows)} rows, from tables of {', '.join(sizes)} rows"

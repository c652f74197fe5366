"""`python -m maskgit sample|edit|inpaint|outpaint|panorama`: images in, PNG out.

python -m maskgit sample --class bag,coat --num 8 --output sheet.png
python -m maskgit edit --input photo.png --box 8,8,16,16 --class 5 --output edited.png
python -m maskgit inpaint --input photo.png --mask hole.png --class 5 --output whole.png
python -m maskgit outpaint --input photo.png --direction right --class 5 --output wide.png
python -m maskgit panorama --input photo.png --width 96 --class 5 --output panorama.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from maskgit.common.cli import ArgumentParser, exit_code


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m maskgit", description=__doc__)
    shared = ArgumentParser(add_help=False)
    add = shared.add_argument
    add("--output", type=Path, required=True, metavar="FILE.png", help="where the PNG goes")
    add("--class", dest="classes", default="0", metavar="NAMES", help="class names or numbers: a,b")
    add("--num", type=int, default=1, help="samples of each class (default 1)")
    add("--separate", action="store_true", help="a file per sample, FILE-0.png, ..., no sheet")
    add("--preset", default="embedded")
    add("--weights", type=Path, metavar="FOLDER", help="own or official weights")
    add("--schedule", default="cosine", help="mask schedule (default cosine)")
    add("--T", dest="steps", type=int, default=12, metavar="T", help="iterations (default 12)")
    add("--steps", type=int, default=12, help=argparse.SUPPRESS)  # its former name
    add("--seed", type=int, default=0)
    add("--choice-temperature", type=float, metavar="X", help="default: the preset's")
    add("--device", default="auto", help="auto, cpu or cuda")

    photo = ArgumentParser(add_help=False)
    photo.add_argument("--input", type=Path, required=True, metavar="PHOTO")
    photo.add_argument(
        "--start", type=int, default=2, help="first iteration, of 0..T-1 (default 2)"
    )
    composite = ArgumentParser(add_help=False)
    composite.add_argument("--blend", default="gaussian", help="gaussian (default) or hard")

    commands = parser.add_subparsers(dest="command", required=True, parser_class=ArgumentParser)

    def command(name: str, text: str, *parents: ArgumentParser) -> ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=(*parents, shared))

    command("sample", "new images of the given classes")
    edit = command("edit", "another class inside a box", photo, composite)
    edit.add_argument(
        "--box", required=True, metavar="TOP,LEFT,HEIGHT,WIDTH", help="in pixels of PHOTO"
    )
    inpaint = command("inpaint", "fill a hole", photo, composite)
    hole = inpaint.add_mutually_exclusive_group()
    hole.add_argument("--mask", type=Path, metavar="IMAGE", help="of PHOTO's size; fill the white")
    hole.add_argument("--box", metavar="TOP,LEFT,HEIGHT,WIDTH", help="default: the centre")
    inpaint.add_argument("--share", type=float, default=0.5, help="of both sides, for the centre")
    outpaint = command("outpaint", "replace one side of the image", photo, composite)
    outpaint.add_argument("--direction", default="right", help="right, left, top or bottom")
    outpaint.add_argument("--share", type=float, default=0.5, help="of the image (default 0.5)")
    panorama = command("panorama", "extend an image to both sides", photo)
    panorama.add_argument("--width", type=int, required=True, help="in pixels")
    panorama.add_argument("--overlap", type=float, default=0.5, help="known share of a window")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line; one line and exit code 2 for bad input."""

    def command() -> None:
        options = _parser().parse_args(arguments)
        from maskgit.commands import run

        for path in run(options):
            print(path)

    if code := exit_code(command, ""):
        sys.exit(code)


if __name__ == "__main__":
    main()

"""Commands and their arguments, and how a command ends."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import NoReturn

from lib_trainer.cli.lora import add_lora
from lib_trainer.cli.output import Answer, answer, say
from lib_trainer.cli.paths import read_path
from lib_trainer.errors import UserError
from lib_trainer.events import StopRequested
from lib_trainer.models.families import FAMILIES

DONE, MISTAKE, INTERRUPTED = 0, 2, 130
_SET_HELP = "change one setting; repeatable (the command settings lists them)"


class Parser(argparse.ArgumentParser):
    """Reports wrong arguments as a `UserError`, like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message[:1].upper()}{message[1:]}.", f"See {self.prog} --help.")


def main(arguments: Sequence[str]) -> int:
    """Runs one command. Its exit code: 0 done, 2 a person's mistake, 130 interrupted."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    for stream in (sys.stdout, sys.stderr):
        # What a console cannot show, as × on a Russian Windows, is replaced: it must not end a run that is done.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    # Looked up before parsing, because a parse error must be answered as JSON as well.
    as_json = "--json" in arguments
    try:
        options = _parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], Answer | None] = options.command
        # Some libraries print what they have to say; on stdout only the answer may stand.
        with redirect_stdout(sys.stderr):
            result = command(options)
    except UserError as error:
        say(str(error))
        if as_json:
            answer(Answer({"error": error.message, "hint": error.hint}), as_json=True)
        return MISTAKE
    except (KeyboardInterrupt, StopRequested):
        # Nothing was learned yet, so that no file was saved.
        say("Stopped; nothing new is written.")
        if as_json:
            answer(Answer({"stopped_early": True, "path": None}), as_json=True)
        return INTERRUPTED
    if result is None:
        return DONE
    answer(result, as_json=as_json)
    # What was saved after Ctrl-C is an answer, but not the one that was asked for.
    return INTERRUPTED if result.values.get("stopped_early") else DONE


def _parser() -> Parser:
    parser = Parser(prog="lib_trainer", description="Trains LoHa and LoKr adapters without a WebUI.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_train(commands)
    _add_resume(commands)
    _add_grid(commands)
    _add_plan(commands)
    _add_settings(commands)
    _add_save_recipe(commands)
    _add_inspect(commands)
    _add_check(commands)
    _add_caption(commands)
    add_lora(commands)
    _add_ui(commands)
    for command in (parser for name, parser in commands.choices.items() if name != "lora"):
        command.add_argument("--json", action="store_true", help="one JSON object as the last line of the output")
    return parser


def _add_demo(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("demo", help="train on the embedded model and measure what it learned")
    parser.add_argument("--out", type=read_path, default=Path("out"), help="folder for all results (default: out)")
    parser.add_argument("--recipe", choices=("face", "style", "both"), default="face")
    parser.set_defaults(command=_run_demo)


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("train", help="train a recipe on a folder of pictures")
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's .json file, or the name of a shipped one")
    parser.add_argument("--data", type=read_path, help="folder of pictures; a slider needs none")
    parser.add_argument("--name", required=True, help="NAME in <lora:NAME:0.8>")
    parser.add_argument("--trigger-word", "--word", default="", help="(default: the folder's)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=_SET_HELP)
    _add_host(parser)
    parser.set_defaults(command=_run_train)


def _add_resume(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("resume", help="resume a run that was interrupted or stopped")
    parser.add_argument("run", metavar="RUN", nargs="?", default="", help="its id (default: the last one)")
    parser.add_argument("--list", action="store_true", help="only list all runs of this folder")
    _add_host(parser)
    parser.add_argument(
        "--steps", type=int, default=0, metavar="N", help="train up to step N (default: the recipe's steps)"
    )
    parser.set_defaults(command=_run_resume)


def _add_grid(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("grid", help="draw prompts at several strengths, as one labelled picture")
    parser.add_argument("--lora", required=True, metavar="NAME", help="the adapter whose strength varies")
    parser.add_argument(
        "--with", dest="other", metavar="NAME:STRENGTHS", help="a second adapter; with several strengths, across"
    )
    parser.add_argument("--epochs", action="store_true", help="a row for each saved step of the run")
    parser.add_argument("--prompt", action="append", help="repeatable: one row each (default: kept with the run)")
    parser.add_argument(
        "--strengths", default="", help="a list or 0:1:0.25 (default: 0,0.5,0.7,0.85,1; of a slider -2,-1,0,1,2)"
    )
    parser.add_argument("--negative", default="", help="negative prompt")
    parser.add_argument("--seed", default="1", help="one, or several like 1,2,3: a row each (default: 1)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=7.0, help="CFG scale (default: 7)")
    parser.add_argument("--sampler", default="", help="name of a sampler (default: Euler)")
    parser.add_argument("--size", metavar="WxH", help="size of one picture (default: the checkpoint's own)")
    parser.add_argument("--file", type=read_path, help="where the picture goes (default: OUT/strength_grid.png)")
    _add_host(parser)
    parser.set_defaults(command=_run_grid)


def _add_plan(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("plan", help="estimate the VRAM that a recipe needs")
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help="a recipe's .json file, or a shipped one's name")
    parser.add_argument("--family", choices=tuple(FAMILIES), default="sd1", help="of the checkpoint")
    parser.add_argument("--size", metavar="PX", help="1024, or 896x768 (default: the recipe's)")
    parser.add_argument("--budget", default="8GB", metavar="8GB", help="the GPU's VRAM (default: 8GB)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=_SET_HELP)
    parser.set_defaults(command=_run_plan)


def _add_settings(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("settings", help="list every setting, for --set and recipe files")
    parser.add_argument("--kohya", action="store_true", help="what becomes of the fields of kohya_ss instead")
    parser.add_argument("--markdown", action="store_true", help="as the page docs/settings.md, or docs/recipes.md")
    parser.set_defaults(command=_run_settings)


def _add_save_recipe(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("save-recipe", help="write a recipe as a file of kohya_ss, or of ours")
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's file, an adapter, or the name of a shipped one")
    parser.add_argument("file", metavar="FILE", help="the .json file to write")
    parser.add_argument("--format", choices=("kohya", "ours"), default="kohya", help="(default: kohya)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=_SET_HELP)
    parser.set_defaults(command=_run_save_recipe)


def _add_inspect(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("inspect", help="show what an adapter file contains")
    parser.add_argument("file", type=read_path, metavar="FILE")
    parser.set_defaults(command=_run_inspect)


def _add_check(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("check", help="say what may spoil the result of training on a folder")
    parser.add_argument("folder", metavar="FOLDER", help="folder of pictures")
    parser.add_argument("--kind", choices=("face", "style"), default="", help="what is trained, for the guide's counts")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=_SET_HELP)
    parser.set_defaults(command=_run_check)


def _add_caption(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("caption", help="caption the pictures of a folder with a tagger's ONNX file")
    parser.add_argument("folder", metavar="FOLDER", help="folder of pictures")
    parser.add_argument(
        "--tagger", metavar="FILE", type=read_path, help="an .onnx file with its list of tags beside it"
    )
    parser.add_argument(
        "--out", type=read_path, default=Path("out"), help="taggers are looked for in its models (default: out)"
    )
    parser.add_argument("--prefix", default="", help="tags before the others, like the trigger word")
    parser.add_argument("--postfix", default="", help="tags after the others")
    parser.add_argument("--exclude", default="", help="tags that are left out")
    parser.add_argument("--threshold", type=float, default=0.35, help="from which probability on (default: 0.35)")
    parser.add_argument("--all", action="store_true", help="also pictures that have a caption; the first one is kept")
    parser.add_argument("--underscores", action="store_true", help="write blue_eyes instead of blue eyes")
    parser.set_defaults(command=_run_caption)


def _add_ui(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("ui", help="the tab, in a browser")
    parser.add_argument("--port", type=int, default=7861)
    parser.add_argument("--api", action="store_true", help="let programs start and stop runs under /train-lora/v1")
    parser.add_argument(
        "--allow",
        type=read_path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="programs may train on pictures there",
    )  # fmt: skip
    _add_host(parser)
    parser.set_defaults(command=_run_ui)


def _add_host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", type=read_path, help="an SD 1.x, SD 2.x or SDXL .safetensors file or diffusers folder"
    )
    parser.add_argument("--out", type=read_path, default=Path("out"), help="folder for all results (default: out)")


# Each command imports its module when it runs: --help and a wrong option should not wait for torch.


def _run_demo(options: argparse.Namespace) -> Answer:
    from lib_trainer.cli.demo import run_demo

    return run_demo(options.out, ("face", "style") if options.recipe == "both" else (options.recipe,))


def _run_train(options: argparse.Namespace) -> Answer | None:
    from lib_trainer.cli.run_training import shared
    from lib_trainer.cli.train import run_train

    return shared(run_train, options)


def _run_resume(options: argparse.Namespace) -> Answer | None:
    from lib_trainer.cli.resume import list_runs, run_resume
    from lib_trainer.cli.run_training import shared

    return list_runs(options) if options.list else shared(run_resume, options)


def _run_grid(options: argparse.Namespace) -> Answer:
    from lib_trainer.cli.grid import run_grid

    return run_grid(options)


def _run_plan(options: argparse.Namespace) -> Answer:
    from lib_trainer.cli.plan import run_plan

    return run_plan(options)


def _run_save_recipe(options: argparse.Namespace) -> Answer:
    from lib_trainer.cli.save_recipe import run_save_recipe

    return run_save_recipe(options)


def _run_settings(options: argparse.Namespace) -> Answer:
    from lib_trainer.cli.kohya_fields import list_kohya_fields
    from lib_trainer.cli.settings import list_settings

    if options.kohya:
        return list_kohya_fields(as_markdown=options.markdown)

    return list_settings(as_markdown=options.markdown)


def _run_inspect(options: argparse.Namespace) -> Answer:
    from lib_trainer.cli.inspect import inspect_file

    return inspect_file(options.file)


def _run_check(options: argparse.Namespace) -> Answer:
    from lib_trainer.cli.check import run_check

    return run_check(options)


def _run_caption(options: argparse.Namespace) -> Answer:
    from lib_trainer.cli.caption import run_caption

    return run_caption(options)


def _run_ui(options: argparse.Namespace) -> Answer:
    from lib_trainer.app import serve
    from lib_trainer.cli.host import open_host
    from lib_trainer.host.access import Access

    access = Access(changes=options.api, folders=(options.out, *options.allow), allow_option="--allow")
    serve(open_host(options.out, options.checkpoint), access, port=options.port)
    return Answer({"stopped": True})

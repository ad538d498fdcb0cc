"""Writes what lets bash, zsh and fish complete our commands: `python packaging/completions.py PREFIX`, such as /usr/local.

The places are those where the three shells look by themselves. `--zsh FOLDER` is another one for zsh's, below PREFIX/share:
a Debian package's is zsh/vendor-completions.
"""

from pathlib import Path
from typing import Final

import click

from sixfbd import cli, ctl
from sixfbd.control.terminal import completion_script

PROGRAMS: Final = {"sixfbd": cli.cli, "sixfbctl": ctl.cli}
ZSH: Final = "zsh/site-functions"


def places(share: Path, program: str, zsh: str = ZSH) -> dict[str, Path]:
    """Return, by shell, the file of a program's completions below PREFIX/share."""
    return {
        "bash": share / "bash-completion" / "completions" / program,
        "zsh": share / zsh / f"_{program}",
        "fish": share / "fish" / "vendor_completions.d" / f"{program}.fish",
    }


@click.command()
@click.argument("prefix", type=click.Path(path_type=Path, file_okay=False))
@click.option("--zsh", default=ZSH, show_default=True, help="Folder of zsh's, below PREFIX/share.")
def main(prefix: Path, zsh: str) -> None:
    """Write completions for bash, zsh and fish below PREFIX/share, and name the files."""
    for program, command in PROGRAMS.items():
        for shell, path in places(prefix / "share", program, zsh).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(completion_script(command, program, shell))
            print(path)


if __name__ == "__main__":
    main()

"""The command that opens the studio."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.markup import escape
from tyro.conf import arg

from quickstudy.io.progress import console


@dataclass(frozen=True)
class Studio:
    """Open a page in the browser on which you show a robot a task with the mouse, and watch it learn."""

    run_folder: Annotated[tuple[Path, ...], arg(name="run", metavar="[RUN [RUN ...]]", help_behavior_hint="")] = ()
    """Your own trainings, beside the learners that come with the package."""
    output_dir: Path = Path("runs/studio")
    """Where demonstrations, skills and uploads are kept."""
    port: int = 8080
    """The first that is tried; the next free one is taken."""
    host: str = "127.0.0.1"
    """The address to listen on; any other than this machine's own needs a token."""
    token: str = ""
    """What the address must hold elsewhere than on 127.0.0.1; one is drawn where you give none."""
    language: Literal["en", "zh"] = "en"
    """Of the page, which can change it."""
    dark: bool = False
    """Begin with the dark page, which can change it."""

    def run(self) -> None:
        import time

        from quickstudy.studio import guard
        from quickstudy.studio.learning import choices
        from quickstudy.studio.server import Studio as Server

        found = choices(self.run_folder)
        studio = Server(
            found, self.output_dir.absolute(), host=self.host, port=self.port, token=self.token,
            language=self.language, dark=self.dark,
        )  # fmt: skip
        console.print(f"The studio is at [bold]{escape(studio.address)}[/]; Ctrl-C ends it.", soft_wrap=True)
        if not guard.is_local(self.host):
            console.print("Whoever has this address may use it, and the way there is not encrypted.", soft_wrap=True)
        try:
            while True:
                time.sleep(3600)
        finally:
            studio.close()

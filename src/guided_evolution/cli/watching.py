"""The verb that shows runs in a browser."""

from __future__ import annotations

from pathlib import Path

import click

from guided_evolution.errors import UsageError

DEFAULT = "runs"
NEEDS = {"jinja2", "markupsafe", "pygments", "starlette", "uvicorn"}


@click.command()
@click.argument("folder", default=DEFAULT, type=click.Path(path_type=Path))
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to serve on.  [default: the first free one from 8686]"
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to serve on. Any other than this machine's own can be reached from outside and needs the token "
    "that is printed.",
)
def ui(folder: Path, port: int | None, host: str) -> None:
    """Show the runs below FOLDER (default: runs), or one run, in a browser, live while they go."""
    try:
        from guided_evolution.ui.server import serve
    except ModuleNotFoundError as error:
        if error.name not in NEEDS:
            raise
        raise UsageError("ge ui needs: pip install 'guided-evolution[ui]'") from None

    # the default may not be there yet: a dashboard can be opened before the first run
    if not folder.is_dir() and folder != Path(DEFAULT):
        raise UsageError(f"{folder}: no such folder. `ge run PROBLEM` makes runs/, or name another: ge ui FOLDER.")

    def tell(address: str) -> None:
        click.echo(f"Showing {folder} at {address}  (Ctrl-C ends)", err=True)

    serve(folder, host, port, tell)

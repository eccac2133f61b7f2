"""The command line: verbs, and how they speak to a person. What they do lives elsewhere."""

from __future__ import annotations

import sys
import warnings

import click

from guided_evolution.cli import ablating, reading, replaying, running, setting_up, watching
from guided_evolution.errors import GuidedEvolutionError, UsageError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="guided-evolution", prog_name="guided-evolution")
def cli() -> None:
    """Evolve a program with a language model and multi-objective selection.

    A problem is a folder; `ge init my-problem` writes one that runs, `ge run my-problem` evolves it.
    """


def main() -> None:
    """Runs the command line and turns errors into one line and an exit code."""
    # a candidate's code is parsed here, and what Python has to say about its style is no news to the user
    warnings.filterwarnings("ignore", category=SyntaxWarning)
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except UsageError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except GuidedEvolutionError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


for command in (
    running.run,
    running.resume,
    running.check,
    ablating.ablate,
    replaying.replay,
    reading.runs,
    reading.show,
    reading.front,
    reading.diff,
    reading.export,
    reading.test,
    reading.report,
    watching.ui,
    setting_up.init,
    setting_up.models,
    setting_up.doctor,
):
    cli.add_command(command)

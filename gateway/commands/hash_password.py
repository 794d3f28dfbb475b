"""``tag-gateway hash-password``: what to write for ``[operator] password`` instead of the password itself."""

import sys

import click

from gateway.errors import CommandFailed


@click.command("hash-password")
def hash_password() -> None:
    """Print the argon2id hash of a password, read from the terminal (or one line of the standard input)."""
    from gateway.operator.passwords import MAX_BYTES, hashed

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise CommandFailed("The password is empty: type one, or give one line on the standard input.")
    if len(password.encode()) > MAX_BYTES:
        raise CommandFailed(f"The password is longer than {MAX_BYTES} bytes: take a shorter one.")
    click.echo(hashed(password))

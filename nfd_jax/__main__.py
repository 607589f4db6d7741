"""`nfd` and `python -m nfd_jax`, the same program; Ctrl-C is heard from its first moment on."""

import os
import signal


def _stop(*_: object) -> None:
    os.write(2, b"interrupted before anything was started\n")
    os._exit(130)


# For `cli`, which hears Ctrl-C itself once a command has begun.
_stop.before_start = True  # pyright: ignore[reportFunctionMemberAccess]


def main() -> None:
    """What the command nfd calls."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    from nfd_jax import _host

    _host.settle()
    from nfd_jax import cli  # takes half a second

    cli.main()


if __name__ == "__main__":
    main()

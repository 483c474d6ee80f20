"""The process behind `templates.render`: renders chat templates, which come with models and may do anything.

usage: python -P template_worker.py SOCKET CPU_SECONDS BYTES, where SOCKET is the number of an inherited socket. A line
in is [template, variables, most characters]; a line out is [text, ""], or [null, reason]. It imports nothing of this
package. A rendering that takes more than CPU_SECONDS, or than BYTES of memory, ends the process.
"""

import contextlib
import datetime
import functools
import json
import random
import resource
import signal
import socket
import sys

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

TODAY = datetime.datetime(2024, 7, 26)


def main() -> None:
    connection, seconds, memory = socket.socket(fileno=int(sys.argv[1])), float(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business
    render("{{ 'a' | trim }}", {}, 9)  # jinja imports some of itself late
    for limit, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0)):
        with contextlib.suppress(OSError, ValueError):  # not every system limits address space
            resource.setrlimit(limit, (value, value))
    connection.sendall(b"\n")
    for line in connection.makefile("rb"):
        # The alarm has no handler: the kernel ends the process, also inside a C function. It counts CPU time of this
        # process alone, so that a busy machine makes no difference.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        answer = render(*json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.sendall(json.dumps(answer).encode() + b"\n")


def render(template: str, variables: dict, most: int) -> tuple[str | None, str]:
    random.seed(0)  # the filter `random`
    parts, length = [], 0
    try:
        for part in compiled(template).generate(**variables):
            parts.append(part)
            length += len(part)
            if length > most:
                return None, f"it writes more than {most:,} characters"
        return "".join(parts), ""
    except MemoryError:
        raise  # ends the process, whose state is unknown now
    except jinja2.TemplateSyntaxError as error:
        return None, f"line {error.lineno}: {str(error.message)[:1000]}"
    except Exception as error:  # a template may raise anything
        return None, str(error)[:1000] or type(error).__name__


@functools.lru_cache(maxsize=16)
def compiled(template: str) -> jinja2.Template:
    """A template with the options, functions and filters that transformers gives it, and a fixed date."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, Generation]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": TODAY.strftime,
        "dict": lambda *given, **named: dict(*given, **named),
    }
    return environment.from_string(template)


class Generation(jinja2.ext.Extension):
    """{% generation %} marks what the assistant says; it changes nothing in the text."""

    tags = {"generation"}  # noqa: RUF012 - as jinja declares it

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def raise_exception(message):
    raise jinja2.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


if __name__ == "__main__":
    main()

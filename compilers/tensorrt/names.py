"""``names.h``: the plugins' names, version and namespace for C++, from the one operator table."""

from __future__ import annotations

from tatvpr_edge.spec.operators import PLUGINS


def names_header() -> str:
    """Text of ``names.h``."""
    one = next(iter(PLUGINS.values()))
    lines = [
        "// Generated from the operator table; do not edit.",
        f'#define TATVPR_PLUGIN_VERSION "{one.tensorrt_version}"',
        f'#define TATVPR_PLUGIN_NAMESPACE "{one.tensorrt_namespace}"',
    ]
    lines += [
        f'#define TATVPR_{operator.snake_name.upper()} "{operator.tensorrt_name}"'
        for operator in PLUGINS.values()
    ]
    return "\n".join(lines) + "\n"

"""What a server tells who watches it: counts and times in Prometheus' text form."""

from collections.abc import Iterable, Mapping

__all__ = ["CONTENT_TYPE", "Stages", "metrics_text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_QUANTILES = {"p50": "0.5", "p95": "0.95", "p99": "0.99"}

Stages = Mapping[str, Mapping[str, float]]


def metrics_text(
    counters: Mapping[str, int], gauges: Mapping[str, int | None], stages: Stages
) -> str:
    """Return the page.

    Args:
        counters: What only grows, by name.
        gauges: What goes up and down; None for what is not known.
        stages: Of each stage its `count`, and `p50`, `p95` and `p99` of the newest calls, ms.
    """
    lines: list[str] = []
    for name, value in counters.items():
        lines += _family(f"{name}_total", "counter", [("", value)])
    for name, known in gauges.items():
        if known is not None:
            lines += _family(name, "gauge", [("", known)])
    calls = [(f'{{stage="{stage}"}}', found["count"]) for stage, found in stages.items()]
    lines += _family("stage_calls_total", "counter", calls)
    times = [
        (f'{{stage="{stage}",quantile="{quantile}"}}', found[key])
        for stage, found in stages.items()
        for key, quantile in _QUANTILES.items()
    ]
    lines += _family("stage_milliseconds", "gauge", times)
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, samples: Iterable[tuple[str, float]]) -> list[str]:
    """Return one metric's lines."""
    values = [f"memorywam_{name}{labels} {float(value):.10g}" for labels, value in samples]
    return [f"# TYPE memorywam_{name} {kind}", *values]

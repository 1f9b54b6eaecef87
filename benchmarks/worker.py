"""One variant in a process of its own, so that its peak memory and its malloc settings are its own."""

from __future__ import annotations

import collections
import json
import resource
import sys
import time

import torch
from torch.profiler import ProfilerActivity, profile

from .cases import CASES, Settings, Work

# Operations that share a name for the table of shares; what none of them begins with is "other".
PARTS = {
    "attention and linear products": ("aten::bmm", "aten::baddbmm", "aten::addmm", "aten::mm", "aten::_scaled_dot"),
    "softmax and exponential": ("aten::_softmax", "aten::exp", "aten::amax"),
    "convolution": ("aten::mkldnn_conv", "aten::convolution", "aten::cudnn_conv", "aten::slow_conv", "aten::_conv"),
    "upsampling": ("aten::upsample",),
    "copies": ("aten::copy_", "aten::cat", "aten::index", "aten::roll", "aten::constant_pad", "aten::fill_"),
    "sums and products": ("aten::add", "aten::mul", "aten::sub", "aten::div", "aten::sum", "aten::neg"),
    "normalisation and activation": ("aten::native_layer_norm", "aten::native_batch", "aten::gelu", "aten::leaky"),
    "optimizer": ("aten::_fused_adam", "Optimizer"),
}


def shares(work: Work, cuda: bool) -> dict[str, float]:
    """Share of the time of one call that each kind of operation takes; of a GPU, ``"busy"``: that in which it works."""
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    if cuda:  # kernels do not bear the names of operations
        return {"busy": sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6 / seconds}
    times: dict[str, float] = collections.Counter()
    for event in profiler.key_averages():
        name = next((part for part, starts in PARTS.items() if event.key.startswith(starts)), "other")
        times[name] += event.self_cpu_time_total
    total = sum(times.values())
    return {name: value / total for name, value in sorted(times.items(), key=lambda item: -item[1])}


def measure(
    case: str, variant: str, settings: Settings, repeats: int, with_shares: bool = False, warm_up: bool = True
) -> dict:
    """Warm up once, then the seconds of each of ``repeats`` calls: of this process on a CPU, and by the clock."""
    cuda = settings.device.startswith("cuda")
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    work = CASES[case][0](settings, variant)

    def call() -> None:
        work()
        if cuda:
            torch.cuda.synchronize()

    if warm_up:
        call()
    seconds, clock = [], []
    for _ in range(repeats):
        start, of_process = time.perf_counter(), time.process_time()
        call()
        clock.append(time.perf_counter() - start)
        seconds.append(clock[-1] if cuda else time.process_time() - of_process)
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {"seconds": seconds, "clock": clock, "peak_gib": peak / 2**30}
    return result | ({"shares": shares(work, cuda)} if with_shares else {})


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request.pop("threads"))
    request["settings"] = Settings(**request["settings"])
    print("RESULT " + json.dumps(measure(**request)), flush=True)

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The order of writes over disks holds in every recovery point made under load."""

import struct

from harness import Bench, Failure, main

POINTS = 20


def number_in(image):
    with open(image, "rb") as f:
        record = f.read(4096)
    numbers = set(struct.unpack("<512Q", record))
    if len(numbers) != 1:
        raise Failure(f"{image.name}: a torn record: {sorted(numbers)[:4]}")
    return numbers.pop()


def cross_disk_order_in_every_point():
    """The writer repeats: n to disk A, then n to disk B. So B <= A <= B + 1 in every point."""
    with Bench(disks=2, mib=8, producer={"pattern": "ordered", "rate": 4000}, agent="batch_interval_ms = 20") as b:
        b.start()
        b.wait_state("CONTINUOUS")
        b.producer.ask("start")
        slots = b.slots()
        newest = 0
        for i in range(POINTS):
            point = b.mark()["point"]
            numbers = []
            for path in b.paths:
                image = b.export(point, slots[str(path)])
                numbers.append(number_in(image))
                image.unlink()
            n_a, n_b = numbers
            if not n_b <= n_a <= n_b + 1:
                raise Failure(f"point {point}: disk A holds {n_a}, disk B holds {n_b}")
            if n_a < newest or (i > 0 and n_a == 0):
                raise Failure(f"point {point}: disk A went back from {newest} to {n_a}")
            newest = n_a
        if newest < POINTS:
            raise Failure(f"the writer hardly wrote: newest number {newest}")
        b.producer.ask("stop")
        b.settled()
        b.check_equal("after the order oracle")


main([cross_disk_order_in_every_point])

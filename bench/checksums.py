#!/usr/bin/env python3
"""What the checksums of the workloads are, computed without any collector: a second reading of WORKLOADS.md.

    bench/checksums.py                          prints the table at the end of WORKLOADS.md
    bench/checksums.py PROGRAM ARGUMENTS..      runs `PROGRAM ARGUMENTS.. WORKLOAD key=value ..` for each row, and compares
    bench/checksums.py target/release/spanheap  the same for spanheap, which has `bench`, `--set` and `--json`

Nothing here is fast, so the sizes are small. A workload that a program does not have is skipped if it says so by
exiting with an error; a checksum that differs makes this exit with 1.
"""

import json
import os
import subprocess
import sys
from collections import OrderedDict

MASK = (1 << 64) - 1


class Random:
    def __init__(self, seed):
        z = (seed + 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        self.state = max(z ^ (z >> 31), 1)

    def next(self):
        self.state ^= self.state >> 12
        self.state ^= (self.state << 25) & MASK
        self.state ^= self.state >> 27
        return (self.state * 0x2545F4914F6CDD1D) & MASK

    def below(self, bound):
        return (self.next() * bound) >> 64


def power_100(x):
    x4 = (x * x) * (x * x)
    x16 = (x4 * x4) * (x4 * x4)
    x32 = x16 * x16
    return ((x32 * x32) * x32) * x4


class Zipf:
    def __init__(self, ranks):
        self.ranks = n = float(ranks)
        root = 1.25
        for _ in range(64):
            power = power_100(root)
            root = root - (power - n) * root / (100.0 * power)
        self.sum = -99.4235129777281 + 100.0 * root + 0.5 * root / n - 0.0825 * root / (n * n)
        self.second = 0.5034777750283594
        self.eta = (1.0 - 1.0069555500567189 / root) / (1.0 - (1.0 + self.second) / self.sum)

    def draw(self, random):
        uniform = random.below(1 << 53) / 2.0**53
        weight = uniform * self.sum
        if weight < 1.0:
            return 0
        if weight < 1.0 + self.second:
            return 1
        rank = self.ranks * power_100(self.eta * uniform - self.eta + 1.0)
        return min(int(rank), int(self.ranks) - 1)


def share(total, threads, index):
    return total // threads + (1 if index < total % threads else 0)


def nodes(depth):
    return 2 ** (depth + 1) - 1


def binary_trees(depth, arena=0, threads=1):
    return sum(2 ** (depth - d + 4) * nodes(d) for d in range(4, depth + 1, 2)) + nodes(depth)


def gcbench(stretch, longlived, array, min, max, threads=1):
    depths = range(min, max + 1, 2)
    trees = {d: 2 * nodes(stretch) // nodes(d) or 1 for d in depths}
    return sum(2 * trees[d] * (d + 1) for d in depths) + nodes(longlived) + array


def marking(shape, objects, rounds=1, threads=1):
    if shape != 1:
        return objects * (objects + 1) // 2
    random, groups, edges = Random(1), ([], [], []), []
    for number in range(objects):
        groups[(0, 1, 1, 2)[random.below(4)]].append(number)
    random = Random(2)
    for _ in range(objects):
        wanted = [groups[size] for size in (0, 1, 1, 2)]
        edges.append([group[random.below(len(group))] for group in wanted if group])
    seen, stack = set(), [groups[1][0]]
    while stack:
        number = stack.pop()
        if number not in seen:
            seen.add(number)
            stack.extend(edges[number])
    return sum(number + 1 for number in seen)


def message_bus(window, messages, size, rate=0, threads=1):
    total = 0
    for t in range(threads):
        mine, ring = share(messages, threads, t), share(window, threads, t)
        for n in range(mine):
            total += n + n % 256 * (1 if n < mine - ring else size)
    return total & MASK


def lru(entries, keys, operations, shards, threads=1):
    capacity = [max(1, share(entries, shards, index)) for index in range(shards)]
    # The words of the values by key, the newest one last.
    caches = [OrderedDict() for _ in range(shards)]

    def operate(t, rank, replaces, salt):
        z = ((rank ^ (rank >> 30)) + 0x9E3779B97F4A7C15) & MASK
        z = (z * 0xBF58476D1CE4E5B9) & MASK
        key = z ^ (z >> 27)
        mine = len(range(t, shards, threads))
        index = t + (key >> 40) % mine * threads
        cache = caches[index]
        if key in cache:
            word = cache[key]
            if replaces:
                cache[key] = rank ^ salt
            cache.move_to_end(key)
            return word + 1
        while len(cache) >= capacity[index]:
            cache.popitem(last=False)
        cache[key] = rank ^ salt
        return cache[key]

    total = 0
    for t in range(threads):
        for rank in reversed(range(share(entries, threads, t))):
            operate(t, rank, False, 0)
        zipf, random = Zipf(-(-keys // threads)), Random(t)
        for number in range(share(operations, threads, t)):
            rank = zipf.draw(random)
            total += operate(t, rank, random.below(10) == 0, number)
    return total & MASK


def spatial_index(points, operations, k, threads=1):
    total, side, step = 0, 1 << 24, 1 << 14

    def moved(coordinate, by):
        return min(max(coordinate + by - step, 0), side - 1)

    for t in range(threads):
        random, count = Random(100 + t), share(points, threads, t)
        table = [(random.below(side), random.below(side), 0) for _ in range(count)]
        for _ in range(share(operations, threads, t)):
            if random.below(10) == 0:
                index, dx, dy = (random.below(b) for b in (count, 2 * step + 1, 2 * step + 1))
                x, y, version = table[index]
                table[index] = (moved(x, dx), moved(y, dy), version + 1)
                continue
            x, y = random.below(side), random.below(side)
            far = sorted(((p[0] - x) ** 2 + (p[1] - y) ** 2, i) for i, p in enumerate(table))
            for place, (distance, index) in enumerate(far[:k]):
                total += (place + 1) * (distance + index) + table[index][2]
        total += sum((i + 1) * (v + 1) + x + y for i, (x, y, v) in enumerate(table))
    return total & MASK


def write_storm(slots, nodes, stores, threads=1):
    total = 0
    for part in (4096, 64, 1):
        each = max(2, slots // part // threads)
        for t in range(threads):
            table = [index % nodes for index in range(each)]
            for repeat in range(5):
                random = Random(t * 256 + repeat)
                for _ in range(share(max(1, stores // 3 // 4), threads, t)):
                    i, j = random.below(each), random.below(each)
                    table[i] = table[j]
            total += sum(number * (index + 1) for index, number in enumerate(table))
    return total & MASK


def start_up(rounds, objects, threads=1):
    return sum(r + i for r in range(rounds) for i in range(objects)) & MASK


ROWS = [
    (binary_trees, {"depth": 10}, 1),
    (binary_trees, {"depth": 10, "arena": 1}, 2),
    (gcbench, {"stretch": 10, "longlived": 8, "array": 1000, "min": 4, "max": 10}, 1),
    *((marking, {"shape": shape, "objects": 5000, "rounds": 1}, 1) for shape in range(6)),
    *((message_bus, {"window": 100, "messages": 5000, "size": 64}, t) for t in (1, 2)),
    *((lru, {"entries": 1000, "keys": 3000, "operations": 20000, "shards": 8}, t) for t in (1, 2)),
    *((spatial_index, {"points": 2000, "operations": 1000, "k": 10}, t) for t in (1, 2)),
    *((write_storm, {"slots": 8192, "nodes": 1000, "stores": 300000}, t) for t in (1, 2)),
    (start_up, {"rounds": 3, "objects": 100}, 1),
]


def main(program):
    failed = False
    for function, settings, threads in ROWS:
        name = function.__name__.replace("_", "-")
        words = [f"{key}={value}" for key, value in settings.items()]
        shown = " ".join(words + ([f"threads={threads}"] if threads > 1 else []))
        expected = function(threads=threads, **settings)
        if not program:
            print(f"| {name} | `{shown}` | {expected} |")
            continue
        if len(program) == 1 and os.path.basename(program[0]) == "spanheap":
            line = ["bench", name, "--json", "--threads", str(threads), "--set", *words]
        else:
            line = [name, *words, f"threads={threads}"]
        run = subprocess.run(program + line, capture_output=True, text=True)
        if run.returncode != 0:
            print(f"skipped   {name} {shown}: {run.stderr.strip()}")
            continue
        found = json.loads(run.stdout)["checksum"]
        failed |= found != expected
        print("the same " if found == expected else f"{found} and not {expected}:", name, shown)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

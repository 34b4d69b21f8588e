#!/usr/bin/env python3
"""Joins the JSON of `ops_cuda` and that of a run of `bench_peers.py` on the same card into one table.

    python3 benches/join_peers.py ours.json peers.json [--markdown]

`ratio` is the fastest peer's time over ours: above 1, ours is faster. Where ours is several of the peers' cases in one,
their times are added. Times in a graph are compared with times in a graph, others with others.
"""
import argparse
import json
import sys


def peers_by_case(path):
    """The right rows of a run, by (op, shape)."""
    cases = {}
    for row in json.load(open(path))["rows"]:
        if "fail" not in row and row.get("ok", True) and row.get("ms"):
            cases.setdefault((row["op"], row["shape"]), []).append(row)
    return cases


def fastest(rows, key):
    """The fastest of the rows that have a time of this kind."""
    timed = [row for row in rows if row.get(key)]
    return min(timed, key=lambda row: row[key]) if timed else None


def join(ours, cases):
    """One line for each of our rows."""
    lines = []
    for row in ours["rows"]:
        if "fail" in row:
            lines.append([row["op"], row["shape"], "failed", "", "", "", "", ""])
            continue
        key = "ms_graph" if row.get("ms_graph") else "ms"
        wanted = [(peer["op"], peer["shape"]) for peer in row["peers"]]
        best = [fastest(cases.get(case, []), key) for case in wanted]
        if key == "ms_graph" and best and not all(best):
            key, best = "ms", [fastest(cases.get(case, []), "ms") for case in wanted]
        peer_ms = sum(peer[key] for peer in best) if best and all(best) else None
        names = " + ".join(dict.fromkeys(peer["peer"] for peer in best)) if peer_ms else ""
        lines.append([
            row["op"], row["shape"] + ("" if row["ok"] else " WRONG"), "%.4f" % row[key],
            "graph" if key == "ms_graph" else "", "%.3f of %s" % (row["share"], row["of"]), names,
            "%.4f" % peer_ms if peer_ms else "", "%.2f" % (peer_ms / row[key]) if peer_ms else "",
        ])
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("ours")
    parser.add_argument("peers")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    ours = json.load(open(arguments.ours))
    lines = join(ours, peers_by_case(arguments.peers))
    head = ["op", "shape", "ms", "in", "share", "fastest peer", "peer ms", "ratio"]
    ceilings = ours["ceilings"]
    print("%s: bf16 matmul %.0f TFLOP/s, fp8 matmul %.0f TFLOP/s, copy %.0f GB/s\n" % (
        ours["device"], ceilings["bf16_tflops"], ceilings["fp8_tflops"], ceilings["copy_GBps"]))
    if arguments.markdown:
        for line in [head, ["---"] * len(head)] + lines:
            print("| " + " | ".join(line) + " |")
        return
    widths = [max(len(line[column]) for line in [head] + lines) for column in range(len(head))]
    for line in [head] + lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


if __name__ == "__main__":
    sys.exit(main())

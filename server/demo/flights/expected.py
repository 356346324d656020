#!/usr/bin/env python3
"""Computes what every view of the demo must hold, from the CSV files alone, and writes expected/*.json.

    python3 expected.py            write the files
    python3 expected.py --check    compute again and compare with the files, byte for byte

expected/digests.json names the digests of what was read and of what was written; a test of foldlog compares them, so that
neither changes without the other.

Shares nothing with foldlog: standard library only, no events, no SQL. One list of rows for each number of days replayed (the
first day alone, the first two, ... all seven), each row in the order of "columns", rows sorted by key.
"""

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent


def table(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def is_cancelled(flight: dict[str, str]) -> bool:
    return flight["departure_delay"] == ""


def is_diverted(flight: dict[str, str]) -> bool:
    return flight["departure_delay"] != "" and flight["air_time"] == ""


def is_landed(flight: dict[str, str]) -> bool:
    return flight["departure_delay"] != "" and flight["air_time"] != ""


def groups(flights, *columns):
    grouped = defaultdict(list)
    for flight in flights:
        grouped[tuple(flight[column] for column in columns)].append(flight)
    return sorted(grouped.items())


def landed_groups(flights, *columns):
    return groups([flight for flight in flights if is_landed(flight)], *columns)


def numbers(flights, column: str) -> list[int]:
    return [int(flight[column]) for flight in flights]


def events(flights):
    count = len(flights)
    cancelled = sum(map(is_cancelled, flights))
    diverted = sum(map(is_diverted, flights))
    departed = count - cancelled
    return [
        ["FlightArrived", departed - diverted],
        ["FlightCancelled", cancelled],
        ["FlightDeparted", departed],
        ["FlightDiverted", diverted],
        ["FlightScheduled", count],
    ]


def delays_by_carrier(flights):
    result = []
    for (carrier,), group in landed_groups(flights, "carrier"):
        delays = numbers(group, "arrival_delay")
        late = sum(delay > 15 for delay in delays)
        result.append([carrier, len(delays), late, sum(delays), sum(delays) / len(delays), min(delays), max(delays)])
    return result


def airport_board(flights):
    result = []
    for (origin, day), group in groups(flights, "origin", "day"):
        waits = [int(flight["departure_delay"]) for flight in group if not is_cancelled(flight)]
        result.append([
            origin,
            day,
            len(group),
            len(waits),
            sum(map(is_landed, group)),
            sum(map(is_cancelled, group)),
            sum(map(is_diverted, group)),
            max(waits, default=None),
        ])
    return result


def worst_routes(flights):
    result = []
    for (origin, dest), group in landed_groups(flights, "origin", "dest"):
        delays = numbers(group, "arrival_delay")
        miles = sum(numbers(group, "distance"))
        fastest = min(numbers(group, "air_time"))
        result.append([origin, dest, len(delays), sum(delays) / len(delays), max(delays), fastest, miles])
    return result


def report(flights):
    names = {row["carrier"]: row["name"] for row in table("carriers.csv")}
    rows = [
        [names[carrier], landed, late, average, worst]
        for carrier, landed, late, _, average, _, worst in delays_by_carrier(flights)
        if landed >= 10
    ]
    return sorted(rows, key=lambda row: (-row[3], row[0]))


EXPECTED = {
    "events": (events, ["type", "events"]),
    "delays_by_carrier": (
        delays_by_carrier,
        ["carrier", "landed", "late", "minutes_late", "average_delay", "best", "worst"],
    ),
    "airport_board": (
        airport_board,
        ["origin", "day", "scheduled", "departed", "arrived", "cancelled", "diverted", "longest_wait"],
    ),
    "worst_routes": (worst_routes, ["origin", "dest", "landed", "average_delay", "worst", "fastest", "miles"]),
    "report": (report, ["name", "landed", "late", "average_delay", "worst"]),
}


def text(compute, columns, flights) -> str:
    """One row a line, so that a changed figure is a changed line."""
    days = sorted({flight["day"] for flight in flights})
    parts = []
    for count in range(1, len(days) + 1):
        replayed = [flight for flight in flights if flight["day"] in days[:count]]
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in compute(replayed))
        parts.append(f'"{count}": [\n{lines}\n]')
    return f'{{"columns": {json.dumps(columns)},\n"days": {{\n' + ",\n".join(parts) + "\n}}\n"


def digest(content: bytes) -> str:
    """FNV-1a of 64 bits: a few lines in any language."""
    value = 0xCBF29CE484222325
    for byte in content:
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return f"{value:016x}"


def digests(files: dict[str, str]) -> str:
    read = {name: (HERE / name).read_bytes() for name in ("flights.csv", "carriers.csv")}
    written = {f"expected/{name}.json": text.encode() for name, text in files.items()}
    return json.dumps({name: digest(content) for name, content in {**read, **written}.items()}, indent=0) + "\n"


def main() -> None:
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    flights = table("flights.csv")
    folder = HERE / "expected"
    folder.mkdir(exist_ok=True)
    files = {name: text(compute, columns, flights) for name, (compute, columns) in EXPECTED.items()}
    for name, wanted in {**files, "digests": digests(files)}.items():
        path = folder / f"{name}.json"
        if check and path.read_text(encoding="utf-8") != wanted:
            sys.exit(f"{path.name} is not what the CSV files say: run expected.py without --check and look at the difference")
        if not check:
            path.write_text(wanted, encoding="utf-8")
    print(f"{len(files) + 1} files {'agree with' if check else 'written from'} {len(flights)} flights")


if __name__ == "__main__":
    main()

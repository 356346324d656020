"""adhoc.py ROWS REPEATS < QUERIES: plain DataFusion over the record batches of an Arrow IPC stream, on two threads and on one.

A query a line, of one row and one column each; says its answer and the medians of its times: ANSWER<TAB>SECONDS<TAB>SECONDS.
"""

import statistics
import sys
import time

import datafusion
import pyarrow

rows, repeats = sys.argv[1], int(sys.argv[2])
with pyarrow.OSFile(rows) as file:
    table = pyarrow.ipc.open_stream(file).read_all()


def context(threads):
    of_rows = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(threads))
    of_rows.register_record_batches("accounts", [table.to_batches()])
    return of_rows


def seconds(of_rows, query):
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        answer = of_rows.sql(query).collect()
        times.append(time.perf_counter() - began)
    return answer[0].column(0)[0].as_py(), statistics.median(times)


two, one = context(2), context(1)
for line in sys.stdin:
    answer, on_two = seconds(two, line)
    _, on_one = seconds(one, line)
    print(answer, on_two, on_one, sep="\t")

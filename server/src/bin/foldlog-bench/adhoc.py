"""adhoc.py ROWS REPEATS < QUERIES: plain DataFusion over the record batches of an Arrow IPC stream, on two threads.

A query a line, of one row and one column each; says its answer and the median of its times: ANSWER<TAB>SECONDS.
"""

import statistics
import sys
import time

import datafusion
import pyarrow

rows, repeats = sys.argv[1], int(sys.argv[2])
with pyarrow.OSFile(rows) as file:
    table = pyarrow.ipc.open_stream(file).read_all()
context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(2))
context.register_record_batches("accounts", [table.to_batches()])
for line in sys.stdin:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        answer = context.sql(line).collect()
        times.append(time.perf_counter() - began)
    print(answer[0].column(0)[0].as_py(), statistics.median(times), sep="\t")

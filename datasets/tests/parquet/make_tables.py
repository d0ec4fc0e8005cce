"""Writes the tables beside this file, which the tests of packing read, with the Python package `pyarrow`.

    python3 make_tables.py
"""

import pyarrow as pa
import pyarrow.parquet as pq

TEXTS = ["The first row.", "na\u00efve \U0001f600 text\n\nwith lines", "", "The first row.", "the last one"]


def write(name, texts, **options):
    table = pa.table({"id": pa.array(range(len(texts)), pa.int32()), "text": texts, "body": texts, "raw": [b"\xff"] * len(texts)})
    pq.write_table(table, name, write_statistics=False, store_schema=False, **options)


write("snappy.parquet", pa.array(TEXTS), compression="snappy")
write("zstd.parquet", pa.array(TEXTS), compression="zstd", data_page_version="2.0", row_group_size=2)
write("gzip.parquet", pa.array(TEXTS, pa.large_string()), compression="gzip", use_dictionary=False)
write("plain.parquet", pa.array(TEXTS), compression="none", use_dictionary=False, column_encoding={
    "id": "PLAIN", "text": "DELTA_BYTE_ARRAY", "body": "DELTA_LENGTH_BYTE_ARRAY", "raw": "PLAIN"})
write("null.parquet", pa.array(["one", None, "three"]), compression="snappy")
write("lz4.parquet", pa.array(TEXTS), compression="lz4")
nested = pa.table({"text": [["a", "b"], ["c"]], "number": [1.5, 2.5]})
pq.write_table(nested, "nested.parquet", compression="snappy", write_statistics=False, store_schema=False)

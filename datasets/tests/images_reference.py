"""The order of the embedded digits and the draws of the sampler, worked out without the library.

    python3 images_reference.py ../data/digits.csv.gz

Python's whole numbers have no width to overflow by accident. The printed numbers stand in images.rs.
"""

import gzip
import hashlib
import sys

M = (1 << 64) - 1


def splitmix64(z):
    z = (z + 0x9E3779B97F4A7C15) & M
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
    return z ^ (z >> 31)


def order(count, seed):
    key, order = splitmix64(seed), list(range(count))
    for i in range(count - 1, 0, -1):
        j = (splitmix64((key + i) & M) * (i + 1)) >> 64
        order[i], order[j] = order[j], order[i]
    return order


def indices(seed, t, b, n):
    return [(splitmix64((splitmix64(seed) + t * b + i) & M) * n) >> 64 for i in range(b)]


rows = [list(map(int, line.split(","))) for line in gzip.open(sys.argv[1], "rt")]
order = order(len(rows), 1797)
border = int(len(rows) * (1 - 0.2))
train, valid = order[:border], order[border:]
print("sizes", len(train), len(valid))
print("first labels of train", [rows[i][64] for i in train[:12]])
print("last labels of valid", [rows[i][64] for i in valid[-12:]])
for name, split in [("train", train), ("valid", valid)]:
    data = bytes(value for i in split for value in rows[i])
    print(name, "sha256 of pixels and label of every image as bytes", hashlib.sha256(data).hexdigest())
    print(name, "images by class", [sum(rows[i][64] == c for i in split) for c in range(10)])
for case in [(1337, 0, 4, 1437), (1337, 1999, 4, 60000), (0, 3, 3, 10), (M, M, 5, 1437)]:
    print("indices", case, indices(*case))

"""Accuracy against bytes: dense tables of 32, 8 and 4 bits, hashing, digits, and learnt codes of each kind, at several sizes.

    python benchmarks/frontier.py beauty [--teachers 3] [--only d64-product-16x256-int4 ...] [--threads 1]

Teachers are the preset `lsan` (or recipes/DATASET/lsan.toml) with seeds 0, 1, ...; those that are in
runs/accuracy-DATASET/ are used. Trains into runs/frontier-DATASET/ (what is there is used), evaluates each model on the test
cases once, and keeps it in benchmarks/results/frontier-DATASET.json, with a picture. Bytes are those of the model file, without ids and titles.
"""

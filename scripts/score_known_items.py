#!/usr/bin/env python3
"""Online Retail's lists against what was sold before the cut: score_known_items.py EVENTS BACKTEST [--new]

EVENTS is the data set as it comes (CustomerID, StockCode, Quantity, InvoiceDate), BACKTEST the folder that an
evaluation wrote (user_id, rank, item_id). The truth is what customers bought from 1 November 2011 on, of
customers and items that were there before; with --new without what the customer had bought before. Prints the
number of customers, Recall@20 and NDCG@20 (ideal cut at 20), means over all customers of the truth.
"""
import collections
import datetime
import math
import sys

import pyarrow.parquet as pq

K = 20
CUT = datetime.datetime(2011, 11, 1)


def moment(value):
    if isinstance(value, datetime.datetime):
        return value
    style = "%m/%d/%Y %H:%M" if "/" in value else "%Y-%m-%d %H:%M:%S"
    return datetime.datetime.strptime(value, style)


rows = pq.read_table(sys.argv[1], columns=["CustomerID", "StockCode", "Quantity", "InvoiceDate"]).to_pydict()
before, after = collections.defaultdict(set), collections.defaultdict(set)
for customer, item, quantity, time in zip(*rows.values()):
    if customer is not None and not math.isnan(float(customer)) and quantity > 0:
        (before if moment(time) < CUT else after)[str(int(float(customer)))].add(item)
known = set().union(*before.values())
truth = {customer: items & known for customer, items in after.items() if customer in before}
if "--new" in sys.argv:
    truth = {customer: items - before[customer] for customer, items in truth.items()}
truth = {customer: items for customer, items in truth.items() if items}

listed = collections.defaultdict(list)
for row in pq.read_table(sys.argv[2], columns=["user_id", "rank", "item_id"]).to_pylist():
    if row["rank"] <= K:
        listed[str(row["user_id"])].append((row["rank"], row["item_id"]))
recall = ndcg = 0.0
for customer, wanted in truth.items():
    hits = [rank for rank, item in listed[customer] if item in wanted]
    recall += len(hits) / len(wanted)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(wanted), K) + 1))
    ndcg += sum(1 / math.log2(rank + 1) for rank in hits) / ideal
print(f"{len(truth)} customers, items sold before the cut: R@20 {recall / len(truth):.4f}, N@20 {ndcg / len(truth):.4f}")

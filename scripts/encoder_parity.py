#!/usr/bin/env python3
"""Compare our embeddings with sentence-transformers' on the same texts and model.

    encoder_parity.py TEXTS.parquet MODEL_DIR EMBEDDINGS.parquet [--max-tokens 128] [--at-least 0.9999]

TEXTS has a column of ids and one of texts; EMBEDDINGS is what `lamplighter encode` wrote from it
(ids and `embedding`). Rows are matched by id. Prints the smallest and the mean cosine, the largest
distance from norm 1, and the texts that agree least. Exit status: 0 every cosine is at least the
threshold, 1 one is not, 2 the files do not belong together. Needs sentence-transformers and pyarrow.
"""

import argparse
import sys

import numpy as np
import pyarrow.parquet as pq


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("texts")
    parser.add_argument("model")
    parser.add_argument("embeddings")
    parser.add_argument("--id", default="item_id", help="the id column of both files")
    parser.add_argument("--text", default="title", help="the text column")
    parser.add_argument("--max-tokens", type=int, default=128, help="what `lamplighter encode` was given")
    parser.add_argument("--at-least", type=float, default=0.9999, help="the smallest cosine allowed")
    args = parser.parse_args()

    given = pq.read_table(args.texts, columns=[args.id, args.text]).to_pydict()
    ours = pq.read_table(args.embeddings, columns=[args.id, "embedding"])
    rows = {id: at for at, id in enumerate(ours[args.id].to_pylist())}
    ids, texts = given[args.id], [text or "" for text in given[args.text]]
    if not ids or len(rows) != len(ours) or set(ids) != set(rows):
        print(f"{args.embeddings} does not hold the ids of {args.texts}, each once", file=sys.stderr)
        return 2
    vectors = ours["embedding"].combine_chunks()
    ours = np.asarray(vectors.flatten(), np.float64).reshape(len(vectors), -1)[[rows[id] for id in ids]]

    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(args.model, device="cpu")
    model.max_seq_length = args.max_tokens
    theirs = model.encode(texts, normalize_embeddings=True, show_progress_bar=False).astype(np.float64)
    if ours.shape != theirs.shape:
        print(f"ours are {ours.shape}, theirs are {theirs.shape}", file=sys.stderr)
        return 2

    norms = np.linalg.norm(ours, axis=1)
    cosines = (ours * theirs).sum(axis=1) / (norms * np.linalg.norm(theirs, axis=1))
    print(f"{len(ids)} texts: cosine min {cosines.min():.7f}, mean {cosines.mean():.7f}; "
          f"norm within {abs(norms - 1).max():.1e} of 1")
    for at in np.argsort(cosines, kind="stable")[:5]:
        print(f"  {cosines[at]:.7f}  {texts[at][:60]!r}")
    # A NaN is below any threshold.
    return 0 if cosines.min() >= args.at_least else 1


if __name__ == "__main__":
    sys.exit(main())

"""Pruning recipes: raw videos and annotations in, verified shards out, a reason for every sample.

Every stage reads tables and writes a table; only `write` touches tar files. The road, in order:

    annotations -> conversation, probe -> exact duplicates, contamination -> frames -> near-duplicates
        -> necessity -> select -> plan -> write -> publish
"""

"""A corpus with planted faults, on which a pruning recipe is judged.

Leaves media, annotations, a mixture, exclusion lists, and two files of truth: what was planted in every record and in
every media file, and what should become of it. `config` says how much of what, `clips` and `copies` and `damage` make
media, `records` and `blind` and `malformed` make records, `build` puts them together and `truth` judges decisions.
"""

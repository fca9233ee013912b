"""Knowledge as a folder: shards cut by rows, the teacher's item ids, a card, and a manifest that is written last.

knowledge.json            what it is, and the bytes and sha256 of every shard; without it the folder is unfinished
item_ids.json             the teacher's catalogue
query-00000.safetensors   all query_* tables of the first rows, then query-00001 ...
item-00000.safetensors    all item_* tables
README.md                 the dataset card
"""

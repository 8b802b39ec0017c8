"""A seeded simulation of clients, workers, store and clock, with an auditor that predicts every balance.

Everything that decides about money is the product's own code: charging, ledger, store, its pipelining link, its
scripts. What stands around it is made of one seed: the event loop jumps from timer to timer (``virtual_time``), Redis
is a dictionary that runs the real Lua scripts (``memory_redis``), clients repeat, overtake and fall silent
(``clients``), workers and connections die (``world``). The same seed gives the same run, down to the last answer.

    make sim SEEDS=1000          # seeds 1 to 1000; a failing seed prints itself
    make sim SEED=417            # that one alone, with what happened
"""

"""``occ decode``: Diameter messages for people, with what is wrong with them.

::

    source     hex text, octets, pcap or pcapng  ->  messages as they were found
    capture, packets, streams    capture file -> packets -> TCP and SCTP streams -> messages
    tree       a message as a tree of AVPs, as far as it can be read at all
    faults     what the server's validation says of it: the first error, and all others
    remarks    what a rule is; rules_base, rules_request, rules_answer hold the rules for one message
    exchange   the rules between messages: pairs of request and answer, sessions
    document   the same as plain data for JSON

Nothing in here raises for what it is given to read, but ``source`` when there is nothing in it.
"""

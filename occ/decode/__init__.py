"""``occ decode``: Diameter messages for people, with what is wrong with them.

::

    source     hexadecimal text (hextext), octets or a capture file, to messages as they were found
    streams    a capture file (capture) to packets (packets) to TCP and SCTP streams, and those to messages
    messages   puts the rest together: messages as they were found, to messages with all that is said about them
    tree       a message as a tree of AVPs, as far as it can be read at all; names of what the dictionary lacks (names)
    faults     what the server's validation says of it: the first error, and all others
    remarks    what a rule is; the rules for one message are in rules_base, rules_request and rules_answer
    exchange   the rules between messages: pairs of request and answer, sessions
    document   all of it as plain data for JSON

Nothing in here raises for what it is given to read, but ``source`` when there is nothing in it.
"""

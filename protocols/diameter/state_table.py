"""The peer state machine of RFC 6733 section 5.6, as data.

`TRANSITIONS[state][event]` is the pair of actions and next state, line for line as the RFC prints
it. A pair that is missing is illegal: nothing here gives it a meaning, and `protocols.diameter.peer`
says at the place where it can occur what is done instead.

The names keep the RFC's prefixes: I_ is the connection that we opened (initiator), R_ the one that
we accepted (responder).
"""

from enum import Enum, auto
from typing import Final


class PeerState(Enum):
    """States of RFC 6733 5.6."""

    CLOSED = "Closed"
    WAIT_CONN_ACK = "Wait-Conn-Ack"
    WAIT_I_CEA = "Wait-I-CEA"
    WAIT_CONN_ACK_ELECT = "Wait-Conn-Ack/Elect"
    WAIT_RETURNS = "Wait-Returns"
    R_OPEN = "R-Open"
    I_OPEN = "I-Open"
    CLOSING = "Closing"


class PeerInput(Enum):
    """Events of RFC 6733 5.6.2."""

    START = auto()
    R_CONN_CER = auto()
    I_RCV_CONN_ACK = auto()
    I_RCV_CONN_NACK = auto()
    TIMEOUT = auto()
    I_RCV_CEA = auto()
    I_RCV_NON_CEA = auto()
    I_PEER_DISC = auto()
    R_PEER_DISC = auto()
    WIN_ELECTION = auto()
    SEND_MESSAGE = auto()
    I_RCV_MESSAGE = auto()
    R_RCV_MESSAGE = auto()
    I_RCV_DWR = auto()
    R_RCV_DWR = auto()
    I_RCV_DWA = auto()
    R_RCV_DWA = auto()
    STOP = auto()
    I_RCV_DPR = auto()
    R_RCV_DPR = auto()
    I_RCV_DPA = auto()
    R_RCV_DPA = auto()


class Action(Enum):
    """Actions of RFC 6733 5.6.3."""

    I_SND_CONN_REQ = auto()
    R_ACCEPT = auto()
    R_REJECT = auto()
    PROCESS_CER = auto()
    PROCESS_CEA = auto()
    I_SND_CER = auto()
    R_SND_CEA = auto()
    CLEANUP = auto()
    ERROR = auto()
    ELECT = auto()
    I_DISC = auto()
    R_DISC = auto()
    I_SND_MESSAGE = auto()
    R_SND_MESSAGE = auto()
    PROCESS = auto()
    PROCESS_DWR = auto()
    PROCESS_DWA = auto()
    I_SND_DWA = auto()
    R_SND_DWA = auto()
    I_SND_DPR = auto()
    R_SND_DPR = auto()
    I_SND_DPA = auto()
    R_SND_DPA = auto()


Transition = tuple[tuple[Action, ...], PeerState]

_S = PeerState
_E = PeerInput
_A = Action

TRANSITIONS: Final[dict[PeerState, dict[PeerInput, Transition]]] = {
    _S.CLOSED: {
        _E.START: ((_A.I_SND_CONN_REQ,), _S.WAIT_CONN_ACK),
        _E.R_CONN_CER: ((_A.R_ACCEPT, _A.PROCESS_CER, _A.R_SND_CEA), _S.R_OPEN),
    },
    _S.WAIT_CONN_ACK: {
        _E.I_RCV_CONN_ACK: ((_A.I_SND_CER,), _S.WAIT_I_CEA),
        _E.I_RCV_CONN_NACK: ((_A.CLEANUP,), _S.CLOSED),
        _E.R_CONN_CER: ((_A.R_ACCEPT, _A.PROCESS_CER), _S.WAIT_CONN_ACK_ELECT),
        _E.TIMEOUT: ((_A.ERROR,), _S.CLOSED),
    },
    _S.WAIT_I_CEA: {
        _E.I_RCV_CEA: ((_A.PROCESS_CEA,), _S.I_OPEN),
        _E.R_CONN_CER: ((_A.R_ACCEPT, _A.PROCESS_CER, _A.ELECT), _S.WAIT_RETURNS),
        _E.I_PEER_DISC: ((_A.I_DISC,), _S.CLOSED),
        _E.I_RCV_NON_CEA: ((_A.ERROR,), _S.CLOSED),
        _E.TIMEOUT: ((_A.ERROR,), _S.CLOSED),
    },
    _S.WAIT_CONN_ACK_ELECT: {
        _E.I_RCV_CONN_ACK: ((_A.I_SND_CER, _A.ELECT), _S.WAIT_RETURNS),
        _E.I_RCV_CONN_NACK: ((_A.R_SND_CEA,), _S.R_OPEN),
        _E.R_PEER_DISC: ((_A.R_DISC,), _S.WAIT_CONN_ACK),
        _E.R_CONN_CER: ((_A.R_REJECT,), _S.WAIT_CONN_ACK_ELECT),
        _E.TIMEOUT: ((_A.ERROR,), _S.CLOSED),
    },
    _S.WAIT_RETURNS: {
        _E.WIN_ELECTION: ((_A.I_DISC, _A.R_SND_CEA), _S.R_OPEN),
        _E.I_PEER_DISC: ((_A.I_DISC, _A.R_SND_CEA), _S.R_OPEN),
        _E.I_RCV_CEA: ((_A.R_DISC,), _S.I_OPEN),
        _E.R_PEER_DISC: ((_A.R_DISC,), _S.WAIT_I_CEA),
        _E.R_CONN_CER: ((_A.R_REJECT,), _S.WAIT_RETURNS),
        _E.TIMEOUT: ((_A.ERROR,), _S.CLOSED),
    },
    _S.R_OPEN: {
        _E.SEND_MESSAGE: ((_A.R_SND_MESSAGE,), _S.R_OPEN),
        _E.R_RCV_MESSAGE: ((_A.PROCESS,), _S.R_OPEN),
        _E.R_RCV_DWR: ((_A.PROCESS_DWR, _A.R_SND_DWA), _S.R_OPEN),
        _E.R_RCV_DWA: ((_A.PROCESS_DWA,), _S.R_OPEN),
        _E.R_CONN_CER: ((_A.R_REJECT,), _S.R_OPEN),
        _E.STOP: ((_A.R_SND_DPR,), _S.CLOSING),
        _E.R_RCV_DPR: ((_A.R_SND_DPA,), _S.CLOSING),
        _E.R_PEER_DISC: ((_A.R_DISC,), _S.CLOSED),
    },
    _S.I_OPEN: {
        _E.SEND_MESSAGE: ((_A.I_SND_MESSAGE,), _S.I_OPEN),
        _E.I_RCV_MESSAGE: ((_A.PROCESS,), _S.I_OPEN),
        _E.I_RCV_DWR: ((_A.PROCESS_DWR, _A.I_SND_DWA), _S.I_OPEN),
        _E.I_RCV_DWA: ((_A.PROCESS_DWA,), _S.I_OPEN),
        _E.R_CONN_CER: ((_A.R_REJECT,), _S.I_OPEN),
        _E.STOP: ((_A.I_SND_DPR,), _S.CLOSING),
        _E.I_RCV_DPR: ((_A.I_SND_DPA,), _S.CLOSING),
        _E.I_PEER_DISC: ((_A.I_DISC,), _S.CLOSED),
    },
    _S.CLOSING: {
        _E.I_RCV_DPA: ((_A.I_DISC,), _S.CLOSED),
        _E.R_RCV_DPA: ((_A.R_DISC,), _S.CLOSED),
        _E.TIMEOUT: ((_A.ERROR,), _S.CLOSED),
        _E.I_PEER_DISC: ((_A.I_DISC,), _S.CLOSED),
        _E.R_PEER_DISC: ((_A.R_DISC,), _S.CLOSED),
    },
}

OPEN_STATES: Final = frozenset((PeerState.I_OPEN, PeerState.R_OPEN))

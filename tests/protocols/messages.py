"""Credit-control requests for tests, put together AVP by AVP so that each can be changed, dropped or repeated.

Everything here is packed by hand with ``struct``: the codec under test does not get to check itself.
"""

import struct
from collections.abc import Sequence

VENDOR_3GPP = 10415
MANDATORY = 0x40
VENDOR = 0x80


def packed(code: int, data: bytes, *, vendor: int = 0, flags: int = MANDATORY, length: int | None = None) -> bytes:
    """One AVP, padded. ``length`` overrides the length field."""
    header = 12 if vendor or flags & VENDOR else 8
    size = header + len(data) if length is None else length
    octets = struct.pack(">II", code, (flags | (VENDOR if vendor else 0)) << 24 | size)
    if header == 12:
        octets += struct.pack(">I", vendor)
    return octets + data + bytes(-len(data) % 4)


def u32(code: int, value: int, *, vendor: int = 0, flags: int = MANDATORY) -> bytes:
    return packed(code, struct.pack(">I", value), vendor=vendor, flags=flags)


def u64(code: int, value: int) -> bytes:
    return packed(code, struct.pack(">Q", value))


def group(code: int, *members: bytes, vendor: int = 0, flags: int = MANDATORY) -> bytes:
    return packed(code, b"".join(members), vendor=vendor, flags=flags)


def message(
    avps: Sequence[bytes],
    *,
    version: int = 1,
    flags: int = 0xC0,
    command: int = 272,
    application: int = 4,
    hop_by_hop: int = 0x01020304,
    end_to_end: int = 0x0A0B0C0D,
    length: int | None = None,
) -> bytes:
    body = b"".join(avps)
    size = 20 + len(body) if length is None else length
    return (
        struct.pack(">IIIII", version << 24 | size, flags << 24 | command, application, hop_by_hop, end_to_end) + body
    )


SESSION_ID = packed(263, b"gw.example.net;1;2")
ORIGIN_HOST = packed(264, b"gw.example.net")
ORIGIN_REALM = packed(296, b"example.net")
DESTINATION_REALM = packed(283, b"ocs.example.net")
AUTH_APPLICATION_ID = u32(258, 4)
SERVICE_CONTEXT_ID = packed(461, b"32251@3gpp.org")
REQUEST_TYPE = u32(416, 2)
REQUEST_NUMBER = u32(415, 7)

REQUIRED = {
    "Session-Id": SESSION_ID,
    "Origin-Host": ORIGIN_HOST,
    "Origin-Realm": ORIGIN_REALM,
    "Destination-Realm": DESTINATION_REALM,
    "Auth-Application-Id": AUTH_APPLICATION_ID,
    "Service-Context-Id": SERVICE_CONTEXT_ID,
    "CC-Request-Type": REQUEST_TYPE,
    "CC-Request-Number": REQUEST_NUMBER,
}

VENDOR_SPECIFIC_APPLICATION = group(260, u32(266, VENDOR_3GPP), u32(258, 4))


def required(*extra: bytes, without: Sequence[str] = (), **header: int) -> bytes:
    """A CCR of the required AVPs, less some, plus others."""
    avps = [avp for name, avp in REQUIRED.items() if name not in without]
    return message([*avps, *extra], **header)


def subscription(kind: int, data: bytes) -> bytes:
    return group(443, u32(450, kind), packed(444, data))


def gateway_update() -> bytes:
    """A CCR-U such as a packet gateway sends: two Rating-Groups, thresholds' reasons, PS-Information."""
    used = group(
        446,
        u32(872, 3, vendor=VENDOR_3GPP),
        u32(420, 61),
        u64(421, 1_500_000),
        u64(412, 500_000),
        u64(414, 1_000_000),
    )
    return required(
        packed(293, b"occ1.ocs.example.net"),
        u32(55, 1_700_000_000 + 2_208_988_800),
        subscription(1, b"262010000000001"),
        subscription(0, b"491700000001"),
        u32(436, 0),
        u32(2055, 1, vendor=VENDOR_3GPP),
        u32(455, 1),
        group(456, group(437, u64(421, 1_000_000)), used, u32(432, 10)),
        group(456, group(437), used, used, u32(439, 7), u32(439, 8), u32(432, 20), u32(872, 4, vendor=VENDOR_3GPP)),
        group(
            873,
            group(
                874,
                u32(2, 1, vendor=VENDOR_3GPP),
                packed(1227, b"\x00\x01\x0a\x2d\x00\x02", vendor=VENDOR_3GPP),
                packed(30, b"internet"),
                packed(18, b"26201", vendor=VENDOR_3GPP),
                packed(21, b"\x06", vendor=VENDOR_3GPP),
                vendor=VENDOR_3GPP,
            ),
            vendor=VENDOR_3GPP,
        ),
        packed(282, b"relay1.example.net"),
        group(284, packed(280, b"relay1.example.net"), packed(33, b"\x01\x02\x03")),
        packed(282, b"relay2.example.net"),
        group(284, packed(280, b"relay2.example.net"), packed(33, b"")),
    )


def call_update() -> bytes:
    """A CCR-U such as Kamailio's ims_charging sends: identity twice, no Auth-Application-Id of its own."""
    return message(
        [
            SESSION_ID,
            ORIGIN_HOST,
            ORIGIN_REALM,
            ORIGIN_HOST,
            ORIGIN_REALM,
            DESTINATION_REALM,
            u32(480, 3),
            u32(485, 0),
            packed(1, b"+491700000001"),
            packed(461, b"ext.01.262.8.32260@3gpp.org"),
            group(
                873,
                subscription(0, b"+491700000001"),
                group(
                    876,
                    u32(829, 0, vendor=VENDOR_3GPP),
                    packed(831, b"tel:+491700000001", vendor=VENDOR_3GPP),
                    packed(832, b"tel:+491700000002", vendor=VENDOR_3GPP),
                    vendor=VENDOR_3GPP,
                ),
                vendor=VENDOR_3GPP,
            ),
            VENDOR_SPECIFIC_APPLICATION,
            u32(416, 2),
            u32(415, 3),
            u32(55, 1_700_000_000 + 2_208_988_800, flags=0),
            group(458, u32(459, 1), packed(460, b"00-00-00-00-00-00")),
            subscription(0, b"+491700000001"),
            u32(455, 1),
            group(456, group(437, u32(420, 30)), u32(439, 1000), u32(432, 100), group(446, u32(420, 22))),
        ]
    )


def message_event() -> bytes:
    """A CCR-E such as an SMS centre sends, with the subscriber in Subscription-Id-Extension."""
    address = group(
        2027, u32(899, 1, vendor=VENDOR_3GPP), packed(897, b"491700000001", vendor=VENDOR_3GPP), vendor=10415
    )
    recipient = group(1201, u32(899, 1, vendor=VENDOR_3GPP), packed(897, b"491700000002", vendor=10415), vendor=10415)
    return required(
        u32(416, 4),
        u32(436, 0),
        group(659, packed(661, b"262010000000001", flags=0), packed(660, b"491700000001", flags=0), flags=0),
        u32(439, 9),
        group(437, u64(417, 1)),
        group(446, u64(417, 2), u32(452, 0)),
        group(446, group(413, group(445, packed(447, struct.pack(">q", -5))), u32(425, 978))),
        group(873, group(2000, address, group(2026, recipient, vendor=10415), vendor=10415), vendor=10415),
        u64(419, 77),
        u32(278, 1234),
        u32(295, 1),
        without=("CC-Request-Type",),
    )

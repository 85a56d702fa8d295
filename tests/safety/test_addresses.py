"""Hosts of private networks, and of the internet."""

from __future__ import annotations

import pytest

from airflow_imagetag.safety.addresses import (
    is_address,
    is_link_local,
    is_private,
    names_private_host,
)

PRIVATE = [
    "127.0.0.1",
    "127.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "0",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "192.168.257",
    "100.64.0.1",
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:169.254.169.254",
    "0:0:0:0:0:ffff:a00:1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::10.0.0.1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "::127.0.0.1",
    *("fec0::1", "64:ff9b:1::a00:1", "::ffff:0:127.0.0.1", "100::1", "5f00::1", "3fff::1"),
    *("2001:db8::1", "2001::1", "2001:2::1", "2001:20::1", "192.0.0.8", "192.0.2.1"),
    *("①⑥⑨.②⑤④.①⑥⑨.②⑤④", "169。254。169。254", "%31%36%39.254.169.254", "010.8.8.8"),
]
PUBLIC = [
    *("192.0.0.9", "192.0.0.10", "2001:3::1", "2002:808:808::", "::ffff:8.8.8.8"),
    "8.8.8.8",
    "134744072",
    "0x08080808",
    "1.1",
    "2606:4700:4700::1111",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_in_any_spelling(address: str):
    """Decimal, octal, hexadecimal, shortened, IPv6, and IPv4 inside IPv6."""
    assert is_address(address)
    assert is_private(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_in_any_spelling(address: str):
    """Addresses of the internet are not refused."""
    assert is_address(address)
    assert not is_private(address)


@pytest.mark.parametrize("name", ["shop.example", "localhost", "127.0.0.1.example", "", "a.b.c.d"])
def test_a_name_is_no_address(name: str):
    """It counts as private, like any text that is not an address."""
    assert not is_address(name)
    assert is_private(name)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.0.0.1:8080/a.jpg",
        "HTTP://USER:PASS@127.1/",
        "http://[::1]:80/",
        "http://[::ffff:10.0.0.1]/",
        "http://2130706433/",
        "http://localhost/",
        "http://LocalHost:1/",
        "http://localhost./",
        "http://app.localhost/",
        "http://printer.local/",
        "http://metadata.google.internal/",
        "http://169.254.169.254/latest",
        "http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/",
        "http:///127.0.0.1/",
        "http://127.0.0.1\\@shop.example/",
        "http://1.2.3.4.5/",
        "http://[broken/",
    ],
)
def test_a_url_names_a_private_host(url: str):
    """An address, or a name that is private by convention."""
    assert names_private_host(url)


@pytest.mark.parametrize(
    "url", ["https://shop.example/127.0.0.1", "http://8.8.8.8/", "https://localhost.example/", ""]
)
def test_a_url_names_a_public_host(url: str):
    """The path and the rest of the name do not count."""
    assert not names_private_host(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://169.254.169.254/latest", True),
        ("http://0xA9.0xFE.0xA9.0xFE/", True),
        ("http://[fe80::1%25eth0]/", True),
        ("http://[::ffff:a9fe:a9fe]/", True),
        ("http://10.0.0.1/", False),
        ("http://shop.example/169.254.169.254", False),
        ("http://[broken", False),
    ],
)
def test_a_url_of_a_clouds_metadata_service(url: str, expected: bool):
    """Link-local addresses in any spelling."""
    assert is_link_local(url) is expected

"""The channel to the viewer: it never waits, keeps the newest, and the order of each thread."""

import contextlib
import socket
import threading

from memorywam_robot.viewer.view_channel import MAX_MESSAGE_BYTES, EventChannel


def taken(reader):
    """Take all that has come."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(reader.recv(MAX_MESSAGE_BYTES))
    return found


def test_a_channel_keeps_the_newest_and_counts_the_rest():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        channel = EventChannel(ours, 3)
        big = bytes(MAX_MESSAGE_BYTES - 1)
        while not channel.num_dropped:
            channel.put(big)
        for letter in (b"a", b"b", b"c", b"d"):
            channel.put(letter)
        dropped = channel.num_dropped
        channel.put(bytes(MAX_MESSAGE_BYTES + 1))
        assert channel.num_dropped == dropped + 1
        theirs.settimeout(0.0)
        kept = taken(theirs)
        channel.put(b"e")  # "b" makes room: it was the oldest of those that waited
        assert channel.num_dropped == dropped + 2
        kept += taken(theirs)
        assert kept[-3:] == [b"c", b"d", b"e"]
        channel.finish(0.1)


def test_two_threads_may_tell_at_once():
    """As the loop's and the worker's do: nothing is lost, and the order of each is kept."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        channel = EventChannel(ours, 10_000)
        theirs.settimeout(5.0)
        got = []

        def read():
            while message := theirs.recv(100):
                got.append(message.decode())

        def tell(name):
            for number in range(2000):
                channel.put(f"{name} {number}".encode())

        threads = [threading.Thread(target=tell, args=(name,)) for name in "ab"]
        reader = threading.Thread(target=read)
        for thread in (reader, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        channel.finish(5.0)
        reader.join()
    assert len(got) == 4000
    assert channel.num_dropped == 0
    for name in "ab":
        numbers = [int(one.split()[1]) for one in got if one.startswith(name)]
        assert numbers == list(range(2000))

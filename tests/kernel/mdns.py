# A machine on the LAN that speaks multicast DNS, bytes by hand.
import random, select, socket, struct, sys, time

GROUP = ("224.0.0.251", 5353)

def name(text):
    labels = text.split(".")
    return b"".join(bytes([len(l)]) + l.encode() for l in labels) + b"\0"

def question(text, kind=1, unicast=False, known=b"", count=0):
    head = struct.pack("!6H", 0, 0, 1, count, 0, 0)
    return head + name(text) + struct.pack("!HH", kind, 0x8001 if unicast else 1) + known

def a(text, ip, ttl=120):
    head = name(text) + struct.pack("!HHIH", 1, 0x8001, ttl, 4)
    return head + socket.inet_aton(ip)

def answer(text, ip):
    return struct.pack("!6H", 0, 0x8400, 0, 1, 0, 0) + a(text, ip)

def sock(own, to=("", 5353)):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(to)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    # Each of the two has what is sent to its own address alone.
    s.setsockopt(socket.IPPROTO_IP, 49, 0)
    return s

def group(own):
    s = sock(own, GROUP)
    member = socket.inet_aton(GROUP[0]) + socket.inet_aton(own)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    return s

def heard(s, seconds):
    ready, _, _ = select.select([s], [], [], seconds)
    return s.recvfrom(9000) if ready else (b"", None)

# Has these names, and says so to whoever asks.
def rival(own, *names):
    s = group(own)
    print("ready", flush=True)
    while True:
        data, _ = heard(s, 60)
        for n in names:
            if name(n)[:-1] in data and not data[2] & 0x80:
                s.sendto(answer(n, own), GROUP)

# Claims a name that it was not asked about.
def claim(own, text):
    group(own).sendto(answer(text, own), GROUP)

# Asks in every way, and prints by which way the answer came.
def ask(own, text, ip):
    every, alone = group(own), sock(own, (own, 5353))
    def once(packet):
        alone.sendto(packet, GROUP)
        end = time.time() + 0.5
        got = []
        while (left := end - time.time()) > 0:
            ready, _, _ = select.select([every, alone], [], [], left)
            for s in ready:
                data, peer = s.recvfrom(9000)
                if data[2] & 0x80 and name(text)[:-1] in data:
                    assert peer == (ip, 5353), peer
                    got.append("group" if s is every else "alone")
                    last[0] = data
        time.sleep(1)
        return "+".join(sorted(got)) or "nothing"
    last = [b""]
    print("usual", once(question(text)))
    print("own", socket.inet_aton(ip) in last[0])
    print("unicast", once(question(text, unicast=True)))
    print("known", once(question(text, known=a(text, ip), count=1)))
    print("half", once(question(text, known=a(text, ip, 59), count=1)))
    print("other", once(question(text, known=a(text, own), count=1)))
    print("case", once(question(text.upper()).replace(b"LOCAL", b"LocaL")))
    print("aaaa", once(question(text, 28)), struct.pack("!H", 47) in last[0])
    print("foreign", once(question("x" + text)))

def unpack(data, at):
    labels, end = [], None
    while data[at]:
        if data[at] >= 0xc0:
            end = end or at + 2
            at = struct.unpack("!H", data[at:at + 2])[0] & 0x3fff
        else:
            labels.append(data[at + 1:at + 1 + data[at]].decode())
            at += 1 + data[at]
    return ".".join(labels), end or at + 1

# One question as a resolver asks that knows only unicast: from a port of its
# own, of the group. (dig takes answers from the address that it asked alone.)
def lookup(own, text, kind):
    kind = {"A": 1, "AAAA": 28, "PTR": 12}[kind]
    s = sock(own, (own, 0))
    number = random.randrange(65536)
    asked = struct.pack("!H", number) + question(text, kind)[2:]
    for _ in range(2):
        s.sendto(asked, GROUP)
        data, peer = heard(s, 0.7)
        if data:
            break
    else:
        return
    assert peer[1] == 5353, peer
    head = struct.unpack("!6H", data[:12])
    assert head[0] == number and head[1] & 0x8400 == 0x8400 and head[2] == 1, head
    assert data[12:len(asked)] == asked[12:], "the question does not come back"
    at = len(asked)
    for _ in range(head[3]):
        _, at = unpack(data, at)
        of, cls, ttl, length = struct.unpack("!HHIH", data[at:at + 10])
        at += 10
        assert cls == 1 and ttl <= 10, (cls, ttl)
        if of == 12:
            print(unpack(data, at)[0])
        elif of in (1, 28):
            print(socket.inet_ntop(socket.AF_INET if of == 1 else socket.AF_INET6, data[at:at + length]))
        at += length

# Noise: what is no message, and messages that lie.
def noise(own, text, ip):
    s = sock(own)
    random.seed(6762)
    whole = [question(text, 255), answer(text, ip), question(text, known=a(text, ip), count=1)]
    loop = struct.pack("!6H", 0, 0x8400, 0, 1, 0, 0) + b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 120, 4)
    deep = struct.pack("!6H", 0, 0, 1, 0, 0, 0) + b"\x01x\xc0\x0e\xc0\x0c" * 40
    many = struct.pack("!6H", 0, 0, 65535, 65535, 65535, 65535)
    for packet in [loop + b"abcd", deep, many, b"", b"\0", many + bytes(8000)]:
        s.sendto(packet, GROUP)
    for packet in whole:
        for end in range(len(packet)):
            s.sendto(packet[:end], GROUP)
        for _ in range(1500):
            bad = bytearray(packet)
            # Not the flags of an answer: a claim that is well made counts.
            bad[2] &= 0x7f
            for _ in range(random.randrange(1, 9)):
                bad[random.choice([0, 1, *range(4, len(bad))])] = random.randrange(256)
            s.sendto(bytes(bad), GROUP)
        time.sleep(0.2)
    # An answer from a port that is not 5353 is nobody's.
    sock(own, ("", 0)).sendto(answer(text, own), GROUP)

globals()[sys.argv[1]](*sys.argv[2:])

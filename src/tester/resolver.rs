//! A name's address by the name servers of /etc/resolv.conf, as the C
//! library asks them: in turn, over UDP, the name itself first if it has dots
//! enough, else within the search domains first.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use crate::base::Family;

/// What resolv.conf(5) says, and its defaults.
#[derive(Debug, PartialEq, Eq)]
struct Config {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: u32,
}

/// Why there is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// NXDOMAIN.
    Nowhere,
    /// The name exists, without an address of that family.
    NoAddress,
    /// No server has answered, or none would.
    NotNow,
}

impl Config {
    fn parse(text: &str) -> Self {
        let mut config = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                // The library takes three.
                Some("nameserver") if config.servers.len() < 3 => {
                    config
                        .servers
                        .extend(words.next().and_then(|w| w.parse::<IpAddr>().ok()));
                }
                Some("search" | "domain") => config.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| config.option(word)),
                _ => {}
            }
        }
        config
    }

    fn option(&mut self, word: &str) {
        let Some((name, Ok(value))) = word.split_once(':').map(|(n, v)| (n, v.parse::<u32>()))
        else {
            return;
        };
        match name {
            "ndots" => self.ndots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }

    /// What is asked for, one after the other.
    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let searched = self.search.iter().filter(|domain| *domain != ".");
        let mut all: Vec<String> = searched.map(|domain| format!("{name}.{domain}")).collect();
        let own = if name.matches('.').count() >= self.ndots {
            0
        } else {
            all.len()
        };
        all.insert(own, name.to_owned());
        all
    }
}

/// Of that family; without one, an IPv4 address if there is one.
pub(super) fn address(name: &str, family: Option<Family>) -> Result<IpAddr, Unknown> {
    let families = family.map_or(Family::BOTH.to_vec(), |family| vec![family]);
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let config = Config::parse(&text);
    let mut why = Unknown::Nowhere;
    for candidate in config.candidates(name) {
        for family in &families {
            match ask(&config, &candidate, *family) {
                Err(Unknown::Nowhere) => break,
                Err(Unknown::NoAddress) => why = Unknown::NoAddress,
                other => return other,
            }
        }
    }
    Err(why)
}

/// One name, of all servers.
fn ask(config: &Config, name: &str, family: Family) -> Result<IpAddr, Unknown> {
    // What cannot be asked for is nowhere.
    let id = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
    let question = question(id, name, family).ok_or(Unknown::Nowhere)?;
    for _ in 0..config.attempts {
        for server in &config.servers {
            // Where it refuses or is silent, another may know better.
            if let Ok(Some(answer)) = exchange(*server, &question, config.timeout) {
                return answer;
            }
        }
    }
    Err(Unknown::NotNow)
}

fn question(id: u16, name: &str, family: Family) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let kind = match family {
        Family::Ipv4 => TYPE::A,
        Family::Ipv6 => TYPE::AAAA,
    };
    let (kind, class) = (QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN));
    packet
        .questions
        .push(Question::new(Name::new(name).ok()?, kind, class, false));
    packet.build_bytes_vec().ok()
}

/// `None`: the server does not want to, or says nothing.
fn exchange(
    server: IpAddr,
    question: &[u8],
    timeout: Duration,
) -> std::io::Result<Option<Result<IpAddr, Unknown>>> {
    let any: SocketAddr = match server {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect((server, 53))?;
    socket.send(question)?;
    let end = Instant::now() + timeout;
    let mut buffer = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if let Some(answer) = judge(question, &buffer[..length]) {
            return Ok(answer);
        }
    }
}

/// `None`: no answer to this; `Some(None)`: a server that cannot tell.
fn judge(question: &[u8], bytes: &[u8]) -> Option<Option<Result<IpAddr, Unknown>>> {
    let asked = Packet::parse(question).ok()?;
    let packet = Packet::parse(bytes).ok()?;
    if packet.id() != asked.id() || !packet.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let first = packet
        .answers
        .iter()
        .find_map(|record| match &record.rdata {
            RData::A(a) => Some(IpAddr::V4(a.address.into())),
            RData::AAAA(a) => Some(IpAddr::V6(a.address.into())),
            _ => None,
        });
    Some(match (packet.rcode(), first) {
        (RCODE::NoError, Some(addr)) => Some(Ok(addr)),
        (RCODE::NoError, None) => Some(Err(Unknown::NoAddress)),
        (RCODE::NameError, _) => Some(Err(Unknown::Nowhere)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::A;

    #[test]
    fn what_resolv_conf_says() {
        let config = Config::parse(
            "# c\nnameserver 127.0.0.11\nnameserver nonsense\nsearch a.example b.example\n\
             options ndots:2 timeout:1 edns0\n",
        );
        assert_eq!(config.servers, [IpAddr::from([127, 0, 0, 11])]);
        assert_eq!((config.ndots, config.timeout), (2, Duration::from_secs(1)));
        assert_eq!(
            config.candidates("web"),
            ["web.a.example", "web.b.example", "web"]
        );
        assert_eq!(config.candidates("x.y.z")[0], "x.y.z");
        assert_eq!(config.candidates("web."), ["web"]);
    }

    #[test]
    fn an_answer_is_taken_and_nothing_else() {
        let sent = question(7, "web", Family::Ipv4).unwrap();
        assert_eq!(judge(&sent, &sent), None);
        assert_eq!(judge(&sent, b"noise"), None);
        let mut reply = Packet::new_reply(7);
        assert_eq!(
            judge(&sent, &reply.build_bytes_vec().unwrap()),
            Some(Some(Err(Unknown::NoAddress)))
        );
        let ip = Ipv4Addr::new(10, 0, 2, 5);
        let (name, data) = (Name::new("web").unwrap(), RData::A(A::from(ip)));
        reply
            .answers
            .push(ResourceRecord::new(name, CLASS::IN, 600, data));
        assert_eq!(
            judge(&sent, &reply.build_bytes_vec().unwrap()),
            Some(Some(Ok(ip.into())))
        );
        *reply.rcode_mut() = RCODE::NameError;
        assert_eq!(
            judge(&sent, &reply.build_bytes_vec().unwrap()),
            Some(Some(Err(Unknown::Nowhere)))
        );
    }
}

//! Addresses of clients: which of them count as one, which proxies are believed, and what these say.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use hyper::header::{HeaderMap, HeaderName};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits, which is what one subscriber gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressKey(IpAddr);

impl AddressKey {
    /// The key of an address.
    pub fn new(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        })
    }

    /// Whether one such address may well stand for many people behind a proxy of the same network: loopback, private,
    /// link-local and shared ranges.
    pub fn is_local(&self) -> bool {
        match self.0 {
            IpAddr::V4(address) => {
                let [first, second, ..] = address.octets();
                address.is_loopback() || address.is_private() || address.is_link_local() || (first == 100 && second & 0xc0 == 64)
            }
            // `::1` is in the network `::/64` by now.
            IpAddr::V6(address) => address.segments()[..4] == [0; 4] || address.is_unique_local() || address.is_unicast_link_local(),
        }
    }
}

/// Addresses with a common beginning: `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

/// A text that is no address and no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor a network such as 10.0.0.0/8")]
pub struct NotANetwork(String);

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let refused = || NotANetwork(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix.map_or(Ok(bits), str::parse).map_err(|_| refused())?;
        if prefix_bits > bits { Err(refused()) } else { Ok(Self { address, prefix_bits }) }
    }
}

impl Network {
    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |ours: u128, theirs: u128, bits: u32| {
            let shift = bits - self.prefix_bits;
            ours.checked_shr(shift).unwrap_or(0) == theirs.checked_shr(shift).unwrap_or(0)
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => same(ours.to_bits().into(), theirs.to_bits().into(), 32),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same(ours.to_bits(), theirs.to_bits(), 128),
            _ => false,
        }
    }
}

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address; of the client itself where a trusted proxy says so.
    pub address: IpAddr,
    /// Whether it came over TLS, here or at a trusted proxy.
    pub secure: bool,
    /// Whether a trusted proxy speaks for it, on a connection that it may share with others.
    pub forwarded: bool,
}

impl Client {
    /// Who is behind a connection, by its address and what its headers say if it is a trusted proxy.
    pub fn of(remote: IpAddr, secure: bool, headers: &HeaderMap, trusted: &[Network]) -> Self {
        let is_trusted = |address| trusted.iter().any(|network| network.contains(address));
        let direct = Self { address: remote.to_canonical(), secure, forwarded: false };
        if !is_trusted(remote) {
            return direct;
        }
        let mut client = Self { secure: last_value(headers, &FORWARDED_PROTO).map_or(secure, |proto| proto == "https"), ..direct };
        // From the right, each hop was written by the one after it: the first that is not trusted is the client.
        for hop in values(headers, &FORWARDED_FOR).into_iter().rev() {
            let Some(address) = hop_address(hop) else { break };
            client = Self { address, forwarded: true, ..client };
            if !is_trusted(address) {
                break;
            }
        }
        client
    }
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name);
    // What is no text hides what stands before it, as any hop that cannot be read does.
    lines.iter().flat_map(|line| line.to_str().unwrap_or("?").split(',')).map(str::trim).collect()
}

fn last_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    values(headers, name).pop()
}

/// An address as proxies write it, with or without a port.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let address = hop.parse().or_else(|_| hop.parse::<std::net::SocketAddr>().map(|address| address.ip()));
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.ok().or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_client_and_mapped_addresses_are_ipv4() {
        assert_eq!(AddressKey::new(ip("2001:db8::1")), AddressKey::new(ip("2001:db8::ffff:1:2:3")));
        assert_ne!(AddressKey::new(ip("2001:db8::1")), AddressKey::new(ip("2001:db8:0:1::1")));
        assert_eq!(AddressKey::new(ip("::ffff:1.2.3.4")), AddressKey::new(ip("1.2.3.4")));
        assert_ne!(AddressKey::new(ip("1.2.3.4")), AddressKey::new(ip("1.2.3.5")));
        for local in ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "172.16.0.9", "169.254.0.1", "100.64.0.1", "fd00::1", "fe80::1"] {
            assert!(AddressKey::new(ip(local)).is_local(), "{local}");
        }
        for public in ["1.2.3.4", "100.128.0.1", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(!AddressKey::new(ip(public)).is_local(), "{public}");
        }
    }

    #[test]
    fn networks_contain_what_begins_like_them() {
        let contains = |network: &str, address: &str| network.parse::<Network>().unwrap().contains(ip(address));
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(contains("10.9.9.9/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(!contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("0.0.0.0/0", "9.9.9.9"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1"));
        for wrong in ["", "x", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0/8", "::1/129", "10.0.0.0/8/8"] {
            assert_eq!(wrong.parse::<Network>(), Err(NotANetwork(wrong.to_owned())));
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed_and_only_as_far_as_they_are() {
        let trusted = [Network::from_str("127.0.0.1").unwrap(), Network::from_str("10.0.0.0/8").unwrap()];
        let client = |remote: &str, forwarded_for: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in forwarded_for {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            Client::of(ip(remote), false, &headers, &trusted).address.to_string()
        };
        assert_eq!(client("9.9.9.9", &["1.1.1.1"]), "9.9.9.9");
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["1.1.1.1"]), "1.1.1.1");
        assert_eq!(client("127.0.0.1", &["6.6.6.6, 1.1.1.1"]), "1.1.1.1", "what the client wrote itself is left alone");
        assert_eq!(client("127.0.0.1", &["6.6.6.6, 1.1.1.1, 10.3.3.3"]), "1.1.1.1");
        assert_eq!(client("127.0.0.1", &["6.6.6.6", "1.1.1.1 , 10.3.3.3"]), "1.1.1.1");
        assert_eq!(client("127.0.0.1", &["10.4.4.4, 10.3.3.3"]), "10.4.4.4");
        assert_eq!(client("127.0.0.1", &["1.1.1.1, garbage"]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["garbage, 10.3.3.3"]), "10.3.3.3");
        assert_eq!(client("127.0.0.1", &["1.1.1.1:4711"]), "1.1.1.1");
        assert_eq!(client("127.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client("127.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client("127.0.0.1", &["::ffff:1.1.1.1"]), "1.1.1.1");
    }

    #[test]
    fn a_trusted_proxy_says_whether_the_client_came_over_tls() {
        let trusted = [Network::from_str("127.0.0.1").unwrap()];
        let secure = |remote: &str, direct: bool, proto: Option<&str>| {
            let headers = HeaderMap::from_iter(proto.map(|proto| (FORWARDED_PROTO, proto.parse().unwrap())));
            Client::of(ip(remote), direct, &headers, &trusted).secure
        };
        assert!(secure("127.0.0.1", false, Some("https")));
        assert!(!secure("127.0.0.1", false, Some("http")));
        assert!(!secure("127.0.0.1", true, Some("http")));
        assert!(secure("127.0.0.1", true, None));
        assert!(!secure("127.0.0.1", false, Some("https, http")));
        assert!(!secure("9.9.9.9", false, Some("https")));
        assert!(secure("9.9.9.9", true, Some("http")));
    }

    fn hop() -> impl Strategy<Value = String> {
        let address = prop_oneof![any::<std::net::Ipv4Addr>().prop_map(IpAddr::V4), any::<std::net::Ipv6Addr>().prop_map(IpAddr::V6)];
        let written = (address, any::<u16>()).prop_flat_map(|(address, port)| {
            let socket = std::net::SocketAddr::new(address, port).to_string();
            prop_oneof![Just(address.to_string()), Just(socket), Just(format!("[{address}]")), Just(format!("10.0.0.{}", port % 256))]
        });
        prop_oneof![4 => written, 1 => "[ -~]{0,20}"]
    }

    proptest! {
        #[test]
        fn whatever_proxies_write_is_an_address_of_theirs_or_of_the_connection(
            lines in proptest::collection::vec(proptest::collection::vec(hop(), 0..4), 0..4), proto in "[ -~]{0,8}", trusted_remote: bool
        ) {
            let trusted = [Network::from_str("10.0.0.0/8").unwrap()];
            let remote = ip(if trusted_remote { "10.9.9.9" } else { "9.9.9.9" });
            let mut headers = HeaderMap::from_iter(proto.parse().ok().map(|proto| (FORWARDED_PROTO, proto)));
            for line in &lines {
                headers.append(FORWARDED_FOR, line.join(", ").parse().unwrap());
            }
            let client = Client::of(remote, false, &headers, &trusted);
            let written = lines.concat().iter().flat_map(|hop| hop.split(',')).filter_map(|hop| hop_address(hop.trim())).any(|hop| hop == client.address);
            let explained = if client.forwarded { trusted_remote && written } else { client.address == remote };
            prop_assert!(explained);
            prop_assert!(!client.secure || (trusted_remote && proto.trim().ends_with("https")));
        }

        #[test]
        fn any_text_is_a_network_that_contains_itself_or_none(text in "[0-9a-f:./]{0,24}|[ -~]{0,24}") {
            if let Ok(network) = text.parse::<Network>() {
                let start = text.split('/').next().unwrap_or_default();
                prop_assert!(network.contains(ip(start)), "{text}");
            }
        }
    }
}
